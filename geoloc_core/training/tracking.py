"""What MLflow remembers: the only module that imports it.

A run belongs to what it made: it carries the SHA-256 of the model folder as a tag, so that a model restored from
DVC's cache still finds the run that trained it, and so that DVC's outputs do not depend on run ids.
"""

import fcntl
import os
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoloc_core.files import digest, read_json, remove, write_json
from geoloc_core.project import Project
from geoloc_core.yamls import parse_yaml

if TYPE_CHECKING:
    from mlflow import MlflowClient

DIGEST = "geoloc.model_sha256"
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""MLflow's words for a model or an alias that is not there."""
UI = "http://127.0.0.1:5000"
"""Where ``make ui`` serves MLflow, for links."""


def store(project: Project) -> Path:
    """The folder of the embedded database, of the artifacts and of the notes that link stages to runs."""
    return project.state / "mlflow"


def uri(project: Project) -> str:
    """Where runs are kept: ``MLFLOW_TRACKING_URI``, or the project's own SQLite database."""
    return os.environ.get("MLFLOW_TRACKING_URI") or _own(project)


def _own(project: Project) -> str:
    return f"sqlite:///{store(project) / 'mlflow.db'}"


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def client(project: Project) -> "MlflowClient":
    """MLflow's client, on a database that is ready.

    Several processes that open a new SQLite database at once would each try to create its tables, and fail.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # its own 7 take minutes to say that nobody answers
    import mlflow

    from geoloc_core.errors import UserError

    place = uri(project)
    with _one_at_a_time(store(project) / "lock"):
        try:
            found = mlflow.MlflowClient(place, place)
            found.search_experiments(max_results=1)
        except Exception as error:  # MLflow's, SQLAlchemy's and requests' own, by the scheme of the address
            reason = " ".join(str(error).split())
            raise UserError(
                f"{place}: MLflow's store cannot be used ({reason[:200]}); start its server, or correct or unset "
                "MLFLOW_TRACKING_URI"
            ) from None
    return found


@contextmanager
def _fluent(project: Project) -> Iterator[None]:
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


def _experiment(project: Project, mlflow_client: "MlflowClient") -> str:
    name = project.profile.registry.model
    with _one_at_a_time(store(project) / "lock"):
        found = mlflow_client.get_experiment_by_name(name)
        if found and found.lifecycle_stage == "deleted":
            from geoloc_core.errors import UserError

            raise UserError(
                f"experiment {name!r}: deleted in MLflow, its runs have nowhere to go; "
                f"run `MLFLOW_TRACKING_URI={uri(project)} mlflow experiments restore -x {found.experiment_id}`"
            )
        if found:
            return found.experiment_id
        place = (store(project) / "artifacts").as_uri() if uri(project) == _own(project) else None
        return mlflow_client.create_experiment(name, artifact_location=place)


@dataclass(frozen=True)
class Log:
    """The open run of a stage: call it with the metrics of an epoch."""

    client: "MlflowClient"
    run_id: str

    def __call__(self, metrics: dict[str, float], step: int) -> None:
        """Log metrics of one step."""
        import time

        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.client.log_batch(self.run_id, metrics=[Metric(k, float(v), now, step) for k, v in metrics.items()])

    def model(self, folder: Path) -> None:
        """Keep a trained model with its run, and mark the run as the one that made it."""
        self.client.log_artifacts(self.run_id, str(folder), "model")
        self.client.set_tag(self.run_id, DIGEST, digest(folder))


@contextmanager
def run(project: Project, stage: str, name: str, params: dict[str, Any], reads: list[Path]) -> Iterator[Log]:
    """A run of one stage: parameters, git revision, hashes of what it read, and system metrics while it lasts.

    Args:
        project: The project.
        stage: Such as ``train``.
        name: What the stage makes, such as a variant.
        params: Its block of parameters.
        reads: Files and folders under ``data/`` that it reads.
    """
    mlflow_client = client(project)
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
    from mlflow.tracking.context.registry import resolve_tags

    tags = {**resolve_tags(), "mlflow.runName": f"{stage} {name}", "geoloc.stage": stage, "geoloc.name": name}
    tags |= {f"dvc.{path}": value for path, value in _hashes(project, reads).items()} | _revision(project.root)
    tags |= {"geoloc.demo": str(project.profile.demo).lower()}
    started = mlflow_client.create_run(_experiment(project, mlflow_client), tags=tags)
    run_id = started.info.run_id
    _note(project, stage, name, started.info.experiment_id, run_id)
    for key, value in _flat({"seed": project.profile.seed, **params}).items():
        mlflow_client.log_param(run_id, key, value)
    monitor = SystemMetricsMonitor(run_id, sampling_interval=5, tracking_uri=uri(project))
    monitor.start()
    try:
        yield Log(mlflow_client, run_id)
    except BaseException:
        monitor.finish()
        mlflow_client.set_terminated(run_id, "FAILED")
        raise
    monitor.finish()
    mlflow_client.set_terminated(run_id, "FINISHED")


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


def _revision(root: Path) -> dict[str, str]:
    def git(*words: str) -> str:
        found = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False)  # noqa: S603, S607
        return found.stdout.strip()

    commit = git("rev-parse", "HEAD")
    return (
        {"mlflow.source.git.commit": commit, "git.dirty": str(bool(git("status", "--porcelain"))).lower()}
        if commit
        else {}
    )


def _note(project: Project, stage: str, name: str, experiment_id: str, run_id: str) -> None:
    """Leave a note for whoever shows the stage: which run it was, and where MLflow shows it."""
    url = f"{UI}/#/experiments/{experiment_id}/runs/{run_id}"
    note = {"run_id": run_id, "experiment_id": experiment_id, "url": url}
    write_json(store(project) / "runs" / stage / f"{name}.json", note)


def run_of(project: Project, mlflow_client: "MlflowClient", variant: str) -> str:
    """Id of the newest run that made a variant's present model; a new run where none did (a model that was pulled)."""
    made = digest(project.model(variant))
    experiment = _experiment(project, mlflow_client)
    found = mlflow_client.search_runs(
        [experiment], f"tags.`{DIGEST}` = '{made}'", order_by=["attributes.start_time DESC"], max_results=1
    )
    if found:
        return found[0].info.run_id
    tags = {
        "mlflow.runName": f"restored {variant}",
        "geoloc.stage": "train",
        "geoloc.name": variant,
        DIGEST: made,
    }
    run_id = mlflow_client.create_run(experiment, tags={**tags, **_revision(project.root)}).info.run_id
    mlflow_client.log_artifacts(run_id, str(project.model(variant)), "model")
    mlflow_client.set_terminated(run_id, "FINISHED")
    return run_id


def log_scores(project: Project, scores: dict[str, dict[str, dict[str, float]]]) -> None:
    """Add the scores of variants to the runs that trained them, one metric per benchmark and score.

    Args:
        project: The project.
        scores: Figures by variant, benchmark and name.
    """
    mlflow_client = client(project)
    for variant, tables in scores.items():
        log = Log(mlflow_client, run_of(project, mlflow_client, variant))
        log({f"{benchmark}.{name}": value for benchmark, table in tables.items() for name, value in table.items()}, 0)


def champion(project: Project) -> tuple[str, Path]:
    """The registered champion: its version, and the folder of its files.

    Raises:
        UserError: There is none yet.
    """
    from geoloc_core.errors import UserError

    mlflow_client = client(project)
    import mlflow

    name = project.profile.registry.model
    try:
        version = mlflow_client.get_model_version_by_alias(name, "champion")
    except mlflow.exceptions.MlflowException as error:
        if error.error_code not in ABSENT:
            raise
        raise UserError(f"model {name!r}: no champion registered; run `make demo` or `geoloc promote` first") from None
    try:
        with _fluent(project):
            files = mlflow.artifacts.download_artifacts(artifact_uri=f"models:/{name}/{version.version}")
    except (mlflow.exceptions.MlflowException, OSError) as error:
        raise UserError(
            f"model {name!r} version {version.version}: its files are gone ({error}); "
            "run `geoloc promote --replace` to put the best variant in its place"
        ) from None
    return version.version, Path(files) / "artifacts" / "geolocator"


def promote(project: Project, replace: bool = False) -> dict[str, Any]:
    """Register the best variant, and make it the champion only when it is better on the named metric.

    Args:
        project: The project.
        replace: Make it the champion whatever the present one scored, as after the benchmark itself has changed.

    Returns:
        What was decided, also written to ``.state/promotion.json``.

    Raises:
        UserError: There is no leaderboard yet, or it is of other parameters.
    """
    from geoloc_core.errors import UserError

    path = project.leaderboard / "leaderboard.json"
    if not path.is_file():
        raise UserError(f"{path}: no such file; run `geoloc leaderboard` first")
    board = read_json(path)
    best, registry = board["best"], project.profile.registry
    asked = (registry.benchmark, registry.metric, project.profile.demo)
    if (best["benchmark"], best["metric"], bool(board["banner"])) != asked:
        raise UserError(f"{path}: not of the present parameters; run `geoloc leaderboard` first")
    with _one_at_a_time(store(project) / "promotion.lock"), _fluent(project):
        decision = _decide(project, best, replace)
    write_json(project.state / "promotion.json", decision)
    return decision


def _decide(project: Project, best: dict[str, Any], replace: bool) -> dict[str, Any]:
    mlflow_client = client(project)
    import mlflow

    registry = project.profile.registry
    candidate = _registered(project, mlflow_client, best, anew=replace)
    mlflow_client.set_registered_model_alias(registry.model, "challenger", candidate.version)
    try:
        holder = mlflow_client.get_model_version_by_alias(registry.model, "champion")
    except mlflow.exceptions.MlflowException as error:
        if error.error_code not in ABSENT:
            raise
        holder = None
    comparable = holder is None or is_comparable(best, holder.tags)
    better = replace or is_better(best, holder.tags if holder else None)
    if better:
        mlflow_client.set_registered_model_alias(registry.model, "champion", candidate.version)
    champion_version = candidate if better else holder
    assert champion_version is not None
    return {
        "promoted": better,
        "comparable": comparable,
        "metric": f"{registry.benchmark}.{registry.metric}",
        "champion": _card(champion_version),
        "candidate": _card(candidate),
        "url": f"{UI}/#/models/{registry.model}/versions/{champion_version.version}",
    }


def is_comparable(candidate: dict[str, Any], holder: dict[str, str]) -> bool:
    """Whether two scores are of the same metric on the same photos."""
    metric = f"{candidate['benchmark']}.{candidate['metric']}"
    return (metric, candidate["benchmark_sha256"]) == (holder["metric"], holder["benchmark_sha256"])


def is_better(candidate: dict[str, Any], holder: dict[str, str] | None) -> bool:
    """Whether a candidate takes the champion's place: strictly better, by the same metric on the same photos.

    Args:
        candidate: ``value``, ``higher_is_better`` and what :func:`is_comparable` reads, of the best variant.
        holder: The tags of the champion's version, or None where there is none.
    """
    if holder is None:
        return True
    if not is_comparable(candidate, holder):
        return False
    gain = candidate["value"] - float(holder["value"])
    return gain > 0 if candidate["higher_is_better"] else gain < 0


def _registered(project: Project, mlflow_client: "MlflowClient", best: dict[str, Any], anew: bool) -> Any:
    """The registry's version of the best variant's present model, registered now if it is not yet, or ``anew``."""
    import mlflow

    name, variant = project.profile.registry.model, best["variant"]
    made = digest(project.model(variant))
    for version in mlflow_client.search_model_versions(f"name = '{name}'"):
        same = version.tags.get(DIGEST) == made and version.tags.get("benchmark_sha256") == best["benchmark_sha256"]
        if not anew and same and version.tags.get("metric") == f"{best['benchmark']}.{best['metric']}":
            return version
    run_id = run_of(project, mlflow_client, variant)
    model_uri = _log_bundle(project, variant, run_id)
    try:
        mlflow_client.create_registered_model(name)
    except mlflow.exceptions.MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    tags = {
        DIGEST: made,
        "variant": variant,
        "metric": f"{best['benchmark']}.{best['metric']}",
        "value": repr(best["value"]),
        "benchmark_sha256": best["benchmark_sha256"],
        "demo": str(project.profile.demo).lower(),
    }
    return mlflow_client.create_model_version(name, model_uri, run_id, tags=tags)


def _log_bundle(project: Project, variant: str, run_id: str) -> str:
    """Log the self-contained model, photos in and places out, to the run that trained it; without any pickle."""
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    from geoloc_core.serving import bundle, pyfunc

    folder = project.partial("promote", variant) / "geolocator"
    bundle.pack(project, variant, folder)
    outputs = [("photo", "long"), ("rank", "long"), ("id", "string"), ("name", "string")]
    places = [("probability", "double"), ("latitude", "double"), ("longitude", "double")]
    signature = ModelSignature(
        inputs=Schema([ColSpec(DataType.binary, "image")]),
        outputs=Schema([ColSpec(kind, column) for column, kind in outputs + places]),
        params=ParamSchema([ParamSpec("top_k", "integer", 5)]),
    )
    with mlflow.start_run(run_id), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*An input example was not provided")  # the signature is written by hand
        logged = mlflow.pyfunc.log_model(
            name="geolocator",
            python_model=pyfunc.__file__,
            artifacts={"geolocator": str(folder)},
            signature=signature,
            pip_requirements=["geoloc"],
        )
    remove(folder.parent)
    return logged.model_uri


def _card(version: Any) -> dict[str, Any]:
    wanted = ("variant", "metric", "value")
    return {
        "version": int(version.version),
        "run_id": version.run_id,
        **{key: version.tags[key] for key in wanted},
    }
