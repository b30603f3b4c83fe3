"""The stages of a project as Dagster definitions."""

import os
from pathlib import Path

import dagster as dg

from geoloc_core.errors import UserError
from orchestration import automation, promotion
from orchestration.assets import source_assets, stage_asset
from orchestration.checks import CHECKS, stage_check
from orchestration.dvc import Stage

PARALLEL = max(3, (os.cpu_count() or 2) // 4)
"""Stages at a time: most are a process with threads of its own, and wait a while for Dagster, DVC and the disk."""

executor = dg.multiprocess_executor.configured(
    {"max_concurrent": PARALLEL, "start_method": {"forkserver": {"preload_modules": ["orchestration.preload"]}}}
)


def pipeline(root: Path, stages: list[Stage]) -> dg.Definitions:
    """Everything Dagster knows about a project.

    Raises:
        UserError: A stage asks for a check that does not exist.
    """
    for stage in stages:
        if stage.look.check and stage.look.check not in CHECKS:
            known = ", ".join(CHECKS)
            raise UserError(f"dvc.yaml: stage {stage.name}: meta.dagster.check: expected one of {known}")
    ranking = [stage.name for stage in stages if stage.look.group == promotion.RANKING]
    return dg.Definitions(
        assets=[
            *source_assets(stages),
            *(stage_asset(root, stage) for stage in stages),
            *([promotion.promotion(root, ranking)] if ranking else []),
        ],
        asset_checks=[stage_check(root, stage) for stage in stages if stage.look.check],
        jobs=[automation.everything()],
        schedules=[automation.retrain()],
        sensors=[automation.on_change(root)],
        executor=executor,
    )
