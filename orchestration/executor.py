"""How a run is executed: in its turn, a process for each step."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import dagster as dg
from dagster._core.definitions.executor_definition import multiple_process_executor_requirements
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.events import EngineEventData
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.retries import RetryMode
from dagster._core.execution.step_dependency_config import StepDependencyConfig
from dagster._core.executor.multiprocess import MultiprocessExecutor
from dagster._utils.interrupts import pop_captured_interrupt

from orchestration.environment import IN_RUN
from orchestration.turn import BusyError, Holder, holder, turn

PARALLEL = max(3, (os.cpu_count() or 2) // 4)
"""Stages at a time: most are a process with threads of its own, and wait a while for Dagster, DVC and the disk."""


def executor(root: Path) -> dg.ExecutorDefinition:
    """The executor of all runs on a project."""

    @dg.executor(name="in_turn", requirements=multiple_process_executor_requirements())
    def in_turn(_: dg.InitExecutorContext) -> dg.Executor:
        steps = MultiprocessExecutor(
            RetryMode.ENABLED,
            max_concurrent=PARALLEL,
            start_method="forkserver",
            explicit_forkserver_preload=["orchestration.preload"],
        )
        return _InTurn(root, steps)

    return in_turn


class _InTurn(dg.Executor):
    """Waits until no other run is at work on the project, and holds it for this one."""

    def __init__(self, root: Path, steps: dg.Executor) -> None:
        self._root, self._steps = root, steps

    @property
    def retries(self) -> RetryMode:
        return self._steps.retries

    @property
    def step_dependency_config(self) -> StepDependencyConfig:
        return self._steps.step_dependency_config

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[dg.DagsterEvent]:
        with ExitStack() as stack:
            known: Holder | str | None = None
            while (busy := self._taken(stack, f"run {plan_context.run_id[:8]} of Dagster")) is not None:
                if busy != known:
                    known, data = busy, EngineEventData({})
                    yield dg.DagsterEvent.engine_event(plan_context, f"Waits for {busy}", data)
                if pop_captured_interrupt():
                    raise DagsterExecutionInterruptedError
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
