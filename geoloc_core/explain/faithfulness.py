"""Whether a map shows what the answer rests on: deletion, insertion, and a head that has forgotten what it learned.

Deletion and insertion: Petsiuk, Das and Saenko 2018, "RISE", section 4.3. The randomised head: Adebayo et al. 2018,
"Sanity checks for saliency maps".
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geoloc_core.explain.regions import Score, blurred, mean_colour, scores_of

STEPS = 14
ORDERS = 8
"""Random orders that a map is compared with."""
ALIKE = 0.5
"""Rank correlation from which two maps are too much alike to come from different heads."""


@dataclass(frozen=True)
class Curve:
    """How the score moves while regions are taken away from a photo, or put into it.

    Attributes:
        shares: (P,) of the regions, from 0 to 1.
        scores: (P,) of the photo then.
    """

    shares: np.ndarray
    scores: np.ndarray

    @property
    def area(self) -> float:
        """The area under it, by trapezoids: the mean score on the way."""
        return float(np.trapezoid(self.scores, self.shares))


def deletion(score: Score, photo: np.ndarray, regions: np.ndarray, order: np.ndarray, steps: int = STEPS) -> Curve:
    """The photo's regions (H, W) turn to its mean colour in an order (S,): a good map's score falls soon."""
    gone, shares = _taken(order, steps)
    return Curve(shares, scores_of(score, photo, mean_colour(photo), regions, ~gone))


def insertion(score: Score, photo: np.ndarray, regions: np.ndarray, order: np.ndarray, steps: int = STEPS) -> Curve:
    """The blurred photo's regions (H, W) become sharp in an order (S,): a good map's score rises soon."""
    there, shares = _taken(order, steps)
    return Curve(shares, scores_of(score, photo, blurred(photo), regions, there))


def _taken(order: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Which regions (P, S) an order has come to at each step, and their share (P,)."""
    counts = np.round(np.linspace(0, len(order), min(steps, len(order)) + 1)).astype(np.int64)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank < counts[:, None], counts / len(order)


@dataclass(frozen=True)
class Chance:
    """What random orders come to.

    Attributes:
        deletions: A curve for each.
        insertions: A curve for each.
    """

    deletions: Sequence[Curve]
    insertions: Sequence[Curve]

    @classmethod
    def of(cls, score: Score, photo: np.ndarray, regions: np.ndarray, seed: int, orders: int = ORDERS) -> "Chance":
        """Of so many random orders of a photo's regions (H, W)."""
        rng, count = np.random.default_rng(seed), int(regions.max()) + 1
        drawn = [rng.permutation(count) for _ in range(orders)]
        return cls(
            [deletion(score, photo, regions, order) for order in drawn],
            [insertion(score, photo, regions, order) for order in drawn],
        )


@dataclass(frozen=True)
class Check:
    """What is known of a map's faithfulness.

    Attributes:
        deletion: In the order of the map, most important first.
        insertion: The same order.
        chance: Random orders of the same regions.
        likeness: Spearman's rank correlation with the map of the same answer under a head with shuffled weights; None
            where there is no such head.
    """

    deletion: Curve
    insertion: Curve
    chance: Chance
    likeness: float | None

    @property
    def doubts(self) -> list[str]:
        """Reasons not to trust the map; none where it passes everything."""
        found = []
        if self.deletion.area >= min(curve.area for curve in self.chance.deletions):
            found.append("taking away what it marks lowers the score no faster than a random order does")
        if self.insertion.area <= max(curve.area for curve in self.chance.insertions):
            found.append("showing what it marks alone raises the score no faster than a random order does")
        if self.likeness is None:
            found.append("it could not be checked against a randomised head")
        elif not abs(self.likeness) < ALIKE:
            turned = ", turned around," if self.likeness < 0 else ""
            found.append(f"it looks much the same{turned} under a head that has learned nothing")
        return found

    @property
    def verdict(self) -> str:
        """Whether the map can be trusted, in a sentence."""
        orders = len(self.chance.deletions)
        if self.doubts:
            return f"Do not rely on this map: {'; '.join(self.doubts)}."
        return (
            f"This map can be relied on: what it marks carries the answer, in both curves more than in all {orders} "
            "random orders, and it depends on what the head has learned."
        )


def likeness(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's rank correlation of two maps (S,); 0 where one of them is the same everywhere."""
    from scipy.stats import spearmanr

    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(spearmanr(first, second).statistic)
