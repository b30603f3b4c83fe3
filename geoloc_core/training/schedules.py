"""Schedules of the learning rate, as parameters state them."""

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PositiveInt

from geoloc_core.plugins import Strict

if TYPE_CHECKING:
    import torch


class Plateau(Strict):
    """The rate falls when the validation loss no longer does."""

    kind: Literal["plateau"] = "plateau"
    factor: float = Field(0.5, gt=0, lt=1)
    """What the rate is multiplied by."""
    patience: int = Field(3, ge=0)
    """Epochs without a better validation loss before the rate falls."""


class MultiStep(Strict):
    """The rate falls after given numbers of epochs."""

    kind: Literal["multi_step"] = "multi_step"
    milestones: tuple[PositiveInt, ...] = Field(min_length=1)
    """The epochs after which it falls."""
    gamma: float = Field(0.5, gt=0, lt=1)
    """What the rate is multiplied by."""


class Step(Strict):
    """The rate falls after every so many epochs."""

    kind: Literal["step"] = "step"
    every: PositiveInt = 1
    """Epochs between two falls."""
    gamma: float = Field(gt=0, lt=1)
    """What the rate is multiplied by."""


class Cosine(Strict):
    """The rate falls by half a cosine (Loshchilov and Hutter 2017)."""

    kind: Literal["cosine"] = "cosine"
    floor: float = Field(0.0, ge=0, lt=1)
    """The share of the first rate that it falls to after the last epoch."""


class Constant(Strict):
    """The rate stays."""

    kind: Literal["constant"] = "constant"


Schedule = Annotated[Plateau | MultiStep | Step | Cosine | Constant, Field(discriminator="kind")]


def share(options: MultiStep | Step | Cosine | Constant, epoch: float, epochs: int) -> float:
    """The share of the first rate that an epoch, or a step within one, is trained with.

    Args:
        options: The schedule.
        epoch: From 0; with a fraction for a step within it.
        epochs: Of the whole training.
    """
    match options:
        case MultiStep():
            return options.gamma ** sum(epoch >= milestone for milestone in options.milestones)
        case Step():
            return options.gamma ** int(epoch / options.every)
        case Cosine():
            return options.floor + (1 - options.floor) * (1 + math.cos(math.pi * epoch / epochs)) / 2
        case Constant():
            return 1.0


def schedule_of(
    options: Schedule, optimiser: "torch.optim.Optimizer", epochs: int
) -> "torch.optim.lr_scheduler.LRScheduler":
    """The schedule of an optimiser, stepped after each epoch; every group keeps its ratio to the others."""
    from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

    if isinstance(options, Plateau):
        return ReduceLROnPlateau(optimiser, factor=options.factor, patience=options.patience)
    return LambdaLR(optimiser, lambda epoch: share(options, epoch, epochs))
