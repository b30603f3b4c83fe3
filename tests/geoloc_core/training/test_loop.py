"""A training that was stopped anywhere ends where an uninterrupted one does."""

import math

import pytest
import torch

from geoloc_core.errors import UserError
from geoloc_core.training import loop


class Walk:
    """A state that depends on every step before, in order."""

    def __init__(self):
        self.place = 1.0

    def state_dict(self):
        return {"place": self.place}

    def load_state_dict(self, state):
        self.place = state["place"]


class StoppedError(Exception):
    pass


def train(path, stop_after=None, fingerprint="one", save_steps=2, log=lambda m, n: None):
    """Three epochs of five steps, and how many steps were run."""
    walk, run = Walk(), []

    def steps_of(epoch, first):
        for step in range(first, 5):
            if len(run) == stop_after:
                raise StoppedError
            run.append((epoch, step))
            walk.place = walk.place * 1.1 + math.sin(epoch * 5 + step)
            yield {"place": walk.place, "step": float(step)}

    history = loop.run_steps({"walk": walk}, range(3), steps_of, path, fingerprint, log, save_steps=save_steps)
    return walk.place, history, run


@pytest.mark.parametrize("stop_after", range(15))
def test_stopped_anywhere_it_ends_the_same(tmp_path, stop_after):
    place, history, run = train(tmp_path / "whole.pt")
    assert len(run) == 15
    assert [epoch["step"] for epoch in history] == [2.0, 2.0, 2.0], "an epoch's metrics are the mean of its steps"
    with pytest.raises(StoppedError):
        train(tmp_path / "c.pt", stop_after)
    logged = []
    again = train(tmp_path / "c.pt", log=lambda metrics, number: logged.append((number, metrics)))
    assert again[:2] == (place, history)
    assert logged == list(enumerate(history)), "epochs before the stop are logged again"
    lost = stop_after - (15 - len(again[2]))
    assert 0 <= lost < 2, "no more than a save's distance is run again"


def test_a_checkpoint_of_another_training_is_not_used(tmp_path):
    with pytest.raises(StoppedError):
        train(tmp_path / "c.pt", 9)
    assert len(train(tmp_path / "c.pt", fingerprint="other")[2]) == 15


def test_by_the_clock_short_trainings_are_not_saved(tmp_path):
    train(tmp_path / "c.pt", save_steps=None)
    assert not (tmp_path / "c.pt").exists()


def test_by_the_clock_every_step_may_be_saved(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0.0)
    monkeypatch.setattr(loop, "SAVING_SHARE", float("inf"))
    with pytest.raises(StoppedError):
        train(tmp_path / "c.pt", 8, save_steps=None)
    assert len(train(tmp_path / "c.pt", save_steps=None)[2]) == 7


def test_epochs_of_one_step_resume_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0.0)
    monkeypatch.setattr(loop, "SAVING_SHARE", float("inf"))

    def run(stop_after):
        walk, seen = Walk(), []

        def one_epoch(epoch):
            if len(seen) == stop_after:
                raise StoppedError
            seen.append(epoch)
            walk.place += epoch + 1
            return {"place": walk.place}

        history = loop.run_epochs({"w": walk}, range(4), one_epoch, tmp_path / "c.pt", "one", lambda m, n: None)
        return seen, [epoch["place"] for epoch in history]

    with pytest.raises(StoppedError):
        run(2)
    assert run(None) == ([2, 3], [2.0, 4.0, 7.0, 11.0])


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "garbage", "other"])
def test_a_damaged_checkpoint_is_named_and_not_gone_on_with(tmp_path, damage):
    path = tmp_path / "c.pt"
    with pytest.raises(StoppedError):
        train(path, 7)
    data = path.read_bytes()
    at = data.index(b"place") + 3
    made = {
        "empty": b"",
        "cut": data[: len(data) // 2],
        "flipped": data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :],
        "garbage": bytes(range(256)) * 8,
    }
    torch.save([1], path) if damage == "other" else path.write_bytes(made[damage])
    with pytest.raises(UserError, match=r"c.pt: damaged; delete it to start the training afresh"):
        train(path)
