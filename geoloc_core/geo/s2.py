"""S2 cells (s2geometry.io) of many points at once: ids, tokens, levels, centres and outlines.

A cell id is 64 bits: three for the face of the cube around the sphere, two for each level's place on the face's
Hilbert curve, then a one and zeros. Sorted ids follow the curve, and the descendants of a cell are an interval.
Latitudes are taken as angles on the sphere, as the reference library does.
"""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from geoloc_core.geo import sphere

MAX_LEVEL = 30
TOKEN = re.compile(r"[0-9a-f]{1,16}", re.ASCII | re.IGNORECASE)
_SWAP, _INVERT = 1, 2
_QUADRANT = np.array([[0, 1, 3, 2], [0, 2, 3, 1], [3, 2, 0, 1], [3, 1, 0, 2]])
"""The quadrant, 2i + j, at each place of the curve, per orientation."""
_PLACE = np.argsort(_QUADRANT, axis=1)
"""The inverse: the place of each quadrant."""
_TURN = np.array([_SWAP, 0, 0, _INVERT | _SWAP])
"""How the orientation changes within each place."""


def leaves(latitudes: ArrayLike, longitudes: ArrayLike) -> np.ndarray:
    """Ids (N,) uint64 of the cells of level 30 that hold points (N,) in degrees."""
    vectors = sphere.unit_vectors(latitudes, longitudes)
    axis = np.abs(vectors).argmax(axis=1)
    depth = np.take_along_axis(vectors, axis[:, None], axis=1)
    x, y, z = (vectors / depth).T
    face = axis + 3 * (depth[:, 0] < 0)
    # Each face has its own axes, chosen so that the curve goes on from face to face.
    u = np.choose(face, [y, -x, -x, z, z, -y])
    v = np.choose(face, [z, z, -y, y, -x, -x])
    size = 1 << MAX_LEVEL
    i, j = (np.clip(np.floor(size * _st(w)), 0, size - 1).astype(np.int64) for w in (u, v))
    return _encode(face, i, j)


def _encode(face: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    turned = face & _SWAP
    along = face.copy()
    for bit in range(MAX_LEVEL - 1, -1, -1):
        place = _PLACE[turned, ((i >> bit) & 1) << 1 | ((j >> bit) & 1)]
        along = along << 2 | place
        turned = turned ^ _TURN[place]
    return along.astype(np.uint64) << np.uint64(1) | np.uint64(1)


def _st(u: np.ndarray) -> np.ndarray:
    """The quadratic transform from [−1, 1] on a face to [0, 1], which evens out the cells' areas."""
    half = np.sqrt(1 + 3 * np.abs(u)) / 2
    return np.where(u >= 0, half, 1 - half)


def _uv(s: np.ndarray) -> np.ndarray:
    """The inverse of :func:`_st`."""
    return np.where(s >= 0.5, (4 * s**2 - 1) / 3, (1 - 4 * (1 - s) ** 2) / 3)


def lowest_bits(ids: np.ndarray) -> np.ndarray:
    """The lowest one (N,) uint64 of ids (N,), which tells their level."""
    return ids & (~ids + np.uint64(1))


def parents(ids: np.ndarray, level: int) -> np.ndarray:
    """Ids (N,) of the ancestors at a level of cells (N,) of that level or below."""
    bit = np.uint64(1) << np.uint64(2 * (MAX_LEVEL - level))
    return ids & (~bit + np.uint64(1)) | bit


def levels(ids: np.ndarray) -> np.ndarray:
    """Levels (N,) of cells, 0 … 30."""
    return MAX_LEVEL - np.round(np.log2(lowest_bits(ids).astype(np.float64))).astype(np.int64) // 2


def leaf_ranges(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first and the last leaf (N,) within each cell."""
    half = lowest_bits(ids) - np.uint64(1)
    return ids - half, ids + half


def is_valid(ids: np.ndarray) -> np.ndarray:
    """Which of ids (N,) uint64 are cells."""
    faces = ids >> np.uint64(61)
    return (faces < 6) & (lowest_bits(ids) & np.uint64(0x1555555555555555) != 0)


def tokens(ids: np.ndarray) -> list[str]:
    """The usual short text of ids (N,): hexadecimal without its last zeros."""
    return [f"{int(value):016x}".rstrip("0") or "X" for value in ids]


def from_tokens(texts: Sequence[str]) -> np.ndarray:
    """Ids (N,) uint64 of tokens; 0, which is no cell, where a text is no token."""
    return np.array([_number(text) for text in texts], dtype=np.uint64)


def _number(text: str) -> int:
    return int(text.ljust(16, "0"), 16) if TOKEN.fullmatch(text) else 0


def centres(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Latitudes and longitudes (N,) in degrees of the middles of cells (N,)."""
    face, i, j, size = _decode(ids)
    return _place(face, i + size / 2, j + size / 2)


def _decode(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Face, lowest i and j (N,) on a grid of 2³⁰, and the side of each cell there."""
    level = levels(ids)
    face = (ids >> np.uint64(61)).astype(np.int64)
    turned = face & _SWAP
    i, j = np.zeros_like(face), np.zeros_like(face)
    for bit in range(MAX_LEVEL - 1, -1, -1):
        inside = MAX_LEVEL - bit <= level
        place = ((ids >> np.uint64(2 * bit + 1)) & np.uint64(3)).astype(np.int64)
        quadrant = np.where(inside, _QUADRANT[turned, place], 0)
        i, j = i | (quadrant >> 1) << bit, j | (quadrant & 1) << bit
        turned = np.where(inside, turned ^ _TURN[place], turned)
    return face, i, j, 1 << (MAX_LEVEL - level)


def _place(face: np.ndarray, i: np.ndarray, j: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Latitudes and longitudes of places on the faces' grids of 2³⁰."""
    u, v = _uv(i / (1 << MAX_LEVEL)), _uv(j / (1 << MAX_LEVEL))
    face = np.broadcast_to(face, u.shape)
    one = np.ones_like(u)
    x = np.choose(face, [one, -u, -u, -one, v, v])
    y = np.choose(face, [u, one, -v, -v, -one, u])
    z = np.choose(face, [v, v, one, -u, -u, -one])
    return sphere.coordinates(np.stack([x, y, z], axis=-1))


def outlines(ids: np.ndarray, steps: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Latitudes and longitudes (N, 4·steps + 1) in degrees along the sides of cells (N,), counter-clockwise and closed.

    One step a side gives the corners.
    """
    face, i, j, size = _decode(ids)
    along = np.arange(steps) / steps
    zero, one = np.zeros(steps), np.ones(steps)
    step_i = np.concatenate([along, one, 1 - along, zero, [0]])
    step_j = np.concatenate([zero, along, one, 1 - along, [0]])
    return _place(face[:, None], i[:, None] + step_i * size[:, None], j[:, None] + step_j * size[:, None])
