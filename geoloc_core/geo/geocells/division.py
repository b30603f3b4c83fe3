"""Dividing many points into connected parts of limited size: by OPTICS where density separates parts, else by cuts.

The points of one group are vertices of their Delaunay graph on the sphere, so that a connected set of vertices owns
one piece of the group's Voronoi diagram. A part above the maximum is divided, and its parts again, by the first
that works:

1. OPTICS, once per round (Haas et al. 2024, "PIGEON: Predicting Image Geolocations", section "Geocell Creation"). The
   largest connected piece of each cluster counts, if it reaches the minimum. With two or more clusters, every other
   vertex joins the one that grows to it along the shortest edges. With one cluster, the rest around it stays a part of
   its own if it is connected and within both limits.
2. A cut into two halves of about equal size. One half grows from an extreme vertex in the order of its projection on
   an axis, for several axes. Pieces that are cut off by it join it.

So no part is below the minimum. What runs over vertices and edges is compiled; the rest would take numba longer to
compile than it takes to run. A part stays above the maximum only if so many of its points coincide that no cut
leaves the minimum on both sides.
"""

import heapq
from collections.abc import Sequence

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


def _axes(points: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Directions (AXES, 3) to cut along, the one in which the points spread most first."""
    centre = weights @ points
    up = centre / np.linalg.norm(centre)
    apart, flat = points - up, np.eye(3) - np.outer(up, up)
    _, vectors = np.linalg.eigh(flat @ (apart.T * weights) @ apart @ flat)
    along = vectors[:, 2]
    # An eigenvector has no sign: one is chosen, so that the result does not hang on the library.
    along = along * np.sign(along[np.argmax(np.abs(along))])
    # 1/2, 1/4, 3/4, 1/8 … of a half turn: the first axes differ most.
    shares = [sum((n >> bit & 1) / 2 ** (bit + 1) for bit in range(n.bit_length())) for n in range(AXES)]
    angles = np.pi * np.array(shares)[:, None]
    found: np.ndarray = np.cos(angles) * along + np.sin(angles) * np.cross(up, along)
    return found


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


def _cut(
    points: np.ndarray, weights: np.ndarray, starts: np.ndarray, neighbours: np.ndarray, smallest: int
) -> tuple[np.ndarray, int]:
    """Two connected parts (V,), as equal as the axis tried first allows, or how many parts is 1."""
    total = weights.sum()
    for axis in _axes(points, weights):
        along = points @ axis
        for values in (along, -along):
            order = _sweep(values, starts, neighbours)
            sums = np.cumsum(weights[order])
            # Both halves may be larger than the smallest by this much; try cuts from the middle outwards.
            middle = int(np.searchsorted(sums, total / 2))
            step = max(1, len(order) // 64)
            for k in range(64):
                at = middle + (k + 1) // 2 * step * (1 - 2 * (k % 2))
                if not (0 <= at < len(order) - 1 and smallest <= sums[at] <= total - smallest):
                    continue
                sides = np.ones(len(points), np.int64)
                sides[order[: at + 1]] = 0
                piece, found = pieces(sides, starts, neighbours)
                weight = _weigh(piece, found, weights)
                weight[piece[order[0]]] = 0  # the half that grew is one piece
                if weight.max() >= smallest:
                    return _renumber((piece == weight.argmax()).astype(np.int64))
    return np.zeros(len(points), np.int64), 1


def _clusters(points: np.ndarray, weights: np.ndarray, min_samples: int, xi: float, smallest: int) -> np.ndarray:
    """Clusters (V,) of one round; −1 is noise."""
    # So many photos of one place are as dense as can be, and more would only cost time.
    repeats = np.minimum(weights, max(min_samples, smallest))
    if repeats.sum() < min_samples:
        return np.full(len(points), -1)
    order, reachability, predecessor, _ = optics(np.repeat(points, repeats, axis=0), min_samples)
    found: np.ndarray = xi_clusters(order, reachability, predecessor, min_samples, smallest, xi)
    return found[np.cumsum(repeats) - repeats]


def _parts(
    points: np.ndarray,
    weights: np.ndarray,
    starts: np.ndarray,
    neighbours: np.ndarray,
    smallest: int,
    largest: int,
    rounds: Sequence[tuple[int, float]],
) -> tuple[np.ndarray, int]:
    """One division of a part: its parts (V,) and how many there are."""
    limit = max(LOPSIDED * weights.sum(), largest)
    for min_samples, xi in rounds:
        labels = _clusters(points, weights, min_samples, xi, smallest)
        parts, made = _settle(labels, points, weights, starts, neighbours, smallest, largest)
        if made > 1 and _weigh(parts, made, weights).max() <= limit:
            return parts, made
    return _cut(points, weights, starts, neighbours, smallest)


def divide(
    points: np.ndarray,
    weights: np.ndarray,
    starts: np.ndarray,
    neighbours: np.ndarray,
    smallest: int,
    largest: int,
    rounds: Sequence[tuple[int, float]],
) -> np.ndarray:
    """Parts of at most ``largest`` and at least ``smallest`` points.

    Args:
        points: (V, 3) distinct unit vectors.
        weights: (V,) int64, how many points lie there.
        starts: (V + 1,) where each vertex' neighbours start: their connected Delaunay graph.
        neighbours: (E,) the vertices next to each.
        smallest: Fewest points of a part.
        largest: Most points of a part; at least twice the smallest.
        rounds: (min_samples, xi) of each round of OPTICS.

    Returns:
        (V,) the part of each vertex, 0 …
    """
    label, made = np.zeros(len(points), np.int64), 0
    local = np.full(len(points), -1)
    stack = [np.arange(len(points))]
    while stack:
        members = stack.pop()
        found = 0
        if weights[members].sum() > largest:
            graph = _within(members, local, starts, neighbours)
            parts, found = _parts(points[members], weights[members], *graph, smallest, largest, rounds)
        if found > 1:
            stack += [members[parts == part] for part in range(found - 1, -1, -1)]
        else:
            label[members], made = made, made + 1
    return label


@njit(cache=True, nogil=True)
def _within(
    members: np.ndarray, local: np.ndarray, starts: np.ndarray, neighbours: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The graph of some vertices alone, in CSR form; ``local`` (V,) is −1 before and after."""
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
    return own_starts, own[:size]
