"""Temperature, wetness, biome, snow and soil of a place in a month."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from geoloc_core.corpora.world import terrain
from geoloc_core.corpora.world.fields import field, unit_vectors

Biome = Literal["tundra", "boreal", "temperate", "mediterranean", "steppe", "desert", "savanna", "tropical"]

REGIONS: tuple[tuple[float, float, float, float, float], ...] = (
    # deserts and dry lands
    (23, 5, 9, 28, 0.02), (24, 30, 8, 9, 0.02), (23, 47, 9, 10, 0.05), (32, 57, 5, 8, 0.12), (40, 60, 6, 9, 0.12),
    (40, 83, 5, 10, 0.06), (43, 103, 4, 10, 0.12), (27, 71, 4, 4, 0.12), (-22, -70, 9, 2.5, 0.02),
    (-9, -79, 6, 2, 0.06),
    (-24, 15, 7, 3, 0.06), (-24, 21, 5, 5, 0.2), (-25, 129, 8, 13, 0.1), (33.5, -113, 4, 5, 0.08),
    (38, -116, 4, 4, 0.16),
    (27, -105, 4, 4, 0.18), (28, -113, 4, 2, 0.08), (-45, -68, 7, 3, 0.2), (7, 46, 6, 5, 0.12), (48, 68, 5, 15, 0.27),
    (40, -103, 8, 4, 0.33), (39, 33, 2, 4, 0.3), (39.5, -4, 2, 4, 0.33), (-16, 25, 7, 12, 0.42), (-32, 24, 3, 5, 0.28),
    (34, 42, 3, 5, 0.14), (31, 36, 2, 3, 0.12), (47, 40, 3, 9, 0.35), (-20, -63, 5, 3, 0.36), (-8, -40, 5, 4, 0.28),
    # savannas
    (10, 5, 3.5, 25, 0.42), (-2, 37, 6, 4, 0.42), (-15, -50, 6, 7, 0.48), (-18, 135, 4, 10, 0.4), (20, 78, 6, 6, 0.45),
    (9, -67, 2, 5, 0.45),
    # wet lands
    (-4, -62, 6, 9, 0.95), (1, 20, 5, 9, 0.92), (0, 112, 8, 17, 0.95), (12, -84, 5, 5, 0.85), (6, -2, 3, 9, 0.8),
    (13, 105, 5, 6, 0.72), (5, -76, 4, 2, 0.95), (13, 122, 6, 4, 0.85), (-17, 146, 3, 2, 0.8), (48, -124, 5, 3, 0.9),
    (60, 6, 4, 4, 0.9), (54, -5, 5, 6, 0.85), (-44, 169, 3, 3, 0.85), (25, 92, 4, 4, 0.85), (35, 136, 6, 7, 0.75),
    (28, 114, 6, 8, 0.72), (-24, -49, 5, 5, 0.75), (-43, -73, 4, 2, 0.9), (23, 121, 3, 2, 0.85), (64, -19, 3, 5, 0.7),
    (47, 10, 2, 6, 0.75), (36, -82, 6, 7, 0.68), (-18, 48, 6, 2, 0.75), (-38, 175, 4, 3, 0.8), (11, 76, 4, 1.2, 0.85),
    (41, -75, 4, 6, 0.66), (39, 117, 4, 6, 0.52), (-33, 151, 4, 3, 0.6), (27, -81, 3, 3, 0.68),
    (34.5, -119, 2.5, 2, 0.38),
    (-27, 152, 4, 2, 0.62), (-37.5, 145, 2, 3, 0.5), (50, 12, 5, 12, 0.6), (58, 35, 7, 25, 0.6),
)  # fmt: skip
"""Known wet and dry regions: latitude, longitude, half-height and half-width in degrees, wetness from 0 to 1."""

CURRENTS = (
    (52, 2, 9, 16, 2.5), (66, 14, 10, 14, 7.0), (64, -19, 4, 8, 6.5), (58, -140, 9, 15, 5.0), (62, 125, 14, 35, -9.0),
    (47, 106, 6, 12, -5.0), (53, -80, 9, 20, -3.0), (46, 127, 6, 9, -4.0),
)  # fmt: skip
"""Lands warmed or cooled by seas and winds: latitude, longitude, half-height and half-width in degrees, °C."""
RED_SOIL = (
    (-2, 25, 17, 25), (-25, 130, 10, 17), (-15, -50, 12, 12), (15, 77, 6, 5), (34.5, -111, 4, 4), (14, 104, 6, 6),
    (33, -84, 3, 5), (20, 47, 5, 4), (-19, 47, 6, 4), (39, -4, 3, 4), (23, 113, 4, 6), (0, 113, 6, 9),
)  # fmt: skip
BLACK_SOIL = ((49, 35, 3, 12), (42, -93, 5, 6), (-34, -61, 3, 4), (64, -19, 3, 5), (20, -156, 3, 4), (48, 126, 4, 5))
LOCAL, LOCAL_KM = "local climate", 250
"""The smooth field by which climates vary within a region, and over which distance."""


@dataclass(frozen=True)
class Climate:
    """The land at a place in a month.

    Attributes:
        elevation_m: Height above the sea.
        coast_km: Distance to the sea.
        annual_c: Mean temperature of the year.
        temperature_c: Mean temperature of the month.
        wetness: From 0, a desert, to 1, a rainforest.
        biome: What grows.
        season: From -1, the depth of winter, to 1, the height of summer; 0 close to the equator.
        waning: Whether days are getting shorter.
        snow: Share of the ground under snow.
        soil: Red, green and blue of bare ground.
    """

    elevation_m: float
    coast_km: float
    annual_c: float
    temperature_c: float
    wetness: float
    biome: Biome
    season: float
    waning: bool
    snow: float
    soil: tuple[int, int, int]


def _inside(latitude: float, longitude: float, region: tuple[float, ...]) -> float:
    north = (latitude - region[0]) / region[2]
    east = ((longitude - region[1] + 180) % 360 - 180) / region[3]
    return math.exp(-((north * north + east * east) ** 1.5))


def season_of(latitude: float, month: int) -> float:
    """How far into summer a month is: 1 in July in the north, -1 in the south."""
    swing = math.cos((month - 7.2) * math.pi / 6)
    return swing * math.tanh(latitude / 18)


def wetness_of(latitude: float, longitude: float, coast_km: float, local: float) -> float:
    """Wetness from latitude belts, distance to the sea and the known regions.

    Args:
        latitude: Degrees.
        longitude: Degrees.
        coast_km: Distance to the sea.
        local: A value of a smooth field, to vary within a region.
    """
    north = abs(latitude)
    belt = 0.42 + 0.4 * math.exp(-((north / 12) ** 2)) + 0.2 * math.exp(-(((north - 52) / 14) ** 2))
    value = belt - 0.12 * (1 - math.exp(-coast_km / 700)) + 0.04 * local
    weights = [(_inside(latitude, longitude, region), region[4]) for region in REGIONS]
    total = sum(weight for weight, _ in weights)
    if total:
        known = sum(weight * wet for weight, wet in weights) / total
        value += (known + 0.03 * local - value) * min(1.0, total * 1.3)
    return min(max(value, 0.0), 1.0)


def _annual(latitude: float, longitude: float, elevation: float) -> float:
    north = abs(latitude)
    value = 27.5 - 0.048 * max(north - 8, 0) ** 1.6 - 0.0052 * elevation
    return value + sum(_inside(latitude, longitude, region) * region[4] for region in CURRENTS)


def _biome(latitude: float, annual: float, warmest: float, wetness: float) -> Biome:
    if warmest < (10 if abs(latitude) > 30 else 6):
        return "tundra"
    if abs(latitude) < 25 and annual > 12 and wetness < 0.55 and wetness > 0.2:
        return "savanna"
    if wetness < 0.2:
        return "desert"
    if annual < 4 and wetness > 0.35:
        return "boreal"
    if annual >= 18.5 and abs(latitude) < 28:
        return "tropical" if wetness > 0.6 else "savanna"
    if 11 < annual < 20 and 30 < abs(latitude) < 45 and 0.24 < wetness < 0.5:
        return "mediterranean"
    return "steppe" if wetness < 0.36 else "temperate"


def _soil(latitude: float, longitude: float, biome: Biome, local: float) -> tuple[int, int, int]:
    base = {"desert": (214, 184, 136), "steppe": (176, 152, 112), "savanna": (170, 122, 78)}.get(biome, (130, 104, 76))
    red = max(_inside(latitude, longitude, region) for region in RED_SOIL)
    black = max(_inside(latitude, longitude, region) for region in BLACK_SOIL)
    mixed = [b + (r - b) * min(1.0, red * 1.2) for b, r in zip(base, (184, 84, 44), strict=True)]
    mixed = [m + (k - m) * min(1.0, black * 1.2) for m, k in zip(mixed, (66, 58, 54), strict=True)]
    return tuple(int(min(max(m + 8 * local, 0), 255)) for m in mixed)  # type: ignore[return-value]


def climate(latitude: float, longitude: float, month: int) -> Climate:
    """The climate of a place in a month from 1 to 12."""
    point = unit_vectors(np.array([latitude]), np.array([longitude]))
    coast, elevation = float(terrain.coast_km(point)[0]), float(terrain.elevation_m(point)[0])
    return climate_at(latitude, longitude, month, coast, elevation, float(field(LOCAL, LOCAL_KM, point)[0]))


def climate_at(latitude: float, longitude: float, month: int, coast: float, elevation: float, local: float) -> Climate:
    """The climate of a place whose terrain is known: see :class:`Climate`.

    Args:
        latitude: Degrees.
        longitude: Degrees.
        month: From 1 to 12.
        coast: Distance to the sea, kilometres.
        elevation: Metres.
        local: The field :data:`LOCAL`.
    """
    wetness = wetness_of(latitude, longitude, coast, local)
    annual = _annual(latitude, longitude, elevation) + 0.5 * local
    inland = 1 - math.exp(-coast / 600)
    swing = min(abs(latitude) * (0.16 + 0.17 * inland), 22)
    season = season_of(latitude, month)
    temperature = annual + swing * math.cos((month - 7.2) * math.pi / 6) * math.copysign(1, latitude)
    biome = _biome(latitude, annual, annual + swing, wetness)
    return Climate(
        elevation_m=elevation,
        coast_km=coast,
        annual_c=annual,
        temperature_c=temperature,
        wetness=wetness,
        biome=biome,
        season=season,
        waning=(math.sin((month - 7.2) * math.pi / 6) > 0) == (latitude > 0),
        snow=min(max((1.0 - temperature) / 6, 0), 1) * min(1.0, wetness * 2.5),
        soil=_soil(latitude, longitude, biome, local),
    )
