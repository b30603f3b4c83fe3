"""What a run does with steps that are up to date: it records them all at once, without a process for each."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg

from orchestration import metadata
from orchestration.assets import asset_key
from orchestration.compat import (
    CODE_VERSION_TAG,
    DATA_VERSION_TAG,
    OWN_VERSION_TAG,
    asset_check_of,
    asset_of,
    checks_within,
    evaluation_of,
    evaluations,
    input_tag,
    settled_step,
)
from orchestration.dvc import Stage
from orchestration.outdated import Standing, standing, with_downstream
from orchestration.reproduce import Outcome

_NEVER_OBSERVED = "INITIAL"
"""The version by which Dagster knows the data of an input that it has not looked at."""


@dataclass(frozen=True)
class Parts:
    """The steps of a run, by what there is to do.

    Attributes:
        standing: How the assets and checks stood when the run began.
        current: Assets that are up to date.
        passed: Checks that have passed on such assets.
        checks_first: Other checks of such assets: what is out of date downstream of them waits.
        checks: Checks of assets that are out of date.
        stale: Assets that are out of date.
        is_whole: Whether the run takes care of all that there is to do.
    """

    standing: Standing
    current: Sequence[str] = ()
    passed: Sequence[str] = ()
    checks_first: Sequence[str] = ()
    checks: Sequence[str] = ()
    stale: Sequence[str] = ()
    is_whole: bool = False

    @property
    def is_work(self) -> bool:
        """Whether any step has work to do."""
        return bool(self.checks_first or self.checks or self.stale)


def parts_of(root: Path, instance: dg.DagsterInstance, stages: Sequence[Stage], plan: Any) -> Parts:
    """Sort the steps of a run. A run of nothing but checks was asked for by name: it makes them all."""
    now = standing(root, instance, list(stages))
    sorted_: dict[str, list[str]] = {"current": [], "passed": [], "checks_first": [], "checks": [], "stale": []}
    steps = list(plan.step_keys_to_execute)
    only_checks = not any(asset_of(plan, step) for step in steps)
    for step in steps:
        key, check = asset_of(plan, step), asset_check_of(plan, step)
        sorted_[_part(now, key, check, only_checks)].append(step)
    assets, checks = {asset_of(plan, step) for step in steps}, {asset_check_of(plan, step) for step in steps}
    return Parts(now, **sorted_, is_whole=now.assets <= assets and now.unchecked <= checks)


def held_back(plan: Any, parts: Parts, failed: Iterable[str]) -> set[str]:
    """Steps that must not start, because a check of what they descend from has failed.

    Args:
        plan: The plan of the run.
        parts: Its steps, sorted.
        failed: The steps of checks that have failed.
    """
    checks = [asset_check_of(plan, step) for step in failed]
    bad = with_downstream({check.asset_key for check in checks if check}, parts.standing.after)
    stale = {step for step in parts.stale if asset_of(plan, step) in bad}
    return stale | {step for step in parts.checks if getattr(asset_check_of(plan, step), "asset_key", None) in bad}


def _part(now: Standing, key: dg.AssetKey | None, check: dg.AssetCheckKey | None, only_checks: bool) -> str:
    if check:
        if check.asset_key in now.stale:
            return "checks"
        return "passed" if check in now.passed and not only_checks else "checks_first"
    return "stale" if key is None or key in now.stale else "current"


def settle(root: Path, stages: Sequence[Stage], context: Any, plan: Any, parts: Parts) -> Iterator[dg.DagsterEvent]:
    """Record what is up to date once more, as a step of its own would that finds nothing to do.

    Dagster takes an asset for failed if a run that was to make it fails, whatever step it was, and a check for
    skipped if it was planned and not made.
    """
    now, of = parts.standing, {asset_key(stage.name): stage for stage in stages}
    versions = {key: stage.data_version(now.outputs[key]) for key, stage in of.items() if key in now.outputs}
    checks: dict[dg.AssetKey, list[tuple[str, dg.AssetCheckKey]]] = {}
    for step in parts.passed:
        check = asset_check_of(plan, step)
        assert check is not None
        checks.setdefault(check.asset_key, []).append((step, check))
    for step in parts.current:
        key = asset_of(plan, step)
        assert key is not None
        if key in now.unrecorded:
            made = _as_it_is(root, of[key], now.outputs[key], versions)
        else:
            made = _again(now.records[key])
        yield from settled_step(context, plan, step, made, partial(_along, context.instance, plan, step, key))
        for check_step, check in checks.pop(key, ()):
            (record,) = context.instance.get_asset_records([key])
            yield from settled_step(context, plan, check_step, evaluation_of(now.passed[check], record))
    for of_others in checks.values():  # of assets that this run does not make
        for check_step, check in of_others:
            yield from settled_step(context, plan, check_step, now.passed[check])


def _along(instance: dg.DagsterInstance, plan: Any, step: str, key: dg.AssetKey) -> Iterator[dg.AssetCheckEvaluation]:
    """What the checks said last that the step of an asset makes along with it."""
    for check in checks_within(plan, step):
        (record,) = instance.get_asset_records([key])
        for evaluation in evaluations(instance, check):
            yield evaluation_of(evaluation, record)


def _as_it_is(
    root: Path, stage: Stage, outputs: dict[str, str], versions: Mapping[dg.AssetKey, str]
) -> dg.AssetMaterialization:
    """What is recorded of an asset that was made without Dagster."""
    before = {asset_key(name): versions[asset_key(name)] for name in stage.stages}
    before |= {asset_key(path): _NEVER_OBSERVED for path in stage.sources}
    inputs = {input_tag(key): version for key, version in before.items()}
    key = asset_key(stage.name)
    tags = {CODE_VERSION_TAG: stage.version, DATA_VERSION_TAG: versions[key], OWN_VERSION_TAG: "true", **inputs}
    return dg.AssetMaterialization(key, metadata=metadata.shown(root, stage, Outcome(False, outputs)), tags=tags)


def _again(entry: dg.EventLogEntry | None) -> dg.AssetMaterialization:
    made = entry.asset_materialization if entry else None
    assert made is not None
    return dg.AssetMaterialization(made.asset_key, metadata={**made.metadata, "dvc": "unchanged"}, tags=made.tags)
