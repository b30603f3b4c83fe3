"""Fusing units until each group has enough points, and the neighbourhood of units it needs.

After the semantic geocells of PIGEON (Haas et al. 2024), whose released code fuses within a country likewise.
"""

import heapq

import numpy as np

from geoloc_core.geo.geocells.ground import Ground
from geoloc_core.geo.geocells.voronoi import Graph

TOUCH_DEGREES = 0.001
"""Vertices count as shared when they round to the same multiple of this."""
KNOWN = 8
"""Nearest units looked at first when a country is in pieces."""


def neighbourhood(ground: Ground) -> Graph:
    """Which of the U finest units are neighbours: they share a vertex, or they tie an island to its country.

    The units of each country are connected, and no unit has a neighbour in another country.
    """
    import pandas as pd

    country, _ = pd.factorize(ground.gids[:, 0])
    pairs = _meeting(ground.shapes)
    pairs = pairs[country[pairs[:, 0]] == country[pairs[:, 1]]]
    return Graph.of(np.concatenate([pairs, _ties(ground.vectors, country, pairs)]), len(country))


def _meeting(shapes: np.ndarray) -> np.ndarray:
    """Pairs (P, 2) of polygons with a vertex in common, each pair once."""
    import shapely

    xy, shape = shapely.get_coordinates(shapes, return_index=True)
    x, y = np.round(xy / TOUCH_DEGREES).astype(np.int64).T
    turn = round(360 / TOUCH_DEGREES)
    # One number for vertex and shape, so that one sort brings the shapes of a vertex together.
    code = np.sort(((x % turn) * turn + y + turn // 4) * len(shapes) + shape)
    code = code[np.diff(code, prepend=-1) > 0]
    vertex, shape = code // len(shapes), code % len(shapes)
    found, step = [np.empty((0, 2), dtype=np.int64)], 1
    while len(same := np.flatnonzero(vertex[step:] == vertex[:-step])):
        found.append(np.unique(shape[same] * len(shapes) + shape[same + step]))
        step += 1
    codes = np.unique(np.concatenate([part.ravel() for part in found]))
    return np.stack([codes // len(shapes), codes % len(shapes)], axis=1)


def _ties(vectors: np.ndarray, country: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The fewest and shortest links (L, 2) between nearby units that connect each country."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
    from scipy.spatial import cKDTree

    count = len(country)
    # The country as a fourth coordinate keeps countries out of each other's reach.
    places = np.column_stack([vectors, 4.0 * country])
    tree, near = cKDTree(places), KNOWN
    while True:
        distance, other = tree.query(places, k=np.arange(2, near + 2), distance_upper_bound=3.0)
        here = np.isfinite(distance)
        links = np.stack([np.repeat(np.arange(count), here.sum(axis=1)), other[here]], axis=1)
        rows, columns = np.concatenate([pairs, links]).T
        # Neighbours cost next to nothing, so that the tree holds a link only where it must.
        costs = np.concatenate([np.full(len(pairs), 1e-12), np.maximum(distance[here], 1e-9)])
        lowest, highest = np.minimum(rows, columns), np.maximum(rows, columns)
        order = np.lexsort([costs, highest, lowest])
        keep = order[np.unique(lowest[order] * count + highest[order], return_index=True)[1]]
        graph = coo_array((costs[keep], (lowest[keep], highest[keep])), shape=(count, count)).tocsr()
        if connected_components(graph, directed=False)[0] == len(np.unique(country)) or near >= count:
            tree_edges = minimum_spanning_tree(graph).tocoo()
            new = tree_edges.data > 1e-11
            return np.stack([tree_edges.row[new], tree_edges.col[new]], axis=1).astype(np.int64)
        near *= 4


def fuse(counts: np.ndarray, areas: np.ndarray, province: np.ndarray, graph: Graph, smallest: int) -> np.ndarray:
    """Groups (U,) of connected units, each with at least ``smallest`` points unless its country has fewer.

    The group of fewest points always goes first, and joins a neighbour: one below the minimum in its own
    subdivision, else any there, else one below the minimum elsewhere, else any; of several the one with most points,
    the first of equals. A unit without points is a group like any other.

    Args:
        counts: (U,) points of each unit.
        areas: (U,) km²; of groups with equal points the smaller one goes first.
        province: (U,) subdivision of the first level, as numbers.
        graph: The neighbours.
        smallest: Fewest points of a group.
    """
    count = counts.astype(np.int64).tolist()
    area, home = areas.tolist(), province.tolist()
    near = [set(part.tolist()) for part in np.split(graph.neighbours, graph.starts[1:-1])]
    group = list(range(len(count)))
    heap = [(count[unit], area[unit], unit) for unit in group if count[unit] < smallest]
    heapq.heapify(heap)
    while heap:
        points, size, unit = heapq.heappop(heap)
        if group[unit] != unit or count[unit] != points or area[unit] != size or not near[unit]:
            continue
        # The four wishes in one key: own subdivision first, then below the minimum, then most points.
        host = min(near[unit], key=lambda n: (home[n] != home[unit], count[n] >= smallest, -count[n], n))
        keep, gone = (host, unit) if len(near[host]) >= len(near[unit]) else (unit, host)
        home[keep] = home[host]
        count[keep], area[keep] = count[host] + points, area[host] + size
        group[gone] = keep
        near[keep] |= near[gone]
        near[keep] -= {keep, gone}
        for other in near[gone]:
            near[other].discard(gone)
            if other != keep:
                near[other].add(keep)
        near[gone] = set()
        if count[keep] < smallest:
            heapq.heappush(heap, (count[keep], area[keep], keep))
    return _roots(np.array(group, dtype=np.int64))


def _roots(parent: np.ndarray) -> np.ndarray:
    while not np.array_equal(parent[parent], parent):
        parent = parent[parent]
    return parent
