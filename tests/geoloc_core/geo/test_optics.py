"""Against scikit-learn's OPTICS: the same reachability, and from the same reachability the same clusters."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import OPTICS, cluster_optics_xi

from geoloc_core.geo import sphere
from geoloc_core.geo.optics import optics, sphere_clusters, xi_clusters


def photos(seed: int, count: int, places: int = 8) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centre, spread = rng.uniform(-20, 20, (places, 2)), rng.exponential(0.8, places) + 0.01
    at = rng.integers(0, places, count)
    degrees = centre[at] + rng.normal(size=(count, 2)) * spread[at][:, None]
    return sphere.unit_vectors(degrees[:, 0], degrees[:, 1])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("min_samples", [2, 8, 30])
def test_order_and_reachability_are_those_of_scikit_learn(seed, min_samples):
    points = photos(seed, 300)
    expected = OPTICS(min_samples=min_samples).fit(points)
    order, reachability, predecessor, core = optics(points, min_samples)
    np.testing.assert_allclose(core, expected.core_distances_, atol=1e-14)
    np.testing.assert_allclose(np.sort(reachability), np.sort(expected.reachability_), atol=1e-14)
    # A tie in the last digit may swap the order.
    assert (order == expected.ordering_).mean() > 0.9
    assert (predecessor == expected.predecessor_).mean() > 0.9


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(20, 200), st.integers(2, 10), st.sampled_from([0.005, 0.05, 0.2, 0.5]))
def test_clusters_are_those_of_scikit_learn(seed, count, min_samples, xi):
    order, reachability, predecessor, _ = optics(photos(seed, count), min_samples)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected, _ = cluster_optics_xi(
            reachability=reachability,
            predecessor=predecessor,
            ordering=order,
            min_samples=min_samples,
            min_cluster_size=min_samples + 3,
            xi=xi,
        )
    found = xi_clusters(order, reachability, predecessor, min_samples, min_samples + 3, xi)
    np.testing.assert_array_equal(found, expected)


def test_points_that_coincide_are_reached_at_once():
    points = np.repeat(photos(1, 3), 50, axis=0)
    order, reachability, _, core = optics(points, 5)
    assert sorted(order.tolist()) == list(range(150))
    assert (core == 0).all()
    assert (reachability[np.isfinite(reachability)] == 0).sum() == 147


def test_well_separated_places_are_the_clusters():
    rng = np.random.default_rng(3)
    degrees = np.repeat([[0, 0], [10, 10], [20, 0]], 60, axis=0) + rng.normal(size=(180, 2)) * 0.1
    order, reachability, predecessor, _ = optics(sphere.unit_vectors(degrees[:, 0], degrees[:, 1]), 8)
    labels = xi_clusters(order, reachability, predecessor, 8, 40, 0.05)
    found = [set(labels[part][labels[part] >= 0]) for part in (slice(0, 60), slice(60, 120), slice(120, 180))]
    assert len(set.union(*found)) == sum(map(len, found)) >= 3


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(20, 60), st.sampled_from([(3, 0.15), (10, 0.1)]), st.sampled_from([0, 175]))
def test_clusters_on_the_sphere_are_those_of_the_matrix_of_haversine_distances(seed, count, published, shift):
    """As PIGEON has it: scikit-learn's OPTICS of the precomputed matrix; also across the antimeridian."""
    min_samples, xi = published
    latitudes, longitudes = sphere.coordinates(photos(seed, count))
    longitudes = sphere.wrap(longitudes + shift)
    matrix = sphere.haversine_km(latitudes[:, None], longitudes[:, None], latitudes, longitudes)
    matrix[matrix == 0] = 1e-5
    expected = OPTICS(min_samples=min_samples, xi=xi, metric="precomputed").fit(matrix).labels_
    found = sphere_clusters(sphere.unit_vectors(latitudes, longitudes), min_samples, xi)
    np.testing.assert_array_equal(found, expected)


def test_photos_of_the_very_same_spots_are_clusters():
    """A step from nothing to something is infinitely steep; from the least distance it is steep enough."""
    spots = np.repeat(photos(4, 3), 5, axis=0)
    found = sphere_clusters(spots, 3, 0.15)
    assert [len(set(part)) for part in np.split(found, 3)] == [1, 1, 1]
    assert len(set(found) - {-1}) == 3
