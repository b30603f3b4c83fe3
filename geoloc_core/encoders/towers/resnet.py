"""Residual networks of transformers (He et al. 2016), such as ResNet-50 trained on ImageNet.

The folder holds ``config.json``, ``preprocessor_config.json`` and ``model.safetensors`` or ``pytorch_model.bin``.
GeoguessrLSTM takes the ``max`` over positions. Its code feeds pixels of 0 to 255 as they are, which the weights were
not trained with; here they are normalised as the checkpoint asks.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from geoloc_core.encoders.encoder import Encoder, of_network
from geoloc_core.encoders.huggingface import config_of, open_network, preprocess_of, saver
from geoloc_core.encoders.options import TorchTower
from geoloc_core.encoders.preprocess import Preprocess
from geoloc_core.encoders.published import TRANSFORMERS
from geoloc_core.encoders.trainable import Trainable

if TYPE_CHECKING:
    import torch

FILES = TRANSFORMERS


class Options(TorchTower):
    """A residual network without its classifier."""

    kind: Literal["resnet"]
    pooling: Literal["mean", "max", "tokens"] = "mean"
    """Of the last feature map: the mean or the maximum of all positions, or all of them, row by row."""


def load(options: Options, weights: Path) -> Encoder:
    """Open a ResNet checkpoint folder; a classification head in it is ignored.

    Raises:
        UserError: The folder is not a ResNet checkpoint.
    """
    _, network, preprocess, shape = _open(options, weights)
    return of_network(options, network, preprocess, shape)


def trainable(options: Options, weights: Path) -> Trainable:
    """Open a ResNet checkpoint folder for training: see :func:`load`."""
    model, network, preprocess, (dim,) = _open(options, weights)
    return Trainable(network, preprocess, dim, saver(model, weights), blocks=list(model.encoder.stages))


def _open(options: Options, weights: Path) -> "tuple[Any, torch.nn.Module, Preprocess, tuple[int, ...]]":
    """The library's model, the network that pools its positions, the preparation of photos, and a feature's shape."""
    config_of(weights, "resnet")
    preprocess = preprocess_of(weights)
    import torch
    from transformers import ResNetModel

    model = open_network(ResNetModel, weights)

    class Pooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.resnet = model

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            positions = self.resnet(pixel_values=images).last_hidden_state.flatten(2)
            match options.pooling:
                case "mean":
                    return positions.mean(dim=2)
                case "max":
                    return positions.amax(dim=2)
                case "tokens":
                    return positions.transpose(1, 2)

    network, edge = Pooled().eval(), preprocess.size
    with torch.inference_mode():
        probe = network(torch.zeros(1, 3, edge, edge))
    return model, network, preprocess, tuple(probe.shape[1:])
