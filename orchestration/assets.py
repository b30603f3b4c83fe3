"""One asset per DVC stage: materialising the asset brings the stage up to date."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from orchestration import metadata
from orchestration.dvc import Stage
from orchestration.reproduce import USER_ERROR, StageError, reproducing

_COUNTED = re.compile(r"_\d+@")
_SEPARATORS = re.compile(r"[@:/]+")
_UNUSUAL = re.compile(r"[^A-Za-z0-9_.-]")


def asset_key(name: str) -> dg.AssetKey:
    """The asset key of a stage or a path: ``encode/clip-mp16`` for ``encode@clip-mp16``.

    How many things a training reads is no part of it: ``train/mlp`` for ``train_2@mlp``.
    """
    return dg.AssetKey([_UNUSUAL.sub("_", part) for part in _SEPARATORS.split(_COUNTED.sub("@", name)) if part])


def priority(number: int) -> dict[str, str]:
    """The tag that gives a step its priority: higher numbers start first."""
    return {"dagster/priority": str(number)}


def stage_asset(root: Path, stage: Stage, ahead: int = 0) -> dg.AssetsDefinition:
    """The asset of one stage.

    Args:
        root: The project.
        stage: The stage.
        ahead: Length of the longest chain of stages that depend on it.
    """
    look = stage.look

    @dg.asset(
        key=asset_key(stage.name),
        deps=[asset_key(name) for name in (*stage.stages, *stage.sources)],
        group_name=look.group,
        kinds={"dvc", *look.kinds},
        pool=look.pool,
        op_tags=priority(ahead),
        retry_policy=_patience(look.retries),
        description=stage.description,
        code_version=stage.version,
        metadata={"command": dg.MetadataValue.md(f"`{stage.command}`"), "stage": stage.name},
    )
    def reproduced(context: dg.AssetExecutionContext) -> Iterator[dg.AssetObservation | dg.MaterializeResult]:
        tags = {"dagster.run_id": context.run_id, "dvc.stage": stage.name}
        try:
            # MLflow turns this into tags of its run: no stage needs to know Dagster
            for update in reproducing(root, stage, {"MLFLOW_RUN_CONTEXT": json.dumps(tags)}):
                if isinstance(update, str):
                    yield dg.AssetObservation(asset_key(stage.name), description=update)
                    continue
                yield dg.MaterializeResult(
                    data_version=dg.DataVersion(stage.data_version(update.outputs)),
                    metadata=metadata.shown(root, stage, update),
                )
        except StageError as error:
            raise failure(stage, error) from None

    return reproduced


def failure(stage: Stage, error: StageError) -> dg.Failure:
    """The failure of a stage as Dagster shows it; it is not retried after a user's mistake."""
    return dg.Failure(
        description=str(error),
        metadata={
            "stage": stage.name,
            "command": stage.command,
            "exit_code": dg.MetadataValue.int(error.exit_code if error.exit_code is not None else 1),
            "log": dg.MetadataValue.path(f".state/logs/{stage.file_name}.log"),
        },
        allow_retries=error.exit_code != USER_ERROR,
    )


def source_assets(stages: list[Stage]) -> list[dg.AssetSpec]:
    """The input files and folders that no stage produces."""
    paths = sorted({path for stage in stages for path in stage.sources})
    return [
        dg.AssetSpec(
            asset_key(path),
            group_name="0_sources",
            kinds={"file"},
            description=f"An input file or folder: {path}",
        )
        for path in paths
    ]


def _patience(retries: int) -> dg.RetryPolicy | None:
    return dg.RetryPolicy(max_retries=retries, delay=10, backoff=dg.Backoff.EXPONENTIAL) if retries else None
