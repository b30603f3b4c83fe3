"""The nearest features, however many there are."""

import numpy as np
import pytest

from geoloc_core.explain import neighbours
from geoloc_core.explain.neighbours import nearest


@pytest.mark.parametrize("at_once", [7, 1000])
def test_the_nearest_are_those_of_a_full_search_in_float64(monkeypatch, at_once):
    monkeypatch.setattr(neighbours, "ROWS", at_once)
    rng = np.random.default_rng(0)
    known = [rng.normal(size=(50, 8)).astype(np.float16), rng.normal(size=(50, 3)).astype(np.float16)]
    asked = [rng.normal(size=(4, 8)).astype(np.float32), rng.normal(size=(4, 3)).astype(np.float32)]
    rows = np.flatnonzero(rng.random(50) < 0.7)
    expected = np.zeros((4, 50))
    for query, values in zip(asked, known, strict=True):
        q, v = query.astype(float), values.astype(float)
        expected += (q / np.linalg.norm(q, axis=1)[:, None]) @ (v / np.linalg.norm(v, axis=1)[:, None]).T / 2
    found, cosine = nearest(asked, known, rows, 5)
    for photo in range(4):
        best = rows[np.argsort(-expected[photo, rows])][:5]
        np.testing.assert_array_equal(found[photo], best)
        np.testing.assert_allclose(cosine[photo], expected[photo, best], atol=1e-5)


def test_features_that_are_no_numbers_are_never_found():
    known = np.array([[np.nan, 0], [1, 0], [0.9, 0.1]], np.float16)
    found, _ = nearest([np.array([[1.0, 0.0]])], [known], np.arange(3), 2)
    assert found.tolist() == [[1, 2]]


def test_there_are_no_more_than_are_searched():
    found, _ = nearest([np.ones((2, 2))], [np.ones((9, 2))], np.array([4, 7]), 5)
    assert found.tolist() == [[4, 7], [4, 7]]
