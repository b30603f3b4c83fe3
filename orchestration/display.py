"""The progress of a run: a live table on a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from dagster import DagsterEvent, DagsterEventType, DagsterExecutionInterruptedError
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markdown import Markdown
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from orchestration.reproduce import USER_ERROR

LAST_SHOWN = 5
STOPPED = DagsterExecutionInterruptedError.__name__
MARKS = {"done": Text("✓", "green"), "failed": Text("✗", "red"), "stopped": Text("■", "yellow")}


@dataclass(frozen=True)
class Done:
    """A step that has ended.

    Attributes:
        label: Its display name.
        seconds: How long it took.
        state: ``done``, ``unchanged``, ``failed``, or ``stopped`` together with the run.
    """

    label: str
    seconds: float
    state: str

    def __str__(self) -> str:
        note = "" if self.state == "done" else f", {self.state}"
        return f"{self.label}  {self.seconds:.1f} s{note}"


@dataclass
class Progress:
    """The state of a run, from its events so far.

    Attributes:
        labels: The display name of every step of the run, by step key.
        running: Start times of the running steps.
        done: The steps that have ended, in order.
        failures: A message for each failure.
        exit_codes: The exit codes of the failed stages.
    """

    labels: Mapping[str, str]
    running: dict[str, float] = field(default_factory=dict)
    done: list[Done] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    exit_codes: list[int] = field(default_factory=list)
    _unchanged: set[str] = field(default_factory=set)
    _reports: dict[str, str] = field(default_factory=dict)

    @property
    def not_started(self) -> int:
        """How many steps are waiting, or were skipped because a step upstream failed."""
        return len(self.labels) - len(self.done) - len(self.running)

    @property
    def stopped(self) -> bool:
        """Whether the run was interrupted."""
        return any(done.state == "stopped" for done in self.done)

    def take(self, event: DagsterEvent, at: float) -> Done | None:
        """Take one event into account; returns the step that it ends, if any."""
        kind, key = event.event_type, event.step_key
        if kind == DagsterEventType.RUN_FAILURE and not self.failures and not self.stopped:
            error = event.job_failure_data.error
            self.failures.append(error.message.strip() if error else str(event.message))
        if key is None or key not in self.labels:
            return None
        if kind == DagsterEventType.STEP_START:
            self.running[key] = at
        elif kind == DagsterEventType.STEP_UP_FOR_RETRY:
            self.running.pop(key, None)
        elif kind == DagsterEventType.ASSET_MATERIALIZATION and event.asset_key:
            value = event.step_materialization_data.materialization.metadata.get("dvc")
            self._unchanged |= {key} if value and value.value == "unchanged" else set()
        elif kind == DagsterEventType.ASSET_CHECK_EVALUATION:
            self._read_check(key, event)
        elif kind == DagsterEventType.STEP_SUCCESS:
            return self._end(key, at, "unchanged" if key in self._unchanged else "done")
        elif kind == DagsterEventType.STEP_FAILURE:
            error = event.step_failure_data.error
            if error and error.cls_name == STOPPED:
                return self._end(key, at, "stopped")
            self._read_failure(key, event)
            return self._end(key, at, "failed")
        return None

    def _end(self, key: str, at: float, state: str) -> Done:
        done = Done(self.labels[key], at - self.running.pop(key, at), state)
        self.done.append(done)
        return done

    def _read_check(self, key: str, event: DagsterEvent) -> None:
        result = event.asset_check_evaluation_data
        if not result.passed:
            report = result.metadata.get("report")
            self._reports[key] = str(report.value) if report else ""

    def _read_failure(self, key: str, event: DagsterEvent) -> None:
        data = event.step_failure_data
        told = data.user_failure_data
        code = told.metadata.get("exit_code") if told else None
        self.exit_codes.append(int(str(code.value)) if code else USER_ERROR if key in self._reports else 1)
        if key in self._reports:
            self.failures.append(f"{self.labels[key]}: the check failed\n\n{self._reports[key]}")
        elif told and told.description:
            self.failures.append(told.description)
        else:
            reason = data.error.message.strip() if data.error else "the step failed"
            self.failures.append(f"{self.labels[key]}: {reason}")


def live(console: Console, **content: Any) -> Live:
    """A part of the terminal that is redrawn; the output of libraries is left alone."""
    return Live(
        console=console,
        refresh_per_second=4,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
        **content,
    )


@contextmanager
def waiting(console: Console, what: str) -> Iterator[None]:
    """Show a spinner with a text while the block runs, if there is a terminal."""
    if not console.is_terminal:
        yield
        return
    with live(console, renderable=Spinner("dots", what)):
        yield


class Display:
    """Shows the progress of a run while the block runs."""

    def __init__(self, console: Console, progress: Progress) -> None:
        self._console, self._progress = console, progress
        self._live = live(console, get_renderable=self._table)
        self._spinner = Spinner("dots")

    def __enter__(self) -> "Display":
        if self._console.is_terminal:
            self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self._console.is_terminal:
            self._live.__exit__(None, None, None)

    def take(self, event: DagsterEvent) -> None:
        """Take one event into account, and print what it tells."""
        ended = self._progress.take(event, time.time())
        label = self._progress.labels.get(event.step_key or "")
        if label and event.event_type == DagsterEventType.ASSET_OBSERVATION:
            said = event.asset_observation_data.asset_observation.description
            self._console.print(f"{label} {said}", soft_wrap=True)
        if ended and not self._console.is_terminal:
            total = len(self._progress.labels)
            count = f"[{len(self._progress.done):>{len(str(total))}}/{total}]"
            self._console.print(f"{count} {ended}", soft_wrap=True)

    def _table(self) -> RenderableType:
        progress, now = self._progress, time.time()
        head = Table.grid(padding=(0, 1))
        bar = ProgressBar(len(progress.labels), len(progress.done), width=30)
        head.add_row(bar, f"{len(progress.done)} of {len(progress.labels)}")
        body = Table.grid(padding=(0, 1))
        for done in progress.done[-LAST_SHOWN:]:
            mark = MARKS.get(done.state, MARKS["done"])
            state = "" if done.state == "done" else done.state
            body.add_row(mark, done.label, Text(f"{done.seconds:.1f} s", justify="right"), Text(state, "dim"))
        for key, since in progress.running.items():
            seconds = Text(f"{max(now - since, 0):.0f} s", "bold", justify="right")
            body.add_row(self._spinner, Text(progress.labels[key], "bold"), seconds, "")
        return Group(head, body)


def failure_text(message: str) -> RenderableType:
    """A failure message, with a Markdown table in it drawn as a table."""
    head, _, rest = message.partition("\n\n|")
    return Group(Text(head), Markdown("|" + rest)) if rest else Text(message)
