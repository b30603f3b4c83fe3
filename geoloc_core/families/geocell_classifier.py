"""A linear classifier of geocells with PIGEON's additions, each an option (Haas et al. 2024, section 3).

Cross entropy against targets smoothed by distance (equation 2), made on the device batch by batch; the mean of the
features of a place's views; the tower's last block, trained along on the tokens that enter it; and auxiliary tasks on
the same feature. With none of these it is the paper's CLIP base: one view, one linear layer. The released code leaves
smoothed targets as they are, so that a photo with more cells around it weighs more; ``normalise`` scales them to one.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, PositiveFloat, field_validator

from geoloc_core.contracts.batch import Batch, Data, Fitted, Run, Units
from geoloc_core.contracts.differentiable import Differentiable
from geoloc_core.contracts.geolocator import check_shapes, read_tensors, width_of, write_tensors
from geoloc_core.contracts.needs import Facts, ImageFeatures, Needs, Tokens
from geoloc_core.contracts.options import Variant
from geoloc_core.contracts.prediction import Prediction, softmax
from geoloc_core.encoders import encoder as encoders
from geoloc_core.encoders import last_block
from geoloc_core.encoders.carried import Carried
from geoloc_core.encoders.encoder import TOWERS
from geoloc_core.encoders.last_block import LiveTokens, Pool, Shape
from geoloc_core.errors import UserError
from geoloc_core.files import read_json, write_json
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.plugins import Strict
from geoloc_core.plugins import options as options_of
from geoloc_core.training import auxiliary, heads
from geoloc_core.training.auxiliary import Scale, Tasks
from geoloc_core.training.optimisers import AdamW, Optimiser
from geoloc_core.training.schedules import Constant, Schedule
from geoloc_core.training.weights import ClassWeights

if TYPE_CHECKING:
    import torch

    from geoloc_core.training.auxiliary import Targets

SAID = "classifier.json"
TOWER = "tower"
PARTS = ("block", "cells", "tasks")
"""What may have a learning rate of its own."""
Views = Literal["one", "all"]
"""Of a place: the one whose heading comes first, or the mean of all; how many there are, and their order, is free."""


class Smoothing(Strict):
    """How right the cells near a photo's are: see :class:`geoloc_core.geo.smoothing.Smoothing`."""

    tau_km: PositiveFloat = 75.0
    """75 in PIGEON, 65 in PIGEOTTO."""
    reference: Literal["nearest", "true"] = "nearest"
    """``nearest`` as the released code, ``true`` as the paper has it."""
    normalise: bool = False


class LastBlock(Strict):
    """An encoder whose last block is trained along."""

    last_block: str
    """Its name; with ``pooling: penultimate`` it gives the tokens that enter the block."""
    pool: Pool = "mean"
    """How the tokens that leave the block become one feature."""
    live: bool = False
    """Whether tokens are made from the photos whenever they are needed: nothing is kept, each epoch takes longer."""


class Recipe(heads.Recipe):
    """As PIGEON's head is trained (its code): AdamW at a constant rate, until cells get no better."""

    batch: int = Field(1024, gt=0)
    epochs: int = Field(1000, gt=0)
    optimiser: Optimiser = AdamW(lr=2e-5)
    schedule: Schedule = Constant()
    weights: ClassWeights | None = None


class Options(Variant):
    """A variant of this family."""

    kind: Literal["geocell_classifier"]
    encoder: str | LastBlock
    """A frozen encoder; or one whose last block is trained, as ``{last_block: NAME}``."""
    labels: str
    """The label space that it learns."""
    views: Views = "all"
    """Whether a place answers with one of its photos or with all of them."""
    smoothing: Smoothing | None = None
    """Left out, one cell is right."""
    tasks: Tasks | None = None
    """What else is learned from the same feature; left out, nothing."""
    recipe: Recipe = Recipe()

    @field_validator("recipe")
    @classmethod
    def _of_its_parts(cls, recipe: Recipe) -> Recipe:
        heads.check_rates(recipe, PARTS)
        return recipe

    def needs(self) -> Needs:
        """Features or tokens of the views of each place, and what is known of it for the tasks."""
        reads = (
            ImageFeatures(encoder=self.encoder)
            if isinstance(self.encoder, str)
            else Tokens(encoder=self.encoder.last_block, live=self.encoder.live)
        )
        facts = [Facts(names=self.tasks.facts)] if self.tasks else []
        return Needs(inputs=(reads, *facts), labels=self.labels, unit="place")


class Said(Strict):
    """What JSON has beside the weights.

    Attributes:
        views: Of a place that are looked at.
        tasks: Whose outputs it has.
        block: Of its own last block.
        pool: How that pools.
        tower: What makes the tokens of a photo, where they are not kept; it lies beside.
    """

    views: Views
    tasks: Tasks | None
    block: Shape | None
    pool: Pool
    tower: options_of(TOWERS) | None = None  # type: ignore[valid-type]


@dataclass(frozen=True)
class GeocellClassifier:
    """A trained classifier. It answers in NumPy, but for a last block of its own.

    Attributes:
        encoder: Whose features or tokens it reads.
        labelspace: Its C classes.
        said: What its tensors are.
        tensors: ``cells.weight`` (C, D) and ``cells.bias`` (C,); ``temperature`` (1,); of tasks, ``tasks.weight``
            (K, D), ``tasks.bias`` (K,), and ``scale.mean`` and ``scale.std`` (Q,) of the quantities; of a last block,
            what :func:`geoloc_core.encoders.last_block.shapes` names, below ``block.``.
        tower: Its own, where it makes tokens of photos itself.
    """

    encoder: str
    labelspace: LabelSpace
    said: Said
    tensors: dict[str, np.ndarray]
    tower: Carried | None = None

    def features(self, batch: Batch) -> np.ndarray:
        """The feature (N, D) float32 of each unit: of one view, or the mean of all."""
        starts = np.arange(len(batch) + 1) if batch.starts is None else batch.starts
        if self.said.views == "one":
            return self._of_photos(self._read(batch, starts[:-1]))
        of_photos = self._of_photos(self._read(batch, np.arange(starts[-1])))
        mean: np.ndarray = np.add.reduceat(of_photos, starts[:-1], axis=0) / np.diff(starts)[:, None]
        return mean.astype(np.float32)

    def _read(self, batch: Batch, which: np.ndarray) -> np.ndarray:
        """What is read of some of the M photos: features, or tokens in the precision in which they are kept."""
        if self.tower is None:
            found: np.ndarray = batch.images[self.encoder][which]
            return found
        assert batch.photos is not None
        return self.tower.features([batch.photos[at] for at in which]).astype(np.float16)

    def _of_photos(self, read: np.ndarray) -> np.ndarray:
        """Features (M, D) of M photos, from those that were read, or from tokens."""
        if self.said.block is None:
            return np.asarray(read, np.float32)
        import torch

        own = {
            name.removeprefix("block."): torch.from_numpy(tensor)
            for name, tensor in self.tensors.items()
            if name.startswith("block.")
        }
        return last_block.features(last_block.network(self.said.block, own, self.said.pool).eval(), read)

    def predict(self, batch: Batch, k: int = 5, truth: np.ndarray | None = None) -> Prediction:
        """The k most probable cells, and what the tasks say; the answer is the place of the best cell."""
        t, features = self.tensors, self.features(batch)
        logits = features @ t["cells.weight"].T + t["cells.bias"]
        found = Prediction.of_probabilities(softmax(logits / t["temperature"]), self.labelspace, k, truth)
        if self.said.tasks is None:
            return found
        scale = Scale(self.said.tasks.quantities, t["scale.mean"], t["scale.std"])
        outputs = features @ t["tasks.weight"].T + t["tasks.bias"]
        return found.with_auxiliary(auxiliary.read(self.said.tasks, scale, outputs))

    def differentiable(self) -> Differentiable | None:
        """The cells in PyTorch; None with a block of its own, which reads tokens."""
        import torch

        if self.said.block is not None:
            return None
        weight, bias, temperature = (
            torch.from_numpy(self.tensors[name]) for name in ("cells.weight", "cells.bias", "temperature")
        )
        return Differentiable([self.encoder], None, lambda x: (x @ weight.T + bias) / temperature)

    def save(self, folder: Path) -> None:
        """Write its weights into an existing folder."""
        write_tensors(folder, self.tensors)
        write_json(folder / SAID, self.said)
        if self.tower is not None:
            self.tower.save(folder / TOWER)


def fit(data: Data, options: Options, run: Run) -> Fitted:
    """Train one; the epoch with the best accuracy of validation cells is kept.

    Raises:
        UserError: A row to be smoothed has no coordinates, nothing is known of a fact, or see
            :func:`geoloc_core.training.heads.fit_units`.
    """
    import torch

    from geoloc_core.encoders.device import device
    from geoloc_core.training.features import Features

    own = options.encoder if isinstance(options.encoder, LastBlock) else None
    name = own.last_block if own else str(options.encoder)
    training, validation = (padded(data.units(rows), options.views) for rows in (data.training, data.validation))
    where = device()
    torch.manual_seed(run.seed)
    shape: Shape | None = None
    block: torch.nn.Module | None = None
    if own:
        start = data.towers[name]
        shape, block = last_block.open_last_block(start.options, start.weights, own.pool)
    tower: Carried | None = None
    if own and own.live:
        assert data.photos is not None
        tower = Carried(start.options, start.weights, encoders.load(start.options, start.weights))
        features, read = Features((LiveTokens(tower, data.photos),)), tower.encoder.shape
    else:
        stored = data.images[name]
        features, read = Features((stored.reshape(len(stored), -1),)), stored.shape[1:]
    net = network(read, len(data.space), options.tasks, block)
    scale: Scale | None = None
    targets: Targets | None = None
    if options.tasks:
        facts: dict[str, np.ndarray] = {fact: data.facts[fact] for fact in options.tasks.facts}
        known = [facts[fact][training[:, 0]] for fact in options.tasks.quantities]
        scale = Scale.of(options.tasks.quantities, np.stack(known, axis=1)) if known else Scale([], *[np.empty(0)] * 2)
        targets = auxiliary.Targets.of(options.tasks, facts, scale, where)
    of_cells = cell_loss(data, options, training[:, 0])

    def loss(net: Any, x: "torch.Tensor", rows: "torch.Tensor") -> "torch.Tensor":
        return total(net, x, rows, of_cells, targets)

    fitted = heads.fit_units(
        net,
        loss,
        lambda net, x, rows: net(x, rows)[0],
        features,
        data.targets,
        training,
        validation,
        options.recipe,
        run.seed,
        run.checkpoint,
        run.depends,
        run.log,
        standardise=False,
        groups=data.groups,
    )
    said = Said(
        views=options.views,
        tasks=options.tasks,
        block=shape,
        pool=own.pool if own else "mean",
        tower=tower.options if tower else None,
    )
    model = GeocellClassifier(name, data.space, said, exported(fitted.net, fitted.temperature, scale), tower)
    sizes = {"training_places": len(training), "validation_places": len(validation)}
    return Fitted(model, fitted.history, fitted.best, {**sizes, **fitted.figures})


def padded(units: Units, views: Views) -> np.ndarray:
    """The views (n, V) that are looked at of n units.

    A unit with fewer than others names its first again, which says nothing more: see :func:`network`.
    """
    if views == "one":
        return units.rows[units.starts[:-1], None]
    counts = np.diff(units.starts)
    at = np.arange(counts.max(initial=1))
    return units.rows[units.starts[:-1, None] + np.where(at < counts[:, None], at, 0)]


def network(shape: tuple[int, ...], classes: int, tasks: Tasks | None, block: "torch.nn.Module | None") -> Any:
    """What is trained: features (B, V, …) and rows (B, V) → logits (B, classes) and outputs of the tasks (B, K).

    Args:
        shape: Of what is read of a photo: (D,) features, or (T, D) tokens.
        classes: C.
        tasks: What else is learned.
        block: From tokens to a feature; None where features are read.
    """
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = nn.Identity() if block is None else block
            self.cells = nn.Linear(shape[-1], classes)
            self.tasks = nn.Linear(shape[-1], tasks.width) if tasks else None

        def forward(self, x: torch.Tensor, rows: torch.Tensor) -> "tuple[torch.Tensor, torch.Tensor | None]":
            count, views = rows.shape
            of_views = self.block(x.reshape(count * views, *shape)).view(count, views, shape[-1])
            # one that is named again is no other view
            other = rows != rows[:, :1]
            other[:, 0] = True
            share = other / other.sum(dim=1, keepdim=True)
            feature = (share[:, None] @ of_views).squeeze(1)
            return self.cells(feature), self.tasks(feature) if self.tasks else None

    return Net()


def cell_loss(data: Data, options: Options, training: np.ndarray) -> Any:
    """The loss () of logits (B, C) and rows (B,): cross entropy against one cell, or against smoothed ones.

    Smoothed targets are made batch by batch on the device; weights of classes count in both.

    Raises:
        UserError: A row has no coordinates to smooth from.
    """
    import torch
    from torch.nn.functional import cross_entropy

    from geoloc_core.encoders.device import device
    from geoloc_core.geo.smoothing import smoothing
    from geoloc_core.training import losses
    from geoloc_core.training.weights import class_weights

    where = device()
    found = class_weights(options.recipe.weights, data.targets[training], len(data.space))
    weights, right = torch.from_numpy(found).to(where), torch.from_numpy(data.targets).to(where)
    if options.smoothing is None:
        return lambda logits, rows: losses.of_class(logits, right[rows], weights)
    places = np.stack([data.latitudes, data.longitudes])
    if lacking := int((~np.isfinite(places[:, training]).all(axis=0)).sum()):
        raise UserError(
            f"smoothing: {lacking:,} training photos have no coordinates; expected a corpus of photos with them"
        )
    smooth = smoothing(
        data.space.latitudes,
        data.space.longitudes,
        where,
        options.smoothing.tau_km,
        reference=options.smoothing.reference,
        normalise=options.smoothing.normalise,
    )
    latitudes, longitudes = (torch.from_numpy(axis).to(where) for axis in places)

    def loss(logits: "torch.Tensor", rows: "torch.Tensor") -> "torch.Tensor":
        return cross_entropy(logits, smooth.targets(latitudes[rows], longitudes[rows], right[rows]), weights)

    return loss


def total(
    net: Any, x: "torch.Tensor", rows: "torch.Tensor", of_cells: Any, targets: "Targets | None"
) -> "torch.Tensor":
    """The loss () of a batch: of the cells, and of the tasks."""
    logits, outputs = net(x, rows)
    found: torch.Tensor = of_cells(logits, rows[:, 0])
    return found if targets is None else found + targets.loss(outputs, rows[:, 0])


def exported(net: Any, temperature: float, scale: Scale | None) -> dict[str, np.ndarray]:
    """A trained network's tensors, as :class:`GeocellClassifier` keeps them."""
    tensors = {name: tensor.detach().cpu().float().numpy() for name, tensor in net.state_dict().items()}
    tensors["temperature"] = np.array([temperature], np.float32)
    return tensors if scale is None else tensors | {"scale.mean": scale.mean, "scale.std": scale.std}


def load(folder: Path, needs: Needs, space: LabelSpace, remedy: str) -> GeocellClassifier:
    """Read what :meth:`GeocellClassifier.save` wrote.

    Raises:
        UserError: The weights are missing, damaged, or do not fit the classes.
    """
    tensors, said = read_tensors(folder, remedy), read_json(folder / SAID, remedy, Said)
    width = width_of(tensors, "cells.weight")
    expected: dict[str, tuple[int, ...]] = {"cells.weight": (len(space), width), "cells.bias": (len(space),)}
    expected["temperature"] = (1,)
    if said.tasks:
        count, quantities = said.tasks.width, len(said.tasks.quantities)
        expected |= {"tasks.weight": (count, width), "tasks.bias": (count,)}
        expected |= {"scale.mean": (quantities,), "scale.std": (quantities,)}
    if said.block:
        inner = width_of(tensors, "block.layer.linear1.bias")
        own = last_block.shapes(width, inner, said.block.norm)
        expected |= {f"block.{name}": shape for name, shape in own.items()}
    check_shapes(folder, remedy, tensors, expected)
    [encoder] = (need.encoder for need in needs.inputs if isinstance(need, ImageFeatures | Tokens))
    tower = Carried.load(said.tower, folder / TOWER, remedy) if said.tower else None
    return GeocellClassifier(encoder, space, said, {name: tensors[name] for name in expected}, tower)
