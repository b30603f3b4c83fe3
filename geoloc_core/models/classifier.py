"""A feed-forward classifier over the features of one or more encoders: what the thesis trains.

Okkerman 2024, section 4: a baseline of one linear layer, and a network with hidden layers of 1024, 512 and 256.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field, PositiveInt

from geoloc_core.errors import UserError
from geoloc_core.files import read_bytes, read_json, write_json
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.models.prediction import Prediction
from geoloc_core.plugins import Strict

WEIGHTS = "model.safetensors"
CARD = "model.json"
LABELS = "labels.json"


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
    """A class weighs its frequency to minus this power: 1 in the thesis. Less where most classes have few photos."""
    standardise: bool = True
    plateau_factor: float = Field(0.5, gt=0, lt=1)
    plateau_patience: int = Field(3, ge=0)
    """Epochs without a better validation loss before the learning rate falls."""
    stop_patience: int = Field(10, gt=0)
    """Epochs without a better validation accuracy before training ends."""


class Card(Strict):
    """What is said of a classifier beside its weights."""

    family: str
    encoders: list[str]
    fingerprints: dict[str, str]
    layers: PositiveInt


@dataclass(frozen=True)
class Classifier:
    """A trained classifier: a Geolocator. It answers in NumPy, so that scoring and serving start light.

    Attributes:
        family: The family it belongs to.
        encoders: Names of the encoders whose features it reads, in the order it joins them.
        fingerprints: What made those features, by encoder.
        labelspace: Its C classes.
        mean: (D,) of the joined training features.
        std: (D,) of the joined training features.
        layers: Weight (out, in) and bias (out,) of each linear layer; ReLU stands between them.
    """

    family: str
    encoders: list[str]
    fingerprints: dict[str, str]
    labelspace: LabelSpace
    mean: np.ndarray
    std: np.ndarray
    layers: list[tuple[np.ndarray, np.ndarray]]

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Scores (N, C) float32 of joined features (N, D)."""
        hidden = (np.asarray(features, np.float32) - self.mean) / self.std
        for weight, bias in self.layers[:-1]:
            hidden = np.maximum(hidden @ weight.T + bias, 0)
        weight, bias = self.layers[-1]
        return hidden @ weight.T + bias

    def predict_features(self, features: dict[str, np.ndarray], k: int = 5) -> Prediction:
        """The k most probable classes; the answer is the centroid of the best.

        Args:
            features: (N, D_i) per encoder name.
            k: How many classes; at most C.
        """
        logits = self.logits(np.concatenate([features[name] for name in self.encoders], axis=1))
        probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        classes = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
        best = np.take_along_axis(probabilities, classes, axis=1)
        latitudes, longitudes = self.labelspace.latitudes[classes], self.labelspace.longitudes[classes]
        return Prediction(classes, best, latitudes, longitudes, latitudes[:, 0], longitudes[:, 0])

    def save(self, folder: Path) -> None:
        """Write weights, classes and a card into an existing folder."""
        from safetensors.numpy import save_file

        tensors = {"mean": self.mean, "std": self.std}
        for number, (weight, bias) in enumerate(self.layers):
            tensors |= {f"layers.{number}.weight": weight, f"layers.{number}.bias": bias}
        save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, folder / WEIGHTS)
        self.labelspace.save(folder / LABELS)
        write_json(
            folder / CARD,
            {
                "family": self.family,
                "encoders": self.encoders,
                "fingerprints": self.fingerprints,
                "layers": len(self.layers),
            },
        )


def load(folder: Path, remedy: str) -> Classifier:
    """Read what :meth:`Classifier.save` wrote.

    Args:
        folder: Where it lies.
        remedy: What makes it anew.

    Raises:
        UserError: The folder does not hold a classifier, or a damaged one.
    """
    card = read_json(folder / CARD, remedy, Card)
    space = LabelSpace.load(folder / LABELS, remedy)
    tensors = _tensors(folder / WEIGHTS, remedy)
    try:
        layers = [(tensors[f"layers.{n}.weight"], tensors[f"layers.{n}.bias"]) for n in range(card.layers)]
        mean, std = tensors["mean"], tensors["std"]
    except KeyError as error:
        raise UserError(f"{folder / WEIGHTS}: no tensor {error}; {remedy}") from None
    widths = [mean.shape, *(bias.shape for _, bias in layers)]
    fits = [weight.shape == (*widths[n + 1], *widths[n]) for n, (weight, _) in enumerate(layers)]
    if std.shape != mean.shape or not all(fits) or widths[-1] != (len(space),):
        shapes = ", ".join(f"{name} {tensor.shape}" for name, tensor in sorted(tensors.items()))
        raise UserError(f"{folder}: {shapes} do not fit {len(space)} classes; {remedy}")
    if unknown := [name for name in card.encoders if name not in card.fingerprints]:
        raise UserError(f"{folder / CARD}: no fingerprint of {unknown[0]}; {remedy}")
    return Classifier(card.family, card.encoders, card.fingerprints, space, mean, std, layers)


def _tensors(path: Path, remedy: str) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors: dict[str, np.ndarray] = load(read_bytes(path, remedy))
    except (SafetensorError, ValueError, KeyError) as error:
        raise UserError(f"{path}: not a safetensors file: {error}; {remedy}") from None
    return tensors
