"""The shots of a corpus of the demo world: each photo drawn, with all that a corpus could publish of it."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache
from io import BytesIO
from pathlib import Path

import msgpack
import numpy as np
from PIL import Image

from geoloc_core.corpora.simulated import Plan, Shot
from geoloc_core.corpora.world import photo as world
from geoloc_core.corpora.world.gazetteer import NATURAL, Spread, cities, countries, draw
from geoloc_core.corpora.world.people import Place, near_city
from geoloc_core.corpora.world.render import render
from geoloc_core.corpora.world.rng import stable_hash, stream
from geoloc_core.corpora.world.scenes import probabilities
from geoloc_core.corpora.world.words import caption, seen
from geoloc_core.files import replacing

MODULUS = 8_999_999_993
"""A prime: numbers of photos do not repeat within it."""


@dataclass(frozen=True)
class Piece:
    """Photos that are rendered together.

    Attributes:
        file: Where they go.
        start: Number of the first.
        stop: Number after the last.
        name: The corpus.
        seed: The project's seed.
        size: Width and height in pixels.
        masks: Whether masks are rendered.
        plan: What the layout asks for.
        spread: How places are shared out over countries.
    """

    file: Path
    start: int
    stop: int
    name: str
    seed: int
    size: int
    masks: bool
    plan: Plan
    spread: Spread = NATURAL


def render_piece(piece: Piece) -> None:
    """Draw the shots of a piece, and write them to its file once they are all there."""
    with replacing(piece.file) as aside, aside.open("wb") as records:
        for photo, spot, heading in views(piece.seed, piece.name, piece.start, piece.stop, piece.plan, piece.spread):
            drawn = render(photo, piece.size, piece.masks)
            mask = None if drawn.mask is None else _png(drawn.mask)
            jpeg, shown = drawn.jpeg(80 + photo.index % 11), "; ".join(seen(photo, drawn.things))
            shot = shot_of(photo, spot, heading, jpeg, mask, shown)
            records.write(msgpack.packb([getattr(shot, field.name) for field in fields(Shot)]))


def _png(mask: np.ndarray) -> bytes:
    stream = BytesIO()
    Image.fromarray(mask.astype("uint16")).save(stream, "PNG")
    return stream.getvalue()


def views(
    seed: int, name: str, start: int, stop: int, plan: Plan, spread: Spread = NATURAL
) -> Iterator[tuple[world.Photo, int, int | None]]:
    """Photos ``start`` to ``stop`` of a corpus, each with the number of its place and its heading."""
    if not plan.headings:
        for photo in world.photos(seed, name, start, stop, plan.style, spread):
            yield photo, photo.index, None
        return
    for index in range(start, stop):
        spot, turn = divmod(index, len(plan.headings))
        base = world.photo(seed, name, spot, "street")
        place = _place(seed, name, spot, plan, spread)
        month = base.facts.moment.month if base.facts else None
        rng = stream(seed, f"{name} view", index)
        facts = world.facts(rng, place, "street", month)
        chances = probabilities(rng, facts.scene)
        yield (
            world.Photo(index, (seed, name), base.author, place, facts.scene, facts, chances),
            spot,
            plan.headings[turn],
        )


GOLDEN = (math.sqrt(5) - 1) / 2
"""Multiples of it fall evenly into [0, 1), however many there are (Weyl 1916)."""


def _place(seed: int, name: str, spot: int, plan: Plan, spread: Spread) -> Place:
    """A place in the plan's country; where it has none, countries get their shares of places almost exactly."""
    rng: random.Random = stream(seed, f"{name} place", spot)
    if plan.country is None:
        start = stream(seed, f"{name} places").random()
        return near_city(rng, draw((start + spot * GOLDEN) % 1, spread))
    south, west, north, east = plan.within
    while True:
        place = near_city(rng, rng.choice(_cities(plan.country, plan.within)))
        if south <= place.latitude <= north and west <= place.longitude <= east:
            return place


@cache
def _cities(country: str, within: tuple[float, float, float, float]) -> list[int]:
    """Rows of a country's cities."""
    south, west, north, east = within
    table = cities()
    return [
        row
        for row, code in enumerate(table.country)
        if code == country and south <= table.latitude[row] <= north and west <= table.longitude[row] <= east
    ]


def shot_of(
    photo: world.Photo, spot: int, heading: int | None, jpeg: bytes, mask: bytes | None, seen: str = ""
) -> Shot:
    """A photo with what a corpus could publish of it, given its place's number, its heading and what was drawn."""
    rng = photo.stream("name")
    number = 1_000_000_000 + (photo.index * 2_654_435_761 + stable_hash(f"{photo.key}")) % MODULUS
    place, scene = photo.place, photo.scene
    return Shot(
        index=photo.index,
        spot=spot,
        author=photo.author,
        latitude=place.latitude,
        longitude=place.longitude,
        country=place.country,
        country_name=countries()[place.country].name,
        city=place.city,
        heading=heading,
        taken=_taken(photo, spot if heading is not None else None),
        labels=(scene.s3, scene.s16, scene.s365),
        probabilities=photo.probabilities,
        caption=caption(photo),
        number=number,
        secret=f"{rng.getrandbits(40):010x}",
        server=rng.randint(1, 1400),
        jpeg=jpeg,
        mask=mask,
        seen=seen,
    )


def _taken(photo: world.Photo, spot: int | None) -> str:
    """Views of one place are of one month."""
    rng = photo.stream("taken") if spot is None else stream(photo.key[0], f"{photo.key[1]} taken", spot)
    year, month, day, hour = rng.randint(2008, 2021), rng.randint(1, 12), rng.randint(1, 28), rng.randint(8, 19)
    if photo.facts:
        month, hour = photo.facts.moment.month, int(photo.facts.moment.hour)
    return f"{year}-{month:02}-{day:02}T{hour:02}:{rng.randint(0, 59):02}:{rng.randint(0, 59):02}"
