"""Training, validation and test: by group, never by photo, since photos of one group resemble each other.

Photos of one place resemble each other too, whoever took them: spatial blocks keep each place on one side (Roberts et
al. 2017, "Cross-validation strategies for data with temporal, spatial, hierarchical, or phylogenetic structure").
"""

from hashlib import blake2b

import numpy as np
from numpy.typing import ArrayLike

from geoloc_core.sets import Split


def split_by_group(group_ids: ArrayLike, validation_share: float, test_share: float, seed: int) -> np.ndarray:
    """Hold out about a share of the groups for validation, and another for test.

    A group's side hangs on its id, the seed and the shares alone, so it stays when photos come, go or move. A larger
    share takes groups out of training, never from validation to test or back.

    Args:
        group_ids: (N,) strings.
        validation_share: Share of the groups, 0 … 1.
        test_share: Share of the groups; both together are at most 1.
        seed: Another seed gives another split.

    Returns:
        (N,) strings: ``train``, ``validation`` or ``test``.
    """
    import pandas as pd

    codes, groups = pd.factorize(np.asarray(group_ids, dtype=object))
    drawn = np.array([_uniform(group, seed) for group in groups], dtype=np.float64)
    # From both ends of what can be drawn, so that training lies between them and gives to either.
    held_out = [drawn < validation_share, drawn >= 1 - test_share]
    sides = np.select(held_out, [Split.VALIDATION.value, Split.TEST.value], Split.TRAIN.value)
    return sides[codes].astype(object)


EDGE_KM = 7842.0
"""Mean edge of an S2 cell of level 0; each level halves it (S2 Geometry, ``kAvgEdge``)."""


def joined_by_place(group_ids: ArrayLike, latitudes: ArrayLike, longitudes: ArrayLike, blocks_km: float) -> np.ndarray:
    """Groups that meet in a spatial block, joined; and those that meet with these, and so on.

    The blocks are the S2 cells whose mean edge comes nearest to ``blocks_km``. Groups that are places or panoramas
    make small unions; photographers who travel may make one of nearly all, which cannot be split. A new photo that
    joins two unions moves one of them to the other's side.

    Args:
        group_ids: (N,) strings.
        latitudes: (N,) degrees, NaN where unknown: in no block.
        longitudes: (N,) degrees, NaN where unknown.
        blocks_km: Edge of a block.

    Returns:
        (N,) strings: the first group, in the order of the alphabet, of all those joined.
    """
    import pandas as pd
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    from geoloc_core.geo import s2

    codes, groups = pd.factorize(np.asarray(group_ids, dtype=object), sort=True)
    latitudes, longitudes = np.asarray(latitudes, float), np.asarray(longitudes, float)
    known = np.isfinite(latitudes) & np.isfinite(longitudes)
    level = int(np.clip(np.rint(np.log2(EDGE_KM / blocks_km)), 0, 30))
    cells, blocks = pd.factorize(s2.parents(s2.leaves(latitudes[known], longitudes[known]), level))
    size = len(groups) + len(blocks)
    edges = coo_array((np.ones(len(cells), bool), (codes[known], len(groups) + cells)), shape=(size, size))
    _, unions = connected_components(edges, directed=False)
    _, first = np.unique(unions[: len(groups)], return_index=True)
    names = np.empty(size, dtype=object)
    names[unions[first]] = groups[first]
    return names[unions[codes]]


def _uniform(group: str, seed: int) -> float:
    """A number in [0, 1) that looks drawn, and is the same on every machine."""
    return int.from_bytes(blake2b(f"{seed}:{group}".encode(), digest_size=6).digest()) / 2**48
