"""The loop over pairs of hashes, compiled: the only module of this room that needs numba."""

import numpy as np
from numba import njit

M1, M2, M4 = np.uint64(0x5555555555555555), np.uint64(0x3333333333333333), np.uint64(0x0F0F0F0F0F0F0F0F)
H01 = np.uint64(0x0101010101010101)
ONE, TWO, FOUR, TOP = np.uint64(1), np.uint64(2), np.uint64(4), np.uint64(56)


@njit(cache=True, nogil=True, inline="always")
def _ones(x: np.uint64) -> np.uint64:
    """How many bits are set; the compiler knows the pattern and makes one instruction of it."""
    x = x - ((x >> ONE) & M1)
    x = (x & M2) + ((x >> TWO) & M2)
    x = (x + (x >> FOUR)) & M4
    return (x * H01) >> TOP


@njit(cache=True, nogil=True, inline="always")
def _is_first(differ: np.uint64, masks: np.ndarray, one: int, other: int) -> bool:
    """Whether no two bands before these two agree, so that a pair is found once although many bands agree."""
    agreeing = 0
    for band in range(other):
        agreeing += band != one and differ & masks[band] == 0
    return agreeing == 0


@njit(cache=True, nogil=True)
def pairs(
    hashes: np.ndarray,
    bounds: np.ndarray,
    masks: np.ndarray,
    one: int,
    other: int,
    distance: int,
    crowd: int,
    run: int,
    row: int,
    found: np.ndarray,
) -> tuple[int, int, int]:
    """Compare the hashes of each run with one another, until the room for pairs may run out.

    Args:
        hashes: (N,) uint64, arranged in runs.
        bounds: (R + 1,) where each run begins.
        masks: (B,) the bits of each band.
        one: The first of the two bands in which the hashes of a run agree.
        other: The second.
        distance: Bits in which a pair differs at most.
        crowd: Hashes in a run that is compared, at most.
        run: Where to begin.
        row: Where to begin within the run.
        found: (P, 2) room for pairs, more than ``crowd``.

    Returns:
        How many pairs were found, and the run and the row to go on from.
    """
    count = 0
    limit = np.uint64(distance)
    while run < len(bounds) - 1:
        start, end = int(bounds[run]), int(bounds[run + 1])
        if end - start <= crowd:
            while row < end - start - 1:
                i = start + row
                if count + (end - i) > len(found):
                    return count, run, row
                for j in range(i + 1, end):
                    differ = hashes[i] ^ hashes[j]
                    if _ones(differ) <= limit and _is_first(differ, masks, one, other):
                        found[count, 0], found[count, 1] = i, j
                        count += 1
                row += 1
        run, row = run + 1, 0
    return count, run, row
