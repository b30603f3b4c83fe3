"""What runs by itself, once it is switched on in the UI."""

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
"""Tag of a run that the sensor asked for: which parameters and which graph it was for."""
MOST_COUNTED = 10
"""Failures in a row that make the wait longer: with ten it is 17 hours."""

everything = dg.define_asset_job(
    EVERYTHING,
    dg.AssetSelection.all(),
    description="Bring the whole graph up to date, from raw files to champion; DVC skips stages that are up to date",
)


def retrain() -> dg.ScheduleDefinition:
    """Once a week, everything that comes after the raw files."""
    after_fetch = dg.AssetSelection.groups(FETCH).downstream(include_self=False)
    job = dg.define_asset_job("retrain", after_fetch, description="Everything that comes after the raw files")
    return dg.ScheduleDefinition(name="weekly_retrain", job=job, cron_schedule=EVERY_MONDAY_AT_THREE)


def on_change(root: Path) -> dg.SensorDefinition:
    """When parameters or the lock change, everything that is out of date.

    What it has seen to be up to date is its cursor, with the newest run: any run may have changed, or left unfinished,
    what it saw. A request has no key, since a key is spent for ever, after a failure too.
    """

    @dg.sensor(
        name="changed_project",
        target=dg.AssetSelection.all(),
        minimum_interval_seconds=60,
        description="Brings everything up to date that a change of params.yaml or dvc.lock makes out of date",
    )
    def changed_project(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        instance = context.instance
        close_dead_runs(instance)
        at_work = holder(root) or unfinished_run(instance)
        if at_work:
            return dg.SkipReason(f"{at_work} is at work on this project")
        newest = instance.get_runs(limit=1)
        recipe = digest([_text(root / name) for name in ("dvc.yaml", "params.yaml")])
        state = digest([recipe, _text(root / "dvc.lock"), [run.run_id for run in newest]])
        if state == context.cursor:
            return dg.SkipReason("dvc.yaml, params.yaml and dvc.lock are as they were")
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
    """Why not to ask again yet: somebody cancelled the last run, or runs of the same recipe failed.

    Each failure doubles the wait; a cancelled run says nothing about the recipe, so the count goes on after it.
    """
    if _was_cancelled(instance, recipe):
        return "the last run was cancelled; asks again when dvc.yaml or params.yaml change"
    ended = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]
    records = instance.get_run_records(dg.RunsFilter(tags={RECIPE: recipe}, statuses=ended), limit=MOST_COUNTED)
    failed = list(takewhile(lambda record: record.dagster_run.status == dg.DagsterRunStatus.FAILURE, records))
    if len(failed) < 2:
        return None
    again = (failed[0].end_time or 0) + 60 * 2 ** len(failed)
    if time.time() > again:
        return None
    at = datetime.fromtimestamp(again).astimezone().isoformat(" ", "minutes")
    return f"the last {len(failed)} runs failed; asks again after {at}, or when dvc.yaml or params.yaml change"


def _was_cancelled(instance: dg.DagsterInstance, recipe: str) -> bool:
    """Whether the newest of all runs that the sensor asked for was of this recipe, and was cancelled."""
    recipes = dict(instance.get_run_tags(tag_keys=[RECIPE])).get(RECIPE, set())
    newest = instance.get_runs(dg.RunsFilter(tags={RECIPE: sorted(recipes)}), limit=1)
    return any(run.status == dg.DagsterRunStatus.CANCELED and run.tags[RECIPE] == recipe for run in newest)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""
