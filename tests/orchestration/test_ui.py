"""The pages, in a real browser."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import httpx
import psutil
import pytest
import yaml

from orchestration.ui import free_port, mlflow_pages, runs_page
from tests.orchestration.small_project import REPOSITORY


def test_a_port_that_is_taken_is_passed_over():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        first = taken.getsockname()[1]
        assert free_port(first) > first


@pytest.mark.parametrize(
    ("kept", "pages"),
    [
        ("", "http://127.0.0.1:5007"),
        ("sqlite:///mlflow.db", "http://127.0.0.1:5007"),
        ("https://ann:s3cret@mlflow.example.org/base/", "https://mlflow.example.org/base"),
        ("http://10.0.0.2:5000", "http://10.0.0.2:5000"),
    ],
)
def test_the_pages_of_runs_are_where_the_runs_are(kept, pages, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", kept)
    assert mlflow_pages(5007) == pages


def start(project, *words):
    environment = {**os.environ, "GEOLOC_ROOT": str(project), "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-P", "-m", "orchestration.ui", *words]
    with (project / "ui.log").open("wb") as stream:
        return subprocess.Popen(command, cwd=project, env=environment, stderr=stream, stdout=stream)


def served(project, process):
    """Where both pages are, once they are served."""
    log = project / "ui.log"
    deadline = time.monotonic() + 200
    while "Ctrl-C" not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.5)
    return dict(line.split() for line in log.read_text().splitlines()[:2])


def server(page):
    """The address of the server of a page."""
    return page.partition("/#")[0]


def alive(project):
    return [pid for pid in psutil.pids() if _names(project, pid)]


@pytest.fixture
def pages(project):
    process = start(project, "--port", str(free_port(3400)), "--mlflow-port", str(free_port(5400)),
                    "--allow-host", "geoloc.example.org")  # fmt: skip
    try:
        yield served(project, process)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
    assert process.returncode == 0, (project / "ui.log").read_text()
    assert not alive(project)


def _names(project, pid):
    try:
        return psutil.Process(pid).environ().get("GEOLOC_ROOT") == str(project)
    except psutil.Error:
        return False


def status(url, host, **headers):
    """What a server answers to whoever calls it by a name."""
    return httpx.get(url, headers={"Host": host, **headers}).status_code


def served_assets(url):
    """The keys of the assets that the page of Dagster shows."""
    answer = httpx.post(f"{url}/graphql", json={"query": "{ assetNodes { assetKey { path } } }"}, timeout=60)
    return [node["assetKey"]["path"] for node in answer.json()["data"]["assetNodes"]]


@pytest.mark.slow
def test_the_servers_answer_to_their_own_names_only_and_end_with_whoever_started_them(project):
    first = free_port(3450)
    process = start(project, "--port", str(first), "--mlflow-port", str(free_port(5450)))
    try:
        for url in map(server, served(project, process).values()):
            own = url.removeprefix("http://")
            assert status(url, own) == 200
            assert status(url, f"localhost:{own.partition(':')[2]}") == 200
            assert status(url, "evil.example.org") == 403
        found = alive(project)
        assert len(found) > 4
    finally:
        process.kill()
        process.wait()
    deadline = time.monotonic() + 60
    while left := alive(project):
        assert time.monotonic() < deadline, [psutil.Process(pid).cmdline() for pid in left]
        time.sleep(0.2)


@pytest.mark.slow
def test_both_pages_open_and_close(pages, project):
    mlflow = server(pages["MLflow"])
    assert pages["MLflow"] == f"{mlflow}/#/experiments?workflowType=machine_learning", "there is no experiment yet"
    with urllib.request.urlopen(f"{mlflow}/", timeout=30) as answer:
        assert b"MLflow" in answer.read()
    made = httpx.post(f"{mlflow}/api/2.0/mlflow/experiments/create", json={"name": "of one & all"}, timeout=60)
    params = {"run": {"registry": {"model": "of one & all"}}}
    (project / "named").mkdir()
    (project / "named" / "params.yaml").write_text(yaml.safe_dump(params))
    number = made.json()["experiment_id"]
    shown = f"{mlflow}/#/experiments/{number}/runs?workflowType=machine_learning"
    assert runs_page(mlflow, project / "named") == shown
    led = httpx.get(f"{pages['Dagster']}/mlflow/experiments/1/runs/a")
    assert led.headers["location"] == f"{mlflow}/#/experiments/1/runs/a?workflowType=machine_learning"
    for url in (pages["Dagster"], mlflow):
        assert [status(url, host) for host in ("geoloc.example.org", "evil.example.org")] == [200, 403]
    question = {"query": "{ version }"}
    for origin, code in ((pages["Dagster"], 200), ("http://evil.example.org", 403), ("null", 403)):
        asked = httpx.post(f"{pages['Dagster']}/graphql", json=question, headers={"Origin": origin}, timeout=30)
        assert asked.status_code == code
    assert {"fetch", "ingest", "encode", "train_head"} <= {stage for stage, *_ in served_assets(pages["Dagster"])}
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("chromium is not on PATH")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1700,1000", "--virtual-time-budget=30000"]
    page = f"{pages['Dagster']}/asset-groups"
    text = subprocess.run(
        [browser, *flags, "--dump-dom", page], check=True, capture_output=True, text=True, timeout=180
    )
    for group in ("1_fetch", "2_ingest", "4_encode", "5_train"):
        assert group in text.stdout
