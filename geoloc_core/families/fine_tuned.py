"""A whole network, fine-tuned to name the class of a photo or of each of its pieces.

Gong and Brumley 2024, "Experimental setup": ViT-B/16, fine-tuned on whole photos (the baselines), on all features that
Mask2Former cut from them, and on the features of one group (the experts). The poster leaves open the optimiser, the
epochs and the augmentation.

Luo et al. 2022 (G³), without attention: ISN, a ResNet-50, is fine-tuned, its 2,048 features are joined to CLIP's 768,
and batch normalisation and a linear layer name one of 249 classes: 23.5 M + 2 · 2,816 + 2,817 · 249 parameters are the
printed 24.2 M.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field, PositiveInt

from geoloc_core.contracts.batch import Batch, Data, Fitted, Pieces, Run
from geoloc_core.contracts.batch import Tower as Start
from geoloc_core.contracts.differentiable import Differentiable
from geoloc_core.contracts.geolocator import check_shapes, read_tensors, width_of, write_tensors
from geoloc_core.contracts.needs import ImageFeatures, Needs, Photos, Tower
from geoloc_core.contracts.needs import Pieces as NeedsPieces
from geoloc_core.contracts.options import Variant
from geoloc_core.contracts.prediction import Prediction, softmax
from geoloc_core.contracts.voting import Vote, vote, weights_of
from geoloc_core.corpora.stored import Stored
from geoloc_core.encoders.carried import Carried
from geoloc_core.encoders.encoder import TOWERS
from geoloc_core.encoders.groups import GROUPS
from geoloc_core.errors import UserError
from geoloc_core.files import read_json, write_json
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.plugins import Strict, options
from geoloc_core.training.recipe import NetworkRecipe

if TYPE_CHECKING:
    import torch

    from geoloc_core.params import Profile

NETWORK = "network.json"
TOWER = "tower"
TENSORS = ("mean", "std", "weight", "bias", "prior", "temperature")
Group = Literal["ground", "structures", "vegetation", "vehicles"]


class Options(Variant):
    """A variant of this family."""

    kind: Literal["fine_tuned"]
    tower: str
    """The encoder whose weights the network starts from."""
    labels: str
    """The label space that it learns."""
    encoders: tuple[str, ...] = ()
    """Frozen encoders whose features of the photo are joined to the network's; in G³ CLIP."""
    normalise: Literal["none", "batch_norm"] = "none"
    """What is done to the joined features before the last layer: in G³ batch normalisation."""
    pieces: str | None = None
    """The segmenter whose pieces it is shown; left out, whole photos."""
    groups: Annotated[tuple[Group, ...], Field(min_length=1)] | None = None
    """Of the pieces; left out, all, those of no group too."""
    most: PositiveInt | None = None
    """Pieces that it learns from at most, equally many of each class as far as there are (the poster's 15,000 of six
    countries); left out, all."""
    vote: Vote = "majority"
    """How the pieces of a photo agree."""
    recipe: NetworkRecipe = NetworkRecipe()

    def needs(self) -> Needs:
        """Photos or pieces, and the weights to start from."""
        shown = Photos() if self.pieces is None else NeedsPieces(encoder=self.pieces)
        features = (ImageFeatures(encoder=name) for name in self.encoders)
        return Needs(inputs=(shown, Tower(encoder=self.tower), *features), labels=self.labels)

    def flaws(self, profile: "Profile") -> list[str]:
        """Keys that go with pieces alone."""
        if self.pieces is not None:
            return ["encoders: features are of whole photos; expected none beside `pieces`"] if self.encoders else []
        given = [name for name in ("groups", "most") if getattr(self, name) is not None]
        return [f"{name}: goes with pieces; expected `pieces`, a segmenter" for name in given]


class Network(Strict):
    """What is said of a network beside its weights.

    Attributes:
        tower: The options of the encoder that it started as, with which it is opened.
        groups: Of the pieces that it is shown.
        vote: How the pieces of a photo agree.
    """

    tower: options(TOWERS)  # type: ignore[valid-type]
    groups: tuple[Group, ...] | None
    vote: Vote


@dataclass(frozen=True)
class FineTuned:
    """A trained network: a tower in its library's own format, and a linear layer.

    Attributes:
        labelspace: Its C classes.
        segmenter: Name of what cuts the pieces that it is shown; None where it is shown photos.
        encoders: Names of those whose features are joined to the tower's.
        network: What is said of it.
        tower: Its own.
        tensors: ``mean`` and ``std`` (D,) of the joined features; ``weight`` (C, D) and ``bias`` (C,) of the layer;
            ``temperature`` (1,); ``prior`` (C,) the answer for a photo without a piece: how frequent each class is.
    """

    labelspace: LabelSpace
    segmenter: str | None
    encoders: list[str]
    network: Network
    tower: Carried
    tensors: dict[str, np.ndarray]

    @property
    def groups(self) -> list[str]:
        """Of the pieces that it is shown: those it was told, or all."""
        return list(self.network.groups or GROUPS)

    def predict(self, batch: Batch, k: int = 5, truth: np.ndarray | None = None) -> Prediction:
        """The k most probable classes of each photo; pieces vote."""
        if self.segmenter is None:
            assert batch.photos is not None
            joined = [self.tower.features(batch.photos), *(batch.images[name] for name in self.encoders)]
            return Prediction.of_probabilities(self._probabilities(joined), self.labelspace, k, truth)
        pieces = batch.pieces[self.segmenter]
        shown = pieces if self.network.groups is None else pieces.only(of_groups(pieces, self.network.groups))
        weights = weights_of(shown.scores, shown.areas)
        found = vote(self.of_pieces(shown), shown.photos, len(batch), self.network.vote, weights, self.tensors["prior"])
        return Prediction.of_probabilities(found, self.labelspace, k, truth)

    def of_pieces(self, pieces: Pieces) -> np.ndarray:
        """Probabilities (P, C) of P pieces."""
        return self._probabilities([self.tower.features(pieces.read().pictures)])  # type: ignore[arg-type]

    def _probabilities(self, features: list[np.ndarray]) -> np.ndarray:
        t = self.tensors
        joined = (np.concatenate(features, axis=1).astype(np.float64) - t["mean"]) / t["std"]
        return softmax((joined @ t["weight"].T + t["bias"]) / t["temperature"])

    def differentiable(self) -> Differentiable | None:
        """The same in PyTorch, where whole photos are shown."""
        import torch

        if self.segmenter is not None:
            return None
        mean, std, weight, bias = (
            torch.from_numpy(self.tensors[name]).float() for name in ("mean", "std", "weight", "bias")
        )
        temperature = self.tensors["temperature"].item()
        own = Start(self.tower.options, self.tower.folder)
        return Differentiable(self.encoders, own, lambda x: ((x - mean) / std @ weight.T + bias) / temperature)

    def save(self, folder: Path) -> None:
        """Write it into an existing folder."""
        self.tower.save(folder / TOWER)
        write_tensors(folder, self.tensors)
        write_json(folder / NETWORK, self.network)


def of_groups(pieces: Pieces, groups: tuple[str, ...] | None) -> np.ndarray:
    """Whether each piece (P,) is of one of the groups; all are where none are named."""
    if groups is None:
        return np.ones(len(pieces), bool)
    return np.isin(pieces.groups.astype(str), groups)


@dataclass(frozen=True)
class Shown:
    """The pictures that a network learns from, and those that decide on it.

    Attributes:
        pictures: N of them, photos or pieces, and none else.
        rows: (N,) the photo that each is, or is a piece of: a row of the corpus.
        targets: (N,) int64 classes; −1 where a picture for validation is of a class that is not learned.
        training: (n,) positions.
        validation: (m,) positions.
    """

    pictures: Stored
    rows: np.ndarray
    targets: np.ndarray
    training: np.ndarray
    validation: np.ndarray


def shown(data: Data, options: Options, seed: int) -> Shown:
    """The pictures of a variant.

    Raises:
        UserError: There are no pieces of its groups to train or to validate on.
    """
    if options.pieces is None:
        assert data.photos is not None
        pictures, training, validation = data.photos, data.training, data.validation
        rows = np.arange(len(pictures))
    else:
        pieces = data.pieces[options.pieces]
        assert isinstance(pieces.pictures, Stored)
        pictures, rows = pieces.pictures, pieces.photos
        kept = of_groups(pieces, options.groups)
        training, validation = (np.flatnonzero(kept & np.isin(rows, some)) for some in (data.training, data.validation))
        if not len(training) or not len(validation):
            named = ", ".join(options.groups or ("any group",))
            raise UserError(
                f"pieces {options.pieces}: {len(training)} of {named} in training photos and {len(validation)} in "
                "those for validation; expected some of each; choose other groups, or a smaller min_area"
            )
        if options.most is not None:
            training = balanced(training, data.targets[rows], options.most, seed)
    used = np.concatenate([training, validation])
    at = np.arange(len(used))
    training, validation = np.split(at, [len(training)])
    return Shown(pictures.take(used), rows[used], data.targets[rows[used]], training, validation)


def balanced(rows: np.ndarray, targets: np.ndarray, most: int, seed: int) -> np.ndarray:
    """At most so many of the rows, ascending, drawn so that classes are as equally frequent as they can be.

    Args:
        rows: (n,) positions.
        targets: (N,) class of each position.
        most: How many.
        seed: Of the draw.
    """
    mixed = np.random.default_rng(seed).permutation(rows)
    order = np.argsort(targets[mixed], kind="stable")
    classes = targets[mixed][order]
    within = np.arange(len(order)) - np.searchsorted(classes, classes)  # the how-manieth of its class each is
    chosen = order[np.argsort(within, kind="stable")[:most]]
    return np.sort(mixed[chosen])


def fit(data: Data, options: Options, run: Run) -> Fitted | None:
    """Fine-tune one: class-weighted cross entropy, the epoch with the best validation accuracy is kept.

    None in a process that trained along with the first one.

    Raises:
        UserError: There are no pieces to learn from, or see :func:`geoloc_core.training.photo_classifier.fit`.
    """
    import torch

    from geoloc_core.encoders.device import device
    from geoloc_core.encoders.trainable import open_trainable
    from geoloc_core.training import photo_classifier
    from geoloc_core.training.recipe import freeze
    from geoloc_core.training.weights import class_weights

    start, recipe = data.towers[options.tower], options.recipe
    given = shown(data, options, run.seed)
    tower = open_trainable(start.options, start.weights)
    freeze(tower.network, tower.blocks, tower.after, recipe.freeze, "recipe.freeze")
    features = [data.images[name][given.rows] for name in options.encoders]
    torch.manual_seed(run.seed)
    net = network(
        tower.network, tower.dim + sum(part.shape[1] for part in features), len(data.space), options.normalise
    )
    of_classes = class_weights(recipe.weights, given.targets[given.training], len(data.space))
    weights = torch.from_numpy(of_classes).to(device())

    def loss(net: Any, x: "torch.Tensor", known: "list[torch.Tensor]", truth: "torch.Tensor") -> "torch.Tensor":
        return photo_classifier.of_class(net(x, *known), truth, weights)

    fitted = photo_classifier.fit(
        net,
        loss,
        lambda net, x, known: net(x, *known),
        tower.preprocess,
        given.pictures,
        features,
        given.targets,
        data.groups_of(given.rows),
        given.training,
        given.validation,
        recipe,
        run,
    )
    if fitted is None:
        return None
    carried = Carried.of_trained(start.options, tower.save, run.checkpoint.parent / TOWER)
    counts = np.bincount(data.targets[data.training], minlength=len(data.space))
    mean, std, (weight, bias) = last_layer(net)
    tensors = {"mean": mean, "std": std, "weight": weight, "bias": bias, "prior": counts / counts.sum()}
    tensors["temperature"] = np.array([fitted.temperature], np.float32)
    said = Network(tower=start.options, groups=options.groups, vote=options.vote)
    model = FineTuned(data.space, options.pieces, list(options.encoders), said, carried, tensors)
    what = "photos" if options.pieces is None else "pieces"
    sizes = {f"training_{what}": len(given.training), f"validation_{what}": len(given.validation)}
    return Fitted(model, fitted.history, fitted.best, {**sizes, **fitted.figures})


def network(trunk: "torch.nn.Module", width: int, classes: int, normalise: str) -> Any:
    """A trunk, its features joined with given ones, and a linear layer: photos and features → logits (N, C).

    Args:
        trunk: Normalised photos (N, 3, size, size) → features (N, D).
        width: D, and the width of the given features.
        classes: C.
        normalise: See :class:`Options`.
    """
    import torch
    from torch import nn

    from geoloc_core.training import heads

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = trunk
            self.head = heads.network(width, (), classes, normalise == "batch_norm")

        def forward(self, photos: torch.Tensor, *features: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.head(torch.cat([self.trunk(photos), *features], dim=1))
            return logits

    return Net()


def last_layer(net: Any) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Mean (D,) and standard deviation (D,) of the joined features, and weight and bias of the linear layer."""
    from geoloc_core.training import heads

    if len(net.head) > 1:
        mean, std, [layer] = heads.normalised_layers(net.head)
        return mean, std, layer
    [layer] = heads.linear_layers(net.head)
    width = layer[0].shape[1]
    return np.zeros(width, np.float32), np.ones(width, np.float32), layer


def load(folder: Path, needs: Needs, space: LabelSpace, remedy: str) -> FineTuned:
    """Read what :meth:`FineTuned.save` wrote.

    Raises:
        UserError: The network is missing, damaged, or does not fit the classes.
    """
    card: Network = read_json(folder / NETWORK, remedy, Network)
    tensors = read_tensors(folder, remedy)
    tower = Carried.load(card.tower, folder / TOWER, remedy)
    width, count = width_of(tensors, "mean"), len(space)
    width = width if needs.encoders else tower.encoder.shape[0]
    expected: dict[str, tuple[int, ...]] = {"mean": (width,), "std": (width,), "temperature": (1,)}
    check_shapes(folder, remedy, tensors, expected | {"weight": (count, width), "bias": (count,), "prior": (count,)})
    segmenter = needs.segmenters[0] if needs.segmenters else None
    return FineTuned(space, segmenter, needs.encoders, card, tower, {name: tensors[name] for name in TENSORS})
