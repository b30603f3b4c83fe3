"""Learning what lies behind a model of cells, and what each step of it gains."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from geoloc_core.blocks import blocks
from geoloc_core.contracts.batch import Data, Fitted, Metrics, Run, Units
from geoloc_core.contracts.geolocator import Trained
from geoloc_core.contracts.layers import Names, embeddings
from geoloc_core.contracts.prediction import Prediction
from geoloc_core.errors import UserError
from geoloc_core.families.retrieval import ranking as rankings
from geoloc_core.families.retrieval.comparison import Comparison, Head, Whitening, unit
from geoloc_core.families.retrieval.gallery import Found, Gallery, rounded
from geoloc_core.families.retrieval.model import Retrieval
from geoloc_core.families.retrieval.options import CSLS, Options, Settings
from geoloc_core.geo import sphere
from geoloc_core.progress import track

ROWS = 4096
"""Photos of the gallery that are prepared, or validation photos that are looked at, at a time."""
WHITENED, VALIDATED = 2**17, 2**12
"""Training photos whose directions are taken, and validation photos that re-ranking and calibration learn from, at
most, evenly spread."""
NEAR_KM = (1, 25, 200, 750)
CEILING_KM = 25.0


def fit(data: Data, options: Options, run: Run) -> Fitted:
    """Learn heads where they are wanted, and make the gallery of the training photos.

    Validation photos, which are of other groups, re-rank and calibrate, and tell what each step gains.

    Raises:
        UserError: No training photo lies in one of the cells, or a feature or the loss is not a finite number.
    """
    under: Trained = data.models[options.variant]
    settings, history, best = Settings.of(options), list[Metrics](), 0
    figures: dict[str, Any] = {}
    model = Retrieval(settings, under)
    if options.neighbours is not None:
        located = np.isfinite(data.latitudes) & np.isfinite(data.longitudes)
        cells = under.labelspace.index(data.space.ids)
        placed = (data.targets >= 0) & (cells[np.maximum(data.targets, 0)] >= 0) & located
        training = data.training[placed[data.training]]
        if not len(training):
            raise UserError("none of the training photos lies in a cell of the model; expected the cells it learned")
        units = data.units(training)
        whitening = _whitening(data, options, units) if settings.whitened else None
        heads: tuple[Head, ...] = ()
        if options.bands is not None:
            from geoloc_core.families.retrieval import bands

            validation = data.validation[located[data.validation]]
            start = whitening if settings.heads_whitened else None
            learned = bands.fit(data, options.encoder, training, validation, start, options.bands, run)
            heads, history, best, figures = learned.heads, learned.history, learned.best, learned.figures
        comparison = Comparison(settings.own, whitening, heads, settings.heads_whitened)
        gallery = build(data, options, comparison, units, cells, run.checkpoint.parent)
        model = Retrieval(settings, under, comparison, gallery)
        figures |= {"gallery": len(gallery), "cells_without_photos": int((np.diff(gallery.cells) == 0).sum())}
    model, told = _validated(model, data)
    parameters = under.card.parameters or 0
    own = figures.get("trainable_parameters", 0)
    sizes = {"parameters": parameters + own, "trainable_parameters": own}
    return Fitted(model, history, best, figures | told | sizes)


def _embedded(data: Data, encoder: str, units: Units) -> np.ndarray:
    """Features (n, D) float32 of some units."""
    return embeddings(data.images[encoder][units.rows], units.starts if data.places is not None else None)


def _whitening(data: Data, options: Options, units: Units) -> Whitening:
    assert options.whitening is not None
    some = units.take(np.arange(0, len(units), max(1, -(-len(units) // WHITENED))))
    return Whitening.of(unit(_embedded(data, options.encoder, some)), options.whitening.dims)


def build(
    data: Data, options: Options, comparison: Comparison, units: Units, cells: np.ndarray, folder: Path
) -> Gallery:
    """The gallery of some training units, its vectors in a file.

    Args:
        data: What the variant learns from.
        options: Of the variant.
        comparison: How vectors are made.
        units: M of them, each in a cell.
        cells: (C',) the model's cell of each class of the corpus.
        folder: Where the file is.
    """
    of_units = cells[data.targets[units.first]]
    order = np.argsort(of_units, kind="stable")
    units = units.take(order)
    starts = np.searchsorted(of_units[order], np.arange(len(data.models[options.variant].labelspace) + 1))
    folder.mkdir(parents=True, exist_ok=True)
    width = comparison.width(data.images[options.encoder].shape[1])
    vectors = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.dtype(options.precision), (len(units), width))
    scale = np.empty(len(units), np.float32)
    for rows in track(blocks(len(units), ROWS), "gallery", -(-len(units) // ROWS), "blocks"):
        part = units.take(np.arange(rows.start, rows.stop))
        made = comparison(_embedded(data, options.encoder, part))
        vectors[rows], scale[rows] = rounded(made, options.precision)
    gallery = Gallery(
        starts.astype(np.int64),
        vectors,
        scale,
        np.zeros(len(units), np.float32),
        data.latitudes[units.first],
        data.longitudes[units.first],
        data.groups_of(units.first).astype(np.int64),
        Names.of(data.ids, units.first),
    )
    return gallery if options.csls is None else replace(gallery, bias=-usual(gallery, options.csls))


def usual(gallery: Gallery, options: CSLS) -> np.ndarray:
    """The mean similarity (M,) float32 of each photo to the most alike of a sample of others' photos.

    The sample is spread evenly over the cells. A photo of which it holds none but of its own group has none: 0.
    """
    import torch

    from geoloc_core.encoders.device import device

    where, count = device(), len(gallery)
    some = np.arange(0, count, max(1, -(-count // options.sample)))
    sample = torch.from_numpy(gallery.take(some)).to(where)
    theirs = torch.from_numpy(gallery.groups[some]).to(where)
    k = min(options.neighbours, len(some))
    found = np.empty(count, np.float32)
    for part in track(blocks(count, ROWS), "usual similarities", -(-count // ROWS), "blocks"):
        rows = np.arange(part.start, part.stop)
        similar = torch.from_numpy(gallery.take(rows)).to(where) @ sample.T
        own = torch.from_numpy(gallery.groups[rows]).to(where)
        similar.masked_fill_(own[:, None] == theirs, -torch.inf)
        best = similar.topk(k, dim=1).values
        there = best.isfinite()
        mean = best.masked_fill(~there, 0).sum(dim=1) / there.sum(dim=1).clamp(min=1)
        found[rows] = mean.cpu().numpy()
    return found


@dataclass
class _Seen:
    """What became of validation units: errors (n,) in kilometres by step, and what is learned from."""

    km: dict[str, list[np.ndarray]]
    logits: list[tuple[np.ndarray, np.ndarray]]
    counts: list[np.ndarray]
    in_gate: list[np.ndarray]

    def add(self, step: str, km: np.ndarray) -> None:
        self.km.setdefault(step, []).append(km)


@dataclass(frozen=True)
class _Part:
    """Some validation units and what was found for them."""

    units: Units
    first: Prediction
    plain: Prediction
    counts: np.ndarray
    queries: np.ndarray
    found: Found


def _validated(model: Retrieval, data: Data) -> tuple[Retrieval, dict[str, Any]]:
    """The model with its ranking and its calibration, and the share of validation answers that are near, in %.

    What re-ranking comes to is told of photos that it was not fitted on.
    """
    from geoloc_core.training.calibration import fit_temperature

    units = data.units(data.validation)
    for answered in data.answers.values():
        units = units.take(np.flatnonzero(np.isin(units.first, answered.rows)))
    units = units.take(np.flatnonzero(np.isfinite(data.latitudes[units.first] + data.longitudes[units.first])))
    units = units.take(np.arange(0, len(units), max(1, -(-len(units) // VALIDATED))))
    seen = _Seen({}, [], [], [])
    if not len(units):
        return model if model.settings.rerank is None else replace(model, ranking=rankings.Ranking.nothing()), {}
    parts = []
    for rows in blocks(len(units), ROWS):
        part = units.take(np.arange(rows.start, rows.stop))
        batch = data.batch(part)
        first = model.under.model.predict(batch, model.looked_at)
        plain = model.read_out(first)
        _told(seen, data, part, {"cells": first, "readout": plain})
        if model.gallery is not None:
            counts, queries = model.gated(first), model.query(batch)
            found = model.search(queries, first, counts, batch.groups)
            parts.append(_Part(part, first, plain, counts, queries, found))
    gallery = model.gallery
    if gallery is None:
        return model, _figures(seen)
    for one in parts:
        _told(seen, data, one.units, {"nearest": model.places(one.plain, one.found)})
        seen.counts.append(one.counts)
        seen.in_gate.append(_reach(gallery, data, one))
    logits: list[np.ndarray] = []
    if model.settings.rerank is not None:
        model, logits = _ranked(model, data, parts)
    truth = model.labelspace.index(data.space.ids)
    for number, one in enumerate(parts):
        found = one.found
        if model.ranking is not None and model.settings.rerank is not None:
            found = rankings.rerank(found, logits[number], model.ranking.spread, model.settings.rerank.weight)
            _told(seen, data, one.units, {"reranked": model.places(one.plain, found)})
        targets = data.targets[one.units.first]
        right = one.first.classes == np.where(targets >= 0, truth[np.maximum(targets, 0)], -1)[:, None]
        of_cells = model.logits(one.counts, found)
        right &= np.isfinite(of_cells)
        known = right.any(axis=1)
        of_cells = np.where(np.isfinite(of_cells), of_cells, of_cells.max(axis=1, keepdims=True) - 1e3)
        seen.logits.append((of_cells[known], right.argmax(axis=1)[known]))
    temperature = fit_temperature(*(np.concatenate(values) for values in zip(*seen.logits, strict=True)))
    told = _figures(seen) | {"temperature": temperature} | _ceilings(gallery, data, units, seen)
    return replace(model, calibration=temperature), told


def _ranked(model: Retrieval, data: Data, parts: list[_Part]) -> tuple[Retrieval, list[np.ndarray]]:
    """The model with a ranking, and the logits of the candidates of each part by one that has not seen them."""
    assert model.gallery is not None
    assert model.settings.rerank is not None
    values = np.concatenate([model.numbers(one.queries, one.first, one.found) for one in parts])
    candidates = np.concatenate([one.found.candidates for one in parts])
    rows = np.concatenate([one.units.first for one in parts])
    places = model.gallery.latitudes[candidates], model.gallery.longitudes[candidates]
    km = sphere.haversine_km(*places, data.latitudes[rows][:, None], data.longitudes[rows][:, None])
    fitted, logits = rankings.fit(values, candidates >= 0, km <= model.settings.rerank.km, data.groups_of(rows))
    return replace(model, ranking=fitted), np.split(logits, np.cumsum([len(one.units) for one in parts])[:-1])


def _told(seen: _Seen, data: Data, units: Units, answers: Mapping[str, Any]) -> None:
    """Note how far answers are from the truth."""
    for step, answer in answers.items():
        latitude, longitude = answer if isinstance(answer, tuple) else (answer.latitude, answer.longitude)
        seen.add(
            step, sphere.haversine_km(latitude, longitude, data.latitudes[units.first], data.longitudes[units.first])
        )


def _figures(seen: _Seen) -> dict[str, Any]:
    """The share of answers within some distances after each step, in %."""
    found: dict[str, Any] = {}
    for step, parts in seen.km.items():
        km = np.concatenate(parts)
        found |= {f"within_{limit}km_{step}": _percent(km <= limit) for limit in NEAR_KM}
        found[f"median_km_{step}"] = round(float(np.median(km)), 1)
    return found


def _percent(hits: np.ndarray) -> float:
    return round(100 * float(hits.mean()), 2)


def _reach(gallery: Gallery, data: Data, part: _Part) -> np.ndarray:
    """(n,) the greatest cosine between the place of a unit and those of the photos that were searched."""
    from geoloc_core.families.retrieval import kernels

    first = part.units.first
    points = sphere.unit_vectors(data.latitudes[first], data.longitudes[first])
    photos = sphere.unit_vectors(gallery.latitudes, gallery.longitudes)
    found: np.ndarray = kernels.nearest(points, part.first.classes, part.counts, gallery.cells, photos)
    return found


def _ceilings(gallery: Gallery, data: Data, units: Units, seen: _Seen) -> dict[str, Any]:
    """What share of validation units has a photo near them at all, and one among those that were searched, in %."""
    from scipy.spatial import cKDTree

    points = sphere.unit_vectors(data.latitudes[units.first], data.longitudes[units.first])
    apart, _ = cKDTree(sphere.unit_vectors(gallery.latitudes, gallery.longitudes)).query(points)
    limit = np.cos(CEILING_KM / sphere.EARTH_KM)
    return {
        f"ceiling_{CEILING_KM:g}km_gallery": _percent(apart <= sphere.chord(CEILING_KM)),
        f"ceiling_{CEILING_KM:g}km_gate": _percent(np.concatenate(seen.in_gate) >= limit),
        "gate_cells": round(float(np.concatenate(seen.counts).mean()), 2),
    }
