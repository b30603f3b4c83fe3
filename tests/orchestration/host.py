"""A host on which Dagster's daemon looks after a project, in seconds where it takes minutes elsewhere."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml

from orchestration.environment import ROOT, enter, own_home, tools
from orchestration.ui import _safe_path
from tests.orchestration.small_project import REPOSITORY

WORKSPACE = str(REPOSITORY / "orchestration" / "workspace.yaml")
SETTINGS = REPOSITORY / "orchestration" / "dagster.yaml"
QUEUE = {"module": "dagster", "class": "QueuedRunCoordinator", "config": {"dequeue_interval_seconds": 1}}


def move_in(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process and its children find the project and its instance of Dagster, until the test ends."""
    known = {ROOT: project, "DAGSTER_HOME": own_home(project), "GEOLOC_STEP_LOGS": project, "PYTHONPATH": REPOSITORY}
    for name, value in (known | tools()).items():
        monkeypatch.setenv(name, str(value))  # so that they are put back later
    for name, value in _safe_path().items():
        monkeypatch.setenv(name, value)
    enter(project)
    settings = yaml.safe_load(SETTINGS.read_text()) | {"run_coordinator": QUEUE}
    settings["run_monitoring"]["poll_interval_seconds"] = 5
    (own_home(project) / SETTINGS.name).write_text(yaml.safe_dump(settings))


def dagster(project: Path, *words: str) -> None:
    """Run a command of Dagster's on the project's definitions, such as ``sensor start changed_project``."""
    subprocess.run([sys.executable, "-P", "-m", "dagster", *words, "-w", WORKSPACE], cwd=project, check=True)


def daemon(root: Path) -> subprocess.Popen:
    """Start Dagster's daemon; it ends with this process."""
    command = [sys.executable, "-P", "-m", "geoloc_core.lifeline", str(os.getpid()),
               "tests.orchestration.hasty", "run", "-w", WORKSPACE]  # fmt: skip
    with (root / "daemon.log").open("ab") as log:
        return subprocess.Popen(command, cwd=root, stdout=log, stderr=log, start_new_session=True)


def wait(root: Path, process: subprocess.Popen, what: Callable[[], bool]) -> None:
    """Wait until something has happened, while the daemon is at work."""
    deadline = time.monotonic() + 600
    while not what():
        assert process.poll() is None, (root / "daemon.log").read_text()[-3000:]
        assert time.monotonic() < deadline, (root / "daemon.log").read_text()[-3000:]
        time.sleep(0.5)


def kill(root: Path, process: subprocess.Popen) -> None:
    """Kill the daemon and all that works on the project, as a host that dies does."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for other in psutil.process_iter():
        try:
            if other.environ().get(ROOT) == str(root) and other.pid != os.getpid():
                other.kill()
        except psutil.Error:
            continue
