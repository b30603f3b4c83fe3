"""The jobs, and the schedule and the sensor that start them; both are off until somebody turns them on in the UI."""

import time
from datetime import datetime
from itertools import takewhile
from pathlib import Path

import dagster as dg

from orchestration.code import refresh_code
from orchestration.dvc import digest, read_stages
from orchestration.instance import close_dead_runs, unfinished_run
from orchestration.outdated import outdated
from orchestration.turn import holder

EVERYTHING = "everything"
FETCH = "1_fetch"
EVERY_MONDAY_AT_THREE = "0 3 * * 1"
RECIPE = "geoloc/recipe"
"""Tag of the runs that the sensor requests: a digest of params.yaml and dvc.yaml at that time."""
MOST_COUNTED = 10
"""The wait doubles with each failure in a row, up to this many: 17 hours after ten."""

everything = dg.define_asset_job(
    EVERYTHING,
    dg.AssetSelection.all(),
    description="Bring the whole graph up to date, from raw files to champion; DVC skips stages that are up to date",
)


def retrain() -> dg.ScheduleDefinition:
    """The weekly schedule: all stages downstream of the raw files."""
    after_fetch = dg.AssetSelection.groups(FETCH).downstream(include_self=False)
    job = dg.define_asset_job("retrain", after_fetch, description="All stages downstream of the raw files")
    return dg.ScheduleDefinition(
        name="weekly_retrain",
        job=job,
        cron_schedule=EVERY_MONDAY_AT_THREE,
        description="Every Monday at 03:00 UTC: all stages downstream of the raw files",
    )


def on_change(root: Path) -> dg.SensorDefinition:
    """The sensor that requests a run of whatever a change makes out of date.

    Its cursor is a digest of the last state in which nothing was out of date. The newest run is part of that state:
    any run may have changed the project, or stopped halfway. Requests have no run key, because Dagster never runs the
    same key twice, even after a failure.
    """

    @dg.sensor(
        name="changed_project",
        target=dg.AssetSelection.all(),
        minimum_interval_seconds=60,
        description="After a change to params.yaml, dvc.yaml or dvc.lock: requests a run of all stages out of date",
    )
    def changed_project(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        instance = context.instance
        close_dead_runs(instance)
        at_work = holder(root) or unfinished_run(instance)
        if at_work:
            return dg.SkipReason(f"{at_work} is running on this project")
        newest = instance.get_runs(limit=1)
        recipe = digest([_text(root / name) for name in ("dvc.yaml", "params.yaml")])
        state = digest([recipe, _text(root / "dvc.lock"), [run.run_id for run in newest]])
        if state == context.cursor:
            return dg.SkipReason("dvc.yaml, params.yaml and dvc.lock have not changed")
        refresh_code(root)
        keys = sorted(outdated(root, instance, read_stages(root)))
        if not keys:
            return dg.SensorResult(run_requests=[], cursor=state)
        patience = _patience(instance, recipe)
        if patience:
            return dg.SkipReason(patience)
        return dg.SensorResult([dg.RunRequest(asset_selection=keys, tags={RECIPE: recipe})])

    return changed_project


def _patience(instance: dg.DagsterInstance, recipe: str) -> str | None:
    """Why not to request a run yet: the last one was cancelled, or runs of the same recipe failed.

    Each failure doubles the wait. A cancelled run says nothing about the recipe and does not reset the count.
    """
    if _was_cancelled(instance, recipe):
        return "the last run was cancelled; waits for a change to dvc.yaml or params.yaml"
    ended = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]
    records = instance.get_run_records(dg.RunsFilter(tags={RECIPE: recipe}, statuses=ended), limit=MOST_COUNTED)
    failed = list(takewhile(lambda record: record.dagster_run.status == dg.DagsterRunStatus.FAILURE, records))
    if len(failed) < 2:
        return None
    again = (failed[0].end_time or 0) + 60 * 2 ** len(failed)
    if time.time() > again:
        return None
    at = datetime.fromtimestamp(again).astimezone().isoformat(" ", "minutes")
    return f"the last {len(failed)} runs failed; waits until {at}, or for a change to dvc.yaml or params.yaml"


def _was_cancelled(instance: dg.DagsterInstance, recipe: str) -> bool:
    """Whether the newest run that the sensor requested had this recipe and was cancelled."""
    recipes = dict(instance.get_run_tags(tag_keys=[RECIPE])).get(RECIPE, set())
    newest = instance.get_runs(dg.RunsFilter(tags={RECIPE: sorted(recipes)}), limit=1)
    return any(run.status == dg.DagsterRunStatus.CANCELED and run.tags[RECIPE] == recipe for run in newest)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""
