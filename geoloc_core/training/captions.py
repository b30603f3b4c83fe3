"""Captions made of what is known about a place, as StreetCLIP and PIGEON were pre-trained with.

Two templates are published (Haas, Alberti and Skreta 2023; Haas et al. 2024, released code, which states the shares):

``pigeon``, for Street View: *A Street View photo close to the town of Lugano in the region of Ticino in Switzerland.
This photo is facing north. This location has a temperate, no dry season, warm summer climate.*

``pigeotto``, for Flickr: *A photo I took close to the town of Lugano in the region of Ticino in Switzerland. In this
location, people drive on the right side of the road.*

The sentence about the location comes first, the others follow in any order. Beside a sentence about the climate, the
one about the location may be left out; the driving side is told only where the climate is not. A fact that is not
known leaves out its words. All is drawn anew in every epoch.

``seen`` is for what these start from: a CLIP that was told what photos show and not where.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from geoloc_core.geo import articles
from geoloc_core.plugins import Strict

Share = Annotated[float, Field(ge=0, le=1)]
Template = Literal["pigeon", "pigeotto"]

OPENING = {"pigeon": "A Street View photo", "pigeotto": "A photo I took"}
LISTED = {"pigeon": articles.PIGEON, "pigeotto": articles.PIGEOTTO}
"""Countries with an article, by template."""
PUBLISHED: dict[str, dict[str, float]] = {
    "pigeon": {
        "town": 0.4,
        "region": 0.6,
        "climate": 0.4,
        "drop_location": 0.3,
        "driving_side": 0.3,
        "compass": 0.3,
        "month": 0.3,
    },
    "pigeotto": {
        "town": 1.0,
        "region": 1.0,
        "climate": 0.45,
        "drop_location": 0.2,
        "driving_side": 0.2,
        "compass": 0.0,
        "month": 0.0,
    },
}
"""The published shares of each template: the defaults."""
MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
MOST_PHRASES, SEPARATOR = 24, "; "
"""Phrases that a caption of what is seen may have, and what separates them."""
DIRECTIONS = ("north", "east", "south", "west")

_FIRST = {"A": "tropical", "B": "arid", "C": "temperate", "D": "cold", "E": "polar"}
_SECOND = {
    "Af": "rainforest",
    "Am": "monsoon",
    "Aw": "savannah",
    "As": "savannah",
    "BW": "desert",
    "BS": "steppe",
    "ET": "tundra",
    "EF": "frost",
    "s": "dry summer",
    "w": "dry winter",
    "f": "no dry season",
}
_THIRD = {"h": "hot", "k": "cold", "a": "hot summer", "b": "warm summer", "c": "cold summer", "d": "very cold winter"}


class Captions(Strict):
    """What captions say and how often; a share left out is the template's published one."""

    template: Template
    town: Share
    """Share of the location sentences that name the nearest town."""
    region: Share
    """Share that name the first-level unit."""
    climate: Share
    """Share of the captions that tell the climate."""
    drop_location: Share
    """Share of the captions with a climate that leave out the location."""
    driving_side: Share
    """Share of the captions without a climate that tell the driving side."""
    compass: Share
    """Share that tell what the camera faces."""
    month: Share
    """Share that tell the month."""

    @model_validator(mode="before")
    @classmethod
    def _published(cls, given: Any) -> Any:
        template = given.get("template") if isinstance(given, dict) else None
        return {**PUBLISHED[template], **given} if template in PUBLISHED else given


class Seen(Strict):
    """Captions of what a photo shows and none of geography, as those of an ordinary CLIP mostly are."""

    template: Literal["seen"]
    column: str = "seen"
    """Column of what the corpus publishes that holds phrases, with ``; `` between them."""
    share: Share = 0.6
    """Share of the phrases beside the first one that a caption has."""


@dataclass(frozen=True)
class Facts:
    """What is known about the places of N photos; None where it is not.

    Attributes:
        codes: (N,) ISO 3166-1 alpha-3 codes of the countries.
        countries: (N,) their names.
        regions: (N,) names of first-level units.
        towns: (N,) names of the nearest towns.
        climates: (N,) Köppen–Geiger classes, such as ``Cfb``.
        sides: (N,) ``left`` or ``right``.
        directions: (N,) what the camera faces, of :data:`DIRECTIONS`.
        months: (N,) of :data:`MONTHS`.
    """

    codes: np.ndarray
    countries: np.ndarray
    regions: np.ndarray
    towns: np.ndarray
    climates: np.ndarray
    sides: np.ndarray
    directions: np.ndarray
    months: np.ndarray


def draw(facts: Facts, how: Captions, rows: np.ndarray, seed: int, epoch: int) -> list[str]:
    """Captions of photos: the same for the same seed, epoch and row, whatever else is drawn.

    Args:
        facts: Of all photos.
        how: The template and its shares.
        rows: (n,) positions of the photos among the facts.
        seed: Of the training.
        epoch: Its number.

    Returns:
        n captions; empty where nothing is known.
    """
    chance = uniforms(seed, epoch, rows, 10).T
    town = _where(chance[0] < how.town, facts.towns[rows], "close to the town of {} ")
    region = _where(chance[1] < how.region, facts.regions[rows], "in the region of {} ")
    climate = _where(chance[2] < how.climate, facts.climates[rows], " This location has {} climate.", _with_a)
    untold = climate == ""
    side = _where(
        untold & (chance[4] < how.driving_side),
        facts.sides[rows],
        " In this location, people drive on the {} side of the road.",
    )
    facing = _where(chance[5] < how.compass, facts.directions[rows], " This photo is facing {}.")
    month = _where(chance[6] < how.month, facts.months[rows], " The photo was taken in {}.")
    location = _locations(facts, how.template, rows, town + region)
    location = np.where(untold | (chance[3] >= how.drop_location), location, "")
    others = np.stack([np.where(untold, side, climate), facing, month], axis=1)
    others = np.take_along_axis(others, chance[7:].T.argsort(axis=1), axis=1)
    return [text.strip() for text in location + others.sum(axis=1)]


def draw_seen(phrases: np.ndarray, how: Seen, rows: np.ndarray, seed: int, epoch: int) -> list[str]:
    """Captions of what photos show: the first phrase, and some of the others in any order.

    Args:
        phrases: (N,) of all photos: a tuple of phrases each, at most :data:`MOST_PHRASES`.
        how: How much is told.
        rows: (n,) positions of the photos among them.
        seed: Of the training.
        epoch: Its number.

    Returns:
        n captions, such as *A photo of a street, wood poles, yellow plate.*; empty where nothing is known.
    """
    chance = uniforms(seed, epoch, rows, 2 * MOST_PHRASES)
    found = []
    for row, told, place in zip(rows, chance[:, :MOST_PHRASES], chance[:, MOST_PHRASES:], strict=True):
        first, others = phrases[row][:1], phrases[row][1:]
        kept = sorted((place[k], text) for k, text in enumerate(others) if told[k] < how.share)
        words = [*first, *(text for _, text in kept)]
        found.append(f"A photo of {', '.join(words)}." if words else "")
    return found


def split_phrases(texts: Iterable[str | None]) -> np.ndarray:
    """(N,) tuples of the phrases of each text, at most :data:`MOST_PHRASES`; none where there is no text."""
    found = [tuple(filter(None, (text or "").split(SEPARATOR)))[:MOST_PHRASES] for text in texts]
    array = np.empty(len(found), dtype=object)
    array[:] = found
    return array


def _locations(facts: Facts, template: Template, rows: np.ndarray, before: np.ndarray) -> np.ndarray:
    known = _known(facts.countries[rows])
    names = np.full(len(rows), "", dtype=object)
    names[known] = articles.with_article(facts.countries[rows][known], facts.codes[rows][known], LISTED[template])
    return np.where(known, f"{OPENING[template]} " + before + "in " + names + ".", "")


def _where(told: np.ndarray, values: np.ndarray, sentence: str, say: Any = str) -> np.ndarray:
    """The sentence (n,) of each value that is told and known, else nothing."""
    found = np.full(len(values), "", dtype=object)
    for at in np.flatnonzero(told & _known(values)):
        found[at] = sentence.format(say(values[at]))
    return found


def _known(values: np.ndarray) -> np.ndarray:
    return np.array([isinstance(value, str) and value != "" for value in values], dtype=bool)


def _with_a(climate: str) -> str:
    name = climate_name(climate)
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def climate_name(code: str) -> str:
    """A Köppen–Geiger class in the words of Beck et al. 2018: ``Csa`` is "temperate, dry summer, hot summer"."""
    first, second, third = code[0], code[1], code[2:]
    words = [_FIRST[first], _SECOND.get(code[:2]) or _SECOND[second], _THIRD[third] if third else ""]
    return ", ".join(filter(None, words))


def facing(headings: np.ndarray) -> np.ndarray:
    """What cameras face, by headings (N,) in degrees clockwise from north: up to 45° either side; None where unknown.

    A heading halfway belongs to the direction before it, as in PIGEON's code: 45° is north, 46° east.
    """
    headings = np.asarray(headings, dtype=np.float64)
    known = np.isfinite(headings)
    quarter = np.ceil((np.where(known, headings, 0) % 360 - 45) / 90).astype(np.int64) % 4
    return np.array([*DIRECTIONS, None], dtype=object)[np.where(known, quarter, len(DIRECTIONS))]


def uniforms(seed: int, epoch: int, rows: np.ndarray, count: int) -> np.ndarray:
    """Numbers in [0, 1) that depend on seed, epoch and row alone (SplitMix64; Steele, Lea and Flood 2014).

    Args:
        seed: Of the training.
        epoch: Its number.
        rows: (n,).
        count: Numbers per row.

    Returns:
        (n, count) float64.
    """
    key = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)
    at = np.asarray(rows, np.uint64)[:, None] * np.uint64(count) + np.arange(1, count + 1, dtype=np.uint64)
    mixed: np.ndarray = key + at * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53
