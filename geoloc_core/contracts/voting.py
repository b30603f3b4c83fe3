"""How the pieces of a photo agree on one answer.

Gong and Brumley 2024 take the country that most pieces name; the poster leaves open what happens where several are
named equally often, and where a photo has no piece at all.
"""

from typing import Literal

import numpy as np

Vote = Literal["majority", "weighted"]


def vote(
    probabilities: np.ndarray,
    photos: np.ndarray,
    count: int,
    how: Vote,
    weights: np.ndarray,
    prior: np.ndarray,
) -> np.ndarray:
    """Probabilities (N, C) of N photos, from those of their pieces.

    Args:
        probabilities: (P, C) of each piece.
        photos: (P,) the photo of each piece, from 0.
        count: N.
        how: ``majority``: each piece names its most probable class, and the class named most often wins; of classes
            that are named equally often, the one with the highest mean probability. ``weighted``: the mean probability,
            each piece with its weight.
        weights: (P,) of each piece, none negative; where all of a photo's are 0, they count alike.
        prior: (C,) the answer for a photo without a piece.
    """
    pieces = np.bincount(photos, minlength=count)
    mean = _sums(probabilities, photos, count) / np.maximum(pieces, 1)[:, None]
    if how == "majority":
        named = np.zeros((count, probabilities.shape[1]))
        np.add.at(named, (photos, probabilities.argmax(axis=1)), 1)
        # the mean is at most 1, so it decides between equal votes and never between unequal ones
        found = (named + mean) / (pieces + 1)[:, None]
    else:
        total = np.bincount(photos, weights, minlength=count)
        of_each = np.where(total[photos] > 0, weights, 1.0)
        shares = of_each / np.maximum(np.bincount(photos, of_each, minlength=count), 1e-300)[photos]
        found = _sums(probabilities * shares[:, None], photos, count)
    found[pieces == 0] = prior
    return found


def weights_of(scores: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """What each piece (P,) counts in a weighted vote: its segmenter's confidence times the area that it covers."""
    weights: np.ndarray = scores.astype(np.float64) * areas
    return weights


def _sums(values: np.ndarray, photos: np.ndarray, count: int) -> np.ndarray:
    """Sums (N, C) of the values (P, C) of each photo's pieces."""
    sums = np.zeros((count, values.shape[1]))
    np.add.at(sums, photos, values)
    return sums
