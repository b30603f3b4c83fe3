"""A temperature makes probabilities honest, within its bounds, whatever the validation rows are."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geoloc_core.training import calibration
from geoloc_core.training.calibration import (
    HIGHEST,
    LOWEST,
    calibrate,
    expected_calibration_error,
    fit_temperature,
    halves,
)


def drawn(temperature, n=4000, classes=5, seed=0):
    """Logits, and classes drawn by their softmax at a temperature."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 3, (n, classes)).astype(np.float32)
    truth = (logits / temperature + random.gumbel(size=logits.shape)).argmax(axis=1)
    return logits, truth


def whole(logits, truth, groups=None):
    """All rows as one batch, each of a group of its own where none are given."""
    groups = np.arange(len(truth)) if groups is None else groups
    return [(torch.from_numpy(logits), torch.from_numpy(truth), groups)]


def loss(logits, truth, temperature):
    """Mean negative log-likelihood, in float64."""
    z = logits.astype(np.float64) / temperature
    return np.mean(np.log(np.exp(z).sum(axis=1)) - np.take_along_axis(z, truth[:, None], axis=1)[:, 0])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_classes_were_drawn_at_is_found(temperature):
    logits, truth = drawn(temperature)
    found = fit_temperature(logits, truth)
    assert found == pytest.approx(temperature, rel=0.06)
    grid = [loss(logits, truth, found * factor) for factor in (0.98, 1, 1.02)]
    assert grid[1] == min(grid), "the least loss"
    assert calibrate(whole(logits, truth), len(truth), 1).ece_after < 0.02


@given(st.integers(0, 2**32), st.integers(1, 9), st.integers(1, 5), st.floats(0, 1e4))
def test_few_rows_of_any_kind_leave_it_within_its_bounds(seed, n, classes, scale):
    random = np.random.default_rng(seed)
    logits = (scale * random.normal(size=(n, classes))).astype(np.float32)
    truth = random.integers(0, classes, n)
    found = fit_temperature(logits, truth)
    assert LOWEST <= found <= HIGHEST
    for other in (LOWEST, 1, HIGHEST):
        assert mean_loss(logits, truth, found) <= mean_loss(logits, truth, other) + 1e-6


def mean_loss(logits, truth, temperature):
    z = logits.astype(np.float64) / temperature
    z -= z.max(axis=1, keepdims=True)
    return np.mean(np.log(np.exp(z).sum(axis=1)) - np.take_along_axis(z, truth[:, None], axis=1)[:, 0])


def test_where_nothing_or_everything_is_right():
    logits, _ = drawn(1.0, 50)
    assert fit_temperature(logits, logits.argmax(axis=1)) == LOWEST
    assert fit_temperature(logits, logits.argmin(axis=1)) == HIGHEST
    assert fit_temperature(logits[:, :1], np.zeros(50, np.int64)) == 1, "one class"
    assert fit_temperature(np.zeros((3, 4), np.float32), np.arange(3)) == 1, "equal logits"
    assert fit_temperature(np.empty((0, 4), np.float32), np.empty(0, np.int64)) == 1


def test_rows_of_no_known_class_say_nothing():
    logits, truth = drawn(2.0, 300)
    padded = np.concatenate([logits, logits]), np.concatenate([truth, np.full(300, -1)])
    assert calibrate(whole(*padded), 600, 1) == calibrate(whole(logits, truth), 300, 1)
    nothing = calibrate(whole(np.zeros((3, 2), np.float32), np.full(3, -1)), 3, 1)
    assert nothing == calibrate([], 0, 1) == calibration.Calibration(1.0, None, None)


def test_of_many_rows_some_are_taken_evenly(monkeypatch):
    logits, truth = drawn(2.0, 100)
    groups = np.arange(100) // 4
    batches = [part for i in range(0, 100, 7) for part in whole(*(x[i : i + 7] for x in (logits, truth, groups)))]
    monkeypatch.setattr(calibration, "HELD", 125)
    monkeypatch.setattr(calibration, "LEAST", 1)
    expected = fit_temperature(logits[::4], truth[::4])
    some = calibrate(whole(logits[::4], truth[::4], groups[::4]), 25, 1)
    assert calibrate(batches, 100, 1) == some, "each row with its own class and group"
    assert calibrate(batches, 100, 1).temperature == expected
    monkeypatch.setattr(calibration, "BLOCK", 10)
    assert calibrate(batches, 100, 1).temperature == pytest.approx(expected)


def test_the_error_is_measured_on_rows_that_had_no_part_in_the_temperature():
    """Half of the photographers are sure and wrong, half sure and right: the one half says nothing for the other."""
    logits = np.tile(np.array([[4.0, 0.0]], np.float32), (400, 1))
    groups = np.repeat(np.arange(2), 200)
    truth = groups.copy()
    truth[::10] = 1 - truth[::10]
    found = calibrate(whole(logits, truth, groups), 400, 1)
    of_each = [fit_temperature(logits[groups == g], truth[groups == g]) for g in (0, 1)]
    apart = [expected_calibration_error(logits[groups == g], truth[groups == g], of_each[1 - g]) for g in (0, 1)]
    assert found.temperature == fit_temperature(logits, truth) == HIGHEST
    assert found.ece_before == expected_calibration_error(logits, truth)
    assert found.ece_after == pytest.approx(np.mean(apart), abs=1e-6)
    assert found.ece_after > 0.25 > expected_calibration_error(logits, truth, found.temperature) + 0.1


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(0, 2**32))
def test_halves_are_of_whole_groups_and_differ_by_the_largest_at_most(drawn_groups, seed):
    groups = np.array(drawn_groups, np.int64)
    first = halves(groups, seed)
    assert (first == halves(groups, seed)).all()
    counts = np.unique(groups, return_counts=True)[1]
    if len(counts) == 1:
        assert abs(int(first.sum()) - int((~first).sum())) <= 1, "row by row"
        return
    assert not set(groups[first]) & set(groups[~first])
    assert first.any()
    assert not first.all()
    assert abs(int(first.sum()) - int((~first).sum())) <= counts.max()


def test_the_largest_and_the_smallest_of_four_groups_are_one_half():
    groups = np.repeat(np.arange(4), [4, 1, 2, 3])
    first = halves(groups, 1)
    assert set(groups[first]) == {0, 1}
    assert first.sum() == (~first).sum() == 5


def test_another_seed_makes_other_halves():
    assert not (halves(np.arange(50), 1) == halves(np.arange(50), 2)).all()


def test_the_expected_calibration_error_is_that_of_its_bins():
    """Three rows at 0.9, of which one is right, and one at 0.6 that is right."""
    logits = np.log(np.array([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.4, 0.6]]))
    truth = np.array([0, 1, 0, 1])
    assert expected_calibration_error(logits, truth) == pytest.approx(3 / 4 * (0.9 - 1 / 3) + 1 / 4 * (1 - 0.6))
    assert expected_calibration_error(logits, truth, bins=1) == pytest.approx(abs((3 * 0.9 + 0.6) / 4 - 2 / 4))


def test_the_highest_confidence_belongs_to_the_last_bin():
    assert expected_calibration_error(np.array([[100.0, 0.0]]), np.array([0])) == pytest.approx(0)
    assert expected_calibration_error(np.array([[100.0, 0.0]]), np.array([1])) == pytest.approx(1)


def test_its_constants_are_those_that_are_stated():
    assert (LOWEST, HIGHEST, calibration.BINS) == (0.1, 10, 15)
    assert (calibration.HELD * 4, calibration.LEAST) == (16 * 2**20, 1000)


def test_of_few_classes_a_thousand_rows_are_looked_at_all_the_same(monkeypatch):
    logits, truth = drawn(2.0, 4000)
    monkeypatch.setattr(calibration, "HELD", 10)
    rows = np.arange(4000)
    found = calibrate([(torch.from_numpy(logits), torch.from_numpy(truth), rows)], 4000, 1)
    assert found == calibrate([(torch.from_numpy(logits[::4]), torch.from_numpy(truth[::4]), rows[::4])], 1000, 1)


def test_the_error_of_the_bins_before_and_after(monkeypatch):
    logits, truth = drawn(3.0, 500)
    found = calibrate([(torch.from_numpy(logits), torch.from_numpy(truth), np.arange(500))], 500, 1)
    assert found.ece_before == pytest.approx(expected_calibration_error(logits, truth))
    assert found.ece_before > 2 * found.ece_after
    whole = expected_calibration_error(logits, truth)
    monkeypatch.setattr(calibration, "BLOCK", 12)
    assert expected_calibration_error(logits, truth) == pytest.approx(whole)
