"""Imports and creates once what every step needs: the steps of a run are forked from the process that loads this."""

import gc
import importlib
import os

import dagster as dg
import dvc.repo.reproduce
import dvc.rwlock  # noqa: F401

from geoloc_core.lifeline import end_with
from orchestration.compat import read_migrations_once
from orchestration.execution import everything
from orchestration.executor import EXTRA

read_migrations_once()
dg.reconstructable(everything).get_definition()
with dg.DagsterInstance.get() as instance:  # for the modules that this imports
    instance.get_runs(limit=1)
os.register_at_fork(after_in_child=lambda: end_with(os.getppid()))  # else a step would outlive a run that is killed
for name in os.environ.get(EXTRA, "").split():
    importlib.import_module(name)
gc.freeze()  # what is loaded is for good, and its memory shared
