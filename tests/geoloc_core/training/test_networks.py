"""Whole networks learn from photos: in parts, after a kill, in several processes, they end as in one go."""

import itertools
import math
import os
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from geoloc_core.corpora import manifest
from geoloc_core.errors import UserError
from geoloc_core.training import loop, networks
from geoloc_core.training.recipe import NetworkRecipe
from geoloc_core.training.schedules import Constant, Cosine, MultiStep

from ...conftest import ROOT
from . import trained_networks as small


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("photos") / "colours"
    small.corpus(found)
    return found


@pytest.fixture(autouse=True)
def one_thread():
    """Networks this small are slower on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def always_saves(monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0.0)
    monkeypatch.setattr(loop, "SAVING_SHARE", float("inf"))


def weights(net) -> torch.Tensor:
    return torch.cat([tensor.double().flatten() for tensor in net.state_dict().values()])


class StoppedError(Exception):
    pass


def stopped_after(calls):
    left = [calls]

    def wrap(loss):
        def counted(net, x, rows):
            if not left[0]:
                raise StoppedError
            left[0] -= 1
            return loss(net, x, rows)

        return counted

    return wrap


def test_a_network_learns_and_ends_with_its_best_epoch(folder, tmp_path):
    logged = []
    net, outcome = small.train(
        folder,
        tmp_path / "c.pt",
        epochs=6,
        optimiser={"kind": "adamw", "lr": 0.01},
        log=lambda metrics, number: logged.append((number, metrics)),
    )
    assert logged == list(enumerate(outcome.history))
    scores = [epoch["validation_accuracy"] for epoch in outcome.history]
    assert scores[outcome.best] == max(scores) == 1.0
    assert outcome.history[-1]["loss"] < outcome.history[0]["loss"] / 2
    assert not net.training
    size = sum(parameter.numel() for parameter in net.parameters())
    assert outcome.figures["parameters"] == outcome.figures["trainable_parameters"] == size
    assert outcome.figures["photos_per_second"] > 0
    assert outcome.figures["seconds_per_epoch"] > 0


def test_the_weights_kept_are_those_of_the_best_epoch_and_training_stops_early(folder, tmp_path):
    worse = itertools.count()
    net, outcome = small.train(
        folder,
        tmp_path / "a.pt",
        measure=lambda x, rows: {"validation_accuracy": (-next(worse), 1)},
        epochs=9,
        stop_patience=2,
    )
    assert outcome.best == 0
    assert len(outcome.history) == 3
    first, _ = small.train(folder, tmp_path / "b.pt", epochs=1)
    assert torch.equal(weights(net), weights(first))


def test_the_loss_of_an_epoch_is_the_mean_of_its_steps(folder, tmp_path):
    seen = []

    def noted(loss):
        def called(net, x, rows):
            value = loss(net, x, rows)
            seen.append(value.item())
            return value

        return called

    _, outcome = small.train(folder, tmp_path / "a.pt", wrap=noted)
    steps = np.reshape(seen, (len(outcome.history), -1))
    assert [epoch["loss"] for epoch in outcome.history] == pytest.approx(steps.mean(axis=1))


@pytest.mark.slow
@pytest.mark.parametrize(("cache_gb", "dropout"), [(1.0, 0.3), (0.0, 0.0)])
def test_stopped_in_the_midst_of_an_epoch_it_ends_the_same(folder, tmp_path, always_saves, cache_gb, dropout):
    """With batch normalisation, dropout, momentum and a schedule: all that has a state."""
    given = {"schedule": {"kind": "cosine"}, "warmup": 0.2, "cache_gb": cache_gb, "micro_batch": 5}
    given |= {"optimiser": {"kind": "sgd", "lr": 0.003, "weight_decay": 1e-3}}

    def net():
        torch.manual_seed(1)
        return small.Net(norm=True, dropout=dropout)

    whole, outcome = small.train(folder, tmp_path / "whole.pt", net(), **given)
    for calls in (17, 9):
        with pytest.raises(StoppedError):
            small.train(folder, tmp_path / "c.pt", net(), wrap=stopped_after(calls), **given)
    again, resumed = small.train(folder, tmp_path / "c.pt", net(), **given)
    assert resumed == outcome
    assert torch.equal(weights(whole), weights(again))


@pytest.mark.parametrize("micro", [1, 3, 4])
def test_in_parts_a_step_is_that_of_the_whole_batch(folder, tmp_path, micro):
    """A part's augmentation is that of its photos in the whole batch."""
    whole, one = small.train(folder, tmp_path / "a.pt", augment="wide_crop", flip=True)
    parts, other = small.train(folder, tmp_path / "b.pt", augment="wide_crop", flip=True, micro_batch=micro)
    torch.testing.assert_close(weights(whole), weights(parts), rtol=1e-4, atol=1e-5)
    assert [epoch["loss"] for epoch in one.history] == pytest.approx([epoch["loss"] for epoch in other.history], 1e-4)


def test_where_memory_runs_out_the_micro_batch_is_halved_and_the_batch_stays(folder, tmp_path, capsys):
    sizes = []
    plain, _ = small.train(folder, tmp_path / "a.pt", micro_batch=2)
    net, _ = small.train(folder, tmp_path / "b.pt", wrap=small.no_room_for(3, sizes))
    assert sizes[:3] == [8, 4, 2]
    assert set(sizes[2:]) == {2}
    assert len(sizes) == 2 + 3 * 6 * 4, "no step is lost"
    assert torch.equal(weights(plain), weights(net))
    assert capsys.readouterr().err.splitlines() == [
        "out of memory with 8 photos at once; continuing with 4, whose gradients add up to the same batch of 8",
        "out of memory with 4 photos at once; continuing with 2, whose gradients add up to the same batch of 8",
    ]


def test_a_step_that_ran_out_of_memory_leaves_no_trace_in_the_statistics(folder, tmp_path):
    def net():
        torch.manual_seed(1)
        return small.Net(norm=True)

    plain, _ = small.train(folder, tmp_path / "a.pt", net(), micro_batch=4, epochs=1)
    other, _ = small.train(folder, tmp_path / "b.pt", net(), wrap=small.no_room_for(5, []), epochs=1)
    assert torch.equal(weights(plain), weights(other))


def test_not_even_one_photo_is_said(folder, tmp_path):
    with pytest.raises(UserError, match="out of memory with one photo; choose a smaller network, or freeze more of it"):
        small.train(folder, tmp_path / "a.pt", wrap=small.no_room_for(1, []))


def test_another_error_is_not_taken_for_a_lack_of_memory(folder, tmp_path):
    with pytest.raises(StoppedError):
        small.train(folder, tmp_path / "a.pt", wrap=stopped_after(2))


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_a_loss_that_is_no_number_is_said(folder, tmp_path, clip_norm):
    def wrap(loss):
        return lambda net, x, rows: loss(net, x, rows) * math.nan

    with pytest.raises(
        UserError, match=r"epoch 1, step 1: the training loss is nan, expected a number; choose a lower"
    ):
        small.train(folder, tmp_path / "a.pt", wrap=wrap, clip_norm=clip_norm)


def test_a_network_is_compiled_for_a_gpu_alone(folder, tmp_path, monkeypatch):
    def fail(net):
        raise AssertionError("compiled")

    monkeypatch.setattr(torch, "compile", fail)
    _, outcome = small.train(folder, tmp_path / "a.pt", compile=True, epochs=1)
    assert len(outcome.history) == 1


def test_what_is_frozen_stays_with_its_statistics(folder, tmp_path):
    net = small.Net(norm=True)
    net.trunk.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    _, outcome = small.train(folder, tmp_path / "a.pt", net, epochs=1)
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name]) == name.startswith("trunk."), name
    assert outcome.figures["trainable_parameters"] == 32 * 3 + 3


def test_fewer_photos_than_a_batch_are_one_batch(folder, tmp_path):
    sizes = []
    small.train(folder, tmp_path / "a.pt", wrap=small.no_room_for(99, sizes), training=small.TRAINING[:5], epochs=2)
    assert sizes == [5, 5]


def test_photos_of_a_damaged_shard_end_the_training_with_a_line(tmp_path):
    small.corpus(tmp_path / "colours")
    shard = manifest.shards(tmp_path / "colours")[1]
    shard.write_bytes(shard.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"00001.parquet: [^\n]+$"):
        small.train(tmp_path / "colours", tmp_path / "a.pt", cache_gb=0.0)


def run(folder, out, *options, processes=1, check=True):
    out.mkdir(exist_ok=True)
    module = "tests.geoloc_core.training.trained_networks"
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(start if processes > 1 else []), "-m", module, str(folder), str(out), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, check=check, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_a_killed_process_and_the_next_one_end_as_one_that_ran_through(folder, tmp_path):
    run(folder, tmp_path / "whole")
    killed = run(folder, tmp_path / "killed", "25", check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "rank0.pt").exists()
    run(folder, tmp_path / "killed")
    whole, again = (torch.load(tmp_path / name / "rank0.pt") for name in ("whole", "killed"))
    assert whole["history"] == again["history"]
    assert all(torch.equal(whole["net"][name], again["net"][name]) for name in whole["net"])


@pytest.mark.slow
def test_two_processes_end_as_one_with_the_same_batch(folder, tmp_path):
    """Also beside a checkpoint of another training, and where the memory of one holds fewer photos than the other's."""
    (tmp_path / "two").mkdir()
    torch.save({"fingerprint": "another", "state": {}}, tmp_path / "two" / "checkpoint.pt")
    shutil.copytree(folder, tmp_path / "fresh" / "colours")  # of which nothing is scaled yet
    run(folder, tmp_path / "one")
    told = run(tmp_path / "fresh" / "colours", tmp_path / "two", "tight", processes=2)
    assert told.stderr.count("out of memory with 3 photos at once; continuing with 1") == 1
    one = torch.load(tmp_path / "one" / "rank0.pt")
    two, other = (torch.load(tmp_path / "two" / f"rank{rank}.pt") for rank in (0, 1))
    for name, tensor in one["net"].items():
        torch.testing.assert_close(tensor, two["net"][name], rtol=1e-4, atol=1e-5)
        assert torch.equal(two["net"][name], other["net"][name]), "both end with the same"
    assert two["history"] == other["history"]
    for epoch, same in zip(one["history"], two["history"], strict=True):
        assert same == pytest.approx(epoch, rel=1e-4)
    assert one["logged"] == two["logged"] == [0, 1, 2]
    assert other["logged"] == [], "one process alone logs"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"micro_batch": 9, "batch": 8}, "micro_batch 9 is larger than batch 8"),
        ({"schedule": {"kind": "plateau"}}, "Input tag 'plateau' found using 'kind' does not match"),
        ({"freeze": -1}, "greater than or equal to 0"),
        ({"momentun": 0.9}, "Extra inputs"),
    ],
)
def test_recipes_that_do_not_fit_together_are_refused(given, reason):
    with pytest.raises(ValueError, match=reason):
        NetworkRecipe.model_validate(given)


def test_rates_rise_and_fall_by_the_recipe():
    steps = NetworkRecipe(schedule=MultiStep(milestones=(2, 3)), epochs=4, warmup=0.25)
    assert [steps.rate_at(step, 2) for step in range(8)] == [0.5, 1, 1, 1, 0.5, 0.5, 0.25, 0.25]
    cosine = NetworkRecipe(schedule=Cosine(), epochs=4)
    assert [cosine.rate_at(step, 1) for step in range(4)] == pytest.approx([1, 0.8536, 0.5, 0.1464], abs=1e-4)
    assert {NetworkRecipe(schedule=Constant(), epochs=9).rate_at(step, 3) for step in range(27)} == {1.0}


def recipe_of(optimiser):
    return NetworkRecipe.model_validate({"optimiser": optimiser})


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_parts_have_rates_of_their_own(folder, tmp_path, kind):
    logged = []
    small.train(
        folder, tmp_path / "a.pt", epochs=1,
        optimiser={"kind": kind, "lr": 0.003, "rates": {"trunk": 1e-4}, "weight_decay": 0.1},
        log=lambda metrics, number: logged.append(metrics),
    )  # fmt: skip
    assert logged[0]["lr"] == pytest.approx(0.003)
    assert logged[0]["lr_trunk"] == pytest.approx(1e-4)


def test_only_matrices_decay_with_adamw_and_all_with_sgd():
    for kind, expected in (("adamw", {0.1: 2, 0.0: 4}), ("sgd", {0.1: 6})):
        optimiser, _ = small.optimise(recipe_of({"kind": kind, "lr": 1.0, "weight_decay": 0.1}), small.Net(), 3)
        found = {group["weight_decay"]: len(group["params"]) for group in optimiser.param_groups}
        assert found == expected


def test_a_schedule_knows_the_steps_of_an_epoch(folder, tmp_path, monkeypatch):
    asked = []
    made = small.optimise
    monkeypatch.setattr(small, "optimise", lambda recipe, net, steps: asked.append(steps) or made(recipe, net, steps))
    small.train(folder, tmp_path / "a.pt", training=small.TRAINING[:30], epochs=1)
    assert [(steps, type(steps)) for steps in asked] == [(30 // small.PLAIN["batch"], int)]
    assert 30 % small.PLAIN["batch"]


def test_a_part_that_is_none_and_nothing_to_train_are_said():
    with pytest.raises(UserError, match=r"rates: trunc: not a part of the network; expected one of trunk, head"):
        small.optimise(recipe_of({"kind": "sgd", "lr": 1.0, "rates": {"trunc": 0.1}}), small.Net(), 3)
    with pytest.raises(UserError, match=r"freeze: all_but_last: leaves nothing of the network to train"):
        small.optimise(NetworkRecipe(freeze="all_but_last"), small.Net().requires_grad_(False), 3)


def test_what_is_called_is_the_network_alone(folder, tmp_path):
    """A loss may hand its network more than photos."""

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = small.Net()

        def forward(self, x, other=None):
            return self.inner(x) + (0 if other is None else other)

    def wrap(loss):
        return lambda net, x, rows: loss(lambda photos: net(photos, torch.zeros(len(rows), 3)), x, rows)

    _, outcome = small.train(folder, tmp_path / "a.pt", Two(), wrap=wrap, epochs=1)
    assert len(outcome.history) == 1


def test_the_clock_tells_training_from_validation_and_goes_on_after_a_kill(monkeypatch):
    ticks = iter([0, 3, 8, 10, 100, 104, 110])
    monkeypatch.setattr(networks, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    clock = networks._Clock()
    clock.start()  # at 0
    clock.trained(30)  # at 3
    clock.trained(0)  # at 8
    clock.finished()  # at 10: two seconds of validation
    assert clock.figures() == {"seconds_per_epoch": 10, "photos_per_second": round(30 / 8, 1)}
    again = networks._Clock()
    again.load_state_dict(clock.state_dict())
    assert again.figures() == clock.figures()
    again.start()  # at 100
    again.trained(50)  # at 104
    again.finished()  # at 110
    assert again.figures() == {"seconds_per_epoch": 10, "photos_per_second": round(80 / 12, 1)}
    assert networks._Clock().figures() == {"seconds_per_epoch": 0, "photos_per_second": 0}


def test_the_checkpoint_of_other_rows_is_another_one():
    rows = np.arange(3)
    assert networks._of_rows(rows) != networks._of_rows(np.array([0, 1, 3]))
    assert networks._of_rows(rows.astype(np.int32)) == networks._of_rows(rows)


def test_gradients_are_clipped_by_their_common_norm(folder, tmp_path):
    """One step of SGD at a rate of 1 moves the weights by the clipped gradient."""
    given = {"epochs": 1, "training": small.TRAINING[:8], "optimiser": {"kind": "sgd", "lr": 1.0, "momentum": 0}}

    def moved(**more):
        torch.manual_seed(1)
        net = small.Net()
        before = weights(net)
        small.train(folder, tmp_path / f"{len(more)}.pt", net, **given, **more)
        return weights(net) - before

    whole, clipped = moved(), moved(clip_norm=0.01)
    assert whole.norm() > 0.02
    torch.testing.assert_close(clipped, whole * 0.01 / whole.norm(), rtol=1e-3, atol=1e-6)
