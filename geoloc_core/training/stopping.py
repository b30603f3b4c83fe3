"""Which epoch is kept, and when a training ends early."""

from collections.abc import Callable

from geoloc_core.training.loop import Metrics

Score = Callable[[Metrics], float]
"""What is best where it is highest, from the metrics of an epoch."""


def best_epoch(history: list[Metrics], score: Score) -> int:
    """The number of the epoch with the best score; of equal ones the first."""
    return max(range(len(history)), key=lambda epoch: score(history[epoch]))


def is_over(history: list[Metrics], score: Score, patience: int | None) -> bool:
    """Whether so many epochs have passed without a better score; never where that is None."""
    return patience is not None and len(history) - 1 - best_epoch(history, score) >= patience
