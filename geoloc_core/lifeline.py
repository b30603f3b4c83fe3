"""Processes that end with the one they work for, however that ends.

As a command, ``python -m geoloc_core.lifeline PID MODULE ...`` runs a module that ends with a process.
"""

import os
import runpy
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from geoloc_core.errors import installed

if TYPE_CHECKING:
    import psutil  # type: ignore[import-untyped]

STEP = "GEOLOC_STEP"
"""Environment variable of a stage's command: the process id of the step that it runs for."""
POLL_S = 0.5


def end_with(*owners: int) -> None:
    """Let this process end, with all that it started, once one of some processes is gone.

    Owners are looked for twice a second: what the operating systems offer to be told differs between them, and ends
    a process with the thread that started it.

    Args:
        owners: Process ids.
    """
    threading.Thread(target=_watch, args=(owners,), name="lifeline", daemon=True).start()


def end_with_step() -> None:
    """Let a stage's command end with its step, or with the shell that runs it; any other process is left alone."""
    step = os.environ.get(STEP, "")
    if step.isdecimal():
        end_with(int(step), os.getppid())


def frozen(process: "psutil.Process") -> "list[psutil.Process]":
    """Stop a process and all that it started, from the top down, so that none can start another unseen.

    Returns:
        All of them; each waits to be ended or resumed.
    """
    import psutil

    found = [process]
    for one in found:  # grows meanwhile
        try:
            one.suspend()
            deadline = time.monotonic() + POLL_S
            while one.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE) and time.monotonic() < deadline:
                time.sleep(0.001)
            found += [child for child in one.children() if child not in found]
        except psutil.NoSuchProcess:
            continue
    return found


def _watch(owners: tuple[int, ...]) -> None:
    import psutil

    try:
        found = [psutil.Process(owner) for owner in owners]
        while all(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in found):
            time.sleep(POLL_S)
    except psutil.NoSuchProcess:
        pass
    end_all()


def end_all() -> None:
    """End this process, with all that it started."""
    import psutil

    pids = [one.pid for child in psutil.Process().children() for one in frozen(child)]
    # Nothing in between that lets other threads go on: one that waits for a child would end this process well.
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)  # those too whose own parents are gone
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    owner, module, *_ = sys.argv[1:]
    end_with(int(owner))
    sys.argv = sys.argv[2:]
    with installed():
        runpy.run_module(module, run_name="__main__", alter_sys=True)
