"""How a project is operated: the block ``operations`` of its parameters, and what its hook is told."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import dagster as dg

from geoloc_core.hook import call, called, message
from geoloc_core.params.schema import Operations
from geoloc_core.yamls import read_yaml
from orchestration.display import STOPPED
from orchestration.dvc import digest

FAILURE, RECOVERY = "failure", "recovery"
TOLD, KNOWN = "geoloc/told", "geoloc/known"
"""Tags of the runs that the hook was told of: which events; digests of what it knows since a run last succeeded."""
_WARN_AFTER = 0.8
"""Share of the time after which an asset is no longer fresh, from which on the pages warn."""


def operations(root: Path) -> Operations:
    """The block ``operations`` of the profile in use; what is left out is as the schema has it."""
    params = read_yaml(root / "params.yaml") or {}
    return Operations.model_validate((params.get("run") or {}).get("operations") or {})


def project_name(root: Path) -> str:
    """What the project is called where there are others, as in the hook's text and in tags of runs."""
    params = read_yaml(root / "params.yaml") or {}
    return called(root, ((params.get("run") or {}).get("registry") or {}).get("model"))


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
        event: ``failure`` or ``recovery``. Of a champion whoever promotes tells (:mod:`geoloc_core.registry.news`).
        stage: The step that it is about; None where it is about a whole run.
        cause: What happened, in one line.
    """

    event: str
    stage: str | None
    cause: str


def failures(events: Sequence[dg.DagsterEvent]) -> Iterator[News]:
    """What the hook is told of the steps that failed: of a check, what it found. What was stopped did not fail."""
    checks = {event.step_key: event.asset_check_evaluation_data for event in events
              if event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION}  # fmt: skip
    found = {step: check.description for step, check in checks.items() if not check.passed}
    for event in events:
        data = event.step_failure_data if event.is_step_failure else None
        if data and not (data.error and data.error.cls_name == STOPPED):
            said = found.get(event.step_key) or (data.user_failure_data.description if data.user_failure_data else None)
            said = said or (data.error.message if data.error else "") or str(event.message)
            yield News(FAILURE, event.step_key, said.strip().splitlines()[0])


def tell(root: Path, instance: dg.DagsterInstance, run: dg.DagsterRun, news: Sequence[News]) -> None:
    """Call the hook once for each that it does not know; if it fails, the run's log says so, and nothing more.

    The sensor asks again for what has failed, which may fail as before: that is no news. All is, once a run succeeded.
    """
    hook = operations(root).hook
    if not hook or not news:
        return
    last = _told_last(instance)
    known = set(last.get(KNOWN, "").split(",")) if last.get(TOLD) == FAILURE else set()
    for item in news:
        what = digest([item.event, item.stage, item.cause])
        if what in known:
            continue
        wrong = call(hook, message(project_name(root), item.event, item.stage, item.cause, f"runs/{run.run_id}"), root)
        if wrong:
            instance.report_engine_event(wrong, run)
        else:
            known.add(what)
    events = sorted({item.event for item in news})
    instance.add_run_tags(run.run_id, {TOLD: ", ".join(events), KNOWN: ",".join(sorted(known))})


def is_failing(instance: dg.DagsterInstance) -> bool:
    """Whether a failure is the last that the hook was told of.

    A run that was killed, and is started again, is no failure, so there is no recovery from it either.
    """
    return _told_last(instance).get(TOLD) == FAILURE


def _told_last(instance: dg.DagsterInstance) -> Mapping[str, str]:
    """The tags of the last run that the hook was told of; none where it was told nothing yet."""
    runs = instance.get_runs(dg.RunsFilter(tags={TOLD: [FAILURE, RECOVERY]}), limit=1)
    return runs[0].tags if runs else {}


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
            tell(root, context.instance, run, [News(FAILURE, None, context.failure_event.message or "killed")])

    return told
