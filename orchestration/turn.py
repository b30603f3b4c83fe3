"""The lock that lets one run at a time work on a project, whoever starts it."""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import psutil  # type: ignore[import-untyped]

from geoloc_core.errors import UserError

_TRIES = 20


@dataclass(frozen=True)
class Holder:
    """The process that holds a project.

    Attributes:
        pid: Its id.
        name: Its display name, such as ``geoloc demo``.
    """

    pid: int
    name: str

    def __str__(self) -> str:
        return f"{self.name} (process {self.pid})"


class BusyError(UserError):
    """Another process holds the project."""

    def __init__(self, holder: "Holder | str") -> None:
        super().__init__(f"{holder} is already running on this project; wait until it ends, or stop it first")
        self.holder = holder


@contextmanager
def turn(root: Path, name: str) -> Iterator[None]:
    """Hold the project while the block runs; the system releases it when the process ends, however it ends.

    Args:
        root: The project.
        name: The name that other processes show.

    Raises:
        BusyError: Another process holds it; this does not wait.
    """
    with _opened(root) as stream:
        for _ in range(_TRIES):
            if _locked(stream, fcntl.LOCK_EX):
                break
            holder = _read(stream)
            if holder and psutil.pid_exists(holder.pid):
                raise BusyError(holder)
            time.sleep(0.05)  # it is just being taken or released
        else:
            raise BusyError("another run")
        stream.truncate(0)
        stream.seek(0)
        json.dump(asdict(Holder(os.getpid(), name)), stream)
        stream.flush()
        try:
            yield
        finally:
            stream.truncate(0)


def holder(root: Path) -> Holder | None:
    """The process that holds a project now."""
    with _opened(root) as stream:
        return None if _locked(stream, fcntl.LOCK_SH) else _read(stream)


def _opened(root: Path) -> IO[str]:
    path = root / ".state" / "run.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("a+", encoding="utf-8")


def _locked(stream: IO[str], how: int) -> bool:
    try:
        fcntl.flock(stream, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(stream: IO[str]) -> Holder | None:
    stream.seek(0)
    try:
        return Holder(**json.load(stream))
    except (ValueError, TypeError):  # not written yet
        return None
