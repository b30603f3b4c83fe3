"""The job, and the schedule and the sensor that start it; both are off until somebody turns them on in the UI."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from pathlib import Path

import dagster as dg

from orchestration import watched
from orchestration.dvc import Stage, digest
from orchestration.instance import awaits_retry, close_dead_runs, unfinished_run
from orchestration.operations import operations, project_name
from orchestration.turn import holder
from orchestration.watched import Listing, Seen

EVERYTHING = "everything"
EVERY_MONDAY_AT_THREE = "0 3 * * 1"
SCHEDULE, SENSOR = "weekly_retrain", "changed_project"
STARTED_BY, PROJECT = "geoloc/started_by", "geoloc/project"
"""Tags of the runs that the schedule or the sensor requests: which of the two, and for which project."""
RECIPE = "geoloc/recipe"
"""Tag of the runs that the sensor requests: a digest of what it saw at that time."""
BECAUSE = "geoloc/because"
"""Tag of the runs that the sensor requests: what has changed, for readers."""
MOST_COUNTED = 10
"""The wait doubles with each failure in a row, up to this many: 17 hours after ten."""
REST = 20
"""Files are looked at again after so many times as long as the last look took: a look never fills a twentieth of a
core."""
A_WEEK = timedelta(days=7)

everything = dg.define_asset_job(
    EVERYTHING,
    dg.AssetSelection.all(),
    description="Bring the whole graph up to date, from raw files to champion; what is up to date takes no work",
)


def retrain(root: Path) -> dg.ScheduleDefinition:
    """The weekly schedule: the whole graph, fetching included."""

    @dg.schedule(
        name=SCHEDULE,
        job=everything,
        cron_schedule=EVERY_MONDAY_AT_THREE,
        description="Every Monday at 03:00 UTC: the whole graph, from fetching to promotion",
    )
    def weekly_retrain(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        spent = _spent(root, context.instance)
        return dg.SkipReason(spent) if spent else dg.RunRequest(tags=_asked_by(root, SCHEDULE))

    return weekly_retrain


def on_change(root: Path, stages: Sequence[Stage]) -> dg.SensorDefinition:
    """The sensor that requests a run when anything has changed since everything was last up to date.

    It compares with what the last run that brought everything up to date saw when it began (:mod:`.watched`), whoever
    started that. So a change there and back asks for a run only if a run came between, and so does a failed run, whose
    note is gone. Requests have no run key, because Dagster never runs the same key twice, even after a failure.
    """

    @dg.sensor(
        name=SENSOR,
        target=dg.AssetSelection.all(),
        minimum_interval_seconds=max(1, round(60 * operations(root).look_minutes)),
        description="New or changed photos, lists, parameters, code or dvc.lock: requests a run of the whole graph",
    )
    def changed_project(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        instance = context.instance
        close_dead_runs(instance)
        at_work = holder(root) or unfinished_run(instance)
        if at_work:
            return dg.SkipReason(f"{at_work} is running on this project")
        killed = awaits_retry(instance)
        if killed:
            return dg.SkipReason(f"{killed} was killed; waits until it is started again")
        last = watched.settled(root)
        paths = sorted({*watched.sources(stages), *(last[0].data if last else ())})
        data, moving, cursor = _look(root, paths, context.cursor)
        seen = Seen(watched.recipe(root), data)
        changes = watched.news(root, stages, seen)
        if not changes:
            files = sum(known.files for known in data.values())
            said = f"up to date, nothing to do: params.yaml, dvc.yaml, dvc.lock, the code and {files:,} files of input"
            return dg.SensorResult(skip_reason=said, cursor=cursor)
        said = "; ".join(changes)
        at = digest([seen.recipe, {path: known.digest for path, known in data.items()}])
        wait = _at_rest(moving) or _spent(root, instance) or _patience(instance, at)
        if wait:
            return dg.SensorResult(skip_reason=f"{said}; {wait}", cursor=cursor)
        context.log.info(said)
        return dg.SensorResult(
            [dg.RunRequest(tags={**_asked_by(root, SENSOR), RECIPE: at, BECAUSE: said[:200]})], cursor=cursor
        )

    return changed_project


def _asked_by(root: Path, name: str) -> dict[str, str]:
    return {STARTED_BY: name, PROJECT: project_name(root)}


def _look(root: Path, paths: Sequence[str], cursor: str | None) -> tuple[dict[str, Listing], list[str], str]:
    """What lies under the paths, which of them have changed since the look before, and the cursor that tells the next.

    While it rests after a long look, it takes what that one saw.
    """
    known = json.loads(cursor) if cursor else {}
    before = {path: Listing(**last) for path, last in known.get("data", {}).items()}
    if set(before) == set(paths) and time.time() < known["again"]:
        return before, known["moving"], json.dumps(known)
    started = time.time()
    data = {path: watched.listing(root / path) for path in paths}
    ended = time.time()
    moving = [path for path in paths if path in before and before[path] != data[path]]
    told = {"data": {path: asdict(last) for path, last in data.items()}, "moving": moving,
            "again": ended + REST * (ended - started)}  # fmt: skip
    return data, moving, json.dumps(told)


def _at_rest(moving: Sequence[str]) -> str | None:
    """Why not to request a run yet: files are still being written."""
    return f"waits until {', '.join(moving)} is at rest from one look to the next" if moving else None


def _spent(root: Path, instance: dg.DagsterInstance) -> str | None:
    """Why not to request a run: those of the last seven days have taken the hours that the parameters allow.

    Runs that a person started do not count, nor do those of other projects whose runs the same database holds.
    """
    allowed = operations(root).hours_per_week
    if allowed is None:
        return None
    since = datetime.now(UTC) - A_WEEK
    spent = sum(_hours(root, instance, since))
    if spent < allowed:
        return None
    return (
        f"the schedule's and the sensor's runs took {spent:.1f} hours in the last seven days; "
        f"operations.hours_per_week allows {allowed:g}"
    )


def _hours(root: Path, instance: dg.DagsterInstance, since: datetime) -> Iterator[float]:
    ours = {STARTED_BY: [SCHEDULE, SENSOR], PROJECT: project_name(root)}
    for record in instance.get_run_records(dg.RunsFilter(tags=ours, updated_after=since)):
        if record.start_time:
            begun = max(record.start_time, since.timestamp())
            yield ((record.end_time or time.time()) - begun) / 3600


def _patience(instance: dg.DagsterInstance, recipe: str) -> str | None:
    """Why not to request a run yet: the last one was cancelled, or runs of the same recipe failed.

    Each failure doubles the wait. A cancelled run says nothing about the recipe and does not reset the count.
    """
    if _was_cancelled(instance, recipe):
        return "the last run was cancelled: waits for another change"
    ended = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]
    records = instance.get_run_records(dg.RunsFilter(tags={RECIPE: recipe}, statuses=ended), limit=MOST_COUNTED)
    failed = list(takewhile(lambda record: record.dagster_run.status == dg.DagsterRunStatus.FAILURE, records))
    if len(failed) < 2:
        return None
    again = (failed[0].end_time or 0) + 60 * 2 ** len(failed)
    if time.time() > again:
        return None
    at = datetime.fromtimestamp(again).astimezone().isoformat(" ", "minutes")
    return f"the last {len(failed)} runs failed: waits until {at}, or for another change"


def _was_cancelled(instance: dg.DagsterInstance, recipe: str) -> bool:
    """Whether the newest run that the sensor requested had this recipe and was cancelled."""
    recipes = dict(instance.get_run_tags(tag_keys=[RECIPE])).get(RECIPE, set())
    newest = instance.get_runs(dg.RunsFilter(tags={RECIPE: sorted(recipes)}), limit=1)
    return any(run.status == dg.DagsterRunStatus.CANCELED and run.tags[RECIPE] == recipe for run in newest)
