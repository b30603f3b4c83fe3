"""Prototypes: each cell's photos clustered by where they are, and the mean embedding of every cluster.

PIGEON (Haas et al. 2024; the poster, section 6): OPTICS within each cell on great-circle distances; noise is dropped;
the photos of a cell with fewer than ``min_samples`` are one cluster, and so are those of a cell that is nothing but
noise.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from geoloc_core.blocks import blocks
from geoloc_core.geo import sphere
from geoloc_core.progress import track
from geoloc_core.threads import workers

BLOCK = 2**24
"""Numbers in float32 at a time."""


@dataclass(frozen=True)
class Clusters:
    """P clusters of M points in C cells, cell after cell.

    Attributes:
        points: (M,) the points, cluster by cluster, each cluster's in the order given; noise is left out.
        starts: (P + 1,) where the points of each cluster begin.
        cells: (C + 1,) where the clusters of each cell begin.
    """

    points: np.ndarray
    starts: np.ndarray
    cells: np.ndarray


def cluster(
    cells: np.ndarray, latitudes: np.ndarray, longitudes: np.ndarray, count: int, min_samples: int, xi: float
) -> Clusters:
    """Cluster the points of each cell.

    Args:
        cells: (N,) the cell of each point, 0 … count − 1.
        latitudes: (N,) degrees.
        longitudes: (N,) degrees.
        count: C.
        min_samples: See :func:`~geoloc_core.geo.optics.sphere_clusters`.
        xi: See :func:`~geoloc_core.geo.optics.sphere_clusters`.
    """
    from geoloc_core.geo.optics import sphere_clusters

    order = np.argsort(cells, kind="stable")
    starts = np.searchsorted(cells[order], np.arange(count + 1))
    vectors = sphere.unit_vectors(latitudes[order], longitudes[order])
    labels = np.zeros(len(order), np.int64)

    def label(cell: int) -> None:
        own = slice(starts[cell], starts[cell + 1])
        found = sphere_clusters(vectors[own], min_samples, xi)
        labels[own] = found if (found >= 0).any() else 0

    sizes = np.diff(starts)
    large = np.flatnonzero(sizes >= min_samples)
    largest_first = large[np.argsort(-sizes[large], kind="stable")].tolist()
    with ThreadPoolExecutor(workers()) as pool:
        list(track(pool.map(label, largest_first), "cluster the photos of cells", len(large), "cells"))
    kept = np.flatnonzero(labels >= 0)
    kept = kept[np.lexsort((labels[kept], cells[order[kept]]))]
    cell, of = cells[order[kept]], labels[kept]
    begins = np.flatnonzero(np.diff(cell, prepend=-1) | np.diff(of, prepend=-1))
    return Clusters(order[kept], np.append(begins, len(kept)), np.searchsorted(cell[begins], np.arange(count + 1)))


def means(features: np.ndarray, rows: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The mean features (G, D) float16 of G groups of rows, none of them empty.

    Args:
        features: (N, D), may be memory-mapped.
        rows: (M,) group by group.
        starts: (G + 1,) where the rows of each group begin.
    """
    from scipy.sparse import csr_array

    width, sizes = features.shape[1], np.diff(starts)
    found = np.empty((len(sizes), width), np.float16)
    before = np.zeros(width, np.float32)
    for part in blocks(len(rows), BLOCK, width):
        a, b = part.start, part.stop
        first, last = np.searchsorted(starts, [a, b - 1], "right") - 1
        within = np.clip(starts[first : last + 2], a, b) - a
        adds = csr_array((np.ones(b - a, np.float32), np.arange(b - a), within), (last + 1 - first, b - a))
        sums = adds @ features[rows[part]].astype(np.float32)
        if starts[first] < a:
            sums[0] += before
        before = sums[-1]
        found[first : last + 1] = sums / sizes[first : last + 1, None]  # a group that goes on is written once more
    return found
