"""What every step needs, imported once: the steps of a run are forked from a process that has it already."""

import importlib
import os

import dagster as dg
import dvc.repo.reproduce
import dvc.rwlock  # noqa: F401

from orchestration.definitions import defs
from orchestration.execution import EXTRA

defs.get_repository_def()
with dg.DagsterInstance.get() as instance:  # opened for the modules that this imports
    instance.get_runs(limit=1)
for name in os.environ.get(EXTRA, "").split():
    importlib.import_module(name)
