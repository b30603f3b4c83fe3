"""The moment of a photo: month, hour, where the sun stands, what the sky is like."""

import math
import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Moment:
    """When a photo was taken.

    Attributes:
        month: 1 to 12.
        hour: Local solar time, 0 to 24.
        sun_elevation: Degrees above the horizon.
        sun_side: Where the sun stands seen from the camera, from -1 (left) to 1 (right).
        clouds: Cloud cover, 0 to 1.
    """

    month: int
    hour: float
    sun_elevation: float
    sun_side: float
    clouds: float


def sun_elevation(latitude: float, month: int, hour: float) -> float:
    """Degrees of the sun above the horizon in the middle of a month at a local solar hour."""
    declination = math.radians(23.44) * math.cos((month - 6.7) * math.pi / 6)
    lat, angle = math.radians(latitude), math.radians(15 * (hour - 12))
    height = math.sin(lat) * math.sin(declination) + math.cos(lat) * math.cos(declination) * math.cos(angle)
    return math.degrees(math.asin(max(-1.0, min(1.0, height))))


def moment(rng: random.Random, latitude: float) -> tuple[int, float]:
    """A month and an hour at which people take photos: mostly by day, more of them in summer."""
    summer = 7 if latitude > 0 else 1
    while True:
        month, hour = rng.randint(1, 12), rng.gauss(14, 3.2)
        likely = 0.65 + 0.35 * math.cos((month - summer) * math.pi / 6)
        light = sun_elevation(latitude, month, hour) > -5 or rng.random() < 0.08
        if 5 < hour < 23 and light and rng.random() < likely:
            return month, hour


def at(rng: random.Random, latitude: float, month: int, hour: float, wetness: float) -> Moment:
    """The sky at a month and hour: cloudier where it is wetter."""
    clouds = min(max(rng.betavariate(1.2, 1.2) * (0.25 + 1.1 * wetness), 0), 1)
    return Moment(month, hour, sun_elevation(latitude, month, hour), rng.uniform(-1, 1), clouds)
