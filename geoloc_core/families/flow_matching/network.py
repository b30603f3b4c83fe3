"""The network of the flow: a residual MLP that photo and time modulate (AdaLN, Peebles and Xie 2023), as PLONK's."""

import math
from typing import Any

FASTEST = 16.0
"""The highest frequency, in radians, at which the network is told the time; faster ones would ask for more steps."""


def network(inputs: int, width: int, depth: int, expansion: int) -> Any:
    """Points (..., 3), times (...) and features (..., inputs) → tangent velocities (..., 3).

    ``net.told(features)`` is what it makes of features, and ``net.nothing`` what stands for a photo that is not seen;
    ``net(points, times, told)`` broadcasts what is told over points.

    Args:
        inputs: Width of the features.
        width: Of the network, even.
        depth: Blocks.
        expansion: How many times wider each block is inside.
    """
    import torch
    from torch import nn

    from geoloc_core.families.flow_matching.flow import project

    half = width // 2

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.modulation = nn.Linear(width, 3 * width)
            self.rise = nn.Linear(width, expansion * width)
            self.fall = nn.Linear(expansion * width, width)

        def forward(self, x: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
            shift, scale, gate = self.modulation(told).chunk(3, dim=-1)
            inner = nn.functional.layer_norm(x, (width,)) * (1 + scale) + shift
            return x + gate * self.fall(nn.functional.silu(self.rise(inner)))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Linear(inputs, width)
            self.nothing = nn.Parameter(torch.zeros(width))
            self.time = nn.Sequential(nn.Linear(2 * half, width), nn.SiLU(), nn.Linear(width, width))
            self.points = nn.Linear(3, width)
            blocks = [Block() for _ in range(depth)]
            self.blocks = nn.ModuleList(blocks)
            self.modulation = nn.Linear(width, 2 * width)
            self.out = nn.Linear(width, 3)
            for still in (self.modulation, self.out, *(block.modulation for block in blocks)):
                nn.init.zeros_(still.weight)
                nn.init.zeros_(still.bias)

        def told(self, features: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.features(features)
            return found

        def forward(self, points: torch.Tensor, times: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
            frequencies = torch.linspace(0, math.log(FASTEST), half, dtype=times.dtype, device=times.device).exp()
            angles = times[..., None] * frequencies
            told = nn.functional.silu(told + self.time(torch.cat((angles.cos(), angles.sin()), dim=-1)))
            x = self.points(points)
            for block in self.blocks:
                x = block(x, told)
            shift, scale = self.modulation(told).chunk(2, dim=-1)
            return project(points, self.out(nn.functional.layer_norm(x, (width,)) * (1 + scale) + shift))

    return Net()
