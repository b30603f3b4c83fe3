"""Occlusion: a window is hidden, place after place, and the loss of score is laid where it was.

Zeiler and Fergus 2014, "Visualizing and understanding convolutional networks", section 4.2.
"""

import numpy as np

from geoloc_core.explain.regions import Score, cells, mean_colour, scores_of


def occlusion(score: Score, photo: np.ndarray, grid: int = 14, window: int = 4, step: int = 2) -> np.ndarray:
    """How much score (H, W) float64 is lost where each cell is hidden, on average over the windows that hide it.

    Args:
        score: The model.
        photo: (H, W, 3) uint8.
        grid: Cells along each edge.
        window: Edge of the window, cells.
        step: By which the window moves, cells; the last window ends at the photo's edge.
    """
    height, width = photo.shape[:2]
    regions = cells(height, width, grid)
    rows, columns = min(grid, height), min(grid, width)
    high, wide = min(window, rows), min(window, columns)
    tops, lefts = (np.unique([*range(0, n - w, step), n - w]) for n, w in ((rows, high), (columns, wide)))
    down = _covered(tops, high, rows)
    across = _covered(lefts, wide, columns)
    hides = (down[:, None, :, None] & across[None, :, None, :]).reshape(-1, rows * columns)
    keep = np.concatenate([np.ones((1, rows * columns), bool), ~hides])
    whole, *_ = found = scores_of(score, photo, mean_colour(photo), regions, keep)
    lost = ((whole - found[1:]) @ hides) / hides.sum(axis=0)
    return np.asarray(lost[regions])


def _covered(starts: np.ndarray, length: int, count: int) -> np.ndarray:
    """Which of the cells in a row (K, count) each of K windows covers."""
    at = np.arange(count)
    covered: np.ndarray = (at >= starts[:, None]) & (at < starts[:, None] + length)
    return covered
