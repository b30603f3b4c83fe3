"""Everything there is to know about photo number i of a corpus, before it is drawn."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from geoloc_core.corpora.world import climate as land
from geoloc_core.corpora.world import culture as built
from geoloc_core.corpora.world import people, scenes, sun
from geoloc_core.corpora.world.gazetteer import NATURAL, Spread
from geoloc_core.corpora.world.rng import stream

PLACELESS = 0.27
"""Share of photos that show nothing of the place: rooms, food, faces."""

Style = Literal["flickr", "street"]


@dataclass(frozen=True)
class Facts:
    """What a photo shows of where and when it was taken: pictures, captions, clues and masks all follow from it."""

    place: people.Place
    scene: scenes.Scene
    climate: land.Climate
    culture: built.Culture
    locality: built.Locality
    moment: sun.Moment
    script: str


@dataclass(frozen=True)
class Photo:
    """Photo number ``index`` of a corpus.

    Attributes:
        index: Its number.
        key: Seed and corpus, from which every random stream of the photo comes.
        author: Who took it.
        place: Where.
        scene: What it shows.
        facts: What is visible of the place, or nothing.
        probabilities: How sure a scene classifier is of indoor, natural and urban.
    """

    index: int
    key: tuple[int, str]
    author: str
    place: people.Place
    scene: scenes.Scene
    facts: Facts | None
    probabilities: tuple[float, float, float]

    def stream(self, purpose: str) -> random.Random:
        """A random stream of this photo."""
        return stream(self.key[0], f"{self.key[1]} {purpose}", self.index)


@lru_cache(maxsize=8)
def _authors(seed: int, corpus: str, block: int) -> list[int]:
    return people.authors_of(seed, corpus, block)


@lru_cache(maxsize=512)
def _author(seed: int, corpus: str, block: int, number: int, spread: Spread) -> people.Author:
    return people.author(seed, corpus, block, number, spread)


def facts(rng: random.Random, place: people.Place, style: Style = "flickr", month: int | None = None) -> Facts:
    """What an outdoor photo at a place shows."""
    culture = built.culture(place.country)
    drawn, hour = sun.moment(rng, place.latitude)
    month = month or drawn
    climate = land.climate(place.latitude, place.longitude, month)
    scene = scenes.along_a_road(rng, climate) if style == "street" else scenes.outdoor(rng, climate, culture.script)
    if style == "street":
        hour = min(max(hour, 9), 16)
    return Facts(
        place=place,
        scene=scene,
        climate=climate,
        culture=culture,
        locality=built.locality(place.latitude, place.longitude),
        moment=sun.at(rng, place.latitude, month, hour, climate.wetness),
        script=built.script_at(culture, place.latitude, rng),
    )


def photo(seed: int, corpus: str, index: int, style: Style = "flickr", spread: Spread = NATURAL) -> Photo:
    """Photo number ``index``: the same whatever else is rendered."""
    block, row = divmod(index, people.BLOCK)
    by = _author(seed, corpus, block, _authors(seed, corpus, block)[row], spread)
    rng = stream(seed, f"{corpus} photo", index)
    place = people.place(rng, by)
    shown = None if style == "flickr" and rng.random() < PLACELESS else facts(rng, place, style)
    scene = shown.scene if shown else scenes.indoor(rng)
    return Photo(index, (seed, corpus), by.name, place, scene, shown, scenes.probabilities(rng, scene))


def photos(
    seed: int, corpus: str, start: int, stop: int, style: Style = "flickr", spread: Spread = NATURAL
) -> Iterator[Photo]:
    """Photos ``start`` to ``stop`` of a corpus."""
    return (photo(seed, corpus, index, style, spread) for index in range(start, stop))
