"""What does training on millions of features take? ``python tests/benchmarks/bench_train_scale.py [--rows 1000000 …]``

A linear head for 200 classes learns from the features of two encoders, 1024 + 512 of float16 in files; four in five
rows are trained on. Each way runs in a process of its own: `joined` is the usual one (arrays joined, all in float32 on
the device), run only where it fits in half of the memory; `held` keeps the features once, in float16; `read` reads
them from the disk in every epoch. Memory is the most anonymous memory of the process, of which pages of mapped files
are no part; the rate is that of the last epoch with its validation, and of all that is done if there is only one. The
end is a small training, by turns in one process.

Measured on two cores of an AMD EPYC that others used too, one thread, 23 GiB; rates waver by half:

| rows | way | most anonymous memory, GiB | rows/s | seconds in all |
| ---: | --- | ---: | ---: | ---: |
| 250,000 | joined | 4.43 | 22,830 | 56 |
| 250,000 | held | 1.18 | 17,894 | 33 |
| 250,000 | read | 0.68 | 14,062 | 30 |
| 1,000,000 | joined | does not fit |  |  |
| 1,000,000 | held | 3.33 | 16,024 | 128 |
| 1,000,000 | read | 1.51 | 22,034 | 93 |
| 4,200,000 | joined, held | do not fit |  |  |
| 4,200,000 | read, one epoch | 4.91 | 6,729 | 499 |

5,000 × 224, 10 epochs: joined 0.42 s, held 0.52 s.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psutil
from memory import watched
from report import machine, row

from geoloc_core.training import heads
from geoloc_core.training.features import WINDOW, Features
from geoloc_core.training.heads import Recipe
from geoloc_core.training.loop import Log
from geoloc_core.training.optimisers import SGD

CLASSES = 200
WAYS = ("joined", "held", "read")


def written(folder: Path, rows: int, dims: tuple[int, ...]) -> list[Path]:
    """Files of features; blocks of random ones in turn, since making up billions of them would take longest."""
    random = np.random.default_rng(0)
    paths = []
    for number, dim in enumerate(dims):
        paths.append(folder / f"{number}.npy")
        array = np.lib.format.open_memmap(paths[-1], mode="w+", dtype=np.float16, shape=(rows, dim))
        block = random.normal(0.1, 0.5, (50_000, dim)).astype(np.float16)
        for start in range(0, rows, len(block)):
            array[start : start + len(block)] = block[: rows - start]
        array.flush()
    return paths


def split(rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Targets, training rows and validation rows, mixed as photographers are."""
    random = np.random.default_rng(1)
    trained = random.random(rows) < 0.8
    return random.integers(0, CLASSES, rows), np.flatnonzero(trained), np.flatnonzero(~trained)


def joined(parts: tuple[np.ndarray, ...], rows: int, recipe: Recipe, log: Log) -> None:
    """The usual way: one array, float32, standardised before training."""
    import torch
    from torch.nn.functional import cross_entropy

    from geoloc_core.encoders.device import device
    from geoloc_core.training.optimisers import optimiser_of
    from geoloc_core.training.weights import class_weights

    targets, training, validation = split(rows)
    whole = np.concatenate(parts, axis=1)
    x = torch.from_numpy(whole[training]).float()
    mean, std = x.mean(dim=0), x.std(dim=0)
    x = ((x - mean) / std).to(device())
    held_out = ((torch.from_numpy(whole[validation]).float() - mean) / std).to(device())
    right, held_right = (torch.from_numpy(targets[of]).to(device()) for of in (training, validation))
    weights = torch.from_numpy(class_weights(recipe.weights, targets[training], CLASSES)).to(device())
    net = heads.network(whole.shape[1], (), CLASSES).to(device())
    optimiser = optimiser_of(recipe.optimiser, net)
    for epoch in range(recipe.epochs):
        for batch in torch.randperm(len(x)).to(device()).split(recipe.batch):
            loss = cross_entropy(net(x[batch]), right[batch], weights)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.inference_mode():
            log({"validation_loss": cross_entropy(net(held_out), held_right).item()}, epoch)


def run(way: str, paths: list[Path], rows: int, recipe: Recipe) -> tuple[float, float, float]:
    """Train in one way: the most memory (GiB), rows per second of the last epoch, seconds in all."""
    import torch

    torch.nn.Linear(8, 8)(torch.zeros(4, 8)).sum().backward()  # what is loaded on first use is no part of a way
    parts = tuple(np.load(path, mmap_mode="r") for path in paths)
    times = [time.perf_counter()]
    targets, training, validation = split(rows)

    def log(metrics: dict[str, float], epoch: int) -> None:
        times.append(time.perf_counter())

    with watched() as most, tempfile.TemporaryDirectory() as folder:
        if way == "joined":
            joined(parts, rows, recipe, log)
        else:
            size = 2 * rows * sum(part.shape[1] for part in parts)
            budget = size if way == "held" else min(3 * WINDOW, size // 4)
            sizes = (targets, training, validation, CLASSES, (), recipe, 0, Path(folder) / "c.pt", [])
            heads.fit(Features(parts), *sizes, log, budget)
    return most[0] / 2**30, len(training) / (times[-1] - times[-2]), times[-1] - times[0]


def scale(rows: int, dims: tuple[int, ...], recipe: Recipe) -> None:
    memory = psutil.virtual_memory().total
    with tempfile.TemporaryDirectory() as folder:
        paths = written(Path(folder), rows, dims)
        for way in WAYS:
            size = 2 * rows * sum(dims)
            if size * {"joined": 7.5, "held": 1, "read": 0}[way] > memory / 2:
                row(f"{rows:,}", way, "does not fit", "", "")
                continue
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                most, rate, seconds = pool.submit(run, way, paths, rows, recipe).result()
            row(f"{rows:,}", way, f"{most:.2f}", f"{rate:,.0f}", f"{seconds:,.0f}")


def small(rounds: int = 7) -> None:
    """5,000 rows of 128 + 96, as many as the demo has, ten epochs: the medians of both ways by turns."""
    recipe, rows = Recipe(epochs=10), 5000
    targets, training, validation = split(rows)
    with tempfile.TemporaryDirectory() as folder:
        parts = tuple(np.load(path, mmap_mode="r") for path in written(Path(folder), rows, (128, 96)))

        def ours() -> None:
            checkpoint = Path(folder) / "c.pt"
            checkpoint.unlink(missing_ok=True)
            heads.fit(
                Features(parts),
                targets,
                training,
                validation,
                CLASSES,
                (),
                recipe,
                0,
                checkpoint,
                [],
                lambda m, e: None,
            )

        ways: dict[str, Callable[[], None]] = {
            "joined": lambda: joined(parts, rows, recipe, lambda m, e: None),
            "held": ours,
        }
        took: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(rounds + 1):
            for name, way in ways.items():
                started = time.perf_counter()
                way()
                if turn:
                    took[name].append(time.perf_counter() - started)
    one, other = (statistics.median(times) for times in took.values())
    print(f"\n{rows:,} × 224, {recipe.epochs} epochs: joined {one:.2f} s, held {other:.2f} s, ratio {one / other:.2f}")


def main(sizes: list[int], dims: tuple[int, ...], recipe: Recipe) -> None:
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    print(f"{machine()}, {threads} threads; {sum(dims)} features, {CLASSES} classes, batches of {recipe.batch}\n")
    row("rows", "way", "most anonymous memory, GiB", "rows/s", "seconds in all")
    row("---:", "---", "---:", "---:", "---:")
    for rows in sizes:
        scale(rows, dims, recipe)
    small()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[250_000, 1_000_000])
    parser.add_argument("--dims", type=int, nargs="+", default=[1024, 512])
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch", type=int, default=1024)
    chosen = parser.parse_args()
    main(chosen.rows, tuple(chosen.dims), Recipe(epochs=chosen.epochs, batch=chosen.batch, optimiser=SGD(lr=0.001)))
