"""How a run is executed: one run at a time on a project, one process for each step that has work to do."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import dagster as dg

from geoloc_core import warm
from geoloc_core.hook import IN_RUN
from orchestration.compat import ask_for_freed_slots, part_of_plan, skipped_step
from orchestration.dvc import Stage
from orchestration.instance import this_host
from orchestration.operations import RECOVERY, News, failures, is_failing, tell
from orchestration.settling import Parts, held_back, parts_of, settle
from orchestration.turn import BusyError, Holder, holder, turn
from orchestration.watched import forget_settled, look, note_settled, sources

PARALLEL = max(3, (os.cpu_count() or 2) // 4)
"""Stages at a time. Most are processes with several threads, and spend part of their time on Dagster, DVC and disk."""
EXTRA = "GEOLOC_PRELOAD"
"""Environment variable: more modules to import before the steps of a run are forked."""

WORTH_WARMING = 3
"""Stages for which libraries are loaded ahead: it takes as long as for one or two of them."""

_CHECKING = "geoloc_core.corpora.checks great_expectations pandas"


def executor(root: Path, stages: Sequence[Stage]) -> dg.ExecutorDefinition:
    """The executor of all runs on a project."""
    forked = {"forkserver": {"preload_modules": ["orchestration.preload"]}}
    steps = dg.multiprocess_executor.configured({"max_concurrent": PARALLEL, "start_method": forked})
    ask_for_freed_slots()
    make = steps.executor_creation_fn
    assert make is not None
    return dg.ExecutorDefinition(
        "in_turn",
        config_schema=steps.config_schema,  # type: ignore[arg-type]  # its hint omits schemas
        requirements=dg.multiple_process_executor_requirements(),
        executor_creation_fn=lambda context: _InTurn(root, stages, make(context)),
    )


class _InTurn(dg.Executor):
    """Waits until no other run holds the project, holds it for this run, and executes the steps that are out of date.

    A step of its own takes seconds, even to find that there is nothing to do. So what is up to date is settled here,
    all at once.
    """

    def __init__(self, root: Path, stages: Sequence[Stage], steps: dg.Executor) -> None:
        self._root, self._stages, self._steps = root, stages, steps

    @property
    def retries(self) -> Any:
        return self._steps.retries

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[dg.DagsterEvent]:
        plan_context.instance.add_run_tags(plan_context.run_id, this_host())
        with ExitStack() as stack:
            known: Holder | str | None = None
            while (busy := self._taken(stack, f"Dagster run {plan_context.run_id[:8]}")) is not None:
                if busy != known:
                    known = busy
                    yield plan_context.instance.report_engine_event(f"Waiting for {busy}", plan_context.dagster_run)
                with dg.raise_execution_interrupts():
                    time.sleep(0.5)
            os.environ[IN_RUN] = plan_context.run_id
            stack.callback(os.environ.pop, IN_RUN, None)
            yield from self._execute(plan_context, execution_plan)

    def _execute(self, context: Any, plan: Any) -> Iterator[dg.DagsterEvent]:
        root, instance, run = self._root, context.instance, context.dagster_run
        seen = look(root, sources(self._stages))
        parts = parts_of(root, instance, self._stages, plan)
        if parts.is_work:
            forget_settled(root)
        events = []
        try:
            for event in self._steps_of(context, plan, parts):
                if event.is_step_failure or event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
                    events.append(event)
                yield event
        except dg.DagsterError:  # the process of a step was killed
            tell(root, instance, run, list(failures(events)))
            raise
        failed = list(failures(events))
        if parts.is_whole and not failed:
            note_settled(root, seen)
        mended = parts.is_whole and not failed and is_failing(instance)
        again = [News(RECOVERY, None, "this run succeeded after one that failed")] if mended else []
        tell(root, instance, run, [*failed, *again])

    def _steps_of(self, context: Any, plan: Any, parts: Parts) -> Iterator[dg.DagsterEvent]:
        if len(parts.checks_first) + len(parts.checks) > 1:
            os.environ[EXTRA] = _CHECKING  # before the process is made from which the steps are forked
        yield from settle(self._root, self._stages, context, plan, parts)
        failed: set[str] = set()
        # before the process is made from which the steps are forked: they have the environment that it begins with
        with warm.ready(self._root) if len(parts.stale) >= WORTH_WARMING else nullcontext():
            for event in self._run(context, plan, parts.checks_first):
                if event.is_step_failure and event.step_key:
                    failed.add(event.step_key)
                yield event
            held = held_back(plan, parts, failed)
            for step in sorted(held):
                yield skipped_step(context, plan, step, "Not started: a check of what it descends from has failed")
            left = [step for step in (*parts.stale, *parts.checks) if step not in held]
            yield from self._run(context, plan, left)

    def _run(self, context: Any, plan: Any, steps: Sequence[str]) -> Iterator[dg.DagsterEvent]:
        if steps:
            yield from self._steps.execute(context, part_of_plan(context, plan, steps))

    def _taken(self, stack: ExitStack, name: str) -> Holder | str | None:
        """Hold the project; returns who holds it if that is not possible now."""
        at_work = holder(self._root)
        if at_work and at_work.pid == os.getpid():
            return None  # this process holds it already
        try:
            stack.enter_context(turn(self._root, name))
        except BusyError as busy:
            return busy.holder
        return None
