"""What every model answers, whatever is inside: all that evaluation, serving, explanation and ensembles know."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from geoloc_core.geo.labelspace import LabelSpace


@dataclass(frozen=True)
class Evidence:
    """What an answer rests on, the weightiest first.

    Attributes:
        kind: What the pieces are, such as ``clue``.
        ids: (N, e) their ids.
        weights: (N, e) of each.
    """

    kind: str
    ids: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class OfTruth:
    """What a model thought of the true class, among all C classes: calibration, sets and likelihoods need no more.

    Attributes:
        rank: (N,) int32 from 0, the place of the true class; −1 where the model does not know the class.
        probability: (N,) float32 of the true class; 0 where unknown.
        before: (N,) float32 probability of all classes that rank before it; 1 where unknown.
    """

    rank: np.ndarray
    probability: np.ndarray
    before: np.ndarray


@dataclass(frozen=True)
class Prediction:
    """The k best candidates of N units, best first, and one answer per unit.

    Attributes:
        classes: (N, k) int64 positions in the model's label space.
        probabilities: (N, k) of each candidate.
        latitudes: (N, k) of each candidate, degrees.
        longitudes: (N, k) of each candidate, degrees.
        latitude: (N,) of the answer, degrees.
        longitude: (N,) of the answer, degrees.
        truth: What it thought of the true class, where that was given.
        radius_km: (N,) within which the photo was taken, with the model's stated confidence.
        auxiliary: Further (N,) outputs by name, such as ``month``: see :mod:`geoloc_core.contracts.facts`.
        evidence: What the answers rest on.
        log_density: (N,) the logarithm of the density at the true place, per steradian, where that was given and the
            model has one: see :mod:`geoloc_core.contracts.density`.
    """

    classes: np.ndarray
    probabilities: np.ndarray
    latitudes: np.ndarray
    longitudes: np.ndarray
    latitude: np.ndarray
    longitude: np.ndarray
    truth: OfTruth | None = None
    radius_km: np.ndarray | None = None
    auxiliary: dict[str, np.ndarray] = field(default_factory=dict)
    evidence: Evidence | None = None
    log_density: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.classes)

    @classmethod
    def of_probabilities(
        cls,
        probabilities: np.ndarray,
        space: "LabelSpace",
        k: int,
        truth: np.ndarray | None = None,
        evidence: Evidence | None = None,
    ) -> "Prediction":
        """The answer of a classifier: the place of the most probable class.

        Args:
            probabilities: (N, C) of the classes; equal ones keep the label space's order.
            space: The C classes.
            k: How many candidates; at most C are given.
            truth: (N,) true classes, −1 where unknown; left out, nothing is said of them.
            evidence: What the answers rest on.
        """
        classes = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
        best = np.take_along_axis(probabilities, classes, axis=1)
        latitudes, longitudes = space.latitudes[classes], space.longitudes[classes]
        return cls(
            classes,
            best,
            latitudes,
            longitudes,
            latitudes[:, 0],
            longitudes[:, 0],
            truth=None if truth is None else _of_truth(probabilities, truth),
            evidence=evidence,
        )

    def with_auxiliary(self, auxiliary: dict[str, np.ndarray]) -> "Prediction":
        """The same with further outputs."""
        return replace(self, auxiliary=auxiliary)

    def at(self, latitude: np.ndarray, longitude: np.ndarray, radius_km: np.ndarray | None = None) -> "Prediction":
        """The same with other answers (N,), degrees, at which the first candidate is then too."""
        latitudes, longitudes = self.latitudes.copy(), self.longitudes.copy()
        latitudes[:, 0], longitudes[:, 0] = latitude, longitude
        return replace(
            self,
            latitudes=latitudes,
            longitudes=longitudes,
            latitude=latitude,
            longitude=longitude,
            radius_km=self.radius_km if radius_km is None else radius_km,
        )

    def rows(self, where: slice | np.ndarray) -> "Prediction":
        """Some of the units."""
        return _map(self, lambda values: values[where])

    @classmethod
    def join(cls, parts: Sequence["Prediction"]) -> "Prediction":
        """Predictions of one model, one after the other."""
        return _zip(parts)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (N, C) of logits (N, C)."""
    probabilities: np.ndarray = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return probabilities


def _of_truth(probabilities: np.ndarray, truth: np.ndarray) -> OfTruth:
    known = truth >= 0
    mine = np.where(known, probabilities[np.arange(len(truth)), np.maximum(truth, 0)], 0)
    earlier = np.arange(probabilities.shape[1]) < truth[:, None]
    before = (probabilities > mine[:, None]) | ((probabilities == mine[:, None]) & earlier)
    rank = np.where(known, before.sum(axis=1), -1)
    mass = np.where(known, (probabilities * before).sum(axis=1), 1)
    return OfTruth(rank.astype(np.int32), mine.astype(np.float32), mass.astype(np.float32))


def _map(value: Any, change: Any) -> Any:
    """The same record with every array in it changed."""
    if isinstance(value, np.ndarray):
        return change(value)
    if isinstance(value, dict):
        return {key: _map(inner, change) for key, inner in value.items()}
    if isinstance(value, Prediction | OfTruth | Evidence):
        return type(value)(**{f.name: _map(getattr(value, f.name), change) for f in fields(value)})
    return value


def _zip(values: Sequence[Any]) -> Any:
    """One record whose arrays are those of several, one after the other."""
    first = values[0]
    if isinstance(first, np.ndarray):
        return np.concatenate(values)
    if isinstance(first, dict):
        return {key: _zip([value[key] for value in values]) for key in first}
    if isinstance(first, Prediction | OfTruth | Evidence):
        return type(first)(**{f.name: _zip([getattr(value, f.name) for value in values]) for f in fields(first)})
    return first
