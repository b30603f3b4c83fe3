"""Promotion on a real SQLite database: killed anywhere, with files gone, and loaded where the project is not."""

import ast
import shutil
import signal
import subprocess
import sys
import sysconfig
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from geoloc_core.errors import UserError
from geoloc_core.files import read_json, write_json
from geoloc_core.registry import promotion, tracking
from geoloc_core.serving import bundle

from .made_champion import make_project, score, train

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path, database):
    return make_project(tmp_path / "project", database)


def state(project):
    """What MLflow holds of a project: runs, models with their folders, versions and the champion."""
    client = tracking.client(project)
    experiment = tracking.experiment(project, client)
    runs = client.search_runs([experiment])
    models = client.search_logged_models([experiment])
    versions = client.search_model_versions("name = 'geolocator'")
    folders = tracking.store(project) / "artifacts" / "models"
    held = {path.relative_to(folders).parts[0] for path in folders.rglob("*") if path.is_file()}
    assert held == {model.model_id for model in models}
    return (
        sorted((run.info.run_name, run.info.status) for run in runs),
        [(str(model.status), model.tags) for model in models],
        sorted((int(v.version), v.source.removeprefix("models:/") in {m.model_id for m in models}) for v in versions),
        client.get_model_version_by_alias("geolocator", "champion").version,
    )


WHOLE = ([("restored linear", "FINISHED")], [("READY", {})], [(1, True)], 1)

POINTS = (
    "create_run",
    "log_artifacts",
    "set_terminated",
    "set_tag",
    "create_logged_model",
    "log_outputs",
    "half of the files",
    "log_model_artifacts",
    "finalize_logged_model",
    "create_registered_model",
    "create_model_version",
    "delete_logged_model_tag",
    "set_registered_model_alias",
)


@pytest.mark.parametrize("point", POINTS)
def test_promotion_killed_anywhere_ends_like_one_that_was_not(project, point):
    from . import victims

    with victims.waiting(victims.promote, project, point) as process:
        process.send_signal(signal.SIGKILL)
    decision = promotion.promote(project)
    assert state(project) == WHOLE
    assert not project.partial("promote", "x").parent.exists()
    assert decision["champion"]["version"] == 1
    assert bundle.load(promotion.champion(project)[1]).variant == "linear"
    assert not promotion.promote(project)["promoted"]
    assert state(project) == WHOLE, "twice is once"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_promotion_that_is_asked_to_end_leaves_no_more_than_a_killed_one(project, number):
    from . import victims

    with victims.waiting(victims.promote, project, "half of the files") as process:
        process.send_signal(number)
    promotion.promote(project)
    assert state(project) == WHOLE


def test_a_promotion_at_work_elsewhere_is_left_alone(project):
    promotion.promote(project)
    client = tracking.client(project)
    experiment = tracking.experiment(project, client)
    client.create_logged_model(experiment, "geolocator", tags={tracking.PROCESS: "elsewhere 1 1.00"})
    promotion.promote(project)
    assert len(client.search_logged_models([experiment])) == 2


def test_what_is_shown_of_a_decision_are_names_not_addresses(project):
    decision = promotion.promote(project)
    assert read_json(project.state / "promotion.json") == decision
    assert (decision["model"], decision["champion"]["version"]) == ("geolocator", 1)
    assert "://" not in (project.state / "promotion.json").read_text()


def test_only_a_better_one_takes_the_champion_s_place(project):
    promotion.promote(project)
    train(project, shift=0.5)
    score(project, 40.0)
    assert not promotion.promote(project)["promoted"]
    score(project, 60.0)
    decision = promotion.promote(project)
    assert decision["promoted"], "scored anew"
    assert (decision["champion"]["version"], decision["champion"]["value"]) == (2, "60.0")
    assert not promotion.promote(project)["promoted"]
    train(project, shift=0.7)
    score(project, 61.0)
    assert promotion.promote(project)["champion"]["version"] == 3
    score(project, 10.0, photos="others")
    decision = promotion.promote(project)
    assert (decision["promoted"], decision["comparable"]) == (False, False)
    assert promotion.promote(project, replace=True)["champion"]["version"] == 4


def _artifacts(project) -> Path:
    (found,) = (tracking.store(project) / "artifacts" / "models").iterdir()
    return found / "artifacts"


@pytest.mark.parametrize("lost", ["", "code", "MLmodel", "artifacts/geolocator/encoders/net/model.onnx"])
@pytest.mark.parametrize("replace", [False, True])
def test_files_that_are_gone_are_written_again(project, lost, replace):
    promotion.promote(project)
    path = _artifacts(project) / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    promotion.promote(project, replace)
    assert state(project) == WHOLE
    assert bundle.load(promotion.champion(project)[1]).variant == "linear"


def test_files_that_are_cut_off_or_other_are_written_again(project):
    promotion.promote(project)
    path = _artifacts(project) / "artifacts/geolocator/models/linear/model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    promotion.promote(project)
    assert path.read_bytes() == whole
    path.write_bytes(bytes(len(whole)))
    promotion.promote(project, replace=True)
    assert path.read_bytes() == whole


def test_files_that_are_gone_are_said_when_they_are_asked_for(project):
    promotion.promote(project)
    shutil.rmtree(_artifacts(project))
    with pytest.raises(UserError, match=r"its files are gone .*; run `geoloc promote --replace`"):
        promotion.champion(project)


def test_a_model_that_was_deleted_is_registered_again(project):
    promotion.promote(project)
    client = tracking.client(project)
    (model,) = client.search_logged_models([tracking.experiment(project, client)])
    client.delete_logged_model(model.model_id)
    shutil.rmtree(_artifacts(project).parent)
    assert promotion.promote(project, replace=True)["champion"]["version"] == 2
    assert bundle.load(promotion.champion(project)[1]).variant == "linear"


ANSWER = """
import sys
sys.path.append(sys.argv[1])
try:
    import geoloc_core
except ImportError:
    pass
else:
    sys.exit("the project is installed here")
import os
os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
import mlflow, pandas
model = mlflow.pyfunc.load_model(sys.argv[2])
answer = model.predict(pandas.DataFrame({"image": [open(sys.argv[3], "rb").read()] * 2}), params={"top_k": 1})
import geoloc_core
assert geoloc_core.__file__.startswith(sys.argv[2]), geoloc_core.__file__
print(",".join(answer.columns), list(answer["id"]))
"""


def test_the_model_answers_where_the_project_is_not_installed(project, tmp_path):
    from PIL import Image

    promotion.promote(project)
    taken = tmp_path / "elsewhere"
    shutil.copytree(_artifacts(project), taken)
    shutil.rmtree(project.root)
    Image.new("RGB", (32, 32), (250, 10, 10)).save(tmp_path / "red.png")
    words = [sys.executable, "-I", "-S", "-c", ANSWER, sysconfig.get_path("purelib"), taken, tmp_path / "red.png"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["photo,rank,id,name,probability,latitude,longitude", "['FRA',", "'FRA']"]
    suffixes = {path.suffix for path in taken.rglob("*") if path.is_file()}
    assert not suffixes & {".pkl", ".pickle", ".pt", ".bin"}
    assert not list(taken.rglob("test_*"))
    assert sum(path.stat().st_size for path in (taken / "code").rglob("*.py")) < 2_000_000


def test_what_the_model_requires_is_pinned_and_nobody_else_s(project):
    promotion.promote(project)
    required = (_artifacts(project) / "requirements.txt").read_text().split()
    names = {line.partition("==")[0] for line in required}
    assert names == {*promotion.LIBRARIES, "mlflow"}
    assert all("==" in line and "+" not in line for line in required)
    assert "geoloc" not in (_artifacts(project) / "conda.yaml").read_text()


ROOMS = (
    "contracts", "encoders", "families", "params", "report", "serving", "geo/labelspace.py", "geo/sphere.py",
    "pictures.py", "plugins.py", "threads.py", "yamls.py",
)  # fmt: skip


def test_what_answering_imports_is_required():
    room = Path(promotion.__file__).parents[1]
    files = [
        file for name in ROOMS for file in ([room / name] if name.endswith(".py") else (room / name).rglob("*.py"))
    ]
    modules = {
        (name or "").partition(".")[0]
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    known = packages_distributions()
    owners = [{owner.lower().replace("_", "-") for owner in known[name]} for name in modules & known.keys()]
    owners = [found for found in owners if not found & {"mlflow", "geoloc"}]
    assert not [found for found in owners if not found & {*promotion.LIBRARIES}], "to be added"
    assert not {*promotion.LIBRARIES} - set().union(*owners), "nothing imports them"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: path.unlink(), "no such file; run `geoloc leaderboard`"),
        (lambda path: path.write_text("{"), "not valid JSON"),
        (lambda path: path.write_bytes(b"\xff"), "not valid JSON"),
        (lambda path: path.write_text("[]"), "Input should be a valid dictionary"),
        (lambda path: path.write_text("{}"), "banner: Field required"),
        (lambda path: write_json(path, {**read_json(path), "best": {"variant": "linear"}}), r"best.benchmark: Field"),
        (lambda path: write_json(path, {**read_json(path), "banner": "Demo"}), "not of the present parameters"),
    ],
    ids=["gone", "cut off", "no text", "a list", "empty", "half", "other"],
)
def test_a_leaderboard_that_says_too_little_is_one_clear_line(project, spoil, says):
    spoil(project.leaderboard / "leaderboard.json")
    with pytest.raises(UserError, match=says) as said:
        promotion.promote(project)
    assert "\n" not in str(said.value)
    assert "leaderboard.json" in str(said.value)
