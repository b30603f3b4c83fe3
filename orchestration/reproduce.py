"""Bringing one stage up to date: its output goes to a log file, its failure into one message."""

import os
import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import psutil  # type: ignore[import-untyped]

from geoloc_core.lifeline import STEP, frozen
from orchestration.dvc import Stage, crawls, read_lock
from orchestration.environment import tools
from orchestration.repository import with_dvc
from orchestration.terminal import output_to

USER_ERROR = 2
"""Exit code of a stage after a user's mistake; its last lines say what is wrong."""


@dataclass(frozen=True)
class Outcome:
    """The result of reproducing a stage.

    Attributes:
        changed: Whether its command ran, or its outputs were restored from the run cache.
        outputs: The MD5 of every output, by path.
    """

    changed: bool
    outputs: dict[str, str]


class StageError(Exception):
    """A stage that could not be brought up to date.

    Attributes:
        exit_code: The exit code of its command; None if DVC itself failed.
    """

    def __init__(self, message: str, exit_code: int | None) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def reproducing(root: Path, stage: Stage, tags: dict[str, str] | None = None) -> Iterator[str | Outcome]:
    """Run one stage if it is out of date.

    DVC runs in a second thread, so that this one can pass on the output as it comes, and end the stage's processes
    when it is interrupted: DVC itself ignores the signal.

    Args:
        root: The project.
        stage: The stage.
        tags: More environment variables for its command.

    Yields:
        Messages about what it waits for, if it does; at the end the outcome.

    Raises:
        StageError: Its command failed, or DVC did; the message is for the user.
    """
    _end_leftovers(root, stage)
    log = root / ".state" / "logs" / f"{stage.file_name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    environment = {**tools(), STEP: str(os.getpid()), "PYTHONSAFEPATH": "", **(tags or {})}
    work = _Work(root, stage.name, environment)
    with output_to(log) as terminal, log.open("rb") as written:
        work.start()
        try:
            ended = False
            while not ended:
                ended = work.ended.wait(0.2)
                os.write(terminal, written.read())
                while not work.news.empty():
                    yield work.news.get()
        finally:  # interrupted, if the work has not ended
            work.halt.set()
            # the thread's own `is_alive` is wrong if a signal interrupted a wait for it
            while not work.ended.is_set():
                _end([p for child in psutil.Process().children() if _runs(child, root, stage) for p in frozen(child)])
                work.ended.wait(0.2)
    if work.error:
        raise _explain(stage, work.error, log) from None
    assert work.outcome is not None
    yield work.outcome


class _Work(threading.Thread):
    def __init__(self, root: Path, name: str, environment: dict[str, str]) -> None:
        super().__init__(name=f"reproduce {name}", daemon=True)
        self._root, self._stage, self._environment = root, name, environment
        self.ended, self.halt = threading.Event(), threading.Event()
        self.news: SimpleQueue[str] = SimpleQueue()
        self.outcome: Outcome | None = None
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self.outcome = with_dvc(self._root, self._reproduce, self.news.put, self.halt)
        except Exception as error:  # whatever it is, the waiting thread reports it
            self.error = error
        finally:
            self.ended.set()

    def _reproduce(self, repo: Any) -> Outcome:
        force = self._stage in crawls(self._root)  # its inputs are as they were
        done = repo.reproduce(targets=[self._stage], single_item=True, force=force, run_env=self._environment)
        written = {out.def_path: out.hash_info.value for stage in done for out in stage.outs}
        return Outcome(bool(done), written or read_lock(repo)[self._stage])


def _explain(stage: Stage, error: Exception, log: Path) -> StageError:
    from dvc.dependency.base import DependencyDoesNotExistError
    from dvc.exceptions import ReproductionError
    from dvc.stage.exceptions import StageCmdFailedError

    cause = (isinstance(error, ReproductionError) and error.__cause__) or error
    if isinstance(cause, DependencyDoesNotExistError | FileNotFoundError):
        return StageError(f"{stage.name}: {_missing(stage, cause)}", USER_ERROR)
    if not isinstance(cause, StageCmdFailedError):
        return StageError(f"{stage.name}: {str(cause) or repr(cause)}", None)
    code = re.search(r"exited with (-?\d+)$", str(cause))  # DVC has it nowhere else
    said = last_words(log) or str(cause)
    if code and int(code[1]) == USER_ERROR:
        return StageError(f"{stage.name}: {said}", USER_ERROR)
    where = f".state/logs/{log.name}"
    return StageError(f"{stage.name}: {cause}; its full output is in {where}\n{said}", int(code[1]) if code else None)


def _missing(stage: Stage, error: Exception) -> str:
    """The message for a missing input that no stage produces."""
    quoted = re.search("'(.+)'", str(error))
    path = quoted[1] if quoted else str(error)
    return f"{path}: no such file or folder; `{stage.command}` reads it; put it there, or correct its path"


def last_words(log: Path, most: int = 12) -> str:
    """The last lines of a command: from the one that starts with ``geoloc: error:``, if there is one."""
    lines = [line.rstrip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    said = [line for line in lines if line and not line.startswith(("Running stage ", "> "))]
    starts = [number for number, line in enumerate(said) if line.startswith("geoloc: error:")]
    if starts:
        return "\n".join([said[starts[-1]].removeprefix("geoloc: error: "), *said[starts[-1] + 1 :]])
    return "\n".join(said[-most:])


def _end_leftovers(root: Path, stage: Stage) -> None:
    """End processes of this stage that outlived a killed run: they would write to the same files."""
    found = [p for p in psutil.process_iter() if _runs(p, root, stage)]
    _end([p for p in found if _is_orphan(p)])


def _is_orphan(process: psutil.Process) -> bool:
    try:
        return not psutil.pid_exists(int(process.environ().get(STEP, os.getpid())))
    except psutil.Error:
        return False


def _runs(process: psutil.Process, root: Path, stage: Stage) -> bool:
    # DVC sets these for every command
    try:
        environment = process.environ()
    except psutil.Error:
        return False
    return environment.get("DVC_ROOT") == str(root) and environment.get("DVC_STAGE") == stage.name


def _end(processes: list[psutil.Process]) -> None:
    # a process may end by itself at any time
    for process in processes:
        with suppress(psutil.Error):
            process.terminate()
            process.resume()
    deaf = psutil.wait_procs(processes, timeout=5)[1]
    for process in deaf:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(deaf, timeout=5)
