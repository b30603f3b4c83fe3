"""Heads learn what is there to learn, and a kill changes nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoloc_core.training import loop
from geoloc_core.training.heads import UNKNOWN, Recipe, Rows, fit
from geoloc_core.training.weights import inverse_frequency


def ring(seed: int, rows: int = 600) -> Rows:
    """Two classes, one around the other: no straight line tells them apart."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 2, rows)
    radius = np.where(targets == 0, 0.5, 2.0) + rng.normal(0, 0.15, rows)
    angle = rng.uniform(0, 2 * np.pi, rows)
    return Rows(np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype(np.float16), targets)


def train(tmp_path, hidden=(), epochs=30, log=lambda metrics, step: None, validation=None, **recipe):
    chosen = Recipe(epochs=epochs, **recipe)
    return fit(
        ring(0), validation or ring(1), 2, hidden, chosen, 5, tmp_path / "c.pt", [hidden, chosen.model_dump()], log
    )


def accuracy(fitted):
    return fitted.history[fitted.best]["validation_accuracy"]


def test_hidden_layers_learn_what_a_line_cannot(tmp_path):
    assert accuracy(train(tmp_path, hidden=(32, 16), epochs=60)) > 95
    assert accuracy(train(tmp_path)) < 75


def test_the_best_epoch_is_kept_and_training_stops_early(tmp_path):
    fitted = train(tmp_path, hidden=(32, 16), epochs=500, stop_patience=4)
    scores = [epoch["validation_accuracy"] for epoch in fitted.history]
    assert len(scores) == fitted.best + 1 + 4
    assert scores[fitted.best] == max(scores)
    import torch

    held = ring(1)
    logits = fitted.net((torch.from_numpy(held.features).float() - fitted.mean) / fitted.std)
    assert 100 * (logits.argmax(1).numpy() == held.targets).mean() == pytest.approx(max(scores))


def test_the_rate_falls_on_a_plateau(tmp_path):
    rates = [epoch["lr"] for epoch in train(tmp_path, plateau_patience=1, stop_patience=30).history]
    assert rates[0] == Recipe().lr
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < rates[0]


def test_a_killed_training_ends_like_an_uninterrupted_one(tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0)

    class KilledError(Exception):
        pass

    def kill(metrics, step):
        if step == 6:
            raise KilledError

    whole = train(tmp_path / "whole", hidden=(8,), epochs=12)
    (tmp_path / "killed").mkdir()
    with pytest.raises(KilledError):
        train(tmp_path / "killed", hidden=(8,), epochs=12, log=kill)
    seen = []
    resumed = train(tmp_path / "killed", hidden=(8,), epochs=12, log=lambda metrics, step: seen.append(step))
    assert (tmp_path / "killed" / "c.pt").is_file()
    assert resumed.history == whole.history
    assert seen == list(range(12))
    for name, tensor in whole.net.state_dict().items():
        assert torch.equal(tensor, resumed.net.state_dict()[name])


def test_another_training_never_resumes_from_a_checkpoint(tmp_path):
    assert train(tmp_path, epochs=3, lr=0.1).history != train(tmp_path, epochs=3, lr=0.2).history


def test_an_unknown_class_is_a_miss_and_no_loss(tmp_path):
    held = ring(1)
    half = np.where(np.arange(len(held.targets)) % 2, UNKNOWN, held.targets)
    fitted = train(tmp_path, hidden=(32, 16), epochs=60, validation=Rows(held.features, half))
    assert 45 < accuracy(fitted) <= 50
    assert np.isfinite(fitted.history[-1]["validation_loss"])


@given(st.lists(st.integers(0, 5), min_size=1, max_size=200), st.floats(0, 1))
def test_a_smaller_power_lies_between_equal_rows_and_equal_classes(targets, power):
    rows = np.array(targets)
    weights, counts = inverse_frequency(rows, 6, power), np.bincount(rows, minlength=6)
    present = counts > 0
    np.testing.assert_allclose((weights * counts).sum(), len(rows), rtol=1e-5)
    assert (np.diff(weights[present][np.argsort(counts[present], kind="stable")]) <= 1e-6).all()
    assert np.ptp(inverse_frequency(rows, 6, 0)[present]) == 0


@given(st.lists(st.integers(0, 5), min_size=1, max_size=200))
def test_inverse_frequency_gives_every_class_the_same_say(targets):
    weights = inverse_frequency(np.array(targets), 7)
    counts = np.bincount(targets, minlength=7)
    present = counts > 0
    shares = weights[present] * counts[present]
    np.testing.assert_allclose(shares, shares[0], rtol=1e-5)
    assert (weights[~present] == 0).all()
    np.testing.assert_allclose((weights * counts).sum(), len(targets), rtol=1e-5)
