"""The asset that promotes a model: no DVC stage, since the model registry is not a file."""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from geoloc_core.lifeline import STEP
from geoloc_core.yamls import read_yaml
from orchestration.assets import asset_key
from orchestration.dvc import digest
from orchestration.environment import tools
from orchestration.metadata import figures, mlflow_page, picture, table
from orchestration.reproduce import USER_ERROR

KEY = dg.AssetKey("promote")
RANKING = "7_leaderboard"
"""The group of the stages that rank the variants."""
COMMAND = ("geoloc", "promote")
SHIFTS = {
    "features": "Training photos look like those that the champion learned from (operations.warn_shift.features)",
    "answers": "Countries are answered as often as the champion answered them (operations.warn_shift.answers)",
}
"""Checks that the promotion makes along with itself. They warn and never stop anything."""


def promotion(root: Path, after: Sequence[str], command: Sequence[str] = COMMAND) -> dg.AssetsDefinition:
    """The asset that gives the best variant the alias ``champion``.

    Args:
        root: The project.
        after: The stages that rank the variants.
        command: Compares and promotes; a second run changes nothing.
    """

    @dg.asset(
        key=KEY,
        deps=[asset_key(name) for name in after],
        group_name="8_promote",
        kinds={"mlflow"},
        description="Give the best variant the alias `champion` in the model registry, if it beats the current one",
        code_version=version(root, command),
        metadata={"command": dg.MetadataValue.md(f"`{' '.join(command)}`")},
        check_specs=[dg.AssetCheckSpec(name, asset=KEY, description=said) for name, said in SHIFTS.items()],
    )
    def promote(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        done = subprocess.run(  # noqa: S603 - a command of this project
            command,
            cwd=root,
            env={**os.environ, **tools(), STEP: str(os.getpid())},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            said = done.stderr.strip().removeprefix("geoloc: error: ")
            if said.startswith("Traceback"):  # the cause is in its last line; the rest follows it
                said = f"{said.splitlines()[-1]}\n{said}"
            raise dg.Failure(
                description=f"promote: {said}",
                metadata={"exit_code": dg.MetadataValue.int(done.returncode)},
                allow_retries=done.returncode != USER_ERROR,
            )
        context.log.info(done.stdout.strip())
        if said := done.stderr.strip():
            context.log.warning(said)
        result = json.loads((root / ".state" / "promotion.json").read_text(encoding="utf-8"))
        return dg.MaterializeResult(
            data_version=dg.DataVersion(digest(result.get("champion"))),
            metadata=_shown(result),
            check_results=[_shift(root, kind) for kind in SHIFTS],
        )

    return promote


def _shift(root: Path, kind: str) -> dg.AssetCheckResult:
    """How far features or answers had moved from the champion's when this one was decided on; it only warns."""
    note = root / ".state" / "shift.json"
    found = (
        [shift for shift in json.loads(note.read_text(encoding="utf-8")) if shift["kind"] == kind]
        if note.exists()
        else []
    )
    shown: dict[str, Any] = picture(root / ".state" / "shift.png") | {"moved": table(found)} if found else {}
    return dg.AssetCheckResult(
        check_name=kind,
        passed=not any(shift["warns"] for shift in found),
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(shift["told"] for shift in found) or "nothing to compare with",
        metadata=shown,
    )


def version(root: Path, command: Sequence[str] = COMMAND) -> str:
    """Digest of what promotion depends on besides the ranking: its command and the parameters of the registry."""
    params = read_yaml(root / "params.yaml") or {}
    return digest([list(command), (params.get("run") or {}).get("registry")])


def _shown(result: dict[str, Any]) -> dict[str, Any]:
    model, version = result.get("model"), (result.get("champion") or {}).get("version")
    link = {"registry": mlflow_page(f"models/{model}/versions/{version}")} if model and version else {}
    return figures(result) | link
