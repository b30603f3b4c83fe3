"""A temperature makes probabilities honest, within its bounds, whatever the validation rows are."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geoloc_core.training import calibration
from geoloc_core.training.calibration import HIGHEST, LOWEST, calibrate, expected_calibration_error, fit_temperature


def drawn(temperature, n=4000, classes=5, seed=0):
    """Logits, and classes drawn by their softmax at a temperature."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 3, (n, classes)).astype(np.float32)
    truth = (logits / temperature + random.gumbel(size=logits.shape)).argmax(axis=1)
    return logits, truth


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
    assert calibrate([(torch.from_numpy(logits), torch.from_numpy(truth))], len(truth)).ece_after < 0.02


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
    batches = [tuple(map(torch.from_numpy, padded))]
    assert calibrate(batches, 600) == calibrate([(torch.from_numpy(logits), torch.from_numpy(truth))], 300)
    nothing = calibrate([(torch.zeros(3, 2), torch.full((3,), -1))], 3)
    assert nothing == calibrate([], 0) == calibration.Calibration(1.0, None, None)


def test_of_many_rows_some_are_taken_evenly(monkeypatch):
    logits, truth = drawn(2.0, 100)
    batches = [(torch.from_numpy(logits[i : i + 7]), torch.from_numpy(truth[i : i + 7])) for i in range(0, 100, 7)]
    monkeypatch.setattr(calibration, "HELD", 125)
    monkeypatch.setattr(calibration, "LEAST", 1)
    expected = fit_temperature(logits[::4], truth[::4])
    assert calibrate(batches, 100).temperature == expected
    monkeypatch.setattr(calibration, "PIECE", 10)
    assert calibrate(batches, 100).temperature == pytest.approx(expected)


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
    found = calibrate([(torch.from_numpy(logits), torch.from_numpy(truth))], 4000)
    assert found == calibrate([(torch.from_numpy(logits[::4]), torch.from_numpy(truth[::4]))], 1000)


def test_the_error_of_the_bins_before_and_after(monkeypatch):
    logits, truth = drawn(3.0, 500)
    found = calibrate([(torch.from_numpy(logits), torch.from_numpy(truth))], 500)
    assert found.ece_before == pytest.approx(expected_calibration_error(logits, truth))
    assert found.ece_after == pytest.approx(expected_calibration_error(logits, truth, found.temperature))
    assert found.ece_before > 2 * found.ece_after
    whole = expected_calibration_error(logits, truth)
    monkeypatch.setattr(calibration, "PIECE", 12)
    assert expected_calibration_error(logits, truth) == pytest.approx(whole)
