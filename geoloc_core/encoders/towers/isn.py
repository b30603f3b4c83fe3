"""The scene networks of GeoEstimation (Müller-Budack et al. 2018), ResNets that G3 looks through, and their scenes.

One network for all photos, ``base(M, f*)``: the folder holds ``isn.ckpt``, a Lightning checkpoint such as
``isn_epoch=014-val_loss=18.4833.ckpt``, or ``isn.safetensors``, which training here leaves. One network per kind of
scene, each photo through the one its scene asks for: the folders ``indoor``, ``natural`` and ``urban`` hold an
``isn.ckpt`` each and ``scene`` a classifier of Places365.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from geoloc_core.encoders.composite import Composite, Forward
from geoloc_core.encoders.compute import Precision, on_device
from geoloc_core.encoders.encoder import Encoder
from geoloc_core.encoders.options import TorchTower
from geoloc_core.encoders.preprocess import Preprocess
from geoloc_core.encoders.published import Wanted
from geoloc_core.encoders.scenes import (
    CLASSIFIERS,
    EDGE,
    HIERARCHY,
    MEAN,
    S3,
    SCENES,
    SIZE,
    STD,
    classifier,
    read_hierarchy,
    resnet,
)
from geoloc_core.encoders.torch_files import fill, read_tensors
from geoloc_core.encoders.trainable import Trainable
from geoloc_core.errors import UserError

if TYPE_CHECKING:
    import torch

FILE = "isn.ckpt"
TRAINED = "isn.safetensors"
PREFIX = "model."
"""Of the trunk's tensors in either file."""
FILES = (FILE,)
PARTS: dict[str, tuple[Wanted, ...]] = {
    "scene": (tuple((name,) for name in CLASSIFIERS), HIERARCHY),
    **dict.fromkeys(S3, FILES),
}
FIRST, THIRD = "4", "6"
"""Layers of a trunk that is a sequence: the convolution, its normalisation, activation and pooling come before."""


class Options(TorchTower):
    """A scene network, or the scenes themselves."""

    kind: Literal["isn"]
    feature: Literal["base", "routed", "scenes"] = "base"
    """Of one network; of the network of the photo's scene; or the probabilities of the 365 scenes."""
    batch: int = Field(128, gt=0)

    @property
    def parts(self) -> tuple[str, ...]:
        """The folders of its networks; none where it is one network."""
        return {"base": (), "scenes": ("scene",), "routed": ("scene", *S3)}[self.feature]


def load(options: Options, weights: Path) -> Encoder:
    """Open a folder of scene networks.

    Raises:
        UserError: A file is missing, damaged or for another network.
    """
    preprocess = _preprocess()
    opened = {"base": _base, "routed": _routed, "scenes": _scenes}[options.feature]
    forward, dim, parameters = opened(weights, preprocess, options.precision)
    return Encoder(
        shape=(dim,),
        batch=options.batch,
        preprocess=preprocess,
        forward=forward,
        identity={"kind": options.kind, "feature": options.feature},
        parameters=parameters,
    )


def trainable(options: Options, weights: Path) -> Trainable:
    """Open the one network for all photos for training; it is saved as :data:`TRAINED`.

    Raises:
        UserError: As :func:`load`.
    """
    from safetensors.torch import save_file

    network, dim = tower(_file(weights))
    trunk = network.get_submodule("0")

    def save(folder: Path) -> None:
        tensors = {f"{PREFIX}{name}": value.cpu().contiguous() for name, value in trunk.state_dict().items()}
        save_file(tensors, folder / TRAINED)

    return Trainable(network, _preprocess(), dim, save, blocks=list(trunk.children())[int(FIRST) :])


def _preprocess() -> Preprocess:
    return Preprocess(SIZE, "crop", "bilinear", MEAN, STD, shorter_edge=EDGE)


def _file(weights: Path) -> Path:
    return weights / (TRAINED if (weights / TRAINED).is_file() else FILE)


def _size(*networks: "torch.nn.Module") -> int:
    return sum(tensor.numel() for network in networks for tensor in network.parameters())


def _base(weights: Path, preprocess: Preprocess, precision: Precision) -> tuple[Forward, int, int]:
    network, dim = tower(_file(weights))
    return on_device(network, preprocess, precision), dim, _size(network)


def _scenes(weights: Path, preprocess: Preprocess, precision: Precision) -> tuple[Forward, int, int]:
    network = classifier(weights / "scene")
    return on_device(network, preprocess, precision), SCENES, _size(network)


def _routed(weights: Path, preprocess: Preprocess, precision: Precision) -> tuple[Forward, int, int]:
    """Each photo through the tower of the kind of scene that is most probable."""
    # a scene is right or wrong: what decides has bf16 only where it is asked for
    scene, _, parameters = _scenes(weights, preprocess, "fp32" if precision == "auto" else precision)
    kinds = read_hierarchy(weights / "scene" / HIERARCHY).s3
    networks, dims = zip(*(tower(weights / name / FILE) for name in S3), strict=True)
    if len(set(dims)) > 1:
        raise UserError(
            f"{weights}: the three towers give {', '.join(map(str, dims))} features; expected the same number from each"
        )
    towers = [on_device(network, preprocess, precision) for network in networks]

    def forward(photos: np.ndarray) -> np.ndarray:
        kind = (scene(photos).astype(np.float64) @ kinds).argmax(axis=1)
        features = np.empty((len(photos), dims[0]), np.float32)
        for number in np.unique(kind):
            features[kind == number] = towers[number](photos[kind == number])
        return features

    return Composite(forward, (scene, *towers)), dims[0], parameters + _size(*networks)


def tower(path: Path) -> "tuple[torch.nn.Module, int]":
    """One network of a Lightning checkpoint: its last feature map, averaged over the photo.

    Args:
        path: The checkpoint or :data:`TRAINED`, of a ResNet of torchvision; its classifiers of cells are ignored.

    Returns:
        From normalised photos (N, 3, 224, 224) to features (N, D), and D.

    Raises:
        UserError: The file is missing, damaged or of another network.
    """
    import torch

    named = read_tensors(path).items()
    ours = {name.removeprefix(PREFIX): value for name, value in named if name.startswith(PREFIX)}
    whole = resnet(ours, path, FIRST, THIRD)
    trunk = torch.nn.Sequential(*list(whole.children())[:-2])
    fill(trunk, ours, path)
    network = torch.nn.Sequential(trunk, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(1))
    return network.eval(), whole.fc.in_features
