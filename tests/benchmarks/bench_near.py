"""How fast near-duplicates are found among millions of hashes: ``python tests/benchmarks/bench_near.py``.

Three kinds of hashes: evenly drawn bits; bits as skewed and as dependent on one another as those of real photos (signs
of sums of a few common patterns and noise), one photo in twenty a near copy of another; and hashes of which most agree
in all but 24 bits, where the limit on crowds must hold. Brute force is timed on few hashes, and its time for all of
them follows from the square.
"""

import argparse
import time

import numpy as np
from memory import peak
from report import machine, row

from geoloc_core.corpora import near


def even(count: int, random: np.random.Generator) -> np.ndarray:
    return random.integers(0, 2**64, count, np.uint64)


def lifelike(count: int, random: np.random.Generator) -> np.ndarray:
    patterns = random.standard_normal((12, 64), np.float32)
    parts = []
    for start in range(0, count, 250_000):
        rows = min(250_000, count - start)
        waves = random.standard_normal((rows, 12), np.float32) @ patterns / 3.5
        waves += random.standard_normal((rows, 64), np.float32) + 0.5 * patterns[0]
        parts.append(np.packbits(waves > 0, axis=1).view(np.uint64).ravel())
    hashes = np.concatenate(parts)
    copies = random.integers(count, size=count // 20)
    flips = np.bitwise_or.reduce(np.uint64(1) << random.integers(0, 64, (3, len(copies)), np.uint64), axis=0)
    hashes[random.integers(count, size=len(copies))] = hashes[copies] ^ flips
    return hashes


def crowded(count: int, random: np.random.Generator) -> np.ndarray:
    return random.integers(0, 2**24, count, np.uint64)


def brute(hashes: np.ndarray, distance: int) -> int:
    return sum(int((np.bitwise_count(hashes[i + 1 :] ^ hashes[i]) <= distance).sum()) for i in range(len(hashes)))


def main(sizes: list[int], distance: int) -> None:
    sum(map(len, near.open_search(np.arange(100), distance).pairs()))  # compiles
    print(f"{machine()}; at most {distance} bits apart\n")
    row(
        "hashes",
        "count",
        "distinct",
        "time",
        "pairs",
        "crowded",
        "brute force, one core",
        "times slower",
        "peak memory",
    )
    row("---", *["---:"] * 8)
    for kind in (even, lifelike, crowded):
        for size in sizes:
            hashes = kind(size, np.random.default_rng(0))
            some = hashes[:10_000]
            started = time.perf_counter()
            expected = brute(np.unique(some), distance)
            slow = (time.perf_counter() - started) * (size / len(some)) ** 2
            search = near.open_search(some, distance)
            assert sum(map(len, search.pairs())) == expected or search.crowded.any()
            started = time.perf_counter()
            search = near.open_search(hashes, distance)
            pairs = sum(map(len, search.pairs()))
            taken = time.perf_counter() - started
            row(
                kind.__name__,
                f"{size:,}",
                f"{len(search.hashes):,}",
                f"{taken:.1f} s",
                f"{pairs:,}",
                f"{search.crowded.sum():,}",
                f"{slow / 3600:,.1f} h",
                f"{slow / taken:,.0f}",
                f"{peak() / 1e9:.1f} GB",
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=float, nargs="+", default=[1e5, 1e6])
    parser.add_argument("--distance", type=int, default=4)
    chosen = parser.parse_args()
    main([int(size) for size in chosen.sizes], chosen.distance)
