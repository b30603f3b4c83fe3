"""Dense layers in NumPy, with ReLU between them: how trained heads answer and are saved, without torch."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from geoloc_core.contracts.geolocator import width_of

if TYPE_CHECKING:
    import torch

Layers = list[tuple[np.ndarray, np.ndarray]]
"""Weight (out, in) and bias (out,) of each layer."""


def logits_of(layers: Layers, x: np.ndarray) -> np.ndarray:
    """Logits (N, C) of inputs (N, D)."""
    for weight, bias in layers[:-1]:
        x = np.maximum(x @ weight.T + bias, 0)
    weight, bias = layers[-1]
    logits: np.ndarray = x @ weight.T + bias
    return logits


def in_torch(layers: Layers) -> "Callable[[torch.Tensor], torch.Tensor]":
    """:func:`logits_of` in PyTorch, so that logits have a gradient."""
    import torch

    first, *others = [(torch.from_numpy(weight), torch.from_numpy(bias)) for weight, bias in layers]

    def logits(x: torch.Tensor) -> torch.Tensor:
        x = x @ first[0].T + first[1]
        for weight, bias in others:
            x = x.relu() @ weight.T + bias
        return x

    return logits


def to_tensors(layers: Layers) -> dict[str, np.ndarray]:
    """Layers by the names that they are saved under."""
    tensors: dict[str, np.ndarray] = {}
    for number, (weight, bias) in enumerate(layers):
        tensors |= {f"layers.{number}.weight": weight, f"layers.{number}.bias": bias}
    return tensors


def names(tensors: dict[str, np.ndarray]) -> list[str]:
    """Names of the saved layers, at least one."""
    count = len({name.split(".")[1] for name in tensors if name.startswith("layers.") and name.count(".") == 2})
    return [f"layers.{number}" for number in range(max(count, 1))]


def shapes(tensors: dict[str, np.ndarray], inputs: int, classes: int) -> dict[str, tuple[int, ...]]:
    """The shapes that saved layers must have to fit each other, the inputs and the classes."""
    layers = names(tensors)
    widths = [inputs, *(width_of(tensors, f"{name}.bias") for name in layers[:-1]), classes]
    expected: dict[str, tuple[int, ...]] = {}
    for name, width, outputs in zip(layers, widths, widths[1:], strict=False):
        expected |= {f"{name}.weight": (outputs, width), f"{name}.bias": (outputs,)}
    return expected


def of_tensors(tensors: dict[str, np.ndarray]) -> Layers:
    """What :func:`to_tensors` named."""
    return [(tensors[f"{name}.weight"], tensors[f"{name}.bias"]) for name in names(tensors)]
