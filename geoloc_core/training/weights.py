"""Class weights against imbalance."""

import numpy as np


def inverse_frequency(targets: np.ndarray, classes: int, power: float = 1.0) -> np.ndarray:
    """Weight of each class, ``1 / f_i`` with ``f_i`` its share of the rows (Okkerman 2024, section 5).

    Args:
        targets: (N,) classes of the training rows.
        classes: C; a class without rows weighs nothing.
        power: Of the frequency: 1 is the thesis', 0 weighs all rows alike.

    Returns:
        (C,) float32, scaled so that the rows weigh one on average: the scale cancels in the weighted mean loss.
    """
    counts = np.bincount(targets, minlength=classes).astype(np.float64)
    weights = np.where(counts > 0, np.maximum(counts, 1) ** -power, 0.0)
    total = (weights * counts).sum()
    return (weights * len(targets) / total if total else weights).astype(np.float32)
