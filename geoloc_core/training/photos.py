"""Photos as training reads them: decoded and scaled once and memory-mapped, or read from the shards in each epoch."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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

if TYPE_CHECKING:
    import pyarrow as pa
    import torch


WINDOW = 32
"""Row groups whose photos are shuffled among each other: 8,000 photos, some hundred megabytes while encoded."""


@dataclass(frozen=True)
class Photos:
    """The photos of a corpus, decoded and scaled: all at once where that fits, else when they are asked for.

    Attributes:
        folder: The corpus, as ingested.
        preprocess: How photos are scaled.
        shards: (N,) number of the shard of each photo.
        rows: (N,) row of each photo within its shard.
        array: (N, size, size, 3) uint8, memory-mapped; None where photos are read from the shards.
    """

    folder: Path
    preprocess: Preprocess
    shards: np.ndarray
    rows: np.ndarray
    array: np.ndarray | None

    @classmethod
    def open(cls, folder: Path, preprocess: Preprocess, cache: Path, limit_gb: float = np.inf) -> "Photos":
        """Look at the photos of a corpus folder.

        Args:
            folder: The corpus, as ingested.
            preprocess: How photos are scaled; a cache made for another preparation is not used.
            cache: The ``.npy`` that holds the scaled photos between runs.
            limit_gb: Size up to which there is a cache; above it, photos are read from the shards in each epoch.
        """
        table = manifest.read_manifest(folder, ["shard", "row"])
        shards, rows = (table[name].to_numpy() for name in ("shard", "row"))
        large = len(rows) * preprocess.size**2 * 3 > limit_gb * 1e9
        return cls(folder, preprocess, shards, rows, None if large else scaled(folder, preprocess, cache))

    @property
    def groups(self) -> np.ndarray:
        """(N,) the row group that holds each photo, counted through all shards."""
        return self.shards.astype(np.int64) << 32 | self.rows // manifest.ROW_GROUP

    def read(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The photos of each batch of rows, (n, size, size, 3) uint8; the next batch is made ready meanwhile."""
        if self.array is not None:
            return (self.array[batch] for batch in batches)
        return ahead(self._stream(batches))

    def _stream(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        groups = self.groups
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            held: dict[int, pa.Array] = {}
            read = _reader(self.folder, self.preprocess)
            for batch in batches:
                photos = []
                for row in batch:
                    group = int(groups[row])
                    held[group] = held.pop(group) if group in held else self._group(group)
                    photos.append(held[group][int(self.rows[row]) % manifest.ROW_GROUP].as_py())
                for old in list(held)[: -2 * WINDOW]:  # a batch may lie in two windows
                    del held[old]
                out = np.empty((len(photos), self.preprocess.size, self.preprocess.size, 3), np.uint8)
                list(pool.map(read, batch, photos, out))
                yield out

    def _group(self, group: int) -> "pa.Array":
        path = manifest.shard_path(self.folder, group >> 32)
        with parquet.opened(path, manifest.again(path), memory_map=True) as file:
            images = file.read_row_group(group & 0xFFFFFFFF, columns=["image"])["image"]
        return images.combine_chunks().field("bytes")


def _reader(folder: Path, preprocess: Preprocess) -> Callable[[int, bytes, np.ndarray], None]:
    """What decodes and scales one photo, given by its row of the corpus, into an array (size, size, 3) uint8."""

    def read(row: int, photo: bytes, out: np.ndarray) -> None:
        try:
            preprocess.write(photo, out)
        except UserError as error:
            named = manifest.read_manifest(folder, ["image_id"])["image_id"][int(row)]
            raise UserError(f"{folder}: {named}: {error}; ingest it again") from None

    return read


def scaled(folder: Path, preprocess: Preprocess, cache: Path) -> np.ndarray:
    """All photos of a corpus folder as (N, size, size, 3) uint8, memory-mapped.

    Args:
        folder: The corpus, as ingested.
        preprocess: How photos are scaled.
        cache: The ``.npy`` that holds them between runs; its name gets what the preparation is known by.
    """
    prepared = hashlib.sha256(json.dumps(preprocess.to_json(), sort_keys=True).encode()).hexdigest()[:8]
    cache = cache.with_name(f"{cache.stem}-{prepared}.npy")
    rows = manifest.read_manifest(folder, ["row"]).num_rows
    shape = (rows, preprocess.size, preprocess.size, 3)
    if not cache.is_file() or read_array(cache, "remove it and run the same command again").shape != shape:
        with replacing(cache) as aside, ThreadPoolExecutor(os.cpu_count()) as pool:
            array = new_array(aside, np.uint8, shape)
            start, read = 0, _reader(folder, preprocess)
            groups = (group for shard in manifest.shards(folder) for group in manifest.read_photos(shard))
            for group in track(groups, f"scale {folder.name}", rows, "photos", manifest.ROW_GROUP):
                rows_of = range(start, start + len(group))
                list(pool.map(read, rows_of, group, array[rows_of.start : rows_of.stop]))
                start = rows_of.stop
            array.flush()
    return read_array(cache)


def fingerprint(project: Project, corpus: str) -> str:
    """A digest of a corpus' photos, of what is published beside them, and of its split."""
    folder = project.corpus(corpus)
    return digest(folder / "manifest.parquet", folder / "attributes.parquet", project.labels(corpus))


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
    random = np.random.default_rng([seed, epoch])
    found, group = np.unique(groups[rows], return_inverse=True)
    window = random.permutation(len(found))[group] // WINDOW
    return rows[np.lexsort((random.random(len(rows)), window))]


def batches(rows: np.ndarray, size: int, first: int = 0) -> Iterator[np.ndarray]:
    """Batches of rows in their order, from batch number ``first`` on; the last incomplete one is left out."""
    for start in range(first * size, len(rows) - size + 1, size):
        yield rows[start : start + size]


Augmentation = Literal["shift", "crop", "none"]
CROP_AREA = (0.8, 1.0)
CROP_ASPECT = (3 / 4, 4 / 3)


def augmented(
    pixels: "torch.Tensor", preprocess: Preprocess, generator: "torch.Generator", how: Augmentation = "shift"
) -> "torch.Tensor":
    """A batch as a tower's input; never mirrored: the side of the road is a clue.

    Args:
        pixels: (N, size, size, 3) uint8, on any device.
        preprocess: Gives mean and standard deviation.
        generator: Source of the randomness, on the CPU.
        how: ``shift`` moves the batch and gives each photo another light; ``crop`` is a random resized crop of
            80–100 % of the area (PIGEON's code defines one and does not call it); ``none`` changes nothing.

    Returns:
        (N, 3, size, size) float32.
    """
    import torch

    images = pixels.permute(0, 3, 1, 2).float().div_(255)
    if how == "shift":
        images = _shifted(images, preprocess.size, generator)
    elif how == "crop":
        images = _cropped(images, generator)
    mean = torch.tensor(preprocess.mean, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(preprocess.std, device=images.device).view(1, 3, 1, 1)
    return (images - mean) / std


def _shifted(images: "torch.Tensor", size: int, generator: "torch.Generator") -> "torch.Tensor":
    import torch
    from torch.nn.functional import pad

    margin = max(1, size // 16)
    padded = pad(images, (margin,) * 4, mode="replicate")
    top, left = torch.randint(0, 2 * margin + 1, (2,), generator=generator).tolist()
    light = 0.85 + 0.3 * torch.rand(len(images), 1, 1, 1, generator=generator)
    return padded[:, :, top : top + size, left : left + size] * light.to(images.device)


def _cropped(images: "torch.Tensor", generator: "torch.Generator") -> "torch.Tensor":
    import torch
    from torch.nn.functional import affine_grid, grid_sample

    area, aspect, x, y = torch.rand(4, len(images), generator=generator)
    area = CROP_AREA[0] + (CROP_AREA[1] - CROP_AREA[0]) * area
    aspect = CROP_ASPECT[0] * (CROP_ASPECT[1] / CROP_ASPECT[0]) ** aspect
    width, height = ((area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1))
    theta = torch.zeros(len(images), 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = width, height
    theta[:, 0, 2], theta[:, 1, 2] = (1 - width) * (2 * x - 1), (1 - height) * (2 * y - 1)
    grid = affine_grid(theta.to(images.device), list(images.shape), align_corners=False)
    return grid_sample(images, grid, padding_mode="border", align_corners=False)
