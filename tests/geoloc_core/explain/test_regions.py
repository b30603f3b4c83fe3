"""Cells, hidden photos, and in which order regions are taken."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from geoloc_core.explain import regions
from tests.geoloc_core.explain.made_scores import noise

EDGES = st.integers(1, 40)


@given(EDGES, EDGES, st.integers(1, 20))
def test_cells_cover_a_photo_without_gaps_and_nearly_alike(height, width, count):
    found = regions.cells(height, width, count)
    assert found.shape == (height, width)
    np.testing.assert_array_equal(np.unique(found), np.arange(min(count, height) * min(count, width)))
    for edge in (found[:, 0], found[0]):
        sizes = np.unique(edge, return_counts=True)[1]
        assert sizes.max() - sizes.min() <= 1
        assert (np.diff(edge) >= 0).all()
    np.testing.assert_array_equal(found, found[:, :1] + found[:1])


def test_what_is_hidden_has_the_fill_and_what_is_left_its_own_pixels():
    photo, grid = noise(8, 8), regions.cells(8, 8, 2)
    keep = np.array([[True, False, True, True], [False, False, False, False]] * 40)
    seen = []

    def score(photos):
        seen.append(photos)
        return photos.astype(float).sum(axis=(1, 2, 3))

    found = regions.scores_of(score, photo, np.array([1.0, 2.4, 254.6]), grid, keep)
    assert max(map(len, seen)) <= regions.AT_ONCE
    shown = np.concatenate(seen)
    expected = photo.copy()
    expected[:4, 4:] = (1, 2, 255)
    np.testing.assert_array_equal(shown[::2], np.broadcast_to(expected, (40, 8, 8, 3)))
    np.testing.assert_array_equal(shown[1], np.broadcast_to(np.array([1, 2, 255], np.uint8), (8, 8, 3)))
    np.testing.assert_array_equal(found, shown.astype(float).sum(axis=(1, 2, 3)))


def test_the_mean_of_each_region():
    values = np.arange(16.0).reshape(4, 4)
    np.testing.assert_allclose(regions.means(values, regions.cells(4, 4, 2)), [2.5, 4.5, 10.5, 12.5])


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30), st.integers(0, 99))
def test_higher_values_come_first(values, seed):
    found = regions.order(np.array(values, float), seed)
    assert sorted(found) == list(range(len(values)))
    assert (np.diff(np.array(values)[found]) <= 0).all()


def test_equal_values_come_in_an_order_of_chance():
    flat = np.full(64, 0.1) + np.linspace(0, 1e-14, 64)  # but for rounding
    one, other = (regions.order(flat, seed) for seed in (0, 1))
    assert one.tolist() != other.tolist()
    assert one.tolist() != list(range(64))
    assert one.tolist() == regions.order(flat, 0).tolist()


def test_a_blurred_photo_keeps_its_mean_and_loses_its_detail():
    photo = noise(60, 80)
    found = regions.blurred(photo)
    assert found.shape == photo.shape
    assert abs(found.mean() - photo.mean()) < 3
    assert found.std() < photo.std() / 5
