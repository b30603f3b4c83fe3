"""How similar places of a gallery are to a photo, compiled: the only module of this family that needs numba.

NumPy copies the embeddings of scattered places, and turns float16 into float32, before it compares them: ten to thirty
times as much work as the comparison.
"""

import numpy as np
from numba import njit

HALF = np.float32(2.0**112)
"""What a float16 has to be multiplied by, once its bits lie where those of a float32 are: the exponents' offsets differ
by 112. It holds for the smallest numbers too, but not for infinity."""
SUM = {"reassoc", "contract"}
"""A sum may be taken in any order, so that many numbers are added at once; no number is taken for finite."""


def cosines(embeddings: np.ndarray, points: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Products (n,) float32 of a photo with some places.

    Args:
        embeddings: (M, D) float32 or float16, all finite; may be memory-mapped.
        points: (n,) int64 of the M.
        image: (D,) float32.
    """
    found = np.empty(len(points), np.float32)
    rows = np.asarray(embeddings)
    if rows.dtype == np.float16:
        _half(rows.view(np.uint16), points, image, found)
    else:
        _full(rows, points, image, found)
    return found


@njit(cache=True, nogil=True, fastmath=SUM)
def _full(rows: np.ndarray, points: np.ndarray, image: np.ndarray, found: np.ndarray) -> None:
    for n in range(len(points)):
        row = rows[points[n]]
        total = np.float32(0)
        for d in range(len(image)):
            total += row[d] * image[d]
        found[n] = total


@njit(cache=True, nogil=True, fastmath=SUM)
def _half(rows: np.ndarray, points: np.ndarray, image: np.ndarray, found: np.ndarray) -> None:
    """The same of the bits (M, D) uint16 of float16."""
    for n in range(len(points)):
        row = rows[points[n]]
        total = np.float32(0)
        for d in range(len(image)):
            half = np.int32(row[d])
            bits = ((half & 0x8000) << 16) | ((half & 0x7FFF) << 13)
            total += np.int32(bits).view(np.float32) * image[d]
        found[n] = total * HALF
