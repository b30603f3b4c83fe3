"""ProtoNet refinement: a layer over a model of cells, which moves its guess to the photos that look most alike.

PIGEON (Haas et al. 2024; the poster, section 6): in each of the K most probable cells the nearest prototype, the mean
embedding of a cluster of photos, speaks for the cell; a softmax over the K distances re-weights their probabilities;
within the cluster of the best cell the nearest training photo is the answer. A guess that would move farther than
``max_km`` stays as it was.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt, PrivateAttr

from geoloc_core.blocks import blocks
from geoloc_core.contracts import geolocator, layers, mapped
from geoloc_core.contracts.batch import Batch, Data, Fitted, Run
from geoloc_core.contracts.clustered import Clustered
from geoloc_core.contracts.differentiable import Differentiable, of_cells
from geoloc_core.contracts.geolocator import WEIGHTS, Trained, check_shapes, read_tensors, write_tensors
from geoloc_core.contracts.layers import Names, cut, embeddings, of_truth
from geoloc_core.contracts.needs import Input, Needs
from geoloc_core.contracts.options import Variant
from geoloc_core.contracts.prediction import Evidence, OfTruth, Prediction, softmax
from geoloc_core.errors import UserError
from geoloc_core.files import read_json, write_json
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.geo.sphere import haversine_km
from geoloc_core.plugins import Strict
from geoloc_core.threads import side_by_side

if TYPE_CHECKING:
    from geoloc_core.params import Profile

CARD = "refinement.json"
PHOTOS = "photos.safetensors"
HALF = np.dtype(np.float16)
BLOCK = 2**22
"""Numbers in float32 at a time."""
VALIDATED, ROWS = 2**15, 2**11
"""Validation photos that calibrate, at most, evenly spread; those that are looked at together."""
NEAR_KM = (1, 25, 200)
LEAST = 1e-30
"""A probability that has sunk to zero counts as this much, so that its logarithm is a number."""


class Clusters(Strict):
    """How OPTICS clusters the photos of a cell."""

    min_samples: int = Field(3, ge=2)
    """Photos that make a cluster, at least."""
    xi: float = Field(0.15, gt=0, lt=1)
    """The share by which the reachability falls and rises again at a cluster's edges."""


class Options(Variant):
    """A variant of this family. What is left out is PIGEON's, for Street View.

    PIGEOTTO's, for any photos: ``clusters: {min_samples: 100, xi: 0.1}``, ``candidates: 40``, ``temperature: 0.6`` and
    ``max_km: 100000``.
    """

    kind: Literal["protonet_refinement"]
    variant: str
    """The variant that is refined: any that learns cells, of the same corpus."""
    encoder: str
    """Whose features are compared, by their Euclidean distance."""
    labels: str
    """The cells, those of the variant."""
    clusters: Clusters = Clusters()
    candidates: PositiveInt = 5
    """K, the cells that are looked at."""
    temperature: PositiveFloat = 1.6
    """What distances are divided by."""
    max_km: float = Field(1000.0, ge=0)
    """How far the answer may move from the variant's."""
    _reads: tuple[Input, ...] = PrivateAttr(())
    _unit: Literal["photo", "place"] = PrivateAttr("photo")

    def over(self, variants: Mapping[str, Any]) -> "Options":
        """The same once it knows what the variant that it refines reads and answers."""
        found: Options = layers.over(self, variants)
        return found

    def needs(self) -> Needs:
        """The refined model and what it reads to answer, and the features that are compared."""
        return layers.needs(self)

    def flaws(self, profile: "Profile") -> list[str]:
        """What is wrong with the variant that it refines."""
        return layers.flaws(profile, self, "refined")


class Settings(Strict):
    """What is said of a refinement beside its arrays.

    Attributes:
        variant: Name of the variant that is refined.
        encoder: Whose features are compared.
        candidates: K.
        temperature: What distances are divided by.
        max_km: How far the answer may move.
    """

    variant: str
    encoder: str
    candidates: PositiveInt
    temperature: PositiveFloat
    max_km: float = Field(ge=0)


@dataclass(frozen=True)
class Gallery:
    """M training photos, or places, in P clusters of C cells.

    Attributes:
        cells: (C + 1,) where the prototypes of each cell begin.
        prototypes: (P, D) float16.
        starts: (P + 1,) where the photos of each cluster begin.
        features: (M, D) float16, memory-mapped; while it is being made, of all photos of the corpus.
        rows: (M,) where in ``features`` each photo is; None where they are in order.
        latitudes: (M,) degrees.
        longitudes: (M,) degrees.
        text: Their ids one after the other, UTF-8.
        ends: (M + 1,) where in ``text`` each begins.
    """

    cells: np.ndarray
    prototypes: np.ndarray
    starts: np.ndarray
    features: np.ndarray
    rows: np.ndarray | None
    latitudes: np.ndarray
    longitudes: np.ndarray
    text: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.latitudes)

    def photos(self, start: int, stop: int) -> np.ndarray:
        """Features of some photos in a row."""
        found: np.ndarray = self.features[slice(start, stop) if self.rows is None else self.rows[start:stop]]
        return found

    def ids(self, photos: np.ndarray) -> np.ndarray:
        """(n,) ids of n photos."""
        return Names(self.text, self.ends)[photos]


@dataclass(frozen=True)
class Refinement:
    """A model of cells and what refines it. It answers in NumPy.

    Attributes:
        settings: What is said of it.
        refined: The model of cells.
        gallery: What it compares with.
        calibration: What the logarithms of the scores are divided by; the order of the cells does not depend on it.
    """

    settings: Settings
    refined: Trained
    gallery: Gallery
    calibration: float = 1.0

    @property
    def labelspace(self) -> LabelSpace:
        """The cells."""
        return self.refined.labelspace

    def predict(self, batch: Batch, k: int = 5, truth: np.ndarray | None = None) -> Prediction:
        """The k best cells, each with the place of the training photo that looks most alike; the answer is the best's.

        The K cells share the probability that the model of cells gave them; all others keep theirs, and their ranks
        behind them. A cell without photos has the place that the model gave it and weighs as little as the farthest of
        the others. Where no cell has any, or the answer would move too far, all is as the model of cells had it.
        The evidence is the training photo, with the weight of its prototype among the K.
        """
        first = self.refined.model.predict(batch, max(k, self.settings.candidates), truth)
        features = embeddings(batch.images[self.settings.encoder], batch.starts)
        cells = first.classes[:, : self.settings.candidates]
        prototypes, scores, weights = self.score(features, cells, first.probabilities[:, : cells.shape[1]])
        order = np.argsort(-scores, kind="stable")
        shown = order[:, :k]
        photos = self.photos(features, np.take_along_axis(prototypes, shown, axis=1))
        of_cells = self._refined(first, scores, order, photos, truth)
        plain = cut(first, k)
        far = haversine_km(first.latitude, first.longitude, of_cells.latitude, of_cells.longitude)
        stays = (far > self.settings.max_km) | (prototypes < 0).all(axis=1)
        best = np.where(stays, -1, photos[:, 0])
        evidence = self._evidence(best, np.take_along_axis(weights, shown[:, :1], axis=1)[:, 0])
        return replace(_either(stays, plain, cut(of_cells, k)), auxiliary=first.auxiliary, evidence=evidence)

    def score(
        self, features: np.ndarray, cells: np.ndarray, probabilities: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """How well K cells fit N embeddings.

        Args:
            features: (N, D) float32.
            cells: (N, K).
            probabilities: (N, K) of the model of cells.

        Returns:
            (N, K) the nearest prototype in each cell, −1 where it has none; (N, K) logarithms of probability times
            weight, but for a constant of each row; (N, K) the weights, a softmax over −distance / temperature.
        """
        rows = np.repeat(np.arange(len(cells)), cells.shape[1])
        flat = nearest(features, rows, cells.ravel(), self.gallery.cells, lambda a, b: self.gallery.prototypes[a:b])
        found = flat.reshape(cells.shape)
        distances = np.full(cells.shape, np.nan)

        def measure(part: slice) -> None:
            apart = self.gallery.prototypes[found[part]].astype(np.float32)
            apart -= features[part, None]
            distances[part] = np.sqrt(np.einsum("nkd,nkd->nk", apart, apart))

        side_by_side(measure, blocks(len(cells), BLOCK, cells.shape[1] * features.shape[1]))
        distances[found < 0] = -np.inf
        farthest = distances.max(axis=1, keepdims=True)
        distances = np.where(found < 0, np.where(np.isfinite(farthest), farthest, 0), distances)
        near = -distances / self.settings.temperature
        scores = np.log(np.maximum(probabilities.astype(np.float64), LEAST)) + near
        return found, scores, softmax(near)

    def photos(self, features: np.ndarray, prototypes: np.ndarray) -> np.ndarray:
        """The nearest training photo (N, k) in each of k clusters (N, k); −1 where the cluster is −1."""
        known = np.flatnonzero(prototypes.ravel() >= 0)
        found = np.full(prototypes.size, -1)
        rows, clusters = known // prototypes.shape[1], prototypes.ravel()[known]
        found[known] = nearest(features, rows, clusters, self.gallery.starts, self.gallery.photos)
        return found.reshape(prototypes.shape)

    def _refined(
        self, first: Prediction, scores: np.ndarray, order: np.ndarray, photos: np.ndarray, truth: np.ndarray | None
    ) -> Prediction:
        """The K cells in their new order, and behind them what else the model of cells named."""
        count, shown = order.shape[1], photos.shape[1]
        mass = first.probabilities[:, :count].sum(axis=1, keepdims=True, dtype=np.float64)
        shares = mass * softmax(np.take_along_axis(scores, order, axis=1) / self.calibration)
        classes, latitudes, longitudes = (
            np.concatenate([np.take_along_axis(values[:, :count], order, axis=1), values[:, count:]], axis=1)
            for values in (first.classes, first.latitudes, first.longitudes)
        )
        for places, known in ((latitudes, self.gallery.latitudes), (longitudes, self.gallery.longitudes)):
            places[:, :shown] = np.where(photos >= 0, known[photos], places[:, :shown])
        probabilities = np.concatenate([shares, first.probabilities[:, count:]], axis=1).astype(np.float32)
        thought = None
        if truth is not None and first.truth is not None:
            thought = of_truth(first.truth, classes[:, :count], probabilities[:, :count], truth)
        return Prediction(
            classes, probabilities, latitudes, longitudes, latitudes[:, 0], longitudes[:, 0], truth=thought
        )

    def _evidence(self, photos: np.ndarray, weights: np.ndarray) -> Evidence:
        named = photos >= 0
        ids = np.full((len(photos), 1), "", dtype=object)
        ids[named, 0] = self.gallery.ids(photos[named])
        return Evidence("neighbour", ids, np.where(named, weights, 0)[:, None])

    def differentiable(self) -> Differentiable | None:
        """The model of cells in PyTorch."""
        return of_cells(self.refined.model)

    def save(self, folder: Path) -> None:
        """Write the model of cells and the gallery into an existing folder."""
        gallery = self.gallery
        tensors = {name: getattr(gallery, name) for name in ARRAYS}
        write_tensors(folder, tensors | {"calibration": np.array([self.calibration])})
        shape = (len(gallery), gallery.prototypes.shape[1])
        photos = (gallery.photos(some.start, some.stop) for some in blocks(len(gallery), BLOCK, shape[1]))
        mapped.write_rows(folder / PHOTOS, "features", HALF, shape, photos)
        write_json(folder / CARD, self.settings)
        (folder / self.settings.variant).mkdir()
        self.refined.save(folder / self.settings.variant)


ARRAYS = ("cells", "prototypes", "starts", "latitudes", "longitudes", "text", "ends")


def nearest(features: np.ndarray, rows: np.ndarray, groups: np.ndarray, starts: np.ndarray, vectors: Any) -> np.ndarray:
    """The vector of a group that is nearest to each row, the first of equals.

    Rows that ask for the same group are answered together, by one product of matrices.

    Args:
        features: (N, D) float32.
        rows: (Q,) of ``features``.
        groups: (Q,) the group that each asks for.
        starts: (G + 1,) where the vectors of each group begin.
        vectors: Gives the vectors (n, D) from one position to another.

    Returns:
        (Q,) positions of vectors; −1 where the group is empty.
    """
    sizes = np.diff(starts)[groups]
    found = np.where(sizes > 0, starts[groups], -1)
    asked = np.flatnonzero(sizes > 1)
    asked = asked[np.argsort(groups[asked], kind="stable")]
    bounds = np.flatnonzero(np.diff(groups[asked], prepend=-1, append=-1))
    parts = [
        asked[a + some.start : a + some.stop]
        for a, b in itertools.pairwise(bounds.tolist())
        for some in blocks(b - a, BLOCK, features.shape[1])
    ]

    def answer(some: np.ndarray) -> None:
        start, stop = starts[groups[some[0]] + np.arange(2)].tolist()
        found[some] = start + _nearest(features[rows[some]], start, stop, vectors)

    side_by_side(answer, sorted(parts, key=len, reverse=True))
    return found


def _nearest(own: np.ndarray, start: int, stop: int, vectors: Any) -> np.ndarray:
    """Which of the vectors from ``start`` to ``stop`` is nearest to each row of ``own``."""
    best, at = np.full(len(own), -np.inf, np.float32), np.zeros(len(own), np.int64)
    for some in blocks(stop - start, BLOCK, own.shape[1]):
        others = np.asarray(vectors(start + some.start, start + some.stop), np.float32)
        closeness = own @ others.T
        closeness -= np.einsum("nd,nd->n", others, others) / 2
        which = closeness.argmax(axis=1)
        found = closeness[np.arange(len(own)), which]
        better = found > best
        best[better], at[better] = found[better], which[better] + some.start
    return at


def _either(which: np.ndarray, one: Prediction, other: Prediction) -> Prediction:
    """Of each unit the first answer where ``which`` (N,) holds, else the other; without extras."""

    def pick(a: Any, b: Any, names: tuple[str, ...]) -> dict[str, Any]:
        values = ((name, getattr(a, name), getattr(b, name)) for name in names)
        return {name: np.where(which if x.ndim == 1 else which[:, None], x, y) for name, x, y in values}

    names = ("classes", "probabilities", "latitudes", "longitudes", "latitude", "longitude")
    truth = None
    if one.truth is not None and other.truth is not None:
        truth = OfTruth(**pick(one.truth, other.truth, ("rank", "probability", "before")))
    return Prediction(**pick(one, other, names), truth=truth)


def fit(data: Data, options: Options, run: Run) -> Fitted:
    """Cluster the training photos of each cell; the validation photos calibrate, and tell what it gains."""
    refined: Trained = data.models[options.variant]
    gallery, noise = build(data, options, refined.labelspace)
    settings = Settings(**{name: getattr(options, name) for name in Settings.model_fields})
    model = Refinement(settings, refined, gallery)
    calibration, gains = _validate(model, data)
    figures = {
        "prototypes": len(gallery.prototypes),
        "photos": len(gallery),
        "noise": noise,
        "cells_without_photos": int((np.diff(gallery.cells) == 0).sum()),
        "temperature": calibration,
        "parameters": (refined.card.parameters or 0) + gallery.prototypes.size,
        "trainable_parameters": 0,
    }
    return Fitted(replace(model, calibration=calibration), figures=figures | gains)


def build(data: Data, options: Options, space: LabelSpace) -> tuple[Gallery, int]:
    """The gallery of the training photos, or places, and how many of them were noise.

    Args:
        data: What the variant learns from.
        options: Of the variant.
        space: The C cells of the model that is refined.
    """
    from geoloc_core.training.prototypes import cluster, means

    units = data.units(data.training)
    cells = space.index(data.space.ids)[data.targets[units.first]]
    latitudes, longitudes = data.latitudes[units.first], data.longitudes[units.first]
    usable = np.flatnonzero((cells >= 0) & np.isfinite(latitudes) & np.isfinite(longitudes))
    where = cells[usable], latitudes[usable], longitudes[usable]
    clusters = cluster(*where, len(space), options.clusters.min_samples, options.clusters.xi)
    kept = usable[clusters.points]
    taken = units.take(kept)
    features, rows = data.images[options.encoder], taken.rows
    if len(taken.rows) > len(taken):
        features, rows = means(features, taken.rows, taken.starts), np.arange(len(taken))
    prototypes = means(features, rows, clusters.starts)
    names = Names.of(data.ids, taken.first)
    gallery = Gallery(
        clusters.cells,
        prototypes,
        clusters.starts,
        features,
        rows,
        latitudes[kept],
        longitudes[kept],
        names.text,
        names.ends,
    )
    return gallery, len(usable) - len(kept)


def _validate(model: Refinement, data: Data) -> tuple[float, dict[str, Any]]:
    """The temperature that calibrates the scores, and how many validation answers are near before and after, in %."""
    from geoloc_core.training.calibration import fit_temperature

    units = data.units(data.validation)
    for answered in data.answers.values():
        units = units.take(np.flatnonzero(np.isin(units.first, answered.rows)))
    if not len(units):
        return 1.0, {}
    units = units.take(np.arange(0, len(units), -(-len(units) // VALIDATED)))
    space, count = model.labelspace, min(model.settings.candidates, len(model.labelspace))
    truth = space.index(data.space.ids)[data.targets[units.first]]
    truth[data.targets[units.first] < 0] = -1
    scores, moved = [], []
    for rows in blocks(len(units), ROWS):
        part = units.take(np.arange(rows.start, rows.stop))
        batch = data.batch(part)
        first, last = model.refined.model.predict(batch, count), model.predict(batch, 1)
        features = embeddings(batch.images[model.settings.encoder], batch.starts)
        _, logits, _ = model.score(features, first.classes, first.probabilities)
        right = first.classes == truth[rows, None]
        known = right.any(axis=1)
        scores.append((logits[known], right.argmax(axis=1)[known]))
        points = data.latitudes[part.first], data.longitudes[part.first]
        moved.append([haversine_km(found.latitude, found.longitude, *points) for found in (first, last)])
    temperature = fit_temperature(*(np.concatenate(parts) for parts in zip(*scores, strict=True)))
    km = np.concatenate(moved, axis=1)
    km = km[:, np.isfinite(km).all(axis=0)]
    gains = {
        f"within_{limit}km_{when}": round(100 * float((errors <= limit).mean()), 2)
        for limit in NEAR_KM
        for when, errors in zip(("before", "after"), km, strict=True)
        if km.size
    }
    return temperature, gains


def clusters(folder: Path, remedy: str) -> Clustered:
    """The clusters of a model that :meth:`Refinement.save` wrote, for maps of them.

    Raises:
        UserError: They are missing or damaged.
    """
    held = mapped.read(folder / WEIGHTS, remedy)
    names = ("latitudes", "longitudes", "starts", "cells")
    if missing := [name for name in names if name not in held]:
        raise UserError(f"{folder / WEIGHTS}: no tensor {missing[0]!r}; {remedy}")
    return Clustered(**{name: np.asarray(held[name]) for name in names})


def load(folder: Path, needs: Needs, space: LabelSpace, remedy: str) -> Refinement:
    """Read what :meth:`Refinement.save` wrote; the photos' features are mapped and not read.

    Raises:
        UserError: A part is missing, damaged, or does not fit the others.
    """
    settings: Settings = read_json(folder / CARD, remedy, Settings)
    if [settings.variant] != needs.models or settings.encoder not in needs.encoders:
        raise UserError(
            f"{folder / CARD}: refines {settings.variant} by {settings.encoder}; expected "
            f"{', '.join(needs.models)} by one of {', '.join(needs.encoders)}; {remedy}"
        )
    refined = geolocator.load(folder / settings.variant, remedy)
    tensors = read_tensors(folder, remedy)
    check_shapes(folder, remedy, tensors, {"cells": (len(space) + 1,), "calibration": (1,)})
    clusters = int(tensors["cells"][-1])
    check_shapes(folder, remedy, tensors, {"starts": (clusters + 1,)})
    count = int(tensors["starts"][-1])
    check_shapes(folder, remedy, tensors, {"ends": (count + 1,), "latitudes": (count,), "longitudes": (count,)})
    check_shapes(folder, remedy, tensors, {"text": (int(tensors["ends"][-1]),)})
    held = mapped.read(folder / PHOTOS, remedy)
    if "features" not in held or held["features"].dtype != HALF:
        raise UserError(f"{folder / PHOTOS}: no float16 tensor 'features'; {remedy}")
    features = held["features"]
    width = features.shape[-1] if features.ndim else 0
    check_shapes(folder, remedy, tensors, {"prototypes": (clusters, width)})
    if features.shape != (count, width):
        raise UserError(f"{folder / PHOTOS}: features {features.shape}, expected ({count}, {width}); {remedy}")
    if refined.labelspace.ids != space.ids:
        raise UserError(f"{folder / settings.variant}: other classes than {folder / geolocator.LABELS}; {remedy}")
    for name in ("cells", "starts", "ends"):
        if tensors[name][0] != 0 or (np.diff(tensors[name]) < 0).any():
            raise UserError(f"{folder / WEIGHTS}: {name}: expected ascending positions from 0; {remedy}")
    gallery = Gallery(**{name: tensors[name] for name in ARRAYS}, features=features, rows=None)
    return Refinement(settings, refined, gallery, tensors["calibration"].item())
