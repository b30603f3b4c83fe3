import json
import os
import signal
import subprocess
import sys

import pytest

from geoloc_core.errors import UserError
from orchestration.turn import Holder, holder, turn
from tests.orchestration.small_project import REPOSITORY

HOLD = """
import sys; from pathlib import Path; from orchestration.turn import turn
with turn(Path(sys.argv[1]), "geoloc demo"):
    print("mine", flush=True)
    sys.stdin.read()
"""


AS_THE_UI_DOES = """
from orchestration.environment import enter, project_root
enter(project_root())
from orchestration.assets import asset_key
from orchestration.execution import execute
from orchestration.instance import opened_instance
with opened_instance() as instance:
    for event in execute(instance, [asset_key("fetch@mp16")]):
        print(event.message, flush=True)
"""


@pytest.fixture
def other(tmp_path):
    """Another process whose turn it is."""
    root = tmp_path / "project" if (tmp_path / "project").exists() else tmp_path
    command = [sys.executable, "-P", "-c", HOLD, str(root)]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    assert process.stdout.readline() == "mine\n"
    yield process
    process.kill()
    process.communicate()


def test_who_comes_second_is_told_at_once_who_is_at_work(tmp_path, other):
    assert holder(tmp_path) == Holder(other.pid, "geoloc demo")
    at_work = rf"^geoloc demo \(process {other.pid}\) is already running on this project; wait"
    with pytest.raises(UserError, match=at_work), turn(tmp_path, "run 1"):
        pass
    other.communicate("")
    assert holder(tmp_path) is None
    with turn(tmp_path, "run 1"):
        assert holder(tmp_path) == Holder(os.getpid(), "run 1")
    assert holder(tmp_path) is None


def test_a_killed_process_keeps_nothing(tmp_path, other):
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert json.loads((tmp_path / ".state" / "run.lock").read_text())["pid"] == other.pid, "what it wrote is there yet"
    with turn(tmp_path, "run 1"):
        pass


def test_one_of_many_that_start_at_once_gets_it(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    many = [
        subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, text=True,
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(5)
    ]  # fmt: skip
    first = [process.stdout.readline() for process in many]
    assert sorted(first) == ["", "", "", "", "mine\n"]
    said = [process.communicate("")[1].splitlines()[-1:] for process in many]
    lost = [lines[0] for line, lines in zip(first, said, strict=True) if not line]
    assert all("geoloc demo (process" in line for line in lost)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["let go", "interrupted"])
def test_a_run_of_the_ui_waits_for_its_turn(project, other, how):
    environment = {**os.environ, "GEOLOC_ROOT": str(project), "PYTHONPATH": str(REPOSITORY)}
    run = subprocess.Popen([sys.executable, "-P", "-c", AS_THE_UI_DOES], cwd=project, env=environment, text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    for line in run.stdout:
        if line.startswith("Waiting for "):
            break
    assert line == f"Waiting for geoloc demo (process {other.pid})\n"
    if how == "let go":
        other.communicate("")
        assert 'Finished execution of step "fetch__mp16"' in run.communicate(timeout=300)[0]
    else:
        run.send_signal(signal.SIGINT)
        assert "interrupted" in run.communicate(timeout=300)[0]
    assert (project / "data" / "raw" / "mp16").exists() == (how == "let go")
    assert holder(project) == (None if how == "let go" else Holder(other.pid, "geoloc demo"))
