import subprocess
import sys

import dagster as dg
from dagster._core.events import DagsterEvent, DagsterEventType, EngineEventData
from dagster._core.storage.dagster_run import DagsterRunStatus

from orchestration.instance import HOST, close_dead_runs, unfinished_run


@dg.op(pool="gpu")
def step(): ...


@dg.job
def job():
    step()


def started_run(instance, pid, **tags):
    run = instance.create_run_for_job(job, tags=tags)
    event = DagsterEvent(DagsterEventType.RUN_START.value, "job")
    instance.report_dagster_event(event, run.run_id)
    instance.report_engine_event("at work", run, EngineEventData.multiprocess(pid))
    instance.event_log_storage.set_concurrency_slots("gpu", 1)
    instance.event_log_storage.claim_concurrency_slot("gpu", run.run_id, "step")
    return run


def slots(instance):
    return instance.event_log_storage.get_concurrency_info("gpu").active_slot_count


def test_a_run_whose_process_is_gone_is_closed_and_gives_its_place_back(instance):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    run = started_run(instance, gone.pid)
    assert slots(instance) == 1
    close_dead_runs(instance)
    assert instance.get_run_by_id(run.run_id).status == DagsterRunStatus.FAILURE
    assert (slots(instance), unfinished_run(instance)) == (0, None)


def test_a_run_of_another_machine_is_left_to_that(instance, tmp_path, monkeypatch):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    elsewhere = started_run(instance, gone.pid, **{HOST: "another"})
    unknown = started_run(instance, gone.pid)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))  # an instance that other machines use
    close_dead_runs(instance)
    statuses = [instance.get_run_by_id(run.run_id).status for run in (elsewhere, unknown)]
    assert statuses == [DagsterRunStatus.STARTED] * 2
    monkeypatch.setenv("GEOLOC_HOST", "another")
    close_dead_runs(instance)
    assert instance.get_run_by_id(elsewhere.run_id).status == DagsterRunStatus.FAILURE


def test_a_run_at_work_is_left_alone(instance):
    alive = subprocess.Popen(["sleep", "60"])
    try:
        run = started_run(instance, alive.pid)
        close_dead_runs(instance)
        assert (slots(instance), unfinished_run(instance)) == (1, f"Dagster run {run.run_id[:8]}")
    finally:
        alive.kill()
        alive.wait()
