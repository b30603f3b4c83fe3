"""Who took a photo and where: people take several photos, mostly around where they live."""

import math
import random
from dataclasses import dataclass

from geoloc_core.corpora.world.gazetteer import NATURAL, Spread, cities, draw
from geoloc_core.corpora.world.rng import stream

BLOCK = 256
"""Photos whose authors are drawn together, so that a photo's author depends on its own number alone."""
MEAN_PHOTOS = 5.0
"""Photos per author."""


@dataclass(frozen=True)
class Place:
    """A point where a photo was taken.

    Attributes:
        latitude: Degrees.
        longitude: Degrees.
        country: Two-letter code.
        city: Name of the city it is near.
        remote: From 0 in the city to 1 halfway to the next one.
    """

    latitude: float
    longitude: float
    country: str
    city: str
    remote: float


@dataclass(frozen=True)
class Author:
    """Someone who takes photos.

    Attributes:
        name: Written like an account of a photo site.
        homes: City rows: home first, then journeys.
        spots: Places returned to.
    """

    name: str
    homes: tuple[int, ...]
    spots: tuple[Place, ...]


def _sizes(rng: random.Random) -> list[int]:
    sizes: list[int] = []
    while sum(sizes) < BLOCK:
        mean = MEAN_PHOTOS * (4 if rng.random() < 0.08 else 0.65)
        sizes.append(1 + int(math.log(1 - rng.random()) / math.log(1 - 1 / mean)))
    sizes[-1] -= sum(sizes) - BLOCK
    return sizes


def authors_of(seed: int, corpus: str, block: int) -> list[int]:
    """The author of each photo of a block, as the author's number within it: shape (256,)."""
    rng = stream(seed, f"{corpus} authors", block)
    rows = [number for number, size in enumerate(_sizes(rng)) for _ in range(size)]
    rng.shuffle(rows)
    return rows


def near_city(rng: random.Random, row: int) -> Place:
    """A point on land near a city: on the way to a neighbouring one, where that is close, else in the city itself."""
    table = cities()
    ways = [
        (other, km)
        for other, km in zip(table.near[row].tolist(), table.near_km[row].tolist(), strict=True)
        if km < 250 and table.country[other] == table.country[row]
    ]
    latitude, longitude, remote = float(table.latitude[row]), float(table.longitude[row]), 0.0
    if ways and rng.random() < 0.7:
        other, km = rng.choice(ways)
        remote = rng.random() ** 2
        latitude += 0.5 * remote * (float(table.latitude[other]) - latitude)
        step = (float(table.longitude[other]) - longitude + 180) % 360 - 180
        longitude += 0.5 * remote * step
        remote *= min(1.0, km / 60)
    latitude += rng.gauss(0, 0.006)
    longitude = (longitude + rng.gauss(0, 0.006) / max(math.cos(math.radians(latitude)), 0.1) + 180) % 360 - 180
    return Place(round(latitude, 6), round(longitude, 6), table.country[row], table.name[row], remote)


def author(seed: int, corpus: str, block: int, number: int, spread: Spread = NATURAL) -> Author:
    """One author: a home, perhaps journeys, and spots returned to."""
    rng = stream(seed, f"{corpus} author", block, number)
    table = cities()
    homes = [draw(rng.random(), spread)]
    while rng.random() < 0.35 and len(homes) < 4:
        near = rng.random() < 0.5
        homes.append(int(rng.choice(table.near[homes[0]].tolist())) if near else draw(rng.random(), spread))
    spots = [near_city(rng, rng.choice((homes[0], *homes))) for _ in range(rng.randint(1, 3))]
    return Author(f"{rng.randrange(10_000_000, 99_999_999)}@N0{rng.randrange(9)}", tuple(homes), tuple(spots))


def place(rng: random.Random, by: Author) -> Place:
    """Where an author takes one photo."""
    if rng.random() < 0.35:
        return rng.choice(by.spots)
    home = by.homes[0] if rng.random() < 0.65 else rng.choice(by.homes)
    return near_city(rng, home)
