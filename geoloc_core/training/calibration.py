"""One temperature for all logits, so that probabilities are as high as answers are right (Guo et al. 2017)."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from geoloc_core.contracts.prediction import softmax

if TYPE_CHECKING:
    import torch

LOWEST, HIGHEST = 0.1, 10.0
"""Bounds of a temperature: where all validation rows are right, only the bound keeps it from zero."""
BINS = 15
HELD, LEAST = 2**22, 1000
"""Logits that are looked at, at most (16 MiB), but those of so many rows all the same: of more validation rows, every
so many-th is taken. One number needs no more."""
PIECE = 2**18
"""Logits in float64 at a time."""


@dataclass(frozen=True)
class Calibration:
    """What calibration came to.

    Attributes:
        temperature: What logits are divided by.
        ece_before: Expected calibration error of the rows looked at, at temperature 1; None where there are none.
        ece_after: The same at the temperature, by the very rows that it was fitted on.
    """

    temperature: float
    ece_before: float | None
    ece_after: float | None


def calibrate(batches: "Iterable[tuple[torch.Tensor, torch.Tensor]]", rows: int) -> Calibration:
    """Fit a temperature to the validation rows of a trained network.

    Args:
        batches: Logits (B, C) and classes (B,) int64 of the validation rows; a negative class is unknown and says
            nothing.
        rows: How many they are in all.
    """
    logits, truth = _sample(batches, rows)
    temperature = fit_temperature(logits, truth)
    if not len(truth):
        return Calibration(temperature, None, None)
    before, after = (expected_calibration_error(logits, truth, t) for t in (1.0, temperature))
    return Calibration(temperature, before, after)


def fit_temperature(logits: np.ndarray, truth: np.ndarray) -> float:
    """The temperature T with the least mean negative log-likelihood of softmax(logits / T).

    The likelihood is concave in 1 / T, so that the root of its slope is the only one.

    Args:
        logits: (N, C) float32.
        truth: (N,) int64 classes.

    Returns:
        T, from :data:`LOWEST` to :data:`HIGHEST`; 1 where nothing depends on it (no row, one class, equal logits).
    """
    from scipy.optimize import brentq

    if not logits.size or not np.ptp(logits, axis=1).any():
        return 1.0

    def slope(log_t: float) -> float:
        """Derivative of the mean loss by 1 / T: the mean logit that is expected less the true class' logit."""
        total = 0.0
        for piece, right in _pieces(logits, truth):
            of_right = np.take_along_axis(piece, right[:, None], axis=1)[:, 0]
            total += ((softmax(piece / math.exp(log_t)) * piece).sum(axis=1) - of_right).sum()
        return total / len(truth)

    lowest, highest = math.log(LOWEST), math.log(HIGHEST)
    if slope(lowest) <= 0:
        return LOWEST
    if slope(highest) >= 0:
        return HIGHEST
    return math.exp(brentq(slope, lowest, highest, xtol=1e-6))


def expected_calibration_error(
    logits: np.ndarray, truth: np.ndarray, temperature: float = 1.0, bins: int = BINS
) -> float:
    """Mean distance of confidence and accuracy over bins of equal width, each by its share of the rows.

    Args:
        logits: (N, C), N > 0.
        truth: (N,) int64 classes.
        temperature: Of the softmax, whose highest probability is the confidence.
        bins: Each with its upper edge.
    """
    gaps = np.zeros(bins)
    for piece, right in _pieces(logits, truth):
        confidence = softmax(piece / temperature).max(axis=1)
        which = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
        gaps += np.bincount(which, confidence - (piece.argmax(axis=1) == right), minlength=bins)
    return float(np.abs(gaps).sum() / len(truth))


def _pieces(logits: np.ndarray, truth: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Some rows after the other, their logits in float64."""
    step = max(1, PIECE // logits.shape[1])
    for start in range(0, len(truth), step):
        yield logits[start : start + step].astype(np.float64), truth[start : start + step]


def _sample(batches: "Iterable[tuple[torch.Tensor, torch.Tensor]]", rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits (n, C) float32 and classes (n,) of rows of a known class, evenly spread where not all can be held."""
    found: list[tuple[np.ndarray, np.ndarray]] = []
    seen = 0
    for logits, truth in batches:
        every = max(1, -(-rows // max(LEAST, HELD // logits.shape[1])))
        taken = slice(-seen % every, None, every)
        seen += len(truth)
        some, right = logits[taken].float().cpu().numpy(), truth[taken].cpu().numpy()
        found.append((some[right >= 0], right[right >= 0]))
    if not found:
        return np.empty((0, 0), np.float32), np.empty(0, np.int64)
    return np.concatenate([some for some, _ in found]), np.concatenate([right for _, right in found])
