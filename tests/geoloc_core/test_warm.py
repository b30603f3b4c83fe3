"""A command that a fork of another process runs for it: nobody can tell the difference."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from geoloc_core import warm
from tests.conftest import PHOTOS

SERVER = """
import os, subprocess, sys, time
from geoloc_core import warm
warm.LIBRARIES = ()
sys.argv = warm.serve(sys.argv[1], int(sys.argv[2]))
print(os.getcwd(), os.environ.get("SAID"), os.environ.get(warm.ADDRESS), flush=True)
print(input(), file=sys.stderr)
if "wait" in sys.argv:
    child = subprocess.Popen(["sleep", "600"], stdin=-3, stdout=-3, stderr=-3)
    print(os.getpid(), child.pid, flush=True)
    time.sleep(600)
sys.exit(int(sys.argv[-1]))
"""
CLIENT = "from geoloc_core.warm import hand_over; hand_over(); print('by itself')"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A process that waits for commands, in a project without libraries to load, and its address."""
    root = tmp_path_factory.mktemp("w")
    (root / "params.yaml").write_text(yaml.safe_dump({"run": PHOTOS}))
    path = root / "warm"
    with subprocess.Popen([sys.executable, "-c", SERVER, path, str(os.getpid())], cwd=root) as process:
        while not path.exists() and process.poll() is None:
            time.sleep(0.02)
        yield process, path
        process.kill()


@pytest.fixture
def address(server):
    return server[1]


def start(address: Path, folder: Path, *words: str, **pipes) -> subprocess.Popen:
    environment = os.environ | {warm.ADDRESS: str(address), "SAID": "a \udcff b"}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE) | pipes
    client = [sys.executable, "-c", CLIENT, *words]
    return subprocess.Popen(client, cwd=folder, env=environment, text=True, errors="surrogateescape", **pipes)


def ended(pid: int) -> bool:
    try:
        psutil.Process(pid).wait(10)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return False
    return True


def at_work(address: Path, folder: Path) -> tuple[subprocess.Popen, int, int]:
    """A command at work, the process that does it, and a process that this has started."""
    client = start(address, folder, "wait", "0")
    client.stdin.write("hello\n")
    client.stdin.flush()
    client.stdout.readline()
    fork, child = map(int, client.stdout.readline().split())
    return client, fork, child


@pytest.mark.slow
@pytest.mark.parametrize("code", [0, 2, 130])
def test_streams_folder_environment_and_exit_code_are_the_command_s_own(address, tmp_path, code):
    said, errors = (client := start(address, tmp_path, str(code))).communicate("hello\n", timeout=60)
    assert (said, errors, client.returncode) == (f"{tmp_path} a \udcff b None\n", "hello\n", code)


@pytest.mark.slow
def test_many_at_once(address, tmp_path):
    clients = [start(address, tmp_path, str(number)) for number in range(12)]
    assert [client.communicate("x\n", timeout=60) and client.returncode for client in clients] == list(range(12))


def lowest_count(pid):
    """Of open files, over a while in which what others left may end."""
    counts = []
    for _ in range(20):
        counts.append(psutil.Process(pid).num_fds())
        time.sleep(0.02)
    return min(counts)


def test_who_ends_while_asking_leaves_nothing_behind(server, tmp_path):
    process, path = server
    held = lowest_count(process.pid)
    for sent in ([], [(8).to_bytes(8, "big")], [(8).to_bytes(8, "big"), b"[1"]):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(str(path))
            if sent:
                socket.send_fds(client, sent, (0, 1, 2))
    errors = (client := start(path, tmp_path, "0")).communicate("hello\n", timeout=60)[1]
    assert (errors, client.returncode) == ("hello\n", 0), "it goes on"
    deadline = time.time() + 10
    while psutil.Process(process.pid).num_fds() > held and time.time() < deadline:
        time.sleep(0.02)
    assert psutil.Process(process.pid).num_fds() <= held


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_what_ends_the_command_ends_what_works_for_it(address, tmp_path, number):
    client, fork, child = at_work(address, tmp_path)
    client.send_signal(number)
    client.communicate(timeout=60)
    # an interrupt is an exception of Python's own, after which it ends as by that signal
    assert client.returncode == -number
    assert ended(fork)
    if number == signal.SIGKILL:
        assert ended(child)
    else:
        psutil.Process(child).kill()  # which the stage itself would end


def test_what_ends_the_fork_ends_the_command_alike(address, tmp_path):
    client, fork, child = at_work(address, tmp_path)
    os.kill(fork, signal.SIGKILL)
    psutil.Process(child).kill()
    client.communicate(timeout=60)
    assert client.returncode == -signal.SIGKILL


@pytest.mark.parametrize("there", ["nothing", "a file", "one that was killed"])
def test_where_nobody_answers_the_command_does_its_work_itself(server, tmp_path, there):
    address = tmp_path / "warm"
    if there == "a file":
        address.touch()
    elif there == "one that was killed":
        process, address = server
        process.kill()
        process.wait()
    said, errors = start(address, tmp_path, "0").communicate("hello\n", timeout=60)
    assert (said, errors) == ("by itself\n", "")


@pytest.mark.slow
def test_it_ends_with_the_process_that_started_it(tiny_project, tmp_path_factory):
    path = tmp_path_factory.mktemp("w") / "warm"
    starter = (
        "import os, subprocess, sys\n"
        f"server = [sys.executable, '-c', {SERVER!r}, {str(path)!r}, str(os.getpid())]\n"
        "print(subprocess.Popen(server, stdout=subprocess.DEVNULL).pid)"
    )
    done = subprocess.run([sys.executable, "-c", starter], cwd=tiny_project.root, stdout=subprocess.PIPE, text=True)
    assert ended(int(done.stdout))


def test_a_run_has_one_while_it_lasts(tiny_project, monkeypatch):
    monkeypatch.delenv(warm.ADDRESS, raising=False)
    with warm.ready(tiny_project.root):
        (server,) = (p for p in psutil.Process().children() if "geoloc_core.warm" in p.cmdline())
        assert Path(os.environ[warm.ADDRESS]).parent.is_dir()
    assert warm.ADDRESS not in os.environ
    assert not server.is_running()
