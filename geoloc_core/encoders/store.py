"""Features on disk: per encoder and corpus one array, row-aligned with the manifest, and a note of what made it."""

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from geoloc_core.blocks import blocks
from geoloc_core.errors import UserError
from geoloc_core.files import new_array, read_array, read_json, write_json
from geoloc_core.plugins import Strict
from geoloc_core.project import maker

ARRAY = "features.npy"
NOTE = "features.json"
WEIGHTS_REMEDY = "run `geoloc download` or `geoloc pretrain` of this encoder again"
ROWS = 4096
"""Rows copied at a time."""
SAMPLED = 5000
"""Vectors of features that the figures of a summary are taken from, at most."""


class Missing(Strict):
    """A photo that could not be read."""

    row: int
    image_id: str
    reason: str


class Note(BaseModel):
    """What a note says at least; the rest is what else made the features."""

    model_config = ConfigDict(extra="allow")

    fingerprint: str
    rows: int
    dim: int | None = None
    tokens: int | None = None
    missing: list[Missing] = []


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
    counts = [len(read_array(part)) for part in parts]
    array = new_array(folder / ARRAY, np.float16, (sum(counts), *shape))
    start = 0
    for part, count in zip(parts, counts, strict=True):
        rows = read_array(part)
        for some in blocks(count, ROWS):
            array[start + some.start : start + some.stop] = rows[some]
        start += count
    array.flush()
    layout = {"rows": sum(counts), "dim": shape[-1], "dtype": "float16", "missing": list(missing)}
    write_json(folder / NOTE, {**note, **layout, **({"tokens": shape[0]} if shape[1:] else {})})


def whole(part: Path, rows: int) -> bool:
    """Whether a part is there, all of it; a damaged one is made anew."""
    try:
        return len(read_array(part)) == rows
    except UserError:
        return False


def flaws(partial: Path, shard: Path) -> Path:
    """Beside the part of a shard in the folder of parts: why some photos could not be read, by row of the shard."""
    return partial / f"{shard.stem}.json"


def note(folder: Path) -> dict[str, Any]:
    """What made the features of a folder: encoder, fingerprint, rows, dim, dtype.

    Raises:
        UserError: There are none yet, or their note is damaged.
    """
    if not (folder / NOTE).exists():
        raise UserError(f"{folder}: no features; {remedy(folder)} first")
    found: Note = read_json(folder / NOTE, f"{remedy(folder)} again", Note)
    return found.model_dump(exclude_unset=True)


def remedy(folder: Path) -> str:
    """What makes the features of a folder anew."""
    return f"run `{maker(folder) or f'geoloc encode … --out {folder}'}`"


def read(folder: Path) -> np.ndarray:
    """Features (N, D) float16, memory-mapped; (N, T, D) where the encoder keeps its tokens.

    Raises:
        UserError: There are none, or they are not what the note beside them says.
    """
    expected = note(folder)
    if "dim" not in expected:
        raise UserError(f"{folder}: holds features of segments rather than one array; name an encoder of whole photos")
    array = read_array(folder / ARRAY, f"{remedy(folder)} again")
    shape = tuple(expected[name] for name in ("rows", "tokens", "dim") if name in expected)
    if array.shape != shape or array.dtype != np.float16:
        raise UserError(
            f"{folder}: features are {array.shape} {array.dtype}, but their description says "
            f"{shape} float16; {remedy(folder)} again"
        )
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
