"""Photos of a benchmark that a variant answered best, in the middle and worst, by distance."""

from dataclasses import dataclass

import numpy as np

from geoloc_core.corpora.stored import Stored
from geoloc_core.errors import UserError
from geoloc_core.evaluation.answered import Answered
from geoloc_core.project import Project
from geoloc_core.variants import answers

Place = tuple[float, float]
"""Latitude and longitude, degrees."""


@dataclass(frozen=True)
class Example:
    """A photo and what became of it.

    Attributes:
        image_id: Its id.
        photo: Encoded.
        place: Where it was taken.
        answer: Where the variant puts it.
        km: How far apart these are.
        why: Best, median or worst.
        candidates: (k, 3) latitude, longitude and probability of each that is kept.
        classes: (k,) their ids.
    """

    image_id: str
    photo: bytes
    place: Place
    answer: Place
    km: float
    why: str
    candidates: np.ndarray
    classes: tuple[str, ...]


def examples(project: Project, variant: str, corpus: str, answered: Answered, each: int) -> list[Example]:
    """Some photos of a benchmark, the best answer first.

    Args:
        project: Whose photos.
        variant: That answers.
        corpus: That the benchmark is of.
        answered: What it answers to it.
        each: How many of the best, of the median and of the worst.

    Raises:
        UserError: No photo has a place, or the corpus has not been ingested.
    """
    km = answered.errors_km
    order = np.argsort(km, kind="stable")[: int(np.isfinite(km).sum())]  # NaN comes last
    if not len(order):
        raise UserError(f"{answered.benchmark}: none of its photos has a known place, so that none is best or worst")
    places, why = ranks(len(order), each)
    rows = order[places]
    tables = [
        answers.column(project, variant, answered.benchmark, name).take(rows)
        for name in ("latitudes", "longitudes", "probabilities")
    ]
    classes = answers.column(project, variant, answered.benchmark, "classes").take(rows).to_pylist()
    photos = Stored.photos(project.corpus(corpus)).take(answered.rows[rows]).read()
    return [
        Example(
            image_id=str(answered.ids[row]),
            photo=photo,
            place=(float(answered.true[0][row]), float(answered.true[1][row])),
            answer=(float(answered.answer[0][row]), float(answered.answer[1][row])),
            km=float(km[row]),
            why=reason,
            candidates=np.array([column[at].as_py() for column in tables], np.float64).T,
            classes=tuple(classes[at]),
        )
        for at, (row, photo, reason) in enumerate(zip(rows, photos, why, strict=True))
    ]


def ranks(count: int, each: int) -> tuple[np.ndarray, list[str]]:
    """Which of so many ranks are shown, ascending, and what each is called: best, median or worst; none twice."""
    middle = max(0, (count - each) // 2)
    called = dict.fromkeys(range(middle, min(count, middle + each)), "median")
    called |= dict.fromkeys(range(max(0, count - each), count), "worst")
    called |= dict.fromkeys(range(min(count, each)), "best")
    places = sorted(called)
    return np.array(places, np.int64), [called[place] for place in places]
