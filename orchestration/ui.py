"""Serve the Dagster and MLflow UIs for this project: ``geoloc ui``."""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from geoloc_core.errors import UserError
from geoloc_core.hook import PAGES
from geoloc_core.registry.tracking import without_secrets
from geoloc_core.yamls import read_yaml
from orchestration.databases import check_databases, whole_databases
from orchestration.environment import enter, project_root
from orchestration.terminal import console, print_error
from orchestration.webserver import ALLOWED_HOSTS, MLFLOW, OF_MODELS

HOST = "127.0.0.1"
PORTS_TRIED = 50
START_S, STOP_S = 180, 20
LONGEST_LOOK_S = 900
"""How long a sensor may look at files; Dagster gives it a minute."""


@dataclass(frozen=True)
class Server:
    """A server that was started.

    Attributes:
        name: Its display name.
        url: Its address.
        health: The path that answers once it is ready.
        process: Its process.
        log: The file with its output.
    """

    name: str
    url: str
    health: str
    process: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Raise :class:`UserError` with its last lines if it has ended."""
        if self.process.poll() is not None:
            said = "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
            raise UserError(f"{self.name} exited with code {self.process.returncode}; see {self.log}\n{said}")

    def answers(self) -> bool:
        """Whether it answers requests."""
        self.check()
        try:
            with urllib.request.urlopen(f"{self.url}{self.health}", timeout=2) as answer:  # noqa: S310 - our own address
                return answer.status == 200
        except (OSError, urllib.error.URLError):
            return False


def main(arguments: list[str] | None = None) -> int:
    """Serve both until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m orchestration.ui", description=__doc__)
    parser.add_argument("--port", type=int, default=3000, help="port of the Dagster UI, or else the next free one")
    parser.add_argument(
        "--mlflow-port", type=int, default=5000, help="port of the MLflow UI, or else the next free one"
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        help="another host name by which the UIs may be opened; repeatable",
    )
    options = parser.parse_args(arguments)
    terminal = console()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        serve(project_root(), options.port, options.mlflow_port, options.allow_host, terminal)
    except UserError as error:
        print_error(terminal, error)
        return 2
    except KeyboardInterrupt:
        return 0
    return 0


def serve(root: Path, port: int, mlflow_port: int, hosts: Sequence[str], terminal: Console) -> NoReturn:
    """Start both servers, print their addresses, and wait.

    Args:
        root: The project.
        port: The first port to try for Dagster.
        mlflow_port: The first port to try for MLflow.
        hosts: Host names besides those of this machine by which the servers may be reached.
        terminal: Where to print.

    Raises:
        UserError: One of them does not start, or exits.
        KeyboardInterrupt: The user pressed Ctrl-C; both have ended.
    """
    enter(root)
    with whole_databases(root):
        _tidy_up()
    store = root / ".state" / "mlflow"
    store.mkdir(parents=True, exist_ok=True)
    check_databases(store, "move it away and start again: you lose the runs and the model registry in it, but no data")
    with ExitStack() as stack:
        with terminal.status("Starting Dagster and MLflow"):
            port = free_port(port)
            mlflow_port = free_port(mlflow_port)
            os.environ |= {ALLOWED_HOSTS: ",".join(hosts), MLFLOW: mlflow_pages(mlflow_port)}
            os.environ |= {PAGES: f"http://{HOST}:{port}", "DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS": str(LONGEST_LOOK_S)}
            workspace = str(Path(__file__).with_name("workspace.yaml"))
            words = ["orchestration.webserver", "dev", "-w", workspace, "-h", HOST, "-p", str(port)]
            dagster = stack.enter_context(_started("Dagster", words, root, port, "/server_info"))
            database = f"sqlite:///{store / 'mlflow.db'}"
            words = ["mlflow", "ui", "--backend-store-uri", database, "--workers", "1"]
            words += ["--host", HOST, "--port", str(mlflow_port)]
            if hosts:
                own = ("localhost", HOST, "[::1]")  # given any name, MLflow drops its defaults
                words += ["--allowed-hosts", ",".join(f"{host},{host}:*" for host in (*own, *hosts))]
            mlflow = stack.enter_context(_started("MLflow", words, store, mlflow_port, "/health"))
            _wait_for([dagster, mlflow])
        for server, page in ((dagster, dagster.url), (mlflow, runs_page(os.environ[MLFLOW], root))):
            terminal.print(f"{server.name:<8} {page}", soft_wrap=True)
        terminal.print("Press Ctrl-C to stop both")
        while True:
            time.sleep(0.5)
            dagster.check()
            mlflow.check()


def mlflow_pages(port: int) -> str:
    """The address of the MLflow UI: that of the tracking server, or of this machine's UI at a port."""
    remote = os.environ.get("MLFLOW_TRACKING_URI", "")
    if remote.startswith(("http://", "https://")):
        return without_secrets(remote).rstrip("/")
    return f"http://{HOST}:{port}"


def runs_page(pages: str, root: Path) -> str:
    """The page of MLflow's UI with the project's runs; of all experiments where there are none, or none are shown.

    Args:
        pages: The address of the UI. By itself it opens on what MLflow has for chat applications.
        root: The project.
    """
    model = ((read_yaml(root / "params.yaml") or {}).get("run") or {}).get("registry", {}).get("model", "")
    query = urllib.parse.urlencode({"experiment_name": model})
    asked = f"{pages}/api/2.0/mlflow/experiments/get-by-name?{query}"
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:  # noqa: S310 - MLflow's server
            page = f"experiments/{json.load(answer)['experiment']['experiment_id']}/runs"
    except (OSError, ValueError, KeyError, TypeError):
        page = "experiments"
    return f"{pages}/#/{page}{OF_MODELS}"


def free_port(first: int) -> int:
    """The first free port from this one on.

    Raises:
        UserError: None of the next ports is free.
    """
    for port in range(first, first + PORTS_TRIED):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise UserError(f"ports {first} to {first + PORTS_TRIED - 1} are all taken; choose another one")


def _tidy_up() -> None:
    from orchestration.compat import check_versions
    from orchestration.instance import opened_instance

    check_versions()
    with opened_instance():
        pass


@contextmanager
def _started(name: str, words: Sequence[str], folder: Path, port: int, health: str) -> Iterator[Server]:
    """A server in its own process group, so that only this process sends it the signal of a Ctrl-C."""
    log = project_root() / ".state" / "logs" / f"{name.lower()}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stream:
        process = subprocess.Popen(  # noqa: S603 - commands of this environment
            [sys.executable, "-P", "-m", "geoloc_core.lifeline", str(os.getpid()), *words],
            cwd=folder,
            env={**os.environ, **_safe_path()},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    try:
        yield Server(name, f"http://{HOST}:{port}", health, process, log)
    finally:
        _stop(process)


def _safe_path() -> dict[str, str]:
    """Variables that keep the folder of a program, here that of the project, off the path of modules (``python -P``).

    Dagster's code server always drops the first entry, which is that folder without ``-P``: give it another to drop.
    """
    kept = os.environ.get("PYTHONPATH")
    return {"PYTHONSAFEPATH": "1", **({"PYTHONPATH": os.pathsep.join([os.devnull, kept])} if kept else {})}


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # whatever it left behind


def _wait_for(servers: Sequence[Server]) -> None:
    deadline = time.monotonic() + START_S
    waiting = list(servers)
    while waiting:
        waiting = [server for server in waiting if not server.answers()]
        if waiting and time.monotonic() > deadline:
            raise UserError(f"{waiting[0].name} did not answer within {START_S} s; see its log {waiting[0].log}")
        time.sleep(0.3)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
