"""What runs by itself, once it is switched on in the UI."""

from pathlib import Path

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from orchestration.dvc import digest, read_stages
from orchestration.outdated import outdated

EVERYTHING = "everything"
FETCH = "1_fetch"
EVERY_MONDAY_AT_THREE = "0 3 * * 1"


def everything() -> UnresolvedAssetJobDefinition:
    """The job of the whole graph; what is unchanged is skipped by DVC."""
    return dg.define_asset_job(
        EVERYTHING, dg.AssetSelection.all(), description="Bring the whole graph up to date, from raw files to champion"
    )


def retrain() -> dg.ScheduleDefinition:
    """Once a week, everything that comes after the raw files."""
    after_fetch = dg.AssetSelection.groups(FETCH).downstream(include_self=False)
    job = dg.define_asset_job("retrain", after_fetch, description="Everything that comes after the raw files")
    return dg.ScheduleDefinition(name="weekly_retrain", job=job, cron_schedule=EVERY_MONDAY_AT_THREE)


def on_change(root: Path) -> dg.SensorDefinition:
    """When parameters or the lock change, everything that is out of date."""

    @dg.sensor(
        name="changed_project",
        target=dg.AssetSelection.all(),
        minimum_interval_seconds=60,
        description="Brings everything up to date that a change of params.yaml or dvc.lock makes out of date",
    )
    def changed_project(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        state = digest([_text(root / name) for name in ("dvc.yaml", "params.yaml", "dvc.lock")])
        if state == context.cursor:
            return dg.SkipReason("dvc.yaml, params.yaml and dvc.lock are as they were")
        keys = sorted(outdated(root, context.instance, read_stages(root)))
        requests = [dg.RunRequest(run_key=state, asset_selection=keys)] if keys else []
        return dg.SensorResult(run_requests=requests, cursor=state)

    return changed_project


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""
