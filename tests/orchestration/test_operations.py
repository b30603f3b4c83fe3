"""The hook, told by real runs; what the parameters ask of freshness."""

import json
import sys
from datetime import timedelta
from pathlib import Path

import dagster as dg
import psutil
import pytest

from geoloc_core import hook
from geoloc_core.hook import call
from orchestration.operations import project_name
from orchestration.watched import settled
from tests.orchestration.small_project import definitions, replace
from tests.orchestration.test_settling import run_all

KEEP = "import sys; open('told.jsonl', 'a').write(sys.stdin.read())"


def test_the_hook_reads_json_and_what_goes_wrong_with_it_is_one_line(tmp_path):
    told = {"cause": "naïve ✗\nsecond", "stage": None}
    assert call([sys.executable, "-c", KEEP], told, tmp_path) is None
    (line,) = (tmp_path / "told.jsonl").read_text().splitlines()
    assert json.loads(line) == told
    failing = [sys.executable, "-c", "import sys; print('no'); sys.exit('cannot reach it\\nat all')"]
    assert call(failing, told, tmp_path) == f"operations.hook: {sys.executable}: exit code 1: at all"
    assert call(["/no/such/program"], told, tmp_path) == "operations.hook: /no/such/program: No such file or directory"
    assert call(["true"], {"long": "x" * 10**6}, tmp_path) is None, "it need not read"


@pytest.mark.slow
def test_a_hook_that_hangs_is_ended_with_all_that_it_started(tmp_path, monkeypatch):
    monkeypatch.setattr(hook, "PATIENCE_S", 1)
    said = call(["sh", "-c", "sleep 1000 & echo $! > pid; wait"], {}, tmp_path)
    assert said == "operations.hook: sh: did not end within 1 s"
    pid = int((tmp_path / "pid").read_text())
    psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=60)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.slow
def test_what_a_hook_leaves_at_work_is_not_waited_for(tmp_path):
    assert call(["sh", "-c", "sleep 1000 & echo $! > pid"], {}, tmp_path) is None
    psutil.Process(int((tmp_path / "pid").read_text())).kill()


def test_projects_in_folders_of_one_name_are_told_apart_by_their_models(tmp_path):
    folders = [tmp_path / host / "app" for host in ("a", "b", "c")]
    for folder, params in zip(folders, ("registry: {model: uk}", "registry: {model: world}", "seed: 1"), strict=True):
        folder.mkdir(parents=True)
        (folder / "params.yaml").write_text(f"run: {{{params}}}\n")
    assert [project_name(folder) for folder in folders] == ["app/uk", "app/world", "app"]


@pytest.fixture
def hooked(project, monkeypatch):
    """Two quick stages, and a hook that keeps what it is told."""
    text = (project / "dvc.yaml").read_text()
    (project / "dvc.yaml").write_text(text[: text.index("  ingest:")])
    hook = json.dumps([sys.executable, "-c", KEEP])
    replace(project / "params.yaml", "seed: 1", f"seed: 1\n  operations: {{hook: {hook}}}")
    for name, folder in (("GEOLOC_ROOT", project), ("DAGSTER_HOME", project.parent / "dagster")):
        monkeypatch.setenv(name, str(folder))  # for the processes of steps
    return project


def told(root: Path):
    return [json.loads(line) for line in (root / "told.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_a_failure_and_the_recovery_are_told_once_each_with_stage_cause_and_link(hooked, instance):
    (hooked / "trouble").mkdir()
    (hooked / "trouble" / "mp16").write_text("geoloc: error: outside/mp16.csv: no rows\n  expected some\n")
    failed = run_all(hooked, instance)
    assert not failed.success
    assert settled(hooked) is None
    (first,) = told(hooked)
    assert first == {
        "event": "failure",
        "project": hooked.name,
        "stage": "fetch__mp16",
        "cause": "fetch@mp16: outside/mp16.csv: no rows",
        "link": f"http://localhost:3000/runs/{failed.run_id}",
        "text": f"{hooked.name}: failure: fetch__mp16: fetch@mp16: outside/mp16.csv: no rows {first['link']}",
    }
    assert instance.get_run_by_id(failed.run_id).tags["geoloc/told"] == "failure"
    (hooked / "trouble" / "mp16").unlink()
    for _ in range(2):
        assert run_all(hooked, instance).success
        assert settled(hooked)
        assert [item["event"] for item in told(hooked)] == ["failure", "recovery"]


@pytest.mark.slow
def test_a_failure_that_is_known_is_told_again_only_after_a_recovery(hooked, instance):
    (hooked / "trouble").mkdir()
    trouble = hooked / "trouble" / "mp16"

    def run(said):
        trouble.write_text(f"geoloc: error: {said}\n")
        done = run_all(hooked, instance)
        assert not done.success
        assert instance.get_run_by_id(done.run_id).tags["geoloc/told"] == "failure", "or `killed_runs` would tell of it"
        return [item["cause"] for item in told(hooked)]

    assert run("no rows") == run("no rows") == ["fetch@mp16: no rows"]
    two = ["fetch@mp16: no rows", "fetch@mp16: no disk"]
    assert run("no disk") == run("no rows") == two
    trouble.unlink()
    assert run_all(hooked, instance).success
    replace(hooked / "params.yaml", "n: 5", "n: 6")
    mended = [*two, "this run succeeded after one that failed"]
    assert run("no rows") == [*mended, "fetch@mp16: no rows"]


@pytest.mark.slow
def test_a_run_of_something_else_is_no_recovery(hooked, instance):
    (hooked / "trouble").mkdir()
    (hooked / "trouble" / "mp16").write_text("geoloc: error: no rows\n")
    assert not run_all(hooked, instance).success
    with dg.execute_job(
        dg.build_reconstructable_job("tests.orchestration.test_settling", "whole", (str(hooked),)),
        instance,
        asset_selection=[dg.AssetKey(["fetch", "im2gps"])],
    ) as done:
        assert done.success
    assert [item["event"] for item in told(hooked)] == ["failure"]


@pytest.mark.slow
def test_a_failing_hook_does_not_fail_the_run_and_is_noted_in_its_log(hooked, instance):
    params = (hooked / "params.yaml").read_text().splitlines()
    lines = ["  operations: {hook: [/no/such/program]}" if "operations" in line else line for line in params]
    (hooked / "params.yaml").write_text("\n".join(lines))
    (hooked / "trouble").mkdir()
    (hooked / "trouble" / "mp16").write_text("geoloc: error: no rows\n")
    assert not run_all(hooked, instance).success
    (hooked / "trouble" / "mp16").unlink()
    done = run_all(hooked, instance)
    assert done.success
    noted = [entry.user_message or entry.message for entry in instance.all_logs(done.run_id)]
    assert any("operations.hook: /no/such/program: No such file or directory" in line for line in noted)


def test_corpora_and_champion_are_fresh_for_as_long_as_the_parameters_say(project):
    def windows():
        graph = definitions(project).resolve_asset_graph()
        policies = {"/".join(key.path): graph.get(key).freshness_policy for key in graph.materializable_asset_keys}
        return {name: policy.fail_window.to_timedelta() for name, policy in policies.items() if policy}

    replace(project / "dvc.yaml", "group: 5_train", "group: 7_leaderboard")
    assert windows() == {}
    replace(project / "params.yaml", "seed: 1", "seed: 1\n  operations: {champion_days: 7, corpora_days: 2}")
    assert windows() == {
        "fetch/mp16": timedelta(days=2), "fetch/im2gps": timedelta(days=2), "promote": timedelta(days=7)
    }  # fmt: skip


def test_what_tells_of_killed_runs_is_on_where_there_is_a_hook(project):
    def status():
        sensors = definitions(project).get_repository_def().sensor_defs
        return next(sensor.default_status for sensor in sensors if sensor.name == "killed_runs")

    assert status() == dg.DefaultSensorStatus.STOPPED
    replace(project / "params.yaml", "seed: 1", "seed: 1\n  operations: {hook: [sh, -c, cat]}")
    assert status() == dg.DefaultSensorStatus.RUNNING
