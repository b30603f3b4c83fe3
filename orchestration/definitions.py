"""What Dagster loads: the pipeline of the project that it was started in."""

import os

from orchestration.code import refresh_code
from orchestration.dvc import read_stages
from orchestration.environment import IN_RUN, project_root
from orchestration.pipeline import pipeline

root = project_root()
if IN_RUN not in os.environ:  # its digests are those that the run was planned with
    refresh_code(root)
stages = read_stages(root)
defs = pipeline(root, stages)
