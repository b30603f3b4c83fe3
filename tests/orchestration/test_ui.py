"""The pages, in a real browser."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from orchestration.ui import free_port
from tests.orchestration.small_project import REPOSITORY


def test_a_port_that_is_taken_is_passed_over():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        first = taken.getsockname()[1]
        assert free_port(first) > first


@pytest.fixture
def pages(project):
    environment = {**os.environ, "GEOLOC_ROOT": str(project), "PYTHONPATH": str(REPOSITORY)}
    words = ["--port", str(free_port(3400)), "--mlflow-port", str(free_port(5400))]
    command = [sys.executable, "-m", "orchestration.ui", *words]
    log = project / "ui.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(command, cwd=project, env=environment, stderr=stream, stdout=stream)
    try:
        deadline = time.monotonic() + 200
        while "Ctrl-C" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
        yield dict(line.split() for line in log.read_text().splitlines()[:2])
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
    assert process.returncode == 0, log.read_text()
    assert not any(_names(project, pid) for pid in os.listdir("/proc") if pid.isdigit())


def _names(project, pid):
    try:
        with open(f"/proc/{pid}/environ", "rb") as stream:
            return f"GEOLOC_ROOT={project}".encode() in stream.read()
    except OSError:
        return False


@pytest.mark.slow
def test_both_pages_open_and_close(pages, tmp_path):
    with urllib.request.urlopen(f"{pages['MLflow']}/", timeout=30) as answer:
        assert b"MLflow" in answer.read()
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("chromium is not on PATH")
    picture = tmp_path / "assets.png"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1700,1000", "--virtual-time-budget=30000"]
    page = f"{pages['Dagster']}/asset-groups"
    subprocess.run([browser, *flags, f"--screenshot={picture}", page], check=True, capture_output=True, timeout=180)
    text = subprocess.run(
        [browser, *flags, "--dump-dom", page], check=True, capture_output=True, text=True, timeout=180
    )
    assert picture.stat().st_size > 20_000
    for group in ("1_fetch", "2_ingest", "4_encode", "5_train"):
        assert group in text.stdout
