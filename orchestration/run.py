"""Bring the whole project up to date through Dagster, with progress on the terminal: ``geoloc demo``."""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from geoloc_core.errors import UserError
from orchestration.environment import enter, project_root
from orchestration.terminal import output_to

if TYPE_CHECKING:
    from orchestration.display import Progress

OTHER_ERROR, USER_ERROR, STOPPED = 1, 2, 130
STATES = ("done", "unchanged", "failed", "stopped")


def main(arguments: list[str] | None = None) -> int:
    """Run what is out of date and say what came of it.

    Returns:
        0, or 130 where it was stopped, or 2 where a user's mistake is all that failed, or else 1.
    """
    parser = argparse.ArgumentParser(prog="python -m orchestration.run", description=__doc__)
    parser.add_argument("--ui-hint", action="store_true", help="say at the end how to look at the run")
    options = parser.parse_args(arguments)
    root = project_root()
    enter(root)
    from dvc.exceptions import DvcException  # DVC reads the environment when it is imported

    with output_to(root / ".state" / "logs" / "run.log") as terminal, os.fdopen(os.dup(terminal), "w") as stream:
        console = Console(file=stream)
        try:
            code = _run(root, console)
        except (UserError, DvcException) as error:
            console.print(f"geoloc: error: {error}", markup=False, highlight=False, soft_wrap=True)
            return USER_ERROR
        except KeyboardInterrupt:
            code = STOPPED
        if code == STOPPED:
            console.print("geoloc: stopped; run the same command again to go on", highlight=False)
        if options.ui_hint and code == 0:
            console.print("See it with: geoloc ui", highlight=False)
        return code


def _run(root: Path, console: Console) -> int:
    from orchestration.display import Display, Progress, waiting
    from orchestration.execution import execute, step_labels
    from orchestration.instance import active_run, opened_instance
    from orchestration.outdated import outdated

    started = time.monotonic()
    with waiting(console, "Asking what is out of date"):
        from orchestration.definitions import defs, stages
    with opened_instance() as instance:
        at_work = active_run(instance)
        if at_work:
            raise UserError(f"run {at_work[:8]} is at work on this project; wait for it, or end it in the UI")
        with waiting(console, "Asking what is out of date"):
            keys = outdated(root, instance, stages)
        if not keys:
            console.print(f"{len(stages)} stages unchanged, all skipped", highlight=False)
            return 0
        progress = Progress(step_labels(defs, sorted(keys)))
        with Display(console, progress) as display:
            for event in execute(instance, sorted(keys), checks=len(progress.labels) - len(keys)):
                display.take(event)
    return _tell(progress, time.monotonic() - started, console)


def _tell(progress: "Progress", seconds: float, console: Console) -> int:
    from orchestration.display import failure_text

    count = {state: sum(done.state == state for done in progress.done) for state in STATES}
    for failure in progress.failures:
        console.print(failure_text(failure), highlight=False, soft_wrap=True)
    count["not started"] = progress.not_started
    parts = ", ".join(f"{number} {state}" for state, number in count.items() if number)
    console.print(f"{parts} in {seconds:.0f} s", highlight=False)
    if not progress.failures and len(progress.done) == len(progress.labels):
        return 0
    if progress.stopped and not progress.failures:
        return STOPPED
    return USER_ERROR if progress.exit_codes and set(progress.exit_codes) == {USER_ERROR} else OTHER_ERROR


if __name__ == "__main__":
    sys.exit(main())
