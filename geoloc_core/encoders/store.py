"""Features on disk: per encoder and corpus one array, row-aligned with the manifest, and a note of what made it."""

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geoloc_core.errors import UserError
from geoloc_core.files import read_json, write_json

ARRAY = "features.npy"
NOTE = "features.json"
ROWS = 4096
"""Rows copied at a time."""
SAMPLED = 5000
"""Vectors of features that the figures of a summary are taken from, at most."""


def fingerprint(identity: dict[str, Any]) -> str:
    """A digest of all that features depend on."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def write(
    folder: Path,
    parts: list[Path],
    shape: tuple[int, ...],
    note: dict[str, Any],
    missing: Sequence[dict[str, Any]] = (),
) -> None:
    """Join the parts of a corpus into its feature array, without holding it in memory.

    Args:
        folder: Where to write; must exist.
        parts: One ``.npy`` (rows, *shape) float16 per shard, in shard order.
        shape: Of one feature: (D,), or (T, D) where tokens are kept.
        note: What made the features.
        missing: Of each photo that could not be read its ``row``, ``image_id`` and the ``reason``; its row is NaN.
    """
    counts = [len(np.load(part, mmap_mode="r")) for part in parts]
    array = np.lib.format.open_memmap(folder / ARRAY, mode="w+", dtype=np.float16, shape=(sum(counts), *shape))
    start = 0
    for part, count in zip(parts, counts, strict=True):
        rows = np.load(part, mmap_mode="r")
        for first in range(0, count, ROWS):
            array[start + first : start + min(first + ROWS, count)] = rows[first : first + ROWS]
        start += count
    array.flush()
    layout = {"rows": sum(counts), "dim": shape[-1], "dtype": "float16", "missing": list(missing)}
    write_json(folder / NOTE, {**note, **layout, **({"tokens": shape[0]} if shape[1:] else {})})


def flaws(partial: Path, shard: Path) -> Path:
    """Beside the part of a shard in the folder of parts: why some photos could not be read, by row of the shard."""
    return partial / f"{shard.stem}.json"


def note(folder: Path) -> dict[str, Any]:
    """What made the features of a folder: encoder, fingerprint, rows, dim, dtype.

    Raises:
        UserError: There are none yet.
    """
    if not (folder / NOTE).is_file():
        raise UserError(
            f"{folder}: no features; run `geoloc encode {folder.name} --encoder {folder.parent.name}` first"
        )
    return read_json(folder / NOTE)


def read(folder: Path) -> np.ndarray:
    """Features (N, D) float16, memory-mapped; (N, T, D) where the encoder keeps its tokens.

    Raises:
        UserError: There are none, or they are not what the note beside them says.
    """
    expected = note(folder)
    if "dim" not in expected:
        raise UserError(f"{folder}: holds pictures of features, no array; name an encoder that gives one")
    array = np.load(folder / ARRAY, mmap_mode="r")
    shape = tuple(expected[name] for name in ("rows", "tokens", "dim") if name in expected)
    if array.shape != shape:
        raise UserError(f"{folder}: features are {array.shape}, the note says {shape}")
    return array


def figures(folder: Path) -> dict[str, Any]:
    """What a summary says of features: how many there are, and how they lie."""
    features = read(folder)
    *tokens, dim = features.shape[1:]
    most = max(1, SAMPLED // math.prod(tokens))
    sample = np.asarray(features[:: -(-len(features) // most) or 1], np.float32).reshape(-1, dim)
    sample = sample[~np.isnan(sample).any(axis=1)]
    return {
        "rows": len(features),
        "features": {
            "dim": dim,
            "mean_norm": round(float(np.linalg.norm(sample, axis=1).mean()), 3),
            "mean_spread": round(float(sample.std(axis=0).mean()), 4),
            "constant_dims": int((sample.std(axis=0) == 0).sum()),
        },
    }


def missing(folders: Iterable[Path]) -> np.ndarray:
    """Rows of a corpus (M,) int64, ascending, that lack features in at least one of its folders.

    Their photo could not be read; in the array they are NaN, and no model may learn from them or answer them.

    Raises:
        UserError: A folder has no features yet.
    """
    rows = {photo["row"] for folder in folders for photo in note(folder).get("missing", [])}
    return np.array(sorted(rows), np.int64)
