"""A training that was stopped anywhere ends where an uninterrupted one does."""

import math
from types import SimpleNamespace

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


@pytest.mark.parametrize(("stop_after", "left"), [(1, 15), (2, 13), (3, 13), (4, 11), (5, 10), (6, 10), (7, 8)])
def test_it_is_saved_after_every_second_step_and_every_epoch(tmp_path, stop_after, left):
    with pytest.raises(StoppedError):
        train(tmp_path / "c.pt", stop_after)
    assert len(train(tmp_path / "c.pt")[2]) == left


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


def test_by_the_clock_a_save_waits_ten_seconds_and_for_twenty_times_what_the_last_one_cost(tmp_path, monkeypatch):
    """A step takes a second and a save two: after 10 s, then 40 s after each save."""
    now, saves = [0.0], []

    def save(path, fingerprint, state):
        saves.append((now[0], state))
        now[0] += 2

    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(loop.checkpoints, "save", save)
    saver = loop._Saver(tmp_path / "c.pt", "one", {"walk": Walk()}, None, saved=0.0)
    so_far = loop._SoFar()
    for _ in range(100):
        now[0] += 1
        so_far.add({"loss": 2.0})
        saver.after_step([{"loss": 9.0}], so_far)
    assert [at for at, _ in saves] == [10, 52, 94]
    assert saves[1][1] == {"history": [{"loss": 9.0}], "steps": 50, "sums": {"loss": 100.0}, "walk": {"place": 1.0}}
    now[0] += 40
    saver.after_epoch([{"loss": 9.0}, {"loss": 1.0}])
    assert saves[-1][1] == {"history": [{"loss": 9.0}, {"loss": 1.0}], "steps": 0, "sums": {}, "walk": {"place": 1.0}}
    assert len(saves) == 4


def test_a_process_that_does_not_save_leaves_no_checkpoint(tmp_path):
    arguments = {"w": Walk()}, range(2), lambda epoch, first: iter([{"a": 1.0}]), tmp_path / "c.pt", "one"
    told = []
    history = loop.run_steps(
        *arguments, lambda m, n: told.append(n), save_steps=1, saves=False, finish=lambda epoch: {"number": epoch}
    )
    assert history == [{"a": 1.0, "number": 0}, {"a": 1.0, "number": 1}]
    assert told == [0, 1]
    assert not (tmp_path / "c.pt").exists()


def test_stop_is_asked_after_each_epoch_and_never_before_the_first(tmp_path):
    asked = []

    def stop(history):
        asked.append(len(history))
        return len(history) == 2

    history = loop.run_epochs({}, range(9), lambda n: {"n": n}, tmp_path / "c.pt", "one", lambda m, n: None, stop)
    assert history == [{"n": 0}, {"n": 1}]
    assert asked == [1, 2]
