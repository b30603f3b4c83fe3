"""The places that a photo may be from, embedded once: the most similar one of each class.

Up to :data:`EXACT` points are compared one by one. Of more, the points of each class lie along the Hilbert curve of S2
and are cut into leaves, whose embeddings are much alike. A photo is compared with the mean of every leaf, then with the
points of the leaves that may hold the best one, the most promising first. What a class has in no such leaf counts by
its leaf's mean.

This search is approximate. A bound that always holds (no point is further from the mean than the furthest) would leave
hardly any leaf out: it expects points to deviate straight towards the photo, and in so many dimensions nearly all
deviate across. So a leaf is left out if its mean lies :data:`SPREADS` standard deviations, measured for each photo,
behind the best point found. ``tests/benchmarks/bench_geoclip.py`` measures how often the best point of all is found.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from geoloc_core.blocks import blocks
from geoloc_core.contracts import mapped
from geoloc_core.errors import UserError
from geoloc_core.geo import s2
from geoloc_core.threads import side_by_side

Embed = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Latitudes (N,) and longitudes (N,) in degrees → (N, D) float32 of unit length."""
Precision = Literal["float32", "float16"]

EXACT = 2**17
"""Points up to which each is compared with each photo."""
LEAF = 256
"""Points of a leaf, at most."""
PROBES = 64
"""Leaves whose points a photo is compared with at a time, and at least."""
MOST = 1024
"""Such leaves, at most."""
SPREADS = 5.0
"""Standard deviations that the best point of a leaf is expected above its mean, at most."""
BLOCK = 2**24
"""Similarities, or numbers of embeddings in float32, that are worked on at a time, at most."""
BUILT = 64
"""Leaves that are embedded at a time."""
NOWHERE = -1
"""The point of a class that has none."""
LEAST = np.float32(-1)
"""The similarity of such a class: the least that there is."""
FILE = "gallery.safetensors"


@dataclass(frozen=True)
class Gallery:
    """M points of C classes, class by class.

    Attributes:
        latitudes: (M,) degrees.
        longitudes: (M,) degrees.
        embeddings: (M, D) of unit length, float32 or float16; may be memory-mapped.
        classes: (C + 1,) int64 where the points of each class begin, and where the last ones end.
        leaves: (L + 1,) int64 where each leaf begins, and where the last one ends; each is of one class.
        means: (L, D) float32 of the leaves' embeddings.
    """

    latitudes: np.ndarray
    longitudes: np.ndarray
    embeddings: np.ndarray
    classes: np.ndarray
    leaves: np.ndarray
    means: np.ndarray

    def __len__(self) -> int:
        return len(self.latitudes)

    @property
    def counts(self) -> np.ndarray:
        """(C,) points of each class."""
        return np.diff(self.classes)

    @classmethod
    def build(
        cls,
        embed: Embed,
        latitudes: np.ndarray,
        longitudes: np.ndarray,
        classes: np.ndarray,
        count: int,
        precision: Precision = "float32",
    ) -> "Gallery":
        """Embed points, those at the same coordinates once.

        Args:
            embed: See :data:`Embed`.
            latitudes: (M,) degrees; M > 0.
            longitudes: (M,) degrees.
            classes: (M,) int64 of each point.
            count: C.
            precision: Of the embeddings that are kept.
        """
        _, first = np.unique(np.stack((latitudes, longitudes)), axis=1, return_index=True)
        kept = np.sort(first)
        kept = kept[np.lexsort((s2.leaves(latitudes[kept], longitudes[kept]), classes[kept]))]
        latitudes, longitudes = latitudes[kept], longitudes[kept]
        starts = np.searchsorted(classes[kept], np.arange(count + 1))
        leaves = _cut(starts)
        width = embed(latitudes[:1], longitudes[:1]).shape[1]
        embeddings = np.empty((len(kept), width), precision)
        means = np.empty((len(leaves) - 1, width), np.float32)
        for at in range(0, len(leaves) - 1, BUILT):
            edges = leaves[at : at + BUILT + 1]
            part = embed(latitudes[edges[0] : edges[-1]], longitudes[edges[0] : edges[-1]])
            rounded = embeddings[edges[0] : edges[-1]]
            rounded[:] = part
            sums = np.add.reduceat(rounded.astype(np.float32), edges[:-1] - edges[0], axis=0)
            means[at : at + BUILT] = sums / np.diff(edges)[:, None]
        return cls(latitudes, longitudes, embeddings, starts, leaves, means)

    @cached_property
    def of_leaf(self) -> np.ndarray:
        """(L,) int64 class of each leaf."""
        found: np.ndarray = np.searchsorted(self.classes, self.leaves[:-1], side="right") - 1
        return found

    @cached_property
    def spread(self) -> np.ndarray:
        """(L,) float32 how far the points of each leaf lie around its mean: the root of the mean square."""
        return np.sqrt(np.maximum(1 - np.einsum("ld,ld->l", self.means, self.means), 0))

    def best(
        self, images: np.ndarray, exact: int = EXACT, probes: int = PROBES, most: int = MOST
    ) -> tuple[np.ndarray, np.ndarray]:
        """The point of each class that is most similar to each photo; of equal ones the first.

        Args:
            images: (N, D) float32 of unit length.
            exact: Points up to which each is compared with each photo.
            probes: Of more, the leaves whose points a photo is compared with at a time, and at least.
            most: Such leaves, at most.

        Returns:
            Cosines (N, C) float32, :data:`LEAST` of a class without points.
            Points (N, C) int64, :data:`NOWHERE` likewise.
        """
        keys = np.full((len(images), len(self.counts)), _key(LEAST, NOWHERE), np.int64)
        if len(self) <= exact:
            self._compare(images, keys)
        else:
            for some in blocks(len(images), BLOCK, len(self.means)):
                self._probe(images[some], keys[some], probes, most)
        return _unpacked(keys)

    def _compare(self, images: np.ndarray, keys: np.ndarray) -> None:
        """Raise the keys (N, C) by those of all points, block by block."""
        step = max(LEAF, BLOCK // max(len(images), 1))
        for start in range(0, len(self), step):
            block = np.asarray(self.embeddings[start : start + step], np.float32)
            found = _key(images @ block.T, np.arange(start, start + len(block)))
            begun = (self.classes[1:] > start) & (self.classes[:-1] < start + len(block))
            there = np.flatnonzero(begun & (self.counts > 0))
            first = np.maximum(self.classes[there] - start, 0)
            keys[:, there] = np.maximum(keys[:, there], np.maximum.reduceat(found, first, axis=1))

    def _probe(self, images: np.ndarray, keys: np.ndarray, probes: int, most: int) -> None:
        """Raise the keys (N, C) by those of the leaves' means, and of the points of the most promising leaves."""
        means = images @ self.means.T
        there = np.flatnonzero(self.counts)
        first = np.searchsorted(self.of_leaf, there)
        coarse = np.maximum.reduceat(_key(means, self.leaves[:-1]), first, axis=1)
        keys[:, there] = np.maximum(keys[:, there], coarse)

        def search(row: int) -> None:
            self._search(images[row], means[row], keys[row], probes, most)

        if len(images) == 1:
            search(0)
        else:
            side_by_side(search, range(len(images)))

    def _search(self, image: np.ndarray, means: np.ndarray, keys: np.ndarray, probes: int, most: int) -> None:
        """Raise the keys (C,) of one photo by those of the points of leaves, some leaves at a time.

        A photo that is like no place in particular has as much of its length in each dimension. So the points of a leaf
        deviate from its mean by ``spread / sqrt(D)``: the first leaves are chosen by that, and tell by how much the
        others deviate for this photo.

        Args:
            image: (D,) float32.
            means: (L,) its products with the leaves' means.
            keys: (C,), see :func:`_key`.
            probes: Leaves at a time.
            most: Of all.
        """
        hoped = means + np.float32(SPREADS / np.sqrt(len(image))) * self.spread
        some = _greatest(hoped, probes)
        counts = self.leaves[some + 1] - self.leaves[some]
        above = self._look(image, keys, some) - np.repeat(means[some], counts)
        around = max(counts @ self.spread[some] ** 2, np.finfo(np.float32).tiny)
        hoped = means + np.float32(SPREADS * np.sqrt(above @ above / around)) * self.spread
        hoped[some] = -np.inf
        others = _greatest(hoped, most - len(some))
        for part in blocks(len(others), probes):
            some = others[part]
            if hoped[some[0]] < _unpacked(keys.max())[0]:
                break
            self._look(image, keys, some)

    def _look(self, image: np.ndarray, keys: np.ndarray, leaves: np.ndarray) -> np.ndarray:
        """Raise the keys (C,) of one photo by those of all points of some leaves, and return the points' cosines."""
        from geoloc_core.families.geoclip import kernels

        counts = self.leaves[leaves + 1] - self.leaves[leaves]
        starts = np.cumsum(counts) - counts
        points = np.arange(counts.sum()) + np.repeat(self.leaves[leaves] - starts, counts)
        cosines = kernels.cosines(self.embeddings, points, image)
        np.maximum.at(keys, self.of_leaf[leaves], np.maximum.reduceat(_key(cosines, points), starts))
        return cosines

    def save(self, path: Path) -> None:
        """Write into a file ``*.safetensors``."""
        arrays = {name: getattr(self, name) for name in ("latitudes", "longitudes", "embeddings", "leaves", "means")}
        mapped.write(path, arrays)

    @classmethod
    def load(cls, path: Path, counts: np.ndarray, remedy: str) -> "Gallery":
        """Map what :meth:`save` wrote into memory.

        Args:
            path: The file.
            counts: (C,) points of each class.
            remedy: What makes it again.

        Raises:
            UserError: It is missing or damaged, or does not fit the classes.
        """
        arrays = mapped.read(path, remedy)
        expected = {"latitudes": 1, "longitudes": 1, "embeddings": 2, "leaves": 1, "means": 2}
        if wrong := [name for name, ndim in expected.items() if name not in arrays or arrays[name].ndim != ndim]:
            raise UserError(f"{path}: no array {wrong[0]!r} of {expected[wrong[0]]} dimensions; {remedy}")
        points, leaves = np.asarray(arrays["latitudes"]), np.asarray(arrays["leaves"])
        m, d = arrays["embeddings"].shape
        classes = np.concatenate([[0], np.cumsum(counts)])
        fits = (
            m > 0
            and len(points) == len(arrays["longitudes"]) == classes[-1] == m
            and arrays["means"].shape == (len(leaves) - 1, d)
            and leaves[0] == 0
            and leaves[-1] == m
            and (np.diff(leaves) > 0).all()
            and np.isin(classes, leaves).all()
        )
        if not fits:
            raise UserError(f"{path}: {m} points in {len(leaves) - 1} leaves; expected {classes[-1]} points; {remedy}")
        return cls(points, np.asarray(arrays["longitudes"]), arrays["embeddings"], classes, leaves, arrays["means"])


def _cut(classes: np.ndarray) -> np.ndarray:
    """Where leaves of about the same size begin, and where the last one ends, of points class by class.

    Args:
        classes: (C + 1,) where each class begins, and where the last one ends.
    """
    counts = np.diff(classes)
    leaves = -(-counts // LEAF)
    number = np.arange(leaves.sum()) - np.repeat(np.cumsum(leaves) - leaves, leaves)
    starts = np.repeat(classes[:-1], leaves) + number * np.repeat(counts, leaves) // np.repeat(leaves, leaves)
    return np.concatenate([starts, classes[-1:]])


def _greatest(values: np.ndarray, count: int) -> np.ndarray:
    """Where the greatest of some values (L,) are, falling: so many, or all but those that are −∞."""
    count = min(count, int(np.count_nonzero(values != -np.inf)))
    if count < 1:
        return np.empty(0, np.int64)
    chosen = np.argpartition(-values, count - 1)[:count]
    found: np.ndarray = chosen[np.argsort(-values[chosen], kind="stable")]
    return found


def _key(cosines: np.ndarray | np.float32, points: np.ndarray | int) -> np.ndarray:
    """Cosines and points as one integer each: the greater cosine is the greater one, of equal ones the first point.

    The bits of a float, read as an integer, order positive numbers as the numbers; those of negative ones are turned.
    """
    ordered = _turned(np.asarray(cosines, np.float32).view(np.int32)).astype(np.int64)
    keys: np.ndarray = (ordered << 32) | (0xFFFFFFFF - (np.asarray(points, np.int64) & 0xFFFFFFFF))
    return keys


def _unpacked(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cosines and points of :func:`_key`."""
    points = 0xFFFFFFFF - (keys & 0xFFFFFFFF)
    cosines = _turned((keys >> 32).astype(np.int32)).view(np.float32)
    return cosines, np.where(points == 0xFFFFFFFF, NOWHERE, points)


def _turned(bits: np.ndarray) -> np.ndarray:
    """Bits int32 of floats with those of negative ones turned, but for the sign; undone by doing it again."""
    found: np.ndarray = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return found
