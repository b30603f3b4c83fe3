"""Dagster's daemon itself, on a host that dies."""

import json
import os
import signal
import subprocess
import sys
import time

import dagster as dg
import psutil
import pytest

from orchestration.environment import ROOT, enter, own_home, tools
from orchestration.ui import _safe_path
from tests.orchestration.small_project import PIPELINE, REPOSITORY, definitions, replace
from tests.orchestration.test_operations import KEEP

pytestmark = pytest.mark.slow


@pytest.fixture
def team(project, monkeypatch):
    """A small project whose second stage is slow to begin with, and whose stages keep a list of what was done."""
    (project / "dvc.yaml").write_text(PIPELINE[: PIPELINE.index("  ingest:")])
    hook = json.dumps([sys.executable, "-c", KEEP])
    replace(project / "params.yaml", "seed: 1", f"seed: 1\n  operations: {{hook: {hook}}}")
    slow = "[ $name != im2gps ] || [ -e over ] || { touch started; sleep 300; }\n"
    replace(project / "code" / "work.sh", 'mkdir -p "$(d', f'{slow}echo $name >> done.txt\nmkdir -p "$(d')
    known = {ROOT: project, "DAGSTER_HOME": own_home(project), "GEOLOC_STEP_LOGS": project, "PYTHONPATH": REPOSITORY}
    for name, value in (known | tools()).items():
        monkeypatch.setenv(name, str(value))  # so that they are put back later
    for name, value in _safe_path().items():
        monkeypatch.setenv(name, value)
    enter(project)
    return project


def daemon(root):
    """Start Dagster's daemon; it ends with this process."""
    workspace = str(REPOSITORY / "orchestration" / "workspace.yaml")
    command = [sys.executable, "-P", "-m", "geoloc_core.lifeline", str(os.getpid()),
               "dagster._daemon", "run", "-w", workspace]  # fmt: skip
    with (root / "daemon.log").open("ab") as log:
        return subprocess.Popen(command, cwd=root, stdout=log, stderr=log, start_new_session=True)


def wait(root, process, what):
    deadline = time.monotonic() + 600
    while not what():
        assert process.poll() is None, (root / "daemon.log").read_text()[-3000:]
        assert time.monotonic() < deadline, (root / "daemon.log").read_text()[-3000:]
        time.sleep(0.5)


def kill(root, process):
    """Kill the daemon and all that works on the project, as a host that dies does."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for other in psutil.process_iter():
        try:
            if other.environ().get(ROOT) == str(root) and other.pid != os.getpid():
                other.kill()
        except psutil.Error:
            continue


def test_the_daemon_is_killed_and_started_again_and_nothing_is_lost_or_runs_twice(team):
    with dg.DagsterInstance.from_config(os.environ["DAGSTER_HOME"]) as instance:

        def statuses():
            return [run.status.value for run in instance.get_runs()]

        def recorded():
            lock = team / "dvc.lock"
            return lock.read_text() if lock.exists() else ""

        workspace = str(REPOSITORY / "orchestration" / "workspace.yaml")
        command = [sys.executable, "-P", "-m", "dagster", "sensor", "start", "changed_project", "-w", workspace]
        subprocess.run(command, cwd=team, check=True)
        first = daemon(team)
        try:
            wait(team, first, lambda: (team / "started").exists() and "fetch@mp16" in recorded())
        finally:
            kill(team, first)
        assert statuses() == ["STARTED"]
        (team / "over").touch()
        second = daemon(team)
        try:
            wait(team, second, lambda: "SUCCESS" in statuses())
        finally:
            kill(team, second)
        assert statuses() == ["SUCCESS", "FAILURE"]
        assert (team / "done.txt").read_text().split() == ["mp16", "im2gps"]
        assert not (team / "told.jsonl").exists(), "the run was started again, which is no failure"
        found = definitions(team)
        sensor = found.get_repository_def().get_sensor_def("changed_project")
        tick = sensor(dg.build_sensor_context(instance=instance, definitions=found))
        assert tick.skip_reason.skip_message.startswith("up to date, nothing to do")
