"""Photos as training reads them: decoded and scaled once, then memory-mapped."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq

from geoloc_core.corpora import manifest
from geoloc_core.encoders.preprocess import Preprocess
from geoloc_core.errors import UserError
from geoloc_core.files import digest, replacing
from geoloc_core.progress import track
from geoloc_core.project import Project

if TYPE_CHECKING:
    import torch


def scaled(folder: Path, preprocess: Preprocess, cache: Path) -> np.ndarray:
    """All photos of a corpus folder as (N, size, size, 3) uint8, memory-mapped.

    Args:
        folder: The corpus, as ingested.
        preprocess: How photos are scaled; a cache made for another size is made anew.
        cache: The ``.npy`` that holds them between runs.
    """
    rows = manifest.read_manifest(folder, ["row"]).num_rows
    shape = (rows, preprocess.size, preprocess.size, 3)
    if not cache.is_file() or np.load(cache, mmap_mode="r").shape != shape:
        with replacing(cache) as aside, ThreadPoolExecutor(os.cpu_count()) as pool:
            array = np.lib.format.open_memmap(aside, mode="w+", dtype=np.uint8, shape=shape)
            start = 0
            groups = (group for shard in manifest.shards(folder) for group in manifest.read_photos(shard))
            for group in track(groups, f"scale {folder.name}", rows, "photos", manifest.ROW_GROUP):
                preprocess(group, pool, array[start : start + len(group)])
                start += len(group)
            array.flush()
    return np.load(cache, mmap_mode="r")


def fingerprint(project: Project, corpus: str) -> str:
    """A digest of a corpus' photos, of what is published beside them, and of its split."""
    folder = project.corpus(corpus)
    return digest(folder / "manifest.parquet", folder / "attributes.parquet", project.labels(corpus))


def batches_per_epoch(rows: np.ndarray, batch: int, corpus: str) -> int:
    """How many whole batches an epoch has.

    Raises:
        UserError: Not even one.
    """
    if len(rows) < batch:
        raise UserError(f"corpus {corpus}: {len(rows)} training photos; expected at least a batch of {batch}")
    return len(rows) // batch


def training_rows(project: Project, corpus: str) -> np.ndarray:
    """Rows of a corpus that may be trained on (n,) int64: never those held out for validation."""
    path = project.labels(corpus)
    if not path.is_file():
        raise UserError(f"{path}: no such file; run `geoloc label {corpus}` first")
    split = pq.read_table(path, columns=["split"])["split"].to_numpy(zero_copy_only=False)
    return np.flatnonzero(split == "train")


def attribute(project: Project, corpus: str, column: str) -> list:
    """One column of what a corpus publishes beside its photos, row-aligned with the manifest.

    Raises:
        UserError: The corpus publishes no such column.
    """
    path = project.corpus(corpus) / "attributes.parquet"
    if not path.is_file():
        raise UserError(f"{path}: no such file; run `geoloc ingest {corpus}` first")
    names = pq.read_schema(path).names
    if column not in names:
        raise UserError(f"{path}: no column {column}; expected one of: {', '.join(names)}")
    return pq.read_table(path, columns=[column])[column].to_pylist()


def batches(rows: np.ndarray, size: int, seed: int, epoch: int) -> Iterator[np.ndarray]:
    """Shuffled batches of rows, the last incomplete one left out; the order depends on seed and epoch alone."""
    order = np.random.default_rng([seed, epoch]).permutation(rows)
    for start in range(0, len(order) - size + 1, size):
        yield order[start : start + size]


def augmented(pixels: np.ndarray, preprocess: Preprocess, generator: "torch.Generator") -> "torch.Tensor":
    """A batch as a tower's input, shifted and with other light, never mirrored: the side of the road is a clue.

    Args:
        pixels: (N, size, size, 3) uint8.
        preprocess: Gives mean and standard deviation.
        generator: Source of the randomness.

    Returns:
        (N, 3, size, size) float32.
    """
    import torch
    from torch.nn.functional import pad

    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255)
    margin = max(1, preprocess.size // 16)
    padded = pad(images, (margin,) * 4, mode="replicate")
    top, left = torch.randint(0, 2 * margin + 1, (2,), generator=generator).tolist()
    images = padded[:, :, top : top + preprocess.size, left : left + preprocess.size]
    light = 0.85 + 0.3 * torch.rand(len(images), 1, 1, 1, generator=generator)
    mean = torch.tensor(preprocess.mean).view(1, 3, 1, 1)
    std = torch.tensor(preprocess.std).view(1, 3, 1, 1)
    return (images * light - mean) / std
