"""Loops over photos of a gallery, compiled: the only module of this family that needs numba."""

import numpy as np
from numba import njit

NOTHING = -1


@njit(cache=True, nogil=True)
def merge(
    similar: np.ndarray,
    first: int,
    gain: float,
    scale: np.ndarray,
    bias: np.ndarray,
    offsets: np.ndarray,
    groups: np.ndarray,
    own: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    best: np.ndarray,
    best_photos: np.ndarray,
    top: np.ndarray,
    top_photos: np.ndarray,
    top_columns: np.ndarray,
) -> None:
    """Take in how Q units compare with P photos of one cell, which follow each other in the gallery.

    A photo scores ``gain · similar · scale + bias + offset``. Of equal scores the earlier photo counts. Photos of a
    unit's own group are passed over.

    Args:
        similar: (Q, P) float32.
        first: Position of the first of the P photos.
        gain: Of all.
        scale: (M,) float32 of each photo of the gallery.
        bias: (M,) float32 of each.
        offsets: (Q,) float32 of each unit in this cell.
        groups: (M,) int64 of each photo.
        own: (N,) int64 of each unit; 0 where unknown.
        rows: (Q,) which units these are.
        columns: (Q,) which of its cells this is for each.
        best: (N, K) the best score in each cell of each unit, raised here.
        best_photos: (N, K) whose it is.
        top: (N, T) the best scores of all cells, falling, raised here.
        top_photos: (N, T) whose they are.
        top_columns: (N, T) from which of the unit's cells.
    """
    length = top.shape[1]
    for q in range(similar.shape[0]):
        row, column, offset = rows[q], columns[q], offsets[q]
        highest, photo, floor = best[row, column], best_photos[row, column], top[row, length - 1]
        for p in range(similar.shape[1]):
            at = first + p
            score = np.float32(gain * similar[q, p] * scale[at] + bias[at] + offset)
            if score <= highest and score <= floor:
                continue
            if own[row] != 0 and own[row] == groups[at]:
                continue
            if score > highest:
                highest, photo = score, at
            if score > floor:
                place = length - 1
                while place > 0 and top[row, place - 1] < score:
                    top[row, place] = top[row, place - 1]
                    top_photos[row, place] = top_photos[row, place - 1]
                    top_columns[row, place] = top_columns[row, place - 1]
                    place -= 1
                top[row, place], top_photos[row, place], top_columns[row, place] = score, at, column
                floor = top[row, length - 1]
        best[row, column], best_photos[row, column] = highest, photo


@njit(cache=True, nogil=True)
def nearest(
    points: np.ndarray, cells: np.ndarray, counts: np.ndarray, starts: np.ndarray, photos: np.ndarray
) -> np.ndarray:
    """The greatest cosine (N,) between each point and the photos of its cells, −2 where these have none.

    Args:
        points: (N, 3) unit vectors.
        cells: (N, K) of each point.
        counts: (N,) how many of them count.
        starts: (C + 1,) where the photos of each cell begin.
        photos: (M, 3) unit vectors.
    """
    found = np.full(len(points), -2.0)
    for row in range(len(points)):
        x, y, z = points[row]
        for column in range(counts[row]):
            cell = cells[row, column]
            for at in range(starts[cell], starts[cell + 1]):
                cosine = x * photos[at, 0] + y * photos[at, 1] + z * photos[at, 2]
                found[row] = max(found[row], cosine)
    return found
