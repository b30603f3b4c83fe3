"""What people built: facts of a country, known ones first, the rest like the neighbours'."""

import random
from dataclasses import dataclass
from functools import cache

import numpy as np

from geoloc_core.corpora.world import known
from geoloc_core.corpora.world.fields import field, unit_vectors
from geoloc_core.corpora.world.gazetteer import centres, countries

RGB = tuple[int, int, int]

OPTIONS = {
    "centre": known.CENTRE,
    "edge": known.EDGE,
    "plate": {k: v for k, v in known.PLATE.items() if k in ("white", "yellow", "eu", "black", "blue", "green", "red")},
    "sign": known.SIGN,
    "warning": known.WARNING,
    "bollard": known.BOLLARD,
    "pole": known.POLE,
    "style": known.STYLE,
}
DASHES = ("short", "long", "solid", "double")


@dataclass(frozen=True)
class Culture:
    """Facts that hold in a whole country.

    Attributes:
        country: Two-letter code.
        left: Whether people drive on the left.
        centre: Colour of the centre line.
        dash: Its pattern.
        edge: Colour of the edge lines, or none.
        plate: Look of number plates.
        sign: Colour of directional signs.
        warning: Shape and colour of warning signs.
        bollard: Look of roadside posts.
        pole: What utility poles are made of.
        style: How people build.
        script: What signs are written in.
        accent: Colour of shop fronts, buses and doors.
    """

    country: str
    left: bool
    centre: str
    dash: str
    edge: str
    plate: str
    sign: str
    warning: str
    bollard: str
    pole: str
    style: str
    script: str
    accent: RGB


@dataclass(frozen=True)
class Locality:
    """How a place differs from others like it: smooth fields.

    Attributes:
        walls: Which wall colours are common, about -2 to 2.
        roofs: Which roof colours are common, about -2 to 2.
        asphalt: How light roads are, about -2 to 2.
        grass: Factors of red, green and blue of grass and leaves.
        earth: Factors of red, green and blue of soil, plaster and paving.
    """

    walls: float
    roofs: float
    asphalt: float
    grass: tuple[float, float, float]
    earth: tuple[float, float, float]


@cache
def _points() -> tuple[list[str], np.ndarray]:
    table = centres()
    return list(table), np.stack(list(table.values()))


def _votes(feature: str, code: str) -> dict[str, float]:
    """Support for each value of a feature: land neighbours first, then whoever is near."""
    table = known.by_code(OPTIONS[feature])
    codes, points = _points()
    here = centres()[code]
    near = np.exp(-np.arccos(np.clip(points @ here, -1, 1)) * 6371 / 500)
    votes = dict.fromkeys(OPTIONS[feature], 0.0)
    neighbours = countries()[code].neighbours
    for other, weight in zip(codes, near.tolist(), strict=True):
        if other in table and other != code:
            votes[table[other]] += weight + (0.5 if other in neighbours else 0.0)
    return votes


@cache
def fact(feature: str, code: str) -> str:
    """The value of a feature in a country: the known one, or what most countries around have."""
    table = known.by_code(OPTIONS[feature])
    if code in table:
        return table[code]
    votes = _votes(feature, code)
    return max(votes, key=lambda value: votes[value])


@cache
def _smoothed(name: str, code: str) -> float:
    """A field at the middle of a country, averaged with its neighbours."""
    table = centres()
    around = [n for n in countries()[code].neighbours if n in table]
    own = float(field(name, 2200, table[code]))
    if not around:
        return own
    return 0.65 * own + 0.35 * float(np.mean([field(name, 2200, table[n]) for n in around]))


def _accent(code: str) -> RGB:
    import colorsys

    hue = 0.5 + 0.32 * _smoothed("accent hue", code)
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, 0.72, 0.5 + 0.42 * (0.5 + 0.25 * _smoothed("accent value", code)))
    return int(255 * red), int(255 * green), int(min(255 * blue, 255))


@cache
def culture(code: str) -> Culture:
    """The facts of a country."""
    dash = sorted(DASHES)[int(np.clip(2 + 1.1 * _smoothed("dash", code), 0, 3))]
    scripts = known.by_code(known.SCRIPT)
    return Culture(
        country=code,
        left=code in known.LEFT.split(),
        dash=dash,
        script=known.SCRIPT_OF.get(code) or scripts.get(countries()[code].language, "latin"),
        accent=_accent(code),
        **{feature: fact(feature, code) for feature in OPTIONS},
    )


def script_at(culture: Culture, latitude: float, rng: random.Random) -> str:
    """The script of one sign: two are in use in many countries, and India's change from north to south."""
    if culture.country == "IN":
        return rng.choice(("tamil" if latitude < 18 else "devanagari", "latin"))
    if culture.country == "LK":
        return "tamil"
    second = 0.15 if culture.script != "latin" else 0.0
    return "latin" if rng.random() < second else culture.script


def locality(latitude: float, longitude: float) -> Locality:
    """What is particular about a place."""
    point = unit_vectors(np.array([latitude]), np.array([longitude]))

    def value(name: str, scale_km: float) -> float:
        return float(np.clip(field(name, scale_km, point)[0], -2, 2))

    def tone(name: str, strength: float) -> tuple[float, float, float]:
        red, green, blue = (1 + strength * value(f"{name} {band}", 1100) for band in ("red", "green", "blue"))
        return red, green, blue

    return Locality(
        value("walls", 350), value("roofs", 350), value("asphalt", 1100), tone("grass", 0.2), tone("earth", 0.1)
    )
