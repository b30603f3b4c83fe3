"""A model of cells and the photos behind it."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from geoloc_core.contracts import geolocator, layers
from geoloc_core.contracts.batch import Batch
from geoloc_core.contracts.differentiable import Differentiable, of_cells
from geoloc_core.contracts.geolocator import WEIGHTS, Trained, check_shapes, read_tensors, width_of, write_tensors
from geoloc_core.contracts.layers import Names, embeddings
from geoloc_core.contracts.needs import Needs
from geoloc_core.contracts.prediction import Evidence, Prediction, softmax
from geoloc_core.errors import UserError
from geoloc_core.families.retrieval import ranking as rankings
from geoloc_core.families.retrieval.comparison import Comparison, Head, Whitening, head_shapes
from geoloc_core.families.retrieval.gallery import ARRAYS, VECTORS, Found, Gallery, read_vectors, search
from geoloc_core.families.retrieval.options import Settings
from geoloc_core.families.retrieval.ranking import NAMES, SHARP, Ranking, shares
from geoloc_core.files import read_json, write_json
from geoloc_core.geo import sphere
from geoloc_core.geo.labelspace import LabelSpace

CARD = "retrieval.json"
LEAST = 1e-30
"""A probability that has sunk to zero counts as this much, so that its logarithm is a number."""
LOST = 1e-9
"""A sum of weighted directions that is shorter than this share of the weights has none: they cancel out."""


@dataclass(frozen=True)
class Retrieval:
    """A model of cells and the photos behind it. It answers in NumPy.

    Attributes:
        settings: What is said of it.
        under: The model of cells.
        comparison: How features become vectors; None where nothing is retrieved, as of all that follow.
        gallery: The photos.
        ranking: How the best candidates are ranked anew; None where they are not.
        calibration: What scores are divided by to become logits; the order of the cells does not depend on it.
    """

    settings: Settings
    under: Trained
    comparison: Comparison | None = None
    gallery: Gallery | None = None
    ranking: Ranking | None = None
    calibration: float = 1.0

    @property
    def labelspace(self) -> LabelSpace:
        """The cells."""
        return self.under.labelspace

    @property
    def looked_at(self) -> int:
        """Cells that the model is asked for, at least."""
        settings = self.settings
        gate = 0 if settings.neighbours is None else settings.gate.most if settings.gate else len(self.labelspace)
        return max(gate, settings.readout.cells if settings.readout else 1)

    def predict(self, batch: Batch, k: int = 5, truth: np.ndarray | None = None) -> Prediction:
        """The k best cells, the searched ones first, by their best photo and at its place.

        The searched cells share the probability that the model of cells gave them; all others keep theirs, and their
        ranks behind them. A searched cell without photos scores as the least of the others and keeps its place. The
        evidence is the photos that the answer rests on, with their similarity.
        """
        first = self.under.model.predict(batch, max(k, self.looked_at), truth)
        plain = self.read_out(first)
        if self.settings.neighbours is None:
            return layers.cut(plain, k)
        counts = self.gated(first)
        queries = self.query(batch)
        found = self.search(queries, first, counts, batch.groups)
        if self.ranking is not None:
            found = self._ranked(queries, first, found)
        answered = self._placed(plain, counts, found, truth)
        return replace(layers.cut(answered, k), evidence=self._evidence(queries, found))

    def query(self, batch: Batch) -> np.ndarray:
        """Vectors (N, D') float32 of N units, as they are compared."""
        assert self.comparison is not None
        return self.comparison(embeddings(batch.images[self.settings.encoder], batch.starts))

    def read_out(self, first: Prediction) -> Prediction:
        """The answers of the model of cells, read out."""
        readout = self.settings.readout
        if readout is None:
            return first
        weights = first.probabilities[:, : readout.cells].astype(np.float64) ** (1 / readout.temperature)
        places = first.latitudes[:, : readout.cells], first.longitudes[:, : readout.cells]
        return first.at(*mean_place(*places, weights, readout.within_km))

    def gated(self, first: Prediction) -> np.ndarray:
        """How many cells (N,) of each unit are searched."""
        gate, (n, k) = self.settings.gate, first.classes.shape
        if gate is None:
            return np.full(n, k)
        before = np.cumsum(first.probabilities, axis=1, dtype=np.float64) - first.probabilities
        counts: np.ndarray = (before < gate.mass)[:, : gate.most].sum(axis=1)
        return counts

    def search(self, queries: np.ndarray, first: Prediction, counts: np.ndarray, groups: np.ndarray | None) -> Found:
        """The photos of the searched cells that score best, before they are ranked anew."""
        assert self.gallery is not None
        offsets = (self.settings.prior * logs_of(first)).astype(np.float32)
        return search(
            self.gallery, queries, first.classes, counts, offsets, groups, self.settings.length, self.settings.gain
        )

    def numbers(self, queries: np.ndarray, first: Prediction, found: Found) -> np.ndarray:
        """What re-ranking judges candidates by: see :func:`geoloc_core.families.retrieval.ranking.numbers`."""
        assert self.gallery is not None
        assert self.comparison is not None
        part = self.comparison.first(self.gallery.vectors.shape[1])
        return rankings.numbers(self.gallery, queries, found, logs_of(first), part)

    def _ranked(self, queries: np.ndarray, first: Prediction, found: Found) -> Found:
        assert self.ranking is not None
        assert self.settings.rerank is not None
        logits = self.ranking.logits(self.numbers(queries, first, found))
        return rankings.rerank(found, logits, self.ranking.spread, self.settings.rerank.weight)

    def logits(self, counts: np.ndarray, found: Found) -> np.ndarray:
        """Logits (N, K) of the searched cells, before the temperature; −∞ of those that were not searched.

        A cell without photos has the least of the others, zero where none has any.
        """
        searched = np.arange(found.scores.shape[1]) < counts[:, None]
        known = searched & (found.photos >= 0)
        scores = found.scores.astype(np.float64) / (1 if self.ranking is not None else SHARP)
        least = np.where(known, scores, np.inf).min(axis=1, keepdims=True)
        least = np.where(np.isfinite(least), least, 0)
        return np.where(searched, np.where(known, scores, least), -np.inf)

    def places(self, plain: Prediction, found: Found) -> tuple[np.ndarray, np.ndarray]:
        """The answers (N,), in degrees: a unit of which no photo was found keeps the model's."""
        assert self.gallery is not None
        assert self.settings.neighbours is not None
        count = 1 if self.settings.snap else self.settings.neighbours.count
        photos = found.candidates[:, :count]
        weights = shares(found.top[:, :count].astype(np.float64), photos >= 0)
        where = self.gallery.latitudes[photos], self.gallery.longitudes[photos]
        if self.settings.snap:
            latitude, longitude = (axis[:, 0] for axis in where)
        else:
            latitude, longitude = mean_place(*where, weights, self.settings.neighbours.within_km)
        there = photos[:, 0] >= 0
        return np.where(there, latitude, plain.latitude), np.where(there, longitude, plain.longitude)

    def _placed(self, plain: Prediction, counts: np.ndarray, found: Found, truth: np.ndarray | None) -> Prediction:
        """The searched cells in their new order and place, behind them the others, and the answers."""
        assert self.gallery is not None
        logits = self.logits(counts, found)
        other = np.arange(logits.shape[1]) != found.columns[:, :1]
        order = np.lexsort((other, -logits))  # of equal cells, that of the best photo comes first
        mass = np.where(np.isfinite(logits), plain.probabilities, 0).sum(axis=1, keepdims=True, dtype=np.float64)
        shared = mass * softmax(logits / self.calibration)
        probabilities = np.where(np.isfinite(logits), shared, plain.probabilities).astype(np.float32)
        latitudes, longitudes = plain.latitudes, plain.longitudes
        if self.settings.snap:
            known = found.photos >= 0
            latitudes = np.where(known, self.gallery.latitudes[found.photos], latitudes)
            longitudes = np.where(known, self.gallery.longitudes[found.photos], longitudes)
        lists = (plain.classes, probabilities, latitudes, longitudes)
        classes, probabilities, latitudes, longitudes = (np.take_along_axis(v, order, axis=1) for v in lists)
        thought = None
        if truth is not None and plain.truth is not None:
            thought = layers.of_truth(plain.truth, classes, probabilities, truth)
        answered = replace(
            plain,
            classes=classes,
            probabilities=probabilities,
            latitudes=latitudes,
            longitudes=longitudes,
            truth=thought,
        )
        return answered.at(*self.places(plain, found))

    def _evidence(self, queries: np.ndarray, found: Found) -> Evidence:
        """The photos that were found, the best first, each with its similarity."""
        assert self.gallery is not None
        assert self.settings.neighbours is not None
        photos = found.candidates[:, : self.settings.neighbours.count]
        named = photos >= 0
        ids = np.full(photos.shape, "", dtype=object)
        ids[named] = self.gallery.names[photos[named]]
        similar = np.where(named, self.gallery.similar(queries, photos), 0)
        return Evidence("neighbour", ids, similar.astype(np.float64))

    def differentiable(self) -> Differentiable | None:
        """The model of cells in PyTorch."""
        return of_cells(self.under.model)

    def save(self, folder: Path) -> None:
        """Write the model of cells and the gallery into an existing folder."""
        tensors: dict[str, np.ndarray] = {"calibration": np.array([self.calibration])}
        if self.gallery is not None and self.comparison is not None:
            tensors |= {name: getattr(self.gallery, name) for name in ARRAYS}
            tensors |= {"text": self.gallery.names.text, "ends": self.gallery.names.ends}
            if self.comparison.whitening is not None:
                white = self.comparison.whitening
                tensors |= {"whitening.mean": white.mean, "whitening.matrix": white.matrix}
            for number, head in enumerate(self.comparison.heads):
                tensors |= {f"heads.{number}.{name}": tensor for name, tensor in head.tensors.items()}
            self.gallery.save(folder / VECTORS)
        if self.ranking is not None:
            tensors |= {f"ranking.{name}": getattr(self.ranking, name) for name in ("mean", "std", "weights")}
            tensors |= {"ranking.numbers": np.array([self.ranking.bias, self.ranking.spread])}
        write_tensors(folder, tensors)
        write_json(folder / CARD, self.settings)
        (folder / self.settings.variant).mkdir()
        self.under.save(folder / self.settings.variant)


def logs_of(first: Prediction) -> np.ndarray:
    """Logarithms (N, K) of the probabilities of cells."""
    found: np.ndarray = np.log(np.maximum(first.probabilities.astype(np.float64), LEAST))
    return found


def mean_place(
    latitudes: np.ndarray, longitudes: np.ndarray, weights: np.ndarray, within_km: float
) -> tuple[np.ndarray, np.ndarray]:
    """The mean (N,) on the sphere of places (N, K) that lie within some kilometres of the first, by weight (N, K).

    Where the weights are all zero, or cancel out, it is the first.
    """
    near = sphere.haversine_km(latitudes, longitudes, latitudes[:, :1], longitudes[:, :1]) <= within_km
    vectors = sphere.unit_vectors(latitudes, longitudes)
    counted = np.where(near, weights, 0)
    total = np.einsum("nk,nkd->nd", counted, vectors)
    lost = np.linalg.norm(total, axis=1) <= LOST * counted.sum(axis=1)
    found = sphere.coordinates(total)
    alone = lost | (near.sum(axis=1) == 1)  # to the last digit where it is
    return np.where(alone, latitudes[:, 0], found[0]), np.where(alone, longitudes[:, 0], found[1])


def load(folder: Path, needs: Needs, space: LabelSpace, remedy: str) -> Retrieval:
    """Read what :meth:`Retrieval.save` wrote; the vectors are mapped and not read.

    Raises:
        UserError: A part is missing, damaged, or does not fit the others.
    """
    settings: Settings = read_json(folder / CARD, remedy, Settings)
    if [settings.variant] != needs.models or settings.encoder not in needs.encoders:
        raise UserError(
            f"{folder / CARD}: over {settings.variant} by {settings.encoder}; expected "
            f"{', '.join(needs.models)} by one of {', '.join(needs.encoders)}; {remedy}"
        )
    under = geolocator.load(folder / settings.variant, remedy)
    tensors = read_tensors(folder, remedy)
    check_shapes(folder, remedy, tensors, {"calibration": (1,)})
    calibration = tensors["calibration"].item()
    if settings.neighbours is not None:
        check_shapes(folder, remedy, tensors, {"cells": (len(space) + 1,)})
    if under.labelspace.ids != space.ids:
        raise UserError(f"{folder / settings.variant}: other classes than {folder / geolocator.LABELS}; {remedy}")
    if settings.neighbours is None:
        return Retrieval(settings, under, calibration=calibration)
    count = int(tensors["cells"][-1])
    expected: dict[str, tuple[int, ...]] = {"ends": (count + 1,)}
    expected |= dict.fromkeys(ARRAYS[1:], (count,))
    check_shapes(folder, remedy, tensors, expected)
    check_shapes(folder, remedy, tensors, {"text": (int(tensors["ends"][-1]),)})
    for name in ("cells", "ends"):
        if tensors[name][0] != 0 or (np.diff(tensors[name]) < 0).any():
            raise UserError(f"{folder / WEIGHTS}: {name}: expected ascending positions from 0; {remedy}")
    comparison, dim = _comparison(folder, settings, tensors, remedy)
    held = read_vectors(folder / VECTORS, count, remedy)
    width = held["vectors"].shape[1]
    if width != (comparison.width(dim) if dim else width):
        raise UserError(f"{folder / VECTORS}: vectors of {width}, expected {comparison.width(dim)}; {remedy}")
    gallery = Gallery(**{name: tensors[name] for name in ARRAYS}, **held, names=Names(tensors["text"], tensors["ends"]))
    ranking = None
    if settings.rerank is not None:
        of_each = [f"ranking.{name}" for name in ("mean", "std", "weights")]
        shapes: dict[str, tuple[int, ...]] = {"ranking.numbers": (2,)}
        shapes |= dict.fromkeys(of_each, (len(NAMES),))
        check_shapes(folder, remedy, tensors, shapes)
        mean, std, weights = (tensors[name] for name in of_each)
        ranking = Ranking(mean, std, weights, *tensors["ranking.numbers"].tolist())
    return Retrieval(settings, under, comparison, gallery, ranking, calibration)


def _comparison(
    folder: Path, settings: Settings, tensors: dict[str, np.ndarray], remedy: str
) -> tuple[Comparison, int]:
    """How vectors are made, and D of the features that it was fitted to; 0 where it was fitted to none."""
    dim, whitening, heads = 0, None, []
    if settings.whitened:
        dim = width_of(tensors, "whitening.mean")
        kept = width_of(tensors, "whitening.matrix")
        check_shapes(folder, remedy, tensors, {"whitening.mean": (dim,), "whitening.matrix": (dim, kept)})
        whitening = Whitening(tensors["whitening.mean"], tensors["whitening.matrix"])
    for number in range(settings.heads):
        named = {
            name.removeprefix(f"heads.{number}."): t
            for name, t in tensors.items()
            if name.startswith(f"heads.{number}.")
        }
        plain = width_of(named, "norm.weight")
        width = whitening.matrix.shape[1] if settings.heads_whitened and whitening is not None else dim or plain
        dim = dim or width
        shapes = head_shapes(width, width_of(named, "up.bias"))
        check_shapes(folder, remedy, tensors, {f"heads.{number}.{name}": shape for name, shape in shapes.items()})
        heads.append(Head({name: named[name] for name in shapes}))
    return Comparison(settings.own, whitening, tuple(heads), settings.heads_whitened), dim
