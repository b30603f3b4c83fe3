"""A whole network, fine-tuned to name the class of a photo or of each of its pieces.

Gong and Brumley 2024, "Experimental setup": ViT-B/16, fine-tuned on whole photos (the baselines), on all features that
Mask2Former cut from them, and on the features of one group (the experts). The poster leaves open the optimiser, the
epochs and the augmentation.
"""

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
from geoloc_core.encoders import encoder as encoders
from geoloc_core.encoders.groups import GROUPS
from geoloc_core.errors import UserError
from geoloc_core.files import read_json, write_json
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.plugins import Strict, options
from geoloc_core.training.networks import NetworkRecipe

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
    recipe: NetworkRecipe = NetworkRecipe()

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
        import shutil

        shutil.copytree(self.folder, folder / TOWER)
        write_tensors(folder, {"weight": self.weight, "bias": self.bias, "prior": self.prior})
        write_json(folder / NETWORK, self.network.model_dump(mode="json"))


def of_groups(pieces: Pieces, groups: tuple[str, ...] | None) -> np.ndarray:
    """Whether each piece (P,) is of one of the groups; all are where none are named."""
    if groups is None:
        return np.ones(len(pieces), bool)
    return np.isin(pieces.groups.astype(str), groups)
