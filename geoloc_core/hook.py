"""The hook: one command of the user's that is told of failures, recoveries and promotions, as JSON on its input."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PATIENCE_S = 60
IN_RUN = "GEOLOC_IN_RUN"
"""Environment variable with the id of Dagster's run, in the processes that it starts."""
PAGES = "GEOLOC_PAGES"
"""Environment variable with the address of Dagster's pages, where they are served."""


def message(project: str, event: str, stage: str | None, cause: str, page: str) -> Mapping[str, Any]:
    """What the hook reads.

    Args:
        project: The name of the project's folder.
        event: ``failure``, ``recovery`` or ``promotion``.
        stage: The step that it is about; None where it is about a whole run.
        cause: What happened, in one line.
        page: Of Dagster's pages, the one to look at.
    """
    link = f"{os.environ.get(PAGES, 'http://localhost:3000')}/{page}"
    about = f"{stage}: " if stage and not cause.startswith(stage) else ""
    text = f"{project}: {event}: {about}{cause} {link}"
    return {"event": event, "project": project, "stage": stage, "cause": cause, "link": link, "text": text}


def call(command: Sequence[str], told: Mapping[str, Any], folder: Path) -> str | None:
    """Run the hook. Whatever goes wrong with it is no failure of what it is told of.

    Args:
        command: The program and its arguments.
        told: What it gets to read, as one line of JSON.
        folder: Where it runs.

    Returns:
        One line on what went wrong; None if nothing did.
    """
    text = json.dumps(told, ensure_ascii=True) + "\n"
    try:
        done = subprocess.run(  # noqa: S603 - the user's own command
            command,
            input=text,
            text=True,
            encoding="utf-8",
            errors="replace",
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
            cwd=folder,
        )
    except subprocess.TimeoutExpired:
        return f"operations.hook: {command[0]}: did not end within {PATIENCE_S} s"
    except OSError as error:
        return f"operations.hook: {command[0]}: {error.strerror or error}"
    if done.returncode == 0:
        return None
    said = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return f"operations.hook: {command[0]}: exit code {done.returncode}" + (f": {said[-1]}" if said else "")
