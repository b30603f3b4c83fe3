"""OPTICS (Ankerst et al., SIGMOD 1999): the order in which clusters of every density unfold, and the clusters in it.

The reachability is exact, without a limit on the radius, yet neither memory nor, on real data, time is quadratic:

- A point offers its core distance to the points within it; no offer for those is ever better. They are found once,
  in a k-d tree whose emptied branches are skipped.
- Beyond, only its nearest unprocessed point can be its next offer, and it is looked up only when no better offer
  is left: Bentley and Friedman's way to minimal spanning trees (IEEE Trans. Comput. 1978).

Ties go to the lowest index, so that the result is the same everywhere. Clusters follow figure 19 of the paper, with
scikit-learn's rule that a cluster's last point must have been reached from within the cluster.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from geoloc_core.geo.sphere import arc_km

LEAF = 12
NOTHING = -1
CLOSEST_KM = 1e-5
"""Points that lie closer are as good as one point: PIGEON's least distance, without which no step is steep from 0."""


class Tree(NamedTuple):
    """A balanced k-d tree: node n has the children 2n + 1 and 2n + 2; a node's points are an interval of slots.

    Attributes:
        points: (N, D) by slot.
        given: (N,) the index of each slot's point.
        start: (nodes,) first slot.
        stop: (nodes,) the slot behind the last.
        low: (nodes, D) least coordinates.
        high: (nodes, D) greatest coordinates.
        inner: Nodes from this one on have no children.
    """

    points: np.ndarray
    given: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    low: np.ndarray
    high: np.ndarray
    inner: int


@njit(cache=True, nogil=True)
def _swap(points: np.ndarray, index: np.ndarray, a: int, b: int) -> None:
    for k in range(points.shape[1]):
        points[a, k], points[b, k] = points[b, k], points[a, k]
    index[a], index[b] = index[b], index[a]


@njit(cache=True, nogil=True)
def _halve(points: np.ndarray, index: np.ndarray, first: int, last: int, middle: int, axis: int) -> None:
    """Order slots first … last so that none before the middle is greater on the axis than one behind it."""
    while first < last:
        pivot = points[(first + last) // 2, axis]
        a, b = first, last
        while a <= b:
            while points[a, axis] < pivot:
                a += 1
            while points[b, axis] > pivot:
                b -= 1
            if a <= b:
                _swap(points, index, a, b)
                a, b = a + 1, b - 1
        if middle <= b:
            last = b
        elif middle >= a:
            first = a
        else:
            return


@njit(cache=True, nogil=True)
def plant(given: np.ndarray) -> Tree:
    """The k-d tree of points (N, D)."""
    count, dims = given.shape
    inner = 0
    while count > LEAF * (inner + 1):
        inner = 2 * inner + 1
    nodes = 2 * inner + 1
    points, index = given.copy(), np.arange(count)
    start, stop = np.zeros(nodes, np.int64), np.zeros(nodes, np.int64)
    low, high = np.empty((nodes, dims)), np.empty((nodes, dims))
    stop[0] = count
    for node in range(nodes):
        a, b = start[node], stop[node]
        for k in range(dims):
            low[node, k], high[node, k] = np.inf, -np.inf
            for slot in range(a, b):
                low[node, k] = min(low[node, k], points[slot, k])
                high[node, k] = max(high[node, k], points[slot, k])
        if node < inner:
            middle = (a + b) // 2
            _halve(points, index, a, b - 1, middle, int(np.argmax(high[node] - low[node])))
            start[2 * node + 1], stop[2 * node + 1] = a, middle
            start[2 * node + 2], stop[2 * node + 2] = middle, b
    return Tree(points, index, start, stop, low, high, inner)


@njit(cache=True, nogil=True)
def _distance(points: np.ndarray, a: int, b: int) -> float:
    total = 0.0
    for k in range(points.shape[1]):
        total += (points[a, k] - points[b, k]) ** 2
    return np.sqrt(total)


@njit(cache=True, nogil=True)
def _gap(tree: Tree, node: int, slot: int) -> float:
    """Least possible distance of a slot's point to a node's points, a hair less against rounding."""
    total = 0.0
    for k in range(tree.points.shape[1]):
        x = tree.points[slot, k]
        out = max(tree.low[node, k] - x, x - tree.high[node, k], 0.0)
        total += out * out
    return np.sqrt(total) * (1 - 1e-12)


@njit(cache=True, nogil=True)
def _core(tree: Tree, slot: int, count: int, nearest: np.ndarray, stack: np.ndarray) -> float:
    """Distance to the ``count``-th nearest point, the point itself being the first."""
    nearest[:count] = np.inf  # a heap with the greatest on top
    stack[0], depth = 0, 1
    while depth:
        depth -= 1
        node = stack[depth]
        if _gap(tree, node, slot) > nearest[0]:
            continue
        if node < tree.inner:
            near, far = 2 * node + 1, 2 * node + 2
            if _gap(tree, near, slot) > _gap(tree, far, slot):
                near, far = far, near
            stack[depth], stack[depth + 1] = far, near
            depth += 2
            continue
        for other in range(tree.start[node], tree.stop[node]):
            distance = _distance(tree.points, slot, other)
            if distance < nearest[0]:
                hole = 0
                while 2 * hole + 1 < count:
                    child = 2 * hole + 1
                    if child + 1 < count and nearest[child + 1] > nearest[child]:
                        child += 1
                    if nearest[child] <= distance:
                        break
                    nearest[hole] = nearest[child]
                    hole = child
                nearest[hole] = distance
    return nearest[0]


@njit(cache=True, nogil=True)
def _sift(heap: np.ndarray, place: np.ndarray, key: np.ndarray, tie: np.ndarray, hole: int, size: int) -> None:
    """Bring the entry at a hole to its place in a heap with the least (key, tie) on top."""
    item = heap[hole]
    while hole:
        above = heap[(hole - 1) // 2]
        if key[above] < key[item] or (key[above] == key[item] and tie[above] <= tie[item]):
            break
        heap[hole], place[above] = above, hole
        hole = (hole - 1) // 2
    while 2 * hole + 1 < size:
        child = 2 * hole + 1
        if child + 1 < size:
            a, b = heap[child], heap[child + 1]
            if key[b] < key[a] or (key[b] == key[a] and tie[b] < tie[a]):
                child += 1
        below = heap[child]
        if key[item] < key[below] or (key[item] == key[below] and tie[item] <= tie[below]):
            break
        heap[hole], place[below] = below, hole
        hole = child
    heap[hole], place[item] = item, hole


@njit(cache=True, nogil=True)
def _nearest_left(
    tree: Tree, left: np.ndarray, done: np.ndarray, slot: int, beyond: float, stack: np.ndarray
) -> tuple[int, float]:
    """The unprocessed slot nearest to a slot, of equals that of the lowest index, and its distance."""
    best, found = np.inf, NOTHING
    stack[0], depth = 0, 1
    while depth:
        depth -= 1
        node = stack[depth]
        if left[node] == 0 or _gap(tree, node, slot) > best:
            continue
        if node < tree.inner:
            near, far = 2 * node + 1, 2 * node + 2
            if _gap(tree, near, slot) > _gap(tree, far, slot):
                near, far = far, near
            stack[depth], stack[depth + 1] = far, near
            depth += 2
            continue
        for other in range(tree.start[node], tree.stop[node]):
            if not done[other]:
                distance = max(_distance(tree.points, slot, other), beyond)
                if distance < best or (distance == best and tree.given[other] < tree.given[found]):
                    best, found = distance, other
    return found, best


@njit(cache=True, nogil=True)
def optics(points: np.ndarray, min_samples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Order and reachability of points by Euclidean distance, the radius unlimited.

    Args:
        points: (N, D) float64, N ≥ ``min_samples``.
        min_samples: How many points, itself included, make a point a core point.

    Returns:
        (N,) the order, as indices of points. By index of point: (N,) reachability distances, infinite for the
        first; (N,) the points from which they were reached, −1 for the first; (N,) core distances.
    """
    count = len(points)
    tree = plant(points)
    stack = np.empty(256, np.int64)
    core, nearest = np.empty(count), np.empty(min_samples)
    for slot in range(count):
        core[slot] = _core(tree, slot, min_samples, nearest, stack)
    left = tree.stop - tree.start
    done = np.zeros(count, np.bool_)
    reach, before = np.full(count, np.inf), np.full(count, NOTHING)
    # Two heaps of slots: those reached, by what they were offered, and those processed, by their next offer.
    reached, place, size = np.empty(count, np.int64), np.full(count, NOTHING), 0
    offering, rank, offers = np.empty(count, np.int64), np.full(count, NOTHING), 0
    offer, target, tie = np.empty(count), np.full(count, NOTHING), np.full(count, count)
    order = np.empty(count, np.int64)
    slot = int(np.argmin(tree.given))
    for step in range(count):
        order[step] = tree.given[slot]
        done[slot] = True
        node, a, b = 0, 0, count
        left[0] -= 1
        while node < tree.inner:
            middle = (a + b) // 2
            node = 2 * node + 1
            if slot < middle:
                b = middle
            else:
                node, a = node + 1, middle
            left[node] -= 1
        # Offer the core distance to all within it.
        stack[0], depth = 0, 1
        while depth:
            depth -= 1
            node = stack[depth]
            if left[node] == 0 or _gap(tree, node, slot) > core[slot]:
                continue
            if node < tree.inner:
                stack[depth], stack[depth + 1] = 2 * node + 2, 2 * node + 1
                depth += 2
                continue
            for other in range(tree.start[node], tree.stop[node]):
                if done[other] or reach[other] <= core[slot] or _distance(tree.points, slot, other) > core[slot]:
                    continue
                reach[other], before[other] = core[slot], slot
                if place[other] == NOTHING:
                    reached[size], place[other], size = other, size, size + 1
                _sift(reached, place, reach, tree.given, place[other], size)
        offer[slot] = core[slot]
        offering[offers], rank[slot], offers = slot, offers, offers + 1
        _sift(offering, rank, offer, tie, rank[slot], offers)
        # Who is next? Look at offers as long as one may be better than the best so far.
        while offers and step + 1 < count:
            giver = offering[0]
            if size:
                first = reached[0]
                if offer[giver] > reach[first] or (offer[giver] == reach[first] and tie[giver] >= tree.given[first]):
                    break
            other = target[giver]
            if other == NOTHING or done[other]:
                other, offer[giver] = _nearest_left(tree, left, done, giver, core[giver], stack)
                target[giver], tie[giver] = other, tree.given[other]
                _sift(offering, rank, offer, tie, 0, offers)
                continue
            reach[other], before[other] = offer[giver], giver
            if place[other] == NOTHING:
                reached[size], place[other], size = other, size, size + 1
            _sift(reached, place, reach, tree.given, place[other], size)
        if size:
            slot, size = reached[0], size - 1
            if size:
                reached[0] = reached[size]
                _sift(reached, place, reach, tree.given, 0, size)
    reachability, predecessor, cores = np.empty(count), np.full(count, NOTHING), np.empty(count)
    for slot in range(count):
        reachability[tree.given[slot]], cores[tree.given[slot]] = reach[slot], core[slot]
        if before[slot] != NOTHING:
            predecessor[tree.given[slot]] = tree.given[before[slot]]
    return order, reachability, predecessor, cores


@njit(cache=True, nogil=True)
def _steep_end(plot: np.ndarray, start: int, rising: bool, keep: float, tolerance: int) -> int:
    """Last steep step of the area that starts at a step: definition 11, in the given direction.

    An area never turns, and at most ``tolerance`` steps in a row are flat or not steep.
    """
    end, idle = start, 0
    for step in range(start, len(plot) - 1):
        a, b = (plot[step + 1], plot[step]) if rising else (plot[step], plot[step + 1])
        if b <= a * keep:
            end, idle = step, 0
        elif b > a:
            break
        else:
            idle += 1
            if idle > tolerance:
                break
    return end


@njit(cache=True, nogil=True)
def xi_clusters(
    order: np.ndarray, reachability: np.ndarray, predecessor: np.ndarray, min_samples: int, min_size: int, xi: float
) -> np.ndarray:
    """The smallest clusters of the reachability plot: what lies between a steep fall and a steep rise.

    Args:
        order: (N,) indices of points.
        reachability: (N,) by point.
        predecessor: (N,) by point.
        min_samples: As for :func:`optics`.
        min_size: Fewest points of a cluster.
        xi: A step is steep when it changes by this share.

    Returns:
        (N,) the cluster of each point, −1 for noise.
    """
    count, keep = len(order), 1 - xi
    plot, where = np.full(count + 1, np.inf), np.empty(count, np.int64)
    for step in range(count):
        plot[step], where[order[step]] = reachability[order[step]], step
    falls, fall_end, highest = np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count)
    areas, label, between = 0, 0, 0.0
    labels = np.full(count, NOTHING)
    starts, ends = np.empty(count, np.int64), np.empty(count, np.int64)
    step = 0
    while step < count:
        falling, rising = plot[step + 1] <= plot[step] * keep, plot[step] <= plot[step + 1] * keep
        between = max(between, plot[step])
        if not (falling or rising) or (plot[step] == plot[step + 1]):
            step += 1
            continue
        kept = 0
        for area in range(areas):
            if between <= plot[falls[area]] * keep:
                falls[kept], fall_end[kept] = falls[area], fall_end[area]
                highest[kept] = max(highest[area], between)
                kept += 1
        areas = kept
        end = _steep_end(plot, step, rising, keep, min_samples)
        if falling:
            falls[areas], fall_end[areas], highest[areas] = step, end, 0.0
            areas += 1
        else:
            found = 0
            for area in range(areas):
                a, z = _bounds(plot, falls[area], fall_end[area], step, end, highest[area], keep)
                while a < z and plot[a] <= plot[z] and not (a <= where[predecessor[order[z]]] < z):
                    z -= 1
                if a < z and z - a + 1 >= min_size and a <= fall_end[area] and z >= step:
                    starts[found], ends[found] = a, z
                    found += 1
            for at in range(found - 1, -1, -1):
                a, z = starts[at], ends[at]
                if (labels[a : z + 1] == NOTHING).all():
                    labels[a : z + 1] = label
                    label += 1
        step = end + 1
        between = plot[step]
    by_point = np.empty(count, np.int64)
    for step in range(count):
        by_point[order[step]] = labels[step]
    return by_point


@njit(cache=True, nogil=True)
def _bounds(
    plot: np.ndarray, fall: int, fall_end: int, rise: int, rise_end: int, highest: float, keep: float
) -> tuple[int, int]:
    """First and last step of the cluster between a fall and a rise (definition 11, 4), or an empty interval."""
    after = plot[rise_end + 1]
    a, z = fall, rise_end
    if after * keep < highest:
        return 0, NOTHING
    if plot[fall] * keep >= after:
        while a < fall_end and plot[a + 1] > after:
            a += 1
    elif after * keep >= plot[fall]:
        while z > rise and plot[z - 1] > plot[fall]:
            z -= 1
    return a, z


def sphere_clusters(vectors: np.ndarray, min_samples: int, xi: float) -> np.ndarray:
    """Clusters of points on the sphere, by great-circle distance.

    Chords and arcs have the same order, so that OPTICS runs on chords, and only what it found becomes arcs.

    Args:
        vectors: (N, 3) unit vectors, N ≥ ``min_samples``.
        min_samples: How many points, itself included, make a point a core point, and a cluster at least.
        xi: A step is steep when it changes by this share.

    Returns:
        (N,) the cluster of each point, −1 for noise.
    """
    order, chords, predecessor, _ = optics(vectors, min_samples)
    reachability = np.full(len(chords), np.inf)
    reached = np.isfinite(chords)
    reachability[reached] = np.maximum(arc_km(chords[reached]), CLOSEST_KM)
    found: np.ndarray = xi_clusters(order, reachability, predecessor, min_samples, min_samples, xi)
    return found
