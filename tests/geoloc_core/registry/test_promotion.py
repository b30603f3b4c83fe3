"""Promotion on a real SQLite database: killed anywhere, with files gone, and loaded where the project is not."""

import ast
import shutil
import signal
import subprocess
import sys
import sysconfig
from importlib.metadata import packages_distributions
from pathlib import Path

import numpy as np
import pytest

from geoloc_core.errors import UserError
from geoloc_core.files import read_json, write_json
from geoloc_core.registry import promotion, tracking, versions
from geoloc_core.serving import bundle

from .made_champion import N, make_project, rows_right, score, train

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
        [(str(model.status), list(model.tags)) for model in models],
        sorted((int(v.version), v.source.removeprefix("models:/") in {m.model_id for m in models}) for v in versions),
        client.get_model_version_by_alias("geolocator", "champion").version,
    )


WHOLE = ([("restored linear", "FINISHED")], [("READY", [versions.FILES])], [(1, True)], 1)

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
    "set_logged_model_tags",
    "log_model_artifact",
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
    assert decision.champion.version == 1
    assert bundle.load(promotion.champion(project)[1]).variant == "linear"
    assert not promotion.promote(project).promoted
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


def test_a_decision_is_written_down_with_its_version_and_for_this_machine(project):
    decision = promotion.promote(project)
    assert read_json(project.state / "promotion.json") == decision.model_dump(mode="json")
    assert "://" not in (project.state / "promotion.json").read_text()
    assert (decision.rule, decision.promoted, decision.champion) == ("first", True, decision.candidate)
    assert decision.candidate.score.value == 50.0
    promotion.promote(project)
    promotion.promote(project)
    known = decided(project, 1)
    assert [found.rule for found in known] == ["first", "same"], "what repeats itself is noted once"
    assert known[0] == decision


def version(project, which):
    """A version by its number or its alias; None where nobody has that."""
    client = tracking.client(project)
    return (versions.numbered if isinstance(which, int) else versions.holder)(client, "geolocator", which)


def decided(project, number):
    """What was decided of a version."""
    with tracking.fluent(project):
        return versions.decisions(version(project, number))


def aliases(project):
    """The version of each alias that is given."""
    found = {name: version(project, name) for name in ("champion", "previous", "challenger")}
    return {name: int(holder.version) for name, holder in found.items() if holder is not None}


def retrained(project, shift, right, **more):
    """Train another model, which answers so many photos right, and promote it."""
    train(project, shift)
    score(project, right, **more)
    return promotion.promote(project)


def test_a_gain_that_may_be_chance_crowns_nobody_and_a_sure_one_does(project):
    promotion.promote(project)
    worse = retrained(project, 0.5, 40.0)
    assert (worse.rule, worse.promoted, worse.champion.version) == ("evidence", False, 1)
    assert worse.compared.gain.value == -10
    assert aliases(project) == {"champion": 1, "challenger": 2}
    unsure = retrained(project, 0.6, 52.0)
    assert unsure.compared.gain.low < 0 < unsure.compared.gain.value
    assert "may be chance" in unsure.why
    assert aliases(project) == {"champion": 1, "challenger": 3}
    sure = retrained(project, 0.7, 70.0)
    assert sure.promoted
    assert 0 < sure.compared.gain.low < sure.compared.gain.value == 20
    assert sure.why.startswith("within_750km on validation improves by 20.00 points (95 % interval ")
    assert aliases(project) == {"champion": 4, "previous": 1}
    again = promotion.promote(project)
    assert (again.rule, again.promoted) == ("same", False)
    assert aliases(project) == {"champion": 4, "previous": 1}


def test_the_gain_is_paired_photo_by_photo(project):
    """Of the same share of right answers, one has it on the champion's photos and one more, another on others."""
    promotion.promote(project)
    others = ~rows_right(50.0)
    others[:8] = True
    assert not retrained(project, 0.5, others).promoted
    assert retrained(project, 0.6, rows_right(54.0)).promoted


def test_a_gain_below_the_least_one_crowns_nobody(tmp_path, database):
    project = make_project(tmp_path / "project", database, {"min_gain": 25})
    promotion.promote(project)
    decision = retrained(project, 0.5, 70.0)
    assert not decision.promoted
    assert "less than registry.min_gain (25)" in decision.why
    assert retrained(project, 0.6, 75.0).promoted


def test_the_best_of_many_has_to_be_surer(project):
    promotion.promote(project)
    alone = retrained(project, 0.5, 54.0)
    assert alone.promoted
    promotion.choose(project, 1)
    train(project, 0.9, "other")
    score(project, 10.0, variant="other")
    train(project, 0.6)
    among = promotion.promote(project)
    assert (alone.compared.variants, among.compared.variants) == (1, 2)
    assert among.compared.gain.value == alone.compared.gain.value
    assert among.compared.gain.low < alone.compared.gain.low


TURNS = "FRA KEN"
"""Where the photos were taken: every other one in Africa."""


def test_a_continent_that_is_lost_keeps_the_champion(project):
    africa = np.arange(N) % 2 == 1
    score(project, np.where(africa, np.arange(N) < 140, np.arange(N) < 20), countries=TURNS)
    promotion.promote(project)
    decision = retrained(project, 0.5, np.where(africa, np.arange(N) < 100, np.arange(N) < 160), countries=TURNS)
    assert not decision.promoted
    assert decision.compared.gain.low > 0
    (broken,) = [guard for guard in decision.compared.guards if not guard.held]
    assert (broken.what, broken.value, broken.bound) == ("Africa", -20, 5)
    assert "but in Africa the country is right less often by 20.00 points" in decision.why
    little = retrained(project, 0.6, np.where(africa, np.arange(N) < 132, np.arange(N) < 160), countries=TURNS)
    assert little.promoted, "a loss within the bound"


def test_a_worse_calibration_keeps_the_champion(project):
    score(project, 60.0, confidence=0.6)
    promotion.promote(project)
    decision = retrained(project, 0.5, 70.0, confidence=0.99)
    assert not decision.promoted
    assert "but the calibration error (ECE) rises by 29.00 points" in decision.why
    assert retrained(project, 0.6, 70.0, confidence=0.66).promoted


def test_guards_can_be_switched_off(tmp_path, database):
    guards = {"guards": {"continents": None, "calibration": None}}
    project = make_project(tmp_path / "project", database, guards)
    promotion.promote(project)
    decision = retrained(project, 0.5, 70.0, confidence=0.99)
    assert decision.promoted
    assert decision.compared.guards == []


def test_a_loss_on_a_further_benchmark_keeps_the_champion(tmp_path, database):
    guards = {"guards": {"benchmarks": {"test": {"metric": 3}}}}
    project = make_project(tmp_path / "project", database, guards)
    score(project, 50.0)
    promotion.promote(project)
    decision = retrained(project, 0.5, 70.0, elsewhere=rows_right(80.0))
    assert (decision.rule, decision.promoted) == ("evidence", False)
    assert "both have not answered the same photos of test, which registry.guards name" in decision.why
    assert promotion.promote(project, replace=True).champion.version == 2
    lost = retrained(project, 0.6, 80.0, elsewhere=rows_right(70.0))
    assert not lost.promoted
    assert "but on test within_750km worsens by 10.00 points" in lost.why
    assert retrained(project, 0.7, 80.0, elsewhere=rows_right(78.0)).promoted, "a loss within the bound"


def test_versions_of_other_photos_do_not_compare(project):
    promotion.promote(project)
    decision = retrained(project, 0.5, 90.0, photos="others")
    assert (decision.rule, decision.promoted, decision.compared) == ("other photos", False, None)
    assert "has not answered the same photos of validation" in decision.why
    replaced = promotion.promote(project, replace=True)
    assert (replaced.rule, replaced.promoted, replaced.champion.version) == ("replaced", True, 2)
    assert aliases(project) == {"champion": 2, "previous": 1}


def test_versions_compare_on_the_photos_that_both_answered(project):
    promotion.promote(project)
    decision = retrained(project, 0.5, np.arange(150) < 130)
    assert decision.promoted
    assert (decision.compared.photos, decision.compared.groups) == (150, 75)
    assert decision.compared.gain.value == pytest.approx(100 * (130 - 100) / 150)
    assert retrained(project, 0.6, np.arange(60) < 60).rule == "other photos", "less than half of them"


def test_a_champion_that_is_still_here_answers_the_new_selection_set(project):
    promotion.promote(project)
    train(project, 0.5, "other")
    score(project, 60.0, photos="new")
    score(project, 90.0, photos="new", variant="other")
    decision = promotion.promote(project)
    assert decision.promoted
    assert (decision.candidate.variant, decision.compared.gain.value) == ("other", 30)


def test_kept_answers_that_are_damaged_are_written_again_or_replaced_as_is_said(project):
    promotion.promote(project)
    (kept,) = tracking.store(project).rglob("selection/validation.parquet")
    whole = kept.read_bytes()
    kept.write_bytes(whole[:99])
    assert promotion.promote(project).rule == "same"
    assert kept.read_bytes() == whole
    kept.write_bytes(whole[:99])
    with pytest.raises(UserError, match="geoloc promote --replace"):
        retrained(project, 0.5, 80.0)
    assert promotion.promote(project, replace=True).champion.version == 2


def test_a_rollback_stays(project):
    promotion.promote(project)
    retrained(project, 0.5, 80.0)
    decision = promotion.roll_back(project, "calls every beach\nBrazil")
    assert (decision.rule, decision.champion.version, decision.candidate.version) == ("rolled back", 1, 2)
    assert decision.why.endswith("rolled version 2 back: calls every beach Brazil")
    assert aliases(project) == {"champion": 1}
    again = promotion.promote(project)
    assert (again.rule, again.promoted, again.champion.version) == ("none left", False, 1)
    with pytest.raises(UserError, match="no champion before version 1"):
        promotion.roll_back(project)
    assert [found.rule for found in decided(project, 2)] == ["evidence", "rolled back"]
    assert [found.rule for found in decided(project, 1)] == ["first", "rolled back"]
    assert promotion.choose(project, 2, "it was right").champion.version == 2
    assert aliases(project) == {"champion": 2, "previous": 1}
    assert promotion.promote(project).rule == "same", "what a person has chosen is wanted again"


def test_what_a_person_rejected_is_passed_over(project):
    promotion.promote(project)
    assert not retrained(project, 0.5, 52.0).promoted
    decision = promotion.reject(project, 2, "of the wrong corpus")
    assert aliases(project) == {"champion": 1}
    assert decision.why.endswith("rejected version 2: of the wrong corpus")
    score(project, 90.0)
    train(project, 0.9, "other")
    score(project, 70.0, variant="other")
    decision = promotion.promote(project)
    assert (decision.promoted, decision.candidate.variant) == (True, "other"), "the best of those that are left"
    with pytest.raises(UserError, match="version 3: the champion; run `geoloc promote --rollback`"):
        promotion.reject(project, 3, "no")


def test_two_steps_back(project):
    promotion.promote(project)
    retrained(project, 0.5, 70.0)
    retrained(project, 0.6, 90.0)
    assert aliases(project) == {"champion": 3, "previous": 2}
    promotion.roll_back(project)
    assert aliases(project) == {"champion": 2, "previous": 1}
    promotion.roll_back(project)
    assert aliases(project) == {"champion": 1}


@pytest.mark.parametrize("ask", [promotion.choose, promotion.reject])
def test_a_version_that_is_not_there_is_one_clear_line(project, ask):
    with pytest.raises(UserError, match="no version 7; expected one of: none yet"):
        ask(project, 7, "why")
    promotion.promote(project)
    with pytest.raises(UserError, match="no version 7; expected one of: 1") as said:
        ask(project, 7, "why")
    assert "\n" not in str(said.value)


def test_nobody_to_go_back_to_is_one_clear_line(project):
    with pytest.raises(UserError, match="no champion before any"):
        promotion.roll_back(project)


def test_answers_that_are_not_the_leaderboard_s_are_one_clear_line(project):
    kept = (project.leaderboard / "leaderboard.json").read_text()
    score(project, 60.0)
    (project.leaderboard / "leaderboard.json").write_text(kept)
    with pytest.raises(UserError, match="not the answers that the leaderboard was made of"):
        promotion.promote(project)


@pytest.mark.parametrize("point", ["log_model_artifact", "set_model_version_tag", "set_registered_model_alias"])
def test_a_coronation_killed_anywhere_is_finished_by_the_next(project, point):
    from . import victims

    promotion.promote(project)
    train(project, 0.5)
    score(project, 80.0)
    with victims.waiting(victims.promote, project, point) as process:
        process.send_signal(signal.SIGKILL)
    promotion.promote(project)
    assert aliases(project) == {"champion": 2, "previous": 1}
    assert "evidence" in [found.rule for found in decided(project, 2)]


@pytest.mark.parametrize("point", ["log_model_artifact", "set_model_version_tag", "set_registered_model_alias"])
def test_a_rollback_killed_anywhere_is_whole_or_can_be_repeated(project, point):
    from . import victims

    promotion.promote(project)
    retrained(project, 0.5, 80.0)
    with victims.waiting(victims.roll_back, project, point) as process:
        process.send_signal(signal.SIGKILL)
    if point == "log_model_artifact":  # it was said, and not done
        promotion.roll_back(project)
    promotion.promote(project)
    assert aliases(project) == {"champion": 1}


def test_two_at_once_lose_none(project):
    """One promotes and one rolls back: whoever comes first, both are noted and the aliases agree."""
    from . import victims

    promotion.promote(project)
    retrained(project, 0.5, 70.0)
    train(project, 0.6)
    score(project, 90.0)
    with victims.waiting(victims.roll_back, project, "set_model_version_tag") as process:
        code = "import sys; from pathlib import Path; from geoloc_core.project import Project;"
        code += "from geoloc_core.registry import promotion; promotion.promote(Project.open(Path(sys.argv[1])))"
        other = subprocess.Popen([sys.executable, "-c", code, project.root / "params.yaml"])
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(5)  # it waits for the lock
        process.send_signal(signal.SIGKILL)
    assert other.wait() == 0
    assert aliases(project) == {"champion": 3, "previous": 1}


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
    assert promotion.promote(project, replace=True).champion.version == 2
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
    assert sum(path.stat().st_size for path in (taken / "code").rglob("*.py")) < 3_000_000


def test_what_the_model_requires_is_pinned_and_nobody_else_s(project):
    promotion.promote(project)
    required = (_artifacts(project) / "requirements.txt").read_text().split()
    names = {line.partition("==")[0] for line in required}
    assert names == {*versions.LIBRARIES, "mlflow"}
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
    assert not [found for found in owners if not found & {*versions.LIBRARIES}], "to be added"
    assert not {*versions.LIBRARIES} - set().union(*owners), "nothing imports them"


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
