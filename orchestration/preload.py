"""What every step needs, imported and made once: the steps of a run are forked from a process that has it already."""

import importlib
import os

import dagster as dg
import dvc.repo.reproduce
import dvc.rwlock  # noqa: F401
from alembic.config import Config
from alembic.script import ScriptDirectory

from geoloc_core.lifeline import end_with
from orchestration.execution import EXTRA, everything

_read = ScriptDirectory.from_config
_known: dict[str | None, ScriptDirectory] = {}


def _migrations(config: Config) -> ScriptDirectory:
    """The migrations of one of Dagster's databases: each step opens four, and reads 90 scripts for every one."""
    where = config.get_main_option("script_location")
    if where not in _known:
        _known[where] = _read(config)
    return _known[where]


ScriptDirectory.from_config = _migrations  # type: ignore[method-assign]
everything().get_definition()
with dg.DagsterInstance.get() as instance:  # opened for the modules that this imports
    instance.get_runs(limit=1)
os.register_at_fork(after_in_child=lambda: end_with(os.getppid()))  # a step whose run is killed would go on by itself
for name in os.environ.get(EXTRA, "").split():
    importlib.import_module(name)
