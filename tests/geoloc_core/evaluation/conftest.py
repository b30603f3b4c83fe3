"""A project of forty photos, three countries and a model that answers from its only features."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from geoloc_core.corpora import manifest
from geoloc_core.corpora.manifest import LABELS
from geoloc_core.encoders import store
from geoloc_core.evaluation.truth import truth
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.models.paper import Paper
from geoloc_core.models.prediction import Prediction
from geoloc_core.params import Evaluation, Profile, Registry
from geoloc_core.project import Project

SPACES = {
    "country": LabelSpace(
        "country", ["FRA", "KEN", "PER"], ["France", "Kenya", "Peru"], ["", "", ""],
        np.array([46.0, 0.5, -9.0]), np.array([2.0, 38.0, -75.0]),
    ),
    "subdivision": LabelSpace(
        "subdivision", ["FRA.1", "FRA.2", "KEN.1", "PER.1"], ["Nord", "Sud", "Nairobi", "Lima"],
        ["FRA", "FRA", "KEN", "PER"], np.array([50.0, 43.0, -1.3, -12.0]), np.array([3.0, 4.0, 36.8, -77.0]),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Oracle:
    """A Geolocator whose features are the logits of the four subdivisions."""

    labelspace: LabelSpace
    encoders: tuple[str, ...] = ("clip",)

    @property
    def fingerprints(self):
        return dict.fromkeys(self.encoders, "f00d")

    def predict_features(self, features, k=5):
        logits = np.asarray(features["clip"], np.float64)
        if self.labelspace.kind == "country":
            logits = np.maximum(logits[:, [0, 2, 3]], logits[:, [1, 2, 3]])
        classes = np.argsort(-logits, axis=1, kind="stable")[:, :k]
        places = self.labelspace.latitudes[classes], self.labelspace.longitudes[classes]
        shares = np.take_along_axis(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), classes, axis=1)
        return Prediction(classes, shares, *places, places[0][:, 0], places[1][:, 0])


def profile(demo=True, metric="within_750km"):
    """A profile without what only other stages read."""
    paper = Paper(source="Someone 2024, Table 2", accuracy=8.2, mean_km=5107, benchmarks={"im2gps": {200: 4.4}})
    variants = {
        "head": {
            "by_country": SimpleNamespace(corpus="mp16"),
            "by_region": SimpleNamespace(corpus="mp16"),
        }
    }
    return Profile.model_construct(
        demo=demo,
        variants=variants,
        papers={"by_country": paper},
        evaluation=Evaluation(),
        registry=Registry(model="m", benchmark="im2gps", metric=metric),
        corpora={"mp16": SimpleNamespace(role="train"), "im2gps": SimpleNamespace(role="benchmark")},
        encoded=("mp16", "im2gps"),
    )


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path)


def make_project(root):
    """A project with one training corpus and one benchmark of 40 rows, and features that know most answers."""
    made = Project(root, profile())
    for seed, corpus in enumerate(("mp16", "im2gps")):
        write_corpus(made, corpus, np.random.default_rng(seed))
        truth(made, corpus)
    return made


def write_corpus(project, corpus, rng, n=40):
    """Photos near the capitals; row 0 has no coordinates, row 1 no unit, two more were refused."""
    space = SPACES["subdivision"]
    region = rng.integers(0, 4, n)
    latitudes = space.latitudes[region] + rng.normal(0, 2, n)
    longitudes = space.longitudes[region] + rng.normal(0, 2, n)
    ids = [f"{corpus}-{i}" for i in range(n)]
    places = {"latitude": [None, *latitudes[1:]], "longitude": [None, *longitudes[1:]]}
    empty = dict.fromkeys(manifest.MANIFEST.names, [None] * n)
    counted = {"image_id": ids, "corpus": [corpus] * n, "shard": [0] * n, "row": list(range(n)), "group_id": ids}
    sized = {"width": [8] * n, "height": [8] * n, "sha256": ["0"] * n}
    folder = project.corpus(corpus)
    folder.mkdir(parents=True)
    table = pa.table(empty | places | counted | sized, schema=manifest.MANIFEST)
    manifest.write_table(table, folder / "manifest.parquet", manifest.MANIFEST)
    refused = {"image_id": ["a", "b"], "reason": ["broken"] * 2, "detail": [""] * 2}
    manifest.write_table(pa.table(refused), folder / "rejects.parquet", manifest.REJECTS)
    known = [None if i < 2 else r for i, r in enumerate(region)]
    split = ["validation" if i % 4 == 1 else "train" for i in range(n)] if corpus == "mp16" else ["benchmark"] * n
    labels = dict.fromkeys(LABELS.names, [None] * n) | {
        "image_id": ids,
        "gid_0": [None if r is None else space.parents[r] for r in known],
        "gid_1": [None if r is None else space.ids[r] for r in known],
        "split": split,
    }
    project.labels(corpus).parent.mkdir(parents=True, exist_ok=True)
    manifest.write_table(pa.table(labels, schema=LABELS), project.labels(corpus), LABELS)
    logits = np.eye(4)[region] * 2 + rng.normal(0, 1, (n, 4))
    features = project.features("clip", corpus)
    features.mkdir(parents=True)
    np.save(features / "part.npy", logits.astype(np.float16))
    store.write(features, [features / "part.npy"], (4,), {"fingerprint": "f00d"})


@pytest.fixture
def models(monkeypatch):
    return install_models(monkeypatch)


def install_models(monkeypatch):
    """Trained variants."""
    from geoloc_core.models import geolocator

    spaces = {"by_country": "country", "by_region": "subdivision"}
    monkeypatch.setattr(geolocator, "load", lambda folder: Oracle(SPACES[spaces[folder.name]]))
