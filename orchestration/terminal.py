"""Who may write to the terminal."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from rich.console import Console

from geoloc_core import escape


def console(stream: IO[str] | None = None, **options: Any) -> Console:
    """A terminal, or where errors go, that prints names and messages letter for letter: none is markup.

    Args:
        stream: Where to print; else where errors go.
        options: More of rich's.
    """
    return Console(file=stream or sys.stderr, markup=False, emoji=False, highlight=False, **options)


def print_error(terminal: Console, error: Exception) -> None:
    """Say what a user did wrong, in one line."""
    lines = (escape.terminal(str(line)) for line in error.args or (error,))
    terminal.print("geoloc: error: " + "\n".join(lines), soft_wrap=True)


@contextmanager
def warnings_to(stream: IO[str]) -> Iterator[None]:
    """Let what the orchestrator's own modules warn of be read on the terminal, a line each."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("geoloc: %(message)s"))
    logger = logging.getLogger(__package__)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


@contextmanager
def output_to(log: Path, errors: Path | None = None) -> Iterator[int]:
    """Append what this process and its children print to a file.

    Args:
        log: The file.
        errors: Another file for standard error.

    Yields:
        The file descriptor of the former standard error.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    _flush()
    kept = os.dup(1), os.dup(2)
    with log.open("ab") as out, (errors or log).open("ab") as err:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
    try:
        yield kept[1]
    finally:
        _flush()
        for number, old in enumerate(kept, start=1):
            os.dup2(old, number)
            os.close(old)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
