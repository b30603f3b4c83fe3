"""Photos as training reads them: decoded and scaled once and memory-mapped, or read from the shards in each epoch."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from geoloc_core import parquet
from geoloc_core.corpora import manifest
from geoloc_core.encoders.preprocess import Preprocess
from geoloc_core.errors import UserError
from geoloc_core.files import digest, new_array, read_array, replacing
from geoloc_core.progress import track
from geoloc_core.project import Project
from geoloc_core.sets import Split
from geoloc_core.training.ahead import ahead
from geoloc_core.training.processes import is_first, wait_for

if TYPE_CHECKING:
    import pyarrow as pa
    import torch


WINDOW = 32
"""Row groups whose photos are shuffled among each other where photos are read from the shards: 8,000, some hundred
megabytes while encoded."""


@dataclass(frozen=True)
class Photos:
    """Pictures in shards, decoded and scaled: all at once where that fits, else when they are asked for.

    Attributes:
        folder: A corpus as ingested, or the features that a segmenter cut from it.
        preprocess: How pictures are scaled.
        shards: (N,) number of the shard of each picture.
        rows: (N,) row of each picture within its shard.
        array: (N, size, size, 3) uint8, memory-mapped; None where pictures are read from the shards.
    """

    folder: Path
    preprocess: Preprocess
    shards: np.ndarray
    rows: np.ndarray
    array: np.ndarray | None

    @classmethod
    def open(cls, folder: Path, preprocess: Preprocess, cache: Path, limit_gb: float = np.inf) -> "Photos":
        """Look at all photos of a corpus folder: see :meth:`of`."""
        table = manifest.read_manifest(folder, ["shard", "row"])
        shards, rows = (table[name].to_numpy() for name in ("shard", "row"))
        return cls.of(folder, shards, rows, preprocess, cache, limit_gb)

    @classmethod
    def of(
        cls,
        folder: Path,
        shards: np.ndarray,
        rows: np.ndarray,
        preprocess: Preprocess,
        cache: Path,
        limit_gb: float = np.inf,
    ) -> "Photos":
        """Look at some of the pictures that lie in the shards of a folder.

        Args:
            folder: Holds ``shards/00000.parquet`` … with a column ``image``.
            shards: (N,) number of the shard of each picture.
            rows: (N,) row of each picture within its shard.
            preprocess: How pictures are scaled.
            cache: The ``.npy`` that holds the scaled pictures between runs; its name gets what the choice of pictures
                and the preparation are known by, so that no other is used.
            limit_gb: Size up to which there is a cache; above it, pictures are read from the shards in each epoch.
        """
        found = cls(folder, preprocess, shards, rows, None)
        large = len(rows) * preprocess.size**2 * 3 > limit_gb * 1e9
        return found if large else replace(found, array=found._scaled(cache))

    @property
    def groups(self) -> np.ndarray:
        """(N,) the row group that holds each photo, counted through all shards."""
        return self.shards.astype(np.int64) << 32 | self.rows // manifest.ROW_GROUP

    def order(self, rows: np.ndarray, seed: int, epoch: int) -> np.ndarray:
        """Rows in the order of an epoch, which depends on seed, epoch and :attr:`shuffled` alone: see :func:`order`.

        What is decoded already is shuffled whole: corpora often lie country by country, and a window of neighbours
        would be of few of them.
        """
        return order(rows, self.groups if self.array is None else np.zeros(len(self.rows), np.int64), seed, epoch)

    @property
    def shuffled(self) -> str | int:
        """Among how many row groups photos are shuffled: all, or those of a window."""
        return WINDOW if self.array is None else "all"

    def read(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The photos of each batch of rows, (n, size, size, 3) uint8; the next batch is made ready meanwhile."""
        array = self.array
        return ahead(self._stream(batches) if array is None else (array[batch] for batch in batches))

    def _stream(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        groups = self.groups
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            held: dict[int, pa.Array] = {}
            for batch in batches:
                photos = []
                for row in batch:
                    group = int(groups[row])
                    held[group] = held.pop(group) if group in held else self._group(group)
                    photos.append(held[group][int(self.rows[row]) % manifest.ROW_GROUP].as_py())
                for old in list(held)[: -2 * WINDOW]:  # a batch may lie in two windows
                    del held[old]
                out = np.empty((len(photos), self.preprocess.size, self.preprocess.size, 3), np.uint8)
                list(pool.map(self._write, batch, photos, out))
                yield out

    def _group(self, group: int) -> "pa.Array":
        path = manifest.shard_path(self.folder, group >> 32)
        with parquet.opened(path, manifest.again(path), memory_map=True) as file:
            images = file.read_row_group(group & 0xFFFFFFFF, columns=["image"])["image"]
        return images.combine_chunks().field("bytes")

    def _write(self, row: int, photo: bytes, out: np.ndarray) -> None:
        """Decode and scale one picture into an array (size, size, 3) uint8."""
        try:
            self.preprocess.write(photo, out)
        except UserError as error:
            shard = manifest.shard_path(self.folder, int(self.shards[row]))
            named = manifest.read_ids(shard)[int(self.rows[row])]
            raise UserError(f"{self.folder}: {named}: {error}; {manifest.again(shard)}") from None

    def _scaled(self, cache: Path) -> np.ndarray:
        """All pictures as (N, size, size, 3) uint8, memory-mapped from a file named like ``cache``."""
        known_by = hashlib.sha256(json.dumps(self.preprocess.to_json(), sort_keys=True).encode())
        for which in (self.shards, self.rows):
            known_by.update(which.astype("<i8").tobytes())
        cache = cache.with_name(f"{cache.stem}-{known_by.hexdigest()[:8]}.npy")
        if not is_first():
            wait_for(cache)
        shape = (len(self.rows), self.preprocess.size, self.preprocess.size, 3)
        if not cache.is_file() or read_array(cache, "remove it and run the same command again").shape != shape:
            with replacing(cache) as aside, ThreadPoolExecutor(os.cpu_count()) as pool:
                array = new_array(aside, np.uint8, shape)
                order = np.lexsort((self.rows, self.groups))
                cuts = np.flatnonzero(np.diff(self.groups[order])) + 1
                parts = [part for part in np.split(order, cuts) if len(part)]
                for part in track(parts, f"scale {self.folder.name}", len(order), "photos", len):
                    group = self._group(int(self.groups[part[0]]))
                    photos = (group[int(self.rows[row]) % manifest.ROW_GROUP].as_py() for row in part)
                    list(pool.map(self._write, part, photos, (array[row] for row in part)))
                array.flush()
        return read_array(cache)


def fingerprint(project: Project, corpus: str) -> str:
    """A digest of a corpus' photos, of what is published beside them, and of its split."""
    folder = project.corpus(corpus)
    return digest(folder / "manifest.parquet", folder / "attributes.parquet", project.labels(corpus))


def scaled(
    project: Project, corpus: str, preprocess: Preprocess, partial: Path, limit_gb: float = np.inf
) -> tuple[Photos, str]:
    """All photos of a corpus, scaled in a folder of unfinished work, and :func:`fingerprint` of them."""
    made_of = fingerprint(project, corpus)
    return Photos.open(project.corpus(corpus), preprocess, partial / f"{made_of[:16]}.npy", limit_gb), made_of


def batches_per_epoch(rows: np.ndarray, batch: int, corpus: str) -> int:
    """How many whole batches an epoch has.

    Raises:
        UserError: There is not even one.
    """
    if len(rows) < batch:
        raise UserError(f"corpus {corpus}: {len(rows)} training photos; expected at least {batch}, one batch")
    return len(rows) // batch


def training_rows(project: Project, corpus: str) -> np.ndarray:
    """Rows of a corpus that may be trained on (n,) int64: never those held out for validation or test."""
    labels = manifest.read_table(project.labels(corpus), manifest.LABELS, ["split"])
    split = labels["split"].to_numpy(zero_copy_only=False)
    return np.flatnonzero(split == Split.TRAIN)


def attribute(project: Project, corpus: str, column: str) -> list:
    """One column of a corpus's published attributes, row-aligned with the manifest.

    Raises:
        UserError: The corpus publishes no such column.
    """
    path = project.corpus(corpus) / "attributes.parquet"
    return parquet.read(path, f"expected it there; run `geoloc ingest {corpus}`", [column])[column].to_pylist()


def order(rows: np.ndarray, groups: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Rows in the order of an epoch, which depends on seed and epoch alone.

    Row groups are shuffled, then the photos of each :data:`WINDOW` of them: a corpus that is read from its shards is
    read once per epoch. A corpus of fewer row groups is shuffled whole.

    Args:
        rows: (n,) rows of the corpus.
        groups: (N,) the row group of each row of the corpus.
        seed: Of the training.
        epoch: Its number.
    """
    found, group = np.unique(groups[rows], return_inverse=True)
    window = np.random.default_rng([seed, epoch, 1]).permutation(len(found))[group] // WINDOW
    return rows[np.lexsort((np.random.default_rng([seed, epoch]).random(len(rows)), window))]


def batches(rows: np.ndarray, size: int, first: int = 0) -> Iterator[np.ndarray]:
    """Batches of rows in their order, from batch number ``first`` on; the last incomplete one is left out."""
    for start in range(first * size, len(rows) - size + 1, size):
        yield rows[start : start + size]


Augmentation = Literal["shift", "crop", "wide_crop", "none"]
CROP_AREA: dict[str, tuple[float, float]] = {"crop": (0.8, 1.0), "wide_crop": (0.66, 1.0)}
"""Share of a photo's area that a random resized crop keeps: PIGEON's, which its code does not call, and G3's."""
CROP_ASPECT = (3 / 4, 4 / 3)


@dataclass(frozen=True)
class Share:
    """Which photos of a batch are at hand, where it is worked through in parts.

    Attributes:
        first: Number of the first of them within the batch.
        of: Photos of the whole batch.
    """

    first: int
    of: int


def augmented(
    pixels: "torch.Tensor",
    preprocess: Preprocess,
    generator: "torch.Generator",
    how: Augmentation = "shift",
    flip: bool = False,
    share: Share | None = None,
) -> "torch.Tensor":
    """A batch as a tower's input.

    Args:
        pixels: (N, size, size, 3) uint8, on any device.
        preprocess: Gives mean and standard deviation.
        generator: Source of the randomness, on the CPU.
        how: ``shift`` moves the batch and gives each photo another light; ``crop`` is a random resized crop of
            80–100 % of each photo's area, ``wide_crop`` of 66–100 %; ``none`` changes nothing.
        flip: Mirror every second photo, as G3 does; by default none is: the side of the road is a clue.
        share: Left out, the photos are the whole batch. What happens to a photo is the same in every share.

    Returns:
        (N, 3, size, size) float32.
    """
    import torch

    share = share or Share(0, len(pixels))
    images = pixels.permute(0, 3, 1, 2).float().div_(255)
    if how == "shift":
        images = _shifted(images, preprocess.size, generator, share)
    elif how != "none":
        images = _cropped(images, generator, CROP_AREA[how], share)
    if flip:
        mirrored = _drawn(1, len(images), generator, share)[0] < 0.5
        images = torch.where(mirrored.to(images.device).view(-1, 1, 1, 1), images.flip(3), images)
    mean = torch.tensor(preprocess.mean, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(preprocess.std, device=images.device).view(1, 3, 1, 1)
    return (images - mean) / std


def _drawn(numbers: int, photos: int, generator: "torch.Generator", share: Share) -> "torch.Tensor":
    """So many numbers (numbers, photos) of [0, 1) for the photos at hand; they are drawn for all of the batch."""
    import torch

    return torch.rand(numbers, share.of, generator=generator)[:, share.first : share.first + photos]


def _shifted(images: "torch.Tensor", size: int, generator: "torch.Generator", share: Share) -> "torch.Tensor":
    import torch
    from torch.nn.functional import pad

    margin = max(1, size // 16)
    padded = pad(images, (margin,) * 4, mode="replicate")
    top, left = torch.randint(0, 2 * margin + 1, (2,), generator=generator).tolist()
    light = 0.85 + 0.3 * _drawn(1, len(images), generator, share).view(-1, 1, 1, 1)
    return padded[:, :, top : top + size, left : left + size] * light.to(images.device)


def _cropped(
    images: "torch.Tensor", generator: "torch.Generator", areas: tuple[float, float], share: Share
) -> "torch.Tensor":
    import torch
    from torch.nn.functional import affine_grid, grid_sample

    area, aspect, x, y = _drawn(4, len(images), generator, share)
    area = areas[0] + (areas[1] - areas[0]) * area
    aspect = CROP_ASPECT[0] * (CROP_ASPECT[1] / CROP_ASPECT[0]) ** aspect
    width, height = ((area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1))
    theta = torch.zeros(len(images), 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = width, height
    theta[:, 0, 2], theta[:, 1, 2] = (1 - width) * (2 * x - 1), (1 - height) * (2 * y - 1)
    grid = affine_grid(theta.to(images.device), list(images.shape), align_corners=False)
    return grid_sample(images, grid, padding_mode="border", align_corners=False)
