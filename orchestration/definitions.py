"""The module that Dagster loads: the definitions for the project in the current folder or ``$GEOLOC_ROOT``."""

import os

from geoloc_core.hook import IN_RUN
from orchestration.code import refresh_code
from orchestration.dvc import read_stages
from orchestration.environment import project_root
from orchestration.pipeline import pipeline

root = project_root()
if IN_RUN not in os.environ:  # the steps of a run use the digests that it was planned with
    refresh_code(root)
stages = read_stages(root)
defs = pipeline(root, stages)
