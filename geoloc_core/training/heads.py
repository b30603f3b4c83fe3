"""Training of classifiers on features."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from pydantic import Field

from geoloc_core.encoders.device import device
from geoloc_core.errors import UserError
from geoloc_core.plugins import Strict
from geoloc_core.training import dense, loop, losses
from geoloc_core.training.calibration import calibrate
from geoloc_core.training.features import Features
from geoloc_core.training.fitting import averages, fit_network
from geoloc_core.training.optimisers import SGD, Optimiser, optimiser_of
from geoloc_core.training.schedules import Plateau, Schedule, schedule_of
from geoloc_core.training.stopping import Score
from geoloc_core.training.weights import ClassWeights, InverseFrequency, class_weights

if TYPE_CHECKING:
    import torch


class Recipe(Strict):
    """How a classifier is trained (Okkerman 2024, section 5).

    The thesis gives the kind of optimiser, the batch, the kind of schedule and the weights; it leaves open the numbers
    of the learning rate, of its schedule and of the early stop.
    """

    batch: int = Field(128, gt=0)
    """Photos a step."""
    epochs: int = Field(100, gt=0)
    """How often all training photos are seen, at most."""
    optimiser: Optimiser = SGD(lr=0.05)
    """What changes the weights."""
    schedule: Schedule = Plateau()
    """How the learning rate changes."""
    weights: ClassWeights | None = InverseFrequency()
    """Of classes in the loss; null weighs all photos alike."""
    stop_patience: int | None = Field(10, gt=0)
    """Epochs without a better validation accuracy before training ends; null trains them all."""


class Trains(Protocol):
    """What recipes of any family have."""

    @property
    def optimiser(self) -> Optimiser:
        """With the rates of the network's parts."""


Normalise = Literal["standardise", "batch_norm", "none"]
"""What is done to features first: by the training rows' mean and spread, by batch normalisation, or nothing."""

UNKNOWN = -1
"""Target of a validation row whose class has no training row: always a miss, never a loss."""
ROWS = 4096
"""Validation rows looked at in one go: their scores for 50,000 classes are 0.8 GB."""
BLOCK = 1 << 27
"""Numbers of features looked at in one go: those of :data:`ROWS` rows of 32,768 each."""


@dataclass(frozen=True)
class Fitted:
    """A trained network: the epoch with the best validation accuracy, not the last one.

    Attributes:
        net: Standardised features (N, D) → logits (N, C).
        mean: (D,) float32, on the CPU.
        std: (D,) float32, on the CPU.
        history: Metrics of every epoch.
        best: Number of the epoch kept.
        temperature: What the logits are to be divided by.
        figures: For the summary: parameters, speed and calibration.
    """

    net: "torch.nn.Module"
    mean: "torch.Tensor"
    std: "torch.Tensor"
    history: list[loop.Metrics]
    best: int
    temperature: float
    figures: dict[str, Any]


def check_rates(recipe: Trains, parts: tuple[str, ...]) -> None:
    """Refuse a recipe that gives learning rates of their own to other parts than those of the family's network.

    Raises:
        ValueError: For pydantic, which says it with the place in ``params.yaml``.
    """
    for name in recipe.optimiser.rates:
        if name not in parts:
            expected = f"expected one of: {', '.join(parts)}" if parts else "this family has no parts with one"
            raise ValueError(f"optimiser.rates.{name}: {expected}")


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
    normalise: Normalise = "standardise",
    groups: np.ndarray | None = None,
) -> Fitted:
    """Train dense layers on class-weighted cross entropy (Okkerman 2024, section 5).

    Args:
        features: Of N photos.
        targets: (N,) int64 classes; :data:`UNKNOWN` where there is none.
        training_rows: (n,) int64: what is learned from; each has a class.
        validation_rows: (m,) int64: what decides on the learning rate, the stop and the epoch kept; of other groups.
        classes: C.
        hidden: Widths of the hidden layers; none for the linear baseline.
        recipe: The numbers.
        seed: Of the weights and of the order of rows, where the recipe has none.
        checkpoint: The file that survives a kill.
        fingerprint: All that the training depends on.
        log: Called with the metrics of every epoch.
        budget: See :class:`geoloc_core.training.features.Batches`; it changes the memory and the speed, not the result.
        normalise: What is done to features first.
        groups: (N,) int64 the group of each row, which calibration does not split; left out, each is one of its own.

    Raises:
        UserError: A feature or the loss is not a finite number, or no class of a validation row is learned.
    """
    import torch

    weights = torch.from_numpy(class_weights(recipe.weights, targets[training_rows], classes)).to(device())
    torch.manual_seed(seed)
    net = network(features.dim, hidden, classes, normalise == "batch_norm")

    def loss(net: "torch.nn.Module", x: "torch.Tensor", truth: "torch.Tensor") -> "torch.Tensor":
        return losses.of_class(net(x), truth, weights)

    return fit_classifier(
        net,
        loss,
        lambda net, x: net(x),
        features,
        targets,
        training_rows,
        validation_rows,
        recipe,
        seed,
        checkpoint,
        fingerprint,
        log,
        budget,
        standardise=normalise == "standardise",
        groups=groups,
    )


def fit_classifier(
    net: "torch.nn.Module",
    loss_of: "Callable[[torch.nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]",
    logits_of: "Callable[[torch.nn.Module, torch.Tensor], torch.Tensor]",
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
    standardise: bool = True,
    groups: np.ndarray | None = None,
) -> Fitted:
    """Train any network that makes logits (N, C) of features (N, D), keep its best epoch, and fit its temperature.

    Args:
        net: The network, freshly made.
        loss_of: The mean loss of a batch: of the network, features (B, D) and classes (B,).
        logits_of: The logits (B, C) of the network and features (B, D).
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
        standardise: By the training rows' mean and standard deviation.
        groups: (N,).

    Raises:
        UserError: See :func:`fit`.
    """
    import torch

    wanted = torch.from_numpy(targets).to(device())
    return fit_units(
        net,
        lambda net, x, rows: loss_of(net, x, wanted[rows]),
        lambda net, x, rows: logits_of(net, x),
        features,
        targets,
        training_rows,
        validation_rows,
        recipe,
        seed,
        checkpoint,
        fingerprint,
        log,
        budget,
        standardise,
        groups,
    )


def fit_units(
    net: "torch.nn.Module",
    loss_of: "Callable[[torch.nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]",
    logits_of: "Callable[[torch.nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]",
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
    standardise: bool = True,
    groups: np.ndarray | None = None,
    score: Score = lambda metrics: metrics["validation_accuracy"],
) -> Fitted:
    """Train a network on units of a photo each, or of several: see :func:`fit_classifier`.

    Args:
        net: The network, freshly made.
        loss_of: The mean loss of a batch: of the network, features (B, …, D) and rows (B, …), by which it looks up
            what else is known of them.
        logits_of: The logits (B, C) of the network, features (B, …, D) and rows (B, …).
        features: See :func:`fit`, as of all that follow.
        targets: (N,); the class of a unit of several rows is that of the first.
        training_rows: (n, …): a row for each unit, or V.
        validation_rows: (m, …).
        recipe: The numbers.
        seed: Of the order of units.
        checkpoint: A file.
        fingerprint: Plain values.
        log: Called each epoch.
        budget: Bytes.
        standardise: By the training rows' mean and standard deviation.
        groups: (N,), of the first row of each unit.
        score: What decides which epoch is best.

    Raises:
        UserError: See :func:`fit`.
    """
    import torch

    if (targets[_first(validation_rows)] == UNKNOWN).all():
        what = "photos" if validation_rows.ndim == 1 else "places"
        raise UserError(
            f"none of the {len(validation_rows):,} validation {what} is of a class that has training {what}; "
            "more photos are needed"
        )
    where = device()
    net = net.to(where)
    if standardise:
        mean, std = features.statistics(_each(training_rows))
    else:
        features.check(_each(training_rows))
        mean, std = np.zeros(features.dim, np.float32), np.ones(features.dim, np.float32)
    features.check(_each(validation_rows))
    training = features.on(training_rows, where, mean, std, budget)
    held_out = features.on(validation_rows, where, mean, std, budget)
    at_once = max(1, min(ROWS, BLOCK // (features.dim * validation_rows[0].size)))
    wanted = torch.from_numpy(targets).to(where)
    optimiser = optimiser_of(recipe.optimiser, net)

    def measure(x: "torch.Tensor", rows: "torch.Tensor") -> dict[str, tuple[float, int]]:
        return measured(logits_of(net, x, rows), wanted[_first(rows)])

    outcome = fit_network(
        net,
        loss_of,
        training,
        lambda: averages(held_out.in_order(at_once), measure),
        optimiser,
        schedule_of(recipe.schedule, optimiser, recipe.epochs),
        recipe.batch,
        recipe.epochs,
        recipe.stop_patience,
        seed,
        checkpoint,
        fingerprint,
        log,
        score,
    )
    with torch.inference_mode():
        of = np.arange(len(targets)) if groups is None else groups
        batches = ((x, rows, _first(rows)) for x, rows in held_out.in_order(at_once))
        answered = ((logits_of(net, x, rows), wanted[one], of[one.cpu().numpy()]) for x, rows, one in batches)
        calibration = calibrate(answered, len(held_out), seed)
    return Fitted(
        net,
        torch.from_numpy(mean),
        torch.from_numpy(std),
        outcome.history,
        outcome.best,
        calibration.temperature,
        {**counts(net), **vars(outcome.pace), **vars(calibration)},
    )


def _first(rows: Any) -> Any:
    """(B,) the row that stands for each unit (B, …), an array's or a tensor's."""
    return rows.reshape(len(rows), -1)[:, 0]


def _each(rows: np.ndarray) -> np.ndarray:
    """Every row that units (n, …) are made of, once; units of a photo each keep their order."""
    return rows if rows.ndim == 1 else np.unique(rows)


def measured(logits: "torch.Tensor", right: "torch.Tensor") -> dict[str, tuple[float, int]]:
    """Loss and accuracy of validation rows, each a mean and over how many: a row of no known class is a miss.

    Args:
        logits: (B, C) float32.
        right: (B,) int64 classes; :data:`UNKNOWN` where there is none.
    """
    from torch.nn.functional import cross_entropy

    known = int((right != UNKNOWN).sum())
    return {
        "validation_loss": (cross_entropy(logits, right, ignore_index=UNKNOWN).item(), known),
        "validation_accuracy": (100 * (logits.argmax(1) == right).float().mean().item(), len(right)),
    }


def counts(net: "torch.nn.Module") -> dict[str, int]:
    """How many parameters a network has, and how many of them are learned."""
    parameters = list(net.parameters())
    learned = sum(p.numel() for p in parameters if p.requires_grad)
    return {"trainable_parameters": learned, "parameters": sum(p.numel() for p in parameters)}


def network(inputs: int, hidden: tuple[int, ...], classes: int, normalised: bool = False) -> "torch.nn.Sequential":
    """Linear layers with ReLU between them, if wanted after batch normalisation: (N, inputs) → logits (N, classes)."""
    from torch import nn

    layers: list[nn.Module] = [batch_norm(inputs)] if normalised else []
    for width in hidden:
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, classes))


def batch_norm(width: int) -> "torch.nn.BatchNorm1d":
    """Batch normalisation of (N, width).

    One row has no spread: a last batch of one is normalised by the running statistics.
    """
    import torch
    from torch import nn
    from torch.nn import functional

    class BatchNorm(nn.BatchNorm1d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training and len(x) == 1:
                known = (self.running_mean, self.running_var, self.weight, self.bias)
                return functional.batch_norm(x, *known, eps=self.eps)
            return super().forward(x)

    return BatchNorm(width)


def linear_layers(net: "torch.nn.Module") -> dense.Layers:
    """Each linear layer of a network, in order."""
    from torch import nn

    return [
        (layer.weight.detach().cpu().numpy(), layer.bias.detach().cpu().numpy())
        for layer in net.modules()
        if isinstance(layer, nn.Linear)
    ]


def normalised_layers(net: Any) -> tuple[np.ndarray, np.ndarray, dense.Layers]:
    """A network that begins with batch normalisation, for :mod:`geoloc_core.training.dense`.

    Args:
        net: A ``torch.nn.Sequential``.

    Returns:
        Mean (D,) and standard deviation (D,) of its inputs, and its linear layers, the first of which takes on the
        gain and shift of the normalisation.
    """
    norm = net[0]
    mean, variance, gain, shift = (
        tensor.detach().cpu().double().numpy()
        for tensor in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    (weight, bias), *others = linear_layers(net)
    first = (weight * gain).astype(np.float32), (bias + weight @ shift).astype(np.float32)
    return mean.astype(np.float32), np.sqrt(variance + norm.eps).astype(np.float32), [first, *others]
