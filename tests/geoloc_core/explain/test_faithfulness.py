"""Curves by hand, and what is said of a map."""

import numpy as np
import pytest

from geoloc_core.explain import regions
from geoloc_core.explain.faithfulness import Chance, Check, Curve, deletion, insertion, likeness
from geoloc_core.explain.occlusion import occlusion
from tests.geoloc_core.explain.made_scores import noise, planted


def brightest(photos):
    return photos.astype(float).max(axis=(1, 2, 3))


def test_deletion_by_hand():
    photo = np.zeros((2, 2, 3), np.uint8)
    photo[0, 1], photo[1, 0], photo[1, 1] = 40, 80, 120  # the mean colour is 60
    found = deletion(brightest, photo, regions.cells(2, 2, 2), np.array([3, 2, 0, 1]), steps=4)
    np.testing.assert_array_equal(found.shares, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_array_equal(found.scores, [120, 80, 60, 60, 60])
    assert found.area == pytest.approx((120 + 80) / 8 + (80 + 60) / 8 + 60 / 4 + 60 / 4)


def test_insertion_begins_blurred_and_ends_with_the_photo():
    photo = noise(20, 20)
    seen = []

    def score(photos):
        seen.extend(photos)
        return brightest(photos)

    found = insertion(score, photo, regions.cells(20, 20, 2), np.array([1, 0, 3, 2]), steps=2)
    np.testing.assert_array_equal(found.shares, [0, 0.5, 1])
    np.testing.assert_array_equal(seen[0], regions.blurred(photo))
    np.testing.assert_array_equal(seen[1][:10], photo[:10])
    np.testing.assert_array_equal(seen[1][10:], regions.blurred(photo)[10:])
    np.testing.assert_array_equal(seen[2], photo)


def test_more_steps_than_regions_are_one_for_each():
    found = deletion(brightest, noise(4, 4), regions.cells(4, 4, 2), np.arange(4), steps=50)
    np.testing.assert_array_equal(found.shares, [0, 0.25, 0.5, 0.75, 1])


def test_the_marked_cells_lower_the_score_faster_than_every_random_order():
    photo, score, _ = planted()
    grid = regions.cells(56, 56, 14)
    order = regions.order(regions.means(occlusion(score, photo), grid), 0)
    chance = Chance.of(score, photo, grid, seed=1)
    check = Check(deletion(score, photo, grid, order), insertion(score, photo, grid, order), chance, 0.0)
    assert check.doubts == []
    assert check.verdict.startswith("This map can be relied on")
    upside_down = deletion(score, photo, grid, order[::-1])
    assert upside_down.area > max(curve.area for curve in chance.deletions)


def flat(area):
    return Curve(np.array([0.0, 1.0]), np.array([area, area]))


@pytest.mark.parametrize(
    ("deleted", "inserted", "alike", "doubts"),
    [
        (0.1, 0.9, 0.0, 0),
        (0.3, 0.9, 0.0, 1),
        (0.5, 0.9, 0.0, 1),
        (0.1, 0.7, 0.0, 1),
        (0.1, 0.9, 0.6, 1),
        (0.1, 0.9, -0.6, 1),
        (0.1, 0.9, None, 1),
        (0.1, 0.9, float("nan"), 1),
        (0.9, 0.1, 0.9, 3),
    ],
)
def test_a_map_is_doubted_for_each_check_that_it_fails(deleted, inserted, alike, doubts):
    chance = Chance([flat(0.3), flat(0.5)], [flat(0.5), flat(0.7)])
    check = Check(flat(deleted), flat(inserted), chance, alike)
    assert len(check.doubts) == doubts
    assert check.verdict.startswith("Do not rely" if doubts else "This map can be relied on")


def test_likeness_is_of_ranks_and_0_where_there_are_none():
    values = np.array([0.0, 1.0, 2.0, 30.0])
    assert likeness(values, values**3) == pytest.approx(1)
    assert likeness(values, -values) == pytest.approx(-1)
    assert likeness(values, np.ones(4)) == 0
