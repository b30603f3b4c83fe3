"""The hook: one command of the user's that is told of failures, recoveries and promotions, as JSON on its input."""

import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

PATIENCE_S = 60
"""Seconds that the hook may take."""
IN_RUN = "GEOLOC_IN_RUN"
"""Environment variable with the id of Dagster's run, in the processes that it starts."""
PAGES = "GEOLOC_PAGES"
"""Environment variable with the address of Dagster's pages, where they are served."""


def called(root: Path, model: str | None) -> str:
    """What a project is called where there are others: its folder alone is often the same, as in containers.

    Args:
        root: Its folder.
        model: The name under which it registers models, which must be its own in a registry; None if it has none.
    """
    folder = root.resolve().name
    return f"{folder}/{model}" if model else folder


def message(project: str, event: str, stage: str | None, cause: str, page: str) -> Mapping[str, Any]:
    """What the hook reads.

    Args:
        project: What it is called: see :func:`called`.
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
    with TemporaryFile() as given, TemporaryFile() as out, TemporaryFile() as errors:  # pipes would wait for every
        given.write(json.dumps(told, ensure_ascii=True).encode() + b"\n")  # process that has inherited their ends
        given.seek(0)
        try:
            code = _ended(command, folder, given, out, errors)
        except subprocess.TimeoutExpired:
            return f"operations.hook: {command[0]}: did not end within {PATIENCE_S} s"
        except OSError as error:
            return f"operations.hook: {command[0]}: {error.strerror or error}"
        if code == 0:
            return None
        said = (_read(errors) or _read(out)).splitlines()
        return f"operations.hook: {command[0]}: exit code {code}" + (f": {said[-1]}" if said else "")


def _ended(command: Sequence[str], folder: Path, given: IO[bytes], out: IO[bytes], errors: IO[bytes]) -> int:
    """The exit code of the hook. One that takes too long is ended with all that it started."""
    with subprocess.Popen(  # noqa: S603 - the user's own command
        command, cwd=folder, stdin=given, stdout=out, stderr=errors, start_new_session=True
    ) as hook:
        try:
            return hook.wait(PATIENCE_S)
        finally:
            if hook.poll() is None:  # it takes too long, or the user waits no longer
                with suppress(ProcessLookupError, PermissionError):  # it has just ended
                    os.killpg(hook.pid, signal.SIGKILL)


def _read(said: IO[bytes]) -> str:
    said.seek(0)
    return said.read().decode("utf-8", "replace").strip()
