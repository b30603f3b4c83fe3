"""Maps of a neighbourhood as data, which ``around.html`` draws as SVG over the outlines of countries.

Cell probabilities around a true place, and the prototype clusters of a region: figures 2 and 4 of PIGEON's poster (Haas
et al. 2022). Positions are degrees of :mod:`~geoloc_core.evaluation.report.world`'s maps; across, they are drawn
narrower by the cosine of the latitude in the middle, so that shapes are as they are on the ground.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from geoloc_core.contracts.clustered import Clustered
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.geo.sphere import haversine_km

DEGREE_KM = 111.2
"""Of latitude."""
NEAR_KM = 1000.0
"""Cells whose places are farther from the true one are left out of its map."""
LEAST_KM = 25.0
"""From the middle of a map to its edge, at least."""
SHOWN = 0.001
"""Cells with a smaller part of the highest probability are left out."""
MOST = 2000
"""Photos on a map of clusters."""
COLOURS = 6
"""Of clusters; those of a cell take them in turn."""
THIN = 400
"""Thin lines that are as high as a map."""
FINE = 400
"""Steps that outlines are simplified to, from the middle of a map to its upper edge."""
ASPECT = 0.62
"""Height of a map, of its width."""
NARROWEST = 0.05
"""The least cosine: near the poles maps are wider than the ground."""


@dataclass(frozen=True)
class Window:
    """What a map shows: a middle, and how far it reaches from there to its upper and lower edge.

    Attributes:
        latitude: Of the middle, degrees.
        longitude: Of the middle, degrees.
        km: From the middle to the upper edge.
    """

    latitude: float
    longitude: float
    km: float

    @property
    def squeeze(self) -> float:
        """What degrees of longitude are multiplied by."""
        return max(NARROWEST, math.cos(math.radians(self.latitude)))

    @property
    def high(self) -> float:
        """Half of the height, degrees."""
        return self.km / DEGREE_KM

    @property
    def wide(self) -> float:
        """Half of the width, degrees of longitude."""
        return self.high / ASPECT / self.squeeze

    def near(self, longitudes: np.ndarray) -> np.ndarray:
        """Longitudes (N,) as they go on from the middle, across the antimeridian too."""
        found: np.ndarray = (longitudes - self.longitude + 180) % 360 - 180 + self.longitude
        return found

    def holds(self, latitudes: np.ndarray, longitudes: np.ndarray) -> np.ndarray:
        """Whether points (N,) are on the map."""
        across = np.abs(self.near(longitudes) - self.longitude) <= self.wide
        found: np.ndarray = across & (np.abs(latitudes - self.latitude) <= self.high)
        return found


@dataclass(frozen=True)
class Area:
    """A cell: its outline as SVG takes it, how dark it is from 0 to 1, and what is said of it."""

    path: str
    shade: str
    said: str


@dataclass(frozen=True)
class Dots:
    """Points of one kind: a path with a line of no length at each, their class of style, and what is said of them."""

    path: str
    style: str
    said: str


@dataclass(frozen=True)
class Around:
    """A map of a neighbourhood.

    Attributes:
        title: What it shows.
        about: What else there is to say of it.
        view: Of the SVG.
        squeeze: See :class:`Window`.
        thin: The width of a thin line.
        shifts: Degrees by which outlines of countries are drawn again, where the map crosses the antimeridian.
        areas: Cells.
        dots: From the back to the front.
        scale: Where the bar that tells kilometres begins and ends, and how high it is.
        scale_km: What it tells.
        ends: What the lightest and the darkest cell are; empty where all are alike.
    """

    title: str
    about: str
    view: str
    squeeze: str
    thin: str
    shifts: tuple[int, ...]
    areas: tuple[Area, ...]
    dots: tuple[Dots, ...]
    scale: tuple[str, str, str]
    scale_km: str
    ends: tuple[str, str] | tuple[()] = ()


def probabilities(
    title: str,
    space: LabelSpace,
    shapes: np.ndarray,
    classes: Sequence[str],
    shares: np.ndarray,
    place: tuple[float, float],
    answer: tuple[float, float],
) -> Around:
    """How probable each cell around a photo's true place is.

    Args:
        title: What it shows.
        space: C cells.
        shapes: (C,) polygons in degrees, or None.
        classes: (k,) ids of candidates, the best first.
        shares: (k,) their probabilities.
        place: Where the photo was taken, degrees.
        answer: Where it was put.
    """
    cells = space.index(list(classes))
    cells, shares = cells[cells >= 0], shares[cells >= 0]
    far = haversine_km(space.latitudes[cells], space.longitudes[cells], *place)
    counted = (far <= NEAR_KM) & (shares >= SHOWN * shares.max(initial=0))
    near, drawn = cells[counted], shares[counted]
    reach = float(np.quantile(far[counted], 0.9)) if counted.any() else 0.0
    apart = float(haversine_km(*answer, *place))
    reach = max(reach, apart if apart <= NEAR_KM else 0.0)
    first = float(far[counted][0]) + _radius_km(shapes[near[0]]) if counted.any() else 0.0
    window = Window(*place, max(LEAST_KM, 1.25 * reach, first))
    most = float(drawn.max(initial=0))
    areas = [
        Area(path, f"{share / most:.2f}" if most else "0", f"{space.names[cell]}: {share:.1%}")
        for cell, share, path in zip(near.tolist(), drawn.tolist(), outlines(shapes[near], window), strict=True)
        if path
    ]
    put = [Dots(_dots(*_points(window, [answer])), "answer", "where it was put")] if apart <= NEAR_KM else []
    held, off = float(shares[far <= NEAR_KM].sum()), "" if put else f"; the answer is {apart:,.0f} km away"
    return _around(
        title,
        f"the cells within {NEAR_KM:,.0f} km hold {held:.0%} of the probability{off}",
        window,
        areas,
        [*put, Dots(_dots(*_points(window, [place])), "true", "where it was taken")],
        ("0 %", f"{most:.1%}"),
    )


def clusters(
    title: str, space: LabelSpace, shapes: np.ndarray, found: Clustered, window: Window | None = None
) -> Around:
    """The clusters of training photos of a region, with the borders of the cells in which they were found.

    Args:
        title: What it shows.
        space: C cells.
        shapes: (C,) polygons in degrees, or None.
        found: The clusters.
        window: The region; left out, that around the cell with the most clusters.
    """
    of_photo = np.repeat(np.arange(len(found.starts) - 1), np.diff(found.starts))
    cell_of = np.repeat(np.arange(len(found.cells) - 1), np.diff(found.cells))
    if window is None:
        window = around_cell(space, found, int(np.diff(found.cells).argmax()))
    here = np.flatnonzero(window.holds(found.latitudes, found.longitudes))
    some = here[np.linspace(0, len(here) - 1, min(len(here), MOST)).round().astype(int)]
    sizes = np.diff(found.starts)
    dots = []
    for number in np.unique(of_photo[some]).tolist():
        own = some[of_photo[some] == number]
        points = np.stack([found.latitudes[own], found.longitudes[own]], axis=1)
        cell = int(cell_of[number])
        style = f"c{(number - int(found.cells[cell])) % COLOURS}"
        dots.append(Dots(_dots(*_points(window, points)), style, f"{sizes[number]:,} photos of {space.names[cell]}"))
    cells = np.unique(cell_of[of_photo[here]])
    drawn = zip(cells.tolist(), outlines(shapes[cells], window), strict=True)
    areas = [Area(path, "0", space.names[cell]) for cell, path in drawn if path]
    few = f", {len(some):,} of them drawn" if len(some) < len(here) else ""
    about = (
        f"{len(here):,} training photos{few} in {len(np.unique(of_photo[here])):,} clusters of {len(cells):,} cells, "
        "a colour each"
    )
    return _around(title, about, window, areas, dots)


def around_cell(space: LabelSpace, found: Clustered, cell: int) -> Window:
    """The region that most of a cell's clustered photos are in."""
    first, last = found.starts[found.cells[[cell, cell + 1]]]
    latitude, longitude = float(space.latitudes[cell]), float(space.longitudes[cell])
    far = haversine_km(found.latitudes[first:last], found.longitudes[first:last], latitude, longitude)
    return Window(latitude, longitude, max(LEAST_KM, 1.4 * float(np.quantile(far, 0.95)) if last > first else 0.0))


def outlines(shapes: np.ndarray, window: Window) -> list[str]:
    """Paths of polygons (n,) on a map; empty where one is None or elsewhere."""
    import shapely

    west, east = window.longitude - window.wide, window.longitude + window.wide
    south, north = window.latitude - window.high, window.latitude + window.high
    there = np.flatnonzero(~shapely.is_missing(shapes))
    parts = []
    for shift in _shifts(window):
        moved = shapely.transform(shapes[there], lambda xy, shift=shift: xy + np.array([shift, 0.0]))
        parts.append(shapely.clip_by_rect(moved, west, south, east, north))
    whole = shapely.simplify(shapely.union_all(np.stack(parts), axis=0), window.high / FINE)
    found = [""] * len(shapes)
    for at, shape in zip(there.tolist(), whole, strict=True):
        found[at] = _path(shape, window)
    return found


def _path(shape: Any, window: Window) -> str:
    """The rings of a polygon as one path."""
    import shapely

    solid = [part for part in shapely.get_parts(shape) if shapely.get_dimensions(part) == 2]
    rings = [shapely.get_coordinates(ring) for part in solid for ring in shapely.get_rings(part)]
    return "".join(
        "M" + " ".join(f"{x},{y}" for x, y in zip(*_text(window, ring[:-1, 1], ring[:-1, 0]), strict=True)) + "Z"
        for ring in rings
    )


def _radius_km(shape: Any) -> float:
    """How far a polygon reaches from its middle to the corner of its box, as far as maps go; 0 where there is none."""
    import shapely

    if shape is None:
        return 0.0
    west, south, east, north = shapely.bounds(shape)
    across = (east - west) * math.cos(math.radians((south + north) / 2))
    return min(NEAR_KM, DEGREE_KM * math.hypot(across, north - south) / 2)


def _shifts(window: Window) -> tuple[int, ...]:
    """By how many degrees of longitude the world is drawn again, so that the map is covered."""
    east, west = window.longitude + window.wide > 180, window.longitude - window.wide < -180
    return (0, *([360] if east else []), *([-360] if west else []))


def _text(window: Window, latitudes: np.ndarray, longitudes: np.ndarray) -> tuple[list[str], list[str]]:
    """Positions of points, to a thousandth of the map."""
    digits = max(1, 3 - math.floor(math.log10(window.high)))
    return [f"{x:.{digits}f}" for x in longitudes + 180], [f"{y:.{digits}f}" for y in 90 - latitudes]


def _points(window: Window, points: Sequence[tuple[float, float]] | np.ndarray) -> tuple[list[str], list[str]]:
    """Positions of points (n, 2) that are not squeezed any more: dots stay round."""
    latitudes, longitudes = np.asarray(points, np.float64).reshape(-1, 2).T
    x = (window.near(longitudes) + 180) * window.squeeze
    return _text(window, latitudes, x - 180)


def _dots(x: Sequence[str], y: Sequence[str]) -> str:
    return "".join(f"M{a} {b}h0" for a, b in zip(x, y, strict=True))


def _around(
    title: str,
    about: str,
    window: Window,
    areas: Sequence[Area],
    dots: Sequence[Dots],
    ends: tuple[str, str] | tuple[()] = (),
) -> Around:
    left = (window.longitude - window.wide + 180) * window.squeeze
    wide, high, top = 2 * window.wide * window.squeeze, 2 * window.high, 90 - window.latitude - window.high
    length = _round(window.km / ASPECT / 2)
    bar, at = length / DEGREE_KM, left + 0.04 * wide
    digits = max(1, 4 - math.floor(math.log10(window.high)))
    return Around(
        title=title,
        about=about,
        view=" ".join(f"{value:.{digits}f}" for value in (left, top, wide, high)),
        squeeze=f"{window.squeeze:.4f}",
        thin=f"{high / THIN:.{digits}f}",
        shifts=_shifts(window),
        areas=tuple(areas),
        dots=tuple(dots),
        scale=(f"{at:.{digits}f}", f"{at + bar:.{digits}f}", f"{top + 0.93 * high:.{digits}f}"),
        scale_km=f"{length:,.0f} km",
        ends=ends,
    )


def _round(value: float) -> float:
    """The greatest of 1, 2, 5, 10, 20, … that is no more."""
    power = 10.0 ** math.floor(math.log10(value))
    return power * max(step for step in (1, 2, 5) if step * power <= value)
