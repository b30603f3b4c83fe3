"""Integrated gradients: what each pixel adds on the way from a photo of one colour to the photo.

Sundararajan, Taly and Yan 2017, "Axiomatic attribution for deep networks", section 3; the integral by Gauss and
Legendre's rule.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from geoloc_core.blocks import blocks
from geoloc_core.explain.network import Network, laid_out

if TYPE_CHECKING:
    import torch

STEPS = 64
AT_ONCE = 8
"""Photos on the way that are computed at a time."""


@dataclass(frozen=True)
class Attribution:
    """What is attributed to what each tower sees.

    Attributes:
        values: Of each tower, (size, size) float64, added up over colours.
        gain: The logit of the photo less that of the one colour, to which all values should add up (completeness).
    """

    values: list[np.ndarray]
    gain: float

    @property
    def gap(self) -> float:
        """By which share of the gain the values miss it: the error of the integral."""
        return abs(sum(float(part.sum()) for part in self.values) - self.gain) / max(abs(self.gain), 1e-12)


def integrated(network: Network, photo: np.ndarray, target: int, steps: int = STEPS) -> Attribution:
    """Attribute the logit of a class to the pixels of a photo (H, W, 3) uint8, from its mean colour on.

    Args:
        network: Towers and head; the photo goes through all towers at once.
        photo: The photo.
        target: The class.
        steps: Points of the integral.
    """
    import torch

    inputs = network.inputs(photo)
    starts = [seen.mean(dim=(2, 3), keepdim=True).expand_as(seen) for seen in inputs]
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    sums = [torch.zeros_like(seen, dtype=torch.float64) for seen in inputs]
    for some in blocks(steps, AT_ONCE):
        alpha, share = (
            torch.from_numpy(values[some] / 2 + shift).view(-1, 1, 1, 1)
            for values, shift in ((nodes, 0.5), (weights, 0.0))
        )
        on_the_way = [
            (start + alpha.float() * (seen - start)).requires_grad_(True)
            for seen, start in zip(inputs, starts, strict=True)
        ]
        slopes = torch.autograd.grad(network.logit(on_the_way, target).sum(), on_the_way)
        for total, slope in zip(sums, slopes, strict=True):
            total += (share * slope.double()).sum(dim=0, keepdim=True)
    with torch.no_grad():
        gain = float(network.logit(inputs, target).double() - network.logit(starts, target).double())
    values = [_values(total, seen, start) for total, seen, start in zip(sums, inputs, starts, strict=True)]
    return Attribution(values, gain)


def _values(total: "torch.Tensor", seen: "torch.Tensor", start: "torch.Tensor") -> np.ndarray:
    found: np.ndarray = (total * (seen - start).double())[0].sum(dim=0).numpy()
    return found


def gradient_map(network: Network, photo: np.ndarray, found: Attribution) -> np.ndarray:
    """The values of all towers as one map (H, W) float64 of a photo (H, W, 3)."""
    maps = (
        laid_out(values, part.preprocess, *photo.shape[:2])
        for part, values in zip(network.parts, found.values, strict=True)
    )
    return np.sum(list(maps), axis=0)
