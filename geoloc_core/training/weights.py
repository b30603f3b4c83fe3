"""Class weights against imbalance."""

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from geoloc_core.plugins import Strict


class InverseFrequency(Strict):
    """Weight of a class = frequency^−power (Okkerman 2024, section 5: power 1)."""

    kind: Literal["inverse_frequency"] = "inverse_frequency"
    power: float = Field(1.0, ge=0, le=1)
    """Less than 1 where most classes have few photos."""


class EffectiveNumber(Strict):
    """Weight of a class of n photos = (1 − β) / (1 − βⁿ) (Cui et al. 2019)."""

    kind: Literal["effective_number"] = "effective_number"
    beta: float = Field(0.999, ge=0, lt=1)
    """β: 0 weighs all photos alike; towards 1 the weights become the inverse frequencies."""


ClassWeights = Annotated[InverseFrequency | EffectiveNumber, Field(discriminator="kind")]


def class_weights(options: ClassWeights | None, targets: np.ndarray, classes: int) -> np.ndarray:
    """The weight of each class.

    Args:
        options: Which; None weighs all rows alike.
        targets: (N,) classes of the training rows.
        classes: C; a class without rows weighs nothing.

    Returns:
        (C,) float32, scaled so that the rows weigh one on average: the scale cancels in the weighted mean loss.
    """
    counts = np.bincount(targets, minlength=classes).astype(np.float64)
    n = np.maximum(counts, 1)
    match options:
        case None:
            weights = np.ones(classes)
        case InverseFrequency():
            weights = n**-options.power
        case EffectiveNumber():
            weights = (1 - options.beta) / (1 - options.beta**n)
    weights = np.where(counts > 0, weights, 0.0)
    total = (weights * counts).sum()
    return (weights * len(targets) / total if total else weights).astype(np.float32)
