"""Label smoothing beside the plain haversine matrix: ``python tests/benchmarks/bench_smoothing.py [threads]``."""

import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from geoloc_core.geo.smoothing import EQUATORIAL_KM, smoothing

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "benchmarks"
BATCH = 1024
TAU_KM = 75.0


def plain(points: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """The matrix of haversine distances and its smoothing, as written down: radians (B, 2), (C, 2), all float64."""
    latitude, longitude = points[:, :1], points[:, 1:]
    other_latitude, other_longitude = cells.T[:, None]
    haversine = torch.sin((other_latitude - latitude) / 2) ** 2
    haversine = haversine + latitude.cos() * other_latitude.cos() * torch.sin((other_longitude - longitude) / 2) ** 2
    km = 2 * EQUATORIAL_KM * torch.arcsin(torch.sqrt(haversine))
    targets = torch.exp(-(km - km.min(dim=1, keepdim=True).values) / TAU_KM)
    return torch.nan_to_num(targets, nan=0.0, posinf=0.0, neginf=0.0)


def even(count: int, seed: int) -> np.ndarray:
    """Places (N, 2) spread evenly over the sphere."""
    random = np.random.default_rng(seed)
    return np.stack([np.degrees(np.arcsin(random.uniform(-1, 1, count))), random.uniform(-180, 180, count)], axis=1)


def cases() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Points (B, 2) and cells (C, 2) by name, in degrees."""
    found = {f"{count:,} even cells": (even(BATCH, 1), even(count, 2)) for count in (2_203, 12_893)}
    if SHARED.is_dir():
        import pandas as pd

        cells = pd.read_csv(SHARED / "cells_50_1000_copy.csv")[["latitude_mean", "longitude_mean"]].to_numpy()
        photos = pd.read_csv(SHARED / "im2gps3k_places365.csv")[["LAT", "LON"]].to_numpy()[:BATCH]
        found[f"{len(cells):,} published S2 cells, IM2GPS3k"] = (photos, cells)
    return found


def milliseconds(
    one: Callable[[], object], other: Callable[[], object], device: str, rounds: int
) -> tuple[float, float]:
    """The medians of two ways, measured by turns."""
    took: list[list[float]] = [[], []]
    for turn in range(rounds + 1):
        for times, way in zip(took, (one, other), strict=True):
            if device == "cuda":
                torch.cuda.synchronize()
            started = time.perf_counter()
            way()
            if device == "cuda":
                torch.cuda.synchronize()
            if turn:
                times.append(1e3 * (time.perf_counter() - started))
    return float(np.median(took[0])), float(np.median(took[1]))


def main(threads: int = 2, rounds: int = 5) -> None:
    torch.set_num_threads(threads)
    print(f"{platform.machine()}, torch {torch.__version__}, {threads} threads; {BATCH} points, τ {TAU_KM:g} km\n")
    print("| device | cells | plain float64, ms | ours, ms | ratio | largest difference |")
    print("|---|---|---|---|---|---|")
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        for name, (points, cells) in cases().items():
            radians = [torch.deg2rad(torch.as_tensor(v, device=device)) for v in (points, cells)]
            made = smoothing(*cells.T, device=device, tau_km=TAU_KM)
            before, ours = milliseconds(lambda: plain(*radians), lambda: made.targets(*points.T), device, rounds)  # noqa: B023
            difference = float((plain(*radians) - made.targets(*points.T)).abs().max())
            what = "CPU" if device == "cpu" else torch.cuda.get_device_name()
            print(f"| {what} | {name} | {before:.1f} | {ours:.1f} | {before / ours:.1f} | {difference:.0e} |")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
