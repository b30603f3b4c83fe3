"""Experts for the features of a photo: each piece is shown to the expert of its group, and the pieces vote.

Gong and Brumley 2024, "Architecture": a segmenter cuts the photo; ground, structures, vegetation and vehicles each have
a ViT of their own, a variant of the family ``fine_tuned``; the country named most often is the answer.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from geoloc_core.contracts import geolocator
from geoloc_core.contracts.batch import Batch, Data, Fitted, Pieces, Run, counted
from geoloc_core.contracts.geolocator import Trained, check_classes, check_shapes, read_tensors, write_tensors
from geoloc_core.contracts.needs import Model, Needs
from geoloc_core.contracts.needs import Pieces as NeedsPieces
from geoloc_core.contracts.options import Variant
from geoloc_core.contracts.prediction import Evidence, Prediction
from geoloc_core.contracts.voting import Vote, vote, weights_of
from geoloc_core.errors import UserError
from geoloc_core.files import read_json, write_json
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.plugins import Strict

if TYPE_CHECKING:
    from geoloc_core.families.fine_tuned import FineTuned
    from geoloc_core.params import Profile

EXPERTS = "experts.json"
NAMED = 3
"""Pieces that an answer names."""
Expert = Annotated[str, Field(min_length=1)]


class Options(Variant):
    """A variant of this family."""

    kind: Literal["feature_experts"]
    pieces: str
    """The segmenter, that of all experts."""
    experts: Annotated[tuple[Expert, ...], Field(min_length=1)]
    """Variants of the family ``fine_tuned``, of the same corpus and label space, each of other groups."""
    labels: str
    """The label space that it learns."""
    vote: Vote = "majority"
    """``majority`` is the poster's; ``weighted`` counts a piece by its probability, its score and its area."""

    def needs(self) -> Needs:
        """The pieces of a photo, and the experts."""
        experts = tuple(Model(variant=name) for name in self.experts)
        return Needs(inputs=(NeedsPieces(encoder=self.pieces), *experts), labels=self.labels)

    def flaws(self, profile: "Profile") -> list[str]:
        """What is wrong with the experts."""
        found: list[str] = []
        taken: dict[str, str] = {}
        for name in self.experts:
            expert: Any = profile.variants.get(name)
            if expert is None:
                continue
            if expert.kind != "fine_tuned" or expert.pieces != self.pieces:
                found.append(f"experts: {name!r}; expected variants of fine_tuned with pieces: {self.pieces}")
                continue
            if (expert.corpus, expert.labels) != (self.corpus, self.labels):
                found.append(
                    f"experts: {name!r} learns {expert.labels} from {expert.corpus}; "
                    f"expected {self.labels} from {self.corpus}"
                )
            if not expert.groups:
                found.append(f"experts: {name!r} has no groups; expected the groups whose pieces it is shown")
            for group in expert.groups or ():
                if group in taken:
                    found.append(f"experts: {name!r} and {taken[group]!r} both have {group}; expected one expert each")
                taken[group] = name
        return found


class Experts(Strict):
    """The experts as JSON has them.

    Attributes:
        names: Of the variants that they were.
        vote: How their pieces agree.
    """

    names: list[str]
    vote: Vote


@dataclass(frozen=True)
class FeatureExperts:
    """Experts that vote.

    Attributes:
        labelspace: Its C classes.
        segmenter: Name of what cuts the pieces.
        experts: The experts with their cards, by the name of the variant that each was.
        classes: Of each expert, the class (C_e,) that each of its own is here; −1 where it is none.
        how: How their pieces agree.
        prior: (C,) the answer for a photo without a piece that any expert knows.
    """

    labelspace: LabelSpace
    segmenter: str
    experts: "dict[str, Trained]"
    classes: list[np.ndarray]
    how: Vote
    prior: np.ndarray

    def predict(self, batch: Batch, k: int = 5, truth: np.ndarray | None = None) -> Prediction:
        """The k classes that the pieces agree on most; the evidence are the pieces that speak most for the first."""
        pieces = batch.pieces[self.segmenter]
        shown = pieces.only(np.isin(pieces.groups.astype(str), list(self.groups)))
        probabilities = self.of_pieces(shown)
        weights = weights_of(shown.scores, shown.areas)
        found = vote(probabilities, shown.photos, len(batch), self.how, weights, self.prior)
        weights = np.ones(len(shown)) if self.how == "majority" else weights
        evidence = strongest(shown, probabilities, found.argmax(axis=1), weights)
        return Prediction.of_probabilities(found, self.labelspace, k, truth, evidence)

    def of_pieces(self, pieces: Pieces) -> np.ndarray:
        """Probabilities (P, C) of pieces, each from the expert of its group."""
        total = np.zeros((len(pieces), len(self.labelspace) + 1))
        for (_, expert), classes in zip(self._models, self.classes, strict=True):
            mine = np.isin(pieces.groups.astype(str), expert.groups)
            total[np.ix_(mine, classes)] = expert.of_pieces(pieces.only(mine))
        return total[:, :-1]  # −1 is the last column, which is left out

    @property
    def _models(self) -> "list[tuple[str, FineTuned]]":
        return [(name, trained.model) for name, trained in self.experts.items()]  # type: ignore[misc]

    @property
    def groups(self) -> set[str]:
        """The groups of pieces that any expert knows."""
        return {group for _, expert in self._models for group in expert.groups or ()}

    def save(self, folder: Path) -> None:
        """Write the experts into an existing folder, each as it is."""
        write_tensors(folder, {"prior": self.prior, **{f"classes.{n}": known for n, known in enumerate(self.classes)}})
        write_json(folder / EXPERTS, Experts(names=list(self.experts), vote=self.how).model_dump())
        for name, trained in self.experts.items():
            (folder / name).mkdir()
            trained.save(folder / name)


def strongest(pieces: Pieces, probabilities: np.ndarray, answers: np.ndarray, weights: np.ndarray) -> Evidence:
    """The pieces of each photo that speak most for its answer; of a photo with fewer, the rest are unnamed.

    Args:
        pieces: P pieces of N photos.
        probabilities: (P, C) of each piece.
        answers: (N,) class of each photo.
        weights: (P,) of each piece.
    """
    photos = pieces.photos
    strength = weights * probabilities[np.arange(len(pieces)), answers[photos]]
    order = np.lexsort((-strength, photos))
    rank = np.arange(len(pieces)) - pieces.starts[:-1][photos[order]]
    first = rank < NAMED
    ids = np.full((len(answers), NAMED), "", dtype=object)
    shares = np.zeros((len(answers), NAMED))
    at = (photos[order][first], rank[first])
    ids[at] = [f"{pieces.groups[p]}: {pieces.classes[p]}" for p in order[first]]
    shares[at] = (strength / np.maximum(np.bincount(photos, strength, len(answers)), 1e-300)[photos])[order[first]]
    return Evidence("piece", ids, shares)


def fit(data: Data, options: Options, run: Run) -> Fitted:
    """Put trained experts together: there is nothing to train."""
    experts = {name: data.models[name] for name in options.experts}
    classes = [data.space.index(trained.labelspace.ids) for trained in experts.values()]
    counts = np.bincount(data.targets[data.training], minlength=len(data.space))
    model = FeatureExperts(
        data.space, options.pieces, experts, classes, options.vote, (counts / counts.sum()).astype(np.float64)
    )
    pieces = data.pieces[options.pieces].of(data.validation)
    named = np.isin(pieces.groups.astype(str), list(model.groups))
    without = int((np.bincount(pieces.photos[named], minlength=len(data.validation)) == 0).sum())
    size = counted(0, [trained.card.parameters for trained in experts.values()])
    return Fitted(model, figures={"experts": len(experts), "validation_photos_without_a_piece": without, **size})


def load(folder: Path, needs: Needs, space: LabelSpace, remedy: str) -> FeatureExperts:
    """Read what :meth:`FeatureExperts.save` wrote.

    Raises:
        UserError: An expert is missing, damaged, or does not fit the classes.
    """
    card: Experts = read_json(folder / EXPERTS, remedy, Experts)
    if card.names != needs.models:
        raise UserError(
            f"{folder / EXPERTS}: experts {', '.join(card.names)}; expected {', '.join(needs.models)}; {remedy}"
        )
    experts = {name: geolocator.load(folder / name, remedy) for name in card.names}
    tensors = read_tensors(folder, remedy)
    known = {f"classes.{n}": (len(trained.labelspace),) for n, trained in enumerate(experts.values())}
    check_shapes(folder, remedy, tensors, {"prior": (len(space),), **known})
    check_classes(folder, remedy, tensors, known, len(space))
    classes = [tensors[name] for name in known]
    [segmenter] = needs.segmenters
    return FeatureExperts(space, segmenter, experts, classes, card.vote, tensors["prior"])
