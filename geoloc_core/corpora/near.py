"""All pairs of hashes that differ in few bits, without comparing all with all.

Multi-index hashing (Norouzi, Punjani and Fleet 2012, "Fast Search in Hamming Space with Multi-Index Hashing"): the bits
are dealt into d + 2 bands, so that two hashes that differ in at most d bits agree in at least two bands. For every two
bands, the hashes are sorted by the bits of both, and only those that agree there are compared.
"""

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

BITS = 64
MAX_DISTANCE = 8
"""Bits; beyond it the bands grow so short that most hashes would be compared with most."""
CROWD = 10_000
"""Hashes that agree in two bands, from which on they are not compared there: what so many share is no mark of a copy.

With it 5 M hashes take at most 5 M × 10,000 / 2 comparisons per pair of bands, whatever they are.
"""
BLOCK = 2**20
"""Pairs found at a time: bounds the memory."""


@dataclass(frozen=True)
class Search:
    """Distinct hashes, and which of them are too close together to be compared.

    Attributes:
        hashes: (N,) uint64, distinct and sorted.
        distance: Bits in which near ones differ at most.
        crowded: (N,) bool; filled while :meth:`pairs` is read. Only of two crowded hashes can a pair be missing.
    """

    hashes: np.ndarray
    distance: int
    crowded: np.ndarray

    def pairs(self) -> Iterator[np.ndarray]:
        """Every pair of rows at most ``distance`` bits apart, once: blocks (P, 2) int64, always in the same order."""
        from geoloc_core.corpora import near_kernels

        masks = bands(self.distance)
        keys = list(combinations(range(len(masks)), 2))
        if self.distance == 0 or len(self.hashes) < 2:
            return

        def arrange(key: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
            """The rows in order of the bits of two bands, and where each run of equal ones begins."""
            marked = self.hashes & (masks[key[0]] | masks[key[1]])
            order = np.argsort(marked).astype(np.int32)
            marked = marked[order]
            starts = np.flatnonzero(np.append(True, marked[1:] != marked[:-1]))
            return order, np.append(starts, len(marked))

        def search(key: tuple[int, int]) -> Iterator[np.ndarray]:
            order, bounds = arrange(key)
            for long in np.flatnonzero(np.diff(bounds) > CROWD):
                self.crowded[order[bounds[long] : bounds[long + 1]]] = True
            arranged = self.hashes[order]
            run, row = 0, 0
            while run < len(bounds) - 1:
                found = np.empty((BLOCK, 2), np.int32)
                count, run, row = near_kernels.pairs(
                    arranged, bounds, masks, key[0], key[1], self.distance, CROWD, run, row, found
                )
                if count:
                    yield np.sort(order[found[:count]].astype(np.int64), axis=1)

        yield from _together([search(key) for key in keys], min(os.cpu_count() or 1, 4))


def open_search(hashes: "ArrayLike", distance: int) -> Search:
    """Look for near pairs among hashes; equal ones count once.

    Args:
        hashes: (N,) uint64.
        distance: Bits, 0 … :data:`MAX_DISTANCE`.

    Raises:
        ValueError: The distance is out of range.
    """
    if not 0 <= distance <= MAX_DISTANCE:
        raise ValueError(f"distance {distance}; expected 0 … {MAX_DISTANCE} bits")
    distinct = np.unique(np.asarray(hashes, dtype=np.uint64))
    return Search(distinct, distance, np.zeros(len(distinct), bool))


def bands(distance: int) -> np.ndarray:
    """Masks (distance + 2,) uint64 that share out the 64 bits, dealt like cards: neighbouring bits are alike."""
    count = distance + 2
    masks = [sum(1 << bit for bit in range(band, BITS, count)) for band in range(count)]
    return np.array(masks, dtype=np.uint64)


def reach(search: Search, marks: np.ndarray) -> np.ndarray:
    """What is near each hash.

    Args:
        search: The hashes.
        marks: (N,) unsigned integers, a set of flags per hash.

    Returns:
        (N,) the flags of the hash itself and of all near ones together.
    """
    reached = marks.copy()
    for block in search.pairs():
        np.bitwise_or.at(reached, block[:, 0], marks[block[:, 1]])
        np.bitwise_or.at(reached, block[:, 1], marks[block[:, 0]])
    return reached


def _together(streams: list[Iterator[np.ndarray]], threads: int) -> Iterator[np.ndarray]:
    """The blocks of all streams, each stream in turn, the next ones worked on meanwhile, a block ahead each."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[tuple[Iterator[np.ndarray], Future[np.ndarray | None]]] = deque()
        rest = iter(streams)
        for stream in rest:
            waiting.append((stream, pool.submit(next, stream, None)))
            if len(waiting) == threads:
                break
        while waiting:
            stream, future = waiting.popleft()
            block = future.result()
            if block is None:
                follower = next(rest, None)
                if follower is not None:
                    waiting.append((follower, pool.submit(next, follower, None)))
                continue
            waiting.appendleft((stream, pool.submit(next, stream, None)))
            yield block
