"""What kind of place a photo shows: the 365 scenes of Places365, and the 16 and 3 kinds above them.

The hierarchy is the one published with Places365 (Zhou et al. 2017), in which a scene may have several kinds and then
counts for each in equal parts. The columns ``S3_Label``, ``S16_Label`` and ``S365_Label`` of GeoEstimation's
``*_places365.csv`` (Müller-Budack et al. 2018) are the most probable kinds and scene.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoloc_core.encoders.torch_files import fill, read_tensors
from geoloc_core.errors import UserError

if TYPE_CHECKING:
    import torch

HIERARCHY = "scene_hierarchy_places365.csv"
S3 = ("indoor", "natural", "urban")
"""Kinds of scene by their number in the column ``S3_Label``."""
SCENES, KINDS = 365, 16
CLASSIFIERS = ("resnet50_places365.pth.tar", "resnet18_places365.pth.tar")
"""The scene classifiers that Places365 publishes and that are ResNets of torchvision."""
RESNETS = {
    (False, 2): "resnet18",
    (False, 6): "resnet34",
    (True, 6): "resnet50",
    (True, 23): "resnet101",
    (True, 36): "resnet152",
}
"""By whether their blocks are bottlenecks, and by the depth of their third layer."""
HEADINGS = 2
"""Rows above the scenes in the published table."""

EDGE, SIZE = 256, 224
"""Places365 and GeoEstimation scale the shorter edge of a photo and cut the centre, pixels."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Hierarchy:
    """How much of each scene belongs to each kind.

    Attributes:
        s16: (365, 16), rows sum to 1.
        s3: (365, 3), rows sum to 1.
    """

    s16: np.ndarray
    s3: np.ndarray


def read_hierarchy(path: Path) -> Hierarchy:
    """Read the table published with Places365: two rows of headings, then a scene, its 3 and its 16 kinds a row.

    Raises:
        UserError: There is no such table.
    """
    from geoloc_core.corpora.photo import numbers
    from geoloc_core.corpora.tables import read_csv

    if not path.is_file():
        raise UserError(f"{path}: no such file; export the scene hierarchy that Places365 publishes as CSV")
    # The first heading names the columns.
    table = read_csv(path, ())[HEADINGS - 1 :][:SCENES].iloc[:, 1 : 1 + len(S3) + KINDS]
    if table.shape[1] < len(S3) + KINDS:
        raise UserError(
            f"{path}: {table.shape[1] + 1} columns; expected a scene, its 3 and its {KINDS} kinds, separated by commas"
        )
    flags = np.stack([numbers(column) for _, column in table.items()], axis=1)
    wrong = ~(flags >= 0)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise UserError(
            f"{path}: row {table.index[row]}: {table.iat[row, column]!r}; expected 1 if the scene is of that kind, or 0"
        )
    s3, s16 = flags[:, : len(S3)], flags[:, len(S3) :]
    if len(flags) != SCENES or not (s3.sum(axis=1) > 0).all() or not (s16.sum(axis=1) > 0).all():
        raise UserError(
            f"{path}: {len(flags)} scenes; expected {SCENES}, each with 3 and {KINDS} kinds of which at least one is 1"
        )
    return Hierarchy(s16 / s16.sum(axis=1, keepdims=True), s3 / s3.sum(axis=1, keepdims=True))


def classifier(folder: Path) -> "torch.nn.Module":
    """A scene classifier of Places365, such as ``resnet50_places365.pth.tar``.

    Args:
        folder: Holds the file as published: tensors under ``state_dict``, named as torchvision names them.

    Returns:
        From normalised photos (N, 3, 224, 224) to probabilities (N, 365).

    Raises:
        UserError: The file is missing, damaged or of another network.
    """
    import torch

    path = next((folder / name for name in CLASSIFIERS if (folder / name).is_file()), folder / CLASSIFIERS[0])
    tensors = read_tensors(path)
    network = resnet(tensors, path, "layer1", "layer3", SCENES)
    fill(network, tensors, path)
    return torch.nn.Sequential(network, torch.nn.Softmax(dim=1)).eval()


def resnet(tensors: "dict[str, torch.Tensor]", path: Path, first: str, third: str, classes: int = 1000) -> Any:
    """The ResNet of torchvision that tensors belong to, with random weights.

    Args:
        tensors: Of a ResNet, however its layers are called.
        path: Where they come from, for messages.
        first: What its first layer is called.
        third: What its third layer is called, whose depth tells the ResNets apart.
        classes: Of its last layer.

    Raises:
        UserError: They are of none of the library's ResNets.
    """
    import torchvision

    depth = len({name.split(".")[1] for name in tensors if name.startswith(f"{third}.")})
    arch = RESNETS.get((f"{first}.0.conv3.weight" in tensors, depth))
    if arch is None:
        raise UserError(f"{path}: unexpected weights; expected a ResNet: {', '.join(RESNETS.values())}")
    return torchvision.models.get_model(arch, weights=None, num_classes=classes)
