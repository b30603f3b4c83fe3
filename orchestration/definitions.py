"""What Dagster loads: the pipeline of the project that it was started in."""

from orchestration.dvc import read_stages
from orchestration.environment import project_root
from orchestration.pipeline import pipeline

root = project_root()
stages = read_stages(root)
defs = pipeline(root, stages)
