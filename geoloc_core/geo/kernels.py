"""Loops over points, edges and tiles, compiled: the only module of this room that needs numba.

Borders are runs of vertices ``(start, count)``: ``count`` edges from vertex ``start`` of the flat array ``xy`` (V, 2)
of longitudes and latitudes. The answer of a tile is coded in one integer: a unit (0 and above), no unit (−1), the slot
of its first child s (−2 − 2 s), or where its list of candidates begins, o (−3 − 2 o).
"""

import numpy as np
from numba import njit

NOTHING = -1
SIDE = 4
"""A tile has SIDE × SIDE children."""
EDGES = 8
"""Edges, or pieces of a long edge, in a segment at most."""
FAN = 8
"""Boxes in a box."""
PAD = 1e-9
"""Degrees by which a tile is taken to be larger than it is, so that no rounding can put a point outside its tile."""
FILTER = (3 + 16 * 2.0**-53) * 2.0**-53
"""Relative error of a determinant in floating point: Shewchuk 1997, ``ccwerrboundA``."""
SPLITTER = 2.0**27 + 1
ARC = 1e-7
"""No less than what a segment of 4 km rises above its chord, and float32's rounding, on the unit sphere."""


@njit(cache=True, nogil=True)
def _exact_product(a: float, b: float) -> tuple[float, float]:
    """Product and its rounding error, which together are exact (Dekker 1971)."""
    product = a * b
    wide = SPLITTER * a
    a_high = wide - (wide - a)
    a_low = a - a_high
    wide = SPLITTER * b
    b_high = wide - (wide - b)
    b_low = b - b_high
    error = a_low * b_low - (((product - a_high * b_high) - a_low * b_high) - a_high * b_low)
    return product, error


@njit(cache=True, nogil=True)
def _exact_turn(ax: float, ay: float, bx: float, by: float, cx: float, cy: float) -> int:
    """The sign of the determinant without any rounding: its six products summed as an expansion (Shewchuk 1997)."""
    total = np.zeros(13)
    length = 0
    for left, right in ((ax, by), (-ax, cy), (-cx, by), (-ay, bx), (ay, cx), (cy, bx)):
        for carry in _exact_product(left, right):
            for i in range(length):
                part = total[i]
                summed = carry + part
                virtual = summed - carry
                total[i] = (carry - (summed - virtual)) + (part - virtual)
                carry = summed
            total[length] = carry
            length += 1
    for i in range(length - 1, -1, -1):
        if total[i] != 0:
            return 1 if total[i] > 0 else -1
    return 0


@njit(cache=True, nogil=True)
def turn(ax: float, ay: float, bx: float, by: float, cx: float, cy: float) -> int:
    """Exactly on which side of the line a → b the point c lies: 1 left, −1 right, 0 on it."""
    left = (ax - cx) * (by - cy)
    right = (ay - cy) * (bx - cx)
    area = left - right
    bound = FILTER * (abs(left) + abs(right))
    if area > bound:
        return 1
    if area < -bound:
        return -1
    return _exact_turn(ax, ay, bx, by, cx, cy)


@njit(cache=True, nogil=True)
def crossings(xy: np.ndarray, start: int, count: int, px: float, py: float, rx: float, ry: float) -> int:
    """How many edges of a run the way from p to r crosses; −1 when p lies on one of them.

    A vertex on the line p r counts as left of it, so a way through a vertex crosses one edge there or none.
    r must lie on no edge.
    """
    found = 0
    ax, ay = xy[start, 0], xy[start, 1]
    side_a = turn(px, py, rx, ry, ax, ay)
    for i in range(start + 1, start + count + 1):
        bx, by = xy[i, 0], xy[i, 1]
        side_b = turn(px, py, rx, ry, bx, by)
        if side_a * side_b <= 0:
            side_p = turn(ax, ay, bx, by, px, py)
            if side_p == 0 and min(ax, bx) <= px <= max(ax, bx) and min(ay, by) <= py <= max(ay, by):
                return -1
            if (side_a >= 0) != (side_b >= 0) and side_p != turn(ax, ay, bx, by, rx, ry):
                found += 1
        ax, ay, side_a = bx, by, side_b
    return found


@njit(cache=True, nogil=True)
def _candidate(xy: np.ndarray, leaves: np.ndarray, at: int, px: float, py: float, rx: float, ry: float) -> int:
    """The first unit that holds p, of a list: how many, then each unit, 2 × runs + (1 if it holds r), the runs."""
    entries = leaves[at]
    at += 1
    for _ in range(entries):
        unit, runs = leaves[at], leaves[at + 1] >> 1
        odd = leaves[at + 1] & 1
        at += 2
        for k in range(at, at + 2 * runs, 2):
            crossed = crossings(xy, leaves[k], leaves[k + 1], px, py, rx, ry)
            if crossed < 0:
                return unit
            odd ^= crossed & 1
        if odd:
            return unit
        at += 2 * runs
    return NOTHING


@njit(cache=True, nogil=True)
def _step(distance: float, size: float, count: int) -> int:
    """The column or row of a distance from a tile's side."""
    return max(0, min(int(distance / size), count - 1))


@njit(cache=True, nogil=True)
def find(
    grid: np.ndarray,
    tiles: np.ndarray,
    leaves: np.ndarray,
    xy: np.ndarray,
    reference: np.ndarray,
    latitudes: np.ndarray,
    longitudes: np.ndarray,
    units: np.ndarray,
) -> None:
    """Write the first unit that holds each point, −1 where none does.

    Args:
        grid: (R, C) codes of equal tiles of the world, from the south-west.
        tiles: (T,) codes of smaller tiles.
        leaves: (W,) lists of candidates.
        xy: (V, 2) vertices.
        reference: (2,) where in each tile its reference point is, as shares of its side.
        latitudes: (N,) degrees.
        longitudes: (N,) degrees.
        units: (N,) what is found.
    """
    rows, columns = grid.shape
    whole = 360.0 / columns
    for i in range(len(latitudes)):
        y, x = latitudes[i], longitudes[i]
        row, column = _step(y + 90, whole, rows), _step(x + 180, whole, columns)
        code = grid[row, column]
        if code <= -2:
            west, south, size = column * whole - 180, row * whole - 90, whole
            while code <= -2 and code % 2 == 0:
                size /= SIDE
                row, column = _step(y - south, size, SIDE), _step(x - west, size, SIDE)
                west += column * size
                south += row * size
                code = tiles[(-2 - code) // 2 + row * SIDE + column]
            if code <= -3:
                rx, ry = west + reference[0] * size, south + reference[1] * size
                code = _candidate(xy, leaves, (-3 - code) // 2, x, y, rx, ry)
        units[i] = code


@njit(cache=True, nogil=True)
def _floor(value: float, most: int) -> int:
    return max(0, min(int(np.floor(value)), most))


@njit(cache=True, nogil=True)
def touched(
    xy: np.ndarray,
    runs: np.ndarray,
    wests: np.ndarray,
    souths: np.ndarray,
    size: float,
    rows: int,
    columns: int,
    found: np.ndarray,
) -> int:
    """The children that each edge of each run touches, neighbouring edges in one child joined to one run.

    Args:
        xy: (V, 2) vertices.
        runs: (R, 2) runs of vertices.
        wests: (R,) west side of the tile each run is in, degrees.
        souths: (R,) its south side, degrees.
        size: Side of a child, degrees.
        rows: Of children.
        columns: Of children.
        found: (N, 4) room for the answer: run, child, start, count.

    Returns:
        How many rows of ``found`` are filled; −1 when there is no room.
    """
    n = 0
    pad = PAD / size
    for k in range(len(runs)):
        first = n
        for i in range(runs[k, 0], runs[k, 0] + runs[k, 1]):
            au, av = (xy[i, 0] - wests[k]) / size, (xy[i, 1] - souths[k]) / size
            bu, bv = (xy[i + 1, 0] - wests[k]) / size, (xy[i + 1, 1] - souths[k]) / size
            u0, u1, v0, v1 = min(au, bu) - pad, max(au, bu) + pad, min(av, bv) - pad, max(av, bv) + pad
            if u1 < 0 or v1 < 0 or u0 > columns or v0 > rows:
                continue
            # Along the axis in which the edge is longer, so that the other coordinate is well conditioned.
            flat = u1 - u0 >= v1 - v0
            low, high = (u0, u1) if flat else (v0, v1)
            most, cross_most = (columns - 1, rows - 1) if flat else (rows - 1, columns - 1)
            start, end, cross_start, cross_end = (au, bu, av, bv) if flat else (av, bv, au, bu)
            slope = (cross_end - cross_start) / (end - start) if end != start else 0.0
            for along in range(_floor(low, most), _floor(high, most) + 1):
                left, right = max(low, along - pad), min(high, along + 1 + pad)
                one, two = cross_start + (left - start) * slope, cross_start + (right - start) * slope
                if min(one, two) - 2 * pad > cross_most + 1 or max(one, two) + 2 * pad < 0:
                    continue
                for across in range(
                    _floor(min(one, two) - 2 * pad, cross_most), _floor(max(one, two) + 2 * pad, cross_most) + 1
                ):
                    child = across * columns + along if flat else along * columns + across
                    if n > first and found[n - 1, 1] == child and found[n - 1, 2] + found[n - 1, 3] == i:
                        found[n - 1, 3] += 1
                        continue
                    if n == len(found):
                        return -1
                    found[n, 0], found[n, 1], found[n, 2], found[n, 3] = k, child, i, 1
                    n += 1
    return n


@njit(cache=True, nogil=True)
def hold(
    xy: np.ndarray,
    runs: np.ndarray,
    ends: np.ndarray,
    holds: np.ndarray,
    references: np.ndarray,
    wests: np.ndarray,
    souths: np.ndarray,
    size: float,
    rows: int,
    columns: int,
    reference: np.ndarray,
    held: np.ndarray,
) -> bool:
    """Write which reference points of a tile's children each candidate of the tile holds.

    Args:
        xy: (V, 2) vertices.
        runs: (R, 2) runs of vertices, candidate after candidate.
        ends: (E + 1,) where the runs of each candidate begin.
        holds: (E,) whether it holds the tile's own reference point.
        references: (E, 2) that point.
        wests: (E,) west side of the tile, degrees.
        souths: (E,) south side, degrees.
        size: Side of a child, degrees.
        rows: Of children.
        columns: Of children.
        reference: (2,) where in a child its reference point is, as shares of its side.
        held: (E, rows × columns) the answer.

    Returns:
        False when a reference point lies on an edge, so that another must be taken.
    """
    for e in range(len(holds)):
        for child in range(rows * columns):
            px = wests[e] + child % columns * size + reference[0] * size
            py = souths[e] + child // columns * size + reference[1] * size
            odd = holds[e]
            for k in range(ends[e], ends[e + 1]):
                crossed = crossings(xy, runs[k, 0], runs[k, 1], px, py, references[e, 0], references[e, 1])
                if crossed < 0:
                    return False
                odd ^= crossed & 1 == 1
            held[e, child] = odd
    return True


@njit(cache=True, nogil=True)
def list_candidates(
    entries: np.ndarray,
    units: np.ndarray,
    holds: np.ndarray,
    ends: np.ndarray,
    runs: np.ndarray,
    leaves: np.ndarray,
    offsets: np.ndarray,
) -> None:
    """Write the candidates of T tiles as :func:`_candidate` reads them, and where each tile's list begins."""
    at = 0
    for t in range(len(entries) - 1):
        offsets[t] = at
        leaves[at] = entries[t + 1] - entries[t]
        at += 1
        for e in range(entries[t], entries[t + 1]):
            leaves[at], leaves[at + 1] = units[e], 2 * (ends[e + 1] - ends[e]) + holds[e]
            at += 2
            for k in range(ends[e], ends[e + 1]):
                leaves[at], leaves[at + 1] = runs[k, 0], runs[k, 1]
                at += 2


@njit(cache=True, nogil=True)
def flatten(tiles: np.ndarray, rows: int, columns: int, steps: int, grid: np.ndarray) -> None:
    """Write the codes ``steps`` levels below the top, whose ``rows`` × ``columns`` codes come first in ``tiles``."""
    parts = SIDE**steps
    for row in range(grid.shape[0]):
        for column in range(grid.shape[1]):
            code = tiles[row // parts * columns + column // parts]
            part = parts
            while code <= -2 and part > 1:
                below = part // SIDE
                code = tiles[(-2 - code) // 2 + row % part // below * SIDE + column % part // below]
                part = below
            grid[row, column] = code


@njit(cache=True, nogil=True)
def _pieces(xy: np.ndarray, i: int, spacing: float) -> int:
    return max(1, int(np.ceil(np.hypot(xy[i + 1, 0] - xy[i, 0], xy[i + 1, 1] - xy[i, 1]) / spacing)))


@njit(cache=True, nogil=True)
def cut(xy: np.ndarray, rings: np.ndarray, ring_units: np.ndarray, spacing: float, segments: np.ndarray) -> int:
    """Cut rings in segments of up to EDGES short edges, or pieces of a long one.

    Args:
        xy: (V, 2) vertices.
        rings: (R + 1,) where each ring begins.
        ring_units: (R,) whose ring it is.
        spacing: Degrees above which an edge is long, and of which its pieces are at most.
        segments: (S, 3) room for the answer: unit, vertex, and the number of edges or −1 − the first piece.

    Returns:
        How many segments there are, also when there is no room for them.
    """
    n = 0
    for ring in range(len(ring_units)):
        joined = 0
        for i in range(rings[ring], rings[ring + 1] - 1):
            pieces = _pieces(xy, i, spacing)
            if pieces == 1 and 0 < joined < EDGES:
                if n <= len(segments):
                    segments[n - 1, 2] += 1
                joined += 1
                continue
            for piece in range(0, pieces, EDGES):
                if n < len(segments):
                    segments[n, 0], segments[n, 1] = ring_units[ring], i
                    segments[n, 2] = 1 if pieces == 1 else -1 - piece
                n += 1
            joined = 1 if pieces == 1 else 0
    return n


@njit(cache=True, nogil=True)
def _length(xy: np.ndarray, segment: np.ndarray, spacing: float) -> int:
    """How many edges or pieces a segment has."""
    if segment[2] > 0:
        return segment[2]
    return min(_pieces(xy, segment[1], spacing) + 1 + segment[2], EDGES)


@njit(cache=True, nogil=True)
def _vector(longitude: float, latitude: float) -> tuple[float, float, float]:
    y, x = np.radians(latitude), np.radians(longitude)
    flat = np.cos(y)
    return flat * np.cos(x), flat * np.sin(x), np.sin(y)


@njit(cache=True, nogil=True)
def _vertex(xy: np.ndarray, segment: np.ndarray, step: int, spacing: float) -> tuple[float, float, float]:
    """A segment's vertex as a unit vector."""
    i = segment[1]
    if segment[2] > 0:
        return _vector(xy[i + step, 0], xy[i + step, 1])
    pieces = _pieces(xy, i, spacing)
    at = -1 - segment[2] + step
    if at == 0 or at == pieces:
        i += 1 if at else 0
        return _vector(xy[i, 0], xy[i, 1])
    share = at / pieces
    x = xy[i, 0] + share * (xy[i + 1, 0] - xy[i, 0])
    return _vector(x, xy[i, 1] + share * (xy[i + 1, 1] - xy[i, 1]))


@njit(cache=True, nogil=True)
def enclose(xy: np.ndarray, segments: np.ndarray, spacing: float, boxes: np.ndarray) -> None:
    """Write the box (S, 6) that holds each segment: lowest and highest x, y, z on the unit sphere."""
    for s in range(len(segments)):
        low, high = np.full(3, 2.0), np.full(3, -2.0)
        for step in range(_length(xy, segments[s], spacing) + 1):
            vertex = _vertex(xy, segments[s], step, spacing)
            for axis in range(3):
                low[axis], high[axis] = min(low[axis], vertex[axis]), max(high[axis], vertex[axis])
        for axis in range(3):
            boxes[s, axis], boxes[s, 3 + axis] = low[axis] - ARC, high[axis] + ARC


@njit(cache=True, nogil=True)
def _to_box(box: np.ndarray, x: float, y: float, z: float) -> float:
    """Squared distance from a point to a box."""
    dx = max(box[0] - x, x - box[3], 0.0)
    dy = max(box[1] - y, y - box[4], 0.0)
    dz = max(box[2] - z, z - box[5], 0.0)
    return dx * dx + dy * dy + dz * dz


@njit(cache=True, nogil=True)
def _to_segment(xy: np.ndarray, segment: np.ndarray, spacing: float, x: float, y: float, z: float) -> float:
    """Squared chord from a point of the unit sphere to a segment brought onto it."""
    best = np.inf
    ax, ay, az = _vertex(xy, segment, 0, spacing)
    for step in range(1, _length(xy, segment, spacing) + 1):
        bx, by, bz = _vertex(xy, segment, step, spacing)
        sx, sy, sz = bx - ax, by - ay, bz - az
        along = (x - ax) * sx + (y - ay) * sy + (z - az) * sz
        along = min(max(along / max(sx * sx + sy * sy + sz * sz, 1e-300), 0.0), 1.0)
        fx, fy, fz = ax + along * sx, ay + along * sy, az + along * sz
        if 0 < along < 1:
            norm = np.sqrt(fx * fx + fy * fy + fz * fz)
            fx, fy, fz = fx / norm, fy / norm, fz / norm
        elif along == 1:
            fx, fy, fz = bx, by, bz
        best = min(best, (fx - x) ** 2 + (fy - y) ** 2 + (fz - z) ** 2)
        ax, ay, az = bx, by, bz
    return best


@njit(cache=True, nogil=True)
def nearest(
    xy: np.ndarray,
    segments: np.ndarray,
    boxes: np.ndarray,
    levels: np.ndarray,
    spacing: float,
    limit: float,
    tie: float,
    latitudes: np.ndarray,
    longitudes: np.ndarray,
    units: np.ndarray,
    chords: np.ndarray,
) -> None:
    """Write the unit whose border is nearest to each point, and the chord to it on the unit sphere.

    Args:
        xy: (V, 2) vertices.
        segments: (S, 3) of :func:`cut`, neighbours together.
        boxes: (B, 6) of the segments, then of each FAN boxes before, up to one.
        levels: (L + 1,) where in ``boxes`` each level begins.
        spacing: As in :func:`cut`.
        limit: The longest chord.
        tie: Chords that differ by no more are equal; the first unit counts then.
        latitudes: (N,) degrees.
        longitudes: (N,) degrees.
        units: (N,) what is found, −1 where nothing is within the limit.
        chords: (N,) how far it is; infinite where nothing is.
    """
    waiting = np.empty(len(levels) * FAN, dtype=np.int64)
    depth = np.empty(len(levels) * FAN, dtype=np.int64)
    bounds = np.empty(len(levels) * FAN)
    top = len(levels) - 2
    for i in range(len(latitudes)):
        x, y, z = _vector(longitudes[i], latitudes[i])
        best, unit = limit, NOTHING
        reached = False
        # Once for the distance, once for the first unit at that distance.
        for again in range(2):
            if again and not reached:
                break
            bound = (best + tie) ** 2 if again else best * best
            n = 1
            waiting[0], depth[0], bounds[0] = 0, top, 0.0
            while n:
                n -= 1
                if bounds[n] > bound:
                    continue
                at, level = waiting[n], depth[n]
                if level == 0:
                    if again and unit >= 0 and segments[at, 0] >= unit:
                        continue
                    far = _to_segment(xy, segments[at], spacing, x, y, z)
                    if far <= bound:
                        reached = True
                        if again:
                            unit = segments[at, 0]
                        else:
                            bound, best = far, np.sqrt(far)
                    continue
                below = levels[level - 1]
                first = n
                for child in range(at * FAN, min(at * FAN + FAN, levels[level] - below)):
                    far = _to_box(boxes[below + child], x, y, z)
                    if far > bound:
                        continue
                    # The nearest child is looked at first: it lies last.
                    k = n
                    while k > first and bounds[k - 1] < far:
                        waiting[k], depth[k], bounds[k] = waiting[k - 1], depth[k - 1], bounds[k - 1]
                        k -= 1
                    waiting[k], depth[k], bounds[k] = child, level - 1, far
                    n += 1
        units[i] = unit
        chords[i] = best if reached else np.inf
