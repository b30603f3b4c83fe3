"""How a run is executed: in its turn, a process for each step."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dagster as dg

from orchestration.environment import IN_RUN
from orchestration.turn import BusyError, Holder, holder, turn

PARALLEL = max(3, (os.cpu_count() or 2) // 4)
"""Stages at a time: most are a process with threads of its own, and wait a while for Dagster, DVC and the disk."""


def executor(root: Path) -> dg.ExecutorDefinition:
    """The executor of all runs on a project."""
    forked = {"forkserver": {"preload_modules": ["orchestration.preload"]}}
    steps = dg.multiprocess_executor.configured({"max_concurrent": PARALLEL, "start_method": forked})
    make = steps.executor_creation_fn
    assert make is not None
    return dg.ExecutorDefinition(
        "in_turn",
        config_schema=steps.config_schema,
        requirements=dg.multiple_process_executor_requirements(),
        executor_creation_fn=lambda context: _InTurn(root, make(context)),
    )


class _InTurn(dg.Executor):
    """Waits until no other run is at work on the project, and holds it for this one."""

    def __init__(self, root: Path, steps: dg.Executor) -> None:
        self._root, self._steps = root, steps

    @property
    def retries(self) -> Any:
        return self._steps.retries

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[dg.DagsterEvent]:
        with ExitStack() as stack:
            known: Holder | str | None = None
            while (busy := self._taken(stack, f"run {plan_context.run_id[:8]} of Dagster")) is not None:
                if busy != known:
                    known = busy
                    yield plan_context.instance.report_engine_event(f"Waits for {busy}", plan_context.dagster_run)
                with dg.raise_execution_interrupts():
                    time.sleep(0.5)
            os.environ[IN_RUN] = plan_context.run_id
            stack.callback(os.environ.pop, IN_RUN, None)
            yield from self._steps.execute(plan_context, execution_plan)

    def _taken(self, stack: ExitStack, name: str) -> Holder | str | None:
        """Take the project, and say who has it if that is not to be."""
        at_work = holder(self._root)
        if at_work and at_work.pid == os.getpid():
            return None  # who started the run holds it already
        try:
            stack.enter_context(turn(self._root, name))
        except BusyError as busy:
            return busy.holder
        return None
