"""Training of classifiers on features: the features stay on the device, and the loop is plain."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from geoloc_core.encoders.device import device
from geoloc_core.plugins import Strict
from geoloc_core.training import loop
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


@dataclass(frozen=True)
class Rows:
    """Labelled features.

    Attributes:
        features: (N, D) float16, all encoders joined.
        targets: (N,) int64 classes.
    """

    features: np.ndarray
    targets: np.ndarray


@dataclass(frozen=True)
class Fitted:
    """A trained network: the epoch with the best validation accuracy, not the last one.

    Attributes:
        net: Standardised features (N, D) → logits (N, C).
        mean: (D,).
        std: (D,).
        history: Metrics of every epoch.
        best: Number of the epoch kept.
    """

    net: "torch.nn.Module"
    mean: "torch.Tensor"
    std: "torch.Tensor"
    history: list[loop.Metrics]
    best: int


def fit(
    training: Rows,
    validation: Rows,
    classes: int,
    hidden: tuple[int, ...],
    recipe: Recipe,
    seed: int,
    checkpoint: Path,
    fingerprint: Any,
    log: loop.Log,
) -> Fitted:
    """Train with SGD on class-weighted cross entropy; reduce on plateau, stop early (Okkerman 2024, section 5).

    Args:
        training: What is learned from.
        validation: What decides on the learning rate, the stop and the epoch kept; from other groups.
        classes: C.
        hidden: Widths of the hidden layers; none for the linear baseline.
        recipe: The numbers.
        seed: Of the weights and of the order of rows.
        checkpoint: The file that survives a kill.
        fingerprint: All that the training depends on.
        log: Called with the metrics of every epoch.
    """
    import torch
    from torch.nn.functional import cross_entropy

    weights = torch.from_numpy(inverse_frequency(training.targets, classes, recipe.weight_power)).to(device())
    torch.manual_seed(seed)
    net = network(training.features.shape[1], hidden, classes)

    def loss(features: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
        return cross_entropy(net(features), targets, weights)

    return fit_network(net, loss, training, validation, recipe, seed, checkpoint, fingerprint, log)


def fit_network(
    net: "torch.nn.Module",
    loss_of: "Callable[[torch.Tensor, torch.Tensor], torch.Tensor]",
    training: Rows,
    validation: Rows,
    recipe: Recipe,
    seed: int,
    checkpoint: Path,
    fingerprint: Any,
    log: loop.Log,
) -> Fitted:
    """Train any network that makes logits (N, C) of standardised features (N, D): see :func:`fit`.

    Args:
        net: The network, freshly made; it is moved to the device.
        loss_of: The loss of a batch: standardised features (N, D) and targets (N,) → scalar.
        training: See :func:`fit`.
        validation: See :func:`fit`.
        recipe: See :func:`fit`.
        seed: Of the order of rows.
        checkpoint: See :func:`fit`.
        fingerprint: See :func:`fit`.
        log: See :func:`fit`.
    """
    import torch
    from torch.nn.functional import cross_entropy

    where = device()
    features = torch.from_numpy(training.features).float()
    mean, std = _statistics(features, recipe.standardise)
    features = ((features - mean) / std).to(where)
    targets = torch.from_numpy(training.targets).to(where)
    held_out = ((torch.from_numpy(validation.features).float() - mean) / std).to(where)
    held_targets = torch.from_numpy(validation.targets).to(where)
    net = net.to(where)
    optimiser = torch.optim.SGD(net.parameters(), recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser, factor=recipe.plateau_factor, patience=recipe.plateau_patience
    )
    keeper = _Keeper(net)

    def one_epoch(epoch: int) -> loop.Metrics:
        net.train()
        order = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed * 1000 + epoch)).to(where)
        total = torch.zeros((), device=where)
        for batch in order.split(recipe.batch):
            loss = loss_of(features[batch], targets[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.detach() * len(batch)
        net.eval()
        with torch.inference_mode():
            logits = net(held_out)
            held_loss = cross_entropy(logits, held_targets, ignore_index=UNKNOWN).item()
            accuracy = (logits.argmax(1) == held_targets).float().mean().item()
        rate = optimiser.param_groups[0]["lr"]
        schedule.step(held_loss)
        keeper.see(accuracy)
        return {
            "loss": total.item() / len(features),
            "validation_loss": held_loss,
            "validation_accuracy": 100 * accuracy,
            "lr": rate,
        }

    def stop(history: list[loop.Metrics]) -> bool:
        return len(history) - 1 - _best(history) >= recipe.stop_patience

    parts = {"net": net, "optimiser": optimiser, "schedule": schedule, "best": keeper}
    history = loop.run_epochs(parts, range(recipe.epochs), one_epoch, checkpoint, fingerprint, log, stop)
    net.load_state_dict(keeper.weights)
    return Fitted(net, mean, std, history, _best(history))


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


def _best(history: list[loop.Metrics]) -> int:
    return int(np.argmax([epoch["validation_accuracy"] for epoch in history]))


def _statistics(features: "torch.Tensor", standardise: bool) -> tuple["torch.Tensor", "torch.Tensor"]:
    import torch

    if not standardise or len(features) == 1:  # one row does not spread
        return torch.zeros(features.shape[1]), torch.ones(features.shape[1])
    return features.mean(dim=0), features.std(dim=0).clamp_min(1e-6)


class _Keeper:
    """Keeps the weights of the epoch with the best validation accuracy, through a kill too."""

    def __init__(self, net: "torch.nn.Module") -> None:
        self.net = net
        self.accuracy = -1.0
        self.weights = self._copy()

    def _copy(self) -> dict[str, "torch.Tensor"]:
        return {name: tensor.detach().cpu().clone() for name, tensor in self.net.state_dict().items()}

    def see(self, accuracy: float) -> None:
        if accuracy > self.accuracy:
            self.accuracy, self.weights = accuracy, self._copy()

    def state_dict(self) -> dict[str, Any]:
        return {"accuracy": self.accuracy, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.accuracy, self.weights = state["accuracy"], state["weights"]
