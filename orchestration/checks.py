"""Blocking checks on what a stage wrote: what comes after does not start on bad data."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg

from geoloc_core.yamls import read_yaml
from orchestration.assets import asset_key, priority
from orchestration.dvc import Stage, digest


def _manifest(root: Path, corpus: str) -> Any:
    from geoloc_core.corpora.checks import check_manifest
    from geoloc_core.project import Project

    return check_manifest(Project.open(root / "params.yaml"), corpus)


def _labels(root: Path, corpus: str) -> Any:
    from geoloc_core.corpora.checks import check_labels
    from geoloc_core.project import Project

    return check_labels(Project.open(root / "params.yaml"), corpus)


PROMISES = "promises"
CHECKS: dict[str, tuple[str, Callable[[Path, str], Any]]] = {
    "manifest": ("Every row of the manifest keeps the manifest's contract", _manifest),
    "labels": ("Every row has the units and the split that the labels' contract promises", _labels),
}
"""What ``meta.dagster.check`` may name: a description, and what makes the report."""


def promises(root: Path) -> Callable[[str], str]:
    """What the parameters promise of a corpus, as a digest: a check that was made against other promises is void."""
    expect = read_yaml(root / "params.yaml")["run"].get("expect") or {}
    return lambda corpus: digest(expect.get(corpus))


def stage_check(root: Path, stage: Stage, ahead: int = 0) -> dg.AssetChecksDefinition:
    """The check that a stage asks for.

    Args:
        root: The project.
        stage: The stage.
        ahead: How many stages one after the other wait for it.
    """
    name = stage.look.check
    assert name is not None
    description, report_of = CHECKS[name]

    @dg.asset_check(
        asset=asset_key(stage.name), name=name, blocking=True, description=description, op_tags=priority(ahead)
    )
    def checked() -> dg.AssetCheckResult:
        report = report_of(root, stage.subject)
        return dg.AssetCheckResult(
            passed=report.passed,
            severity=dg.AssetCheckSeverity.ERROR,
            metadata={
                "expectations": len(report.rows),
                PROMISES: promises(root)(stage.subject),
                "failed": sum(not row.passed for row in report.rows),
                "report": dg.MetadataValue.md(report.markdown()),
            },
        )

    return checked
