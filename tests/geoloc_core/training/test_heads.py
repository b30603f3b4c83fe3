"""Heads learn what is there to learn, and a kill changes nothing."""

import numpy as np
import pytest

from geoloc_core.errors import UserError
from geoloc_core.training import features as streaming
from geoloc_core.training import heads, loop
from geoloc_core.training.features import Features
from geoloc_core.training.heads import UNKNOWN, Recipe, fit
from geoloc_core.training.optimisers import SGD
from geoloc_core.training.schedules import Plateau

TRAINING, VALIDATION = np.arange(0, 1200, 2), np.arange(1, 1200, 2)


def ring() -> tuple[Features, np.ndarray]:
    """Two classes, one around the other, by two encoders: no straight line tells them apart."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, 1200)
    radius = np.where(targets == 0, 0.5, 2.0) + rng.normal(0, 0.15, 1200)
    angle = rng.uniform(0, 2 * np.pi, 1200)
    x, y = ((radius * of(angle)).astype(np.float16)[:, None] for of in (np.cos, np.sin))
    return Features((x, y)), targets


def train(folder, hidden=(), epochs=30, log=lambda metrics, step: None, targets=None, classes=2, budget=None, **recipe):
    chosen = Recipe(epochs=epochs, **recipe)
    features, right = ring()
    right = right if targets is None else targets
    depends = [hidden, chosen.model_dump()]
    return fit(features, right, TRAINING, VALIDATION, classes, hidden, chosen, 5, folder / "c.pt", depends, log, budget)


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

    features, targets = ring()
    logits = fitted.net((torch.from_numpy(features.take(VALIDATION)).float() - fitted.mean) / fitted.std)
    assert 100 * (logits.argmax(1).numpy() == targets[VALIDATION]).mean() == pytest.approx(max(scores))


def test_the_rate_falls_on_a_plateau(tmp_path):
    rates = [epoch["lr"] for epoch in train(tmp_path, schedule=Plateau(patience=1), stop_patience=30).history]
    assert rates[0] == Recipe().optimiser.lr
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < rates[0]


class KilledError(Exception):
    pass


@pytest.mark.parametrize("budget", [None, 600])
def test_a_killed_training_ends_like_an_uninterrupted_one(tmp_path, monkeypatch, budget):
    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0)
    monkeypatch.setattr(loop, "SAVING_SHARE", float("inf"))

    def kill(metrics, step):
        if step == 6:
            raise KilledError

    whole = train(tmp_path / "whole", hidden=(8,), epochs=12)
    with pytest.raises(KilledError):
        train(tmp_path, hidden=(8,), epochs=12, log=kill)
    assert (tmp_path / "c.pt").is_file()
    seen = []
    resumed = train(
        tmp_path, hidden=(8,), epochs=12, log=lambda metrics, step: seen.append((step, metrics)), budget=budget
    )
    assert resumed.history == whole.history
    assert [step for step, metrics in seen] == list(range(12))
    speeds = [metrics.pop("photos_per_second", None) for step, metrics in seen]
    assert [speed is None for speed in speeds] == [step <= 6 for step in range(12)], "of the epochs trained here"
    assert [metrics for step, metrics in seen] == whole.history
    assert same_weights(whole, resumed)


def same_weights(one, other):
    import torch

    weights, others = one.net.state_dict(), other.net.state_dict()
    return all(torch.equal(weights[name], others[name]) for name in weights)


@pytest.mark.parametrize("window", [2**30, 1000])
def test_how_much_memory_there_is_changes_nothing(tmp_path, monkeypatch, window):
    monkeypatch.setattr(streaming, "WINDOW", window)
    monkeypatch.setattr(streaming, "RUN", 16)
    held, read = (train(tmp_path / str(b), hidden=(8,), epochs=4, budget=b) for b in (None, 900))
    assert held.history == read.history
    assert same_weights(held, read)


def test_a_small_training_is_that_of_all_rows_in_float32(tmp_path):
    """The plain loop over standardised float32 features, to the last bit."""
    import torch
    from torch.nn.functional import cross_entropy

    features, targets = ring()
    fitted = train(tmp_path, epochs=3, weights=None)
    x, right = torch.from_numpy(features.take(TRAINING)).float(), torch.from_numpy(targets[TRAINING])
    x = (x - x.mean(0)) / x.std(0)
    torch.manual_seed(5)
    net = torch.nn.Linear(2, 2)
    optimiser = torch.optim.SGD(net.parameters(), 0.05, 0.9)
    for epoch in range(fitted.best + 1):
        for batch in torch.randperm(600, generator=torch.Generator().manual_seed(5000 + epoch)).split(128):
            optimiser.zero_grad()
            cross_entropy(net(x[batch]), right[batch]).backward()
            optimiser.step()
    assert torch.equal(fitted.net[0].weight, net.weight)
    assert torch.equal(fitted.net[0].bias, net.bias)


@pytest.mark.parametrize("limit", [{"ROWS": 7}, {"BLOCK": 15}])  # features are two numbers wide
def test_validation_in_pieces_is_validation_at_once(tmp_path, monkeypatch, limit):
    known = ring()[1]
    targets = np.where(np.isin(np.arange(1200), VALIDATION[7:100]), UNKNOWN, known)
    whole = train(tmp_path / "whole", epochs=5, targets=targets)
    for name, value in limit.items():
        monkeypatch.setattr(heads, name, value)
    pieces = train(tmp_path / "pieces", epochs=5, targets=targets)
    assert same_weights(whole, pieces)
    for one, other in zip(whole.history, pieces.history, strict=True):
        assert one == pytest.approx(other, rel=1e-5)


def test_another_training_never_resumes_from_a_checkpoint(tmp_path):
    assert (
        train(tmp_path, epochs=3, optimiser=SGD(lr=0.1)).history
        != train(tmp_path, epochs=3, optimiser=SGD(lr=0.2)).history
    )


def test_an_unknown_class_is_a_miss_and_no_loss(tmp_path):
    targets = np.where(np.arange(1200) % 4 == 1, UNKNOWN, ring()[1])
    fitted = train(tmp_path, hidden=(32, 16), epochs=60, targets=targets)
    assert 45 < accuracy(fitted) <= 50
    assert np.isfinite(fitted.history[-1]["validation_loss"])


def test_without_a_known_class_to_validate_on_nothing_is_trained(tmp_path):
    targets = np.where(np.arange(1200) % 2, UNKNOWN, ring()[1])
    with pytest.raises(UserError, match="none of the 600 validation photos is of a class that has training photos"):
        train(tmp_path, targets=targets)


def test_a_class_without_training_rows_changes_nothing(tmp_path):
    fitted = train(tmp_path, hidden=(32, 16), epochs=60, classes=7)
    assert accuracy(fitted) > 95
    assert all(np.isfinite(list(epoch.values())).all() for epoch in fitted.history)


def test_a_training_that_diverges_is_ended_with_a_reason(tmp_path):
    with pytest.raises(UserError, match=r"epoch 1: the training loss is (nan|inf), expected a number; choose a lower"):
        train(tmp_path, hidden=(8, 8), optimiser=SGD(lr=1e30))


def test_what_is_measured_of_validation_rows():
    import torch

    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 0.0]])
    found = heads.measured(logits, torch.tensor([0, 0, UNKNOWN, 1]))
    losses = [np.log(1 + np.exp(-2)), np.log(1 + np.exp(1)), np.log(2)]
    assert found["validation_loss"] == (pytest.approx(np.mean(losses)), 3)
    assert found["validation_accuracy"] == (25.0, 4), "an unknown class is a miss, and of equal logits the first counts"


def test_layers_and_their_parameters():
    import torch

    net = heads.network(4, (3, 2), 5, normalised=True)
    assert [type(layer).__name__ for layer in net] == ["BatchNorm", "Linear", "ReLU", "Linear", "ReLU", "Linear"]
    assert heads.counts(net) == {"parameters": 8 + 15 + 8 + 15, "trainable_parameters": 8 + 15 + 8 + 15}
    net[1].requires_grad_(False)
    assert heads.counts(net)["trainable_parameters"] == 8 + 8 + 15
    one = torch.tensor([[1.0, -2.0, 3.0, 0.0]])
    net[0].running_mean.copy_(torch.tensor([1.0, 0.0, 1.0, 0.0]))
    net[0].running_var.copy_(torch.tensor([1.0, 4.0, 1.0, 1.0]))
    net[0].weight.data.copy_(torch.tensor([1.0, 2.0, 1.0, 1.0]))
    net[0].bias.data.fill_(0.5)
    expected = [0.5, 0.5 - 2.0, 2.5, 0.5]
    assert net.train()[0](one)[0].tolist() == pytest.approx(expected, abs=1e-4), "one row has no spread of its own"
    assert net.eval()[0](one)[0].tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("normalise", ["standardise", "batch_norm", "none"])
@pytest.mark.parametrize("row", [TRAINING[5], VALIDATION[5]])
def test_a_feature_that_is_no_number_is_said_however_features_are_normalised(tmp_path, normalise, row):
    features, targets = ring()
    features.parts[1][row] = np.nan
    with pytest.raises(UserError, match=f"the first those of row {row}"):
        fit(features, targets, TRAINING, VALIDATION, 2, (), Recipe(epochs=1), 5, tmp_path / "c.pt", [],
            lambda metrics, step: None, normalise=normalise)  # fmt: skip


def test_without_normalisation_features_are_left_as_they_are(tmp_path):
    features, targets = ring()
    fitted = fit(features, targets, TRAINING, VALIDATION, 2, (), Recipe(epochs=1), 5, tmp_path / "c.pt", [],
                 lambda metrics, step: None, normalise="none")  # fmt: skip
    assert (fitted.mean.tolist(), fitted.std.tolist()) == ([0, 0], [1, 1])
