"""The stages of a project as Dagster definitions."""

from pathlib import Path

import dagster as dg

from geoloc_core.errors import UserError
from orchestration import automation, promotion
from orchestration.assets import source_assets, stage_asset
from orchestration.checks import CHECKS, stage_check
from orchestration.dvc import Stage
from orchestration.executor import executor


def pipeline(root: Path, stages: list[Stage]) -> dg.Definitions:
    """Everything Dagster knows about a project.

    Raises:
        UserError: A stage asks for a check that does not exist.
    """
    for stage in stages:
        if stage.look.check and stage.look.check not in CHECKS:
            known = ", ".join(CHECKS)
            raise UserError(f"dvc.yaml: stage {stage.name}: meta.dagster.check: expected one of {known}")
    ahead = chains(stages)
    ranking = [stage.name for stage in stages if stage.look.group == promotion.RANKING]
    return dg.Definitions(
        assets=[
            *source_assets(stages),
            *(stage_asset(root, stage, ahead[stage.name]) for stage in stages),
            *([promotion.promotion(root, ranking)] if ranking else []),
        ],
        asset_checks=[stage_check(root, stage, ahead[stage.name]) for stage in stages if stage.look.check],
        jobs=[automation.everything],
        schedules=[automation.retrain()],
        sensors=[automation.on_change(root)],
        executor=executor(root),
    )


def chains(stages: list[Stage]) -> dict[str, int]:
    """How many stages at most come one after the other behind each: those with the most start first.

    A run takes as long as its longest chain, and what could run beside it should not come before.
    """
    readers: dict[str, list[str]] = {stage.name: [] for stage in stages}
    for stage in stages:
        for source in stage.stages:
            readers[source].append(stage.name)
    lengths: dict[str, int] = {}

    def length(name: str) -> int:
        if name not in lengths:
            lengths[name] = max((1 + length(reader) for reader in readers[name]), default=0)
        return lengths[name]

    return {name: length(name) for name in readers}
