"""What MLflow remembers of the stages: a run for each training. Beside the registry, the only module that imports it.

A run belongs to what it made: it carries the SHA-256 of the model folder as a tag, so that a model restored from
DVC's cache still finds the run that trained it, and so that DVC's outputs do not depend on run ids.

A run ends when its stage does, whatever ends that: by itself or by a signal it says so at once; after a kill that
nothing survives, the next run on the same host says it, since each carries the process that made it.
"""

import errno
import fcntl
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil  # type: ignore[import-untyped]

from geoloc_core import telemetry
from geoloc_core.contracts.metrics import COUNTS
from geoloc_core.errors import UserError
from geoloc_core.files import digest, write_json
from geoloc_core.project import Project
from geoloc_core.yamls import parse_yaml

if TYPE_CHECKING:
    from mlflow import MlflowClient

CODE = ("geoloc_core", "orchestration", "dvc.yaml", "requirements.lock")
"""What a result depends on beside data and parameters, of which DVC's lock file tells."""
DIGEST = "geoloc.model_sha256"
RESTORES = "geoloc.restores_sha256"
"""Tag of a run for a model that was pulled, as long as the model's files may not all be there."""
KIND = "mlflow.experimentKind"
"""Tag of an experiment that MLflow's pages go by: without it they take one for a chat application's."""
NOTE = "mlflow.note.content"
"""Tag of an experiment or a run that its page shows as the description."""
ABOUT = """Models that say where on Earth a photo was taken. A run is one training of an encoder or of a variant.

- Charts and comparisons: metrics are grouped by benchmark, as in `im2gps3k/within_750km`; `majority` is what always
  answering the most frequent class comes to; `best` is the epoch that was kept, beside the curves over all epochs.
- Inputs are named and hashed as DVC has them; the tag `git.revision` is the code.
- Registered versions and their model cards are under Model registry."""
"""What is said of the experiment."""
PROCESS = "geoloc.process"
"""Tag of who is at work: host, process, and the second after the host's start in which that process started."""


def store(project: Project) -> Path:
    """The folder of the embedded database, of the artifacts and of the notes that link stages to runs."""
    return project.state / "mlflow"


def uri(project: Project) -> str:
    """Where runs are kept: ``MLFLOW_TRACKING_URI``, or the project's own SQLite database."""
    return os.environ.get("MLFLOW_TRACKING_URI") or _own(project)


def without_secrets(text: str) -> str:
    """A text whose addresses have no ``user:password@``, to be shown."""
    return re.sub(r"(?<=://)(?:[^/\s:@]*:\S*|[^/\s@]*)@", "", text)


def _own(project: Project) -> str:
    return f"sqlite:///{store(project) / 'mlflow.db'}"


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Hold a lock that the system gives back when this process ends, however it ends.

    Raises:
        UserError: There can be no such file.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("w")
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise UserError(f"{path}: cannot be made there ({error.strerror}); expected a folder to write to") from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def host() -> str:
    """The name of this machine: ``GEOLOC_HOST`` where its own changes, as that of a pod does when it is replaced."""
    return os.environ.get("GEOLOC_HOST") or socket.gethostname()


def process() -> str:
    """This process, as :data:`PROCESS` has it."""
    return f"{host()} {os.getpid()} {_started(psutil.Process()):.2f}"


def _started(found: psutil.Process) -> float:
    return found.create_time() - psutil.boot_time()  # which stays the same when the clock is set


def is_gone(tag: str | None) -> bool:
    """Whether a process of this host, as :data:`PROCESS` names it, has ended; False for others and for no tag."""
    name, _, rest = (tag or "").partition(" ")
    pid, _, started = rest.partition(" ")
    if name != host():
        return False
    try:
        found = psutil.Process(int(pid))
        return found.status() == psutil.STATUS_ZOMBIE or abs(_started(found) - float(started)) > 0.05
    except psutil.NoSuchProcess:
        return True
    except (psutil.AccessDenied, ValueError):  # another user's, or no tag of ours: not to be touched
        return False


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let what asks this process to end do so as Ctrl-C does, so that the block can close what it opened."""

    def stop(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # what was told to ignore a signal, as nohup does, goes on ignoring it
    asked = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in asked}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def client(project: Project) -> "MlflowClient":
    """MLflow's client, on a database that is ready.

    Several processes that open a new SQLite database at once would each try to create its tables, and fail.
    """
    for name, value in telemetry.OFF.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # its own 7 take minutes to say that nobody answers
    import mlflow

    place = uri(project)
    with one_at_a_time(store(project) / "lock"):
        try:
            _look_into(store(project) / "mlflow.db" if place == _own(project) else None)
            found = mlflow.MlflowClient(place, place)
            found.search_experiments(max_results=1)
        except Exception as error:  # MLflow's, Alembic's, SQLAlchemy's and requests' own, by what is wrong
            raise _unusable(project, error) from None
    return found


def _look_into(database: Path | None) -> None:
    """Find at once what MLflow would try to open again and again for minutes.

    Raises:
        sqlite3.Error: It is no database, or it is locked.
    """
    if database and database.exists():
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as opened:
            opened.execute("SELECT count(*) FROM sqlite_master")


@contextmanager
def answering(project: Project) -> Iterator[None]:
    """Say in one line why MLflow's store does not answer in the block.

    Raises:
        UserError: It is gone, damaged, locked, not to be written to, or refuses.
    """
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, RequestException, SQLAlchemyError) as error:
        raise _unusable(project, error) from None


def _unusable(project: Project, error: Exception) -> UserError:
    reason = without_secrets(" ".join(str(error).split()))[:200]
    if uri(project) == _own(project):
        remedy = f"run it again if another program is at work on it; else move {store(project)} away for a new one"
    else:
        remedy = "start its server, or correct or unset MLFLOW_TRACKING_URI"
    return UserError(f"{without_secrets(uri(project))}: MLflow's store cannot be used ({reason}); {remedy}")


@contextmanager
def fluent(project: Project) -> Iterator[None]:
    """Point MLflow's module-level functions at the project, and back: they change the whole process' environment."""
    import mlflow

    kept = {name: os.environ.get(name) for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")}
    mlflow.set_tracking_uri(uri(project))
    mlflow.set_registry_uri(uri(project))
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)
        mlflow.set_registry_uri("")
        for name, value in kept.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def experiment(project: Project, mlflow_client: "MlflowClient") -> str:
    """Id of the experiment of the project's runs, made if it is not there yet.

    Raises:
        UserError: It was deleted.
    """
    name = project.profile.registry.model
    with one_at_a_time(store(project) / "lock"):
        found = mlflow_client.get_experiment_by_name(name)
        if found and found.lifecycle_stage == "deleted":
            address = without_secrets(uri(project))
            raise UserError(
                f"experiment {name!r}: deleted in MLflow, its runs have nowhere to go; "
                f"run `MLFLOW_TRACKING_URI={address} mlflow experiments restore -x {found.experiment_id}`"
            )
        shown = {KIND: "custom_model_development", NOTE: ABOUT}
        if found:
            for key, value in shown.items():
                if key not in found.tags:  # made by an earlier version, or by hand
                    mlflow_client.set_experiment_tag(found.experiment_id, key, value)
            return found.experiment_id
        place = (store(project) / "artifacts").as_uri() if uri(project) == _own(project) else None
        return mlflow_client.create_experiment(name, artifact_location=place, tags=shown)


def settle(mlflow_client: "MlflowClient", experiment_id: str) -> None:
    """Mark the runs as killed whose process on this host has ended without a word."""
    for found in mlflow_client.search_runs([experiment_id], "attributes.status = 'RUNNING'"):
        if is_gone(found.data.tags.get(PROCESS)):
            _end(mlflow_client, found.info.run_id, "KILLED")


def _end(mlflow_client: "MlflowClient", run_id: str, status: str) -> None:
    """End a run, at which no process is at work any more."""
    from mlflow.exceptions import MlflowException

    mlflow_client.set_terminated(run_id, status)
    with suppress(MlflowException):  # another process has ended it too
        mlflow_client.delete_tag(run_id, PROCESS)


@dataclass(frozen=True)
class Log:
    """The open run of a stage: call it with the metrics of an epoch.

    Its methods raise :class:`UserError` where MLflow's store does not answer.
    """

    project: Project
    client: "MlflowClient"
    run_id: str

    def __call__(self, metrics: dict[str, float], step: int) -> None:
        """Log metrics of one step."""
        import time

        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        with answering(self.project):
            self.client.log_batch(self.run_id, metrics=[Metric(k, float(v), now, step) for k, v in metrics.items()])

    def model(self, folder: Path) -> None:
        """Keep a trained model with its run, and mark the run as the one that made it."""
        with answering(self.project):
            self.client.log_artifacts(self.run_id, str(folder), "model")
            self.client.set_tag(self.run_id, DIGEST, digest(folder))


@contextmanager
def run(project: Project, stage: str, name: str, params: dict[str, Any], reads: list[Path]) -> Iterator[Log]:
    """A run of one stage: parameters, git revision, hashes of what it read, and system metrics while it lasts.

    It ends as ``FINISHED``, ``FAILED``, or ``KILLED`` by Ctrl-C or a signal, which first unwinds the block.

    Args:
        project: The project.
        stage: Such as ``train``.
        name: What the stage makes, such as a variant.
        params: Its block of parameters.
        reads: Files and folders under ``data/`` that it reads.

    Raises:
        UserError: MLflow's store cannot be used.
    """
    mlflow_client = client(project)
    from mlflow.entities import Param
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
    from mlflow.tracking.context.registry import resolve_tags

    tags = {**resolve_tags(), "mlflow.runName": f"{stage} {name}", "geoloc.stage": stage, "geoloc.name": name}
    tags |= _revision(project.root) | _family(project, name, params)
    tags |= {"geoloc.demo": str(project.profile.demo).lower(), "geoloc.profile": project.chosen, PROCESS: process()}
    with _stoppable():
        with answering(project):
            experiment_id = experiment(project, mlflow_client)
            settle(mlflow_client, experiment_id)
            run_id = mlflow_client.create_run(experiment_id, tags=tags).info.run_id
        monitor = SystemMetricsMonitor(run_id, sampling_interval=5, tracking_uri=uri(project))
        try:
            write_json(
                store(project) / "runs" / stage / f"{name}.json", {"run_id": run_id, "experiment_id": experiment_id}
            )
            with answering(project):
                stated = {"seed": project.profile.seed, "threads": project.profile.threads, **params}
                mlflow_client.log_batch(run_id, params=[Param(key, str(value)) for key, value in _flat(stated).items()])
                _log_inputs(mlflow_client, run_id, "training", _hashes(project, reads))
            monitor.start()
            yield Log(project, mlflow_client, run_id)
        except BaseException as error:
            stopped = isinstance(error, KeyboardInterrupt | SystemExit)
            with suppress(Exception):  # what went wrong first is what is to be told
                monitor.finish()
                _end(mlflow_client, run_id, "KILLED" if stopped else "FAILED")
            raise
        monitor.finish()
        with answering(project):
            _end(mlflow_client, run_id, "FINISHED")


def _family(project: Project, name: str, params: dict[str, Any]) -> dict[str, str]:
    """Tags of what is trained: its family, and the row of a paper that it stands for."""
    from geoloc_core.evaluation import published

    paper = published.tables().source(name)
    return ({"family": params["kind"]} if "kind" in params else {}) | ({"paper": paper} if paper else {})


def _log_inputs(
    mlflow_client: "MlflowClient",
    run_id: str,
    context: str,
    hashes: dict[str, str],
    counts: dict[str, Any] | None = None,
) -> None:
    """Name what a run has read, by path or benchmark, with the hash of each and, where they are given, its counts."""
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.exceptions import MlflowException

    longest = 36  # of a hash, in MLflow; DVC's of a folder is as long
    inputs = [
        DatasetInput(
            Dataset(
                name.removeprefix("data/"),
                value[:longest],
                "local",
                json.dumps({"uri": name}),
                profile=json.dumps(counts[name]) if counts else None,
            ),
            [InputTag("mlflow.data.context", context)],
        )
        for name, value in hashes.items()
        if value
    ]
    if not inputs:
        return
    # MLflow looks whether it knows the data, and then adds it: another run may do so in between, once for each of them
    for left in reversed(range(len(inputs) + 1)):
        try:
            mlflow_client.log_inputs(run_id, inputs)
            return
        except MlflowException as error:
            if not left or "unique" not in str(error).lower():
                raise


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _hashes(project: Project, reads: list[Path]) -> dict[str, str]:
    """DVC's hashes of what a stage reads, from the lock file: the library itself never imports DVC."""
    import yaml

    lock = project.root / "dvc.lock"
    if not lock.is_file():
        return {}
    try:
        stages = (parse_yaml(lock.read_bytes()) or {}).get("stages", {})
        known = {out["path"]: out.get("md5", "") for stage in stages.values() for out in stage.get("outs", [])}
    except (yaml.YAMLError, AttributeError, KeyError, TypeError):
        return {}  # another stage has just ended, and DVC is writing the file: no reason to fail a training
    wanted = {path.relative_to(project.root).as_posix() for path in reads}
    return {path: value for path, value in known.items() if path in wanted}


@dataclass(frozen=True)
class Revision:
    """The code of a project.

    Attributes:
        commit: Of its git repository.
        changed: Whether it differs from that.
    """

    commit: str
    changed: bool


def revision(root: Path) -> Revision | None:
    """The code of a project now; None where it is in no git repository."""

    def git(*words: str) -> str:
        found = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False)  # noqa: S603, S607
        return found.stdout.strip()

    commit = git("rev-parse", "HEAD")
    return Revision(commit, bool(git("status", "--porcelain", "--", *CODE))) if commit else None


def _revision(root: Path) -> dict[str, str]:
    """Tags of the code."""
    found = revision(root)
    if found is None:
        return {}
    changed = ", changed since" if found.changed else ""
    return {"mlflow.source.git.commit": found.commit, "git.revision": f"{found.commit[:10]}{changed}"}


def run_of(project: Project, mlflow_client: "MlflowClient", variant: str) -> str:
    """Id of the newest run that made a variant's present model; a new run where none did (a model that was pulled).

    Such a run that a kill left unfinished is finished.
    """
    made = digest(project.model(variant))
    experiment_id = experiment(project, mlflow_client)

    def newest(tag: str) -> str | None:
        found = mlflow_client.search_runs(
            [experiment_id], f"tags.`{tag}` = '{made}'", order_by=["attributes.start_time DESC"], max_results=1
        )
        return found[0].info.run_id if found else None

    if known := newest(DIGEST):
        return known
    block = project.profile.variants[variant]
    tags = {
        "mlflow.runName": f"restored {variant}",
        **_family(project, variant, {"kind": block.kind}),
        "geoloc.stage": "train",
        "geoloc.name": variant,
        RESTORES: made,
        PROCESS: process(),
    }
    run_id: str = newest(RESTORES) or (
        mlflow_client.create_run(experiment_id, tags={**tags, **_revision(project.root)}).info.run_id
    )
    mlflow_client.log_artifacts(run_id, str(project.model(variant)), "model")
    _end(mlflow_client, run_id, "FINISHED")
    mlflow_client.set_tag(run_id, DIGEST, made)
    return run_id


def log_scores(project: Project, reports: dict[str, dict[str, Any]], cards: dict[str, str]) -> None:
    """Add the scores of variants to the runs that trained them: figures, what they were measured on, plots, a text.

    Args:
        project: The project.
        reports: By variant, its scores.
        cards: By variant, its model card.

    Raises:
        UserError: MLflow's store cannot be used.
    """
    from mlflow.entities import RunTag

    mlflow_client = client(project)
    with answering(project):
        settle(mlflow_client, experiment(project, mlflow_client))
        for variant, report in reports.items():
            run_id = run_of(project, mlflow_client, variant)
            Log(project, mlflow_client, run_id)(_grouped(report["benchmarks"]), 0)
            short = {name: value[:12] for name, value in report["sha256"].items()}  # shown beside the name
            counts = {name: {key: found.get(key) for key in COUNTS} for name, found in report["benchmarks"].items()}
            _log_inputs(mlflow_client, run_id, "evaluation", short, counts)
            tags = _family(project, variant, {}) | {NOTE: cards.get(variant, "")}
            mlflow_client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
            for stage in ("train", "score"):
                if project.plot(stage, variant).is_file():
                    mlflow_client.log_artifact(run_id, str(project.plot(stage, variant)), f"plots/{stage}")


def _grouped(benchmarks: dict[str, dict[str, float | None]]) -> dict[str, float]:
    """Figures by the names under which MLflow puts them together, those of the baseline apart, and no counts."""
    baseline = "majority_"
    return {
        f"{name}/majority/{metric.removeprefix(baseline)}" if metric.startswith(baseline) else f"{name}/{metric}": value
        for name, figures in benchmarks.items()
        for metric, value in figures.items()
        if value is not None and metric not in COUNTS
    }
