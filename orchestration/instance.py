"""The Dagster instance in use, cleaned up after runs whose process was killed."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import psutil  # type: ignore[import-untyped]

from geoloc_core.registry.tracking import host
from orchestration.environment import is_shared, project_root

HOST = "geoloc/host"
"""Tag of a run: the machine on which its process is at work."""
AT_WORK = (
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
    dg.DagsterRunStatus.SUSPENDED,
)
"""Statuses of a run that has a process, or is about to have one."""
_TIME_TO_START_S = 120
_WILL_RETRY, _RETRIED_BY = "dagster/will_retry", "dagster/auto_retry_run_id"
"""Tags of a failed run: whether Dagster's daemon starts it again, and the run by which it did."""
_NVIDIA = Path("/dev/nvidiactl")
_WITHOUT_GPU = 2
"""Steps of the pool `gpu` at a time on a machine without a GPU, where they share the CPU."""


@contextmanager
def opened_instance() -> Iterator[dg.DagsterInstance]:
    """The instance in ``$DAGSTER_HOME``, after :func:`close_dead_runs`."""
    with dg.DagsterInstance.get() as instance:
        close_dead_runs(instance)
        if not is_shared(project_root()) and not _NVIDIA.exists():
            instance.event_log_storage.set_concurrency_slots("gpu", _WITHOUT_GPU)
        yield instance


def close_dead_runs(instance: dg.DagsterInstance) -> None:
    """Mark runs whose process is gone as failed, and free their slots in the pools."""
    for record in _unfinished(instance):
        if not _is_alive(instance, record):
            instance.report_run_failed(record.dagster_run, "The process of this run was killed")
    storage = instance.event_log_storage
    busy = {record.dagster_run.run_id for record in _unfinished(instance)}
    for run_id in storage.get_concurrency_run_ids() - busy:
        storage.free_concurrency_slots_for_run(run_id)


def unfinished_run(instance: dg.DagsterInstance) -> str | None:
    """The display name of a run that is queued or in progress; None if there is none."""
    statuses = [dg.DagsterRunStatus.QUEUED, *AT_WORK]
    records = instance.get_run_records(dg.RunsFilter(statuses=statuses), limit=1)
    return f"Dagster run {records[0].dagster_run.run_id[:8]}" if records else None


def awaits_retry(instance: dg.DagsterInstance) -> str | None:
    """The display name of a killed run that Dagster's daemon is about to start again; None if there is none."""
    given_up = datetime.now(UTC) - timedelta(seconds=_TIME_TO_START_S)  # a daemon new to the history never does it
    killed = dg.RunsFilter(tags={_WILL_RETRY: "true"}, statuses=[dg.DagsterRunStatus.FAILURE], updated_after=given_up)
    waiting = (run for run in instance.get_runs(killed) if _RETRIED_BY not in run.tags)
    return next((f"Dagster run {run.run_id[:8]}" for run in waiting), None)


def _unfinished(instance: dg.DagsterInstance) -> list[dg.RunRecord]:
    return list(instance.get_run_records(dg.RunsFilter(statuses=AT_WORK)))


def this_host() -> dict[str, str]:
    """The tag of a run that is at work here."""
    return {HOST: host()}


def _is_alive(instance: dg.DagsterInstance, record: dg.RunRecord) -> bool:
    """Whether a run has a process, or is about to have one; that of another machine is taken for alive."""
    at = record.dagster_run.tags.get(HOST)
    if at is not None and at != host():
        return True
    is_new = time.time() - record.create_timestamp.timestamp() < _TIME_TO_START_S
    may_be_elsewhere = at is None and is_new and is_shared(project_root())  # where it has just begun
    for entry in instance.all_logs(record.dagster_run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
        event = entry.dagster_event
        pid = event.engine_event_data.metadata.get("pid") if event else None
        if pid is not None and entry.step_key is None:
            return _is_running(int(str(pid.value)), entry.timestamp) or may_be_elsewhere
    return is_new


def _is_running(pid: int, since: float) -> bool:
    # a process that started later has only the same id
    try:
        return pid != os.getpid() and psutil.Process(pid).create_time() <= since
    except psutil.Error:
        return False
