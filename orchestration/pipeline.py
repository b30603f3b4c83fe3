"""The stages of a project as Dagster definitions."""

from pathlib import Path

import dagster as dg

from geoloc_core.errors import UserError
from orchestration import automation, operations, promotion
from orchestration.assets import source_assets, stage_asset
from orchestration.checks import CHECKS, stage_check
from orchestration.dvc import Stage
from orchestration.executor import executor

FETCH = "1_fetch"
"""The group of the stages that bring the raw files of a corpus."""


def pipeline(root: Path, stages: list[Stage]) -> dg.Definitions:
    """All Dagster definitions of a project.

    Raises:
        UserError: A stage names a check that does not exist.
    """
    for stage in stages:
        if stage.look.check and stage.look.check not in CHECKS:
            known = ", ".join(CHECKS)
            found = stage.look.check
            raise UserError(f"dvc.yaml: stage {stage.name}: meta.dagster.check: {found}; expected one of {known}")
    ahead = chains(stages)
    ranking = [stage.name for stage in stages if stage.look.group == promotion.RANKING]
    asked = operations.operations(root)

    def corpora(stage: Stage) -> float | None:
        return asked.corpora_days if stage.look.group == FETCH and stage.subject else None

    return dg.Definitions(
        assets=[
            *source_assets(stages),
            *(_fresh(stage_asset(root, stage, ahead[stage.name]), corpora(stage)) for stage in stages),
            *([_fresh(promotion.promotion(root, ranking), asked.champion_days)] if ranking else []),
        ],
        asset_checks=[stage_check(root, stage, ahead[stage.name]) for stage in stages if stage.look.check],
        jobs=[automation.everything],
        schedules=[automation.retrain(root)],
        sensors=[automation.on_change(root, stages), operations.killed_runs(root)],
        executor=executor(root, stages),
    )


def chains(stages: list[Stage]) -> dict[str, int]:
    """The length of the longest chain of stages that depend on each stage: those with the longest start first.

    A run takes at least as long as its longest chain, so stages outside it should not delay it.
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


def _fresh(asset: dg.AssetsDefinition, days: float | None) -> dg.AssetsDefinition:
    """The asset, which must be made or found up to date every so many days, if any."""
    policy = operations.freshness(days)
    return asset.map_asset_specs(lambda spec: spec.replace_attributes(freshness_policy=policy)) if policy else asset
