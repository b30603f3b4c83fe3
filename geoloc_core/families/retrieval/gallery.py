"""The photos that answers come from, cell by cell: vectors on disk, and the search among those of some cells."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from geoloc_core.blocks import blocks
from geoloc_core.contracts import mapped
from geoloc_core.contracts.layers import Names
from geoloc_core.errors import UserError
from geoloc_core.threads import side_by_side, workers

if TYPE_CHECKING:
    import torch

Precision = Literal["float32", "float16", "int8"]
STEPS = 127
"""Of int8 to either side of zero."""
BLOCK = 2**23
"""Numbers in float32 at a time."""
FEW = 64
"""Units, at least, for which a thread is worth it."""
MANY = 2**24
"""Units times photos from which on it is worth asking whether there is a GPU."""
NOTHING = -1
VECTORS = "vectors.safetensors"


def rounded(vectors: np.ndarray, precision: Precision) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (n, D) as they are kept, and what each (n,) float32 is multiplied by to be as long as it was."""
    if precision != "int8":
        return vectors.astype(precision), np.ones(len(vectors), np.float32)
    scale = np.abs(vectors).max(axis=1, initial=0) / np.float32(STEPS)
    steps = np.rint(vectors / np.where(scale > 0, scale, 1)[:, None])
    return steps.astype(np.int8), scale.astype(np.float32)


@dataclass(frozen=True)
class Gallery:
    """M photos, or places, of C cells, cell by cell.

    Attributes:
        cells: (C + 1,) int64 where the photos of each cell begin, and where the last ones end.
        vectors: (M, D) float32, float16 or int8; may be memory-mapped.
        scale: (M,) float32 that each vector is multiplied by.
        bias: (M,) float32 that is added to the score of each.
        latitudes: (M,) degrees.
        longitudes: (M,) degrees.
        groups: (M,) int64 whose each is, see :func:`geoloc_core.contracts.groups.hashed`.
        names: Their ids.
    """

    cells: np.ndarray
    vectors: np.ndarray
    scale: np.ndarray
    bias: np.ndarray
    latitudes: np.ndarray
    longitudes: np.ndarray
    groups: np.ndarray
    names: Names

    def __len__(self) -> int:
        return len(self.latitudes)

    def take(self, photos: np.ndarray) -> np.ndarray:
        """Vectors (…, D) float32 of some photos."""
        found: np.ndarray = self.vectors[photos].astype(np.float32) * self.scale[photos][..., None]
        return found

    def similar(self, queries: np.ndarray, photos: np.ndarray) -> np.ndarray:
        """Similarities (N, T) of units (N, D) and some photos (N, T) of each."""
        parts = [
            np.einsum("nd,ntd->nt", queries[some], self.take(photos[some]))
            for some in blocks(max(len(queries), 1), BLOCK, photos.shape[1] * queries.shape[1])
        ]
        return np.concatenate(parts)

    def on(self, where: "torch.device") -> "torch.Tensor | None":
        """The vectors on a GPU, brought there once; None where they take more than half of its free memory."""
        import torch

        if "held" not in self.__dict__:
            room = torch.cuda.mem_get_info(where)[0] // 2
            self.__dict__["held"] = _brought(self.vectors, where) if self.vectors.nbytes <= room else None
        held: torch.Tensor | None = self.__dict__["held"]
        return held

    def save(self, path: Path) -> None:
        """Write what is as long as the gallery and not in :data:`ARRAYS`."""
        mapped.write(path, {"vectors": self.vectors, "scale": self.scale, "bias": self.bias})


def _brought(vectors: np.ndarray, where: "torch.device") -> "torch.Tensor":
    """Vectors (M, D) on a device, block by block."""
    import torch

    found = torch.empty(vectors.shape, dtype=getattr(torch, vectors.dtype.name), device=where)
    for rows in blocks(len(vectors), BLOCK, vectors.shape[1]):
        found[rows] = torch.from_numpy(np.array(vectors[rows])).to(where)
    return found


ARRAYS = ("cells", "latitudes", "longitudes", "groups")
"""What the weights of a model hold of its gallery, beside the names."""


def read_vectors(path: Path, count: int, remedy: str) -> dict[str, np.ndarray]:
    """What :meth:`Gallery.save` wrote, mapped into memory.

    Raises:
        UserError: It is missing, damaged, or not of so many photos.
    """
    held = mapped.read(path, remedy)
    if missing := [name for name in ("vectors", "scale", "bias") if name not in held]:
        raise UserError(f"{path}: no tensor {missing[0]!r}; {remedy}")
    vectors, scale, bias = (held[name] for name in ("vectors", "scale", "bias"))
    if vectors.ndim != 2 or vectors.dtype not in (np.float32, np.float16, np.int8):
        raise UserError(f"{path}: vectors {vectors.dtype} {vectors.shape}, expected float32, float16 or int8; {remedy}")
    if not len(vectors) == len(scale) == len(bias) == count or scale.shape != bias.shape or scale.ndim != 1:
        raise UserError(
            f"{path}: vectors {vectors.shape}, scale {scale.shape}, bias {bias.shape}, expected {count} each; {remedy}"
        )
    return {"vectors": vectors, "scale": np.asarray(scale), "bias": np.asarray(bias)}


@dataclass(frozen=True)
class Found:
    """What the search found for N units in up to K cells of each.

    Attributes:
        scores: (N, K) float32 the best score in each cell; −∞ where no photo counts.
        photos: (N, K) int64 whose it is; −1.
        top: (N, T) float32 the best scores of all, falling; −∞ where there are fewer.
        candidates: (N, T) int64 whose they are; −1.
        columns: (N, T) int64 from which of the K cells.
    """

    scores: np.ndarray
    photos: np.ndarray
    top: np.ndarray
    candidates: np.ndarray
    columns: np.ndarray


def search(
    gallery: Gallery,
    queries: np.ndarray,
    cells: np.ndarray,
    counts: np.ndarray,
    offsets: np.ndarray,
    groups: np.ndarray | None,
    length: int,
    gain: float,
) -> Found:
    """Compare each unit with every photo of its cells; those that ask for the same cell are answered together.

    Args:
        gallery: M photos.
        queries: (N, D) float32.
        cells: (N, K) int64 cells of each unit.
        counts: (N,) how many of them count, the first.
        offsets: (N, K) float32 that is added to the score of all photos of a cell.
        groups: (N,) int64 whose each unit is, whose photos do not count; 0, or None of all, where that is unknown.
        length: T, how many of the best are listed.
        gain: What similarities are multiplied by.
    """
    n, k = cells.shape
    own = np.zeros(n, np.int64) if groups is None else groups
    if n * len(gallery) >= MANY and (where := _gpu()) is not None:
        from geoloc_core.families.retrieval import on_device

        vectors = gallery.on(where)
        asked = _by_cell(cells, counts)
        return Found(*on_device.search(gallery, vectors, where, queries, asked, offsets, own, length, gain))
    found = Found(
        np.full((n, k), -np.inf, np.float32),
        np.full((n, k), NOTHING),
        np.full((n, length), -np.inf, np.float32),
        np.full((n, length), NOTHING),
        np.zeros((n, length), np.int64),
    )
    threads = min(workers(), max(1, n // FEW))

    def part(rows: slice) -> None:
        mine = Found(
            found.scores[rows], found.photos[rows], found.top[rows], found.candidates[rows], found.columns[rows]
        )
        _compare(gallery, queries[rows], _by_cell(cells[rows], counts[rows]), offsets[rows], own[rows], gain, mine)

    bounds = [n * at // threads for at in range(threads + 1)]
    parts = [slice(a, b) for a, b in pairwise(bounds)]
    if threads == 1:
        part(parts[0])
    else:
        side_by_side(part, parts)
    return found


def _compare(
    gallery: Gallery,
    queries: np.ndarray,
    asked: Iterator[tuple[int, np.ndarray, np.ndarray]],
    offsets: np.ndarray,
    own: np.ndarray,
    gain: float,
    found: Found,
) -> None:
    """Compare units with every photo of their cells, and write into what was found."""
    from geoloc_core.families.retrieval import kernels

    for cell, units, places in asked:
        mine = queries[units]
        step = max(1, BLOCK // max(len(units), queries.shape[1]))
        for start in range(int(gallery.cells[cell]), int(gallery.cells[cell + 1]), step):
            stop = min(start + step, int(gallery.cells[cell + 1]))
            kernels.merge(
                mine @ gallery.vectors[start:stop].astype(np.float32).T,
                start,
                gain,
                gallery.scale,
                gallery.bias,
                offsets[units, places],
                gallery.groups,
                own,
                units,
                places,
                found.scores,
                found.photos,
                found.top,
                found.candidates,
                found.columns,
            )


def _gpu() -> "torch.device | None":
    from geoloc_core.encoders.device import device

    return where if (where := device()).type != "cpu" else None


def _by_cell(cells: np.ndarray, counts: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Each cell that is asked for, ascending, with the units that ask, and which of its cells it is for each."""
    rows, at = np.nonzero(np.arange(cells.shape[1]) < counts[:, None])
    wanted = cells[rows, at]
    order = np.argsort(wanted, kind="stable")
    bounds = np.flatnonzero(np.diff(wanted[order], prepend=-1, append=-1))
    for a, b in pairwise(bounds.tolist()):
        yield int(wanted[order[a]]), rows[order[a:b]], at[order[a:b]]
