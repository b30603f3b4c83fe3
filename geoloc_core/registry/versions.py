"""Versions of the registered model: each carries its code, its weights and its answers to the selection set.

What a killed registration has begun carries the tag of its process until it is whole; the next one finishes or removes
what it finds.
"""

import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoloc_core.errors import UserError
from geoloc_core.files import digest, remove, write_json
from geoloc_core.project import Project
from geoloc_core.registry import evidence, shift, tracking
from geoloc_core.registry.decision import Contender, Decision, Score

if TYPE_CHECKING:
    import pyarrow as pa
    from mlflow import MlflowClient

Tables = Mapping[str, "pa.Table"]
"""A variant's answers by benchmark: the selection set, and those that have guards."""
CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"
"""Aliases: who answers, who did before, and who was compared last and did not take the place."""
REJECTED, ROLLED_BACK = "rejected", "rolled back"
"""Tags of versions that a person does not want: why."""
FOLLOWS = "follows"
"""Tag of a version that is or was champion: the version that was before it."""
MODEL = "model_sha256"
"""Tag of a version: the beginning of its model's SHA-256."""
FILES = "geoloc.files"
"""Tag of a logged model: how many files and bytes it has, written when all are there."""
SELECTION, DECISIONS, LEARNED = "selection", "decisions.json", "learned"
"""Beside the files of a model: its answers to what decides, a table per benchmark; what was decided of it; and a sample
of the features that it learned from."""
BESIDE = ("registered_model_meta", "origin", SELECTION, DECISIONS, LEARNED)
"""What does not count among a model's files: MLflow's own note, and what is written again as time goes by."""
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""MLflow's words for a model, a version or an alias that is not there."""
ABOUT = """Given a photo, says where on Earth it was taken.

- `champion` answers: `geoloc predict`, or `mlflow.pyfunc.load_model("models:/<name>@champion")`.
- `previous` was champion before it: `geoloc promote --rollback` goes back to it.
- `challenger` was compared with the champion last, and did not take its place.

Each version's description is its model card, with all that was decided of it."""
"""What is said of the registered model."""
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
    "scikit-learn",
    "scipy",
    "simplejpeg",
    "threadpoolctl",
    "timm",
    "torch",
    "torchvision",
    "transformers",
)
"""What the code that travels with a model imports to answer, beside MLflow, which names itself."""


def holder(mlflow_client: "MlflowClient", name: str, alias: str = CHAMPION) -> Any:
    """The version that an alias names, or None."""
    return _or_none(lambda: mlflow_client.get_model_version_by_alias(name, alias))


def numbered(mlflow_client: "MlflowClient", name: str, number: int | str) -> Any:
    """A version by its number, or None."""
    return _or_none(lambda: mlflow_client.get_model_version(name, str(number)))


def asked(mlflow_client: "MlflowClient", name: str, number: int) -> Any:
    """A version by its number.

    Raises:
        UserError: There is none.
    """
    found = numbered(mlflow_client, name, number)
    if found is None:
        known = sorted(int(version.version) for version in mlflow_client.search_model_versions(f"name = '{name}'"))
        raise UserError(
            f"model {name!r}: no version {number}; expected one of: {', '.join(map(str, known)) or 'none yet'}"
        )
    return found


def _or_none(ask: Any) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return ask()
    except MlflowException as error:
        if error.error_code not in ABSENT:
            raise
        return None


def is_barred(version: Any) -> bool:
    """Whether a person has rejected a version or rolled it back."""
    return REJECTED in version.tags or ROLLED_BACK in version.tags


def barred(mlflow_client: "MlflowClient", name: str) -> set[str]:
    """The models that a person does not want, as :data:`MODEL` has them."""
    known = mlflow_client.search_model_versions(f"name = '{name}'")
    return {version.tags.get(MODEL, "") for version in known if is_barred(version)} - {""}


def made(project: Project, variant: str) -> str:
    """A variant's present model, as :data:`MODEL` has it."""
    return digest(project.model(variant))[:12]


def remove_leftovers(project: Project, mlflow_client: "MlflowClient", experiment_id: str) -> None:
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


def register(
    project: Project, mlflow_client: "MlflowClient", experiment_id: str, variant: str, tables: Tables, anew: bool
) -> Any:
    """The version of a variant's present model: registered now if it is not yet, its files all there.

    Args:
        project: The project.
        mlflow_client: MLflow.
        experiment_id: Where the project's runs are.
        variant: Which one.
        tables: Its answers by benchmark, to be kept.
        anew: Write the files again even though none is missing.
    """
    from mlflow.entities import LoggedModelOutput
    from mlflow.exceptions import MlflowException

    from geoloc_core.registry import origin

    name = project.profile.registry.model
    same = made(project, variant)
    run_id = tracking.run_of(project, mlflow_client, variant)
    if (page := project.leaderboard / "leaderboard.html").is_file():
        mlflow_client.log_artifact(run_id, str(page))
    for version in mlflow_client.search_model_versions(f"name = '{name}'"):
        if version.tags.get(MODEL) != same:
            continue
        model_id = model_of(version)
        model = _or_none(lambda model_id=model_id: mlflow_client.get_logged_model(model_id))
        if model is None:  # someone deleted the model that it is a version of
            continue
        if anew or model.tags.get(FILES) != _files(version.source):
            _log_files(project, mlflow_client, variant, run_id, model_id)
            mlflow_client.set_logged_model_tags(model_id, {FILES: _files(version.source)})
        keep_selection(mlflow_client, version, tables)
        if not learned(version):
            _log_learned(project, mlflow_client, model_id, variant)
        return mlflow_client.get_model_version(name, version.version)
    model_id = mlflow_client.create_logged_model(
        experiment_id, "geolocator", source_run_id=run_id, tags={tracking.PROCESS: tracking.process()}
    ).model_id
    mlflow_client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])
    _log_files(project, mlflow_client, variant, run_id, model_id)
    source = f"models:/{model_id}"
    mlflow_client.set_logged_model_tags(model_id, {FILES: _files(source)})
    origin.keep(project, mlflow_client, model_id, variant)
    for benchmark, table in tables.items():
        _log_selection(mlflow_client, model_id, benchmark, table)
    _log_learned(project, mlflow_client, model_id, variant)
    try:
        mlflow_client.create_registered_model(name, description=ABOUT)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    tags = {"variant": variant, "demo": str(project.profile.demo).lower(), MODEL: same}
    version = mlflow_client.create_model_version(name, source, run_id, tags=tags, model_id=model_id)
    mlflow_client.delete_logged_model_tag(model_id, tracking.PROCESS)
    return version


def model_of(version: Any) -> str:
    """Id of the logged model that a version is of."""
    return str(version.source).removeprefix("models:/")


def _files(model_uri: str) -> str:
    """How many files and bytes a logged model has: another number, and some are missing or cut off.

    What loading it leaves beside them does not count.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    files, todo, sizes = get_artifact_repository(model_uri), [""], list[int]()
    while todo:
        for found in files.list_artifacts(todo.pop() or None):
            if found.path in BESIDE:
                continue
            if found.is_dir and not found.path.endswith("__pycache__"):
                todo.append(found.path)
            elif not found.is_dir:
                sizes.append(found.file_size or 0)  # a server sends no size of an empty file
    return f"{len(sizes)} files, {sum(sizes)} bytes"


def save_pyfunc(project: Project, variant: str, folder: Path, **note: str) -> Path:
    """Write a trained variant as a model of MLflow's: photos in and places out, with its code and without any pickle.

    Args:
        project: The project.
        variant: Which one.
        folder: An empty or missing folder to work in.
        note: What MLflow is to note of the model, such as its ``run_id``.

    Returns:
        The model's folder, in ``folder``.

    Raises:
        UserError: See :func:`geoloc_core.serving.bundle.pack`.
    """
    import mlflow
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from packaging.version import Version

    import geoloc_core
    from geoloc_core.serving import bundle, pyfunc

    bundle.pack(project, variant, folder / "geolocator")
    views = [ColSpec(DataType.string, "place_id", required=False), ColSpec(DataType.double, "heading", required=False)]
    outputs = [("photo", "long"), ("rank", "long"), ("id", "string"), ("name", "string")]
    places = [("probability", "double"), ("latitude", "double"), ("longitude", "double")]
    signature = ModelSignature(
        inputs=Schema([ColSpec(DataType.binary, "image"), *views]),
        outputs=Schema([ColSpec(kind, column) for column, kind in outputs + places]),
        params=ParamSchema([ParamSpec("top_k", "integer", 5)]),
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*An input example was not provided")  # the signature is written by hand
        mlflow.pyfunc.save_model(
            folder / "model",
            mlflow_model=Model(**note),
            python_model=pyfunc.__file__,
            artifacts={"geolocator": str(folder / "geolocator")},
            signature=signature,
            code_paths=[str(Path(geoloc_core.__file__).parent)],
            # not what a build for one kind of processor adds to its number, which no index knows
            pip_requirements=[f"{name}=={Version(installed(name)).public}" for name in LIBRARIES],
        )
    return folder / "model"


def _log_files(project: Project, mlflow_client: "MlflowClient", variant: str, run_id: str, model_id: str) -> None:
    """Write the files of a logged model."""
    folder = project.partial("promote", variant)
    remove(folder.parent)
    made = save_pyfunc(project, variant, folder, run_id=run_id, model_id=model_id)
    mlflow_client.log_model_artifacts(model_id, str(made))
    mlflow_client.finalize_logged_model(model_id, "READY")
    remove(folder.parent)


@contextmanager
def _beside(version: Any, name: str) -> Iterator[Path | None]:
    """A file beside a version's model, for the block; None where there is none, or the model itself was deleted."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    files = _or_none(lambda: get_artifact_repository(version.source))
    inside = str(Path(name).parent)
    known = {found.path for found in (files.list_artifacts(None if inside == "." else inside) if files else ())}
    with tempfile.TemporaryDirectory() as folder:
        yield Path(files.download_artifacts(name, folder)) if name in known else None


def download(version: Any, name: str, folder: Path) -> Path | None:
    """A folder beside a version's model, brought into another one; None where there is none."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    files = _or_none(lambda: get_artifact_repository(version.source))
    known = {found.path for found in (files.list_artifacts(None) if files else ())}
    return Path(files.download_artifacts(name, str(folder))) if name in known else None


def selection(version: Any, benchmark: str) -> "pa.Table | None":
    """A version's answers to the selection set, or to a benchmark with guards; None where they were not kept.

    Raises:
        UserError: They are damaged.
    """
    with _beside(version, f"{SELECTION}/{benchmark}.parquet") as path:
        return None if path is None else evidence.read(path)


def keep_selection(mlflow_client: "MlflowClient", version: Any, tables: Tables) -> None:
    """Keep a version's present answers, by benchmark, where others or none are kept."""
    for benchmark, table in tables.items():
        try:
            kept = selection(version, benchmark)
        except UserError:  # half of a file, as a kill leaves it
            kept = None
        if kept is None or not kept.equals(table) or evidence.sha256(kept) != evidence.sha256(table):
            _log_selection(mlflow_client, model_of(version), benchmark, table)


def _log_selection(mlflow_client: "MlflowClient", model_id: str, benchmark: str, table: "pa.Table") -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{benchmark}.parquet"
        evidence.write(table, path)
        mlflow_client.log_model_artifact(model_id, str(path), SELECTION)


def learned(version: Any) -> dict[str, Any] | None:
    """A sample of the features that a version learned from, by encoder; None where none was kept."""
    with _beside(version, f"{LEARNED}/{shift.FILE}") as path:
        try:
            return None if path is None else shift.read(path)
        except UserError:  # half of a file, as a kill leaves it
            return None


def _log_learned(project: Project, mlflow_client: "MlflowClient", model_id: str, variant: str) -> None:
    try:
        found = shift.training_features(project, variant)
    except UserError:  # they are not needed, and what they are compared with later says that there are none
        return
    if not found:
        return
    with tempfile.TemporaryDirectory() as folder:
        mlflow_client.log_model_artifact(model_id, str(shift.write(found, Path(folder))), LEARNED)


def decisions(version: Any) -> list[Decision]:
    """What was decided of a version, the last one last.

    Raises:
        UserError: The record is damaged.
    """
    from geoloc_core.files import read_json

    with _beside(version, DECISIONS) as path:
        if path is None:
            return []
        found: list[Decision] = read_json(path, f"delete it from version {version.version}", list[Decision])
        return found


def keep_decision(mlflow_client: "MlflowClient", version: Any, decision: Decision) -> list[Decision]:
    """Add a decision to those of a version, unless it repeats the last one; returns all of them."""
    if _or_none(lambda: mlflow_client.get_logged_model(model_of(version))) is None:
        return [decision]  # someone deleted the model, and the version is no more than its name
    try:
        known = decisions(version)
    except UserError:  # half of a file, as a kill leaves it: the version's description has the rest
        known = []
    if decision.repeats(known[-1] if known else None):
        return known
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / DECISIONS
        write_json(path, [*known, decision])
        mlflow_client.log_model_artifact(model_of(version), str(path))
    return [*known, decision]


def contender(project: Project, version: Any, table: "pa.Table | None") -> Contender:
    """A version with its score by what decides now."""
    score = None
    if table is not None:
        value, low, high = evidence.figure(table, project.profile.registry.metric)
        score = Score(value=value, low=low, high=high)
    return Contender(
        version=int(version.version),
        variant=version.tags.get("variant", "unknown"),
        run_id=version.run_id or "",
        score=score,
    )


def describe(project: Project, mlflow_client: "MlflowClient", version: Any, found: list[Decision]) -> None:
    """Write a version's model card, with the decisions about it, as its description, and its score as a tag.

    Of a version whose model is no longer here the card stays as it was.
    """
    from geoloc_core.registry.card import model_card, with_decisions

    variant, card = version.tags.get("variant", ""), version.description or ""
    if variant in project.profile.variants and made(project, variant) == version.tags.get(MODEL):
        card = model_card(project, variant)
    text = with_decisions(card, found)
    if text != version.description:
        mlflow_client.update_model_version(version.name, version.version, text)
    candidate, last = found[-1].candidate, found[-1]
    if candidate is not None and candidate.score is not None and candidate.version == int(version.version):
        shown = candidate.score.words(last.metric)
        if version.tags.get(last.metric) != shown:
            mlflow_client.set_model_version_tag(version.name, version.version, last.metric, shown)
