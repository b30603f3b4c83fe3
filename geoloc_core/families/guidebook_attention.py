"""Attention over the clues of a guidebook, beside the features of the photo.

Luo et al. 2022 (G³), section 4: the photo's CLIP feature says how much each clue matters, ``z = W · BN(clip) + b``; the
clues' features are added up by these weights; ``BN([image, text, clip])`` and one linear layer name the class. Where a
clue's country is known, attention is also taught directly, towards the clues about the photo's country:
``(1 − α) · CE + α · BCE(z)``. With M clues, C classes, and 2048 features of the image network, 768 of the text and 768
of CLIP, that is 1,536 + 769 M + 7,168 + 3,585 C parameters: the printed 27.4 M, less the 23.5 M of the image network,
are those of 249 classes and about 3,900 clues.

Siński et al. 2024 (ICONIP) read StreetCLIP (768) and 6,041 clues by RoBERTa (768). Their slides give the sizes, 5.3 M
parameters, and 0.2 M without attention, and leave open how they come about. Attention takes 4.65 M (769 · 6,041), and
``hidden: [384]`` between the joined features and the classes the other 0.6 M: 5.27 M for 90 classes and 5.34 M for the
249 of G³'s list. 0.2 M is a linear layer to those 249; to 90 it would be 0.07 M.

The clues travel with the model, so that it names what it attended to.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import Field, PositiveInt, field_validator, model_validator

from geoloc_core.contracts.batch import Batch, Data, Fitted, Run, Sentences
from geoloc_core.contracts.batch import Tower as Start
from geoloc_core.contracts.differentiable import Differentiable
from geoloc_core.contracts.geolocator import check_shapes, read_tensors, width_of, write_tensors
from geoloc_core.contracts.needs import ImageFeatures, Needs, Photos, TextFeatures, Tower
from geoloc_core.contracts.options import Variant
from geoloc_core.contracts.prediction import Evidence, Prediction, softmax
from geoloc_core.encoders.carried import Carried
from geoloc_core.encoders.encoder import TOWERS
from geoloc_core.errors import UserError
from geoloc_core.files import read_json, write_json
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.plugins import Strict, options
from geoloc_core.training import dense, heads
from geoloc_core.training.optimisers import SGD, Optimiser
from geoloc_core.training.recipe import NetworkRecipe
from geoloc_core.training.schedules import MultiStep, Schedule
from geoloc_core.training.weights import InverseFrequency

if TYPE_CHECKING:
    import torch

    from geoloc_core.encoders.trainable import Trainable
    from geoloc_core.params import Profile
    from geoloc_core.training import photo_classifier

CLUES, TOWER = "clues.json", "tower"
NAMED = 5
"""Clues that an answer names."""
PARTS = ("attention",)
"""What may have a learning rate of its own."""

Weighting = Literal["sigmoid_relu", "softmax"]
"""From scores z to weights: sigmoid(relu(z)), never below 0.5, as in G³'s code; or weights that add up to one."""
Fusion = Literal["concat", "add"]
"""How text joins the feature that attended: beside it, or added to it, which takes the same width."""


class Recipe(heads.Recipe):
    """As G³ is trained (its code; photos are validated on after each epoch here, there after 1,000 steps)."""

    epochs: int = Field(15, gt=0)
    optimiser: Optimiser = SGD(lr=0.01, momentum=0.9, weight_decay=0.0001, rates={"attention": 0.001})
    schedule: Schedule = MultiStep(milestones=(4, 8, 12, 13, 14, 15), gamma=0.5)
    stop_patience: int | None = Field(None, gt=0)


ALONG = NetworkRecipe(
    batch=128,
    epochs=15,
    optimiser=SGD(lr=0.01, momentum=0.9, weight_decay=0.0001, rates={"attention": 0.001}),
    schedule=MultiStep(milestones=(4, 8, 12, 13, 14, 15), gamma=0.5),
    weights=InverseFrequency(),
    augment="wide_crop",
    flip=True,
)
"""As G³ trains its image network along."""


class Options(Variant):
    """A variant of this family."""

    kind: Literal["guidebook_attention"]
    encoders: tuple[str, ...] = Field(min_length=1)
    """Of the photo; the classifier reads them all."""
    attends: tuple[str, ...] | None = Field(None, min_length=1)
    """Those of them that attention reads, in G³ CLIP alone; left out, all."""
    tower: str | None = None
    """An encoder whose network is trained along, on the photos themselves; the classifier reads its features too, and
    attention does not. In G³ ISN."""
    text_encoder: str
    """Of the clues."""
    texts: str
    """The clues."""
    clue_features: Literal["encoded", "random"] = "encoded"
    """The text encoder's, or as a control random ones of the same mean and spread."""
    labels: str
    """The label space that it learns."""
    weighting: Weighting = "sigmoid_relu"
    """How clues are weighed: each by itself (G³), or against the others."""
    fusion: Fusion = "concat"
    """How text and photo are joined."""
    hidden: tuple[PositiveInt, ...] = ()
    """Widths of hidden layers between the joined features and the classes."""
    guidance: float = Field(0.75, ge=0, le=1)
    """Share of the loss that teaches attention directly (α of Luo et al.); 0 for the control without."""
    positive_weight: float = Field(50.0, gt=0)
    """How much a clue about the photo's country weighs there against one that is not."""
    recipe: Recipe = Recipe()
    """Without a tower."""
    network: NetworkRecipe | None = None
    """With a tower; left out, as G³ is trained."""

    @field_validator("recipe")
    @classmethod
    def _of_its_parts(cls, recipe: Recipe) -> Recipe:
        heads.check_rates(recipe, PARTS)
        return recipe

    @model_validator(mode="after")
    def _attends_to_its_own(self) -> Self:
        for name in self.attends or ():
            if name not in self.encoders:
                raise ValueError(f"attends: {name!r}; expected one of its encoders: {', '.join(self.encoders)}")
        return self

    @property
    def joined(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Encoders whose features the classifier alone reads, and those that attention reads too."""
        attends = self.attends or self.encoders
        return tuple(name for name in self.encoders if name not in attends), attends

    def flaws(self, profile: "Profile") -> list[str]:
        """A recipe for a tower, and no tower."""
        return ["network: goes with a tower; expected `recipe`"] if self.network and self.tower is None else []

    def needs(self) -> Needs:
        """The photo's features, and the clues' features."""
        alone, attends = self.joined
        images = [ImageFeatures(encoder=name) for name in (*alone, *attends)]
        trained = [] if self.tower is None else [Photos(), Tower(encoder=self.tower)]
        return Needs(
            inputs=(*trained, *images, TextFeatures(encoder=self.text_encoder, texts=self.texts)), labels=self.labels
        )


class Clues(Strict):
    """What JSON has beside the weights."""

    ids: list[str]
    texts: list[str]
    weighting: Weighting
    fusion: Fusion
    tower: options(TOWERS) | None = None  # type: ignore[valid-type]


@dataclass(frozen=True)
class Attention:
    """A trained model over M clues.

    Attributes:
        encoders: Names of the encoders whose features it reads, in the order it joins them; those that attention reads
            come last.
        labelspace: Its C classes.
        clues: The M clues, and how they are weighed and joined.
        tensors: ``mean`` and ``std`` (D,) of what attention reads; ``query`` (M, D) and ``bias`` (M,) of attention;
            ``clues`` (M, T); ``joined_mean`` and ``joined_std`` (F,) of what the classifier reads; ``temperature``
            (1,).
        layers: Of the classifier: (N, F) → logits (N, C).
        tower: Its own, whose features of the photo come before all others.
    """

    encoders: list[str]
    labelspace: LabelSpace
    clues: Clues
    tensors: dict[str, np.ndarray]
    layers: dense.Layers
    tower: Carried | None = None

    def attend(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores z of the clues (N, M) and logits (N, C) of joined features (N, I + D), before the temperature."""
        t = self.tensors
        x = np.asarray(features, np.float32)
        image, clip = np.split(x, [x.shape[1] - len(t["mean"])], axis=1)
        scores = ((clip - t["mean"]) / t["std"]) @ t["query"].T + t["bias"]
        text = self.weigh(scores) @ t["clues"]
        parts = (image, text, clip) if self.clues.fusion == "concat" else (image, text + clip)
        joined = (np.concatenate(parts, axis=1) - t["joined_mean"]) / t["joined_std"]
        return scores, dense.logits_of(self.layers, joined)

    def weigh(self, scores: np.ndarray) -> np.ndarray:
        """Weights (N, M) of scores (N, M)."""
        if self.clues.weighting == "softmax":
            return softmax(scores)
        weights: np.ndarray = 1 / (1 + np.exp(-np.maximum(scores, 0)))
        return weights

    def predict(self, batch: Batch, k: int = 5, truth: np.ndarray | None = None) -> Prediction:
        """The k most probable classes, and the clues that each photo was seen to attend to most."""
        parts = [batch.images[name] for name in self.encoders]
        if self.tower is not None:
            assert batch.photos is not None
            parts.insert(0, self.tower.features(batch.photos))
        scores, logits = self.attend(np.concatenate(parts, axis=1))
        # by scores, since all weights of scores below zero are the same
        most = np.argsort(-scores, axis=1, kind="stable")[:, :NAMED]
        weights = np.take_along_axis(self.weigh(scores), most, axis=1)
        evidence = Evidence("clue", np.array(self.clues.ids, dtype=object)[most], weights)
        probabilities = softmax(logits / self.tensors["temperature"])
        return Prediction.of_probabilities(probabilities, self.labelspace, k, truth, evidence)

    def explain(self, kind: str, name: str) -> str:
        """The clue of an id, for people."""
        return dict(zip(self.clues.ids, self.clues.texts, strict=True)).get(name, name)

    def differentiable(self) -> Differentiable:
        """The same in PyTorch."""
        import torch

        t = {name: torch.from_numpy(tensor) for name, tensor in self.tensors.items()}
        layers, weighting, fusion = dense.in_torch(self.layers), self.clues.weighting, self.clues.fusion

        def logits(x: torch.Tensor) -> torch.Tensor:
            image, clip = x[:, : x.shape[1] - len(t["mean"])], x[:, x.shape[1] - len(t["mean"]) :]
            scores = ((clip - t["mean"]) / t["std"]) @ t["query"].T + t["bias"]
            weights = scores.softmax(dim=1) if weighting == "softmax" else scores.relu().sigmoid()
            text = weights @ t["clues"]
            parts = (image, text, clip) if fusion == "concat" else (image, text + clip)
            return layers((torch.cat(parts, dim=1) - t["joined_mean"]) / t["joined_std"]) / t["temperature"]

        own = None if self.tower is None else Start(self.tower.options, self.tower.folder)
        return Differentiable(self.encoders, own, logits)

    def save(self, folder: Path) -> None:
        """Write weights and clues into an existing folder."""
        write_tensors(folder, self.tensors | dense.to_tensors(self.layers))
        write_json(folder / CLUES, self.clues)
        if self.tower is not None:
            self.tower.save(folder / TOWER)


def fit(data: Data, options: Options, run: Run) -> Fitted | None:
    """Train one: cross entropy of the class, and binary cross entropy of attention against the clues' countries.

    None in a process that trained a tower along with the first one.

    Raises:
        UserError: See :func:`geoloc_core.training.heads.fit`; or features to be added have different widths.
    """
    import torch

    from geoloc_core.encoders.device import device
    from geoloc_core.encoders.trainable import open_trainable
    from geoloc_core.training import losses
    from geoloc_core.training.features import Features
    from geoloc_core.training.weights import class_weights

    clues = data.texts[options.text_encoder, options.texts]
    alone, attends = options.joined
    found = [data.images[name] for name in (*alone, *attends)]
    widths = [part.shape[1] for part in found]
    clip, given_ = sum(widths[len(alone) :]), sum(widths[: len(alone)])
    seed = run.seed
    vectors = clues.features if options.clue_features == "encoded" else random_like(clues.features, seed)
    if options.fusion == "add" and clip != vectors.shape[1]:
        raise UserError(
            f"fusion: add; {', '.join(attends)} gives {clip} features and {options.text_encoder} "
            f"{vectors.shape[1]}, expected as many; choose `fusion: concat`"
        )
    about = relevance(clues, data.space)
    alpha = options.guidance if about.any() else 0.0
    recipe = (options.network or ALONG) if options.tower else options.recipe
    of_classes = class_weights(recipe.weights, data.targets[data.training], len(data.space))
    weights, relevant = (torch.from_numpy(values).to(device()) for values in (of_classes, about))
    start = data.towers[options.tower] if options.tower else None
    tower = open_trainable(start.options, start.weights) if start else None
    torch.manual_seed(seed)
    net = network(given_ + (tower.dim if tower else 0), clip, torch.from_numpy(vectors), len(data.space),
                  options.weighting, options.fusion, options.hidden, tower.network if tower else None)  # fmt: skip

    def total(of_class: "torch.Tensor", scores: "torch.Tensor", truth: "torch.Tensor") -> "torch.Tensor":
        if not alpha:
            return of_class
        of_attention = losses.of_attention(scores, relevant[truth], options.positive_weight)
        return (1 - alpha) * of_class + alpha * of_attention

    told = Clues(ids=clues.ids, texts=clues.texts, weighting=options.weighting, fusion=options.fusion)
    names, figures = [*alone, *attends], {"clues": len(clues.ids), "guided": bool(alpha)}
    fitted: heads.Fitted | photo_classifier.Fitted | None
    if tower is None or start is None:
        fitted = _on_features(net, Features(tuple(found)), given_, total, weights, data, options.recipe, run)
        carried = None
    else:
        fitted = _on_photos(net, tower, found, len(alone), total, weights, data, recipe, run)  # type: ignore[arg-type]
        if fitted is None:
            return None
        carried = Carried.of_trained(start.options, tower.save, run.checkpoint.parent / TOWER)
        told = told.model_copy(update={"tower": start.options})
    model = exported(net, fitted.temperature, told, names, data.space, carried)
    return Fitted(model, fitted.history, fitted.best, figures | fitted.figures)


def _on_features(
    net: Any, features: Any, image: int, total: Any, weights: "torch.Tensor", data: Data, recipe: Recipe, run: Run
) -> heads.Fitted:
    """Train on features alone, of which attention does not read the first ``image``."""
    from geoloc_core.training import losses

    def loss(net: Any, x: "torch.Tensor", truth: "torch.Tensor") -> "torch.Tensor":
        logits, scores = net(x[:, :image], x[:, image:])
        found: torch.Tensor = total(losses.of_class(logits, truth, weights), scores, truth)
        return found

    return heads.fit_classifier(
        net,
        loss,
        lambda net, x: net(x[:, :image], x[:, image:])[0],
        features,
        data.targets,
        data.training,
        data.validation,
        recipe,
        run.seed,
        run.checkpoint,
        run.depends,
        run.log,
        standardise=False,
        groups=data.groups,
    )


def _on_photos(
    net: Any,
    tower: "Trainable",
    features: list[np.ndarray],
    alone: int,
    total: Any,
    weights: "torch.Tensor",
    data: Data,
    recipe: NetworkRecipe,
    run: Run,
) -> "photo_classifier.Fitted | None":
    """Train a tower along, on photos and features, of which attention does not read the first ``alone``."""
    import torch

    from geoloc_core.training import photo_classifier
    from geoloc_core.training.recipe import freeze

    freeze(tower.network, tower.blocks, tower.after, recipe.freeze, "network.freeze")
    assert data.photos is not None
    used = np.concatenate([data.training, data.validation])
    training, validation = np.split(np.arange(len(used)), [len(data.training)])

    def called(net: Any, x: "torch.Tensor", known: "list[torch.Tensor]") -> "tuple[torch.Tensor, torch.Tensor]":
        found: tuple[torch.Tensor, torch.Tensor] = net(x, torch.cat(known[alone:], dim=1), *known[:alone])
        return found

    def loss(net: Any, x: "torch.Tensor", known: "list[torch.Tensor]", truth: "torch.Tensor") -> "torch.Tensor":
        logits, scores = called(net, x, known)
        found: torch.Tensor = total(photo_classifier.of_class(logits, truth, weights), scores, truth)
        return found

    return photo_classifier.fit(
        net,
        loss,
        lambda net, x, known: called(net, x, known)[0],
        tower.preprocess,
        data.photos.take(used),
        [part[used] for part in features],
        data.targets[used],
        data.groups_of(used),
        training,
        validation,
        recipe,
        run,
    )


def relevance(clues: Sentences, space: LabelSpace) -> np.ndarray:
    """Whether each clue is about the country of each class: (C, M) float32 of zeros and ones."""
    known = [set(named) for named in clues.countries]
    return np.array([[country in named for named in known] for country in space.countries], np.float32)


def random_like(features: np.ndarray, seed: int) -> np.ndarray:
    """Features (M, T) float32 that say nothing, with the mean and the spread of others."""
    noise = np.random.default_rng(seed).standard_normal(features.shape)
    found: np.ndarray = (features.mean() + features.std() * noise).astype(np.float32)
    return found


def network(
    image: int,
    clip: int,
    clues: "torch.Tensor",
    classes: int,
    weighting: Weighting = "sigmoid_relu",
    fusion: Fusion = "concat",
    hidden: tuple[int, ...] = (),
    trunk: "torch.nn.Module | None" = None,
) -> Any:
    """The network of Luo et al. 2022, section 4: image and clip → logits (N, classes) and scores z (N, M).

    Args:
        image: Width I of the image's features, which attention does not read; 0 for none.
        clip: Width D of the features that it reads.
        clues: (M, T).
        classes: C.
        weighting: See :data:`Weighting`.
        fusion: See :data:`Fusion`.
        hidden: Widths of hidden layers of the classifier.
        trunk: Makes the first of the image's features of photos (N, 3, size, size); left out, all are given.
    """
    import torch
    from torch import nn

    class Network(nn.Module):
        clues: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.trunk = nn.Identity() if trunk is None else trunk
            self.attention = nn.Sequential(heads.batch_norm(clip), nn.Linear(clip, len(clues)))
            self.register_buffer("clues", clues.float())
            joined = image + clip + (clues.shape[1] if fusion == "concat" else 0)
            self.classifier = heads.network(joined, hidden, classes, normalised=True)

        def weigh(self, scores: torch.Tensor) -> torch.Tensor:
            return scores.softmax(dim=1) if weighting == "softmax" else scores.relu().sigmoid()

        def forward(
            self, image: torch.Tensor, clip: torch.Tensor, *others: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor]:
            scores = self.attention(clip)
            text = self.weigh(scores) @ self.clues
            parts = [text, clip] if fusion == "concat" else [text + clip]
            return self.classifier(torch.cat([self.trunk(image), *others, *parts], dim=1)), scores

    return Network()


def exported(
    net: Any, temperature: float, clues: Clues, encoders: list[str], space: LabelSpace, tower: Carried | None = None
) -> Attention:
    """A trained network on given features as a model that answers in NumPy."""
    mean, std, [(query, bias)] = heads.normalised_layers(net.attention)
    joined_mean, joined_std, layers = heads.normalised_layers(net.classifier)
    tensors = {
        "mean": mean,
        "std": std,
        "query": query,
        "bias": bias,
        "clues": net.clues.cpu().numpy(),
        "joined_mean": joined_mean,
        "joined_std": joined_std,
        "temperature": np.array([temperature], np.float32),
    }
    return Attention(encoders, space, clues, tensors, layers, tower)


def load(folder: Path, needs: Needs, space: LabelSpace, remedy: str) -> Attention:
    """Read what :meth:`Attention.save` wrote.

    Raises:
        UserError: Weights or clues are missing, damaged, or do not fit each other.
    """
    tensors = read_tensors(folder, remedy)
    clues: Clues = read_json(folder / CLUES, remedy, Clues)
    if not clues.ids or len(clues.ids) != len(clues.texts):
        raise UserError(f"{folder / CLUES}: {len(clues.ids)} ids for {len(clues.texts)} clues; {remedy}")
    m = len(clues.ids)
    d, t, f = (width_of(tensors, name) for name in ("query", "clues", "joined_mean"))
    text = d if clues.fusion == "add" else t
    f = max(f, d + (t if clues.fusion == "concat" else 0))  # what is above it are the image's features
    expected: dict[str, tuple[int, ...]] = {"mean": (d,), "std": (d,), "query": (m, d), "bias": (m,)}
    expected |= {"clues": (m, text), "joined_mean": (f,), "joined_std": (f,), "temperature": (1,)}
    check_shapes(folder, remedy, tensors, expected | dense.shapes(tensors, f, len(space)))
    own = {name: tensors[name] for name in expected}
    tower = None if clues.tower is None else Carried.load(clues.tower, folder / TOWER, remedy)
    return Attention(needs.encoders, space, clues, own, dense.of_tensors(tensors), tower)
