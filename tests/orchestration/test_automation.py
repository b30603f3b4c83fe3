import os

import dagster as dg
import pytest

from orchestration import automation, watched
from orchestration.dvc import read_stages
from orchestration.turn import turn
from tests.orchestration.small_project import definitions, replace


def test_nothing_runs_by_itself_until_it_is_switched_on(project):
    repository = definitions(project).get_repository_def()
    assert [s.default_status for s in repository.schedule_defs] == [dg.DefaultScheduleStatus.STOPPED]
    assert [s.default_status for s in repository.sensor_defs] == [dg.DefaultSensorStatus.STOPPED] * 2


def test_retraining_begins_with_fetching(project):
    job = definitions(project).resolve_job_def("everything")
    (schedule,) = definitions(project).get_repository_def().schedule_defs
    assert schedule.job_name == "everything"
    groups = {key.path[0] for key in job.asset_layer.selected_asset_keys}
    assert groups == {"fetch", "ingest", "encode", "train_head"}


@pytest.mark.parametrize(("minutes", "seconds"), [("1", 60), ("0.5", 30), ("1e-6", 1)])
def test_the_sensor_looks_as_often_as_the_parameters_say(project, minutes, seconds):
    replace(project / "params.yaml", "seed: 1", f"seed: 1\n  operations: {{look_minutes: {minutes}}}")
    sensor = definitions(project).get_repository_def().get_sensor_def("changed_project")
    assert sensor.minimum_interval_seconds == seconds


@pytest.fixture
def tick(project, instance, monkeypatch):
    """Let the sensor look once: what it tells; its cursor is kept as the daemon does.

    It does not rest in between, which it would for long where a look is held up.
    """
    monkeypatch.setattr(automation, "REST", 0)
    cursor = None

    def tick():
        nonlocal cursor
        found = definitions(project)
        sensor = found.get_repository_def().get_sensor_def("changed_project")
        told = sensor(dg.build_sensor_context(instance=instance, cursor=cursor, definitions=found))
        cursor = getattr(told, "cursor", None) or cursor
        return told

    return tick


@pytest.fixture
def look(tick):
    """Let the sensor look once: the changes for which it asks for a run, or why it does not."""

    def look():
        told = tick()
        if isinstance(told, dg.SkipReason):
            return told.skip_message
        if told.skip_reason:
            return told.skip_reason.skip_message
        (request,) = told.run_requests
        assert not request.run_key, "a key is spent for ever"
        return {request.tags["geoloc/because"]}

    return look


def request_tags(project, instance):
    found = definitions(project)
    sensor = found.get_repository_def().get_sensor_def("changed_project")
    return sensor(dg.build_sensor_context(instance=instance, definitions=found)).run_requests[0].tags


def asked(project, instance, tags=None):
    """Run what the sensor asked for, with its tags, and note the end as the executor does."""
    tags = tags or request_tags(project, instance)
    seen = watched.look(project, watched.sources(read_stages(project)))
    watched.forget_settled(project)
    job = definitions(project).resolve_job_def("everything")
    done = job.execute_in_process(instance=instance, tags=tags, raise_on_error=False).success
    if done:
        watched.note_settled(project, seen)
    return done


def settle(project, instance):
    assert asked(project, instance)


def cancelled(project, instance):
    """Begin what the sensor asked for, and cancel it."""
    job, tags = definitions(project).resolve_job_def("everything"), request_tags(project, instance)
    run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED, tags=tags)
    instance.report_run_canceled(run)


AS_THEY_WERE = "up to date, nothing to do: params.yaml, dvc.yaml, dvc.lock, the code and 2 files of input"
CHANGED = {"params.yaml has changed"}
NEVER = {"no run has brought everything up to date yet, or the last one failed"}


@pytest.fixture
def one_stage(project):
    """Quick to run, however often."""
    text = (project / "dvc.yaml").read_text()
    (project / "dvc.yaml").write_text(text[: text.index("  ingest:")])
    return project


@pytest.mark.slow
def test_the_sensor_asks_for_what_a_change_puts_out_of_date_there_and_back(one_stage, instance, look):
    assert look() == NEVER
    settle(one_stage, instance)
    assert look() == AS_THEY_WERE
    for old, new in (("n: 5", "n: 6"), ("n: 6", "n: 5"), ("n: 5", "n: 6")):
        replace(one_stage / "params.yaml", old, new)
        assert look() == CHANGED
        assert look() == CHANGED, "as long as no run was made of it"
        assert asked(one_stage, instance)
        assert look() == AS_THEY_WERE, "its own run changed the lock"
    replace(one_stage / "params.yaml", "n: 6", "n: 7")
    replace(one_stage / "params.yaml", "n: 7", "n: 6")
    assert look() == AS_THEY_WERE
    with (one_stage / "dvc.lock").open("a") as lock:
        lock.write("\n")
    assert look() == {"dvc.lock has changed"}


@pytest.mark.slow
def test_new_photos_and_a_changed_list_ask_for_a_run_once_they_are_at_rest(one_stage, instance, look):
    photos = one_stage / "outside" / "mp16.csv"
    photos.unlink()
    (photos / "deep").mkdir(parents=True)
    (photos / "deep" / "a.jpg").touch()
    replace(one_stage / "code" / "work.sh", 'cat "$@" /dev/null;', ":;")
    settle(one_stage, instance)
    assert look() == AS_THEY_WERE
    (photos / "deep" / "b.jpg").touch()
    more = "outside/mp16.csv: 1 file more, 2 in all"
    assert look() == f"{more}; waits until outside/mp16.csv is at rest from one look to the next"
    assert look() == {more}
    assert asked(one_stage, instance)
    assert look().startswith("up to date, nothing to do")
    (one_stage / "outside" / "im2gps.csv").write_text("https://example.org/1.jpg")
    assert "outside/im2gps.csv is at rest" in look()
    assert look() == {"outside/im2gps.csv: changed files among 1"}


@pytest.mark.slow
def test_a_long_look_is_not_repeated_at_once(one_stage, instance, look, monkeypatch):
    settle(one_stage, instance)
    times = []
    one = watched.listing
    monkeypatch.setattr(watched, "listing", lambda path: times.append(path) or one(path))
    monkeypatch.setattr(automation, "REST", 1e9)
    assert look() == AS_THEY_WERE
    assert len(times) == 2
    (one_stage / "outside" / "im2gps.csv").write_text("more")
    assert look() == AS_THEY_WERE, "it rests, and knows what it saw before"
    assert len(times) == 2


@pytest.mark.slow
def test_after_a_failure_the_sensor_asks_again_and_then_ever_more_rarely(one_stage, instance, look):
    settle(one_stage, instance)
    replace(one_stage / "params.yaml", "n: 5", "n: 6")
    (one_stage / "trouble").mkdir()
    (one_stage / "trouble" / "mp16").touch()
    for before in (CHANGED, NEVER):
        assert look() == before
        assert not asked(one_stage, instance)
    assert "; the last 2 runs failed: waits until " in look()
    replace(one_stage / "params.yaml", "n: 6", "n: 7")
    assert look() == NEVER, "a change may be the remedy"
    assert not asked(one_stage, instance)
    replace(one_stage / "params.yaml", "n: 7", "n: 5")
    assert look() == NEVER, "DVC has deleted what the failed stage was to write"
    (one_stage / "trouble" / "mp16").unlink()
    assert asked(one_stage, instance)
    assert look() == AS_THEY_WERE


@pytest.mark.slow
def test_a_cancelled_run_is_not_asked_for_again_until_something_changes(one_stage, instance, look):
    settle(one_stage, instance)
    replace(one_stage / "params.yaml", "n: 5", "n: 6")
    assert look() == CHANGED
    cancelled(one_stage, instance)
    for _ in range(2):
        assert look() == "params.yaml has changed; the last run was cancelled: waits for another change"
    replace(one_stage / "params.yaml", "n: 6", "n: 7")
    assert look() == CHANGED
    assert asked(one_stage, instance)
    replace(one_stage / "params.yaml", "n: 7", "n: 6")
    assert look() == CHANGED, "there and back is a change too"


@pytest.mark.slow
def test_a_cancelled_run_does_not_shorten_the_wait_after_failures(one_stage, instance, look):
    settle(one_stage, instance)
    replace(one_stage / "params.yaml", "n: 5", "n: 6")
    (one_stage / "trouble").mkdir()
    (one_stage / "trouble" / "mp16").touch()
    tags = request_tags(one_stage, instance)
    assert not asked(one_stage, instance)
    cancelled(one_stage, instance)
    assert not asked(one_stage, instance, tags)  # again, by hand
    assert "; the last 2 runs failed: " in look()


@pytest.mark.slow
def test_the_sensor_asks_for_nothing_while_a_run_is_at_work(one_stage, instance, look):
    with turn(one_stage, "geoloc demo"):
        assert look() == f"geoloc demo (process {os.getpid()}) is running on this project"
    job = definitions(one_stage).resolve_job_def("everything")
    run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    assert look() == f"Dagster run {run.run_id[:8]} is running on this project"
    instance.report_run_canceled(run)
    assert look() == NEVER
    killed = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    instance.add_run_tags(killed.run_id, {"dagster/will_retry": "true"})  # as the daemon's settings have it
    instance.report_run_failed(killed)
    assert look() == f"Dagster run {killed.run_id[:8]} was killed; waits until it is started again"
    instance.add_run_tags(killed.run_id, {"dagster/auto_retry_run_id": run.run_id})
    assert look() == NEVER


@pytest.mark.slow
def test_the_hours_of_a_week_are_not_exceeded(one_stage, instance, look):
    replace(one_stage / "params.yaml", "seed: 1", "seed: 1\n  operations: {hours_per_week: 0.000001}")
    by_hand = definitions(one_stage).resolve_job_def("everything")
    assert by_hand.execute_in_process(instance=instance, tags={"geoloc/started_by": "geoloc demo"}).success
    assert look() == NEVER, "what a person starts does not count"
    tags = request_tags(one_stage, instance)
    assert tags["geoloc/started_by"] == "changed_project"
    assert by_hand.execute_in_process(
        instance=instance, tags={**tags, "geoloc/project": f"{one_stage.name}/another"}
    ).success
    assert look() == NEVER, "nor what another project does in the same database"
    settle(one_stage, instance)
    replace(one_stage / "params.yaml", "n: 5", "n: 6")
    allowed = "hours in the last seven days; operations.hours_per_week allows 1e-06"
    assert look().endswith(allowed)
    (schedule,) = definitions(one_stage).get_repository_def().schedule_defs
    assert schedule(dg.build_schedule_context(instance)).skip_message.endswith(allowed)
    replace(one_stage / "params.yaml", "0.000001", "100")
    assert look() == CHANGED
    assert isinstance(schedule(dg.build_schedule_context(instance)), dg.RunRequest)
