"""A project with a trained variant that is best on its leaderboard, ready to be promoted."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import yaml

from geoloc_core import parquet
from geoloc_core.contracts.geolocator import LABELS, Card, Trained
from geoloc_core.contracts.prediction import OfTruth, Prediction
from geoloc_core.encoders import encoder
from geoloc_core.families.classifier import Classifier
from geoloc_core.files import read_json, replacing_folder, write_json
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.project import Project
from geoloc_core.registry import tracking
from geoloc_core.variants import answers
from geoloc_core.variants.answers import Asked, Note

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


def make_project(root: Path, database: Path | None = None, registry: dict | None = None) -> Project:
    """A project that `geoloc promote` can run in, with a copy of an empty database of MLflow's."""
    root.mkdir(parents=True, exist_ok=True)
    profile = {**PHOTOS, "encoders": {"net": {"kind": "onnx", "output": "embedding", "size": 16}}, "threads": 1}
    profile["variants"] = dict.fromkeys(("linear", "other"), PHOTOS["variants"]["linear"])
    profile["registry"] = PHOTOS["registry"] | (registry or {})
    profile["labels"] = {"test_share": 0.2}
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


def train(project: Project, shift: float = 0.0, variant: str = "linear") -> None:
    """Save a variant's model; another one for another shift."""
    fingerprint = encoder.load(project.profile.encoders["net"], project.weights("net")).fingerprint
    layers = [(np.eye(2, 3, dtype=np.float32) + np.float32(shift), np.zeros(2, np.float32))]
    model = Classifier(["net"], SPACE, np.zeros(3, np.float32), np.ones(3, np.float32), layers)
    needs = project.profile.variant("linear").needs()
    project.model(variant).mkdir(parents=True, exist_ok=True)
    card = Card(family="classifier", needs=needs, fingerprints={"net": fingerprint}, parameters=8)
    Trained(card, model).save(project.model(variant))


N = 200
"""Photos of the selection set."""


def rows_right(percent: float) -> np.ndarray:
    """(N,) whether each answer is right: the first so many percent."""
    return np.arange(N) < N * percent / 100


def score(
    project: Project,
    right: float | np.ndarray,
    photos: str = "p",
    variant: str = "linear",
    countries: str = "FRA",
    confidence: float | None = None,
    elsewhere: np.ndarray | None = None,
) -> None:
    """Write a variant's answers to the selection set, score them, and put all that are scored on the leaderboard.

    Args:
        project: The project.
        right: (N,) which photos are answered right, or the percent that is.
        photos: How their ids begin.
        variant: Whose answers.
        countries: Where each photo was taken, in turn, as words.
        confidence: Of every answer; left out, what is calibrated.
        elsewhere: (N,) which photos of the test split are answered right; left out, it has not answered them.
    """
    from geoloc_core.evaluation.score import score as stage

    hits = rows_right(right) if isinstance(right, float) else right
    given = {"validation": hits} | ({} if elsewhere is None else {"test": elsewhere})
    tables = {name: _answered(of, f"{name}{photos}", countries, confidence) for name, of in given.items()}
    note = Note(
        variant=variant, family="classifier", encoders=["net"], members=[], corpus="photos", labels="country",
        frequencies=[5, 4], benchmarks={name: Asked(corpus="photos", published=len(of)) for name, of in given.items()},
        demo=False, trained_on=["photos"], parameters=8,
    )  # fmt: skip
    with replacing_folder(project.answers(variant), "answers") as aside:
        aside.mkdir()
        for name, table in tables.items():
            parquet.write(table, aside / f"{name}.parquet")
        SPACE.save(aside / LABELS)
        write_json(aside / answers.NOTE, note.model_dump(mode="json"))
    stage(project, variant)
    rank(project)


def _answered(hits: np.ndarray, photos: str, countries: str, confidence: float | None) -> pa.Table:
    """Answers to N photos, of which some (N,) are right."""
    confidence = max(0.51, float(hits.mean())) if confidence is None else confidence
    n, true = len(hits), SPACE.index(np.resize(countries.split(), len(hits)))
    answer = np.where(hits, true, 1 - true)
    both = np.stack([answer, 1 - answer], axis=1)
    shares = np.tile([confidence, 1 - confidence], (n, 1))
    thought = OfTruth(np.where(hits, 0, 1), np.where(hits, *shares.T), np.where(hits, 0, confidence))
    places = (SPACE.latitudes, SPACE.longitudes)
    prediction = Prediction(
        both, shares, *(axis[both] for axis in places), *(axis[answer] for axis in places), truth=thought
    )
    ids = np.array(SPACE.ids, dtype=object)[true]
    known = {"image_id": [f"{photos}{i}" for i in range(n)], "group_id": [f"{photos}{i // 2}" for i in range(n)]}
    known |= {"true_latitude": places[0][true], "true_longitude": places[1][true]}
    known |= {"true_class": ids, "true_country": ids, "true_subdivision": [None] * n}
    return answers.table(prediction, SPACE, np.arange(n), known)


def rank(project: Project) -> None:
    """Write the leaderboard of all that were scored."""
    from geoloc_core.evaluation import board

    known = [name for name in project.profile.variants if project.scores(name).is_dir()]
    reports = {name: read_json(project.scores(name) / "scores.json") for name in known}
    project.leaderboard.mkdir(parents=True, exist_ok=True)
    made = board.build(project.profile, reports)
    write_json(project.leaderboard / "leaderboard.json", made.model_dump(mode="json"))
    (project.leaderboard / "leaderboard.html").write_text("<p>the leaderboard</p>")
