"""The loop trains any network with any loss: its rows, units of several rows, its own score and schedule."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from geoloc_core.training import fitting, loop
from geoloc_core.training.features import Features
from geoloc_core.training.fitting import averages, fit_network

CPU = torch.device("cpu")


class StoppedError(Exception):
    pass


class Views(torch.nn.Module):
    """The place (latitude, longitude) of T views, by what a recurrent layer remembers; with what training changes."""

    def __init__(self, dim):
        super().__init__()
        self.recurrent, self.dropout = torch.nn.GRU(dim, 8, batch_first=True), torch.nn.Dropout(0.2)
        self.place = torch.nn.Linear(8, 2)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        self.steps += self.training
        return self.place(self.dropout(self.recurrent(x)[0][:, -1]))


FALLING = torch.optim.lr_scheduler.ExponentialLR


def stepping(optimiser, factor):
    """Down after every third epoch, as the count of epochs says, whatever the rate was before."""
    return torch.optim.lr_scheduler.LambdaLR(optimiser, lambda epoch: factor ** (epoch // 3))


def places(path, log=lambda metrics, epoch: None, schedule=FALLING, epochs=8, patience=9):
    """Train on the three views of each of 80 places; the score is an error, lower is better."""
    random = np.random.default_rng(0)
    truth = torch.from_numpy(random.normal(size=(240, 2)).astype(np.float32))
    truth = truth[torch.arange(240) // 3 * 3]
    seen = (truth.repeat(1, 3).numpy() + random.normal(0, 0.1, (240, 6))).astype(np.float16)
    features, units = Features((seen[:, :2], seen[:, 2:])), np.arange(240).reshape(80, 3)
    torch.manual_seed(0)
    net = Views(features.dim)
    optimiser = torch.optim.AdamW(net.parameters(), 0.02)
    held_out = features.on(units[60:], CPU)

    def loss(net, x, rows):
        assert x.shape == (*rows.shape, 6)
        return (net(x) - truth[rows[:, 0]]).square().mean()

    def measure(x, rows):
        return {"validation_error": ((net(x) - truth[rows[:, 0]]).norm(dim=1).mean().item(), len(rows))}

    outcome = fit_network(
        net,
        loss,
        features.on(units[:60], CPU),
        lambda: averages(held_out.in_order(7), measure),
        optimiser,
        schedule and schedule(optimiser, 0.9),
        16,
        epochs,
        patience,
        3,
        path,
        ["places"],
        log,
        score=lambda metrics: -metrics["validation_error"],
    )
    return net, outcome


def test_another_network_learns_from_units_of_several_rows(tmp_path):
    net, outcome = places(tmp_path / "c.pt", epochs=30)
    errors = [epoch["validation_error"] for epoch in outcome.history]
    assert min(errors) < errors[0] / 2
    assert errors[outcome.best] == min(errors)
    assert net.steps == 4 * (outcome.best + 1), "what the network holds is that of the best epoch"


def test_training_stops_early_by_its_own_score(tmp_path):
    _, outcome = places(tmp_path / "c.pt", epochs=300, patience=3)
    assert len(outcome.history) == outcome.best + 1 + 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("schedule", "share"),
    [(FALLING, lambda epoch: 0.9**epoch), (stepping, lambda epoch: 0.9 ** (epoch // 3)), (None, lambda epoch: 1)],
)
def test_a_killed_training_with_chance_in_it_ends_the_same(tmp_path, monkeypatch, schedule, share):
    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0)
    monkeypatch.setattr(loop, "SAVING_SHARE", float("inf"))

    def stop(metrics, epoch):
        if epoch == 4:
            raise StoppedError

    whole, outcome = places(tmp_path / "whole.pt", schedule=schedule)
    with pytest.raises(StoppedError):
        places(tmp_path / "c.pt", stop, schedule)
    assert (tmp_path / "c.pt").is_file()
    again, resumed = places(tmp_path / "c.pt", schedule=schedule)
    assert resumed == outcome
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True))
    rates = [epoch["lr"] for epoch in outcome.history]
    assert rates == pytest.approx([0.02 * share(epoch) for epoch in range(8)])


def test_averages_are_over_what_was_counted():
    batches = [(torch.zeros(2), torch.arange(2)), (torch.ones(3), torch.arange(3)), (torch.zeros(0), torch.zeros(0))]
    means = iter([(1.0, 2), (2.0, 1), (math.nan, 0)])
    found = averages(batches, lambda x, rows: {"some": next(means), "none": (math.nan, 0)})
    assert found["some"] == pytest.approx(4 / 3)
    assert math.isnan(found["none"])
    assert averages([], lambda x, rows: {}) == {}


def test_the_pace_is_the_median_of_the_epochs_photos_per_second_without_validation(tmp_path, monkeypatch):
    """Two seconds between looks at the clock: after the 60 units of 3 photos, and after validation."""
    ticks = iter(range(0, 1000, 2))
    monkeypatch.setattr(fitting, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    logged = []
    _, outcome = places(tmp_path / "c.pt", log=lambda metrics, epoch: logged.append(metrics), epochs=3)
    assert outcome.pace == fitting.Pace(seconds_per_epoch=4, photos_per_second=180 / 2)
    assert [metrics["photos_per_second"] for metrics in logged] == [90, 90, 90]
    assert fitting.Pace.of([1, 5, 2], [10, 30, 20]) == fitting.Pace(2, 20)
    assert fitting.Pace.of([], []) == fitting.Pace(None, None)


def test_the_loss_told_is_the_mean_over_units_whatever_the_batches(tmp_path):
    """Rates of zero: each epoch's loss is that of the first weights, though the last batch is smaller."""
    features = Features((np.arange(10, dtype=np.float16)[:, None],))
    net = torch.nn.Linear(1, 1)
    outcome = fit_network(
        net, lambda net, x, rows: x.mean() + 0 * net(x).sum(), features.on(np.arange(10), CPU),
        lambda: {"validation_accuracy": 1.0}, torch.optim.SGD(net.parameters(), 0.0), None, 4, 2, None, 1,
        tmp_path / "c.pt", [], lambda metrics, epoch: None,
    )  # fmt: skip
    assert [epoch["loss"] for epoch in outcome.history] == [4.5, 4.5]
    assert (outcome.best, net.training) == (0, False)
