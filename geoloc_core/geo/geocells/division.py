"""Dividing many points into connected parts of limited size: OPTICS where density tells parts apart, else cuts.

The points of one group are vertices of their Delaunay graph on the sphere, so that a connected set of vertices owns
one piece of the group's Voronoi diagram. A part above the maximum is divided, and its parts again, by the first
that works:

1. Each round's OPTICS, as in PIGEON (Haas et al. 2024). Of each cluster its largest connected piece counts, if
   it reaches the minimum. Two or more clusters: every other vertex joins the one that grows to it along the shortest
   edges. One cluster: what is left around it stays a part of its own if it is connected and within both limits.
2. A cut into two about equal halves: one half grows from an extreme vertex in the order of its projection on an axis,
   for several axes; pieces that it leaves cut off join it.

So no part is below the minimum; one stays above the maximum only where points coincide so often that no cut leaves
the minimum on both sides.
"""

import heapq

import numpy as np
from numba import njit

from geoloc_core.geo.optics import optics, xi_clusters

AXES = 8
LOPSIDED = 0.9
"""A round that leaves more than this share in one part, still too large, does not count: the cost stays near-linear."""


@njit(cache=True, nogil=True)
def pieces(labels: np.ndarray, starts: np.ndarray, neighbours: np.ndarray) -> tuple[np.ndarray, int]:
    """Connected pieces (V,) of equal labels on a graph in CSR form, and how many there are."""
    count = len(labels)
    piece, queue, found = np.full(count, -1), np.empty(count, np.int64), 0
    for seed in range(count):
        if piece[seed] >= 0:
            continue
        piece[seed], queue[0], head, tail = found, seed, 0, 1
        while head < tail:
            vertex = queue[head]
            head += 1
            for other in neighbours[starts[vertex] : starts[vertex + 1]]:
                if piece[other] < 0 and labels[other] == labels[seed]:
                    piece[other], queue[tail], tail = found, other, tail + 1
        found += 1
    return piece, found


@njit(cache=True, nogil=True)
def _weigh(groups: np.ndarray, count: int, weights: np.ndarray) -> np.ndarray:
    total = np.zeros(count, np.int64)
    for vertex in range(len(groups)):
        if groups[vertex] >= 0:
            total[groups[vertex]] += weights[vertex]
    return total


@njit(cache=True, nogil=True)
def _settle(
    labels: np.ndarray,
    points: np.ndarray,
    weights: np.ndarray,
    starts: np.ndarray,
    neighbours: np.ndarray,
    smallest: int,
    largest: int,
) -> tuple[np.ndarray, int]:
    """Parts (V,) from clusters (V,), or how many parts is 0: rule 1 of the module."""
    count = len(labels)
    piece, found = pieces(labels, starts, neighbours)
    weight = _weigh(piece, found, weights)
    clusters = labels.max() + 1
    core = np.full(clusters, -1)
    for vertex in range(count):
        cluster, own = labels[vertex], piece[vertex]
        if cluster >= 0 and (core[cluster] < 0 or weight[own] > weight[core[cluster]]):
            core[cluster] = own
    parts, made = np.full(count, -1), 0
    number = np.full(found, -1)
    for cluster in range(clusters):
        if core[cluster] >= 0 and weight[core[cluster]] >= smallest:
            number[core[cluster]] = made
            made += 1
    if made == 0:
        return parts, 0
    for vertex in range(count):
        parts[vertex] = number[piece[vertex]]
    if made == 1:
        around, found = pieces(parts, starts, neighbours)
        weight = _weigh(around, found, weights)
        for vertex in range(count):
            if parts[vertex] < 0 and smallest <= weight[around[vertex]] <= largest:
                parts[vertex], made = 1 + around[vertex], 2
        if made == 1:
            return parts, 0
    _grow(parts, points, starts, neighbours)
    return _renumber(parts)


@njit(cache=True, nogil=True)
def _renumber(parts: np.ndarray) -> tuple[np.ndarray, int]:
    """The same parts numbered as they first appear, and their number."""
    number, made = np.full(parts.max() + 1, -1), 0
    for vertex in range(len(parts)):
        if number[parts[vertex]] < 0:
            number[parts[vertex]] = made
            made += 1
        parts[vertex] = number[parts[vertex]]
    return parts, made


@njit(cache=True, nogil=True)
def _grow(parts: np.ndarray, points: np.ndarray, starts: np.ndarray, neighbours: np.ndarray) -> None:
    """Give each vertex without a part that of its neighbour, shortest edges first."""
    heap = [(0.0, 0, 0) for _ in range(0)]
    for vertex in range(len(parts)):
        if parts[vertex] >= 0:
            for other in neighbours[starts[vertex] : starts[vertex + 1]]:
                if parts[other] < 0:
                    heap.append((((points[vertex] - points[other]) ** 2).sum(), other, parts[vertex]))  # noqa: PERF401
    heapq.heapify(heap)
    while heap:
        _, vertex, part = heapq.heappop(heap)
        if parts[vertex] >= 0:
            continue
        parts[vertex] = part
        for other in neighbours[starts[vertex] : starts[vertex + 1]]:
            if parts[other] < 0:
                heapq.heappush(heap, (((points[vertex] - points[other]) ** 2).sum(), other, part))


@njit(cache=True, nogil=True)
def _axes(points: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Directions (AXES, 3) to cut along, the one in which the points spread most first."""
    centre = np.zeros(3)
    for k in range(3):
        centre[k] = (points[:, k] * weights).sum()
    up = centre / np.sqrt((centre**2).sum())
    spread = np.zeros((3, 3))
    for i in range(3):
        for j in range(3):
            spread[i, j] = ((points[:, i] - up[i]) * (points[:, j] - up[j]) * weights).sum()
    flat = np.eye(3) - np.outer(up, up)
    _, vectors = np.linalg.eigh(flat @ spread @ flat)
    along = vectors[:, 2]
    # An eigenvector has no sign: one is chosen, so that the result does not hang on the library.
    along = along * np.sign(along[np.argmax(np.abs(along))])
    across = np.cross(up, along)
    axes = np.empty((AXES, 3))
    for n in range(AXES):
        # 1/2, 1/4, 3/4, 1/8 … of a half turn: the first axes differ most.
        share, bit, left = 0.0, 0.5, n
        while left:
            share, bit, left = share + bit * (left & 1), bit / 2, left >> 1
        axes[n] = np.cos(np.pi * share) * along + np.sin(np.pi * share) * across
    return axes


@njit(cache=True, nogil=True)
def _sweep(values: np.ndarray, starts: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """The order in which a connected set grows from the vertex of least value, always to the least value."""
    heap = [(values.min(), np.argmin(values))]
    order, size = np.empty(len(values), np.int64), 0
    seen = np.zeros(len(values), np.bool_)
    seen[heap[0][1]] = True
    while heap:
        _, vertex = heapq.heappop(heap)
        order[size], size = vertex, size + 1
        for other in neighbours[starts[vertex] : starts[vertex + 1]]:
            if not seen[other]:
                seen[other] = True
                heapq.heappush(heap, (values[other], other))
    return order


@njit(cache=True, nogil=True)
def _cut(
    points: np.ndarray, weights: np.ndarray, starts: np.ndarray, neighbours: np.ndarray, smallest: int
) -> tuple[np.ndarray, int]:
    """Two connected parts (V,), as equal as the axis tried first allows, or how many parts is 1."""
    total = weights.sum()
    axes = _axes(points, weights)
    sides = np.ones(len(points), np.int64)
    for n in range(2 * AXES):
        values = points @ axes[n // 2] * (1 - 2 * (n % 2))
        order = _sweep(values, starts, neighbours)
        sums = np.cumsum(weights[order])
        # Both halves may be larger than the smallest by this much; try cuts from the middle outwards.
        middle = np.searchsorted(sums, total / 2)
        step = max(1, len(order) // 64)
        for k in range(64):
            at = middle + (k + 1) // 2 * step * (1 - 2 * (k % 2))
            if not (0 <= at < len(order) - 1 and smallest <= sums[at] <= total - smallest):
                continue
            sides[:] = 1
            sides[order[: at + 1]] = 0
            piece, found = pieces(sides, starts, neighbours)
            weight = _weigh(piece, found, weights)
            main = -1
            for vertex in range(len(sides)):
                if sides[vertex] == 1 and (main < 0 or weight[piece[vertex]] > weight[main]):
                    main = piece[vertex]
            if weight[main] >= smallest:
                for vertex in range(len(sides)):
                    sides[vertex] = 1 if piece[vertex] == main else 0
                return _renumber(sides)
    sides[:] = 0
    return sides, 1


@njit(cache=True, nogil=True)
def _clusters(points: np.ndarray, weights: np.ndarray, min_samples: int, xi: float, smallest: int) -> np.ndarray:
    """Clusters (V,) of one round; −1 is noise."""
    # So many photos of one place are as dense as can be, and more would only cost time.
    repeats = np.minimum(weights, max(min_samples, smallest))
    owner = np.repeat(np.arange(len(points)), repeats)
    labels = np.full(len(points), -1)
    if len(owner) < min_samples:
        return labels
    order, reachability, predecessor, _ = optics(points[owner], min_samples)
    found = xi_clusters(order, reachability, predecessor, min_samples, smallest, xi)
    for n in range(len(owner) - 1, -1, -1):
        labels[owner[n]] = found[n]
    return labels


@njit(cache=True, nogil=True)
def _parts(
    points: np.ndarray,
    weights: np.ndarray,
    starts: np.ndarray,
    neighbours: np.ndarray,
    smallest: int,
    largest: int,
    min_samples: np.ndarray,
    xi: np.ndarray,
) -> tuple[np.ndarray, int]:
    """One division of a part: its parts (V,) and how many there are."""
    limit = max(LOPSIDED * weights.sum(), largest)
    for n in range(len(min_samples)):
        labels = _clusters(points, weights, min_samples[n], xi[n], smallest)
        parts, made = _settle(labels, points, weights, starts, neighbours, smallest, largest)
        if made > 1 and _weigh(parts, made, weights).max() <= limit:
            return parts, made
    return _cut(points, weights, starts, neighbours, smallest)


@njit(cache=True, nogil=True)
def divide(
    points: np.ndarray,
    weights: np.ndarray,
    starts: np.ndarray,
    neighbours: np.ndarray,
    smallest: int,
    largest: int,
    min_samples: np.ndarray,
    xi: np.ndarray,
) -> np.ndarray:
    """Parts of at most ``largest`` and at least ``smallest`` points.

    Args:
        points: (V, 3) distinct unit vectors.
        weights: (V,) int64, how many points lie there.
        starts: (V + 1,) where each vertex' neighbours start: their connected Delaunay graph.
        neighbours: (E,) the vertices next to each.
        smallest: Fewest points of a part.
        largest: Most points of a part; at least twice the smallest.
        min_samples: (R,) of each round of OPTICS.
        xi: (R,) of each round.

    Returns:
        (V,) the part of each vertex, 0 …
    """
    count = len(points)
    label, made = np.zeros(count, np.int64), 0
    local = np.full(count, -1)
    stack = [np.arange(count)]
    while stack:
        members = stack.pop()
        if weights[members].sum() <= largest:
            label[members] = made
            made += 1
            continue
        # The graph of the members alone.
        for n in range(len(members)):
            local[members[n]] = n
        own_starts, size = np.zeros(len(members) + 1, np.int64), 0
        own = np.empty((starts[members + 1] - starts[members]).sum(), np.int64)
        for n in range(len(members)):
            for other in neighbours[starts[members[n]] : starts[members[n] + 1]]:
                if local[other] >= 0:
                    own[size], size = local[other], size + 1
            own_starts[n + 1] = size
        local[members] = -1
        parts, found = _parts(
            points[members], weights[members], own_starts, own[:size], smallest, largest, min_samples, xi
        )
        if found < 2:
            label[members] = made
            made += 1
            continue
        for part in range(found - 1, -1, -1):
            stack.append(members[parts == part])  # noqa: PERF401  (numba has no generators here)
    return label
