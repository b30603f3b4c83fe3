"""Attention over the clues of a guidebook, beside the features of the photo.

Luo et al. 2022 (G³), section 4, and Siński et al. 2024 (ICONIP), "Proposed solution": the photo's features say how much
each clue matters; the clues' features, weighted so, are joined to the photo's; one linear layer names the class. Where
a clue's country is known, attention is also taught directly: towards the clues about the photo's country.

The clues travel with the model, so that it names what it attended to.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from geoloc_core.contracts.batch import Batch, Data, Fitted, Run, Sentences
from geoloc_core.contracts.geolocator import check_shapes, read_tensors, write_tensors
from geoloc_core.contracts.needs import ImageFeatures, Needs, TextFeatures
from geoloc_core.contracts.options import Variant
from geoloc_core.contracts.prediction import Evidence, Prediction, softmax
from geoloc_core.errors import UserError
from geoloc_core.files import read_json, write_json
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.plugins import Strict
from geoloc_core.training.heads import Recipe

if TYPE_CHECKING:
    import torch

CLUES = "clues.json"
NAMED = 5
"""Clues that an answer names."""


class Options(Variant):
    """A variant of this family."""

    kind: Literal["guidebook_attention"]
    encoders: tuple[str, ...] = Field(min_length=1)
    """Of the photo; their features are joined in this order."""
    text_encoder: str
    texts: str
    """The clues."""
    labels: str
    guidance: float = Field(0.75, ge=0, le=1)
    """Share of the loss that teaches attention directly (α of Luo et al.)."""
    positive_weight: float = Field(50.0, gt=0)
    """How much a clue about the photo's country weighs there against one that is not."""
    recipe: Recipe = Recipe(lr=0.01, momentum=0.9, weight_decay=0.0001, batch=128, epochs=40)

    def needs(self) -> Needs:
        """The photo's features, and the clues' features."""
        images = tuple(ImageFeatures(encoder=name) for name in self.encoders)
        return Needs(inputs=(*images, TextFeatures(encoder=self.text_encoder, texts=self.texts)), labels=self.labels)


class Clues(Strict):
    """The clues as JSON has them."""

    ids: list[str]
    texts: list[str]


@dataclass(frozen=True)
class Attention:
    """A trained model over M clues.

    Attributes:
        encoders: Names of the encoders whose features it reads, in the order it joins them.
        labelspace: Its C classes.
        ids: (M,) of the clues.
        texts: (M,) the clues.
        tensors: ``mean`` and ``std`` (D,) of the photos' features; ``query`` (M, D) and ``bias`` (M,) of attention;
            ``clues`` (M, T); ``clue_mean`` and ``clue_std`` (T,) of the attended clues; ``weight`` (C, D + T) and
            ``offset`` (C,) of the last layer.
    """

    encoders: list[str]
    labelspace: LabelSpace
    ids: list[str]
    texts: list[str]
    tensors: dict[str, np.ndarray]

    def attend(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Attention (N, M) and logits (N, C) of joined features (N, D)."""
        t = self.tensors
        photo = (np.asarray(features, np.float32) - t["mean"]) / t["std"]
        attention = np.exp(-np.logaddexp(0, -(photo @ t["query"].T + t["bias"])))  # the sigmoid, without overflow
        text = (attention @ t["clues"] - t["clue_mean"]) / t["clue_std"]
        return attention, np.concatenate([photo, text], axis=1) @ t["weight"].T + t["offset"]

    def predict(self, batch: Batch, k: int = 5, truth: np.ndarray | None = None) -> Prediction:
        """The k most probable classes, and the clues that each photo was seen to attend to most."""
        features = np.concatenate([batch.images[name] for name in self.encoders], axis=1)
        attention, logits = self.attend(features)
        most = np.argsort(-attention, axis=1, kind="stable")[:, :NAMED]
        evidence = Evidence("clue", np.array(self.ids, dtype=object)[most], np.take_along_axis(attention, most, axis=1))
        return Prediction.of_probabilities(softmax(logits), self.labelspace, k, truth, evidence)

    def explain(self, kind: str, name: str) -> str:
        """The clue of an id, for people."""
        return dict(zip(self.ids, self.texts, strict=True)).get(name, name)

    def save(self, folder: Path) -> None:
        """Write weights and clues into an existing folder."""
        write_tensors(folder, self.tensors)
        write_json(folder / CLUES, {"ids": self.ids, "texts": self.texts})


def fit(data: Data, options: Options, run: Run) -> Fitted:
    """Train one: cross entropy of the class, and binary cross entropy of attention against the clues' countries."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

    from geoloc_core.encoders.device import device
    from geoloc_core.training import heads
    from geoloc_core.training.features import Features
    from geoloc_core.training.weights import inverse_frequency

    clues = data.texts[options.text_encoder, options.texts]
    features = Features(tuple(data.images[name] for name in options.encoders))
    targets = data.targets[data.training]
    about = relevance(clues, data.space)
    alpha = options.guidance if about.any() else 0.0
    where = device()
    weights = torch.from_numpy(inverse_frequency(targets, len(data.space), options.recipe.weight_power)).to(where)
    relevant, positive = torch.from_numpy(about).to(where), torch.tensor(options.positive_weight, device=where)
    torch.manual_seed(run.seed)
    net = network(features.dim, torch.from_numpy(clues.features), len(data.space))

    def loss(net: Any, x: "torch.Tensor", truth: "torch.Tensor") -> "torch.Tensor":
        scores = net.attention(x)
        of_class = cross_entropy(net.classify(x, scores), truth, weights)
        if not alpha:
            return of_class
        guide = binary_cross_entropy_with_logits(scores, relevant[truth], pos_weight=positive)
        return (1 - alpha) * of_class + alpha * guide

    fitted = heads.fit_classifier(
        net,
        loss,
        features,
        data.targets,
        data.training,
        data.validation,
        options.recipe,
        run.seed,
        run.checkpoint,
        run.depends,
        run.log,
    )
    state = {name: tensor.detach().cpu().float().numpy() for name, tensor in fitted.net.state_dict().items()}
    tensors = {
        "mean": fitted.mean.numpy(),
        "std": fitted.std.numpy(),
        "query": state["attention.weight"],
        "bias": state["attention.bias"],
        "clues": state["clues"],
        "clue_mean": state["scale.running_mean"],
        "clue_std": np.sqrt(state["scale.running_var"] + net.scale.eps).astype(np.float32),
        "weight": state["classifier.weight"],
        "offset": state["classifier.bias"],
    }
    model = Attention(list(options.encoders), data.space, clues.ids, clues.texts, tensors)
    return Fitted(model, fitted.history, fitted.best, {"clues": len(clues.ids), "guided": bool(alpha)})


def relevance(clues: Sentences, space: LabelSpace) -> np.ndarray:
    """Whether each clue is about the country of each class: (C, M) float32 of zeros and ones."""
    known = [set(named) for named in clues.countries]
    return np.array([[country in named for named in known] for country in space.countries], np.float32)


def network(inputs: int, clues: "torch.Tensor", classes: int) -> Any:
    """The network of Luo et al. 2022, section 4, on given features: (N, inputs) → logits (N, classes)."""
    import torch
    from torch import nn
    from torch.nn.functional import batch_norm

    class Network(nn.Module):
        clues: torch.Tensor
        attention: nn.Linear
        scale: nn.BatchNorm1d

        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.Linear(inputs, len(clues))
            self.register_buffer("clues", clues.float())
            self.scale = nn.BatchNorm1d(clues.shape[1], affine=False)
            self.classifier = nn.Linear(inputs + clues.shape[1], classes)

        def classify(self, features: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            text = scores.sigmoid() @ self.clues
            if len(text) > 1 or not self.training:
                text = self.scale(text)
            else:  # the last batch of some numbers of photos: one row has no statistics
                text = batch_norm(text, self.scale.running_mean, self.scale.running_var, eps=self.scale.eps)
            logits: torch.Tensor = self.classifier(torch.cat([features, text], dim=1))
            return logits

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return self.classify(features, self.attention(features))

    return Network()


def load(folder: Path, needs: Needs, space: LabelSpace, remedy: str) -> Attention:
    """Read what :meth:`Attention.save` wrote.

    Raises:
        UserError: Weights or clues are missing, damaged, or do not fit each other.
    """
    tensors = read_tensors(folder, remedy)
    clues: Clues = read_json(folder / CLUES, remedy, Clues)
    if not clues.ids or len(clues.ids) != len(clues.texts):
        raise UserError(f"{folder / CLUES}: {len(clues.ids)} ids for {len(clues.texts)} clues; {remedy}")
    m, c = len(clues.ids), len(space)
    d, t = (tensors[name].shape[-1] if name in tensors else 0 for name in ("query", "clues"))
    photo: dict[str, tuple[int, ...]] = {"mean": (d,), "std": (d,), "query": (m, d), "bias": (m,)}
    text: dict[str, tuple[int, ...]] = {"clues": (m, t), "clue_mean": (t,), "clue_std": (t,)}
    check_shapes(folder, remedy, tensors, photo | text | {"weight": (c, d + t), "offset": (c,)})
    return Attention(needs.encoders, space, clues.ids, clues.texts, tensors)
