"""A feed-forward classifier on the features of one or more frozen encoders: what the thesis trains.

Okkerman 2024, section 4: a baseline of one linear layer, and a network with hidden layers of 1024, 512 and 256, on the
features of CLIP alone or of CLIP and ViT together.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, PositiveInt

from geoloc_core.contracts.batch import Batch, Data, Fitted, Run
from geoloc_core.contracts.geolocator import check_shapes, read_tensors, write_tensors
from geoloc_core.contracts.needs import ImageFeatures, Needs
from geoloc_core.contracts.options import Variant
from geoloc_core.contracts.prediction import Prediction, softmax
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.training.heads import Recipe


class Options(Variant):
    """A variant of this family."""

    kind: Literal["classifier"]
    encoders: Annotated[tuple[str, ...], Field(min_length=1)]
    """Their features are joined in this order."""
    labels: str
    hidden: tuple[PositiveInt, ...] = ()
    """Widths of the hidden layers; none for a linear classifier."""
    recipe: Recipe = Recipe()

    def needs(self) -> Needs:
        """A vector per photo of each encoder."""
        return Needs(inputs=tuple(ImageFeatures(encoder=name) for name in self.encoders), labels=self.labels)


@dataclass(frozen=True)
class Classifier:
    """A trained classifier. It answers in NumPy, so that scoring and serving start light.

    Attributes:
        encoders: Names of the encoders whose features it reads, in the order it joins them.
        labelspace: Its C classes.
        mean: (D,) of the joined training features.
        std: (D,) of the joined training features.
        layers: Weight (out, in) and bias (out,) of each linear layer; ReLU stands between them.
    """

    encoders: list[str]
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

    def predict(self, batch: Batch, k: int = 5, truth: np.ndarray | None = None) -> Prediction:
        """The k most probable classes; the answer is the place of the best."""
        logits = self.logits(np.concatenate([batch.images[name] for name in self.encoders], axis=1))
        return Prediction.of_probabilities(softmax(logits), self.labelspace, k, truth)

    def save(self, folder: Path) -> None:
        """Write its weights into an existing folder."""
        tensors = {"mean": self.mean, "std": self.std}
        for number, (weight, bias) in enumerate(self.layers):
            tensors |= {f"layers.{number}.weight": weight, f"layers.{number}.bias": bias}
        write_tensors(folder, tensors)


def fit(data: Data, options: Options, run: Run) -> Fitted:
    """Train one: SGD on class-weighted cross entropy, the epoch with the best validation accuracy is kept."""
    from geoloc_core.training import heads
    from geoloc_core.training.features import Features

    fitted = heads.fit(
        Features(tuple(data.images[name] for name in options.encoders)),
        data.targets,
        data.training,
        data.validation,
        len(data.space),
        options.hidden,
        options.recipe,
        run.seed,
        run.checkpoint,
        run.depends,
        run.log,
    )
    model = Classifier(
        list(options.encoders), data.space, fitted.mean.numpy(), fitted.std.numpy(), heads.linear_layers(fitted.net)
    )
    return Fitted(model, fitted.history, fitted.best)


def load(folder: Path, needs: Needs, space: LabelSpace, remedy: str) -> Classifier:
    """Read what :meth:`Classifier.save` wrote.

    Raises:
        UserError: The weights are missing, damaged, or do not fit the classes.
    """
    tensors = read_tensors(folder, remedy)
    count = len({name.split(".")[1] for name in tensors if name.startswith("layers.") and name.count(".") == 2})
    names = [f"layers.{n}" for n in range(max(count, 1))]
    widths = [tensors.get("mean", np.empty(0)).size]
    widths += [tensors.get(f"{name}.bias", np.empty(0)).size for name in names[:-1]] + [len(space)]
    expected: dict[str, tuple[int, ...]] = {"mean": (widths[0],), "std": (widths[0],)}
    for name, inputs, outputs in zip(names, widths, widths[1:], strict=False):
        expected |= {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}
    check_shapes(folder, remedy, tensors, expected)
    layers = [(tensors[f"{name}.weight"], tensors[f"{name}.bias"]) for name in names]
    return Classifier(needs.encoders, space, tensors["mean"], tensors["std"], layers)
