"""Where a version comes from: revision, parameters, data and scores as they were, so that it can be made again."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoloc_core.errors import UserError
from geoloc_core.files import digest, read_json, write_json
from geoloc_core.plugins import Strict
from geoloc_core.project import Project
from geoloc_core.registry import tracking, versions

if TYPE_CHECKING:
    from mlflow import MlflowClient

FOLDER = "origin"
"""Beside the files of a model."""
NOTE, SCORES = "origin.json", "scores.json"
OF_THE_PROJECT = ("params.yaml", "plan.yaml", "code.yaml", "dvc.lock")
"""What says, beside the code, of what a version was made."""


class Origin(Strict):
    """What a version was made of.

    Attributes:
        variant: Which one.
        model_sha256: Of its model.
        commit: Revision of the code; empty where the project was in no git repository.
        changed: Whether the code was another than that revision's.
    """

    variant: str
    model_sha256: str
    commit: str
    changed: bool


def keep(project: Project, mlflow_client: "MlflowClient", model_id: str, variant: str) -> None:
    """Keep where a variant's present model comes from beside its files."""
    revision = tracking.revision(project.root)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for name in OF_THE_PROJECT:
            if (project.root / name).is_file():
                shutil.copyfile(project.root / name, folder / name)
        shutil.copyfile(project.scores(variant) / SCORES, folder / SCORES)
        known = Origin(
            variant=variant,
            model_sha256=digest(project.model(variant)),
            commit=revision.commit if revision else "",
            changed=revision.changed if revision else False,
        )
        write_json(folder / NOTE, known)
        mlflow_client.log_model_artifacts(model_id, str(folder), FOLDER)


@contextmanager
def of_version(project: Project, number: int) -> Iterator[tuple[Origin, Path]]:
    """Where a version comes from, and the folder of what was kept of that, for the block.

    Raises:
        UserError: There is no such version, it does not say enough, or MLflow's store cannot be used.
    """
    mlflow_client = tracking.client(project)
    with tempfile.TemporaryDirectory() as made:
        with tracking.answering(project), tracking.fluent(project):
            version = versions.asked(mlflow_client, project.profile.registry.model, number)
            folder = versions.download(version, FOLDER, Path(made))
        if folder is None:
            raise UserError(f"{_named(project, number)}: where it comes from was not kept; it cannot be made again")
        found: Origin = read_json(folder / NOTE, f"version {number} cannot be made again", Origin)
        _check(_named(project, number), found, folder)
        yield found, folder


def _named(project: Project, number: int) -> str:
    return f"model {project.profile.registry.model!r} version {number}"


def _check(what: str, found: Origin, folder: Path) -> None:
    if not found.commit:
        raise UserError(
            f"{what}: of no known revision, since the project was in no git repository; it cannot be made again"
        )
    if found.changed:
        raise UserError(
            f"{what}: made by code that differs from revision {found.commit[:10]}; it cannot be made again; "
            "commit the code before you train and promote"
        )
    if lacking := [name for name in OF_THE_PROJECT if not (folder / name).is_file()]:
        raise UserError(f"{what}: without the {lacking[0]} of its time; made outside DVC, it cannot be made again")


def differences(kept: Path, again: Path) -> list[str]:
    """The figures in which two ``scores.json`` differ, in words; none where all are equal.

    Raises:
        UserError: One is missing or damaged.
    """
    before, after = (_figures(read_json(path, "run the same command again", dict[str, Any])) for path in (kept, again))
    return [
        f"{name}: {before.get(name)} then, {after.get(name)} now"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def count(scores: Path) -> int:
    """How many figures a ``scores.json`` has."""
    return len(_figures(read_json(scores, "run the same command again", dict[str, Any])))


def _figures(report: dict[str, Any]) -> dict[str, Any]:
    return {
        f"{benchmark}/{metric}": value
        for benchmark, figures in report["benchmarks"].items()
        for metric, value in figures.items()
    }
