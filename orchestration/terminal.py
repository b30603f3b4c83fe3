"""Terminal output, and redirecting other output to files."""

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from rich.console import Console

from geoloc_core import escape


class _Console(Console):
    """A console that stops the work, as Ctrl-C does, once nobody reads what it prints."""

    def on_broken_pipe(self) -> None:
        """Rich calls it in place of raising; without it, the process would end and leave its steps at work."""
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.file.fileno())  # for what is still buffered
        os.close(nowhere)
        signal.raise_signal(signal.SIGINT)


def console(stream: IO[str] | None = None, **options: Any) -> Console:
    """A console that prints text as it is: nothing in it is markup.

    Args:
        stream: Where to print; standard error by default.
        options: More options of rich.
    """
    return _Console(file=stream or sys.stderr, markup=False, emoji=False, highlight=False, **options)


def print_error(terminal: Console, error: Exception) -> None:
    """Print an error for the user, starting with ``geoloc: error:``."""
    lines = (escape.terminal(str(line)) for line in error.args or (error,))
    terminal.print("geoloc: error: " + "\n".join(lines), soft_wrap=True)


@contextmanager
def warnings_to(stream: IO[str]) -> Iterator[None]:
    """Print the warnings of the orchestrator's own modules, one line each, while the block runs."""
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
