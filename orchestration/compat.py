"""The one place that uses private parts of other libraries, or replaces any of their functions.

Each item says what it is for and which public API is missing. Any release of a library may break them, so importing
this module refuses versions other than those that it was written for.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, chdir, contextmanager, suppress
from copy import copy
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoloc_core.errors import UserError

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

WRITTEN_FOR = {"dagster": "1.13", "dagster-webserver": "1.13", "dvc": "3.67", "alembic": "1.20"}
"""Major and minor version by distribution. After a change in requirements.lock: read this module again, item by item,
run the tests, and change the version here too."""


def check_versions() -> None:
    """Refuse versions that nobody has tried this module with; any patch release is accepted.

    Raises:
        UserError: A library has another major or minor version, or is missing.
    """
    for name, expected in WRITTEN_FOR.items():
        found = _version(name)
        if found.split(".")[:2] != expected.split("."):
            raise UserError(
                f"{name}: found version {found}; expected {expected}, for which orchestration/compat.py was written; "
                "to install the versions in requirements.lock, run: rm -f .venv/.ready && make .venv/.ready"
            )


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "none"


_PLAIN = re.compile(r"[^\W\d][\w -]*(\.[^\W\d][\w -]*)*")
"""Keys that name mappings alone. Others have numbers, which may be an index, or are patterns."""

check_versions()

# DATA_VERSION_TAG, CODE_VERSION_TAG: the tags that hold the versions of a materialization. The public API computes
# whether an asset is stale only against the definitions that the process has loaded, and not against other versions.
from dagster._core.definitions.data_version import CODE_VERSION_TAG, DATA_VERSION_TAG  # noqa: E402

# execute_run_iterator: the events of a run while it runs. The public `execute_job` returns when the run has ended.
from dagster._core.execution.api import execute_run_iterator  # noqa: E402

# CapturedLogContext, LocalComputeLogManager: the base of our log manager. `dagster.yaml` may name a class of one's own,
# but no base class is public, and the public ones that it may name copy all output to the terminal.
from dagster._core.storage.compute_log_manager import CapturedLogContext  # noqa: E402
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager  # noqa: E402

__all__ = [
    "CODE_VERSION_TAG",
    "DATA_VERSION_TAG",
    "CapturedLogContext",
    "LocalComputeLogManager",
    "check_versions",
    "edited_rwlock",
    "execute_run_iterator",
    "opened_repo",
    "parameters_read_once",
    "read_migrations_once",
    "run_dev",
    "run_webserver",
    "write_lock_files_with",
]


@contextmanager
def opened_repo(root: Path) -> Iterator[Any]:
    """DVC's repository, with this process in its folder, since DVC names stages relative to that.

    It waits for DVC's lock as ``dvc --wait-for-lock`` does; the class has only a private argument for it.
    """
    from dvc.repo import Repo

    with chdir(root), Repo(str(root), _wait_for_lock=True) as repo:
        yield repo


def edited_rwlock(root: Path) -> AbstractContextManager[dict[str, Any]]:
    """DVC's list of the paths that processes read and write, to be changed; public functions only add and remove.

    Raises:
        dvc.lock.LockError: Another process is changing the list.
    """
    from dvc.fs import localfs
    from dvc.rwlock import _edit_rwlock

    edited: AbstractContextManager[dict[str, Any]] = _edit_rwlock(str(root / ".dvc" / "tmp"), localfs, False)
    return edited


@contextmanager
def parameters_read_once(repo: Any) -> Iterator[None]:
    """Let DVC, while the block holds its lock, parse each parameters file once for all stages.

    DVC has no cache: it parses the file for every stage that names it, and then walks all of it for every key.
    """
    from dvc.dependency.param import ParamsDependency
    from dvc.repo import lock_repo

    files: dict[str, dict[str, Any]] = {}

    def read(dependency: Any) -> dict[str, Any]:
        if dependency.fs_path not in files:
            whole = copy(dependency)
            whole.params = []  # all that the file holds
            files[dependency.fs_path] = ParamsDependency.read_params(whole)
        held = files[dependency.fs_path]
        return _values(held, dependency.params) if dependency.params else held

    with lock_repo(repo):  # DVC forgets its stages whenever the lock is released
        for stage in repo.index.stages:
            for dependency in stage.deps:
                if isinstance(dependency, ParamsDependency):
                    dependency.read_params = partial(read, dependency)
        yield


def _values(held: dict[str, Any], keys: list[str]) -> dict[str, Any]:
    """The values of dotted keys, as DVC finds them; a key that is missing is left out."""
    import dpath

    found = {}
    for key in keys:
        with suppress(KeyError):
            found[key] = _value(held, key) if _PLAIN.fullmatch(key) else dpath.get(held, key, separator=".")
    return found


def _value(held: Any, key: str) -> Any:
    for part in key.split("."):
        if not isinstance(held, dict):
            raise KeyError(key)
        held = held[part]
    return held


def write_lock_files_with(modify: Callable[..., AbstractContextManager[dict[str, Any]]]) -> None:
    """Let DVC, in this process, write ``dvc.lock`` with a function of ours; it offers no choice of a writer."""
    from dvc import dvcfile

    dvcfile.modify_yaml = modify


def read_migrations_once() -> None:
    """Let Alembic read each folder of migrations once in this process; it keeps none, and Dagster shares none.

    Dagster opens four databases in every step, and Alembic would read 90 scripts for each.
    """
    from alembic.script import ScriptDirectory

    read = ScriptDirectory.from_config
    known: dict[str | None, ScriptDirectory] = {}

    def kept(config: "Config") -> "ScriptDirectory":
        where = config.get_main_option("script_location")
        if where not in known:
            known[where] = read(config)
        return known[where]

    ScriptDirectory.from_config = kept  # type: ignore[method-assign]


def run_webserver(wrap: Callable[[Any], Any]) -> None:
    """Run the command ``dagster-webserver``, its ASGI application wrapped; the command takes no middleware."""
    from dagster_webserver import cli

    made = cli.create_app_from_workspace_process_context

    def create(*arguments: Any, **options: Any) -> Any:
        return wrap(made(*arguments, **options))

    cli.create_app_from_workspace_process_context = create
    cli.dagster_webserver(auto_envvar_prefix="DAGSTER_WEBSERVER")


def run_dev(webserver: str) -> None:
    """Run the command ``dagster dev`` with a module of ours as its webserver; the command offers no choice of one."""
    from dagster._cli import dev

    start = dev.open_ipc_subprocess

    def start_ours(parts: Sequence[str], **options: Any) -> Any:
        return start([webserver if part == "dagster_webserver" else part for part in parts], **options)

    dev.open_ipc_subprocess = start_ours
    dev.dev_command()
