"""Blocking checks of what a stage wrote: downstream stages do not start on bad data."""

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
    "manifest": ("Every row of the manifest meets the manifest's contract", _manifest),
    "labels": ("Every row has the administrative units and the split that the labels' contract requires", _labels),
}
"""The values of ``meta.dagster.check``: each with a description and the function that makes the report."""


def promises(root: Path) -> Callable[[str], str]:
    """A digest of the expectations in params.yaml, by corpus: a check that was made with others is out of date."""
    expect = read_yaml(root / "params.yaml")["run"].get("expect") or {}
    return lambda corpus: digest(expect.get(corpus))


def stage_check(root: Path, stage: Stage, ahead: int = 0) -> dg.AssetChecksDefinition:
    """The check that a stage names in its ``meta.dagster``.

    Args:
        root: The project.
        stage: The stage.
        ahead: Length of the longest chain of stages that depend on it.
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
            description=report.verdict,
            metadata={
                "expectations": len(report.rows),
                PROMISES: promises(root)(stage.subject),
                "failed": sum(not row.passed for row in report.rows),
                "report": dg.MetadataValue.md(report.markdown()),
            },
        )

    return checked
