"""What a model offers whose answers have gradients: maps of the photo are made of these."""

from collections.abc import Callable
from dataclasses import dataclass, replace
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
        about: What of the answer has a gradient, in a sentence, where that is not all of it.
    """

    encoders: list[str]
    own: Tower | None
    logits: "Callable[[torch.Tensor], torch.Tensor]"
    about: str = ""


@runtime_checkable
class HasGradients(Protocol):
    """A model of a family that answers in PyTorch too, so that a class has a gradient."""

    def differentiable(self) -> Differentiable | None:
        """The same model in PyTorch; None where this one has no gradient down to the photo."""


def of_cells(model: object) -> Differentiable | None:
    """A model of cells, on behalf of what lies over it; None where it has no gradient."""
    found = model.differentiable() if isinstance(model, HasGradients) else None
    return found and replace(found, about="Of the model of cells alone: what lies over it has no gradient.")
