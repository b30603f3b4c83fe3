"""How a project is operated: the block ``operations`` of its parameters, and what its hook is told."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from geoloc_core.hook import call
from geoloc_core.params.schema import Operations
from geoloc_core.yamls import read_yaml
from orchestration.display import STOPPED
from orchestration.environment import PAGES

TOLD = "geoloc/told"
"""Tag of the runs that the hook was told of."""
_WARN_AFTER = 0.8
"""Share of the time after which an asset is no longer fresh, from which on the pages warn."""


def operations(root: Path) -> Operations:
    """The block ``operations`` of the profile in use; what is left out is as the schema has it."""
    params = read_yaml(root / "params.yaml") or {}
    return Operations.model_validate((params.get("run") or {}).get("operations") or {})


def freshness(days: float | None) -> dg.FreshnessPolicy | None:
    """An asset must be made, or found up to date, every so many days; None if it need not."""
    if days is None:
        return None
    window = timedelta(days=days)
    return dg.FreshnessPolicy.time_window(fail_window=window, warn_window=window * _WARN_AFTER)


@dataclass(frozen=True)
class News:
    """What the hook is told.

    Attributes:
        event: ``failure``, ``recovery`` or ``promotion``.
        stage: The step that it is about; None where it is about a whole run.
        cause: What happened, in one line.
    """

    event: str
    stage: str | None
    cause: str


def failures(events: Sequence[dg.DagsterEvent]) -> Iterator[News]:
    """What the hook is told of the steps that failed; those that were stopped with their run did not."""
    for event in events:
        data = event.step_failure_data if event.is_step_failure else None
        if data and not (data.error and data.error.cls_name == STOPPED):
            said = data.user_failure_data.description if data.user_failure_data else None
            said = said or (data.error.message if data.error else "") or str(event.message)
            yield News("failure", event.step_key, said.strip().splitlines()[0])


def tell(root: Path, instance: dg.DagsterInstance, run: dg.DagsterRun, news: Sequence[News]) -> None:
    """Call the hook, once for each; a hook that fails is noted in the run's log, and nothing more."""
    hook = operations(root).hook
    if not hook or not news:
        return
    instance.add_run_tags(run.run_id, {TOLD: ", ".join(sorted({item.event for item in news}))})
    for item in news:
        wrong = call(hook, as_json(root, run.run_id, item), root)
        if wrong:
            instance.report_engine_event(wrong, run)


def as_json(root: Path, run_id: str, item: News) -> Mapping[str, Any]:
    """What the hook reads."""
    link = f"{os.environ.get(PAGES, 'http://localhost:3000')}/runs/{run_id}"
    about = f"{item.stage}: " if item.stage and not item.cause.startswith(item.stage) else ""
    return {
        "event": item.event,
        "project": root.name,
        "stage": item.stage,
        "cause": item.cause,
        "link": link,
        "text": f"{root.name}: {item.event}: {about}{item.cause} {link}",
    }


def killed_runs(root: Path) -> dg.SensorDefinition:
    """The sensor that tells the hook of runs that failed without a word, as those whose process was killed."""
    has_hook = bool(operations(root).hook)

    @dg.run_failure_sensor(
        name="killed_runs",
        description="Tells the hook (operations.hook) of runs whose process was killed",
        default_status=dg.DefaultSensorStatus.RUNNING if has_hook else dg.DefaultSensorStatus.STOPPED,
    )
    def told(context: dg.RunFailureSensorContext) -> None:
        run = context.instance.get_run_by_id(context.dagster_run.run_id)
        if run and TOLD not in run.tags and run.tags.get("dagster/will_retry") != "true":
            tell(root, context.instance, run, [News("failure", None, context.failure_event.message or "killed")])

    return told
