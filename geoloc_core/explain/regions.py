"""Photos of which parts are hidden, and what a model says of each: all that occlusion, LIME and the curves need."""

from collections.abc import Callable

import numpy as np

from geoloc_core.blocks import blocks

Score = Callable[[np.ndarray], np.ndarray]
"""Photos (N, H, W, 3) uint8 → how strongly each is answered as the photo was (N,); more is stronger."""

AT_ONCE = 32
"""Hidden photos in memory at a time."""
FINE = 1e-9


def scores_of(score: Score, photo: np.ndarray, fill: np.ndarray, regions: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Scores (M,) float64 of a photo of which only some regions are left.

    Args:
        score: The model.
        photo: (H, W, 3) uint8.
        fill: What stands in place of a hidden region: a colour (3,) or a photo (H, W, 3).
        regions: (H, W) the region of each pixel, from 0.
        keep: (M, S) whether each of the S regions is left.
    """
    hidden = np.broadcast_to(np.asarray(fill).round().astype(np.uint8), photo.shape)
    found = [
        np.asarray(score(np.where(keep[some][:, regions][..., None], photo, hidden)), np.float64)
        for some in blocks(len(keep), AT_ONCE)
    ]
    return np.concatenate(found) if found else np.empty(0)


def cells(height: int, width: int, count: int) -> np.ndarray:
    """A photo as a grid of so many rows and columns of cells: the cell (H, W) of each pixel, row by row from 0."""
    rows, columns = min(count, height), min(count, width)
    down, across = np.arange(height) * rows // height, np.arange(width) * columns // width
    found: np.ndarray = down[:, None] * columns + across
    return found


def means(values: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """The mean (S,) of a map (H, W) over each region (H, W)."""
    found: np.ndarray = np.bincount(regions.ravel(), values.ravel()) / np.bincount(regions.ravel())
    return found


def order(values: np.ndarray, seed: int) -> np.ndarray:
    """Regions (S,) from the highest value (S,) to the lowest; equal ones in an order drawn by chance.

    What differs by less than rounding is equal, or the corner of a photo that a map says nothing of would come first.
    """
    scale = np.abs(values).max() * FINE or 1.0
    equal = np.round(values / scale)
    found: np.ndarray = np.lexsort((np.random.default_rng(seed).permutation(len(values)), -equal))
    return found


def mean_colour(photo: np.ndarray) -> np.ndarray:
    """The mean colour (3,) of a photo (H, W, 3)."""
    found: np.ndarray = photo.reshape(-1, 3).mean(axis=0)
    return found


def blurred(photo: np.ndarray) -> np.ndarray:
    """A photo (H, W, 3) uint8 of which no detail is left: Gaussian, σ a tenth of its shorter edge."""
    from scipy.ndimage import gaussian_filter

    sigma = min(photo.shape[:2]) / 10
    found: np.ndarray = gaussian_filter(photo.astype(np.float32), (sigma, sigma, 0)).round().astype(np.uint8)
    return found
