"""Dagster's daemon itself, on a host that dies."""

import json
import os
import sys

import dagster as dg
import pytest

from tests.orchestration.host import daemon, dagster, kill, move_in, wait
from tests.orchestration.small_project import PIPELINE, definitions, replace
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
    move_in(project, monkeypatch)
    return project


def test_the_daemon_is_killed_and_started_again_and_nothing_is_lost_or_runs_twice(team):
    with dg.DagsterInstance.from_config(os.environ["DAGSTER_HOME"]) as instance:

        def statuses():
            return [run.status.value for run in instance.get_runs()]

        def recorded():
            lock = team / "dvc.lock"
            return lock.read_text() if lock.exists() else ""

        dagster(team, "sensor", "start", "changed_project")
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
