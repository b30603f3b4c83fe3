"""Prototypes and refinement at the size of PIGEON: ``python tests/benchmarks/bench_refinement.py [photos [asked]]``.

Photos lie in 2,203 cells, the n-th of which has 1/n of the largest one's, around spots of every density, and some in
the very same place. The refinement that it is compared with is the released way of it: photo by photo and cell by cell,
in torch, and here with the nearest photo of the cluster, where the released code takes the farthest. The released code
itself was timed at 29 photos per second.
"""

import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from memory import watched
from report import machine, row

from geoloc_core.contracts import mapped
from geoloc_core.contracts.batch import Batch, Data
from geoloc_core.contracts.geolocator import Card, Trained
from geoloc_core.contracts.needs import Needs
from geoloc_core.contracts.prediction import Prediction
from geoloc_core.families.protonet_refinement import PHOTOS, Options, Refinement, Settings, build
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.geo.optics import sphere_clusters
from geoloc_core.geo.sphere import coordinates, haversine_km, tangents, unit_vectors

CELLS, WIDTH, CANDIDATES, SHOWN = 2203, 1024, 40, 10
BLOCK = 2**14
OPTIONS = {"kind": "protonet_refinement", "corpus": "c", "variant": "cells", "encoder": "e", "labels": "cells",
           "candidates": CANDIDATES, "temperature": 0.6, "max_km": 100_000}  # fmt: skip
PUBLISHED = {"PIGEON": {"min_samples": 3, "xi": 0.15}, "PIGEOTTO": {"min_samples": 100, "xi": 0.1}}


@dataclass(frozen=True)
class Told:
    """A model of cells that has answered already."""

    labelspace: LabelSpace
    said: Prediction

    def predict(self, batch: Batch, k: int = 5, truth: np.ndarray | None = None) -> Prediction:
        return self.said.rows(batch.images["row"])

    def save(self, folder: Path) -> None:
        """It has nothing of its own."""


def around(latitudes: np.ndarray, longitudes: np.ndarray, km: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Points (2, N) so many kilometres (N,) from others, in any direction."""
    east, north = tangents(latitudes, longitudes)
    angle, share = rng.uniform(0, 2 * np.pi, len(km)), (km / 6371)[:, None]
    shift = np.cos(angle)[:, None] * east + np.sin(angle)[:, None] * north
    return np.stack(coordinates(unit_vectors(latitudes, longitudes) + share * shift))


def space(rng: np.random.Generator) -> LabelSpace:
    ids = [f"cell{n}" for n in range(CELLS)]
    latitudes, longitudes = np.degrees(np.arcsin(rng.uniform(-0.9, 0.9, CELLS))), rng.uniform(-180, 180, CELLS)
    return LabelSpace("geocell", ids, ids, [""] * CELLS, latitudes, longitudes)


def photos(count: int, cells: LabelSpace, folder: Path, rng: np.random.Generator) -> Data:
    """The training photos; their features are on disk, as features are."""
    share = 1 / np.arange(1, CELLS + 1)
    own = np.sort(rng.choice(CELLS, count, p=share / share.sum()))
    rng.shuffle(own)
    spots = 60
    places = around(np.repeat(cells.latitudes, spots), np.repeat(cells.longitudes, spots),
                    rng.exponential(60, CELLS * spots), rng)  # fmt: skip
    at = own * spots + np.minimum(rng.zipf(1.5, count), spots) - 1
    latitudes, longitudes = around(
        *places[:, at], rng.exponential(1.0, CELLS * spots)[at] * rng.exponential(1, count), rng
    )
    features = np.lib.format.open_memmap(folder / "features.npy", "w+", np.float16, (count, WIDTH))
    looks = rng.normal(size=(4096, WIDTH)).astype(np.float32)
    for start in range(0, count, BLOCK):
        some = at[start : start + BLOCK] % len(looks)
        features[start : start + BLOCK] = looks[some] + rng.standard_normal((len(some), WIDTH), np.float32)
    features.flush()
    known = np.load(folder / "features.npy", mmap_mode="r")
    card = Card(family="told", needs=Needs(inputs=(), labels="cells"), fingerprints={})
    return Data(
        images={"e": known},
        texts={},
        answers={},
        space=cells,
        targets=own,
        training=np.arange(count),
        validation=np.arange(1),
        latitudes=latitudes.round(4),
        longitudes=longitudes.round(4),
        models={"cells": Trained(card, Told(cells, None))},
        ids=pa.array(np.arange(count).astype(str)),
    )


def asked(count: int, data: Data, rng: np.random.Generator) -> tuple[Batch, Prediction]:
    """Photos that look like training photos, and a first answer to each in which frequent cells are frequent."""
    like = rng.integers(0, len(data.targets), count)
    features = (data.images["e"][like] + rng.normal(size=(count, WIDTH))).astype(np.float16)
    share = 1 / np.arange(1, CELLS + 1)
    keys = np.log(share) + rng.gumbel(size=(count, CELLS))
    keys[:, np.bincount(data.targets, minlength=CELLS) == 0] = -np.inf  # where few photos are, some cells have none
    keys[np.arange(count), data.targets[like]] += 5
    classes = np.argsort(-keys, axis=1)[:, :CANDIDATES]
    probabilities = -np.sort(-rng.dirichlet(np.full(CANDIDATES, 0.3), count), axis=1).astype(np.float32)
    places = data.space.latitudes[classes], data.space.longitudes[classes]
    said = Prediction(classes, probabilities, *places, places[0][:, 0], places[1][:, 0])
    return Batch({"e": features, "row": np.arange(count)}), said


def released(model: Refinement, batch: Batch, said: Prediction) -> tuple[np.ndarray, float]:
    """Places (N, 2) photo by photo, and photos per second; the prototypes are tensors before the clock starts."""
    gallery, settings = model.gallery, model.settings
    prototypes = [torch.from_numpy(gallery.prototypes[a:b].astype(np.float32))
                  for a, b in zip(gallery.cells[:-1], gallery.cells[1:], strict=True)]  # fmt: skip
    found = []
    started = time.perf_counter()
    for number in range(len(said)):
        embedding = torch.from_numpy(batch.images["e"][number].astype(np.float32))
        best, nearest = [], []
        for cell in said.classes[number]:
            distances = -torch.cdist(embedding[None], prototypes[cell])[0]
            nearest.append(int(distances.argmax()) + gallery.cells[cell])
            best.append(distances.max())
        weights = torch.softmax(torch.stack(best) / settings.temperature, dim=0)
        chosen = int((torch.from_numpy(said.probabilities[number]) * weights).argmax())
        start, stop = gallery.starts[nearest[chosen]], gallery.starts[nearest[chosen] + 1]
        members = torch.from_numpy(gallery.photos(start, stop).astype(np.float32))
        photo = start + int(torch.cdist(embedding[None], members)[0].argmin())
        found.append((gallery.latitudes[photo], gallery.longitudes[photo]))
    return np.array(found), len(said) / (time.perf_counter() - started)


def measure(name: str, data: Data, count: int, folder: Path, rng: np.random.Generator) -> None:
    options = Options.model_validate(OPTIONS | {"clusters": PUBLISHED[name]})
    settings = Settings(**{key: getattr(options, key) for key in Settings.model_fields})
    with watched() as most:
        started = time.perf_counter()
        gallery, noise = build(data, options, data.space)
        built = time.perf_counter() - started
        started = time.perf_counter()
        Refinement(settings, data.models["cells"], gallery).save(folder)
        saved = time.perf_counter() - started
    batch, said = asked(count, data, rng)
    features = mapped.read(folder / PHOTOS, "make it again")["features"]
    model = Refinement(
        settings,
        Trained(data.models["cells"].card, Told(data.space, said)),
        replace(gallery, features=features, rows=None),
    )
    took = []
    for _ in range(2):  # the second time, what was mapped is in memory
        started = time.perf_counter()
        answer = model.predict(batch, SHOWN)
        took.append(count / (time.perf_counter() - started))
    few = np.arange(min(200, count))
    plain, rate = released(model, Batch({key: values[few] for key, values in batch.images.items()}), said.rows(few))
    same = (plain == np.stack([answer.latitude, answer.longitude], axis=1)[few]).all(axis=1)
    row(name, f"{len(data.targets):,}", f"{len(gallery.prototypes):,}", f"{noise:,}", f"{built:.1f}", f"{saved:.1f}",
        f"{most[0] / 2**30:.1f}", f"{took[0]:,.0f}", f"{took[1]:,.0f}", f"{rate:.0f}", f"{took[1] / rate:.0f}×",
        f"{100 * same.mean():.1f} %")  # fmt: skip


def against_scikit_learn(count: int, rng: np.random.Generator) -> None:
    """The clusters of one cell, both ways: the released one makes the matrix of distances."""
    from sklearn.cluster import OPTICS

    places = rng.normal((50, 8), 1, (40, 2))
    latitudes, longitudes = (places[rng.integers(0, 40, count)] + rng.normal(size=(count, 2)) / 50).T
    found, ours = np.empty(0), np.inf
    for _ in range(3):
        started = time.perf_counter()
        found = sphere_clusters(unit_vectors(latitudes, longitudes), 3, 0.15)
        ours = min(ours, time.perf_counter() - started)
    started = time.perf_counter()
    matrix = haversine_km(latitudes[:, None], longitudes[:, None], latitudes, longitudes)
    matrix[matrix == 0] = 1e-5
    theirs = OPTICS(min_samples=3, xi=0.15, metric="precomputed").fit(matrix).labels_
    seconds = time.perf_counter() - started
    row(f"{count:,}", f"{1e3 * ours:.1f}", f"{1e3 * seconds:,.0f}", f"{seconds / ours:,.0f}×",
        f"{100 * (found == theirs).mean():.1f} %")  # fmt: skip


def main(count: int = 1_000_000, answered: int = 8192) -> None:
    rng = np.random.default_rng(7)
    print(f"{machine()}; {CELLS:,} cells, features of {WIDTH}, top {CANDIDATES}, {SHOWN} candidates shown\n")
    sphere_clusters(unit_vectors(np.zeros(9), np.arange(9.0)), 3, 0.15)  # which compiles it
    row("points of one cell", "ours, ms", "scikit-learn, ms", "ratio", "same cluster")
    print("|" + "---|" * 5)
    for size in (250, 500, 1000):
        against_scikit_learn(size, rng)
    print()
    row("clusters", "photos", "prototypes", "noise", "built, s", "saved, s", "memory, GiB", "photos/s, first",
        "photos/s", "released way, photos/s", "ratio", "same answer")  # fmt: skip
    print("|" + "---|" * 12, flush=True)
    with tempfile.TemporaryDirectory(prefix="bench-refinement-") as temporary:
        data = photos(count, space(rng), Path(temporary), rng)
        for name in PUBLISHED:
            folder = Path(temporary) / name
            folder.mkdir()
            measure(name, data, answered, folder, rng)
            shutil.rmtree(folder)


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
