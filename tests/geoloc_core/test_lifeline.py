"""Real processes, really killed."""

import os
import subprocess
import sys

import psutil
import pytest

from geoloc_core.lifeline import STEP, frozen

SLEEP = "import time; print('at work', flush=True); time.sleep(300)"
WITH_CHILD = f"""
import subprocess, sys
from geoloc_core.lifeline import end_with_step
end_with_step()
subprocess.run([sys.executable, "-c", {SLEEP!r}])
"""


@pytest.fixture
def owner():
    process = subprocess.Popen(["sleep", "300"])
    yield process
    process.kill()
    process.wait()


def start(*words, **options):
    process = psutil.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True, **options)
    assert process.stdout.readline() == "at work\n"
    return process


@pytest.mark.slow
@pytest.mark.parametrize("buried", [True, False])
def test_a_command_ends_with_its_step_and_so_does_what_it_started(owner, buried):
    command = start("-c", WITH_CHILD, env={**os.environ, STEP: str(owner.pid)})
    (child,) = command.children()
    owner.kill()
    if buried:
        owner.wait()
    assert command.wait(60) == -9
    psutil.wait_procs([child], timeout=60)
    assert not child.is_running()


@pytest.mark.slow
def test_a_command_ends_with_the_shell_that_runs_it(owner):
    environment = {**os.environ, STEP: str(owner.pid), "CODE": WITH_CHILD, "PYTHON": sys.executable}
    shell = subprocess.Popen(["sh", "-c", '"$PYTHON" -c "$CODE"; true'], stdout=subprocess.PIPE, text=True,
                             env=environment)  # fmt: skip
    assert shell.stdout.readline() == "at work\n"
    below = psutil.Process(shell.pid).children(recursive=True)
    assert len(below) == 2
    shell.kill()
    shell.wait()
    assert not psutil.wait_procs(below, timeout=60)[1]


def test_what_has_no_step_has_no_lifeline():
    code = "import threading; from geoloc_core import lifeline as l; l.end_with_step(); print(threading.active_count())"
    environment = {name: value for name, value in os.environ.items() if name != STEP}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def test_a_module_runs_as_it_would_by_itself_and_its_group_ends_with_its_owner(owner, tmp_path):
    (tmp_path / "work.py").write_text(
        "import subprocess, sys\nassert __name__ == '__main__' and sys.argv[1:] == ['a', 'b']\n"
        f"subprocess.run([sys.executable, '-c', {SLEEP!r}])\n"
    )
    words = ["-m", "geoloc_core.lifeline", str(owner.pid), "work", "a", "b"]
    paths = os.pathsep.join([os.environ.get("PYTHONPATH", ""), os.getcwd()])
    process = start(*words, cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths}, start_new_session=True)
    (child,) = process.children()
    owner.kill()
    owner.wait()
    assert process.wait(60) == -9
    assert not psutil.wait_procs([child], timeout=60)[1]


@pytest.mark.slow
def test_no_process_is_started_unseen_while_all_are_ended(monkeypatch):
    monkeypatch.setenv("OF_THIS_TEST", str(os.getpid()))
    shell = psutil.Popen(["sh", "-c", "for i in $(seq 500); do sleep 300 & done; wait"])
    while len(shell.children()) < 20:
        assert shell.is_running()
    found = frozen(shell)
    for process in found:
        process.kill()
    shell.wait()
    psutil.wait_procs(found, timeout=60)
    assert len(found) > 20
    assert not [p for p in psutil.process_iter(["environ"])
                if (p.info["environ"] or {}).get("OF_THIS_TEST") == str(os.getpid())]  # fmt: skip
