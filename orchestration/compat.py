"""The one place that uses private parts of other libraries, or replaces any of their functions.

Each item says what it is for and which public API is missing. Any release of a library may break them, so importing
this module refuses versions other than those that it was written for.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, chdir, contextmanager, suppress
from copy import copy, deepcopy
from functools import cached_property, partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoloc_core.errors import UserError

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from dagster import (
        AssetCheckEvaluation,
        AssetCheckKey,
        AssetKey,
        AssetMaterialization,
        AssetRecord,
        DagsterEvent,
    )

WRITTEN_FOR = {"dagster": "1.13", "dagster-webserver": "1.13", "dvc": "3.67", "alembic": "1.20", "ruamel-yaml": "0.19"}
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
# get_input_data_version_tag: likewise, for the versions of what it was made from; DATA_VERSION_IS_USER_PROVIDED_TAG:
# that the version is one of ours.
from dagster._core.definitions.data_version import CODE_VERSION_TAG, DATA_VERSION_TAG  # noqa: E402
from dagster._core.definitions.data_version import DATA_VERSION_IS_USER_PROVIDED_TAG as OWN_VERSION_TAG  # noqa: E402
from dagster._core.definitions.data_version import get_input_data_version_tag as input_tag  # noqa: E402

# execute_run_iterator: the events of a run while it runs. The public `execute_job` returns when the run has ended.
from dagster._core.execution.api import execute_run_iterator  # noqa: E402

# CapturedLogContext, LocalComputeLogManager: the base of our log manager. `dagster.yaml` may name a class of one's own,
# but no base class is public, and the public ones that it may name copy all output to the terminal.
from dagster._core.storage.compute_log_manager import CapturedLogContext  # noqa: E402
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager  # noqa: E402

# copy: Dagster's records are immutable, and have no public way to make a changed copy.
from dagster_shared.record import copy as copied  # noqa: E402

__all__ = [
    "CODE_VERSION_TAG",
    "DATA_VERSION_TAG",
    "OWN_VERSION_TAG",
    "CapturedLogContext",
    "LocalComputeLogManager",
    "ask_for_freed_slots",
    "asset_check_of",
    "asset_of",
    "check_versions",
    "checks_within",
    "edited_rwlock",
    "evaluation_of",
    "evaluations",
    "execute_run_iterator",
    "input_tag",
    "opened_repo",
    "parameters_parsed_once",
    "parameters_read_once",
    "part_of_plan",
    "read_migrations_once",
    "run_dev",
    "run_webserver",
    "settled_step",
    "skipped_step",
    "version_of_yaml_found_once",
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

    DVC has no cache: it loads the file for every stage that names it, and then walks all of it for every key.
    Hundreds of copies of a file that is parsed once (:func:`parameters_parsed_once`) would still take seconds.
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


def parameters_parsed_once() -> None:
    """Let DVC, in this process and its forks, parse a parameters file again only after it has changed.

    To bring one stage up to date it parses the same file up to nine times. It offers no loader of one's own, but keeps
    its loaders by the suffix of the file.
    """
    from dvc.utils.serialize import LOADERS, load_yaml

    if ".yaml" in LOADERS:
        return
    known: dict[str, tuple[tuple[int, ...], Any]] = {}

    def load(path: str, fs: Any = None, **options: Any) -> Any:
        if fs is None or fs.protocol != "local" or options:
            return load_yaml(path, fs=fs, **options)
        found = Path(path).stat()
        state = (found.st_ino, found.st_size, found.st_mtime_ns)
        if path not in known or known[path][0] != state:
            known[path] = (state, load_yaml(path, fs=fs))
        return deepcopy(known[path][1])  # a reader may change what it is given

    LOADERS[".yaml"] = load


def version_of_yaml_found_once() -> None:
    """Let ruamel.yaml, in this process, find out the version of YAML once for each file, and not for each value.

    That takes a third of the time of reading and writing ``dvc.lock``, which each stage does several times.
    """
    from ruamel.yaml.resolver import VersionedResolver

    found = VersionedResolver.__dict__["processing_version"]
    if isinstance(found, property):
        once = cached_property(found.fget)  # type: ignore[arg-type]
        once.__set_name__(VersionedResolver, "processing_version")
        VersionedResolver.processing_version = once  # type: ignore[assignment]


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


def ask_for_freed_slots() -> None:
    """Let a step that waits for a slot in a pool take it as soon as another step of the run has freed it.

    Dagster's executor asks for each waiting step anew only after a while that grows to 15 s, and the slot lies idle.
    """
    from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext
    from dagster._core.executor import multiprocess

    class Asking(InstanceConcurrencyContext):
        def free_step(self, step_key: str) -> None:
            if step_key not in self._claims:
                return
            super().free_step(step_key)
            for pool in self._pools or ():
                for waiting in self._instance.event_log_storage.get_concurrency_info(pool).pending_steps:
                    # the store has chosen who is next
                    if waiting.assigned_timestamp and waiting.run_id == self._run_id:
                        self._pending_timeouts[waiting.step_key] = 0.0

    multiprocess.InstanceConcurrencyContext = Asking  # type: ignore[misc]


# An executor of one's own is public, but nothing of what it is given: the plan, its steps, and the events of a step.


def asset_of(plan: Any, step: str) -> "AssetKey | None":
    """The asset that a step of a plan materialises; None for a check."""
    outputs = plan.get_step_by_key(step).step_outputs
    return next((output.properties.asset_key for output in outputs if output.properties.asset_key), None)


def asset_check_of(plan: Any, step: str) -> "AssetCheckKey | None":
    """The check that a step of a plan makes; None for an asset, also if that makes checks along with itself."""
    return next(iter(checks_within(plan, step)), None) if asset_of(plan, step) is None else None


def checks_within(plan: Any, step: str) -> "list[AssetCheckKey]":
    """All checks that a step of a plan makes."""
    outputs = plan.get_step_by_key(step).step_outputs
    return [output.properties.asset_check_key for output in outputs if output.properties.asset_check_key]


def part_of_plan(context: Any, plan: Any, steps: Sequence[str]) -> Any:
    """The plan of some of a plan's steps; one that is left out holds up none of them."""
    from dagster._core.system_config.objects import ResolvedRunConfig

    job = context.job.get_definition()
    return plan.build_subset_plan(steps, job, ResolvedRunConfig.build(job, context.dagster_run.run_config))


def skipped_step(context: Any, plan: Any, step: str, why: str) -> "DagsterEvent":
    """Record, and return, that a step is left out."""
    from dagster import DagsterEvent, DagsterEventType

    at = context.for_step(plan.get_step_by_key(step))
    return DagsterEvent.from_step(DagsterEventType.STEP_SKIPPED, at, message=why)


def settled_step(
    context: Any,
    plan: Any,
    step: str,
    made: "AssetMaterialization | AssetCheckEvaluation",
    along: "Callable[[], Iterable[AssetCheckEvaluation]]" = tuple,
) -> "Iterator[DagsterEvent]":
    """Record, and yield, the events of a step that has found everything as it should be.

    Args:
        context: Of the plan.
        plan: The plan.
        step: The step.
        made: What it makes.
        along: The checks that it makes along with it, asked for once that is recorded.
    """
    from dagster import AssetMaterialization, DagsterEvent
    from dagster._core.execution.plan.objects import StepSuccessData

    at = context.for_step(plan.get_step_by_key(step))
    yield DagsterEvent.step_start_event(at)
    if isinstance(made, AssetMaterialization):
        yield DagsterEvent.asset_materialization(at, made)
    else:
        yield DagsterEvent.asset_check_evaluation(at, made)
    for evaluation in along():
        yield DagsterEvent.asset_check_evaluation(at, evaluation)
    yield DagsterEvent.step_success_event(at, StepSuccessData(duration_ms=0.0))


def evaluations(instance: Any, check: "AssetCheckKey") -> "Sequence[AssetCheckEvaluation]":
    """The last evaluation of a check, if it was ever made: a run that only plans to make it does not count."""
    from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus as Status

    storage, ended = instance.event_log_storage, {Status.SUCCEEDED, Status.FAILED}
    events = [record.event for record in storage.get_asset_check_execution_history(check, limit=1, status=ended)]
    known = [event.dagster_event for event in events if event and event.dagster_event]
    return [event.asset_check_evaluation_data for event in known if event.event_type_value == "ASSET_CHECK_EVALUATION"]


def evaluation_of(evaluation: "AssetCheckEvaluation", record: "AssetRecord") -> "AssetCheckEvaluation":
    """An evaluation, said of the latest materialisation of its asset."""
    from dagster._core.definitions.asset_checks.asset_check_evaluation import (
        AssetCheckEvaluationTargetMaterializationData as Target,
    )

    entry, number = record.asset_entry.last_materialization, record.asset_entry.last_materialization_storage_id
    assert entry is not None
    assert number is not None
    target = Target(storage_id=number, run_id=entry.run_id, timestamp=entry.timestamp)
    return copied(evaluation, target_materialization_data=target)


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
