"""The pipeline as DVC sees it: its stages, which of them have changed, and the hashes of their outputs."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from geoloc_core.corpora.again import due
from geoloc_core.errors import UserError
from geoloc_core.plugins import Strict
from geoloc_core.yamls import parse_yaml
from orchestration.compat import parameters_read_once
from orchestration.repository import with_dvc

CODE = "code"
"""Name of the stage that writes the code digests of the others. It is no asset: it is brought up to date before
anything else is read."""


class Look(Strict):
    """How a stage is shown and scheduled: its ``meta.dagster`` in ``dvc.yaml``."""

    group: str | None = None
    kinds: tuple[str, ...] = ()
    check: str | None = None
    """Name of the blocking check of the stage's outputs."""
    pool: str | None = None
    mlflow: str | None = None
    """The file under ``.state/mlflow/runs``, without ``.json``, that names the stage's MLflow run."""
    retries: int = 0


@dataclass(frozen=True)
class Stage:
    """One resolved stage of ``dvc.yaml``.

    Attributes:
        name: Its address, such as ``encode@clip-mp16``.
        command: The shell command that it runs.
        description: What it does, for readers.
        stages: Names of the stages whose outputs it reads.
        sources: Inputs that no stage produces.
        summaries: Its metrics files.
        plots: Its plots.
        documents: Its outputs in Markdown.
        version: Digest of the recipe: command, parameters and code.
        look: How it is shown and scheduled.
    """

    name: str
    command: str
    description: str | None
    stages: tuple[str, ...]
    sources: tuple[str, ...]
    summaries: tuple[str, ...]
    plots: tuple[str, ...]
    documents: tuple[str, ...]
    version: str
    look: Look

    @property
    def subject(self) -> str:
        """The part of the name after ``@``, such as ``clip-mp16``; empty if there is none."""
        return self.name.partition("@")[2]

    def data_version(self, outputs: dict[str, str]) -> str:
        """Digest of the outputs, without summaries and plots unless there is nothing else."""
        shown = {*self.summaries, *self.plots}
        data = {path: md5 for path, md5 in outputs.items() if path not in shown}
        return digest(data or outputs)

    @property
    def file_name(self) -> str:
        """The name in a form that is safe as a file name."""
        return re.sub(r"[^\w.-]", "_", self.name.replace("@", "__"))


def read_stages(root: Path) -> list[Stage]:
    """Every stage that runs a command, in the order of ``dvc.yaml``.

    Raises:
        UserError: There is no ``dvc.yaml``, or the ``meta.dagster`` of a stage is invalid.
    """
    if not (root / "dvc.yaml").exists():
        raise UserError(f"{root}: no dvc.yaml; run the command in the project folder, or set GEOLOC_ROOT to it")
    return with_dvc(root, _read_all)


def _read_all(repo: Any) -> list[Stage]:
    with parameters_read_once(repo):
        index, root = repo.index, Path(repo.root_dir)
        made = {Path(out.fs_path) for stage in index.stages for out in stage.outs}
        holders = {parent for path in made for parent in path.parents}
        return [
            _read(stage, index.graph, made, holders, root)
            for stage in index.stages
            if stage.cmd and stage.addressing != CODE
        ]


def _read(stage: Any, graph: Any, made: set[Path], holders: set[Path], root: Path) -> Stage:
    from dvc.dependency.param import ParamsDependency

    params = [dep for dep in stage.deps if isinstance(dep, ParamsDependency)]
    given = [
        dep
        for dep in stage.deps
        if not isinstance(dep, ParamsDependency) and not _is_made(Path(dep.fs_path), made, holders)
    ]
    code = [dep for dep in given if dep.protocol == "local" and _is_code(Path(dep.fs_path), root)]
    upstream = [source for source in graph.successors(stage) if source.addressing != CODE]
    tracked = [out.def_path for source in upstream if not source.cmd for out in source.outs]
    command = stage.cmd if isinstance(stage.cmd, str) else "\n".join(stage.cmd)
    recipe = [
        command,
        [dep.read_params() for dep in params],
        [(dep.def_path, dep.get_hash().value if dep.exists else None) for dep in code],
    ]
    return Stage(
        name=stage.addressing,
        command=command,
        description=stage.desc,
        stages=tuple(sorted(source.addressing for source in upstream if source.cmd)),
        sources=tuple(sorted({*tracked, *(dep.def_path for dep in given if dep not in code)})),
        summaries=tuple(out.def_path for out in stage.outs if out.metric),
        plots=tuple(out.def_path for out in stage.outs if out.plot),
        documents=tuple(out.def_path for out in stage.outs if out.def_path.endswith(".md")),
        version=digest(recipe),
        look=_look(stage),
    )


def _is_made(path: Path, made: set[Path], holders: set[Path]) -> bool:
    return path in holders or not made.isdisjoint([path, *path.parents])


def _is_code(path: Path, root: Path) -> bool:
    if not path.is_relative_to(root):
        return False
    package = root / path.relative_to(root).parts[0]
    return path.suffix == ".py" or (package / "__init__.py").exists()


def _look(stage: Any) -> Look:
    try:
        return Look.model_validate((stage.meta or {}).get("dagster", {}))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, ("meta", "dagster", *first["loc"])))
        raise UserError(f"dvc.yaml: stage {stage.addressing}: {where}: {first['msg']}") from None


def changed_stages(root: Path) -> set[str]:
    """Names of the stages to run: those that differ from ``dvc.lock``, and crawls that are to look again."""
    return with_dvc(root, _status) | set(crawls(root))


def crawls(root: Path) -> dict[str, int]:
    """The stages of the crawls, of any profile, that are to look again for what was gone: for how many addresses."""
    return {f"fetch@{corpus}": count for corpus, count in due(root / ".state").items()}


def _status(repo: Any) -> set[str]:
    with parameters_read_once(repo):
        return set(repo.status()) - {CODE}


def locked_outputs(root: Path) -> dict[str, dict[str, str]]:
    """The MD5 of every output in ``dvc.lock``, by stage and path."""
    return with_dvc(root, read_lock)


def read_lock(repo: Any) -> dict[str, dict[str, str]]:
    """The same as :func:`locked_outputs`, for a repository that is open already."""
    from dvc.repo import lock_repo

    path = Path(repo.root_dir) / "dvc.lock"
    with lock_repo(repo):
        text = path.read_text(encoding="utf-8") if path.exists() else ""
    lock = parse_yaml(text) or {}
    return {
        name: {out["path"]: out["md5"] for out in entry.get("outs", ()) if "md5" in out}
        for name, entry in (lock.get("stages") or {}).items()
    }


def digest(value: object) -> str:
    """A short digest of a JSON-like value."""
    plain = json.loads(json.dumps(value, default=str))  # keys of text alone: others beside them have no order
    text = json.dumps(plain, sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()[:12]
