"""Features are read in pieces, and come out as if they had been read whole."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from geoloc_core.errors import UserError
from geoloc_core.training import features as module
from geoloc_core.training.ahead import ahead
from geoloc_core.training.features import RUN, Features, order
from tests.benchmarks.memory import STATUS

ROOT = Path(__file__).parents[3]
CPU = torch.device("cpu")
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def made(rows: int = 1000, dims: tuple[int, ...] = (5, 3), seed: int = 0) -> Features:
    random = np.random.default_rng(seed)
    return Features(tuple(random.normal(1, 2, (rows, dim)).astype(np.float16) for dim in dims))


def joined(features: Features) -> np.ndarray:
    return np.concatenate(features.parts, axis=1)


@given(st.lists(st.integers(0, 29), max_size=60), st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_rows_are_taken_in_the_order_asked_for(rows, dims):
    features = made(30, tuple(dims))
    wanted = np.array(rows, np.int64)
    np.testing.assert_array_equal(features.take(wanted), joined(features)[wanted])
    assert (len(features), features.dim, features.dims) == (30, sum(dims), tuple(dims))


def test_rows_of_units_are_taken_in_their_shape(monkeypatch):
    monkeypatch.setattr(module, "ROWS", 7)
    features, rows = made(), np.random.default_rng(1).integers(0, 1000, (40, 3))
    out = np.empty((40, 3, 8), np.float16)
    assert features.take(rows, out) is out
    np.testing.assert_array_equal(out, joined(features)[rows])


class Front:
    """An array that notes which rows were asked for."""

    def __init__(self, array):
        self.array, self.shape, self.asked = array, array.shape, []

    def __len__(self):
        return len(self.array)

    def __getitem__(self, rows):
        self.asked += rows.tolist()
        return self.array[rows]


def test_a_file_is_read_from_front_to_back(monkeypatch):
    monkeypatch.setattr(module, "ROWS", 64)
    part = Front(made(dims=(4,)).parts[0])
    rows = np.random.default_rng(0).permutation(1000)
    np.testing.assert_array_equal(Features((part,)).take(rows), part.array[rows])
    assert part.asked == list(range(1000))


@pytest.mark.parametrize("block", [1, 7, 256, 5000])
def test_statistics_are_those_of_all_rows_at_once(monkeypatch, block):
    monkeypatch.setattr(module, "BLOCK", block)
    features, rows = made(3000), np.random.default_rng(0).permutation(3000)[:2001]
    mean, std = features.statistics(rows)
    whole = joined(features)[rows].astype(np.float64)
    assert mean.dtype == std.dtype == np.float32
    np.testing.assert_allclose(mean, whole.mean(0), rtol=1e-6)
    np.testing.assert_allclose(std, whole.std(0, ddof=1), rtol=1e-6)


@given(
    st.floats(-6e4, 6e4, width=16),
    st.floats(0, 8, width=16),
    st.integers(1, 40),
    st.integers(1, 50),
)
@example(-12664.0, 4.125, 9, 3)  # the mean of a block is no number of float32
def test_statistics_far_from_zero_are_stable_and_never_nan(offset, spread, count, block):
    column = np.clip(offset + spread * np.random.default_rng(0).normal(size=(count, 1)), -65000, 65000)
    features = Features((column.astype(np.float16),))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        mean, std = features.statistics(np.arange(count))
    whole = features.parts[0].astype(np.float64)
    expected = whole.std(0, ddof=1) if count > 1 else np.zeros(1)
    np.testing.assert_allclose(mean, whole.mean(0), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(std, np.where(expected < 1e-6, 1, expected), rtol=2e-6)


def test_a_feature_that_does_not_vary_keeps_its_scale():
    features = Features((np.full((20_000, 1), 0.1, np.float16),))
    mean, std = features.statistics(np.arange(20_000))
    assert std.tolist() == [1]
    np.testing.assert_allclose(mean, features.parts[0][0], rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_a_number_is_named(value):
    features = made()
    features.parts[1][[700, 703], 1] = value
    with pytest.raises(UserError, match=r"features of 2 of rows 5 to 999 are not .* of row 703; encode"):
        features.statistics(np.arange(999, 4, -1))
    features.statistics(np.arange(700))


@pytest.mark.slow
@given(st.integers(1, 3000), st.integers(1, 4000), st.integers(0, 5))
def test_an_order_has_every_position_once(count, window, seed):
    found = order(count, window, seed)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(np.sort(found), np.arange(count))
    np.testing.assert_array_equal(found, order(count, window, seed))


def test_an_order_of_one_window_is_one_permutation():
    torch.manual_seed(0)
    for seed in (0, 7):
        expected = torch.randperm(5000, generator=torch.Generator().manual_seed(seed))
        np.testing.assert_array_equal(order(5000, 5000, seed), expected.numpy())
    assert (order(5000, 5000, 0) != order(5000, 5000, 1)).mean() > 0.99


def test_an_order_of_many_windows_has_whole_runs_in_each():
    count, window = 100 * RUN + 17, 10 * RUN
    orders = [order(count, window, seed) for seed in (0, 1)]
    for found in orders:
        for start in range(0, count, window):
            rows = np.sort(found[start : start + window])
            assert (np.diff(rows) > 1).sum() <= window // RUN + 1, "rows lie in runs"
            assert (np.diff(found[start : start + window]) == 1).mean() < 0.1, "and are shuffled among each other"
    assert set(orders[0][:window]) != set(orders[1][:window]), "windows are others in each epoch"


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(700,), (300, 3)])
@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("window", [2**30, 5_000, 1])
def test_batches_are_the_same_held_and_read(monkeypatch, device, shape, scaled, window):
    monkeypatch.setattr(module, "WINDOW", window)
    monkeypatch.setattr(module, "RUN", 16)
    features, rows = made(), np.random.default_rng(3).integers(0, 1000, shape)
    mean, std = features.statistics(np.arange(1000)) if scaled else (None, None)
    whole = joined(features).astype(np.float32)
    if scaled:
        whole = (whole - mean) / std
    for way in (lambda b: b.shuffled(32, 4), lambda b: b.in_order(50), lambda b: b.at(np.array([5, 1, 5, 9]), 3)):
        found = {}
        for budget in (None, 3000, 0):
            batches = list(way(features.on(rows, torch.device(device), mean, std, budget)))
            for x, of in batches:
                assert x.dtype == torch.float32
                assert x.device.type == of.device.type == device
                np.testing.assert_array_equal(x.cpu().numpy(), whole[of.cpu().numpy()])
            found[budget] = [of.tolist() for _, of in batches]
        assert found[None] == found[3000] == found[0]
        assert len({len(of) for of in found[None][:-1]}) <= 1, "only the last batch may be smaller"
    everything = np.concatenate([of.numpy() for _, of in features.on(rows, CPU).in_order(50)])
    np.testing.assert_array_equal(everything, rows)


def test_what_is_held_is_held_once_and_what_is_not_is_read_in_each_epoch():
    part = Front(made(dims=(4,)).parts[0])
    rows = np.arange(1000)
    for budget, times in ((8000, 1), (7999, 3)):
        part.asked = []
        batches = Features((part,)).on(rows, CPU, budget=budget)
        for seed in range(3):
            assert sum(len(of) for _, of in batches.shuffled(100, seed)) == 1000
        assert len(part.asked) == times * 1000


def test_the_next_is_worked_out_while_one_is_in_use_and_an_error_comes_through():
    def items():
        yield from (1, 2)
        raise ValueError("three")

    coming = ahead(items())
    assert [next(coming), next(coming)] == [1, 2]
    with pytest.raises(ValueError, match="three"):
        next(coming)


PEAK = """
import sys
from pathlib import Path
import numpy as np, torch
from geoloc_core.training.heads import Recipe
from geoloc_core.training import heads
from geoloc_core.training.features import Features
from tests.benchmarks.memory import watched

rows, folder, budget = int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) or None
parts = tuple(np.load(folder / name, mmap_mode="r") for name in ("a.npy", "b.npy"))
torch.nn.Linear(8, 8)(torch.zeros(4, 8)).sum().backward()
training, validation = np.arange(rows * 4 // 5), np.arange(rows * 4 // 5, rows)
with watched(0.005) as most:
    base = most[0]
    heads.fit(Features(parts), np.arange(rows) % 200, training, validation, 200, (), Recipe(epochs=1, batch=1024), 1,
              folder / "c.pt", [], lambda metrics, epoch: None, budget)
print((most[0] - base) / 2**20)
"""


@pytest.mark.slow
@pytest.mark.skipif(not STATUS.exists(), reason="Linux counts anonymous memory for each process")
@pytest.mark.skipif(torch.cuda.is_available(), reason="measures the memory of the host, where features are held")
@pytest.mark.parametrize(("budget", "most"), [(0, 293 + 250), (60_000_000, 57 + 57 + 250)])
def test_training_holds_the_features_once_or_a_few_windows(tmp_path, budget, most):
    """MiB above what an empty process has: the features as float16 (293), or two budgets, and 250 for all else.

    Joining them and making them float32 took 2,000.
    """
    rows = 300_000
    for name, dim in (("a.npy", 384), ("b.npy", 128)):
        array = np.lib.format.open_memmap(tmp_path / name, mode="w+", dtype=np.float16, shape=(rows, dim))
        array[::1000] = 1
        array.flush()
    command = [sys.executable, "-c", PEAK, str(rows), str(tmp_path), str(budget)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert float(run.stdout.split()[-1]) < most


def test_what_is_not_a_number_is_found_in_any_block(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 100)
    features = made()
    features.check(np.arange(1000))
    features.parts[0][850, 2] = np.nan
    with pytest.raises(UserError, match=r"features of 1 of rows 800 to 899 are not finite numbers, the first .* 850;"):
        features.check(np.arange(1000))
    features.check(np.arange(850))


def test_a_quarter_of_the_memory_may_be_taken(monkeypatch, tmp_path):
    import psutil

    monkeypatch.setattr(module, "_memory", lambda: 4000)
    assert module._room(CPU) == 1000
    monkeypatch.undo()
    total = psutil.virtual_memory().total
    for stated, expected in (("12345\n", 12345), ("max\n", total), (f"{2 * total}\n", total)):
        (tmp_path / "limit").write_text(stated)
        monkeypatch.setattr(module, "Path", lambda _: tmp_path / "limit")
        assert module._memory() == expected
    monkeypatch.setattr(module, "Path", lambda _: tmp_path / "none")
    assert module._memory() == total


def test_the_order_of_rows_is_the_same_on_every_machine():
    """A trained model is repeatable as long as these three stay."""
    assert (module.WINDOW, RUN, module.CONSTANT) == (2**30, 256, 1e-6)


def test_rows_that_fit_the_budget_to_the_last_byte_are_held():
    features = made()
    rows = np.arange(90).reshape(30, 3)
    assert features.on(rows, CPU, budget=90 * 8 * 2)._held is not None
    assert features.on(rows, CPU, budget=90 * 8 * 2 - 1)._held is None
    assert len(features.on(rows, CPU)) == 30
