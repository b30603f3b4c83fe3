"""Semantic geocells (PIGEON): units are merged below a minimum of points and divided above a maximum.

Haas et al. 2024, "PIGEON: Predicting Image Geolocations", CVPR, section "Geocell Creation".

1. Units (the finest of the boundaries) without enough points are merged with neighbours of their country, first within
   their subdivision (``fuse.py``). The units of a country without points each go to the nearest group.
2. A group above the maximum is divided by the density of its points, in rounds of OPTICS (``division.py``).
3. Its points are then the seeds: a place belongs to the cell of the nearest seed. So a cell is the union of the Voronoi
   cells of its points. Seeds that touch no border are left out, which does not change the borders.

Differences from the released code: distances are those of the sphere; every cell above the maximum is divided, unless
its points coincide; no point, land or island is lost; a cell's Voronoi part is in one piece; the same input gives the
same cells on any number of threads.
"""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from geoloc_core.geo import sphere
from geoloc_core.geo.geocells import voronoi
from geoloc_core.geo.geocells.fuse import fuse, neighbourhood
from geoloc_core.geo.geocells.ground import Ground, Points, finest, majority
from geoloc_core.geo.geocells.partition import Made
from geoloc_core.geo.geocells.unitcells import UnitCells, load
from geoloc_core.plugins import Strict
from geoloc_core.threads import workers

__all__ = ["Options", "build", "load"]

PIGEON = ((8, 0.05), (10, 0.025), (15, 0.015))
"""(min_samples, xi) of the rounds for 30 to 60 street views a cell."""
PIGEOTTO = ((300, 0.05), (400, 0.005), (1000, 0.0001))
"""The rounds for 1,000 to 2,000 photos a cell."""


class Options(Strict):
    """How large cells are, and how they are divided."""

    kind: Literal["semantic"]
    min_points: int = Field(30, ge=2)
    """Fewest points of a cell, unless its country has fewer."""
    max_points: int = Field(60, ge=4)
    """Most points of a cell, unless points coincide."""
    rounds: tuple[tuple[Annotated[int, Field(ge=2)], Annotated[float, Field(gt=0, lt=1)]], ...] = PIGEON
    """(min_samples, xi) of OPTICS, tried in this order."""

    @model_validator(mode="after")
    def _possible(self) -> "Options":
        if self.max_points < 2 * self.min_points:
            raise ValueError(f"max_points {self.max_points}: expected at least twice min_points, {self.min_points}")
        return self


def build(options: Options, points: Points) -> Made:
    """The semantic cells of points."""
    ground = points.ground
    unit = UnitCells.of_groups(ground, ground.units, np.arange(len(ground.units))).unit_of(points.gids)
    group = _groups(ground, np.bincount(unit[unit >= 0], minlength=len(ground.units)), options.min_points)
    inside = np.flatnonzero(unit >= 0)
    places = Places.of(points.latitudes[inside], points.longitudes[inside], group[unit[inside]])
    return _named(_divided(ground, group, places, options), points)


def _groups(ground: Ground, counts: np.ndarray, smallest: int) -> np.ndarray:
    """Groups (U,) of units, numbered in the order of their first units."""
    import pandas as pd
    from scipy.spatial import cKDTree

    province, _ = pd.factorize(pd.Series(ground.gids[:, 0]) + "/" + pd.Series(ground.gids[:, 1]).fillna(""))
    group = fuse(counts, ground.areas, province, neighbourhood(ground), smallest)
    empty = np.bincount(group, counts, minlength=len(group))[group] == 0
    if empty.any() and not empty.all():
        _, nearest = cKDTree(ground.vectors[~empty]).query(ground.vectors[empty])
        group[empty] = group[~empty][nearest]
    numbered: np.ndarray = pd.factorize(group)[0].astype(np.int64)
    return numbered


@dataclass(frozen=True)
class Places:
    """P distinct places, ordered by group.

    Attributes:
        latitudes: (P,) degrees.
        longitudes: (P,) degrees.
        groups: (P,) ascending.
        weights: (P,) int64, how many points lie there.
    """

    latitudes: np.ndarray
    longitudes: np.ndarray
    groups: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, latitudes: np.ndarray, longitudes: np.ndarray, groups: np.ndarray) -> "Places":
        """The distinct places of points (N,) in groups (N,)."""
        order = np.lexsort([longitudes, latitudes, groups])
        lat, lon, group = latitudes[order], longitudes[order], groups[order]
        new = np.ones(len(order), dtype=bool)
        new[1:] = (lat[1:] != lat[:-1]) | (lon[1:] != lon[:-1]) | (group[1:] != group[:-1])
        first = np.flatnonzero(new)
        return cls(lat[first], lon[first], group[first], np.diff(np.append(first, len(order))))


def _divided(ground: Ground, groups: np.ndarray, places: Places, options: Options) -> UnitCells:
    """The groups as cells, those above the maximum divided."""
    count = int(groups.max()) + 1
    points = np.bincount(places.groups, places.weights, minlength=count)
    bounds = np.searchsorted(places.groups, np.arange(count + 1))
    parts, border = np.zeros(len(places.groups), dtype=np.int64), np.zeros(len(places.groups), dtype=bool)
    vectors = sphere.unit_vectors(places.latitudes, places.longitudes)
    large = np.flatnonzero(points > options.max_points)
    rows = [slice(bounds[group], bounds[group + 1]) for group in large[np.argsort(-points[large], kind="stable")]]

    def work(at: slice) -> None:
        parts[at], border[at] = _parts(vectors[at], places.weights[at], options)

    # Groups do not touch each other, so the result is the same on any number of threads.
    with ThreadPoolExecutor(workers()) as pool:
        list(pool.map(work, rows))
    made = np.ones(count, dtype=np.int64)
    np.maximum.at(made, places.groups, parts + 1)
    offset = np.cumsum(made) - made
    cells = offset[places.groups] + parts
    whole = np.where(made == 1, offset, -1)
    return _seeded(
        UnitCells(ground, ground.units, groups, whole, *([np.empty(0, dtype=np.int64)] * 4)), places, cells, border
    )


def _parts(vectors: np.ndarray, weights: np.ndarray, options: Options) -> tuple[np.ndarray, np.ndarray]:
    """Part (V,) of each place of a group, and whether it borders another part."""
    from geoloc_core.geo.geocells.division import divide

    graph = voronoi.graph(vectors)
    limits = options.min_points, options.max_points
    parts = divide(vectors, weights, graph.starts, graph.neighbours, *limits, options.rounds)
    owner = np.repeat(np.arange(len(parts)), np.diff(graph.starts))
    border = np.zeros(len(parts), dtype=bool)
    border[owner[parts[owner] != parts[graph.neighbours]]] = True
    return parts, border


def _seeded(bare: UnitCells, places: Places, cells: np.ndarray, keep: np.ndarray) -> UnitCells:
    """The partition with the places at borders as seeds, and those that rounding would take from their cell."""
    inner = bare.whole[places.groups] < 0
    keep = keep & inner
    while True:
        seeds = (places.groups[keep], cells[keep], places.latitudes[keep], places.longitudes[keep])
        names = ("seed_groups", "seed_cells", "seed_latitudes", "seed_longitudes")
        partition = dataclasses.replace(bare, **dict(zip(names, seeds, strict=True)))
        rest = np.flatnonzero(inner & ~keep)
        if not len(rest):
            return partition
        found = partition.seeded(places.latitudes[rest], places.longitudes[rest], places.groups[rest])
        lost = rest[found != cells[rest]]
        if not len(lost):
            return partition
        keep[lost] = True


def _named(partition: UnitCells, points: Points) -> Made:
    """Ids, names, centres and units of the cells, by their points and, without any, by their land."""
    import pandas as pd

    ground, count = partition.ground, partition.count
    land = partition.whole[partition.groups]
    units = majority(partition.assign(points), points.gids, count)
    bare = pd.isna(units[:, 0])
    units[bare] = majority(land, ground.gids, count, ground.areas)[bare]
    main = finest(units)
    country = pd.Series(units[:, 0]).fillna("")
    number = country.groupby(country).cumcount() + 1
    names = ground.table["name"].reindex(list(main)).fillna("").reset_index(drop=True)
    again = names.groupby(pd.Series(main)).cumcount() + 1
    several = names.groupby(pd.Series(main)).transform("size") > 1
    centres = ground.table.reindex(list(main))
    return Made(
        partition,
        [f"{code}-{n:04d}" for code, n in zip(country, number, strict=True)],
        [f"{name} {n}" if many else name for name, n, many in zip(names, again, several, strict=True)],
        centres["latitude"].to_numpy(dtype=np.float64),
        centres["longitude"].to_numpy(dtype=np.float64),
        units,
    )
