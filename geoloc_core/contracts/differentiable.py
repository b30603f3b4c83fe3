"""What a model offers whose answers have gradients: maps of the photo are made of these."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from geoloc_core.contracts.batch import Tower

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Differentiable:
    """A model as a function of the features that its towers make of a photo.

    Attributes:
        encoders: Names of the frozen encoders whose features it reads, in order.
        own: A tower that it carries, whose features come before theirs.
        logits: Joined features (N, D) float32 on the CPU → logits (N, C), after the temperature, in PyTorch.
    """

    encoders: list[str]
    own: Tower | None
    logits: "Callable[[torch.Tensor], torch.Tensor]"


@runtime_checkable
class HasGradients(Protocol):
    """A model of a family that answers in PyTorch too, so that a class has a gradient."""

    def differentiable(self) -> Differentiable | None:
        """The same model in PyTorch; None where this one has no gradient down to the photo."""
