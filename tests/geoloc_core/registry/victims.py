"""Processes that stop at a point of their work, to be killed there."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
from mlflow import MlflowClient
from mlflow.store.tracking import sqlalchemy_store  # noqa: F401 (so that no victim has to load it)
from sqlalchemy.orm import configure_mappers

from geoloc_core.project import Project
from geoloc_core.registry import promotion, tracking

CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__])
configure_mappers()


@contextmanager
def waiting(target: Callable[..., None], project: Project, point: str) -> Iterator[psutil.Process]:
    """A process that works in a project and has come to a point, for the block to kill."""
    here = project.root / f"here-{point}"
    process = CONTEXT.Process(target=target, args=(project.root / "params.yaml", point, here))
    process.start()
    try:
        while not here.exists():
            assert process.is_alive(), f"it ended before it came to {point}"
            time.sleep(0.01)
        yield psutil.Process(process.pid)
        process.join()
    finally:
        process.kill()
        process.join()
        here.unlink(missing_ok=True)


def _hear() -> None:
    """Obey the signals that a shell or nohup lets the tests ignore."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def _stop(here: Path) -> None:
    here.touch()
    for _ in range(6000):  # a signal that comes just before a sleep is heard after it
        time.sleep(0.1)


def _stop_after(method: str, here: Path) -> None:
    real = getattr(MlflowClient, method)

    def stopping(*given: Any, **named: Any) -> Any:
        real(*given, **named)
        _stop(here)

    setattr(MlflowClient, method, stopping)


def stage(params: Path, point: str, here: Path) -> None:
    """Train: stop after a method of MLflow's client, or in the training itself."""
    _hear()
    project = Project.open(params)
    if point != "training":
        _stop_after(point, here)
    with tracking.run(project, "train", "linear", {"lr": 1.0}, []) as log:
        log({"loss": 1.0}, 0)
        if point == "training":
            _stop(here)
        log.model(project.model("linear"))


def promote(params: Path, point: str, here: Path) -> None:
    """Promote: stop after a method of MLflow's client, or in the middle of the model's files."""
    _hear()
    if point == "half of the files":

        def half(self: MlflowClient, model_id: str, folder: str) -> None:
            self.log_model_artifact(model_id, f"{folder}/MLmodel")
            _stop(here)

        MlflowClient.log_model_artifacts = half
    else:
        _stop_after(point, here)
    promotion.promote(Project.open(params))


def roll_back(params: Path, point: str, here: Path) -> None:
    """Roll back: stop after a method of MLflow's client."""
    _hear()
    _stop_after(point, here)
    promotion.roll_back(Project.open(params), "no good")
