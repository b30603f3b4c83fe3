"""MLflow on a real SQLite database: runs, the registry, and when a champion falls."""

import os
import socket
import subprocess
import sys

import mlflow
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from geoloc_core.errors import UserError
from geoloc_core.files import write_json
from geoloc_core.project import Project
from geoloc_core.training import tracking

from ...conftest import PHOTOS


def card(value: float, higher: bool = True, data: str = "d", metric: str = "within_750km") -> dict:
    named = {"benchmark": "im2gps", "metric": metric}
    return {"value": value, "higher_is_better": higher, "benchmark_sha256": data, **named}


def tags(value: float, data: str = "d") -> dict[str, str]:
    return {"value": repr(value), "benchmark_sha256": data, "metric": "im2gps.within_750km"}


@given(st.floats(0, 100), st.floats(0, 100), st.booleans())
def test_only_a_better_candidate_becomes_champion(candidate, champion, higher):
    better = candidate > champion if higher else candidate < champion
    assert tracking.is_better(card(candidate, higher), tags(champion)) is better


def test_the_first_candidate_becomes_champion():
    assert tracking.is_better(card(0.0), None)


def test_scores_on_other_photos_are_not_compared():
    assert not tracking.is_better(card(99.0, data="new"), tags(1.0, data="old"))
    assert not tracking.is_better(card(99.0, metric="accuracy"), tags(1.0))


@pytest.mark.slow
def test_a_run_remembers_what_made_it(tiny_project):
    project = tiny_project
    (project.root / "dvc.lock").write_text(
        "schema: '2.0'\nstages:\n  label@photos:\n    outs:\n    - {path: data/labels/photos.parquet, md5: abc123}\n"
    )
    reads = [project.labels("photos")]
    with tracking.run(project, "train", "linear", {"recipe": {"lr": 0.1}}, reads) as log:
        log({"loss": 2.0}, 0)
        log({"loss": 1.0}, 1)
        write_json(project.model("linear") / "model.json", {"made": 1})
        log.model(project.model("linear"))
    client = tracking.client(project)
    found = client.get_run(log.run_id)
    assert found.info.status == "FINISHED"
    assert found.data.params["recipe.lr"] == "0.1"
    assert found.data.tags["dvc.data/labels/photos.parquet"] == "abc123"
    assert [m.value for m in client.get_metric_history(log.run_id, "loss")] == [2.0, 1.0]
    assert tracking.run_of(project, client, "linear") == log.run_id
    tracking.log_scores(project, {"linear": {"im2gps": {"within_750km": 12.5}}})
    assert client.get_run(log.run_id).data.metrics["im2gps.within_750km"] == 12.5
    write_json(project.model("linear") / "model.json", {"made": 2})
    assert tracking.run_of(project, client, "linear") != log.run_id, "another model is another run"


@pytest.mark.slow
def test_a_failing_stage_leaves_a_failed_run(tiny_project):
    with pytest.raises(RuntimeError), tracking.run(tiny_project, "train", "linear", {}, []) as log:
        raise RuntimeError
    assert tracking.client(tiny_project).get_run(log.run_id).info.status == "FAILED"


@pytest.mark.slow
def test_two_projects_in_one_process_keep_apart(tmp_path):
    """MLflow's own state is the process' environment, which stages started from it would inherit."""
    before = dict(os.environ)
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "params.yaml").write_text(yaml.safe_dump({"run": PHOTOS}))
        project = Project.open(tmp_path / name / "params.yaml")
        with tracking.run(project, "train", name, {}, []) as log, tracking._fluent(project):
            log({"loss": 1.0}, 0)
            assert mlflow.get_tracking_uri() == tracking.uri(project)
    for name in ("here", "there"):
        client = tracking.client(Project.open(tmp_path / name / "params.yaml"))
        runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
        assert [run.data.tags["geoloc.name"] for run in runs] == [name]
    leaked = {key for key, value in os.environ.items() if "TRACKING_URI" in key and before.get(key) != value}
    assert not leaked


@pytest.mark.slow
def test_a_store_that_does_not_answer_is_one_clear_line(tiny_project, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused at once
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{taken.getsockname()[1]}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        with pytest.raises(UserError, match="MLflow's store cannot be used") as said:
            tracking.champion(tiny_project)
    assert "\n" not in str(said.value)


@pytest.mark.slow
def test_a_deleted_experiment_is_named(tiny_project):
    with tracking.run(tiny_project, "train", "linear", {}, []):
        pass
    client = tracking.client(tiny_project)
    client.delete_experiment(client.get_experiment_by_name("geolocator").experiment_id)
    with (
        pytest.raises(UserError, match="mlflow experiments restore"),
        tracking.run(tiny_project, "train", "linear", {}, []),
    ):
        pass


@pytest.mark.slow
def test_many_processes_may_open_a_new_database_at_once(tiny_project):
    code = (
        "import sys; from pathlib import Path; from geoloc_core.project import Project;"
        "from geoloc_core.training import tracking;"
        "project = Project.open(Path('params.yaml'));"
        "context = tracking.run(project, 'train', sys.argv[1], {}, []);"
        "log = context.__enter__(); log({'x': 1.0}, 0); context.__exit__(None, None, None)"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, f"v{i}"], cwd=tiny_project.root, stderr=subprocess.PIPE)
        for i in range(4)
    ]
    errors = [process.communicate()[1].decode() for process in started]
    assert [process.returncode for process in started] == [0] * 4, errors
    client = tracking.client(tiny_project)
    experiments = [e.experiment_id for e in client.search_experiments()]
    assert len(client.search_runs(experiments)) == 4
