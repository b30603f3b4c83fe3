"""Training and validation: by group, never by photo, since photos of one group resemble each other."""

from hashlib import blake2b

import numpy as np
from numpy.typing import ArrayLike


def split_by_group(group_ids: ArrayLike, validation_share: float, seed: int) -> np.ndarray:
    """Hold out about a share of the groups.

    A group's side hangs on its id and the seed alone, so it stays when photos come, go or move.

    Args:
        group_ids: (N,) strings.
        validation_share: Share of the groups, 0 … 1.
        seed: Another seed gives another split.

    Returns:
        (N,) strings, ``train`` or ``validation``.
    """
    import pandas as pd

    codes, groups = pd.factorize(np.asarray(group_ids, dtype=object))
    held_out = np.array([_uniform(group, seed) < validation_share for group in groups], dtype=bool)
    return np.where(held_out, "validation", "train")[codes].astype(object)


def _uniform(group: str, seed: int) -> float:
    """A number in [0, 1) that looks drawn, and is the same on every machine."""
    return int.from_bytes(blake2b(f"{seed}:{group}".encode(), digest_size=6).digest()) / 2**48
