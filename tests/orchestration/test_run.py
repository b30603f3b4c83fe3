"""The whole of ``geoloc demo`` in processes of its own, on a small project."""

import os
import signal
import subprocess
import sys
import time

import dagster as dg
import psutil
import pytest

from tests.orchestration.small_project import REPOSITORY, replace

pytestmark = pytest.mark.slow


@pytest.fixture
def project(project):
    replace(project / "dvc.yaml", ", check: manifest", "")  # there is no corpus behind it
    return project


def start(root, **options):
    environment = {**os.environ, "GEOLOC_ROOT": str(root), "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "orchestration.run", "--ui-hint"]
    return subprocess.Popen(command, cwd=root, env=environment, text=True, stderr=subprocess.PIPE,
                            stdout=subprocess.PIPE, **options)  # fmt: skip


def run(root):
    process = start(root)
    out, err = process.communicate(timeout=300)
    assert out == ""
    return process.returncode, err.splitlines()


def runs(root):
    with dg.DagsterInstance.from_config(str(root / ".state" / "dagster")) as instance:
        return [found.status.value for found in instance.get_runs()]


def test_everything_runs_once_then_nothing_then_what_changed(project, monkeypatch):
    monkeypatch.setenv("GEOLOC_STEP_LOGS", str(project / ".state" / "logs"))
    monkeypatch.setenv("DAGSTER_HOME", str(project / ".state" / "dagster"))
    code, lines = run(project)
    assert code == 0
    assert len([line for line in lines if line.startswith("[")]) == 10
    assert lines[-2].startswith("10 done in")
    assert lines[-1] == "See it with: geoloc ui"
    code, lines = run(project)
    assert (code, lines[0]) == (0, "10 stages unchanged, all skipped")
    assert runs(project) == ["SUCCESS"]
    replace(project / "params.yaml", "lr: 0.2", "lr: 0.3")
    code, lines = run(project)
    assert lines[0].startswith("[1/1] train_head mlp")


def test_a_mistake_of_the_user_is_one_message_and_code_2(project):
    (project / "trouble").mkdir()
    (project / "trouble" / "mp16").write_text("geoloc: error: outside/mp16.csv: no rows\n")
    code, lines = run(project)
    assert code == 2
    assert "fetch@mp16: outside/mp16.csv: no rows" in lines
    assert not any("Traceback" in line for line in lines)
    (project / "trouble" / "mp16").unlink()
    assert run(project)[0] == 0


def test_a_broken_pipeline_is_one_message(project):
    (project / "dvc.yaml").write_text("stages: [\n")
    code, lines = run(project)
    assert code == 2
    assert lines[0].startswith("geoloc: error:")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_told_to_end_leaves_nothing_behind(project, number):
    script = (project / "code" / "work.sh").read_text()
    (project / "code" / "work.sh").write_text(f"touch started\nsleep 300\n{script}")
    code = (
        "import sys; from types import SimpleNamespace; from pathlib import Path;"
        "from geoloc_core.cli import _orchestrate;"
        "sys.exit(_orchestrate('run', SimpleNamespace(root=Path(sys.argv[1])), []))"
    )
    environment = {**os.environ, "GEOLOC_ROOT": str(project), "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen([sys.executable, "-c", code, str(project)], cwd=project, env=environment, text=True,
                               stderr=subprocess.PIPE, start_new_session=True)  # fmt: skip
    deadline = time.monotonic() + 120
    while not (project / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    os.killpg(process.pid, number)  # as a terminal and `timeout` do
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert said.splitlines()[-1] == "geoloc: stopped; run the same command again to go on"
    assert "stopped, " in said.splitlines()[-2]
    assert "Dagster" not in said
    left = [p for p in psutil.process_iter() if _of(p, project) and p.status() != psutil.STATUS_ZOMBIE]
    assert not [p for p in left if p.name() == "sleep"]
    (project / "code" / "work.sh").write_text(script)
    assert run(project)[0] == 0


def _of(process, project):
    try:
        return process.environ().get("GEOLOC_ROOT") == str(project)
    except psutil.Error:
        return False


def test_a_killed_run_is_taken_up_by_the_next(project, monkeypatch):
    script = (project / "code" / "work.sh").read_text()
    (project / "code" / "work.sh").write_text(f"touch started\nsleep 300\n{script}")
    process = start(project, start_new_session=True)
    deadline = time.monotonic() + 120
    while not (project / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    (project / "code" / "work.sh").write_text(script)
    code, lines = run(project)
    assert code == 0, lines
    monkeypatch.setenv("GEOLOC_STEP_LOGS", str(project / ".state" / "logs"))
    monkeypatch.setenv("DAGSTER_HOME", str(project / ".state" / "dagster"))
    assert runs(project) == ["SUCCESS", "FAILURE"]
