"""Clusters of cells and their mean features, against a group at a time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc_core.geo.optics import sphere_clusters
from geoloc_core.geo.sphere import unit_vectors
from geoloc_core.training import prototypes
from geoloc_core.training.prototypes import cluster, means


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), block=st.integers(4, 400))
def test_means_are_those_of_each_group_however_the_blocks_fall(seed, block):
    rng = np.random.default_rng(seed)
    features = rng.normal(3, 1, (90, 4)).astype(np.float16)
    starts = np.concatenate([[0], np.cumsum(rng.integers(1, 30, rng.integers(1, 8)))])
    rows = rng.integers(0, 90, starts[-1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prototypes, "BLOCK", block)
        found = means(features, rows, starts)
    for group, mean in enumerate(found):
        own = features[rows[starts[group] : starts[group + 1]]].astype(np.float64)
        np.testing.assert_allclose(mean, own.mean(axis=0), rtol=1e-3)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), cells=st.integers(1, 9))
def test_each_cell_is_clustered_by_itself(seed, cells):
    """Every point is in one cluster of its own cell or noise, and points are together as OPTICS has them."""
    rng = np.random.default_rng(seed)
    own = rng.integers(0, cells, 150)
    latitudes, longitudes = rng.normal(0, 1, 150).round(1), rng.normal(180, 1, 150).round(1)
    found = cluster(own, latitudes, longitudes, cells + 1, 4, 0.1)
    assert (found.cells[0], found.cells[-1], found.starts[-1]) == (0, len(found.starts) - 1, len(found.points))
    assert found.cells[cells] == found.cells[cells + 1], "the last cell has no point"
    label = np.full(150, -1)
    label[found.points] = np.repeat(np.arange(len(found.starts) - 1), np.diff(found.starts))
    for cell in range(cells):
        points = np.flatnonzero(own == cell)
        known = label[points]
        inside = known[known >= 0]
        assert ((found.cells[cell] <= inside) & (inside < found.cells[cell + 1])).all()
        if len(points) < 4:
            assert len(set(known.tolist())) == min(1, len(points)), "too few to cluster are one cluster"
            continue
        expected = sphere_clusters(unit_vectors(latitudes[points], longitudes[points]), 4, 0.1)
        if (expected < 0).all():
            expected[:] = 0
        np.testing.assert_array_equal(known < 0, expected < 0)
        pairs = set(zip(known[known >= 0].tolist(), expected[expected >= 0].tolist(), strict=True))
        assert len(pairs) == len(set(known[known >= 0].tolist())) == len(set(expected[expected >= 0].tolist()))


def test_the_photos_of_a_cluster_are_in_the_order_given():
    found = cluster(np.array([1, 0, 1, 0]), np.zeros(4), np.zeros(4), 2, 9, 0.1)
    assert (found.points.tolist(), found.starts.tolist()) == ([1, 3, 0, 2], [0, 2, 4])
