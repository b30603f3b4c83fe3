"""An ensemble of places: members vote for each other's places, whatever their classes are.

All candidates of all members stand for election. Each candidate of each member votes for the places around its own, the
more the nearer they are, by a von Mises–Fisher kernel; its vote weighs its probability times the weight of its member.
The place with the most votes is the answer. The width of the kernel and the members' weights are chosen on the
validation split by the share of photos that are answered within a distance; see
:mod:`geoloc_core.training.selection`. Among the widths is one within which no two places lie, and each member alone is
tried with it, so the ensemble is never worse there than its best member.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field, PositiveFloat

from geoloc_core.blocks import blocks
from geoloc_core.contracts.batch import Answered, Batch, Data, Fitted, Run, counted
from geoloc_core.contracts.geolocator import check_classes, check_shapes, read_tensors, width_of, write_tensors
from geoloc_core.contracts.needs import Answers, Needs
from geoloc_core.contracts.options import Variant
from geoloc_core.contracts.prediction import Evidence, Prediction
from geoloc_core.errors import UserError
from geoloc_core.evaluation.metrics import GEOGUESSR_KM
from geoloc_core.geo import sphere
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.training import selection

if TYPE_CHECKING:
    from geoloc_core.params import Profile

ALONE_KM = 1e-3
"""The width of a kernel that reaches no other place."""
SAME_DEGREES = 1e-4
"""How far apart the places of one class may lie, read from two files."""
CHOSEN_BY = 2**15
"""Validation photos, evenly spaced, that weights are chosen by, at most."""
BLOCK = 2**22
"""Numbers at a time."""


class Options(Variant):
    """A variant of this family."""

    kind: Literal["place_ensemble"]
    members: Annotated[tuple[str, ...], Field(min_length=2)]
    """Variants of the same corpus, of any label spaces."""
    labels: str
    """Whose classes are the candidates; a place of other classes is of the class that is nearest."""
    within_km: PositiveFloat = 750.0
    """Weights are chosen by the share of validation photos that are answered within this distance."""
    widths_km: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (10.0, 30.0, 100.0, 200.0, 400.0, 800.0)
    """How far a vote may reach, of which one is chosen."""
    rounds: int = Field(30, gt=0)
    """How often a member is added while the weights are chosen."""

    def needs(self) -> Needs:
        """The members' answers."""
        return Needs(inputs=tuple(Answers(variant=name) for name in self.members), labels=self.labels)

    def flaws(self, profile: "Profile") -> list[str]:
        """What is wrong with the members."""
        found = []
        for name in self.members:
            member = profile.variants.get(name)
            if member is None:
                continue
            if member.needs().members:
                found.append(f"members: {name!r} reads other variants' answers itself; expected one that does not")
            if member.corpus != self.corpus:
                found.append(f"members: {name!r} learns from {member.corpus}; expected {self.corpus}, as the ensemble")
        return found


@dataclass(frozen=True)
class Votes:
    """The candidates of M members for N units, all K of them side by side.

    Attributes:
        points: (N, K, 3) their places; of each member the answer comes first.
        shares: (N, K) float64 probabilities.
        classes: (N, K) of the ensemble.
        members: (K,) whose each is.
    """

    points: np.ndarray
    shares: np.ndarray
    classes: np.ndarray
    members: np.ndarray

    def parts(self, width_km: float) -> np.ndarray:
        """The votes (M, N, K) of each member for each candidate: Σ shares · exp(κ (cos d − 1)) over its own."""
        own = self.members == np.arange(self.members.max() + 1)[:, None]
        kappa = (sphere.EARTH_KM / width_km) ** 2
        found = np.empty((len(own), *self.shares.shape))
        for part in blocks(len(self.shares), BLOCK, len(self.members) ** 2):
            here = self.points[part]
            squares = ((here[:, :, None] - here[:, None]) ** 2).sum(axis=3)  # a cosine would round what is near away
            votes = (self.shares[part, None] * own) @ np.exp(-kappa * squares / 2)
            found[:, part] = votes.transpose(1, 0, 2)
        return found


@dataclass(frozen=True)
class PlaceEnsemble:
    """Members with weights.

    Attributes:
        labelspace: Its C classes.
        members: Names of the M members.
        weights: (M,) float64, their sum is 1.
        width_km: How far votes reach.
        classes: Of each member, the class (C_m,) that each of its own is here; −1 where it is none.
    """

    labelspace: LabelSpace
    members: list[str]
    weights: np.ndarray
    width_km: float
    classes: list[np.ndarray]

    @cached_property
    def _tree(self) -> Any:
        from scipy.spatial import cKDTree

        return cKDTree(sphere.unit_vectors(self.labelspace.latitudes, self.labelspace.longitudes))

    def votes(self, answers: list[Prediction]) -> Votes:
        """The candidates of all members."""
        points, shares, classes = [], [], []
        for answer, known in zip(answers, self.classes, strict=True):
            places = sphere.unit_vectors(answer.latitudes, answer.longitudes)
            places[:, 0] = sphere.unit_vectors(answer.latitude, answer.longitude)
            here = known[answer.classes]
            unknown = here < 0
            here[unknown] = self._tree.query(places[unknown])[1]
            points.append(places)
            shares.append(answer.probabilities.astype(np.float64))
            classes.append(here)
        owners = np.repeat(np.arange(len(answers)), [part.shape[1] for part in shares])
        return Votes(
            np.concatenate(points, axis=1), np.concatenate(shares, axis=1), np.concatenate(classes, axis=1), owners
        )

    def predict(self, batch: Batch, k: int = 5, truth: np.ndarray | None = None) -> Prediction:
        """The k classes of the greatest weighted mean; the answer is the place with the most votes.

        The first candidate is then there too. The evidence is how many of these votes each member gave.
        """
        votes = self.votes([batch.answers[name] for name in self.members])
        n, c = len(votes.shares), len(self.labelspace)
        weighted = votes.shares * self.weights[votes.members]
        flat = (np.arange(n)[:, None] * c + votes.classes).ravel()
        probabilities = np.bincount(flat, weighted.ravel(), minlength=n * c).reshape(n, c)
        parts = self.weights[:, None, None] * votes.parts(self.width_km)
        rows, best = np.arange(n), parts.sum(axis=0).argmax(axis=1)
        latitude, longitude = sphere.coordinates(votes.points[rows, best])
        given = parts[:, rows, best]
        order = np.argsort(-given.T, kind="stable")
        names = np.array(self.members, dtype=object)
        evidence = Evidence("variant", names[order], np.take_along_axis(given.T, order, axis=1))
        found = Prediction.of_probabilities(probabilities, self.labelspace, k, truth, evidence)
        return found.at(latitude, longitude)

    def save(self, folder: Path) -> None:
        """Write its weights into an existing folder."""
        classes = {f"classes.{n}": values for n, values in enumerate(self.classes)}
        write_tensors(folder, {"weights": self.weights, "width_km": np.array([self.width_km]), **classes})


def same_classes(space: LabelSpace, other: LabelSpace) -> np.ndarray:
    """The class (C,) of a label space that each of another's is; −1 where none has its id and its place."""
    found = space.index(other.ids)
    apart = np.abs(space.latitudes[found] - other.latitudes) + np.abs(space.longitudes[found] - other.longitudes)
    return np.where((found >= 0) & (apart < SAME_DEGREES), found, -1)


def fit(data: Data, options: Options, run: Run) -> Fitted:
    """Choose width and weights on the validation rows that all members answer and whose place is known.

    Raises:
        UserError: There is no such row.
    """
    answered: list[Answered] = [data.answers[name] for name in options.members]
    rows = data.validation[np.isfinite(data.latitudes[data.validation]) & np.isfinite(data.longitudes[data.validation])]
    for member in answered:
        rows = np.intersect1d(rows, member.rows)
    if not len(rows):
        raise UserError("no validation photo with coordinates is answered by all members; choose other members")
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, CHOSEN_BY).astype(np.int64))]
    classes = [same_classes(data.space, member.space) for member in answered]
    start = PlaceEnsemble(data.space, list(options.members), np.ones(len(classes)), ALONE_KM, classes)
    votes = start.votes([member.prediction.rows(np.searchsorted(member.rows, rows)) for member in answered])
    truth = sphere.unit_vectors(data.latitudes[rows], data.longitudes[rows])
    km = sphere.arc_km(np.linalg.norm(votes.points - truth[:, None], axis=2))
    near, score = km <= options.within_km, np.exp(-km / GEOGUESSR_KM)
    at = np.arange(len(rows))

    def merit(support: np.ndarray) -> tuple[float, ...]:
        best = support.argmax(axis=1)
        return float(near[at, best].mean()), float(score[at, best].mean())  # a tie goes to the better game

    found = {
        width: selection.select([*votes.parts(width)], merit, options.rounds)
        for width in (ALONE_KM, *options.widths_km)
    }
    width = max(found, key=lambda width: found[width][1][found[width][2]])
    counts, merits, best = found[width]
    history = [{"validation_within": 100 * right} for right, _ in merits]
    for number, metrics in enumerate(history):
        run.log(metrics, number)
    weights = counts / counts.sum()
    model = replace(start, weights=weights, width_km=width)
    shares = {name: round(float(weight), 4) for name, weight in zip(options.members, weights, strict=True)}
    size = counted(len(weights) + 1, [member.parameters for member in answered])
    return Fitted(model, history, best, {"weights": shares, "width_km": width, **size})


def load(folder: Path, needs: Needs, space: LabelSpace, remedy: str) -> PlaceEnsemble:
    """Read what :meth:`PlaceEnsemble.save` wrote.

    Raises:
        UserError: The weights are missing, damaged, or do not fit the members.
    """
    tensors = read_tensors(folder, remedy)
    names = [f"classes.{n}" for n in range(len(needs.members))]
    expected: dict[str, tuple[int, ...]] = {"weights": (len(names),), "width_km": (1,)}
    expected |= {name: (width_of(tensors, name),) for name in names}
    check_shapes(folder, remedy, tensors, expected)
    check_classes(folder, remedy, tensors, names, len(space))
    known = [tensors[name] for name in names]
    return PlaceEnsemble(space, needs.members, tensors["weights"], tensors["width_km"].item(), known)
