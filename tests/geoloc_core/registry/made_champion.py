"""A project with a trained variant that is best on its leaderboard, ready to be promoted."""

import shutil
from pathlib import Path

import numpy as np
import yaml

from geoloc_core.contracts.geolocator import Card, Trained
from geoloc_core.encoders import encoder
from geoloc_core.families.classifier import Classifier
from geoloc_core.files import write_json
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.project import Project
from geoloc_core.registry import tracking

from ...conftest import PHOTOS

SPACE = LabelSpace("country", ["FRA", "KEN"], ["France", "Kenya"], ["", ""], np.array([46.0, 0.5]), np.array([2.0, 38]))


def network(path: Path) -> None:
    """An ONNX network whose feature is the mean colour."""
    from onnx import TensorProto, helper, save

    node = helper.make_node("GlobalAveragePool", ["image"], ["embedding"])
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 16, 16])
    feature = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", 3, 1, 1])
    graph = helper.make_graph([node], "g", [image], [feature])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def make_project(root: Path, database: Path | None = None) -> Project:
    """A project that `geoloc promote` can run in, with a copy of an empty database of MLflow's."""
    root.mkdir(parents=True, exist_ok=True)
    profile = {**PHOTOS, "encoders": {"net": {"kind": "onnx", "output": "embedding", "size": 16}}}
    (root / "params.yaml").write_text(yaml.safe_dump({"run": profile}))
    project = Project.open(root / "params.yaml")
    weights = project.weights("net")
    weights.mkdir(parents=True)
    network(weights / "model.onnx")
    train(project)
    score(project, 50.0)
    if database:
        tracking.store(project).mkdir(parents=True)
        shutil.copyfile(database, tracking.store(project) / "mlflow.db")
    return project


def train(project: Project, shift: float = 0.0) -> None:
    """Save a model; another one for another shift."""
    fingerprint = encoder.load(project.profile.encoders["net"], project.weights("net")).fingerprint
    layers = [(np.eye(2, 3, dtype=np.float32) + np.float32(shift), np.zeros(2, np.float32))]
    model = Classifier(["net"], SPACE, np.zeros(3, np.float32), np.ones(3, np.float32), layers)
    needs = project.profile.variant("linear").needs()
    project.model("linear").mkdir(parents=True, exist_ok=True)
    Trained(Card(family="classifier", needs=needs, fingerprints={"net": fingerprint}), model).save(
        project.model("linear")
    )


def score(project: Project, value: float, photos: str = "d") -> None:
    """Write a leaderboard on which the variant is best."""
    best = {"variant": "linear", "benchmark": "validation", "metric": "within_750km", "value": value}
    best |= {"higher_is_better": True, "benchmark_sha256": photos}
    row = {"name": "linear", "labels": "country", "values": {"within_750km": value}}
    section = {"name": "validation", "corpus": "photos", "n": 1, "published": 1, "rows": [row]}
    section |= {"groups": {"count": 1, "largest": 1}, "selected": True}
    board = {"banner": "", "convention": "", "best": best, "sections": [section]}
    write_json(project.leaderboard / "leaderboard.json", board)
