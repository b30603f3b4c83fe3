"""A whole network, fine-tuned to name the class of a photo or of each of its pieces.

Gong and Brumley 2024, "Experimental setup": ViT-B/16, fine-tuned on whole photos (the baselines), on all features that
Mask2Former cut from them, and on the features of one group (the experts). The poster leaves open the optimiser, the
epochs and the augmentation.
"""

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field, PositiveInt

from geoloc_core.contracts.batch import Batch, Data, Fitted, Pieces, Run
from geoloc_core.contracts.geolocator import check_shapes, read_tensors, write_tensors
from geoloc_core.contracts.needs import Needs, Photos, Tower
from geoloc_core.contracts.needs import Pieces as NeedsPieces
from geoloc_core.contracts.options import Variant
from geoloc_core.contracts.prediction import Prediction, softmax
from geoloc_core.contracts.voting import Vote, vote, weights_of
from geoloc_core.corpora.stored import Stored
from geoloc_core.encoders import encoder as encoders
from geoloc_core.encoders.groups import GROUPS
from geoloc_core.errors import UserError
from geoloc_core.files import CHECKSUMS, read_json, remove, write_checksums, write_json
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.plugins import Strict, options
from geoloc_core.training.recipe import NetworkRecipe

if TYPE_CHECKING:
    import torch

    from geoloc_core.params import Profile

NETWORK = "network.json"
TOWER = "tower"
Group = Literal["ground", "structures", "vegetation", "vehicles"]


class Options(Variant):
    """A variant of this family."""

    kind: Literal["fine_tuned"]
    tower: str
    """The encoder whose weights the network starts from."""
    labels: str
    pieces: str | None = None
    """The segmenter whose pieces it is shown; left out, whole photos."""
    groups: Annotated[tuple[Group, ...], Field(min_length=1)] | None = None
    """Of the pieces; left out, all, those of no group too."""
    most: PositiveInt | None = None
    """Pieces that it learns from at most, equally many of each class as far as there are (the poster's 15,000 of six
    countries); left out, all."""
    vote: Vote = "majority"
    """How the pieces of a photo agree."""
    recipe: NetworkRecipe = NetworkRecipe(lr=1e-4, schedule="cosine", warmup=0.1, weight_decay=0.05)

    def needs(self) -> Needs:
        """Photos or pieces, and the weights to start from."""
        shown = Photos() if self.pieces is None else NeedsPieces(encoder=self.pieces)
        return Needs(inputs=(shown, Tower(encoder=self.tower)), labels=self.labels)

    def flaws(self, profile: "Profile") -> list[str]:
        """Keys that go with pieces alone."""
        if self.pieces is not None:
            return []
        given = [name for name in ("groups", "most") if getattr(self, name) is not None]
        return [f"{name}: goes with pieces; expected `pieces`, a segmenter" for name in given]


class Network(Strict):
    """What is said of a network beside its weights.

    Attributes:
        tower: The options of the encoder that it started as, with which it is opened.
        groups: Of the pieces that it is shown.
        vote: How the pieces of a photo agree.
    """

    tower: options(encoders.TOWERS)  # type: ignore[valid-type]
    groups: tuple[Group, ...] | None
    vote: Vote


@dataclass(frozen=True)
class FineTuned:
    """A trained network: a tower in its library's own format, and a linear layer.

    Attributes:
        labelspace: Its C classes.
        segmenter: Name of what cuts the pieces that it is shown; None where it is shown photos.
        network: What is said of it.
        folder: Of the tower's weights.
        tower: The same, opened.
        weight: (C, D) of the layer.
        bias: (C,) of the layer.
        prior: (C,) the answer for a photo without a piece: how frequent each class is.
    """

    labelspace: LabelSpace
    segmenter: str | None
    network: Network
    folder: Path
    tower: encoders.Encoder
    weight: np.ndarray
    bias: np.ndarray
    prior: np.ndarray

    @property
    def groups(self) -> list[str]:
        """Of the pieces that it is shown: those it was told, or all."""
        return list(self.network.groups or GROUPS)

    def predict(self, batch: Batch, k: int = 5, truth: np.ndarray | None = None) -> Prediction:
        """The k most probable classes of each photo; pieces vote."""
        if self.segmenter is None:
            assert batch.photos is not None
            return Prediction.of_probabilities(self._probabilities(batch.photos), self.labelspace, k, truth)
        pieces = batch.pieces[self.segmenter]
        shown = pieces if self.network.groups is None else pieces.only(of_groups(pieces, self.network.groups))
        weights = weights_of(shown.scores, shown.areas)
        found = vote(self.of_pieces(shown), shown.photos, len(batch), self.network.vote, weights, self.prior)
        return Prediction.of_probabilities(found, self.labelspace, k, truth)

    def of_pieces(self, pieces: Pieces) -> np.ndarray:
        """Probabilities (P, C) of P pieces."""
        return self._probabilities(pieces.read().pictures)  # type: ignore[arg-type]

    def _probabilities(self, pictures: Any) -> np.ndarray:
        with ThreadPoolExecutor() as pool:
            features = self.tower(pictures, pool)
        return softmax(features.astype(np.float64) @ self.weight.T + self.bias)

    def save(self, folder: Path) -> None:
        """Write it into an existing folder."""
        shutil.copytree(self.folder, folder / TOWER, ignore=shutil.ignore_patterns(CHECKSUMS))
        write_checksums(folder / TOWER, "weights")
        write_tensors(folder, {"weight": self.weight, "bias": self.bias, "prior": self.prior})
        write_json(folder / NETWORK, self.network.model_dump(mode="json"))


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
        targets: (N,) int64 classes; −1 where a picture for validation is of a class that is not learned.
        training: (n,) positions.
        validation: (m,) positions.
    """

    pictures: Stored
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
        pictures, targets, training, validation = data.photos, data.targets, data.training, data.validation
    else:
        pieces = data.pieces[options.pieces]
        assert isinstance(pieces.pictures, Stored)
        pictures, targets = pieces.pictures, data.targets[pieces.photos]
        kept = of_groups(pieces, options.groups)
        training, validation = (
            np.flatnonzero(kept & np.isin(pieces.photos, rows)) for rows in (data.training, data.validation)
        )
        if not len(training) or not len(validation):
            named = ", ".join(options.groups or ("any group",))
            raise UserError(
                f"pieces {options.pieces}: {len(training)} of {named} in training photos and {len(validation)} in "
                "those for validation; expected some of each; choose other groups, or a smaller min_area"
            )
        if options.most is not None:
            training = balanced(training, targets, options.most, seed)
    used = np.concatenate([training, validation])
    return Shown(pictures.take(used), targets[used], np.arange(len(training)), np.arange(len(training), len(used)))


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


def fit(data: Data, options: Options, run: Run) -> Fitted:
    """Fine-tune one: class-weighted cross entropy, the epoch with the best validation accuracy is kept."""
    import torch
    from torch import nn
    from torch.nn.functional import cross_entropy

    from geoloc_core.encoders.device import device
    from geoloc_core.encoders.trainable import open_trainable
    from geoloc_core.training.networks import fit_network_on_photos
    from geoloc_core.training.photos import Photos as Pictures
    from geoloc_core.training.recipe import freeze, optimise
    from geoloc_core.training.weights import inverse_frequency

    start, recipe, folder = data.towers[options.tower], options.recipe, run.checkpoint.parent
    given = shown(data, options, run.seed)
    tower = open_trainable(start.options, start.weights)
    freeze(tower.network, tower.blocks, tower.after, recipe.freeze, "recipe.freeze")
    torch.manual_seed(run.seed)
    net = nn.Sequential()
    net.add_module("trunk", tower.network)
    net.add_module("head", nn.Linear(tower.dim, len(data.space)))
    at = device()
    frequent = inverse_frequency(given.targets[given.training], len(data.space), recipe.weight_power)
    weights, truth = torch.from_numpy(frequent).to(at), torch.from_numpy(given.targets).to(at)

    def loss(net: "torch.nn.Module", x: "torch.Tensor", rows: "torch.Tensor") -> "torch.Tensor":
        return cross_entropy(net(x), truth[rows], weights, reduction="sum") / len(rows)

    def measure(x: "torch.Tensor", rows: "torch.Tensor") -> dict[str, tuple[float, int]]:
        logits, right = net(x).float(), truth[rows]
        known = int((right >= 0).sum())
        return {
            "validation_loss": (cross_entropy(logits, right, ignore_index=-1).item(), known),
            "validation_accuracy": (100 * (logits.argmax(1) == right).float().mean().item(), len(rows)),
        }

    pictures = Pictures.of(
        given.pictures.folder, given.pictures.shards, given.pictures.rows, tower.preprocess, folder / "scaled.npy",
        recipe.cache_gb,
    )  # fmt: skip
    outcome = fit_network_on_photos(
        net,
        pictures,
        loss,
        given.training,
        measure,
        given.validation,
        lambda net, per_epoch: optimise(recipe, net, per_epoch),
        recipe,
        run.seed,
        run.checkpoint,
        run.depends,
        run.log,
    )
    trained = folder / TOWER
    remove(trained)
    trained.mkdir()
    tower.save(trained)
    counts = np.bincount(data.targets[data.training], minlength=len(data.space))
    layer = net.get_submodule("head")
    model = FineTuned(
        data.space,
        options.pieces,
        Network(tower=start.options, groups=options.groups, vote=options.vote),
        trained,
        encoders.load(start.options, trained),
        layer.weight.detach().cpu().numpy(),  # type: ignore[operator, union-attr]
        layer.bias.detach().cpu().numpy(),  # type: ignore[operator, union-attr]
        counts / counts.sum(),
    )
    what = "photos" if options.pieces is None else "pieces"
    sizes = {f"training_{what}": len(given.training), f"validation_{what}": len(given.validation)}
    return Fitted(model, outcome.history, outcome.best, {**sizes, **outcome.figures})


def load(folder: Path, needs: Needs, space: LabelSpace, remedy: str) -> FineTuned:
    """Read what :meth:`FineTuned.save` wrote.

    Raises:
        UserError: The network is missing, damaged, or does not fit the classes.
    """
    card: Network = read_json(folder / NETWORK, remedy, Network)
    tensors = read_tensors(folder, remedy)
    if not (listed := folder / TOWER / CHECKSUMS).is_file():
        raise UserError(f"{listed}: no such file; {remedy}")
    tower = encoders.load(card.tower, folder / TOWER, remedy)
    count = len(space)
    check_shapes(
        folder, remedy, tensors, {"weight": (count, *tower.shape), "bias": (count,), "prior": (count,)}
    )
    segmenter = needs.segmenters[0] if needs.segmenters else None
    return FineTuned(
        space, segmenter, card, folder / TOWER, tower, tensors["weight"], tensors["bias"], tensors["prior"]
    )
