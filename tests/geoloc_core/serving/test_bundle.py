"""A bundle answers photos as the stages answered their features, of members too."""

import io
import json
import shutil
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from PIL import Image

from geoloc_core.contracts.batch import Batch, Data, Run, Units
from geoloc_core.contracts.geolocator import load
from geoloc_core.encoders import encoder
from geoloc_core.errors import UserError
from geoloc_core.families import protonet_refinement
from geoloc_core.families.classifier import Classifier
from geoloc_core.families.ensemble import Ensemble
from geoloc_core.families.geocell_classifier import GeocellClassifier, Said
from geoloc_core.files import CHECKSUMS
from geoloc_core.project import Project
from geoloc_core.registry import versions
from geoloc_core.serving import bundle
from tests.geoloc_core.made_answers import save_model

from ...conftest import PHOTOS
from ..registry.made_champion import SPACE, network

LINEAR = {"kind": "classifier", "corpus": "photos", "encoders": ["net"], "labels": "country"}
JOINT = {"kind": "ensemble", "corpus": "photos", "members": ["linear", "other"], "labels": "country"}


@pytest.fixture
def project(tmp_path):
    """Two classifiers on the mean colour, and an ensemble that reads the best candidate of each."""
    profile = PHOTOS | {
        "encoders": {"net": {"kind": "onnx", "output": "embedding", "size": 16}},
        "variants": {"linear": LINEAR, "other": LINEAR, "joint": JOINT},
        "evaluation": {"candidates": 1},
    }
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"run": profile}))
    made = Project.open(tmp_path / "params.yaml")
    made.weights("net").mkdir(parents=True)
    network(made.weights("net") / "model.onnx")
    mark = {"net": tower(made).fingerprint}
    for name, space, seed in (("linear", SPACE, 0), ("other", SPACE.take(np.array([1, 0])), 1)):
        rng = np.random.default_rng(seed)
        layer = (rng.normal(size=(2, 3)).astype(np.float32), np.zeros(2, np.float32))
        model = Classifier(["net"], space, np.zeros(3, np.float32), np.ones(3, np.float32), [layer])
        save_model(made, name, made.profile.variant(name), model, mark)
    model = Ensemble(SPACE, ["linear", "other"], np.array([0.55, 0.45]), [np.array([0, 1]), np.array([1, 0])])
    save_model(made, "joint", made.profile.variant("joint"), model, {})
    return made


REFINED = {
    "kind": "protonet_refinement",
    "corpus": "photos",
    "variant": "linear",
    "encoder": "net",
    "labels": "boxes",
    "max_km": 9000,
}


@pytest.fixture
def refined(tmp_path):
    """A classifier of cells and its refinement, which learned from twenty photos around the two places."""
    profile = PHOTOS | {
        "encoders": {"net": {"kind": "onnx", "output": "embedding", "size": 16}},
        "cells": {"boxes": {"kind": "quadtree"}},
        "variants": {"linear": LINEAR | {"labels": "boxes"}, "refined": REFINED},
    }
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"run": profile}))
    made = Project.open(tmp_path / "params.yaml")
    made.weights("net").mkdir(parents=True)
    network(made.weights("net") / "model.onnx")
    mark, rng = {"net": tower(made).fingerprint}, np.random.default_rng(4)
    layer = (rng.normal(size=(2, 3)).astype(np.float32), np.zeros(2, np.float32))
    linear = Classifier(["net"], SPACE, np.zeros(3, np.float32), np.ones(3, np.float32), [layer])
    save_model(made, "linear", made.profile.variant("linear"), linear, mark)
    targets = np.arange(20) % 2
    data = Data(
        images={"net": rng.random((20, 3)).astype(np.float16)},
        texts={},
        answers={},
        space=SPACE,
        targets=targets,
        training=np.arange(15),
        validation=np.arange(15, 20),
        latitudes=SPACE.latitudes[targets] + rng.normal(size=20),
        longitudes=SPACE.longitudes[targets] + rng.normal(size=20),
        models={"linear": load(made.model("linear"))},
        ids=pa.array([f"{number}.jpg" for number in range(20)]),
    )
    block = made.profile.variant("refined")
    model = protonet_refinement.fit(data, block, Run(1, tmp_path, [], lambda metrics, step: None)).model
    save_model(made, "refined", block, model, mark)
    return made


def test_a_refinement_takes_the_model_under_it_along(refined, photos, tmp_path):
    bundle.pack(refined, "refined", tmp_path / "bundle")
    features = tower(refined)(photos).astype(np.float16)
    expected = load(refined.model("refined")).model.predict(Batch({"net": features}), 2)
    shutil.rmtree(refined.data)
    opened = bundle.load(tmp_path / "bundle")
    assert list(opened.models) == ["refined"]
    found = opened.predict(photos, 2)
    np.testing.assert_array_equal(found.classes, expected.classes)
    np.testing.assert_array_equal(found.probabilities, expected.probabilities)
    np.testing.assert_array_equal(found.latitude, expected.latitude)
    assert set(found.evidence.ids.ravel()) <= {f"{number}.jpg" for number in range(15)}, "training photos are named"


def tower(project):
    return encoder.load(project.profile.encoders["net"], project.weights("net"))


@pytest.fixture
def photos():
    found = []
    for colour in np.random.default_rng(2).integers(0, 256, (12, 3)):
        kept = io.BytesIO()
        Image.new("RGB", (24, 24), tuple(int(part) for part in colour)).save(kept, "PNG")
        found.append(kept.getvalue())
    return found


def test_an_ensemble_answers_photos_as_the_stage_answers_features(project, photos, tmp_path):
    bundle.pack(project, "joint", tmp_path / "bundle")
    models = {name: load(project.model(name)).model for name in ("linear", "other", "joint")}
    features = tower(project)(photos).astype(np.float16)  # as `geoloc encode` keeps them
    read = {name: models[name].predict(Batch({"net": features}), 1) for name in ("linear", "other")}
    expected = models["joint"].predict(Batch({}, read), 2)
    shutil.rmtree(project.data)
    opened = bundle.load(tmp_path / "bundle")
    assert (opened.variant, list(opened.models), opened.candidates) == ("joint", ["linear", "other", "joint"], 1)
    found = opened.predict(photos, 2)
    np.testing.assert_array_equal(found.classes, expected.classes)
    np.testing.assert_array_equal(found.probabilities, expected.probabilities)
    np.testing.assert_array_equal(found.evidence.ids, expected.evidence.ids)
    np.testing.assert_array_equal(found.latitude, expected.latitude)
    alone = [opened.predict([photo], 2) for photo in photos]
    assert [one.classes[0].tolist() for one in alone] == found.classes.tolist()


def test_weights_that_a_member_was_not_trained_on_are_not_packed(project, tmp_path):
    folder = project.model("other")
    note = folder / "model.json"
    note.write_text(note.read_text().replace(tower(project).fingerprint, "f00d"))
    with pytest.raises(UserError, match="but other was trained on f00d; encode and train again"):
        bundle.pack(project, "joint", tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"members": ["linear"]}, r"bundle\.json: no member other"),
        ({"members": ["linear", "other", "gone"]}, r"gone/model\.json: no such file"),
        ({"encoders": {}}, r"bundle\.json: no encoder net"),
        ({"candidates": 0}, "candidates"),
    ],
)
def test_a_bundle_that_lacks_a_part_is_one_line(project, tmp_path, change, says):

    bundle.pack(project, "joint", tmp_path / "bundle")
    card = tmp_path / "bundle" / "bundle.json"
    raw = json.loads(card.read_text())
    card.write_text(json.dumps(raw | change))
    (tmp_path / "bundle" / CHECKSUMS).unlink(missing_ok=True)
    with pytest.raises(UserError, match=says) as said:
        bundle.load(tmp_path / "bundle")
    assert "\n" not in str(said.value)
    assert "run `geoloc promote --replace`" in str(said.value)


@pytest.fixture
def views(project):
    """The same project with a model that looks at all views of a place, and one that looks at the first."""
    raw = yaml.safe_load((project.root / "params.yaml").read_text())
    block = {"kind": "geocell_classifier", "corpus": "photos", "encoder": "net", "labels": "country"}
    raw["run"]["variants"] |= {"all": block, "one": block | {"views": "one"}}
    (project.root / "params.yaml").write_text(yaml.safe_dump(raw))
    again = Project.open(project.root / "params.yaml")
    rng = np.random.default_rng(3)
    tensors = {"cells.weight": rng.normal(size=(2, 3)), "cells.bias": np.zeros(2), "temperature": np.ones(1)}
    for looked in ("all", "one"):
        said = Said(views=looked, tasks=None, block=None, pool="mean")
        model = GeocellClassifier("net", SPACE, said, {name: t.astype(np.float32) for name, t in tensors.items()})
        save_model(again, looked, again.profile.variant(looked), model, {"net": tower(again).fingerprint})
    return again


def test_views_of_one_place_are_answered_together_by_a_model_that_reads_places(views, photos, tmp_path):
    bundle.pack(views, "all", tmp_path / "bundle")
    opened = bundle.load(tmp_path / "bundle")
    found = opened.predict(photos, 2, Units(np.arange(12), np.array([0, 4, 5, 12])))
    assert len(found) == 3
    features = tower(views)(photos).astype(np.float16).astype(np.float32)
    mean = np.stack([features[:4].mean(0), features[4], features[5:].mean(0)])
    expected = load(views.model("all")).model.predict(Batch({"net": mean}), 2)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-5)
    turned = opened.predict(photos, 2, Units(np.array([2, 0, 3, 1]), np.array([0, 4])))
    np.testing.assert_allclose(turned.probabilities[0], found.probabilities[0], atol=1e-6)
    assert len(opened.predict(photos, 2)) == 12, "photos are places of their own where nothing else is said"


@pytest.mark.slow
def test_the_registered_model_answers_the_views_of_a_place_once_in_any_order(views, photos, tmp_path, monkeypatch):
    import mlflow

    monkeypatch.setattr(sys, "path", [*sys.path])  # MLflow puts the model's code in front
    frame = pd.DataFrame({"image": photos})
    # b has two views, c three; a and the last four stand alone
    frame["place_id"] = ["b", "a", "c", "c", "b", "c", "d", "e", *[None] * 4]
    frame["heading"] = [270.0, 0, 90, 0, 180, 270, *[np.nan] * 6]
    members = {0: [4, 0], 1: [1], 2: [3, 2, 5], **{row: [row] for row in range(6, 12)}}
    features = tower(views)(photos).astype(np.float16).astype(np.float32)
    for looked in ("all", "one"):
        saved = mlflow.pyfunc.load_model(versions.save_pyfunc(views, looked, tmp_path / looked))
        found = saved.predict(frame, params={"top_k": 2})
        assert found["photo"].tolist() == np.repeat([*members], 2).tolist(), "a place is named by its first photo"
        read = [features[rows].mean(0) if looked == "all" else features[rows[0]] for rows in members.values()]
        expected = load(views.model(looked)).model.predict(Batch({"net": np.stack(read)}), 2)
        np.testing.assert_allclose(found["probability"].to_numpy().reshape(-1, 2), expected.probabilities, atol=2e-6)
        mixed = np.random.default_rng(5).permutation(12)
        turned = saved.predict(frame.iloc[mixed].reset_index(drop=True), params={"top_k": 2})
        now = np.argsort(mixed)
        for row in (0, 2):
            one, other = found[found["photo"] == row], turned[turned["photo"] == now[members[row]].min()]
            assert one["probability"].tolist() == other["probability"].tolist()
            assert one["id"].tolist() == other["id"].tolist()
        alone = saved.predict(frame[["image"]], params={"top_k": 2})
        assert alone["photo"].nunique() == 12, "photos are places of their own where nothing else is said"
    linear = mlflow.pyfunc.load_model(versions.save_pyfunc(views, "linear", tmp_path / "linear"))
    with pytest.raises(UserError, match=r"linear answers one photo at a time; .*without --place or place_id"):
        linear.predict(frame)


def test_views_of_one_place_are_refused_by_a_model_of_photos(project, photos, tmp_path):
    bundle.pack(project, "linear", tmp_path / "bundle")
    opened = bundle.load(tmp_path / "bundle")
    with pytest.raises(UserError, match="linear answers one photo at a time; ask about each alone"):
        opened.predict(photos, 2, Units(np.arange(12), np.array([0, 12])))
    assert len(opened.predict(photos[:1], 2, Units(np.arange(1), np.array([0, 1])))) == 1
