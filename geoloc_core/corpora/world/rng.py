"""Random streams that depend on what they are for and on nothing else."""

import hashlib
import random

import numpy as np


def stable_hash(text: str) -> int:
    """A 32-bit number of a text that is the same on every platform and in every process."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def stream(seed: int, purpose: str, *index: int) -> random.Random:
    """An independent random stream of ``(seed, purpose, index)``.

    NumPy's seed sequence mixes the key; Python's generator draws, as it is 20 times faster for single numbers, of which
    a picture needs thousands.
    """
    state = np.random.SeedSequence([seed, stable_hash(purpose), *index]).generate_state(4, np.uint64)
    return random.Random(state.tobytes())  # noqa: S311 - pictures, not secrets


def pick(rng: random.Random, weights: dict[str, float]) -> str:
    """One key of a table, with probability in proportion to its weight."""
    point = rng.random() * sum(weights.values())
    for key, weight in weights.items():
        point -= weight
        if point < 0:
            return key
    return key
