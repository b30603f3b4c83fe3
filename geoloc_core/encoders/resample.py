"""Scaling as Pillow's ``Image.resize`` does it, bit for bit, of the part that a tower sees, and vectorised.

Pillow convolves in two passes, along one edge and then along the other, with fixed-point weights of 22 bits and a
rounding to 8 bits after each (its ``Resample.c``; the weights are those of Keys 1981 with a = −0.5, or of a triangle,
as wide as the scale where a photo shrinks). Here both passes are one: output rows are weighted sums of input rows, many
bytes at a time; the pass along rows works on the transposed photo. The only module of this room that needs numba.
"""

import numpy as np
from numba import njit

BITS = 22
"""Of a weight behind the point: what 8 bits of a pixel and 2 of overshoot leave of 32."""
STRIP = 64
"""Rows that are transposed at a time: a strip of a wide photo still fits in a core's own cache."""
TAPS = 4
"""Rows that are summed at a time."""


@njit(cache=True, nogil=True)
def _weight(x: float, bicubic: bool) -> float:
    x = abs(x)
    if not bicubic:
        return max(0.0, 1.0 - x)
    if x < 1.0:
        return (1.5 * x - 2.5) * x * x + 1
    if x < 2.0:
        return (((x - 5) * x + 8) * x - 4) * -0.5
    return 0.0


@njit(cache=True, nogil=True)
def weights(length: int, scaled: int, start: int, count: int, bicubic: bool) -> tuple[np.ndarray, ...]:
    """What each output pixel is the weighted sum of, along one edge.

    Args:
        length: Of the edge, pixels.
        scaled: What it is scaled to, pixels.
        start: The first output pixel asked for.
        count: How many are asked for.
        bicubic: Else bilinear.

    Returns:
        The first input pixel of each output pixel (count,) int64, how many there are (count,) int64, and their weights
        (count, K) int32 in units of 2⁻²², 0 where there are fewer than K.
    """
    scale = length / scaled
    wide = max(scale, 1.0)
    support = (2.0 if bicubic else 1.0) * wide
    most = int(np.ceil(support)) * 2 + 1
    first, taps = np.empty(count, np.int64), np.empty(count, np.int64)
    fixed = np.zeros((count, most + TAPS), np.int32)
    exact = np.empty(most)
    for o in range(count):
        centre = (start + o + 0.5) * scale
        first[o] = max(0, int(centre - support + 0.5))
        taps[o] = min(length, int(centre + support + 0.5)) - first[o]
        total = 0.0
        for k in range(taps[o]):
            exact[k] = _weight((k + first[o] - centre + 0.5) * (1.0 / wide), bicubic)
            total += exact[k]
        for k in range(taps[o]):
            part = exact[k] / total if total != 0.0 else exact[k]
            fixed[o, k] = int(part * (1 << BITS) + (0.5 if part >= 0 else -0.5))
    return first, taps, fixed


@njit(cache=True, nogil=True)
def _combine(
    rows: np.ndarray, offset: int, first: np.ndarray, taps: np.ndarray, fixed: np.ndarray, out: np.ndarray
) -> None:
    """Output rows (n, L) uint8 as weighted sums of input rows (m, L) uint8, the first of which is number ``offset``."""
    last, length = len(rows) - 1, rows.shape[1]
    total = np.empty(length, np.int32)
    for o in range(len(first)):
        total[:] = 1 << (BITS - 1)
        for k in range(0, taps[o], TAPS):
            at = first[o] - offset + k  # past the last tap the weights are 0
            a, b, c, d = rows[at], rows[min(at + 1, last)], rows[min(at + 2, last)], rows[min(at + 3, last)]
            u, v, w, x = fixed[o, k], fixed[o, k + 1], fixed[o, k + 2], fixed[o, k + 3]
            for i in range(length):
                # numba would otherwise widen to 64 bits, and take twice as long
                near = np.int32(np.int32(a[i]) * u) + np.int32(np.int32(b[i]) * v)
                total[i] += np.int32(near + np.int32(np.int32(c[i]) * w) + np.int32(np.int32(d[i]) * x))
        for i in range(length):
            out[o, i] = min(max(total[i] >> BITS, 0), 255)


@njit("void(uint32[:, :], int64, int64, int64, int64, boolean, uint8[:, :, :])", cache=True, nogil=True)
def _resample(photo: np.ndarray, width: int, height: int, left: int, top: int, bicubic: bool, out: np.ndarray) -> None:
    """As :func:`resample`, along the rows first."""
    high, wide = out.shape[:2]
    x_first, x_taps, x_fixed = weights(photo.shape[1], width, left, wide, bicubic)
    y_first, y_taps, y_fixed = weights(photo.shape[0], height, top, high, bicubic)
    x0, x1 = x_first[0], (x_first + x_taps).max()
    y0, y1 = y_first[0], (y_first + y_taps).max()
    columns = np.zeros((x1 - x0, STRIP), np.uint32)
    narrow = np.empty((wide, STRIP), np.uint32)
    middle = np.empty((y1 - y0, wide), np.uint32)
    for y in range(y0, y1, STRIP):
        n = min(STRIP, y1 - y)
        for j in range(n):
            for i in range(x1 - x0):
                columns[i, j] = photo[y + j, x0 + i]
        _combine(columns.view(np.uint8), x0, x_first, x_taps, x_fixed, narrow.view(np.uint8))
        for j in range(n):
            for i in range(wide):
                middle[y - y0 + j, i] = narrow[i, j]
    cut = np.empty((high, 4 * wide), np.uint8)
    _combine(middle.view(np.uint8), y0, y_first, y_taps, y_fixed, cut)
    for j in range(high):
        for i in range(wide):
            for c in range(3):
                out[j, i, c] = cut[j, 4 * i + c]


def resample(photo: np.ndarray, width: int, height: int, left: int, top: int, bicubic: bool, out: np.ndarray) -> None:
    """Scale a photo to ``width`` × ``height`` and cut ``out``'s size at ``left``, ``top``; only that is computed.

    Args:
        photo: (H, W) uint32, of any strides: in memory a pixel is red, green, blue and a byte of no meaning.
        width: Of the whole scaled photo, pixels.
        height: Of the whole scaled photo, pixels.
        left: Of the cut, pixels; the cut lies within the scaled photo.
        top: Of the cut, pixels.
        bicubic: Else bilinear.
        out: (h, w, 3) uint8, written to.
    """
    high, wide = photo.shape
    # the order decides what is rounded between: Pillow 13 takes the columns first where they shrink much more
    if high - height > 2 * max(wide - width, 0):
        _resample(photo.T, height, width, top, left, bicubic, out.transpose(1, 0, 2))
    else:
        _resample(photo, width, height, left, top, bicubic, out)
