"""How a network is run: on which device, and from which numbers."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from geoloc_core.encoders.device import device
from geoloc_core.encoders.preprocess import Preprocess

if TYPE_CHECKING:
    import torch


def on_device(network: "torch.nn.Module", preprocess: Preprocess) -> Callable[[np.ndarray], np.ndarray]:
    """The ``forward`` of an encoder.

    Args:
        network: From a tower's input (N, 3, size, size), normalised, to features (N, *shape).
        preprocess: Gives mean and standard deviation.

    Returns:
        A function from scaled photos (N, size, size, 3) uint8 to features (N, *shape) float32.
    """
    import torch

    where = device()
    network = network.eval().requires_grad_(False).to(where)
    mean, std = (torch.tensor(values, device=where).view(1, 3, 1, 1) for values in (preprocess.mean, preprocess.std))

    def forward(photos: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            pixels = torch.from_numpy(photos).to(where).permute(0, 3, 1, 2).float()
            return network((pixels / 255 - mean) / std).float().cpu().numpy()

    return forward
