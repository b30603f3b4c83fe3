"""Which polygon holds a point: an exact index that is built once, saved, and mapped into memory.

The world in degrees is cut into tiles, and a tile that borders cross into smaller ones. Most tiles lie in one unit or
in none, and answer at once. A tile with few edges lists the units that may hold a point of it, each with its edges here
and whether it holds the tile's reference point: a unit holds a point if the way to the reference point crosses its
edges an even number of times and it holds that one, or an odd number and it does not. The signs that decide this are
exact (``kernels.turn``), so neighbours agree about their common border to the last bit.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from geoloc_core.geo import kernels
from geoloc_core.geo.rings import Rings, fixed

GRID = 4
"""Levels below the first tiles where a grid of all tiles is kept, to begin with: tiles of 0.18°."""
DEEPEST = 9
"""Levels below the first tiles of the smallest tiles: 19 m."""
FEW = 32
"""Edges up to which a tile is not cut further."""
CHUNK = 100_000
"""Candidates worked on at once."""
OUTSIDE = (-1000.0, -500.0)
"""A place that no unit holds."""


class Lattice(NamedTuple):
    """How a tile is cut into children: their side in degrees, rows and columns."""

    size: float
    rows: int
    columns: int

    @property
    def children(self) -> int:
        """How many there are."""
        return self.rows * self.columns

    def finer(self) -> "Lattice":
        """How a child is cut."""
        return Lattice(self.size / kernels.SIDE, kernels.SIDE, kernels.SIDE)


WORLD = Lattice(45.0, 4, 8)


class _OnEdgeError(Exception):
    """A reference point is on an edge, so that it cannot be used."""


@dataclass(frozen=True)
class _Tiles:
    """T tiles of one size, their E candidates, and the R runs of the candidates' edges in them.

    Attributes:
        slot: (T,) where the tile's code goes.
        corner: (T, 2) south-west, degrees.
        reference: (T, 2) its reference point.
        entries: (T + 1,) where its candidates begin.
        unit: (E,) units, ascending in a tile.
        holds: (E,) whether the unit holds the reference point.
        ends: (E + 1,) where its runs begin; it has none where it fills the tile.
        runs: (R, 2) vertex and edges.
    """

    slot: np.ndarray
    corner: np.ndarray
    reference: np.ndarray
    entries: np.ndarray
    unit: np.ndarray
    holds: np.ndarray
    ends: np.ndarray
    runs: np.ndarray

    def __len__(self) -> int:
        return len(self.slot)

    @property
    def edges(self) -> np.ndarray:
        """How many edges (T,) each tile has."""
        total = _offsets(self.runs[:, 1])
        return np.diff(total[self.ends[self.entries]])

    @property
    def tile(self) -> np.ndarray:
        """The tile (E,) of each candidate."""
        return np.repeat(np.arange(len(self)), np.diff(self.entries))

    def take(self, tiles: np.ndarray) -> "_Tiles":
        """Some of the tiles, by position."""
        entries = _ranges(self.entries, tiles)
        return _Tiles(
            self.slot[tiles],
            self.corner[tiles],
            self.reference[tiles],
            _offsets(np.diff(self.entries)[tiles]),
            self.unit[entries],
            self.holds[entries],
            _offsets(np.diff(self.ends)[entries]),
            self.runs[_ranges(self.ends, entries)],
        )

    def chunks(self) -> "Iterator[_Tiles]":
        """The same tiles, some at a time."""
        for tiles in np.split(np.arange(len(self)), np.flatnonzero(np.diff(self.entries[:-1] // CHUNK)) + 1):
            yield self.take(tiles)


@dataclass(frozen=True)
class Index:
    """Finds the first unit that holds a point; ``kernels.find`` says what the arrays are."""

    grid: np.ndarray
    tiles: np.ndarray
    leaves: np.ndarray
    xy: np.ndarray
    reference: np.ndarray

    @classmethod
    def build(cls, rings: Rings) -> "Index":
        """The index of the units with these rings: the same arrays for the same rings."""
        random = np.random.default_rng(0)
        while True:
            try:
                return cls._build(rings, random.uniform(0.4, 0.6, 2))
            except _OnEdgeError:
                continue

    @classmethod
    def _build(cls, rings: Rings, reference: np.ndarray) -> "Index":
        lattice = WORLD
        codes, tiles = _divide(rings.xy, _world(rings), lattice, reference, 0)
        leaves = [np.zeros(0, dtype=np.int32)]
        for level in range(DEEPEST + 1):
            few = ((tiles.edges <= FEW) & (level >= GRID)) | (level == DEEPEST)
            lists, offsets = _leaves(tiles.take(np.flatnonzero(few)))
            codes[tiles.slot[few]] = -3 - 2 * (sum(map(len, leaves)) + offsets)
            leaves.append(lists)
            tiles, lattice = tiles.take(np.flatnonzero(~few)), lattice.finer()
            codes[tiles.slot] = -2 - 2 * (len(codes) + lattice.children * np.arange(len(tiles)))
            if not len(tiles):
                break
            below: list[_Tiles] = []
            pieces = [codes]
            for chunk in tiles.chunks():
                answers, found = _divide(rings.xy, chunk, lattice, reference, sum(map(len, pieces)))
                pieces.append(answers)
                below.append(found)
            codes, tiles = np.concatenate(pieces), _join(below)
        parts = kernels.SIDE**GRID
        grid = np.empty((WORLD.rows * parts, WORLD.columns * parts), dtype=np.int32)
        kernels.flatten(codes, WORLD.rows, WORLD.columns, GRID, grid)
        return cls(fixed(grid), fixed(codes), fixed(np.concatenate(leaves)), rings.xy, fixed(reference))

    def find(self, latitudes: np.ndarray, longitudes: np.ndarray) -> np.ndarray:
        """The first unit (N,) int32 that holds each point, on its border or inside; −1 where none does.

        Args:
            latitudes: (N,) −90 … 90 degrees.
            longitudes: (N,) −180 … 180 degrees.
        """
        units = np.empty(len(latitudes), dtype=np.int32)
        kernels.find(self.grid, self.tiles, self.leaves, self.xy, self.reference, latitudes, longitudes, units)
        return units


def _world(rings: Rings) -> _Tiles:
    """The world as one tile, in which every unit is a candidate."""
    count = int(rings.unit.max(initial=-1)) + 1
    runs = np.stack([rings.starts[:-1], np.diff(rings.starts) - 1], axis=1).astype(np.int64)
    ends = np.searchsorted(rings.unit, np.arange(count + 1))
    units, outside = np.arange(count), np.zeros(count, dtype=bool)
    corner = np.array([[-180.0, -90.0]])
    return _Tiles(np.zeros(1, int), corner, np.array([OUTSIDE]), np.array([0, count]), units, outside, ends, runs)


def _divide(
    xy: np.ndarray, tiles: _Tiles, lattice: Lattice, reference: np.ndarray, start: int
) -> tuple[np.ndarray, _Tiles]:
    """Cut T tiles into C children each.

    Args:
        xy: (V, 2) vertices.
        tiles: The tiles.
        lattice: How to cut them.
        reference: (2,) place of a child's reference point, in shares of its side.
        start: The first child's slot.

    Returns:
        (T × C,) codes of the children that have one answer.
        The others, where borders run.
    """
    touches = _touches(xy, tiles, lattice)
    entry, child = touches[:, 0], touches[:, 1]
    shape = (len(tiles.unit), lattice.children)
    runs = np.bincount(entry * lattice.children + child, minlength=shape[0] * shape[1]).reshape(shape)
    held = _held(xy, tiles, lattice, reference)
    # Behind a unit that fills a child, no other can be the first.
    position = np.arange(len(tiles.unit))[:, None]
    fills = np.where(held & (runs == 0), position, len(tiles.unit))
    first = np.minimum.reduceat(fills, tiles.entries[:-1], axis=0)
    kept = (runs > 0) & (position < first[tiles.tile])
    crossed = np.logical_or.reduceat(kept, tiles.entries[:-1], axis=0)
    kept |= (position == first[tiles.tile]) & crossed[tiles.tile]

    entries, children = np.nonzero(kept)
    order = np.argsort(tiles.tile[entries] * lattice.children + children, kind="stable")
    entries, children = entries[order], children[order]
    tile, cell = np.nonzero(crossed)
    corner = tiles.corner[tile] + lattice.size * np.stack([cell % lattice.columns, cell // lattice.columns], axis=1)
    found = _Tiles(
        slot=start + tile * lattice.children + cell,
        corner=corner,
        reference=corner + reference * lattice.size,
        entries=_offsets(np.add.reduceat(kept, tiles.entries[:-1], axis=0, dtype=np.int64)[crossed]),
        unit=tiles.unit[entries],
        holds=held[entries, children],
        ends=_offsets(runs[entries, children]),
        runs=touches[kept[entry, child], 2:],
    )
    return np.append(tiles.unit, kernels.NOTHING)[first].astype(np.int32).ravel(), found


def _touches(xy: np.ndarray, tiles: _Tiles, lattice: Lattice) -> np.ndarray:
    """Candidate, child, vertex and edges (N, 4) of all runs in children: by tile, child, candidate, vertex."""
    entry = np.repeat(np.arange(len(tiles.unit)), np.diff(tiles.ends))
    west, south = tiles.corner[tiles.tile[entry]].T
    room, n = 4 * len(entry) + 1000, -1
    while n < 0:
        found = np.empty((room, 4), dtype=np.int64)
        n = kernels.touched(xy, tiles.runs, west, south, *lattice, found)
        room *= 4
    found = found[:n]
    found[:, 0] = entry[found[:, 0]]
    found = found[np.argsort(tiles.tile[found[:, 0]] * lattice.children + found[:, 1], kind="stable")]
    # Runs that follow each other are one.
    new = np.ones(n, dtype=bool)
    new[1:] = (np.diff(found[:, :2], axis=0) != 0).any(axis=1) | (found[:-1, 2] + found[:-1, 3] != found[1:, 2])
    joined = found[new]
    joined[:, 3] = np.add.reduceat(found[:, 3], np.flatnonzero(new)) if n else 0
    return joined


def _held(xy: np.ndarray, tiles: _Tiles, lattice: Lattice, reference: np.ndarray) -> np.ndarray:
    """Whether each candidate (E) holds the reference point of each child (C) of its tile."""
    held = np.empty((len(tiles.unit), lattice.children), dtype=bool)
    west, south = tiles.corner[tiles.tile].T
    references = tiles.reference[tiles.tile]
    if not kernels.hold(xy, tiles.runs, tiles.ends, tiles.holds, references, west, south, *lattice, reference, held):
        raise _OnEdgeError
    return held


def _leaves(tiles: _Tiles) -> tuple[np.ndarray, np.ndarray]:
    """The lists of candidates of T tiles, int32 words, and where (T,) each begins."""
    words = len(tiles) + 2 * len(tiles.unit) + 2 * len(tiles.runs)
    lists, offsets = np.empty(words, dtype=np.int32), np.empty(len(tiles), dtype=np.int64)
    kernels.list_candidates(tiles.entries, tiles.unit, tiles.holds, tiles.ends, tiles.runs, lists, offsets)
    return lists, offsets


def _join(parts: list[_Tiles]) -> _Tiles:
    """All tiles of several tables."""

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in parts])

    def offsets(name: str) -> np.ndarray:
        return _offsets(np.concatenate([np.diff(getattr(part, name)) for part in parts]))

    whole = ("slot", "corner", "reference"), ("unit", "holds"), ("runs",)
    (slot, corner, reference), (unit, holds), (runs,) = ([joined(name) for name in names] for names in whole)
    return _Tiles(slot, corner, reference, offsets("entries"), unit, holds, offsets("ends"), runs)


def _offsets(counts: np.ndarray) -> np.ndarray:
    """Where each of N lists begins and the last ends (N + 1,)."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def _ranges(offsets: np.ndarray, lists: np.ndarray) -> np.ndarray:
    """Positions of all members of some lists, one list after the other."""
    counts = np.diff(offsets)[lists]
    return np.repeat(offsets[lists] - _offsets(counts)[:-1], counts) + np.arange(counts.sum())
