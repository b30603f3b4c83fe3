"""Training of classifiers on features."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from geoloc_core.encoders.device import device
from geoloc_core.errors import UserError
from geoloc_core.plugins import Strict
from geoloc_core.training import loop
from geoloc_core.training.features import Features
from geoloc_core.training.fitting import averages, fit_network
from geoloc_core.training.weights import inverse_frequency

if TYPE_CHECKING:
    import torch


class Recipe(Strict):
    """How a classifier is trained (Okkerman 2024, section 5).

    The thesis gives the optimiser, the batch, the schedule and the weights; it leaves open the numbers of the
    learning rate, of its schedule and of the early stop, and whether features are standardised.
    """

    batch: int = Field(128, gt=0)
    lr: float = Field(0.05, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    epochs: int = Field(100, gt=0)
    weight_power: float = Field(1.0, ge=0, le=1)
    """Class weight = frequency^−power: 1 in the thesis. Less where most classes have few photos."""
    standardise: bool = True
    plateau_factor: float = Field(0.5, gt=0, lt=1)
    plateau_patience: int = Field(3, ge=0)
    """Epochs without a better validation loss before the learning rate falls."""
    stop_patience: int = Field(10, gt=0)
    """Epochs without a better validation accuracy before training ends."""


UNKNOWN = -1
"""Target of a validation row whose class has no training row: always a miss, never a loss."""
VALIDATED = 4096
"""Validation rows looked at in one go: their scores for 50,000 classes are 0.8 GB."""


@dataclass(frozen=True)
class Fitted:
    """A trained network: the epoch with the best validation accuracy, not the last one.

    Attributes:
        net: Standardised features (N, D) → logits (N, C).
        mean: (D,) float32, on the CPU.
        std: (D,) float32, on the CPU.
        history: Metrics of every epoch.
        best: Number of the epoch kept.
    """

    net: "torch.nn.Module"
    mean: "torch.Tensor"
    std: "torch.Tensor"
    history: list[loop.Metrics]
    best: int


def fit(
    features: Features,
    targets: np.ndarray,
    training_rows: np.ndarray,
    validation_rows: np.ndarray,
    classes: int,
    hidden: tuple[int, ...],
    recipe: Recipe,
    seed: int,
    checkpoint: Path,
    fingerprint: Any,
    log: loop.Log,
    budget: int | None = None,
) -> Fitted:
    """Train with SGD on class-weighted cross entropy; reduce on plateau, stop early (Okkerman 2024, section 5).

    Args:
        features: Of N photos.
        targets: (N,) int64 classes; :data:`UNKNOWN` where there is none.
        training_rows: (n,) int64: what is learned from; each has a class.
        validation_rows: (m,) int64: what decides on the learning rate, the stop and the epoch kept; of other groups.
        classes: C.
        hidden: Widths of the hidden layers; none for the linear baseline.
        recipe: The numbers.
        seed: Of the weights and of the order of rows.
        checkpoint: The file that survives a kill.
        fingerprint: All that the training depends on.
        log: Called with the metrics of every epoch.
        budget: See :class:`geoloc_core.training.features.Batches`; it changes the memory and the speed, not the result.

    Raises:
        UserError: A feature or the loss is not a finite number, or no class of a validation row is learned.
    """
    import torch
    from torch.nn.functional import cross_entropy

    weights = torch.from_numpy(inverse_frequency(targets[training_rows], classes, recipe.weight_power)).to(device())
    torch.manual_seed(seed)
    net = network(features.dim, hidden, classes)

    def loss(net: "torch.nn.Module", x: "torch.Tensor", truth: "torch.Tensor") -> "torch.Tensor":
        return cross_entropy(net(x), truth, weights)

    given = (features, targets, training_rows, validation_rows)
    return fit_classifier(net, loss, *given, recipe, seed, checkpoint, fingerprint, log, budget)


def fit_classifier(
    net: "torch.nn.Module",
    loss_of: "Callable[[torch.nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]",
    features: Features,
    targets: np.ndarray,
    training_rows: np.ndarray,
    validation_rows: np.ndarray,
    recipe: Recipe,
    seed: int,
    checkpoint: Path,
    fingerprint: Any,
    log: loop.Log,
    budget: int | None = None,
) -> Fitted:
    """Train any network that makes logits (N, C) of standardised features (N, D); see :func:`fit`.

    Args:
        net: The network, freshly made.
        loss_of: The mean loss of a batch: of the network, standardised features (B, D) and classes (B,).
        features: See :func:`fit`, as of all that follow.
        targets: (N,).
        training_rows: (n,).
        validation_rows: (m,).
        recipe: The numbers.
        seed: Of the order of rows.
        checkpoint: A file.
        fingerprint: Plain values.
        log: Called each epoch.
        budget: Bytes.

    Raises:
        UserError: See :func:`fit`.
    """
    import torch
    from torch.nn.functional import cross_entropy

    if (targets[validation_rows] == UNKNOWN).all():
        raise UserError(
            f"none of the {len(validation_rows):,} validation photos is of a class that has training photos; "
            "more photos are needed"
        )
    where = device()
    net = net.to(where)
    mean, std = features.statistics(training_rows) if recipe.standardise else _none(features.dim)
    training = features.on(training_rows, where, mean, std, budget)
    held_out = features.on(validation_rows, where, mean, std, budget)
    wanted = torch.from_numpy(targets).to(where)
    optimiser = torch.optim.SGD(net.parameters(), recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser, factor=recipe.plateau_factor, patience=recipe.plateau_patience
    )

    def loss(net: "torch.nn.Module", x: "torch.Tensor", rows: "torch.Tensor") -> "torch.Tensor":
        return loss_of(net, x, wanted[rows])

    def measure(x: "torch.Tensor", rows: "torch.Tensor") -> dict[str, tuple[float, int]]:
        logits, right = net(x), wanted[rows]
        known = int((right != UNKNOWN).sum())
        return {
            "validation_loss": (cross_entropy(logits, right, ignore_index=UNKNOWN).item(), known),
            "validation_accuracy": (100 * (logits.argmax(1) == right).float().mean().item(), len(rows)),
        }

    outcome = fit_network(
        net,
        loss,
        training,
        lambda: averages(held_out.in_order(VALIDATED), measure),
        optimiser,
        schedule,
        recipe.batch,
        recipe.epochs,
        recipe.stop_patience,
        seed,
        checkpoint,
        fingerprint,
        log,
    )
    return Fitted(net, torch.from_numpy(mean), torch.from_numpy(std), outcome.history, outcome.best)


def _none(dim: int) -> tuple[np.ndarray, np.ndarray]:
    """A mean and a standard deviation (D,) that change nothing."""
    return np.zeros(dim, np.float32), np.ones(dim, np.float32)


def network(inputs: int, hidden: tuple[int, ...], classes: int) -> "torch.nn.Sequential":
    """Linear layers with ReLU between them: (N, inputs) → logits (N, classes)."""
    from torch import nn

    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, classes))


def linear_layers(net: "torch.nn.Module") -> list[tuple[np.ndarray, np.ndarray]]:
    """Weight (out, in) and bias (out,) of each linear layer of a network, in order."""
    from torch import nn

    return [
        (layer.weight.detach().cpu().numpy(), layer.bias.detach().cpu().numpy())
        for layer in net.modules()
        if isinstance(layer, nn.Linear)
    ]
