"""The whole road on real photographs, with the commands that a user types."""

import json
import os
import shlex
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
import yaml

from geoloc_core.files import sha256_of

from .commands import commands
from .conftest import PHOTOS

pytestmark = pytest.mark.slow


PHOTO = "images/exif_gps/ianare+exif-samples/jpg/gps/DSCN0010.jpg"
COMMANDS = (
    "fetch photos", "boundaries", "ingest photos", "label photos", "leaks", "download net",
    "encode photos --encoder net", "truth photos", "train linear", "answer linear", "score linear", "leaderboard",
    "promote", "promote", "predict {photo}", "predict --json {photo} {photo}", "predict --csv {photo}",
)  # fmt: skip


@pytest.fixture(scope="module")
def road(shared, tmp_path_factory):
    """A project over the real photographs, Natural Earth and a real pretrained network, run from end to end."""
    root = tmp_path_factory.mktemp("real")
    boundaries = shared / "boundaries" / "ne_10m_admin_0_countries.gpkg"
    profile = {
        **PHOTOS,
        "boundaries": {"kind": "natural_earth", "path": str(boundaries), "sha256": sha256_of(boundaries)},
        "labels": {"validation_share": 0.3},
        "corpora": {
            "photos": {
                "role": "train",
                "fetch": {"kind": "files", "path": str(shared / "images")},
                "source": {"kind": "photos"},
            }
        },
        "checkpoints": {"net": {"file": str(shared / "weights" / "mobilenetv2_same_tf2.onnx")}},
    }
    (root / "params.yaml").write_text(yaml.safe_dump({"run": profile}))
    said = commands(root, *(line.format(photo=shlex.quote(str(shared / PHOTO))) for line in COMMANDS))
    return root, {f"{line} again" if line in COMMANDS[:n] else line: said[n] for n, line in enumerate(COMMANDS)}


def test_every_photo_is_kept_or_refused_with_a_reason(road, shared):
    root, said = road
    kept = pq.read_table(root / "data/corpora/photos/manifest.parquet").num_rows
    refused = pq.read_table(root / "data/corpora/photos/rejects.parquet")["reason"].to_pylist()
    seen = sum(path.is_file() for path in (shared / "images").rglob("*"))
    assert kept + len(refused) == seen
    assert all(refused)
    assert f"{kept} kept + {len(refused)} refused = {seen} seen" in said["ingest photos"]


def test_no_sequence_straddles_the_split(road):
    root, _ = road
    groups = pq.read_table(root / "data/corpora/photos/manifest.parquet")["group_id"].to_pylist()
    splits = pq.read_table(root / "data/labels/photos.parquet")["split"].to_pylist()
    sides = {}
    for group, split in zip(groups, splits, strict=True):
        sides.setdefault(group, set()).add(split)
    assert {"train", "validation"} <= set().union(*sides.values())
    assert all(len(side) == 1 for side in sides.values())


def test_the_score_states_its_sample(road):
    root, said = road
    scores = json.loads((root / "data/summaries/score/linear.json").read_text())
    assert f"{scores['validation']['n']} of " in said["score linear"]
    assert 0 < scores["validation"]["n"] < 77


def test_the_champion_answers_in_every_form(road):
    _, said = road
    assert "is the champion now" in said["promote"]
    assert "Warning" not in said["promote"]
    assert "DSCN0010.jpg" in said["predict {photo}"]
    answer = json.loads(said["predict --json {photo} {photo}"])
    assert len(answer["places"]) == 5, "a photo that is named twice is answered once"
    first = answer["places"]
    assert [place["rank"] for place in first] == [1, 2, 3, 4, 5]
    assert sorted((p["probability"] for p in first), reverse=True) == [p["probability"] for p in first]
    lines = said["predict --csv {photo}"].splitlines()
    assert lines[0] == "photo,rank,id,name,probability,latitude,longitude,error"
    assert len(lines) == 6


SERVE = """
import json, sys, mlflow, pandas as pd
model = mlflow.pyfunc.load_model("models:/geolocator@champion")
photo = open(sys.argv[1], "rb").read()
places = model.predict(pd.DataFrame({"image": [photo]}), params={"top_k": 5})
inputs = model.metadata.signature.inputs.input_names()
print(json.dumps([places["id"].tolist(), places["probability"].tolist(), inputs]))
"""


def test_mlflow_serves_the_same_answer(road, shared):
    root, said = road
    path = shared / PHOTO
    answer = json.loads(said["predict --json {photo} {photo}"])["places"][:5]
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{root}/.state/mlflow/mlflow.db"}
    served = subprocess.run(
        [sys.executable, "-c", SERVE, path], env={**os.environ, **store}, capture_output=True, text=True, check=False
    )
    assert served.returncode == 0, served.stderr
    ids, probabilities, inputs = json.loads(served.stdout.splitlines()[-1])
    assert ids == [place["id"] for place in answer]
    assert probabilities == pytest.approx([place["probability"] for place in answer], abs=1e-5)
    assert inputs == ["image", "place_id", "heading"]


def test_promoting_twice_changes_nothing(road):
    assert "is the champion already" in road[1]["promote again"]
