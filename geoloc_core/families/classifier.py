"""A feed-forward classifier on the features of one or more frozen encoders: what the thesis trains.

Okkerman 2024, section 4: a baseline of one linear layer, and a network with hidden layers of 1024, 512 and 256, on the
features of CLIP alone or of CLIP and ViT together.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, PositiveInt, field_validator

from geoloc_core.contracts.batch import Batch, Data, Fitted, Run
from geoloc_core.contracts.differentiable import Differentiable
from geoloc_core.contracts.geolocator import check_shapes, read_tensors, width_of, write_tensors
from geoloc_core.contracts.needs import ImageFeatures, Needs
from geoloc_core.contracts.options import Variant
from geoloc_core.contracts.prediction import Prediction, softmax
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.training import dense
from geoloc_core.training.heads import Normalise, Recipe, check_rates


class Options(Variant):
    """A variant of this family."""

    kind: Literal["classifier"]
    encoders: Annotated[tuple[str, ...], Field(min_length=1)]
    """Their features are joined in this order."""
    labels: str
    """The label space that it learns."""
    hidden: tuple[PositiveInt, ...] = ()
    """Widths of the hidden layers; none for a linear classifier."""
    normalise: Normalise = "standardise"
    """What is done to the joined features first. The thesis leaves it open; ``batch_norm`` is what G³ does."""
    recipe: Recipe = Recipe()

    @field_validator("recipe")
    @classmethod
    def _has_no_parts(cls, recipe: Recipe) -> Recipe:
        check_rates(recipe, ())
        return recipe

    def needs(self) -> Needs:
        """A vector per photo of each encoder."""
        return Needs(inputs=tuple(ImageFeatures(encoder=name) for name in self.encoders), labels=self.labels)


@dataclass(frozen=True)
class Classifier:
    """A trained classifier. It answers in NumPy, so that scoring and serving start light.

    Attributes:
        encoders: Names of the encoders whose features it reads, in the order it joins them.
        labelspace: Its C classes.
        mean: (D,) that is subtracted from the joined features.
        std: (D,) that they are then divided by.
        layers: What is done to them after that.
        temperature: What the logits are divided by.
    """

    encoders: list[str]
    labelspace: LabelSpace
    mean: np.ndarray
    std: np.ndarray
    layers: dense.Layers
    temperature: float = 1.0

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Scores (N, C) float32 of joined features (N, D), before the temperature."""
        return dense.logits_of(self.layers, (np.asarray(features, np.float32) - self.mean) / self.std)

    def predict(self, batch: Batch, k: int = 5, truth: np.ndarray | None = None) -> Prediction:
        """The k most probable classes; the answer is the place of the best."""
        logits = self.logits(np.concatenate([batch.images[name] for name in self.encoders], axis=1))
        return Prediction.of_probabilities(softmax(logits / np.float32(self.temperature)), self.labelspace, k, truth)

    def differentiable(self) -> Differentiable:
        """The same in PyTorch."""
        import torch

        mean, std, layers = torch.from_numpy(self.mean), torch.from_numpy(self.std), dense.in_torch(self.layers)
        return Differentiable(self.encoders, None, lambda x: layers((x - mean) / std) / self.temperature)

    def save(self, folder: Path) -> None:
        """Write its weights into an existing folder."""
        temperature = np.array([self.temperature], np.float32)
        tensors = {"mean": self.mean, "std": self.std, "temperature": temperature}
        write_tensors(folder, tensors | dense.to_tensors(self.layers))


def fit(data: Data, options: Options, run: Run) -> Fitted:
    """Train one on class-weighted cross entropy; the epoch with the best validation accuracy is kept."""
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
        normalise=options.normalise,
        groups=data.groups,
    )
    if options.normalise == "batch_norm":
        mean, std, layers = heads.normalised_layers(fitted.net)
    else:
        mean, std, layers = fitted.mean.numpy(), fitted.std.numpy(), heads.linear_layers(fitted.net)
    model = Classifier(list(options.encoders), data.space, mean, std, layers, fitted.temperature)
    return Fitted(model, fitted.history, fitted.best, fitted.figures)


def load(folder: Path, needs: Needs, space: LabelSpace, remedy: str) -> Classifier:
    """Read what :meth:`Classifier.save` wrote.

    Raises:
        UserError: The weights are missing, damaged, or do not fit the classes.
    """
    tensors = read_tensors(folder, remedy)
    d = width_of(tensors, "mean")
    expected: dict[str, tuple[int, ...]] = {"mean": (d,), "std": (d,), "temperature": (1,)}
    check_shapes(folder, remedy, tensors, expected | dense.shapes(tensors, d, len(space)))
    temperature = tensors["temperature"].item()
    return Classifier(needs.encoders, space, tensors["mean"], tensors["std"], dense.of_tensors(tensors), temperature)
