import os

import dagster as dg
import pytest

from orchestration.turn import turn
from tests.orchestration.small_project import definitions, materialize, replace


def test_nothing_runs_by_itself_until_it_is_switched_on(project):
    repository = definitions(project).get_repository_def()
    assert [s.default_status for s in repository.schedule_defs] == [dg.DefaultScheduleStatus.STOPPED]
    assert [s.default_status for s in repository.sensor_defs] == [dg.DefaultSensorStatus.STOPPED]


def test_retraining_leaves_the_raw_files_alone(project):
    job = definitions(project).resolve_job_def("retrain")
    groups = {key.path[0] for key in job.asset_layer.selected_asset_keys}
    assert groups == {"ingest", "encode", "train_head"}


@pytest.fixture
def look(project, instance):
    """Let the sensor look once: what it asks for, or why it does not; its cursor is kept as the daemon does."""
    cursor = None

    def tick():
        nonlocal cursor
        found = definitions(project)
        sensor = found.get_repository_def().get_sensor_def("changed_project")
        told = sensor(dg.build_sensor_context(instance=instance, cursor=cursor, definitions=found))
        if isinstance(told, dg.SkipReason):
            return told.skip_message
        cursor = told.cursor or cursor
        assert not any(request.run_key for request in told.run_requests), "a key is spent for ever"
        return {"/".join(key.path) for request in told.run_requests for key in request.asset_selection}

    return tick


def asked(project, instance, keys):
    """Run what the sensor asked for, as the daemon does: with its tags."""
    job = definitions(project).resolve_job_def("everything")
    return job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey(key.split("/")) for key in keys],
                                  tags=request_tags(project, instance), raise_on_error=False).success  # fmt: skip


def request_tags(project, instance):
    found = definitions(project)
    sensor = found.get_repository_def().get_sensor_def("changed_project")
    return sensor(dg.build_sensor_context(instance=instance, definitions=found)).run_requests[0].tags


def cancelled(project, instance):
    """Begin what the sensor asked for, and cancel it."""
    job, tags = definitions(project).resolve_job_def("everything"), request_tags(project, instance)
    run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED, tags=tags)
    instance.report_run_canceled(run)


AS_THEY_WERE = "dvc.yaml, params.yaml and dvc.lock have not changed"
CHANGED = {"fetch/mp16"}


@pytest.fixture
def one_stage(project):
    """Quick to run, however often."""
    text = (project / "dvc.yaml").read_text()
    (project / "dvc.yaml").write_text(text[: text.index("  ingest:")])
    return project


@pytest.mark.slow
def test_the_sensor_asks_for_what_a_change_puts_out_of_date_there_and_back(one_stage, instance, look):
    assert materialize(one_stage, instance).success
    assert look() == set()
    assert look() == AS_THEY_WERE
    for old, new in (("n: 5", "n: 6"), ("n: 6", "n: 5"), ("n: 5", "n: 6")):
        replace(one_stage / "params.yaml", old, new)
        assert look() == CHANGED
        assert look() == CHANGED, "as long as no run was made of it"
        assert asked(one_stage, instance, CHANGED)
        assert look() == set(), "its own run changed the lock"
        assert look() == AS_THEY_WERE


@pytest.mark.slow
def test_after_a_failure_the_sensor_asks_again_and_then_ever_more_rarely(one_stage, instance, look):
    assert materialize(one_stage, instance).success
    replace(one_stage / "params.yaml", "n: 5", "n: 6")
    (one_stage / "trouble").mkdir()
    (one_stage / "trouble" / "mp16").touch()
    for _ in range(2):
        assert look() == CHANGED
        assert not asked(one_stage, instance, CHANGED)
    assert look().startswith("the last 2 runs failed; waits until ")
    replace(one_stage / "params.yaml", "n: 6", "n: 7")
    assert look() == CHANGED, "a change may be the remedy"
    assert not asked(one_stage, instance, CHANGED)
    (one_stage / "trouble" / "mp16").unlink()
    assert look() == CHANGED
    assert asked(one_stage, instance, CHANGED)
    assert look() == set()


@pytest.mark.slow
def test_a_cancelled_run_is_not_asked_for_again_until_something_changes(one_stage, instance, look):
    assert materialize(one_stage, instance).success
    replace(one_stage / "params.yaml", "n: 5", "n: 6")
    assert look() == CHANGED
    cancelled(one_stage, instance)
    for _ in range(2):
        assert look() == "the last run was cancelled; waits for a change to dvc.yaml or params.yaml"
    replace(one_stage / "params.yaml", "n: 6", "n: 7")
    assert look() == CHANGED
    assert asked(one_stage, instance, CHANGED)
    replace(one_stage / "params.yaml", "n: 7", "n: 6")
    assert look() == CHANGED, "there and back is a change too"


@pytest.mark.slow
def test_a_cancelled_run_does_not_shorten_the_wait_after_failures(one_stage, instance, look):
    assert materialize(one_stage, instance).success
    replace(one_stage / "params.yaml", "n: 5", "n: 6")
    (one_stage / "trouble").mkdir()
    (one_stage / "trouble" / "mp16").touch()
    assert not asked(one_stage, instance, CHANGED)
    tags = request_tags(one_stage, instance)
    cancelled(one_stage, instance)
    job = definitions(one_stage).resolve_job_def("everything")
    assert not job.execute_in_process(instance=instance, tags=tags, raise_on_error=False).success  # again, by hand
    assert look().startswith("the last 2 runs failed; ")


@pytest.mark.slow
def test_the_sensor_asks_for_nothing_while_a_run_is_at_work(one_stage, instance, look):
    with turn(one_stage, "geoloc demo"):
        assert look() == f"geoloc demo (process {os.getpid()}) is running on this project"
    job = definitions(one_stage).resolve_job_def("everything")
    run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    assert look() == f"Dagster run {run.run_id[:8]} is running on this project"
    instance.report_run_canceled(run)
    assert look() == {"fetch/mp16", "fetch/im2gps"}
