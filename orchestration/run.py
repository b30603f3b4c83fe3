"""Bring the whole project up to date through Dagster, with progress on the terminal: ``geoloc demo``."""

import argparse
import os
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from geoloc_core.errors import UserError
from orchestration.databases import whole_databases
from orchestration.environment import enter, project_root
from orchestration.terminal import console, output_to, print_error, warnings_to
from orchestration.turn import turn

if TYPE_CHECKING:
    from orchestration.display import Progress

OTHER_ERROR, USER_ERROR, STOPPED = 1, 2, 130
STATES = ("done", "unchanged", "failed", "stopped")


def main(arguments: list[str] | None = None) -> int:
    """Run what is out of date, and print the result.

    Returns:
        0 if all is up to date, 130 after an interrupt, 2 if user's mistakes are the only failures, else 1, as where
        nobody reads what it prints.
    """
    parser = argparse.ArgumentParser(prog="python -m orchestration.run", description=__doc__)
    parser.add_argument("--ui-hint", action="store_true", help="end with a hint on how to open the UI")
    options = parser.parse_args(arguments)
    root = project_root()
    try:
        enter(root)
        with turn(root, "geoloc demo"), output_to(root / ".state" / "logs" / "run.log") as terminal:
            return _told(root, terminal, options.ui_hint)
    except UserError as error:
        print_error(console(), error)
        return USER_ERROR


def _told(root: Path, terminal: int, ui_hint: bool) -> int:
    """Run, and print the result or the error on the terminal."""
    from dvc.exceptions import DvcException  # DVC reads the environment when it is imported

    with os.fdopen(os.dup(terminal), "w") as stream:
        shown = console(stream)
        try:
            with warnings_to(stream), whole_databases(root):
                code = _run(root, shown)
        except (UserError, DvcException) as error:
            print_error(shown, error)
            return USER_ERROR
        except OSError as error:  # a path that cannot be read or written; the traceback is in the log
            traceback.print_exc()
            where = f"{error.filename}: " if error.filename else ""
            print_error(shown, UserError(f"{where}{error.strerror or error}; the details are in .state/logs/run.log"))
            return USER_ERROR
        except KeyboardInterrupt:
            code = STOPPED
        if code == STOPPED:
            shown.print("geoloc: stopped; run the same command again to go on")
        if ui_hint and code == 0:
            shown.print("To see the run: geoloc ui")
        return OTHER_ERROR if shown.quiet else code  # nobody reads it any more


def _run(root: Path, console: Console) -> int:
    from orchestration.display import Display, Progress, waiting
    from orchestration.execution import execute, step_labels
    from orchestration.instance import opened_instance
    from orchestration.outdated import outdated
    from orchestration.watched import look, note_settled, sources

    started = time.monotonic()
    with waiting(console, "Finding out what is out of date"):
        from orchestration.definitions import defs, stages
    with opened_instance() as instance:
        with waiting(console, "Finding out what is out of date"):
            seen = look(root, sources(stages))
            keys = outdated(root, instance, stages)
        if not keys:
            note_settled(root, seen)
            console.print(f"{len(stages)} stages unchanged, all skipped")
            return 0
        progress = Progress(step_labels(defs, sorted(keys)))
        with Display(console, progress) as display:
            for event in execute(instance, sorted(keys)):
                display.take(event)
    return _tell(progress, time.monotonic() - started, console)


def _tell(progress: "Progress", seconds: float, console: Console) -> int:
    from orchestration.display import failure_text

    count = {state: sum(done.state == state for done in progress.done) for state in STATES}
    for failure in progress.failures:
        console.print(failure_text(failure), soft_wrap=True)
    count["not started"] = progress.not_started
    parts = ", ".join(f"{number} {state}" for state, number in count.items() if number)
    console.print(f"{parts} in {seconds:.0f} s")
    if progress.stopped and not progress.failures:
        return STOPPED
    if not progress.failures and len(progress.done) == len(progress.labels):
        return 0
    return USER_ERROR if progress.exit_codes and set(progress.exit_codes) == {USER_ERROR} else OTHER_ERROR


if __name__ == "__main__":
    sys.exit(main())
