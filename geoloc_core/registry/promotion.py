"""MLflow's registry: the best variant as a version that carries its code and its weights, and who is the champion.

Promotion may be killed anywhere and run again. What it has begun carries the tag of its process until it is whole; the
next one finishes or removes what it finds, and aliases move last, to versions whose files are all there.
"""

import warnings
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoloc_core.errors import UserError
from geoloc_core.files import digest, remove, write_json
from geoloc_core.project import Project
from geoloc_core.registry import tracking

if TYPE_CHECKING:
    from mlflow import MlflowClient

ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""MLflow's words for a model or an alias that is not there."""
FILES = "files"
"""Tag of a version: how many files and bytes it has, written when all are there."""
LIBRARIES = (
    "huggingface-hub",
    "jinja2",
    "markupsafe",
    "numba",
    "numpy",
    "onnxruntime",
    "open-clip-torch",
    "pandas",
    "pillow",
    "pillow-heif",
    "pyarrow",
    "pydantic",
    "pydantic-core",
    "pyyaml",
    "rich",
    "safetensors",
    "scipy",
    "simplejpeg",
    "threadpoolctl",
    "timm",
    "torch",
    "torchvision",
    "transformers",
)
"""What the code that travels with a model imports to answer, beside MLflow, which names itself."""


def champion(project: Project) -> tuple[str, Path]:
    """The registered champion: its version, and the folder of its files.

    Raises:
        UserError: There is none yet, its files are gone, or MLflow's store cannot be used.
    """
    mlflow_client = tracking.client(project)
    import mlflow

    name = project.profile.registry.model
    with tracking.answering(project):
        version = _holder(mlflow_client, name)
    if version is None:
        raise UserError(f"model {name!r}: no champion registered; run `make demo` or `geoloc promote` first")
    try:
        with tracking.fluent(project):
            files = mlflow.artifacts.download_artifacts(artifact_uri=f"models:/{name}/{version.version}")
    except (mlflow.exceptions.MlflowException, OSError) as error:
        raise UserError(
            f"model {name!r} version {version.version}: its files are gone ({' '.join(str(error).split())[:200]}); "
            "run `geoloc promote --replace` to put the best variant in its place"
        ) from None
    return version.version, Path(files) / "artifacts" / "geolocator"


def promote(project: Project, replace: bool = False) -> dict[str, Any]:
    """Register the best variant, and make it the champion only when it is better on the named metric.

    Args:
        project: The project.
        replace: Make it the champion whatever the present one scored, as after the benchmark itself has changed, and
            write its files again.

    Returns:
        What was decided, also written to ``.state/promotion.json``.

    Raises:
        UserError: There is no leaderboard yet, it is of other parameters, or MLflow's store cannot be used.
    """
    from geoloc_core.evaluation import leaderboard

    board, registry = leaderboard.load(project), project.profile.registry
    best = board.best.model_dump()
    asked = (registry.benchmark, registry.metric, project.profile.demo)
    if (best["benchmark"], best["metric"], bool(board.banner)) != asked:
        path = project.leaderboard / "leaderboard.json"
        raise UserError(f"{path}: not of the present parameters; run `geoloc leaderboard` first")
    with tracking.one_at_a_time(tracking.store(project) / "promotion.lock"):
        mlflow_client = tracking.client(project)
        with tracking.answering(project), tracking.fluent(project):
            decision = _decide(project, mlflow_client, best, replace)
    write_json(project.state / "promotion.json", decision)
    return decision


def _decide(project: Project, mlflow_client: "MlflowClient", best: dict[str, Any], replace: bool) -> dict[str, Any]:
    registry = project.profile.registry
    experiment_id = tracking.experiment(project, mlflow_client)
    tracking.settle(mlflow_client, experiment_id)
    _remove_leftovers(project, mlflow_client, experiment_id)
    candidate = _registered(project, mlflow_client, experiment_id, best, anew=replace)
    holder = _holder(mlflow_client, registry.model)
    comparable = holder is None or is_comparable(best, holder.tags)
    better = replace or is_better(best, holder.tags if holder else None)
    mlflow_client.set_registered_model_alias(registry.model, "challenger", candidate.version)
    if better:
        mlflow_client.set_registered_model_alias(registry.model, "champion", candidate.version)
    champion_version = candidate if better else holder
    assert champion_version is not None
    return {
        "promoted": better,
        "comparable": comparable,
        "metric": f"{registry.benchmark}.{registry.metric}",
        "model": registry.model,
        "champion": _card(champion_version),
        "candidate": _card(candidate),
    }


def _holder(mlflow_client: "MlflowClient", name: str) -> Any:
    """The version that is the champion, or None."""
    from mlflow.exceptions import MlflowException

    try:
        return mlflow_client.get_model_version_by_alias(name, "champion")
    except MlflowException as error:
        if error.error_code not in ABSENT:
            raise
        return None


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


def _remove_leftovers(project: Project, mlflow_client: "MlflowClient", experiment_id: str) -> None:
    """Remove the models, with their files, that a killed promotion had not made a version of."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    versions = mlflow_client.search_model_versions(f"name = '{project.profile.registry.model}'")
    registered = {version.source for version in versions}
    for model in mlflow_client.search_logged_models([experiment_id]):
        if not tracking.is_gone(model.tags.get(tracking.PROCESS)):
            continue
        if f"models:/{model.model_id}" in registered:
            mlflow_client.delete_logged_model_tag(model.model_id, tracking.PROCESS)
        else:
            get_artifact_repository(model.artifact_location).delete_artifacts()
            mlflow_client.delete_logged_model(model.model_id)


def _registered(
    project: Project, mlflow_client: "MlflowClient", experiment_id: str, best: dict[str, Any], anew: bool
) -> Any:
    """The registry's version of the best variant's present model: registered now if it is not yet, its files all there.

    Args:
        project: The project.
        mlflow_client: MLflow.
        experiment_id: Where the project's runs are.
        best: The best variant and its score.
        anew: Write the files again even though none is missing.
    """
    from mlflow.entities import LoggedModelOutput
    from mlflow.exceptions import MlflowException

    name, variant = project.profile.registry.model, best["variant"]
    made = digest(project.model(variant))
    same = {
        tracking.DIGEST: made,
        "metric": f"{best['benchmark']}.{best['metric']}",
        "benchmark_sha256": best["benchmark_sha256"],
    }
    run_id = tracking.run_of(project, mlflow_client, variant)
    for version in mlflow_client.search_model_versions(f"name = '{name}'"):
        if not same.items() <= version.tags.items():
            continue
        model_id = version.source.removeprefix("models:/")
        try:
            whole = version.tags.get(FILES) == _files(version.source)
        except MlflowException as error:
            if error.error_code not in ABSENT:
                raise
            continue  # someone deleted the model that it is a version of
        if anew or not whole:
            _log_files(project, mlflow_client, variant, run_id, model_id)
            mlflow_client.set_model_version_tag(name, version.version, FILES, _files(version.source))
        mlflow_client.set_model_version_tag(name, version.version, "value", repr(best["value"]))  # as scored last
        return mlflow_client.get_model_version(name, version.version)
    model_id = mlflow_client.create_logged_model(
        experiment_id, "geolocator", source_run_id=run_id, tags={tracking.PROCESS: tracking.process()}
    ).model_id
    mlflow_client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])
    _log_files(project, mlflow_client, variant, run_id, model_id)
    try:
        mlflow_client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    tags = {
        **same,
        "variant": variant,
        "value": repr(best["value"]),
        "demo": str(project.profile.demo).lower(),
        FILES: _files(f"models:/{model_id}"),
    }
    version = mlflow_client.create_model_version(name, f"models:/{model_id}", run_id, tags=tags, model_id=model_id)
    mlflow_client.delete_logged_model_tag(model_id, tracking.PROCESS)
    return version


def _files(model_uri: str) -> str:
    """How many files and bytes a logged model has: another number, and some are missing or cut off.

    What loading it leaves beside them does not count.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    files, todo, sizes = get_artifact_repository(model_uri), [""], list[int]()
    while todo:
        for found in files.list_artifacts(todo.pop() or None):
            if found.is_dir and not found.path.endswith("__pycache__"):
                todo.append(found.path)
            elif not found.is_dir and found.path != "registered_model_meta":
                sizes.append(found.file_size)
    return f"{len(sizes)} files, {sum(sizes)} bytes"


def _log_files(project: Project, mlflow_client: "MlflowClient", variant: str, run_id: str, model_id: str) -> None:
    """Write the files of a logged model: photos in and places out, with its code and without any pickle."""
    import mlflow
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from packaging.version import Version

    import geoloc_core
    from geoloc_core.serving import bundle, pyfunc

    folder = project.partial("promote", variant)
    remove(folder.parent)
    bundle.pack(project, variant, folder / "geolocator")
    outputs = [("photo", "long"), ("rank", "long"), ("id", "string"), ("name", "string")]
    places = [("probability", "double"), ("latitude", "double"), ("longitude", "double")]
    signature = ModelSignature(
        inputs=Schema([ColSpec(DataType.binary, "image")]),
        outputs=Schema([ColSpec(kind, column) for column, kind in outputs + places]),
        params=ParamSchema([ParamSpec("top_k", "integer", 5)]),
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*An input example was not provided")  # the signature is written by hand
        mlflow.pyfunc.save_model(
            folder / "model",
            mlflow_model=Model(run_id=run_id, model_id=model_id),
            python_model=pyfunc.__file__,
            artifacts={"geolocator": str(folder / "geolocator")},
            signature=signature,
            code_paths=[str(Path(geoloc_core.__file__).parent)],
            # not what a build for one kind of processor adds to its number, which no index knows
            pip_requirements=[f"{name}=={Version(installed(name)).public}" for name in LIBRARIES],
        )
    mlflow_client.log_model_artifacts(model_id, str(folder / "model"))
    mlflow_client.finalize_logged_model(model_id, "READY")
    remove(folder.parent)


def _card(version: Any) -> dict[str, Any]:
    wanted = ("variant", "metric", "value")
    return {
        "version": int(version.version),
        "run_id": version.run_id,
        **{key: version.tags[key] for key in wanted},
    }
