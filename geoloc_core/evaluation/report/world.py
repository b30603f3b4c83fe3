"""Maps of the world as data, which ``map.html`` draws as SVG over one set of outlines, and who borders on whom.

The outlines are Natural Earth's, which are in the public domain: see ``outlines.json``. Longitudes run from left to
right and latitudes downwards, both in degrees, from −180 and 90.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from geoloc_core.corpora import countries
from geoloc_core.evaluation.details import Region
from geoloc_core.plugins import Strict

DATA = "evaluation/report/outlines.json"
"""By its path in the package."""
NEAR_KM, FAR_KM = 25.0, 10000.0
"""Median errors that are drawn as the best and as the worst."""
WIDEST = 40
"""Radius of a candidate that is certain, degrees."""


class Outline(Strict):
    """A country.

    Attributes:
        place: Latitude and longitude of a point of it, degrees.
        path: As SVG takes it; empty of one too small to be drawn, of which there is a dot.
        neighbours: Codes of the countries that it shares a border with on land.
    """

    place: tuple[float, float]
    path: str
    neighbours: tuple[str, ...]

    @property
    def x(self) -> str:
        """Of its point on the map."""
        return f"{self.place[1] + 180:.1f}"

    @property
    def y(self) -> str:
        """Of its point on the map."""
        return f"{90 - self.place[0]:.1f}"


class Outlines(Strict):
    """The countries of the world by code, and where their outlines are from."""

    made_of: str
    countries: dict[str, Outline]


@dataclass(frozen=True)
class Shade:
    """A country of a map: the id of its outline, how dark it is from 0 to 1, and what is said of it."""

    code: str
    shade: str
    said: str


@dataclass(frozen=True)
class Map:
    """A map of the world.

    Attributes:
        title: What it shows.
        low: What the lightest countries are.
        high: What the darkest are.
        shades: Countries of which something is known.
        left_out: Those that there is no outline of.
    """

    title: str
    low: str
    high: str
    shades: tuple[Shade, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class Pin:
    """Where a photo was taken, and where it was put."""

    x: str
    y: str
    to_x: str
    to_y: str


@dataclass(frozen=True)
class Spot:
    """A candidate: its area is its probability."""

    x: str
    y: str
    r: str
    said: str


@cache
def outlines() -> Outlines:
    """The countries of the world."""
    path = Path(__file__).parents[2] / DATA
    return Outlines.model_validate(json.loads(path.read_text(encoding="utf-8")))


def recall(title: str, regions: Sequence[Region]) -> Map:
    """How often each country is told; the better, the darker."""
    values = {one.name: (one.top[1].value, one.top[1].n) for one in regions if 1 in one.top}
    shades = {
        code: (value / 100, f"{named(code)}: {value:.0f} % of {n:,} photos")
        for code, (value, n) in values.items()
        if value is not None
    }
    return _map(title, "0 %", "100 % right", shades)


def median_error(title: str, regions: Sequence[Region]) -> Map:
    """How far off answers are in each country; the farther, the darker."""
    span = math.log(FAR_KM / NEAR_KM)
    shades = {}
    for one in regions:
        km = one.median_km.value
        if km is not None:
            share = math.log(min(max(km, NEAR_KM), FAR_KM) / NEAR_KM) / span
            shades[one.name] = share, f"{named(one.name)}: median {km:,.0f} km of {one.median_km.n:,} photos"
    return _map(title, f"≤ {NEAR_KM:.0f} km", f"≥ {FAR_KM:,.0f} km", shades)


def _map(title: str, low: str, high: str, shades: Mapping[str, tuple[float, str]]) -> Map:
    known = outlines().countries
    drawn = tuple(Shade(code, f"{share:.2f}", said) for code, (share, said) in shades.items() if code in known)
    return Map(title, low, high, drawn, tuple(sorted(set(shades) - set(known))))


def pin(place: tuple[float, float], answer: tuple[float, float]) -> Pin:
    """A photo's place and its answer on the map."""
    return Pin(*(f"{value:.1f}" for at in (place, answer) for value in (at[1] + 180, 90 - at[0])))


def spots(candidates: np.ndarray) -> tuple[Spot, ...]:
    """Candidates (k, 3) on the map: latitude, longitude and probability."""
    return tuple(
        Spot(f"{longitude + 180:.1f}", f"{90 - latitude:.1f}", f"{WIDEST * math.sqrt(share):.1f}", f"{share:.1%}")
        for latitude, longitude, share in candidates.tolist()
    )


def named(code: str) -> str:
    """A country by its name, or by its code where it has none."""
    return _names().get(code, code)


@cache
def _names() -> dict[str, str]:
    short = countries.names()
    return {alpha3: short[alpha2] for alpha2, alpha3 in countries.alpha3().items()}


def longitude(code: str) -> float:
    """Where a country is from west to east, degrees; one without an outline stands last."""
    known = outlines().countries
    return known[code].place[1] if code in known else 180.0


def borders(one: str, other: str) -> bool:
    """Whether two countries share a border on land."""
    known = outlines().countries
    return one in known and other in known[one].neighbours
