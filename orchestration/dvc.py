"""What DVC knows about the pipeline: its stages, what changed, what their outputs hold."""

import hashlib
import json
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil  # type: ignore[import-untyped]
import yaml
from pydantic import ValidationError

from geoloc_core.errors import UserError
from geoloc_core.plugins import Strict
from geoloc_core.yamls import parse_yaml
from orchestration import lockfile

T = TypeVar("T")
_logger = logging.getLogger(__name__)


CODE = "code"
"""Name of the stage that writes down which code the others run. It is no asset: it is brought up to date before any
other is looked at."""


class Look(Strict):
    """How a stage is shown and scheduled: its ``meta.dagster`` in ``dvc.yaml``."""

    group: str | None = None
    kinds: tuple[str, ...] = ()
    check: str | None = None
    """Name of the blocking check on what the stage wrote."""
    pool: str | None = None
    mlflow: str | None = None
    """Which note under ``.state/mlflow/runs`` names the MLflow run the stage left behind."""
    retries: int = 0


@dataclass(frozen=True)
class Stage:
    """One resolved stage of ``dvc.yaml``.

    Attributes:
        name: Its address, such as ``encode@clip-mp16``.
        command: What it runs.
        description: What it is for.
        stages: Names of the stages whose outputs it reads.
        sources: Data it reads that no stage makes.
        summaries: Its metrics files.
        plots: Its plots.
        documents: What it writes in Markdown.
        version: Digest of the recipe: command, parameters and code.
        look: How it is shown.
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
        """What it is done to, such as ``clip-mp16``; empty for a stage there is one of."""
        return self.name.partition("@")[2]

    def data_version(self, outputs: dict[str, str]) -> str:
        """Digest of what the stage made, less its summaries and plots unless there is nothing else."""
        shown = {*self.summaries, *self.plots}
        data = {path: md5 for path, md5 in outputs.items() if path not in shown}
        return digest(data or outputs)

    @property
    def file_name(self) -> str:
        """The name as that of a file."""
        return re.sub(r"[^\w.-]", "_", self.name.replace("@", "__"))


class Halted(Exception):  # noqa: N818 - nothing is wrong
    """A wait for other processes was called off."""


def with_dvc(
    root: Path,
    do: Callable[[Any], T],
    tell: Callable[[str], None] = _logger.warning,
    halt: threading.Event | None = None,
) -> T:
    """Let a function work with DVC's view of a project, as soon as nobody else holds what it asks for.

    DVC waits for no path that another process reads or writes, so this does, for as long as that process lives. And
    what a killed process left behind is mended. DVC writes its list of locks and ``dvc.lock`` in place, and would never
    go on with half of either. The list is forgotten; the lock file is put aside, and DVC's run cache brings the stages
    back that it named. Locks of processes that are dead but not yet buried by the system are let go: DVC takes them for
    living.

    Args:
        root: The project.
        do: What to do, with DVC's repository.
        tell: Hears once whom it waits for, and what was mended.
        halt: Ends the wait when it is set.

    Raises:
        Halted: While it waited.
    """
    told: set[str] = set()

    def tell_once(what: str) -> None:
        if what not in told:
            told.add(what)
            tell(what)

    while True:
        try:
            return _in_repo(root, do)
        except Exception as error:  # DVC's own, and whatever its readers raise on half a file
            try:
                mended = _mended(root, error, tell_once, halt or threading.Event())
            except Halted:
                raise
            except Exception:  # DVC's own; what went wrong first is what is to be told
                raise error from None
            if not mended:
                raise


def _is_of_a_reader(error: BaseException | None) -> bool:
    """Whether this is what reading half a file ends in, and not the failure of a stage."""
    from dvc.rwlock import RWLockFileCorruptedError, RWLockFileFormatError
    from dvc.utils.serialize import ParseError
    from dvc.utils.strictyaml import YAMLValidationError

    readers = (RWLockFileCorruptedError, RWLockFileFormatError, ParseError, YAMLValidationError)
    ours = (yaml.YAMLError, UnicodeDecodeError, AttributeError, KeyError, TypeError)
    return isinstance(error, readers + ours)


def _mended(root: Path, error: Exception, tell: Callable[[str], None], halt: threading.Event) -> bool:
    from dvc.lock import LockError
    from dvc.repo import Repo, lock_repo

    busy = next((known for known in (error, error.__cause__) if isinstance(known, LockError)), None)
    if busy:
        _wait(root, str(busy), tell, halt)
        return True
    if not (_is_of_a_reader(error) or _is_of_a_reader(error.__cause__)):
        return False
    if _forgot_locks(root):
        tell(".dvc/tmp/rwlock: not readable; forgotten, since it lists only who is at work")
        return True
    lock = root / "dvc.lock"
    with chdir(root), Repo(str(root), _wait_for_lock=True) as repo, lock_repo(repo):  # else it may just be written
        if not _is_torn(lock):
            return False
        aside = root / ".state" / "dvc.lock.torn"
        aside.parent.mkdir(exist_ok=True)
        lock.replace(aside)
    tell("dvc.lock: not readable; put aside as .state/dvc.lock.torn, and DVC's run cache is asked for what it named")
    return True


def _wait(root: Path, busy: str, tell: Callable[[str], None], halt: threading.Event) -> None:
    """Wait until one of the processes that DVC names lets go of anything."""
    from dvc.fs import localfs
    from dvc.lock import LockError
    from dvc.rwlock import _edit_rwlock

    named = dict(re.findall(r"\(PID (\d+)\): (.*)", busy))
    before: set[tuple[str, int]] | None = None
    while True:
        try:
            with _edit_rwlock(str(root / ".dvc" / "tmp"), localfs, False) as lock:
                held = {(path, pid) for path, pid in _let_go_of_the_dead(lock) if str(pid) in named}
        except LockError:
            held = before or set()  # the list itself is at work
        if not held or before not in (None, held):
            return
        before = held
        tell("waits for " + ", ".join(f"`{command}` (process {pid})" for pid, command in sorted(named.items())))
        if halt.wait(0.2):
            raise Halted


def _let_go_of_the_dead(lock: dict[str, Any]) -> set[tuple[str, int]]:
    """Take the dead out of DVC's list of locks; returns each path that is held, and by which process."""
    readers = {path: [info for info in infos if _lives(info)] for path, infos in lock["read"].items()}
    writers = {path: info for path, info in lock["write"].items() if _lives(info)}
    lock["read"].clear()
    lock["read"].update({path: infos for path, infos in readers.items() if infos})
    lock["write"].clear()
    lock["write"].update(writers)
    held = {(path, info["pid"]) for path, infos in readers.items() for info in infos}
    return held | {(path, info["pid"]) for path, info in writers.items()}


def _lives(info: dict[str, Any]) -> bool:
    """Whether the process that holds a lock does any work."""
    try:
        return bool(psutil.Process(int(info["pid"])).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _forgot_locks(root: Path) -> bool:
    """Delete DVC's list of locks if it is not readable."""
    from dvc.lock import make_lock
    from dvc.rwlock import RWLOCK_FILE, RWLOCK_LOCK, SCHEMA
    from voluptuous import Invalid

    folder = root / ".dvc" / "tmp"
    file = folder / RWLOCK_FILE
    if not file.is_file():
        return False
    with make_lock(str(folder / RWLOCK_LOCK), tmp_dir=str(folder), wait=True):
        try:
            SCHEMA(json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, Invalid):
            file.unlink()
            return True
    return False


def _is_torn(lock: Path) -> bool:
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from voluptuous import Invalid

    if not lock.exists():
        return False
    try:
        COMPILED_LOCKFILE_SCHEMA(parse_yaml(lock.read_bytes()))
    except (yaml.YAMLError, UnicodeDecodeError, Invalid):
        return True
    return False


def _in_repo(root: Path, do: Callable[[Any], T]) -> T:
    from dvc.repo import Repo

    lockfile.use()
    # DVC names stages relative to where it works
    with chdir(root), Repo(str(root), _wait_for_lock=True) as repo:
        return do(repo)


def read_stages(root: Path) -> list[Stage]:
    """Every stage that runs a command, in the order of ``dvc.yaml``.

    Raises:
        UserError: There is no pipeline here, or a stage's ``meta.dagster`` is wrong.
    """
    if not (root / "dvc.yaml").exists():
        raise UserError(f"{root}: no dvc.yaml; start from the project's root or set GEOLOC_ROOT")
    return with_dvc(root, _read_all)


def refresh_code(root: Path) -> None:
    """Bring ``code.yaml`` up to date, in a process that knows no former version of the code.

    DVC does so itself before it brings all stages up to date, but not before it looks at one of them.

    Raises:
        UserError: The parameters are wrong.
    """
    graph = root / "dvc.yaml"
    text = graph.read_text(encoding="utf-8", errors="replace") if graph.is_file() else ""
    if not re.search(rf"^  {CODE}:$", text, re.MULTILINE):
        return
    command = [sys.executable, "-P", "-m", "geoloc_core", "--params", str(root / "params.yaml"), "plan"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        first, *rest = done.stderr.splitlines() or [f"geoloc code: exit code {done.returncode}"]
        raise UserError(first.removeprefix("geoloc: error: "), *rest)
    with_dvc(root, _note_code)


def _note_code(repo: Any) -> None:
    """Let ``dvc.lock`` name ``code.yaml`` as it is, as if DVC had run the stage."""
    file = Path(repo.root_dir) / f"{CODE}.yaml"
    noted = read_lock(repo).get(CODE, {}).get(file.name)
    if noted != hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest():
        repo.commit(CODE, force=True)


def _read_all(repo: Any) -> list[Stage]:
    from dvc.repo import lock_repo

    with lock_repo(repo):  # dvc.lock may just be written
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
    """Names of the stages that differ from ``dvc.lock``, asked once for all of them."""
    return with_dvc(root, lambda repo: set(repo.status()) - {CODE})


def locked_outputs(root: Path) -> dict[str, dict[str, str]]:
    """The MD5 of every output of every stage that ever ran, as ``dvc.lock`` has them."""
    return with_dvc(root, read_lock)


def read_lock(repo: Any) -> dict[str, dict[str, str]]:
    """What :func:`locked_outputs` returns, where DVC is open already."""
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
    """A short fingerprint of a JSON-like value."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()[:12]
