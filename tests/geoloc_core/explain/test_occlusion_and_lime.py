"""Both find the one place that a model looks at, and compute what their papers say."""

import numpy as np
import pytest

from geoloc_core.explain.lime import RIDGE, WIDTH, lime, linear, superpixels
from geoloc_core.explain.occlusion import occlusion
from geoloc_core.explain.regions import cells, mean_colour
from tests.geoloc_core.explain.made_scores import looks_at, noise, planted


def test_occlusion_finds_the_place():
    photo, score, place = planted()
    found = occlusion(score, photo, window=2, step=1)
    assert found[place].min() > 0.2
    elsewhere = found.copy()
    elsewhere[place] = 0
    assert elsewhere[:8].max() == 0, "what is never hidden with the place loses nothing"
    assert found[place].mean() > elsewhere.max()


@pytest.mark.parametrize(("grid", "window", "step"), [(14, 4, 2), (5, 2, 2), (4, 9, 3), (7, 1, 1)])
def test_occlusion_is_the_mean_loss_of_the_windows_over_a_cell(grid, window, step):
    photo = noise(28, 35)
    score = looks_at(3, 9, 11, 13)
    regions, edge = cells(28, 35, grid), min(window, grid)
    starts = [*range(0, grid - edge, step), grid - edge]
    lost, times = np.zeros(grid * grid), np.zeros(grid * grid)
    whole = score(photo[None])[0]
    for top in starts:
        for left in starts:
            hidden = [row * grid + column for row in range(top, top + edge) for column in range(left, left + edge)]
            changed = photo.copy()
            changed[np.isin(regions, hidden)] = np.round(mean_colour(photo))
            loss = whole - score(changed[None])[0]
            lost[hidden] += loss
            times[hidden] += 1
    np.testing.assert_allclose(occlusion(score, photo, grid, window, step), (lost / times)[regions], atol=1e-12)


def test_a_photo_smaller_than_the_grid_is_explained_pixel_by_pixel():
    assert occlusion(looks_at(0, 0, 1, 1), noise(3, 5)).shape == (3, 5)


def test_lime_finds_the_planted_superpixel():
    photo, score, place = planted()
    regions = cells(56, 56, 7)
    found = lime(score, photo, regions, samples=400)
    of_region = np.array([found[regions == region][0] for region in range(49)])
    assert of_region.argmax() == regions[place][0, 0]
    others = np.delete(of_region, of_region.argmax())
    assert of_region.max() > 5 * np.abs(others).max()


def test_lime_is_the_weighted_ridge_regression_of_its_paper():
    rng = np.random.default_rng(3)
    switches, scores = rng.random((40, 6)) < 0.5, rng.random(40)
    weights = []
    for row in switches:
        cosine = row.sum() / (np.sqrt(row.sum()) * np.sqrt(6)) if row.any() else 0.0
        weights.append(np.exp(-((1 - cosine) ** 2) / WIDTH**2))
    w = np.diag(weights)
    x = np.column_stack([np.ones(40), switches.astype(float)])
    penalty = RIDGE * np.diag([0.0] + [1.0] * 6)  # the intercept is free
    expected = np.linalg.solve(x.T @ w @ x + penalty, x.T @ w @ scores)[1:]
    np.testing.assert_allclose(linear(switches, scores), expected, rtol=1e-9)


def test_superpixels_follow_the_photo_and_are_numbered_without_gaps():
    photo = np.zeros((48, 64, 3), np.uint8)
    photo[:, 32:] = 255
    found = superpixels(photo, 12)
    assert found.shape == (48, 64)
    np.testing.assert_array_equal(np.unique(found), np.arange(found.max() + 1))
    assert found.max() > 3
    assert not set(found[:, :31].ravel()) & set(found[:, 33:].ravel())


@pytest.mark.parametrize("height", [40, 200])
def test_a_grainy_photo_has_superpixels_too(height):
    assert superpixels(noise(height, height), 40).max() >= 20
