"""Features on disk: per encoder and corpus one array, row-aligned with the manifest, and a note of what made it."""

from pathlib import Path
from typing import Any

import numpy as np

from geoloc_core.errors import UserError
from geoloc_core.files import read_json, write_json

ARRAY = "features.npy"
NOTE = "features.json"


def write(folder: Path, parts: list[Path], dim: int, note: dict[str, Any]) -> None:
    """Join the parts of a corpus into its feature array, without holding it in memory.

    Args:
        folder: Where to write; must exist.
        parts: One ``.npy`` (rows, D) float16 per shard, in shard order.
        dim: D.
        note: What made the features.
    """
    shapes = [np.load(part, mmap_mode="r").shape for part in parts]
    rows = sum(shape[0] for shape in shapes)
    array = np.lib.format.open_memmap(folder / ARRAY, mode="w+", dtype=np.float16, shape=(rows, dim))
    start = 0
    for part, shape in zip(parts, shapes, strict=True):
        array[start : start + shape[0]] = np.load(part)
        start += shape[0]
    array.flush()
    write_json(folder / NOTE, {**note, "rows": rows, "dim": dim, "dtype": "float16"})


def note(folder: Path) -> dict[str, Any]:
    """What made the features of a folder: encoder, fingerprint, rows, dim, dtype.

    Raises:
        UserError: There are none yet.
    """
    if not (folder / NOTE).is_file():
        raise UserError(f"{folder}: no features; run `geoloc encode {folder.parent.name} {folder.name}` first")
    return read_json(folder / NOTE)


def read(folder: Path) -> np.ndarray:
    """Features (N, D) float16, memory-mapped.

    Raises:
        UserError: There are none, or they are not what the note beside them says.
    """
    expected = note(folder)
    array = np.load(folder / ARRAY, mmap_mode="r")
    if array.shape != (expected["rows"], expected["dim"]):
        raise UserError(f"{folder}: features are {array.shape}, the note says {expected['rows']} × {expected['dim']}")
    return array
