"""How fast is a head trained? ``python tests/benchmarks/bench_heads.py [--rows 8000] [--dim 1536] [--batch 128]``

The thesis' network, 1024-512-256, learns 200 classes from float16 features, by turns in one process: `geoloc` is the
loop of this project, `DataLoader` the usual one (a TensorDataset of float32 rows that a DataLoader shuffles and
collates), and `step` the bare step on one batch that lies on the device: what any loop can reach at most. All do the
same forward, backward and SGD with momentum; none validates. The rate is the best of some epochs; the share is of the
step's. Where there is a GPU, the CPU comes first and the GPU after it.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from report import machine, row
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from geoloc_core.training import heads
from geoloc_core.training.features import Features
from geoloc_core.training.fitting import fit_network
from geoloc_core.training.optimisers import SGD, optimiser_of

CLASSES, HIDDEN = 200, (1024, 512, 256)
Lesson = tuple[np.ndarray, np.ndarray]
"""Features (N, D) float16 and classes (N,)."""


def learner(dim: int, where: torch.device) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    net = heads.network(dim, HIDDEN, CLASSES).to(where)
    return net, optimiser_of(SGD(lr=0.01), net)


def finished(where: torch.device) -> None:
    if where.type == "cuda":
        torch.cuda.synchronize()


def geoloc(lesson: Lesson, batch: int, epochs: int, where: torch.device) -> float:
    """The project's loop: photos per second of its fastest epoch."""
    features, targets = Features((lesson[0],)), torch.from_numpy(lesson[1]).to(where)
    rows = np.arange(len(lesson[1]))
    net, optimiser = learner(features.dim, where)
    rates: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        fit_network(
            net,
            lambda net, x, rows: cross_entropy(net(x), targets[rows]),
            features.on(rows, where, *features.statistics(rows)),
            dict,
            optimiser,
            None,
            batch,
            epochs,
            None,
            0,
            Path(folder) / "c.pt",
            [],
            lambda metrics, epoch: rates.append(metrics["photos_per_second"]),
            score=lambda metrics: 0.0,
        )
    return max(rates)


def usual(lesson: Lesson, batch: int, epochs: int, where: torch.device) -> float:
    """TensorDataset and DataLoader."""
    x = torch.from_numpy(lesson[0]).float()
    x = (x - x.mean(dim=0)) / x.std(dim=0)
    loader = DataLoader(
        TensorDataset(x, torch.from_numpy(lesson[1])), batch, shuffle=True, pin_memory=where.type == "cuda"
    )
    net, optimiser = learner(x.shape[1], where)
    rates = []
    for _ in range(epochs):
        began = time.perf_counter()
        for some, truth in loader:
            loss = cross_entropy(net(some.to(where)), truth.to(where))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        finished(where)
        rates.append(len(x) / (time.perf_counter() - began))
    return max(rates)


def step(lesson: Lesson, batch: int, epochs: int, where: torch.device) -> float:
    """Always the same batch, which lies on the device in float32."""
    x, truth = torch.from_numpy(lesson[0][:batch]).float().to(where), torch.from_numpy(lesson[1][:batch]).to(where)
    net, optimiser = learner(x.shape[1], where)
    steps = max(1, len(lesson[1]) // batch)
    rates = []
    for _ in range(epochs):
        began = time.perf_counter()
        for _ in range(steps):
            loss = cross_entropy(net(x), truth)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        finished(where)
        rates.append(steps * len(x) / (time.perf_counter() - began))
    return max(rates)


WAYS: dict[str, Callable[[Lesson, int, int, torch.device], float]] = {
    "geoloc": geoloc,
    "DataLoader": usual,
    "step": step,
}


def main(rows: int, dim: int, batch: int, epochs: int, rounds: int) -> None:
    random = np.random.default_rng(0)
    lesson = random.normal(0.1, 0.5, (rows, dim)).astype(np.float16), random.integers(0, CLASSES, rows)
    print(f"{machine()}, {torch.get_num_threads()} threads; {rows:,} × {dim}, batches of {batch}\n")
    row("device", "way", "photos/s", "share of the step")
    row("---", "---", "---:", "---:")
    for name in ("cpu", *(["cuda"] if torch.cuda.is_available() else [])):
        where, best = torch.device(name), dict.fromkeys(WAYS, 0.0)
        for _ in range(rounds):
            for way, measure in WAYS.items():
                best[way] = max(best[way], measure(lesson, batch, epochs, where))
        shown = torch.cuda.get_device_name() if name == "cuda" else name
        for way, rate in best.items():
            row(shown, way, f"{rate:,.0f}", f"{rate / best['step']:.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=8_000)
    parser.add_argument("--dim", type=int, default=1536)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    main(**vars(parser.parse_args()))
