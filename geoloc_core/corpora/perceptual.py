"""A 64-bit hash of what a photo shows: copies that were scaled or compressed again differ in a few bits.

The signs of the lowest frequencies of the discrete cosine transform of a small grey picture (Zauner 2010,
"Implementation and Benchmarking of Perceptual Image Hash Functions", section 3.2.1; here zero stands for the median,
which no single frequency moves, and frequencies are taken by their sum). Whole numbers throughout, so that a picture
has the same hash on every machine.
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 32
"""Pixels of the grey picture."""
BITS = 64
FLAT = 4.0
"""Grey levels (standard deviation) below which a picture shows too little to be told from another."""

_CORNER = 11
_CHOSEN = sorted((u + v, u, v) for u in range(_CORNER) for v in range(_CORNER) if u + v)[:BITS]
_PLACES = np.array([u * _CORNER + v for _, u, v in _CHOSEN])
_WAVES = np.rint(
    4096 * np.cos(np.pi / SIDE * np.outer(np.arange(_CORNER), np.arange(SIDE) + 0.5)),
).astype(np.int64)
_TURNS = {2: (1, 0), 3: (0, 2), 4: (1, 2), 5: (1, 1), 6: (0, 3), 7: (1, 3), 8: (0, 1)}
"""By EXIF orientation: whether the picture is mirrored first, and by how many quarter turns to the left after that."""


def small(image: "Image") -> np.ndarray:
    """A decoded picture in grey: (32, 32) whole numbers, 0 … 255."""
    from PIL.Image import Resampling

    return np.asarray(image.convert("L").resize((SIDE, SIDE), Resampling.BOX), dtype=np.int64)


def upright(grey: np.ndarray, orientation: int) -> np.ndarray:
    """A square picture as its EXIF orientation, 1 … 8, says it is to be seen."""
    mirrored, turns = _TURNS.get(orientation, (0, 0))
    return np.rot90(grey[:, ::-1] if mirrored else grey, turns)


def phash(grey: np.ndarray) -> int | None:
    """The hash of a (32, 32) grey picture; None of one so flat that any other flat one would seem its copy."""
    if grey.std() < FLAT:
        return None
    waves = (_WAVES @ grey @ _WAVES.T).ravel()[_PLACES]
    return int.from_bytes(np.packbits(waves > 0).tobytes())
