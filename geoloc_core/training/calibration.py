"""One temperature for all logits, so that probabilities are as high as answers are right (Guo et al. 2017).

How well it works is measured by two-fold cross-fitting: each half of the validation rows is judged at the temperature
that the other half asks for, so that no row has a part in the temperature it is judged at. The temperature that is kept
is then fitted to all of them.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from geoloc_core.blocks import blocks
from geoloc_core.contracts.prediction import softmax

if TYPE_CHECKING:
    import torch

LOWEST, HIGHEST = 0.1, 10.0
"""Bounds of a temperature: where all validation rows are right, only the bound keeps it from zero."""
BINS = 15
HELD, LEAST = 2**22, 1000
"""Logits that are looked at, at most (16 MiB), but those of so many rows all the same: of more validation rows, every
so many-th is taken. One number needs no more."""
BLOCK = 2**18
"""Logits in float64 at a time."""


@dataclass(frozen=True)
class Calibration:
    """What calibration came to.

    Attributes:
        temperature: What logits are divided by, fitted to all rows looked at.
        ece_before: Expected calibration error of these rows at temperature 1; None where there are none.
        ece_after: The same, of each half of the rows at the temperature of the other half.
    """

    temperature: float
    ece_before: float | None
    ece_after: float | None


def calibrate(batches: "Iterable[tuple[torch.Tensor, torch.Tensor, np.ndarray]]", rows: int, seed: int) -> Calibration:
    """Fit a temperature to the validation rows of a trained network, and measure what one does for rows apart.

    Args:
        batches: Logits (B, C), classes (B,) int64 and groups (B,) int64 of the validation rows; a negative class is
            unknown and says nothing. Rows of one group, such as the photos of one photographer, stay in one half.
        rows: How many they are in all.
        seed: Of the halves.
    """
    logits, truth, groups = _sample(batches, rows)
    temperature = fit_temperature(logits, truth)
    if not len(truth):
        return Calibration(temperature, None, None)
    of_others = np.empty(len(truth), np.float32)
    first = halves(groups, seed)
    for half in (first, ~first):
        of_others[half] = fit_temperature(logits[~half], truth[~half])
    before, after = (expected_calibration_error(some, truth) for some in (logits, logits / of_others[:, None]))
    return Calibration(temperature, before, after)


def halves(groups: np.ndarray, seed: int) -> np.ndarray:
    """Whether each row is of the first of two halves of whole groups, which differ by the largest group at most.

    Rows that are all of one group are halved row by row.

    Args:
        groups: (N,) int64.
        seed: Of what is drawn among groups of equal size.
    """
    found, of, counts = np.unique(groups, return_inverse=True, return_counts=True)
    if len(found) == 1:
        of, counts = np.arange(len(groups)), np.ones(len(groups), np.int64)
    mixed = np.random.default_rng(seed).permutation(len(counts))
    order = mixed[np.argsort(-counts[mixed], kind="stable")]
    first = np.empty(len(order), bool)
    first[order] = np.isin(np.arange(len(order)) % 4, (0, 3))  # from the largest on: first, second, second, first
    taken: np.ndarray = first[of]
    return taken


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
            of_right = piece[np.arange(len(piece)), right]
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
    for rows in blocks(len(truth), BLOCK, logits.shape[1]):
        yield logits[rows].astype(np.float64), truth[rows]


def _sample(
    batches: "Iterable[tuple[torch.Tensor, torch.Tensor, np.ndarray]]", rows: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits (n, C) float32, classes (n,) and groups (n,) of rows of a known class, evenly spread where many."""
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    seen = 0
    for logits, truth, groups in batches:
        every = max(1, -(-rows // max(LEAST, HELD // logits.shape[1])))
        taken = slice(-seen % every, None, every)
        seen += len(truth)
        some, right = logits[taken].float().cpu().numpy(), truth[taken].cpu().numpy()
        known = right >= 0
        found.append((some[known], right[known], groups[taken][known]))
    if not found:
        return np.empty((0, 0), np.float32), np.empty(0, np.int64), np.empty(0, np.int64)
    logits_of_all, truths, groups_of_all = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return logits_of_all, truths, groups_of_all
