"""How fast is a head over smoothed cells trained? ``python tests/benchmarks/bench_smoothed_head.py [--cells 12893]``

A linear layer over the 12,893 cells of ISN's finest partition, from features of 1024 numbers, by turns in one process:
`geoloc` makes the targets of each batch on the device, `float64` makes a matrix (B, C) of distances and of targets in
float64 with NumPy, as PIGEON's code does, and copies it there. Both do the same forward, backward and AdamW. The rate
is the best of some epochs; the ratio is to the other's.
"""

import argparse
import time

import numpy as np
import torch
from report import machine, row
from torch.nn.functional import cross_entropy

from geoloc_core.encoders.device import device
from geoloc_core.geo.smoothing import EQUATORIAL_KM, smoothing
from geoloc_core.training.optimisers import AdamW, optimiser_of

TAU_KM = 75.0


def places(count: int, seed: int) -> np.ndarray:
    """Latitudes and longitudes (2, count), even over the sphere."""
    rng = np.random.default_rng(seed)
    return np.stack([np.degrees(np.arcsin(rng.uniform(-1, 1, count))), rng.uniform(-180, 180, count)])


def in_float64(points: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Targets (B, C) float64 by the haversine formula."""
    (lat, lon), (at, across) = np.radians(points)[:, :, None], np.radians(cells)[:, None]
    inside = np.sin((at - lat) / 2) ** 2 + np.cos(lat) * np.cos(at) * np.sin((across - lon) / 2) ** 2
    apart = 2 * EQUATORIAL_KM * np.arcsin(np.sqrt(inside))
    found: np.ndarray = np.exp(-(apart - apart.min(axis=1, keepdims=True)) / TAU_KM)
    return found


def rate(makes_targets, features: torch.Tensor, cells: int, batch: int, epochs: int, where: torch.device) -> float:
    """Photos per second of the fastest epoch."""
    torch.manual_seed(0)
    net = torch.nn.Linear(features.shape[1], cells).to(where)
    optimiser = optimiser_of(AdamW(lr=1e-4), net)
    best = 0.0
    for _ in range(epochs):
        began = time.perf_counter()
        for start in range(0, len(features), batch):
            rows = slice(start, start + batch)
            loss = cross_entropy(net(features[rows]), makes_targets(rows))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        if where.type == "cuda":
            torch.cuda.synchronize()
        best = max(best, len(features) / (time.perf_counter() - began))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=12893)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--epochs", type=int, default=3)
    asked = parser.parse_args()
    where = device()
    print(machine())
    points, cells = places(asked.rows, 0), places(asked.cells, 1)
    features = torch.randn(asked.rows, 1024, device=where)
    smooth = smoothing(*cells, where, TAU_KM)
    latitudes, longitudes = (torch.from_numpy(axis).to(where) for axis in points)
    ways = {
        "geoloc": lambda rows: smooth.targets(latitudes[rows], longitudes[rows]),
        "float64": lambda rows: torch.from_numpy(in_float64(points[:, rows], cells)).to(where).float(),
    }
    few = slice(0, 64)
    torch.testing.assert_close(ways["geoloc"](few), ways["float64"](few), atol=1e-6, rtol=1e-5)
    rates = {name: rate(way, features, asked.cells, asked.batch, asked.epochs, where) for name, way in ways.items()}
    for name, found in rates.items():
        row(name, f"{found:,.0f} photos/s", f"{found / rates['float64']:.2f} ×")


if __name__ == "__main__":
    main()
