"""A process that has the libraries loaded already, from which the stages of a run are forked.

A stage takes seconds of processor time to import its libraries, and a run has hundreds of stages. So a run starts this
process once, and leaves its address in ``$GEOLOC_WARM``: a stage's command, instead of loading anything, hands its
arguments, environment, folder and streams over to a fork of it, passes on signals, and ends as the fork ends. Where
there is no such process, or it is not ready yet, the command does its work itself. The results are the same.

As a command, ``python -m geoloc_core.warm ADDRESS PID`` is that process; it ends with the one of this process id, which
started it.
"""

import gc
import importlib
import io
import json
import os
import selectors
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

ADDRESS = "GEOLOC_WARM"
"""Environment variable of a stage's command: the socket of the process that has the libraries loaded."""
LIBRARIES = (
    "torch",
    "open_clip",
    "transformers",
    "pandas",
    "pyarrow.csv",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "scipy.optimize",
    "scipy.sparse",
    "sklearn.linear_model",
    "numba",
    "shapely",
    "geopandas",
    "pillow_heif",
    "matplotlib.pyplot",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
    "rich.console",
    "jinja2",
    "mlflow",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.system_metrics.system_metrics_monitor",
    "git",
    "msgpack",
)
"""What most stages load: the rest takes little time. A stage loads this project's own modules itself."""
STREAMS = (0, 1, 2)
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
POLL_S = 0.5
KILLED = 128 + signal.SIGKILL


def hand_over() -> None:
    """Let a fork of the process that has the libraries run this command, and end with it; return if there is none."""
    address = os.environ.get(ADDRESS)
    if not address:
        return
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        server.connect(address)
        asked = json.dumps([sys.argv, dict(os.environ), os.getcwd()]).encode()
        socket.send_fds(server, [len(asked).to_bytes(8, "big")], STREAMS)
        server.sendall(asked)
        replies = server.makefile("rb")
        pid = int(replies.readline())
    except (OSError, ValueError):  # it is gone, or never came; nothing has been done
        server.close()
        return

    def pass_on(number: int, _: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, pass_on)
    status = replies.readline()
    code = int(status) if status else KILLED
    if code < 0:  # as the fork was ended, so that whoever waits sees the same
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


@contextmanager
def ready(root: Path) -> Iterator[None]:
    """Have such a process for the commands that are started meanwhile, once it has loaded the libraries.

    Args:
        root: The project.
    """
    import subprocess
    import tempfile

    log = root / ".state" / "logs" / "warm.log"
    log.parent.mkdir(parents=True, exist_ok=True)  # a code server's own run may be the first to come here
    # not below the project: a socket's path has a hundred characters at most
    with tempfile.TemporaryDirectory(prefix="geoloc-") as own, log.open("wb") as said:
        address = f"{own}/warm"
        command = [sys.executable, "-P", "-m", "geoloc_core.warm", address, str(os.getpid())]
        with subprocess.Popen(command, cwd=root, stdin=subprocess.DEVNULL, stdout=said, stderr=said) as process:  # noqa: S603
            os.environ[ADDRESS] = address
            try:
                yield
            finally:
                del os.environ[ADDRESS]
                process.kill()  # it may have inherited that it ignores other signals


def serve(address: str, owner: int) -> list[str]:
    """Load the libraries, and fork for each command that is handed over.

    Args:
        address: Where to wait for commands: the path of a new socket.
        owner: The process that started this one, which ends with it.

    Returns:
        In a fork alone: the command, with everything as in the process that handed it over.
    """
    _load()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening, selectors.DefaultSelector() as waiting:
        listening.bind(address)
        listening.listen(64)
        listening.setblocking(False)
        waiting.register(listening, selectors.EVENT_READ)
        clients: dict[int, socket.socket] = {}
        with _woken_by_children(waiting):
            while os.getppid() == owner:
                for key, _ in waiting.select(POLL_S):
                    if key.fileobj is not listening:
                        os.read(key.fd, 1024)
                        continue
                    client, _address = listening.accept()
                    command = _forked(client, clients)
                    if command is not None:
                        waiting.close()
                        for inherited in (listening, *clients.values()):
                            inherited.close()
                        return command
                _tell_ended(clients)
    sys.exit()


def _load() -> None:
    from geoloc_core.cli import set_quiet
    from geoloc_core.project import Project
    from geoloc_core.threads import limit

    set_quiet()
    # a library may ask for a GPU when it is loaded: not by opening it, which no fork could then use
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    limit(Project.open(Path("params.yaml")).profile.threads)
    for name in LIBRARIES:
        importlib.import_module(name)
    _load_lazy()
    sys.stdout.flush()  # what a library has said; a fork would say it again
    gc.freeze()  # what is loaded is for good, and its memory shared


def _load_lazy() -> None:
    """Let libraries load what they would load when they are first used."""
    from numba import njit
    from PIL import Image
    from sqlalchemy.orm import configure_mappers

    Image.init()
    configure_mappers()  # of MLflow's tables
    njit(lambda value: value)(1)


@contextmanager
def _woken_by_children(waiting: selectors.BaseSelector) -> Iterator[None]:
    """Let the loop wait for children that end, too."""
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writes, warn_on_full_buffer=False)
    waiting.register(reads, selectors.EVENT_READ)
    try:
        yield
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.close(reads)
        os.close(writes)


def _forked(client: socket.socket, clients: dict[int, socket.socket]) -> list[str] | None:
    """Fork for a client. Returns the command in the fork, and None in the process itself."""
    client.setblocking(True)
    streams: list[int] = []
    try:
        size, streams, _, _ = socket.recv_fds(client, 8, len(STREAMS))
        command, environment, folder = json.loads(_exactly(client, int.from_bytes(size, "big")))
    except (OSError, ValueError):  # it ended while it asked
        client.close()
        for stream in streams:
            os.close(stream)
        return None
    pid = os.fork()
    if pid:
        for stream in streams:
            os.close(stream)
        clients[pid] = client
        with suppress(OSError):
            client.sendall(f"{pid}\n".encode())
        return None
    _become(streams, environment, folder)
    threading.Thread(target=_end_with, args=(client,), name="warm", daemon=True).start()
    return command


def _exactly(client: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        part = client.recv(size - len(received))
        if not part:
            raise ConnectionError
        received += part
    return received


def _become(streams: list[int], environment: dict[str, str], folder: str) -> None:
    """Take the streams, environment and folder of the command that was handed over."""
    for stream, number in zip(streams, STREAMS, strict=True):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    del os.environ[ADDRESS]  # what it starts itself is no stage
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        old: io.TextIOWrapper = getattr(sys, name)
        by_line = 1 if name == "stderr" or os.isatty(number) else -1
        new = open(number, mode, by_line, encoding=old.encoding, errors=old.errors, closefd=False)  # noqa: SIM115
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)


def _end_with(client: socket.socket) -> None:
    """End this process, and what it started, with the command that was handed over."""
    from geoloc_core import lifeline

    with suppress(OSError):
        client.recv(1)
    lifeline.end_all()


def _tell_ended(clients: dict[int, socket.socket]) -> None:
    """Send each client the exit code of its fork, if that has ended."""
    while clients:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        client = clients.pop(pid, None)
        if client is None:  # started by a library
            continue
        with client, suppress(OSError):
            client.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


if __name__ == "__main__":
    sys.argv = serve(sys.argv[1], int(sys.argv[2]))
    from geoloc_core.cli import main

    main()
