"""Flows on the unit sphere: geodesics, the schedule of time, and places and densities that follow a field.

Chen and Lipman (2024), Flow matching on general geometries; Dufour et al. (2025), PLONK. Points are (..., 3) of unit
length, tensors of any precision. Time s runs from 0, noise, to 1, places.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

Field = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]
"""Points (..., 3) and the time () → velocities (..., 3), tangent to the sphere."""

BEGIN, END = -7.0, 3.0
"""Where the logistic function is cut: most of the time is spent near the places (PLONK's schedule)."""
LOG_EVEN = -math.log(4 * math.pi)
"""The logarithm of the density of noise, per steradian."""
ALONG = 1e-6
"""The sine of the angle under which two points are taken for equal, or for antipodes."""


def way(s: "torch.Tensor") -> "torch.Tensor":
    """The share κ(s) of the way from noise to the place that is done at time s; κ(0) = 0, κ(1) = 1."""
    high, low = _logistic(END), _logistic(BEGIN)
    return (high - ((1 - s) * (END - BEGIN) + BEGIN).sigmoid()) / (high - low)


def pace(s: "torch.Tensor") -> "torch.Tensor":
    """The derivative κ'(s) of :func:`way`."""
    at = ((1 - s) * (END - BEGIN) + BEGIN).sigmoid()
    return (END - BEGIN) * at * (1 - at) / (_logistic(END) - _logistic(BEGIN))


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def tangents(points: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
    """Two unit vectors (..., 3) that are perpendicular to points and to each other (Duff et al. 2017); at poles too."""
    import torch

    x, y, z = points.unbind(-1)
    sign = torch.where(z < 0, -1.0, 1.0).to(points)
    a = -1 / (sign + z)
    b = x * y * a
    one = torch.stack([1 + sign * x * x * a, sign * b, -sign * x], dim=-1)
    other = torch.stack([b, sign + y * y * a, -y], dim=-1)
    return one, other


def geodesic(
    noise: "torch.Tensor", places: "torch.Tensor", share: "torch.Tensor"
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Points (..., 3) on the shortest ways from noise to places, and the velocities there.

    With θ the angle between both ends, x = exp_{x₁}((1 − κ) log_{x₁}(x₀)), and dx/dκ has the length θ. Between
    antipodes any way is as short: one of them is taken.

    Args:
        noise: (..., 3) x₀.
        places: (..., 3) x₁.
        share: (...,) κ.
    """
    import torch

    cosine = (noise * places).sum(-1, keepdim=True)
    across = noise - cosine * places
    sine = across.norm(dim=-1, keepdim=True)
    back = torch.where(sine > ALONG, across / sine.clamp(min=ALONG), tangents(places)[0])
    angle = torch.atan2(sine, cosine)
    left = (1 - share)[..., None] * angle
    points = left.cos() * places + left.sin() * back
    return points, angle * (left.sin() * places - left.cos() * back)


def project(points: "torch.Tensor", vectors: "torch.Tensor") -> "torch.Tensor":
    """What of vectors (..., 3) is tangent to the sphere at points (..., 3)."""
    return vectors - (vectors * points).sum(-1, keepdim=True) * points


def divergence(
    field: "Callable[[torch.Tensor], torch.Tensor]", points: "torch.Tensor"
) -> "tuple[torch.Tensor, torch.Tensor]":
    """A tangent field (..., 3) at points, and its divergence (...) on the sphere, exact.

    That is Σ eᵢ · ∂v/∂eᵢ over two perpendicular tangents: what else the derivative of v has points away from the
    sphere.
    """
    from torch.func import jvp

    one, other = tangents(points)
    found, along = jvp(field, (points,), (one,))[:2]
    across = jvp(field, (points,), (other,))[1]
    return found, (along * one).sum(-1) + (across * other).sum(-1)


def follow(
    field: Field, points: "torch.Tensor", begin: float, end: float, steps: int, spread: bool = False
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Where points (..., 3) are after a flow, and how much it has spread out there.

    Runge–Kutta steps of fourth order in space, brought back to the sphere after each.

    Args:
        field: See :data:`Field`; the velocities are per s.
        points: Where they begin.
        begin: s.
        end: s, which may be before ``begin``.
        steps: How many.
        spread: Whether the spread is wanted, for which the field is differentiated.

    Returns:
        (..., 3) points; (...) the integral of the divergence along the ways, 0 where it is not wanted.
    """
    import torch

    step = (end - begin) / steps
    total = torch.zeros_like(points[..., 0])

    def at(x: torch.Tensor, s: float) -> tuple[torch.Tensor, torch.Tensor]:
        x = x / x.norm(dim=-1, keepdim=True)
        time = torch.tensor(s, dtype=x.dtype, device=x.device)
        return divergence(lambda p: field(p, time), x) if spread else (field(x, time), torch.zeros_like(total))

    for number in range(steps):
        s = begin + number * step
        v1, d1 = at(points, s)
        v2, d2 = at(points + step / 2 * v1, s + step / 2)
        v3, d3 = at(points + step / 2 * v2, s + step / 2)
        v4, d4 = at(points + step * v3, s + step)
        points = points + step / 6 * (v1 + 2 * v2 + 2 * v3 + v4)
        points = points / points.norm(dim=-1, keepdim=True)
        total = total + step / 6 * (d1 + 2 * d2 + 2 * d3 + d4)
    return points, total
