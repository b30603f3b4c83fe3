"""Ensemble selection (Caruana et al. 2004): which members of an ensemble count, and how often."""

from collections.abc import Callable

import numpy as np

Merit = Callable[[np.ndarray], tuple[float, ...]]
"""How good a sum of members' parts is; of two, the greater tuple is better."""


def select(parts: list[np.ndarray], merit: Merit, rounds: int) -> tuple[np.ndarray, list[tuple[float, ...]], int]:
    """How often each member counts, the merit after each round, and the best round.

    The first round is the best member alone. Each further one adds, with replacement, the member with which the sum is
    best. What is kept is the best sum on the way, so it is never worse than the best member.

    Args:
        parts: Of each of M members, an array of the same shape.
        merit: Of a sum of parts.
        rounds: How often a member is added.
    """
    merits = [merit(part) for part in parts]
    first = max(range(len(parts)), key=lambda m: merits[m])
    counts = np.zeros(len(parts), np.int64)
    counts[first] = 1
    total, best, kept = parts[first].copy(), merits[first], counts.copy()
    history, at = [best], 0
    for number in range(1, rounds + 1):
        found = [merit(total + part) for part in parts]
        added = max(range(len(parts)), key=lambda m: found[m])
        counts[added] += 1
        total += parts[added]
        history.append(found[added])
        if found[added] > best:
            best, kept, at = found[added], counts.copy(), number
    return kept, history, at
