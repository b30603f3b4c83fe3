"""An image tower and a text tower whose features are projected into one space, where a photo lies at its caption.

UK CLIP (Figueroa, Gottlieb, Holland and Pogolian, student slides): ResNet-50 and DistilBERT, each with a head that
projects, normalises and has a residual connection, trained as CLIP is (Radford et al. 2021) on photos and the towns
that they were taken in. The head is that of the well-known small CLIPs in PyTorch: ``p = W x + b``, then
``LayerNorm(p + dropout(V gelu(p) + c))``. The slides leave open its sizes, the numbers that were tuned, and whether the
towers were trained along: here they are frozen, or the image tower is trained along with ``tower``.

A photo is answered with the class of the nearest caption, and with the place of that class. Where photos of several
classes share a caption, as those of a town across two squares of a grid, the frequencies among its training photos
decide: a class is as probable as its most probable caption, times its share of that caption's photos. With ``prior: 1``
a caption's own share of all photos counts too: the contrastive loss learns how many times likelier than usual a caption
is for a photo (van den Oord et al. 2018, "Representation Learning with Contrastive Predictive Coding", section 2.3),
and not how usual it is.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import Field, PositiveInt, field_validator, model_validator

from geoloc_core.contracts.batch import Batch, Data, Fitted, Run
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
from geoloc_core.training import heads
from geoloc_core.training.optimisers import AdamW, Optimiser
from geoloc_core.training.recipe import NetworkRecipe
from geoloc_core.training.schedules import Plateau, Schedule

if TYPE_CHECKING:
    import torch

    from geoloc_core.encoders.trainable import Trainable
    from geoloc_core.params import Profile
    from geoloc_core.training import photo_classifier

CAPTIONS, TOWER = "captions.json", "tower"
NAMED = 3
"""Captions that an answer names."""
PARTS = ("image", "text")
"""The heads, which may have learning rates of their own."""
FIRST_SCALE, GREATEST_SCALE = 1 / 0.07, 100.0
"""What cosines are multiplied by at first, and at most (Radford et al. 2021, section 2.5)."""
EPSILON = 1e-5
"""Of layer normalisation."""


class Recipe(heads.Recipe):
    """How heads on frozen towers are trained: the slides' optimiser and schedule, of which they give no numbers."""

    optimiser: Optimiser = AdamW(lr=0.001, weight_decay=0.001)
    schedule: Schedule = Plateau(factor=0.8, patience=1)
    weights: None = None
    """The contrastive loss has no classes that could be weighed."""


ALONG = NetworkRecipe(epochs=15, optimiser=AdamW(lr=0.001, weight_decay=0.001, rates={"trunk": 0.0001}))
"""How an image tower is trained along: slower than the heads."""


class Options(Variant):
    """A variant of this family."""

    kind: Literal["contrastive_captions"]
    encoders: tuple[str, ...] = ()
    """Frozen image encoders, whose features are joined in this order."""
    tower: str | None = None
    """Instead of them, an encoder whose network is trained along, on the photos themselves."""
    text_encoder: str
    """Frozen."""
    texts: str
    """The captions: a column of the attributes of the corpus."""
    labels: str
    """The label space that it learns."""
    width: PositiveInt = 256
    """Of the space of photos and captions."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Share of the numbers that are left out at random while it is trained."""
    prior: float = Field(0.0, ge=0, le=1)
    """A caption's probability is multiplied by its share of the training photos to this power: 0 as in the slides."""
    normalise: Literal["standardise", "none"] = "standardise"
    """What is done to frozen features first."""
    recipe: Recipe = Recipe()
    """With frozen encoders."""
    network: NetworkRecipe | None = None
    """With a tower; left out, :data:`ALONG`."""

    @field_validator("recipe")
    @classmethod
    def _of_its_parts(cls, recipe: Recipe) -> Recipe:
        heads.check_rates(recipe, PARTS)
        return recipe

    @model_validator(mode="after")
    def _looks_one_way(self) -> Self:
        if bool(self.encoders) == (self.tower is not None):
            raise ValueError("expected either encoders, which stay frozen, or a tower, which is trained along")
        return self

    def flaws(self, profile: "Profile") -> list[str]:
        """A recipe for a tower without one, weights of classes, captions that are not of the corpus."""
        found = ["network: goes with a tower; expected `recipe`"] if self.network and self.tower is None else []
        if self.network and self.network.weights is not None:
            found.append("network.weights: the contrastive loss has no classes to weigh; expected null")
        texts = profile.texts.get(self.texts)
        expected = f"data/corpora/{self.corpus}/attributes.parquet"
        if texts is not None and texts.path.as_posix() != expected:
            found.append(f"texts: {self.texts!r} is read from {texts.path}; expected a caption per photo: {expected}")
        return found

    def needs(self) -> Needs:
        """Features of the photo, or the photo and the weights to start from; and the features of all captions."""
        images = [ImageFeatures(encoder=name) for name in self.encoders]
        trained = [] if self.tower is None else [Photos(), Tower(encoder=self.tower)]
        captions = TextFeatures(encoder=self.text_encoder, texts=self.texts)
        return Needs(inputs=(*trained, *images, captions), labels=self.labels)


class Captions(Strict):
    """What JSON has beside the weights.

    Attributes:
        texts: The K captions.
        tower: The options of the encoder that was trained along, with which it is opened.
    """

    texts: list[str]
    tower: options(TOWERS) | None = None  # type: ignore[valid-type]


@dataclass(frozen=True)
class Pairs:
    """P pairs of a caption and a class that training photos have, in the order of the classes.

    Attributes:
        captions: (P,) int64, of K captions.
        classes: (P,) int64, of C classes, each of which is there.
        log_share: (P,) float32, logarithm of the class' share of the caption's photos, times the caption's share of all
            to the power of the prior.
    """

    captions: np.ndarray
    classes: np.ndarray
    log_share: np.ndarray

    @classmethod
    def of(cls, captions: np.ndarray, classes: np.ndarray, prior: float = 0.0) -> "Pairs":
        """Those of N photos with captions (N,) and classes (N,)."""
        pairs, counts = np.unique(np.stack([classes, captions]), axis=1, return_counts=True)
        of_caption = np.bincount(captions)[pairs[1]]
        share = np.log(counts / of_caption) + prior * np.log(of_caption / len(captions))
        return cls(pairs[1], pairs[0], share.astype(np.float32))


@dataclass(frozen=True)
class ContrastiveCaptions:
    """A trained model over K captions. On frozen features it answers in NumPy, so that serving starts light.

    Attributes:
        encoders: Names of the encoders whose features it reads, in the order it joins them; none with a tower.
        labelspace: Its C classes.
        captions: The K captions.
        pairs: Which classes they stand for.
        tensors: ``mean`` and ``std`` (D,) of the features; of the image's head ``projection`` (W, D)
            and ``projection_bias`` (W,), ``mixing`` (W, W) and ``mixing_bias`` (W,), ``gain`` and ``shift`` (W,);
            ``captions`` (K, W) of unit length; ``scale`` (1,) of the cosines; ``temperature`` (1,).
        tower: Its own, whose features of the photo it reads.
    """

    encoders: list[str]
    labelspace: LabelSpace
    captions: Captions
    pairs: Pairs
    tensors: dict[str, np.ndarray]
    tower: Carried | None = None

    def embed(self, features: np.ndarray) -> np.ndarray:
        """Features (N, D) of photos in the common space: (N, W) of unit length."""
        from scipy.special import erf

        t = self.tensors
        x = ((np.asarray(features, np.float32) - t["mean"]) / t["std"]) @ t["projection"].T + t["projection_bias"]
        x = x + (x * (1 + erf(x / np.float32(2**0.5))) / 2) @ t["mixing"].T + t["mixing_bias"]
        x = x - x.mean(axis=1, keepdims=True)
        x = x / np.sqrt((x**2).mean(axis=1, keepdims=True) + np.float32(EPSILON)) * t["gain"] + t["shift"]
        unit: np.ndarray = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.float32(1e-12))
        return unit

    def logits(self, cosines: np.ndarray) -> np.ndarray:
        """Scores (N, C) of cosines (N, K) with the captions, before the temperature."""
        of_pairs = (self.tensors["scale"] * cosines)[:, self.pairs.captions] + self.pairs.log_share
        starts = np.searchsorted(self.pairs.classes, np.arange(len(self.labelspace)))
        found: np.ndarray = np.maximum.reduceat(of_pairs, starts, axis=1)
        return found

    def predict(self, batch: Batch, k: int = 5, truth: np.ndarray | None = None) -> Prediction:
        """The k most probable classes, and the nearest captions."""
        features = [batch.images[name] for name in self.encoders]
        if self.tower is not None:
            assert batch.photos is not None
            features = [self.tower.features(batch.photos)]
        cosines = self.embed(np.concatenate(features, axis=1)) @ self.tensors["captions"].T
        nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :NAMED]
        texts = np.array(self.captions.texts, dtype=object)
        evidence = Evidence("caption", texts[nearest], np.take_along_axis(cosines, nearest, axis=1))
        probabilities = softmax(self.logits(cosines) / self.tensors["temperature"])
        return Prediction.of_probabilities(probabilities, self.labelspace, k, truth, evidence)

    def differentiable(self) -> Differentiable:
        """The same in PyTorch."""
        import torch

        t = {name: torch.from_numpy(tensor) for name, tensor in self.tensors.items()}
        head = projection_head(len(t["mean"]), len(t["shift"]), 0.0)
        own = {f"{part}.weight": t[part] for part in ("projection", "mixing")}
        own |= {f"{part}.bias": t[f"{part}_bias"] for part in ("projection", "mixing")}
        head.load_state_dict(own | {"norm.weight": t["gain"], "norm.bias": t["shift"]})
        head.requires_grad_(False)
        captions, classes = (torch.from_numpy(of) for of in (self.pairs.captions, self.pairs.classes))
        log_share, count = torch.from_numpy(self.pairs.log_share), len(self.labelspace)

        def logits(x: torch.Tensor) -> torch.Tensor:
            placed = torch.nn.functional.normalize(head((x - t["mean"]) / t["std"]), dim=1)
            of_pairs = (t["scale"] * (placed @ t["captions"].T))[:, captions] + log_share
            best = of_pairs.new_full((len(x), count), -torch.inf)
            return best.scatter_reduce(1, classes.expand_as(of_pairs), of_pairs, "amax") / t["temperature"]

        start = None if self.tower is None else Start(self.tower.options, self.tower.folder)
        return Differentiable(self.encoders, start, logits)

    def save(self, folder: Path) -> None:
        """Write it into an existing folder."""
        if self.tower is not None:
            self.tower.save(folder / TOWER)
        pairs = {f"pair_{name}": values for name, values in vars(self.pairs).items()}
        write_tensors(folder, self.tensors | pairs)
        write_json(folder / CAPTIONS, self.captions)


@dataclass(frozen=True)
class Captioned:
    """What is learned from: photos with a caption and a class that has some.

    Attributes:
        texts: The K captions of the training photos.
        features: (K, T) float32 of them.
        pairs: Which classes they stand for.
        space: The C classes that have a caption.
        targets: (N,) int64 among them; −1 where a row has none.
        training: (n,) rows with a caption, ascending.
    """

    texts: list[str]
    features: np.ndarray
    pairs: Pairs
    space: LabelSpace
    targets: np.ndarray
    training: np.ndarray

    @classmethod
    def of(cls, data: Data, options: Options) -> "Captioned":
        """Find them.

        Raises:
            UserError: There is not one caption per photo, or none of the training photos has one.
        """
        import pandas as pd

        name, encoder = options.texts, options.text_encoder
        told = data.texts[encoder, name]
        if len(told.texts) != len(data.targets):
            raise UserError(
                f"texts {name}: {len(told.texts):,} captions, the corpus has {len(data.targets):,} photos; "
                f"expected one for each; run `geoloc texts {name}` and `geoloc encode-text {name} --encoder {encoder}`"
            )
        training = data.training[[bool(told.texts[row].strip()) for row in data.training]]
        if not len(training):
            raise UserError(f"texts {name}: none of the {len(data.training):,} training photos has a caption")
        of_row, texts = pd.factorize(np.array([told.texts[row] for row in training], dtype=object), sort=True)
        first = training[np.unique(of_row, return_index=True)[1]]
        learned = np.unique(data.targets[training])
        now = np.full(len(data.space) + 1, -1)
        now[learned] = np.arange(len(learned))
        targets = now[data.targets]  # where there is no class, the last one, which is none
        pairs = Pairs.of(of_row, targets[training], options.prior)
        return cls(texts.tolist(), told.features[first], pairs, data.space.take(learned), targets, training)


def fit(data: Data, options: Options, run: Run) -> Fitted | None:
    """Train one on CLIP's loss; the epoch with the best validation accuracy of classes is kept.

    None in a process that trained along with the first one.

    Raises:
        UserError: Captions are missing or do not fit the photos, a feature or the loss is not a number, or no class of
            a validation photo is learned.
    """
    import torch

    from geoloc_core.encoders.trainable import open_trainable
    from geoloc_core.training.features import Features

    given = Captioned.of(data, options)
    captions = data.texts[options.text_encoder, options.texts].features.astype(np.float16)
    start = data.towers[options.tower] if options.tower else None
    tower = open_trainable(start.options, start.weights) if start else None
    images = [] if tower else [data.images[name] for name in options.encoders]
    wide = Features((*images, captions))
    image = tower.dim if tower else wide.dim - captions.shape[1]
    mean, std = np.zeros(wide.dim, np.float32), np.ones(wide.dim, np.float32)
    if options.normalise == "standardise":
        mean, std = wide.statistics(given.training)
    of_image = (np.zeros(image), np.ones(image)) if tower else (mean[:image], std[:image])
    of_text = (mean[-captions.shape[1] :], std[-captions.shape[1] :])
    torch.manual_seed(run.seed)
    net = network(of_image, of_text, given, options.width, options.dropout, tower.network if tower else None)
    fitted: heads.Fitted | photo_classifier.Fitted | None
    if tower is None or start is None:
        fitted = _on_features(net, wide, image, given, data, options.recipe, run)
        carried = None
    else:
        fitted = _on_photos(net, tower, captions, given, data, options.network or ALONG, run)
        if fitted is None:
            return None
        carried = Carried.of_trained(start.options, tower.save, run.checkpoint.parent / TOWER)
    told = Captions(texts=given.texts, tower=start.options if start else None)
    model = exported(net, fitted.temperature, told, given, list(options.encoders), carried)
    figures = {"captions": len(given.texts), "classes": len(given.space), "training_photos": len(given.training)}
    if left_out := len(data.training) - len(given.training):
        figures["without_caption"] = left_out
    return Fitted(model, fitted.history, fitted.best, figures | fitted.figures)


def _on_features(
    net: Any, features: Any, image: int, given: Captioned, data: Data, recipe: Recipe, run: Run
) -> heads.Fitted:
    """Train the heads alone, on features (N, image + T) of photos and their captions."""
    from geoloc_core.training import contrastive

    def loss(net: Any, x: "torch.Tensor", truth: "torch.Tensor") -> "torch.Tensor":
        return contrastive.loss_of(*net(x[:, :image], x[:, image:]))

    def logits(net: Any, x: "torch.Tensor") -> "torch.Tensor":
        found: torch.Tensor = net.logits(x[:, :image])
        return found

    return heads.fit_classifier(
        net,
        loss,
        logits,
        features,
        given.targets,
        given.training,
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
    captions: np.ndarray,
    given: Captioned,
    data: Data,
    recipe: NetworkRecipe,
    run: Run,
) -> "photo_classifier.Fitted | None":
    """Train a tower along. A batch that is worked on in parts compares a photo with the captions of its own part."""
    from geoloc_core.training import contrastive, photo_classifier
    from geoloc_core.training.recipe import freeze

    freeze(tower.network, tower.blocks, tower.after, recipe.freeze, "network.freeze")
    assert data.photos is not None
    used = np.concatenate([given.training, data.validation])
    training, validation = np.split(np.arange(len(used)), [len(given.training)])

    def loss(net: Any, x: "torch.Tensor", known: "list[torch.Tensor]", truth: "torch.Tensor") -> "torch.Tensor":
        return contrastive.loss_of(*net(x, *known))

    def logits(net: Any, x: "torch.Tensor", known: "list[torch.Tensor]") -> "torch.Tensor":
        found: torch.Tensor = net.logits(x)
        return found

    return photo_classifier.fit(
        net,
        loss,
        logits,
        tower.preprocess,
        data.photos.take(used),
        [captions[used]],
        given.targets[used],
        data.groups_of(used),
        training,
        validation,
        recipe,
        run,
    )


def projection_head(inputs: int, width: int, dropout: float) -> Any:
    """(N, inputs) → (N, width): ``p = W x + b``, then ``LayerNorm(p + dropout(V gelu(p) + c))``."""
    import torch
    from torch import nn

    class ProjectionHead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.projection = nn.Linear(inputs, width)
            self.mixing = nn.Linear(width, width)
            self.dropout = nn.Dropout(dropout)
            self.norm = nn.LayerNorm(width, eps=EPSILON)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            projected = self.projection(x)
            found: torch.Tensor = self.norm(projected + self.dropout(self.mixing(nn.functional.gelu(projected))))
            return found

    return ProjectionHead()


def network(
    of_image: tuple[np.ndarray, np.ndarray],
    of_text: tuple[np.ndarray, np.ndarray],
    given: Captioned,
    width: int,
    dropout: float,
    trunk: "torch.nn.Module | None" = None,
) -> Any:
    """Two heads: photos (N, D) and captions (N, T) → both (N, width) of unit length, and what cosines are scaled by.

    Args:
        of_image: Mean and standard deviation (D,) of the photos' features.
        of_text: Mean and standard deviation (T,) of the captions' features.
        given: The captions, with which photos are compared to name their classes.
        width: Of the common space.
        dropout: Share of the units that drop out.
        trunk: Makes the photos' features of photos (N, 3, size, size); left out, they are given.
    """
    import torch
    from torch import nn

    def of(values: np.ndarray) -> "torch.Tensor":
        return torch.from_numpy(np.asarray(values, np.float32))

    class Network(nn.Module):
        image_mean: torch.Tensor
        image_std: torch.Tensor
        text_mean: torch.Tensor
        text_std: torch.Tensor
        captions: torch.Tensor
        log_share: torch.Tensor
        pair_captions: torch.Tensor
        pair_classes: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.trunk = nn.Identity() if trunk is None else trunk
            self.image = projection_head(len(of_image[0]), width, dropout)
            self.text = projection_head(len(of_text[0]), width, dropout)
            self.log_scale = nn.Parameter(torch.tensor(np.log(FIRST_SCALE), dtype=torch.float32))
            for side, (mean, std) in (("image", of_image), ("text", of_text)):
                self.register_buffer(f"{side}_mean", of(mean))
                self.register_buffer(f"{side}_std", of(std))
            self.register_buffer("captions", of(given.features))
            self.register_buffer("log_share", of(given.pairs.log_share))
            self.register_buffer("pair_captions", torch.from_numpy(given.pairs.captions))
            self.register_buffer("pair_classes", torch.from_numpy(given.pairs.classes))

        @property
        def scale(self) -> torch.Tensor:
            return self.log_scale.exp().clamp(max=GREATEST_SCALE)

        def of_photos(self, photos: torch.Tensor) -> torch.Tensor:
            features = (self.trunk(photos) - self.image_mean) / self.image_std
            return nn.functional.normalize(self.image(features).float(), dim=-1)

        def of_captions(self, captions: torch.Tensor) -> torch.Tensor:
            found = self.text((captions - self.text_mean) / self.text_std)
            return nn.functional.normalize(found.float(), dim=-1)

        def forward(
            self, photos: torch.Tensor, captions: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            return self.of_photos(photos), self.of_captions(captions), self.scale

        def logits(self, photos: torch.Tensor) -> torch.Tensor:
            """Scores (N, C) of the classes: of each its most probable caption, times its share of it."""
            of_captions = self.scale * self.of_photos(photos) @ self.of_captions(self.captions).T
            of_pairs = of_captions[:, self.pair_captions] + self.log_share
            found = of_pairs.new_full((len(photos), len(given.space)), -torch.inf)
            return found.scatter_reduce(1, self.pair_classes.expand_as(of_pairs), of_pairs, "amax")

    return Network()


def exported(
    net: Any,
    temperature: float,
    captions: Captions,
    given: Captioned,
    encoders: list[str],
    tower: Carried | None,
) -> ContrastiveCaptions:
    """A trained network as a model whose captions are where it puts them."""
    import torch

    with torch.inference_mode():
        placed = net.of_captions(net.captions).cpu().numpy()
    head = {name: tensor.detach().cpu().numpy() for name, tensor in net.image.state_dict().items()}
    tensors = {
        "mean": net.image_mean.cpu().numpy(),
        "std": net.image_std.cpu().numpy(),
        "projection": head["projection.weight"],
        "projection_bias": head["projection.bias"],
        "mixing": head["mixing.weight"],
        "mixing_bias": head["mixing.bias"],
        "gain": head["norm.weight"],
        "shift": head["norm.bias"],
        "captions": placed,
        "scale": np.array([net.scale.item()], np.float32),
        "temperature": np.array([temperature], np.float32),
    }
    return ContrastiveCaptions(encoders, given.space, captions, given.pairs, tensors, tower)


def load(folder: Path, needs: Needs, space: LabelSpace, remedy: str) -> ContrastiveCaptions:
    """Read what :meth:`ContrastiveCaptions.save` wrote.

    Raises:
        UserError: Weights or captions are missing, damaged, or do not fit each other and the classes.
    """
    tensors = read_tensors(folder, remedy)
    captions: Captions = read_json(folder / CAPTIONS, remedy, Captions)
    tower = None if captions.tower is None else Carried.load(captions.tower, folder / TOWER, remedy)
    k, pairs = len(captions.texts), width_of(tensors, "pair_classes")
    d = tower.encoder.shape[0] if tower else width_of(tensors, "mean")
    width = width_of(tensors, "shift")
    expected: dict[str, tuple[int, ...]] = {"mean": (d,), "std": (d,), "projection": (width, d), "captions": (k, width)}
    expected |= {"mixing": (width, width), "scale": (1,), "temperature": (1,)}
    expected |= dict.fromkeys(("projection_bias", "mixing_bias", "gain", "shift"), (width,))
    of_pairs = dict.fromkeys(("pair_captions", "pair_classes", "pair_log_share"), (pairs,))
    check_shapes(folder, remedy, tensors, expected | of_pairs)
    known = Pairs(*(tensors[name] for name in of_pairs))
    whole = np.array_equal(np.unique(known.classes), np.arange(len(space))) and (np.diff(known.classes) >= 0).all()
    if not whole or not np.isin(known.captions, np.arange(k)).all():
        raise UserError(
            f"{folder / 'model.safetensors'}: its captions are not of the {len(space)} classes; expected some of each, "
            f"in their order; {remedy}"
        )
    own = {name: tensors[name] for name in expected}
    return ContrastiveCaptions(needs.encoders, space, captions, known, own, tower)
