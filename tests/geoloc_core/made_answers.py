"""A project of forty photos and three countries, with models that answer from its only features."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa

from geoloc_core.contracts.geolocator import LABELS as CLASSES
from geoloc_core.contracts.geolocator import Card, Trained
from geoloc_core.corpora import manifest
from geoloc_core.corpora.manifest import LABELS
from geoloc_core.corpora.truth import truth
from geoloc_core.encoders import store
from geoloc_core.evaluation.published import Tables
from geoloc_core.families import classifier, ensemble
from geoloc_core.families.classifier import Classifier
from geoloc_core.families.ensemble import Ensemble
from geoloc_core.files import digest
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.params import Evaluation, Labels, Profile, Registry
from geoloc_core.params.schema import Report
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
VARIANTS = {
    "by_country": classifier.Options(kind="classifier", corpus="mp16", encoders=("clip",), labels="country"),
    "by_region": classifier.Options(kind="classifier", corpus="mp16", encoders=("clip",), labels="subdivision"),
}
JOINT = ensemble.Options(kind="ensemble", corpus="mp16", members=("by_country", "narrow"), labels="country")
WITH_JOINT = VARIANTS | {"narrow": VARIANTS["by_country"], "joint": JOINT}


PAPERS = Tables.model_validate({"tables": [{
    "id": "someone", "paper": "Someone 2024", "name": "Table 2", "caption": "Heads", "data": "all of it",
    "columns": [
        {"head": "accuracy", "metric": "accuracy", "on": "validation", "fraction": True},
        {"head": "mean", "metric": "mean_km", "on": "validation"},
        {"head": "200 km", "metric": "within_200km", "on": "im2gps"},
    ],
    "rows": [
        {"name": "Head", "variants": ["by_country"], "cells": "0.082 5107 4.40"},
        {"name": "Other head", "variants": ["elsewhere"], "cells": "N/A – 5.5"},
        {"name": "Theirs", "cells": "– – 6.6"},
    ],
}]})  # fmt: skip
"""A table of a paper, of which one row is trained here."""


def profile(demo=True, metric="within_750km", **changed):
    """A profile without what only other stages read."""
    given = {
        "demo": demo,
        "seed": 20,
        "labels": Labels(),
        "variants": VARIANTS,
        "evaluation": Evaluation(),
        "pretrain": {},
        "pretrain_from": {},
        "checkpoints": {},
        "registry": Registry(model="m", benchmark="im2gps", metric=metric),
        "report": Report(),
        "corpora": {"mp16": SimpleNamespace(role="train"), "im2gps": SimpleNamespace(role="benchmark")},
    }
    return Profile.model_construct(**given | changed)


def make_project(root):
    """A project with one training corpus and one benchmark of 40 rows, and features that know most answers."""
    made = Project(root, profile())
    for seed, corpus in enumerate(("mp16", "im2gps")):
        write_corpus(made, corpus, np.random.default_rng(seed))
        truth(made, corpus)
    return made


def write_corpus(project, corpus, rng, n=40):
    """Photos near the capitals; row 0 is nowhere, row 1 has no unit, row 2 no coordinates, two more were refused."""
    space = SPACES["subdivision"]
    region = rng.integers(0, 4, n)
    latitudes = space.latitudes[region] + rng.normal(0, 2, n)
    longitudes = space.longitudes[region] + rng.normal(0, 2, n)
    ids = [f"{corpus}-{i}" for i in range(n)]
    places = {
        name: [None if i in (0, 2) else value for i, value in enumerate(values)]
        for name, values in (("latitude", latitudes), ("longitude", longitudes))
    }
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
        "gid_1": [None if r is None or i == 2 else space.ids[r] for i, r in enumerate(known)],
        "split": split,
    }
    project.labels(corpus).parent.mkdir(parents=True, exist_ok=True)
    manifest.write_table(pa.table(labels, schema=LABELS), project.labels(corpus), LABELS)
    logits = np.eye(4)[region] * 2 + rng.normal(0, 1, (n, 4))
    features = project.features("clip", corpus)
    features.mkdir(parents=True)
    np.save(features / "part.npy", logits.astype(np.float16))
    store.write(features, [features / "part.npy"], (4,), {"fingerprint": "f00d"})


def without_features(project, corpus, rows):
    """Encode a corpus again, as if some of its photos could not be read."""
    folder = project.features("clip", corpus)
    features = np.array(store.read(folder))
    features[rows] = np.nan
    np.save(folder / "part.npy", features)
    flaws = [{"row": row, "image_id": f"{corpus}-{row}", "reason": "not a readable photo"} for row in rows]
    store.write(folder, [folder / "part.npy"], (4,), {"fingerprint": "f00d"}, flaws)


def by_region():
    """The features are the logits of the four subdivisions."""
    return Classifier(["clip"], SPACES["subdivision"], *_plain(4), [(np.eye(4, dtype=np.float32), _zeros(4))])


def by_country():
    """The logit of a country is the greatest of its subdivisions': max(a, b) = relu(b - a) + relu(a) - relu(-a)."""
    first = np.concatenate([np.eye(4), -np.eye(4), [[-1, 1, 0, 0]]]).astype(np.float32)
    last = np.zeros((3, 9), np.float32)
    for country, region in enumerate((0, 2, 3)):
        last[country, [region, region + 4]] = 1, -1
    last[0, 8] = 1
    return Classifier(["clip"], SPACES["country"], *_plain(4), [(first, _zeros(9)), (last, _zeros(3))])


def narrow():
    """Another that knows two of the countries, in another order."""
    layer = np.array([[0, 0, 1, 0], [0.5, 0.5, 0, 0]], np.float32)
    return Classifier(["clip"], SPACES["country"].take(np.array([1, 0])), *_plain(4), [(layer, _zeros(2))])


def joint():
    """Both classifiers of countries together."""
    classes = [np.arange(3), np.array([1, 0])]
    return Ensemble(SPACES["country"], list(JOINT.members), np.array([0.75, 0.25]), classes)


def _zeros(n):
    return np.zeros(n, np.float32)


def _plain(n):
    return _zeros(n), np.ones(n, np.float32)


def save_models(project):
    """Train both variants, as it were."""
    for name, model in (("by_country", by_country()), ("by_region", by_region())):
        save_model(project, name, VARIANTS[name], model, {"clip": "f00d"})


def with_joint(root):
    """The project at a place, with an ensemble beside the variants."""
    made = Project(root, profile(variants=WITH_JOINT))
    save_models(made)
    save_model(made, "narrow", VARIANTS["by_country"], narrow(), {"clip": "f00d"})
    save_model(made, "joint", JOINT, joint(), {}, {m: digest(made.model(m) / CLASSES) for m in JOINT.members})
    return made


def save_model(project, name, block, model, fingerprints, members=None):
    """Save a model as its training does."""
    project.model(name).mkdir(parents=True, exist_ok=True)
    card = Card(family=block.kind, needs=block.needs(), fingerprints=fingerprints, members=members or {}, parameters=7)
    Trained(card, model).save(project.model(name))
