"""How wrong an answer is: great-circle errors and the field's scores, over whole columns at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geoloc_core.geo.sphere import haversine_km

GEOGUESSR_KM = 1492.7
"""Distance over which the game's score on the world map falls by a factor e (PIGEON, OSV-5M)."""


def percent(hits: np.ndarray) -> float:
    """Share of (N,) booleans that hold, in percent; of none, not a number."""
    return 100.0 * int(np.count_nonzero(hits)) / len(hits) if len(hits) else float("nan")


@dataclass(frozen=True)
class Convention:
    """What a published "% @ km" leaves unsaid: the same predictions score differently under another one.

    Attributes:
        radius_km: Radius of the sphere; None measures along the WGS 84 ellipsoid.
        inclusive: Whether an error of exactly the threshold counts as within it.
        rounded: Whether the game's score is rounded for each photo.
    """

    radius_km: float | None = 6371.0
    inclusive: bool = True
    rounded: bool = False

    def errors_km(
        self,
        latitudes: np.ndarray,
        longitudes: np.ndarray,
        true_latitudes: np.ndarray,
        true_longitudes: np.ndarray,
    ) -> np.ndarray:
        """Distances (N,) in kilometres between answers and truth, all (N,) degrees."""
        if self.radius_km is not None:
            return haversine_km(latitudes, longitudes, true_latitudes, true_longitudes, radius_km=self.radius_km)
        from pyproj import Geod

        return Geod(ellps="WGS84").inv(longitudes, latitudes, true_longitudes, true_latitudes)[2] / 1000

    def within(self, errors_km: np.ndarray, threshold_km: float) -> np.ndarray:
        """Which errors (N,) count as within a threshold."""
        return errors_km <= threshold_km if self.inclusive else errors_km < threshold_km

    def __str__(self) -> str:
        where = "WGS 84 ellipsoid" if self.radius_km is None else f"sphere of {self.radius_km:g} km"
        points = ", points rounded for each photo" if self.rounded else ""
        return f"{where}, within means {'≤' if self.inclusive else '<'}{points}"


CONVENTIONS = {
    "geoloc": Convention(),
    "pigeon": Convention(radius_km=6378.137, inclusive=False, rounded=True),
    "osv5m": Convention(inclusive=False),
    "plonk": Convention(inclusive=False),
    "guidebook": Convention(),
    "geoclip": Convention(radius_km=None),
    "g3": Convention(radius_km=None, inclusive=False),
}
"""The conventions of published evaluation code, by project."""

DEFAULT = CONVENTIONS["geoloc"]


def alike() -> dict[Convention, list[str]]:
    """The conventions that differ, each with the projects that keep to it; the default first."""
    found: dict[Convention, list[str]] = {}
    for name, convention in CONVENTIONS.items():
        found.setdefault(convention, []).append(name)
    return found


def within_km(
    errors_km: np.ndarray, thresholds_km: Sequence[float], convention: Convention = DEFAULT
) -> dict[float, float]:
    """Percent of errors (N,) within each threshold: the "% @ km" of the field."""
    return {km: percent(convention.within(errors_km, km)) for km in thresholds_km}


def geoguessr_score(errors_km: np.ndarray, convention: Convention = DEFAULT) -> np.ndarray:
    """Points (N,) from 0 to 5000 that the game gives on its world map for errors (N,)."""
    points = 5000.0 * np.exp(-np.asarray(errors_km) / GEOGUESSR_KM)
    return np.round(points) if convention.rounded else points
