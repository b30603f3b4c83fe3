"""GeoCLIP's network: an image head and a location encoder whose embeddings meet (Vivanco Cepeda et al. 2023).

The order of operations is that of the released code: its finest capsule turns a last digit of a coordinate into 1e-4
of an embedding, so that another order would not give its embeddings.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoloc_core.blocks import blocks
from geoloc_core.encoders.device import device
from geoloc_core.encoders.torch_files import fill, read_tensor, read_tensors
from geoloc_core.geo.sphere import EARTH_KM
from geoloc_core.training import heads

if TYPE_CHECKING:
    import torch

A1, A2, A3, A4 = 1.340264, -0.081106, 0.000893, 0.003796
"""Of the Equal Earth projection (Šavrič, Patterson and Jenny 2018, equation 12)."""
SCALE = 66.50336
"""Projected coordinates are multiplied by it and divided by 180, in the released code."""
TEMPERATURE = 0.07
"""Of the softmax before training: CLIP's."""
METRES = 1000 * EARTH_KM * math.pi / 180
"""Of a degree of latitude."""
NEAREST = 1e-3
"""Cosine of a latitude below which a metre is no more degrees of longitude than there: 6 km around a pole."""
BLOCK = 8192
"""Points embedded at once."""
HEAD, LOCATION, LOGIT_SCALE = "image_encoder_mlp_weights.pth", "location_encoder_weights.pth", "logit_scale_weights.pth"
"""The released files."""


@dataclass(frozen=True)
class Sizes:
    """Widths of the network, by default the published ones.

    Attributes:
        hidden: Of the image head's hidden layers.
        sigmas: Spread of the random frequencies of each capsule of the location encoder.
        frequencies: Of each capsule; their sines and cosines are twice as many.
        capsule: Widths of each capsule's hidden layers.
        dim: D of the embeddings.
    """

    hidden: tuple[int, ...] = (768,)
    sigmas: tuple[float, ...] = (2.0**0, 2.0**4, 2.0**8)
    frequencies: int = 256
    capsule: tuple[int, ...] = (1024, 1024, 1024)
    dim: int = 512


def equal_earth(points: "torch.Tensor") -> "torch.Tensor":
    """Points (N, 2), latitude and longitude in degrees, in the scaled Equal Earth projection: (N, 2) of x and y."""
    import torch

    latitude, longitude = torch.deg2rad(points[:, 0]), torch.deg2rad(points[:, 1])
    theta = torch.asin((torch.sqrt(torch.tensor(3.0)) / 2) * torch.sin(latitude))
    slope = 3 * (9 * A4 * theta**8 + 7 * A3 * theta**6 + 3 * A2 * theta**2 + A1)
    x = (2 * torch.sqrt(torch.tensor(3.0)) * longitude * torch.cos(theta)) / slope
    y = A4 * theta**9 + A3 * theta**7 + A2 * theta**3 + A1 * theta
    return (torch.stack((x, y), dim=1) * SCALE) / 180


def network(inputs: int, sizes: Sizes, queue: "torch.Tensor") -> Any:
    """An untrained network.

    Args:
        inputs: Width F of the image features.
        sizes: Of its parts.
        queue: (Q, 2) points that photos are told apart from to begin with; Q may be 0.

    Returns:
        A module with ``images`` (N, F) → (N, D) and ``points`` (N, 2) → (N, D), both of unit length, ``logit_scale``,
        and ``queue``.
    """
    import torch
    from torch import nn
    from torch.nn.functional import normalize

    class Capsule(nn.Module):
        frequencies: torch.Tensor

        def __init__(self, sigma: float) -> None:
            super().__init__()
            self.register_buffer("frequencies", torch.randn(sizes.frequencies, 2) * sigma)
            self.layers = heads.network(2 * sizes.frequencies, sizes.capsule, sizes.dim)

        def forward(self, projected: torch.Tensor) -> torch.Tensor:
            phases = 2 * np.pi * projected @ self.frequencies.T
            encoded: torch.Tensor = self.layers(torch.cat((torch.cos(phases), torch.sin(phases)), dim=-1))
            return encoded

    class Location(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.capsules = nn.ModuleList(map(Capsule, sizes.sigmas))

        def forward(self, points: torch.Tensor) -> torch.Tensor:
            projected = equal_earth(points)
            total = torch.zeros(len(points), sizes.dim, device=points.device)
            for capsule in self.capsules:
                total = total + capsule(projected)
            return total

    class Network(nn.Module):
        queue: torch.Tensor
        oldest: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.head = heads.network(inputs, sizes.hidden, sizes.dim)
            self.location = Location()
            self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / TEMPERATURE)))
            self.register_buffer("queue", queue.clone())
            self.register_buffer("oldest", torch.zeros((), dtype=torch.int64))

        def images(self, features: torch.Tensor) -> torch.Tensor:
            return normalize(self.head(features), dim=1)

        def points(self, points: torch.Tensor) -> torch.Tensor:
            return normalize(self.location(points), dim=1)

        def enqueue(self, points: torch.Tensor) -> None:
            """Put points (B, 2) in the place of the oldest ones."""
            size = len(self.queue)
            if size == 0:
                return
            newest = points[-size:]
            at = (self.oldest + torch.arange(len(newest), device=points.device)) % size
            self.queue[at] = newest
            self.oldest.copy_((self.oldest + len(newest)) % size)

    return Network()


def loss_of(net: Any, features: "torch.Tensor", points: "torch.Tensor", noise_m: tuple[float, float]) -> "torch.Tensor":
    """Cross entropy of finding a photo's own point among those of its batch and of the queue, which moves on.

    Args:
        net: Of :func:`network`.
        features: (B, F).
        points: (B, 2) degrees.
        noise_m: Standard deviations in metres of what is added north and east to the points of the batch and of the
            queue.
    """
    import torch
    from torch.nn.functional import cross_entropy

    candidates = torch.cat((moved(points, noise_m[0]), moved(net.queue, noise_m[1])))
    logits = net.logit_scale.exp() * net.images(features) @ net.points(candidates).T
    net.enqueue(points)
    return cross_entropy(logits, torch.arange(len(points), device=points.device))


def moved(points: "torch.Tensor", metres: float) -> "torch.Tensor":
    """Points (N, 2) degrees, each moved north and east by so much at random."""
    import torch

    if not metres:
        return points
    drawn = torch.randn(points.shape).to(points.device) * (metres / METRES)
    shrink = torch.cos(torch.deg2rad(points[:, 0])).clamp(min=NEAREST)
    latitude = (points[:, 0] + drawn[:, 0]).clamp(-90, 90)
    longitude = (points[:, 1] + drawn[:, 1] / shrink + 180) % 360 - 180
    return torch.stack((latitude, longitude), dim=1)


def points_of(latitudes: np.ndarray, longitudes: np.ndarray) -> "torch.Tensor":
    """Points (N, 2) float32 on the device of latitudes (N,) and longitudes (N,) in degrees."""
    import torch

    return torch.from_numpy(np.stack((latitudes, longitudes), axis=1).astype(np.float32)).to(device())


def embed(net: Any, latitudes: np.ndarray, longitudes: np.ndarray) -> np.ndarray:
    """Embeddings (N, D) float32 of unit length of points (N,) in degrees, N > 0, block by block."""
    import torch

    parts = blocks(len(latitudes), BLOCK)
    with torch.inference_mode():
        found = [net.points(points_of(latitudes[rows], longitudes[rows])).cpu().numpy() for rows in parts]
    return np.concatenate(found)


def fill_released(net: Any, folder: Path) -> None:
    """Load the weights that the package ``geoclip`` brings in its folder ``model/weights``.

    Raises:
        UserError: A file is missing or damaged, or is of a network of another size.
    """
    head, location, scale = (folder / name for name in (HEAD, LOCATION, LOGIT_SCALE))
    fill(net.head, read_tensors(head), head)
    fill(net.location, {_renamed(name): tensor for name, tensor in read_tensors(location).items()}, location)
    net.logit_scale.data.copy_(read_tensor(scale, ()))


def _renamed(name: str) -> str:
    """What a tensor of the released location encoder is called here."""
    match name.split("."):
        case [capsule, "capsule", "0", "b"]:
            return f"capsules.{capsule.removeprefix('LocEnc')}.frequencies"
        case [capsule, "capsule", layer, kind] if layer.isdecimal():
            return f"capsules.{capsule.removeprefix('LocEnc')}.layers.{int(layer) - 1}.{kind}"
        case [capsule, "head", "0", kind]:
            return f"capsules.{capsule.removeprefix('LocEnc')}.layers.6.{kind}"
    return name


def drawn(among: int, count: int, seed: Sequence[int]) -> np.ndarray:
    """So many numbers below another, each once before any comes twice."""
    rng = np.random.default_rng(list(seed))
    rounds = [rng.permutation(among) for _ in range(-(-count // among))]
    found: np.ndarray = np.concatenate([np.arange(0), *rounds])[:count]
    return found
