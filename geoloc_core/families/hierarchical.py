"""OSV-5M's hybrid (Astruc et al. 2024): a quadtree learned level by level, and an offset within each of its cells.

A network on frozen features gives a logit to each leaf of the tree. A box of a coarser level is as probable as its
leaves together, and the true box of every level is learned. Beside the logits each leaf has an offset north and east of
the mean of its training photos, as a share of the way to the box's edge; the true leaf's is learned. The paper's third
loss, contrast between regions, is left out: it is one of images, and the features here are frozen.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, PositiveInt, field_validator

from geoloc_core.contracts.batch import Batch, Data, Fitted, Run
from geoloc_core.contracts.differentiable import Differentiable
from geoloc_core.contracts.geolocator import check_shapes, read_tensors, width_of, write_tensors
from geoloc_core.contracts.needs import ImageFeatures, Needs
from geoloc_core.contracts.options import Variant
from geoloc_core.contracts.prediction import Prediction, softmax
from geoloc_core.errors import UserError
from geoloc_core.geo import sphere
from geoloc_core.geo.geocells.schemes.quadtree import Boxes
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.training import heads
from geoloc_core.training.optimisers import Adam, Optimiser
from geoloc_core.training.schedules import Constant, Schedule
from geoloc_core.training.weights import ClassWeights

if TYPE_CHECKING:
    import torch

    from geoloc_core.params import Profile

PARTS = ("trunk", "cells", "offsets")
"""What may have a learning rate of its own."""
REACH = 1.2
"""How far an offset may go, as a share of the way to the edge: tanh never reaches 1."""
GROUPS = 4
EPS = 1e-5
LEAST = 1e-12
"""The least probability whose logarithm is taken, and the least way to an edge, in degrees."""
GELU = np.float32(np.sqrt(2 / np.pi))


class Recipe(heads.Recipe):
    """As published: Adam at 2e-4, 2,048 photos a batch, 30 epochs."""

    batch: int = Field(2048, gt=0)
    epochs: int = Field(30, gt=0)
    optimiser: Optimiser = Adam(lr=2e-4, weight_decay=1e-4)
    schedule: Schedule = Constant()
    weights: ClassWeights | None = None
    stop_patience: int | None = Field(None, gt=0)


class Options(Variant):
    """A variant of this family."""

    kind: Literal["hierarchical"]
    encoder: str
    """Of the photos."""
    labels: str
    """Cells of a quadtree."""
    hidden: tuple[PositiveInt, ...] = (1024, 512)
    """Widths of the hidden layers, each a multiple of 4, from 8 on: they are normalised in four groups."""
    coarse: float = Field(1.0, ge=0)
    """Weight of the loss of each coarser level; 0: the leaves alone."""
    offset: float = Field(1.0, ge=0)
    """Weight of the loss of the offset; 0: each leaf answers the mean of its photos."""
    recipe: Recipe = Recipe()

    @field_validator("hidden")
    @classmethod
    def _in_groups(cls, hidden: tuple[int, ...]) -> tuple[int, ...]:
        if wrong := [width for width in hidden if width % GROUPS or width < 2 * GROUPS]:
            raise ValueError(f"{wrong[0]}: expected {2 * GROUPS} or more, a multiple of {GROUPS}")
        return hidden

    @field_validator("recipe")
    @classmethod
    def _of_its_parts(cls, recipe: Recipe) -> Recipe:
        heads.check_rates(recipe, PARTS)
        if recipe.weights is not None:
            raise ValueError("weights: this family weighs all photos alike")
        return recipe

    def needs(self) -> Needs:
        """A vector per photo."""
        return Needs(inputs=(ImageFeatures(encoder=self.encoder),), labels=self.labels)

    def flaws(self, profile: "Profile") -> list[str]:
        """Whether its cells are a tree."""
        scheme = profile.cells.get(self.labels)
        if scheme is None or scheme.kind != "quadtree":
            trees = [name for name, one in profile.cells.items() if one.kind == "quadtree"]
            known = ", ".join(trees) or "none yet"
            return [
                f"labels: {self.labels!r} are no cells of a quadtree; expected one of `cells` of that kind: {known}"
            ]
        return []


def boxes_of(space: LabelSpace) -> Boxes:
    """The boxes of the C leaves, from their ids ``level/column/row``.

    Raises:
        ValueError: An id is none of a box.
    """
    parts = np.array([[int(part) for part in name.split("/")] for name in space.ids], np.int64).reshape(len(space), 3)
    return Boxes(*parts.T)


def ancestors(boxes: Boxes) -> list[np.ndarray]:
    """For each level above the finest leaves, from 1 on, the number (C,) of the box that holds each leaf.

    A leaf that is coarser than the level is a box of its own.
    """
    found = []
    for level in range(1, int(boxes.levels.max())):
        up = np.maximum(boxes.levels - level, 0)
        keys = np.stack([np.minimum(boxes.levels, level), boxes.columns >> up, boxes.rows >> up], axis=1)
        found.append(np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1))
    return found


@dataclass(frozen=True)
class Extents:
    """The C leaves around the means of their photos, in degrees.

    Attributes:
        latitudes: (C,) of the means.
        longitudes: (C,) of the means.
        ways: (C, 4) from there to the south, the north, the west and the east of the box.
    """

    latitudes: np.ndarray
    longitudes: np.ndarray
    ways: np.ndarray

    @classmethod
    def of(cls, space: LabelSpace) -> "Extents":
        """Of the cells of a quadtree."""
        south, west, north, east = boxes_of(space).bounds
        lat, lon = space.latitudes, space.longitudes
        ways = np.stack([lat - south, north - lat, lon - west, east - lon], axis=1)
        return cls(lat, lon, np.maximum(ways, LEAST))

    def shares(self, cells: np.ndarray, latitudes: np.ndarray, longitudes: np.ndarray) -> np.ndarray:
        """Where points (N,) lie in their cells: (N, 2) north and east, −1 to 1 from edge to edge, 0 at the mean."""
        apart = np.stack([latitudes - self.latitudes[cells], sphere.wrap(longitudes - self.longitudes[cells])], axis=1)
        ways = np.where(apart < 0, self.ways[cells][:, [0, 2]], self.ways[cells][:, [1, 3]])
        found: np.ndarray = np.clip(apart / ways, -1, 1)
        return found

    def places(self, cells: np.ndarray, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The inverse: latitudes and longitudes (…,) of cells (…,) and shares (…, 2)."""
        ways = np.where(shares < 0, self.ways[cells][..., [0, 2]], self.ways[cells][..., [1, 3]])
        apart = shares * ways
        return np.clip(self.latitudes[cells] + apart[..., 0], -90, 90), _turned(self.longitudes[cells], apart[..., 1])


def _turned(longitudes: np.ndarray, apart: np.ndarray) -> np.ndarray:
    """Longitudes moved by some degrees; one that does not move stays to the last digit."""
    moved = longitudes + apart
    return np.where(np.abs(moved) <= 180, moved, sphere.wrap(moved))


@dataclass(frozen=True)
class Hierarchical:
    """A trained model. It answers in NumPy.

    Attributes:
        encoder: Whose features it reads.
        labelspace: Its C leaves.
        extents: Where they are.
        tensors: As :func:`network` names them, without the offsets where none were learned; ``mean`` and ``std`` (D,)
            of the features; ``temperature`` (1,).
    """

    encoder: str
    labelspace: LabelSpace
    extents: Extents
    tensors: dict[str, np.ndarray]

    def hidden(self, features: np.ndarray) -> np.ndarray:
        """What the last layers read (N, H), of features (N, D)."""
        t = self.tensors
        x = (np.asarray(features, np.float32) - t["mean"]) / t["std"]
        for number in range(_layers(t)):
            x = x @ t[f"trunk.{3 * number}.weight"].T + t[f"trunk.{3 * number}.bias"]
            grouped = x.reshape(len(x), GROUPS, -1)
            grouped = grouped - grouped.mean(axis=2, keepdims=True)
            grouped = grouped / np.sqrt((grouped**2).mean(axis=2, keepdims=True) + np.float32(EPS))
            x = grouped.reshape(x.shape) * t[f"trunk.{3 * number + 1}.weight"] + t[f"trunk.{3 * number + 1}.bias"]
            x = x * np.float32(0.5) * (1 + np.tanh(GELU * (x + np.float32(0.044715) * x**3)))
        return x

    def predict(self, batch: Batch, k: int = 5, truth: np.ndarray | None = None) -> Prediction:
        """The k most probable leaves, each at its offset; the answer is the first."""
        t, x = self.tensors, self.hidden(batch.images[self.encoder])
        logits = x @ t["cells.weight"].T + t["cells.bias"]
        found = Prediction.of_probabilities(softmax(logits / t["temperature"]), self.labelspace, k, truth)
        if "offsets.weight" not in t:
            return found
        weight, bias = (t[f"offsets.{name}"].reshape(len(self.labelspace), 2, -1) for name in ("weight", "bias"))
        outputs = np.stack(
            [
                np.einsum("nh,nah->na", x, weight[cells]) + bias[cells][..., 0]  # a candidate of each photo at a time
                for cells in found.classes.T
            ],
            axis=1,
        )
        latitudes, longitudes = self.extents.places(found.classes, REACH * np.tanh(outputs).astype(np.float64))
        return replace(
            found,
            latitudes=latitudes,
            longitudes=longitudes,
            latitude=latitudes[:, 0],
            longitude=longitudes[:, 0],
        )

    def differentiable(self) -> Differentiable:
        """The leaves in PyTorch."""
        import torch

        own = {name: torch.from_numpy(tensor) for name, tensor in self.tensors.items()}
        mean, std, temperature = (own.pop(name) for name in ("mean", "std", "temperature"))
        hidden = tuple(len(own[f"trunk.{3 * number}.bias"]) for number in range(_layers(own)))
        net = network(len(mean), hidden, len(self.labelspace), "offsets.weight" in own)
        net.load_state_dict(own)
        net.eval().requires_grad_(False)
        return Differentiable([self.encoder], None, lambda x: net((x - mean) / std)[0] / temperature)

    def save(self, folder: Path) -> None:
        """Write its weights into an existing folder."""
        write_tensors(folder, self.tensors)


def _layers(tensors: Mapping[str, Any]) -> int:
    """Hidden layers of saved tensors."""
    return len({name.split(".")[1] for name in tensors if name.startswith("trunk.")}) // 2


def network(inputs: int, hidden: tuple[int, ...], cells: int, offsets: bool) -> Any:
    """What is trained: features (B, D) → logits (B, C) and offsets before the tanh (B, C, 2), or None."""
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            widths, layers = [inputs, *hidden], list[nn.Module]()
            for before, width in zip(widths, hidden, strict=False):
                layers += [nn.Linear(before, width), nn.GroupNorm(GROUPS, width, eps=EPS), nn.GELU("tanh")]
            self.trunk = nn.Sequential(*layers)
            self.cells = nn.Linear(widths[-1], cells)
            self.offsets = nn.Linear(widths[-1], 2 * cells) if offsets else None

        def forward(self, x: torch.Tensor) -> "tuple[torch.Tensor, torch.Tensor | None]":
            x = self.trunk(x)
            return self.cells(x), None if self.offsets is None else self.offsets(x).view(len(x), -1, 2)

    return Net()


def loss_of(
    logits: "torch.Tensor",
    offsets: "torch.Tensor | None",
    truth: "tuple[torch.Tensor, torch.Tensor]",
    levels: "list[torch.Tensor]",
    weights: tuple[float, float],
) -> "torch.Tensor":
    """The loss () of a batch: of the leaf, of the true box of each coarser level, and of the offset in the true leaf.

    Args:
        logits: (B, C) of the leaves.
        offsets: (B, C, 2) before the tanh; None where none are learned.
        truth: Leaves (B,) and where in them each photo is (B, 2): see :meth:`Extents.shares`.
        levels: For each coarser level the box (C,) of each leaf.
        weights: Of each coarser level, and of the offset.
    """
    import torch
    from torch.nn.functional import cross_entropy, mse_loss

    cells, shares = truth
    total = cross_entropy(logits, cells)
    if weights[0]:
        probabilities = logits.softmax(dim=1)
        for boxes in levels:
            of_boxes = torch.zeros(len(logits), int(boxes.max()) + 1, dtype=logits.dtype, device=logits.device)
            of_boxes = of_boxes.index_add(1, boxes, probabilities)
            right = of_boxes.gather(1, boxes[cells][:, None])
            total = total - weights[0] * right.clamp(min=LEAST).log().mean()
    if offsets is not None:
        own = offsets[torch.arange(len(cells), device=cells.device), cells]
        total = total + weights[1] * mse_loss(REACH * own.tanh(), shares)
    return total


def fit(data: Data, options: Options, run: Run) -> Fitted:
    """Train one; the epoch with the least loss of validation leaves is kept.

    Raises:
        UserError: The cells are no quadtree's, a training photo has no coordinates, or see
            :func:`geoloc_core.training.heads.fit_classifier`.
    """
    import torch

    from geoloc_core.encoders.device import device
    from geoloc_core.training.features import Features

    where = device()
    try:
        boxes, extents = boxes_of(data.space), Extents.of(data.space)
    except ValueError:
        raise UserError(
            f"labels {options.labels}: not the cells of a quadtree; expected ids level/column/row"
        ) from None
    if lacking := int((~np.isfinite(data.latitudes + data.longitudes)[data.training]).sum()):
        raise UserError(f"{lacking:,} training photos have no coordinates; expected a corpus of photos with them")
    levels = [torch.from_numpy(found).to(where) for found in ancestors(boxes)]
    shares = np.zeros((len(data.targets), 2))
    known = data.training
    shares[known] = extents.shares(data.targets[known], data.latitudes[known], data.longitudes[known])
    within, right = torch.from_numpy(shares).float().to(where), torch.from_numpy(data.targets).to(where)
    features = Features((data.images[options.encoder],))
    torch.manual_seed(run.seed)
    net = network(features.dim, options.hidden, len(data.space), options.offset > 0)

    def loss(net: Any, x: "torch.Tensor", rows: "torch.Tensor") -> "torch.Tensor":
        logits, offsets = net(x)
        return loss_of(logits, offsets, (right[rows], within[rows]), levels, (options.coarse, options.offset))

    fitted = heads.fit_units(
        net,
        loss,
        lambda net, x, rows: net(x)[0],
        features,
        data.targets,
        data.training,
        data.validation,
        options.recipe,
        run.seed,
        run.checkpoint,
        run.depends,
        run.log,
        groups=data.groups,
        score=lambda metrics: -metrics["validation_loss"],
    )
    tensors = {name: tensor.detach().cpu().float().numpy() for name, tensor in fitted.net.state_dict().items()}
    tensors |= {"mean": fitted.mean.numpy(), "std": fitted.std.numpy()}
    tensors["temperature"] = np.array([fitted.temperature], np.float32)
    model = Hierarchical(options.encoder, data.space, extents, tensors)
    return Fitted(model, fitted.history, fitted.best, {"levels": len(levels) + 1, **fitted.figures})


def load(folder: Path, needs: Needs, space: LabelSpace, remedy: str) -> Hierarchical:
    """Read what :meth:`Hierarchical.save` wrote.

    Raises:
        UserError: The weights are missing, damaged, or do not fit the classes, or these are no boxes.
    """
    tensors = read_tensors(folder, remedy)
    try:
        extents = Extents.of(space)
    except ValueError:
        raise UserError(f"{folder / 'labels.json'}: ids: expected level/column/row; {remedy}") from None
    width = width_of(tensors, "mean")
    expected: dict[str, tuple[int, ...]] = {"mean": (width,), "std": (width,), "temperature": (1,)}
    for number in range(_layers(tensors)):
        before, width = width, width_of(tensors, f"trunk.{3 * number}.bias")
        expected |= {f"trunk.{3 * number}.weight": (width, before), f"trunk.{3 * number}.bias": (width,)}
        expected |= {f"trunk.{3 * number + 1}.{name}": (width,) for name in ("weight", "bias")}
    expected |= {"cells.weight": (len(space), width), "cells.bias": (len(space),)}
    if any(name.startswith("offsets.") for name in tensors):
        expected |= {"offsets.weight": (2 * len(space), width), "offsets.bias": (2 * len(space),)}
    check_shapes(folder, remedy, tensors, expected)
    return Hierarchical(needs.encoders[0], space, extents, {name: tensors[name] for name in expected})
