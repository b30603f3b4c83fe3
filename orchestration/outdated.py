"""Which assets are out of date, and what there is to do about each."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from orchestration import promotion
from orchestration.assets import asset_key
from orchestration.checks import PROMISES, promises
from orchestration.compat import CODE_VERSION_TAG, DATA_VERSION_TAG, evaluations
from orchestration.dvc import Stage, changed_stages, locked_outputs

Records = Mapping[dg.AssetKey, dg.EventLogEntry | None]


@dataclass(frozen=True)
class Standing:
    """What is out of date, by what it takes to mend it.

    Attributes:
        stale: Assets whose stage DVC would run, with everything downstream: each takes a step of its own.
        unrecorded: Assets that are up to date, but that Dagster does not know as they are, as after a ``dvc repro``:
            it takes no work to record them.
        passed: Checks that have passed on the present data with the present expectations, with how they went.
        unchecked: All other checks.
        after: The direct dependencies of every asset.
        outputs: The MD5 of every output of an asset that DVC has run, by path.
        records: The last materialisation of every asset.
    """

    stale: frozenset[dg.AssetKey]
    unrecorded: frozenset[dg.AssetKey]
    passed: Mapping[dg.AssetCheckKey, dg.AssetCheckEvaluation]
    unchecked: frozenset[dg.AssetCheckKey]
    after: Mapping[dg.AssetKey, list[dg.AssetKey]]
    outputs: Mapping[dg.AssetKey, dict[str, str]]
    records: Records

    @property
    def assets(self) -> set[dg.AssetKey]:
        """The assets about which there is anything to do."""
        return {*self.stale, *self.unrecorded, *(check.asset_key for check in self.unchecked)}


def standing(root: Path, instance: dg.DagsterInstance, stages: list[Stage]) -> Standing:
    """How every asset and every check stands."""
    recipes = {asset_key(stage.name): stage.version for stage in stages}
    after = {asset_key(stage.name): [asset_key(name) for name in stage.stages] for stage in stages}
    locked = locked_outputs(root)
    data = {asset_key(s.name): s.data_version(locked[s.name]) for s in stages if s.name in locked}
    ranking = [asset_key(stage.name) for stage in stages if stage.look.group == promotion.RANKING]
    records = _records(instance, [*recipes, *([promotion.KEY] if ranking else [])])
    changed = {asset_key(name) for name in changed_stages(root)} & set(recipes)
    unrecorded = {
        key
        for key, recipe in recipes.items()
        if not _has(records[key], CODE_VERSION_TAG, recipe)
        or (key in data and not _has(records[key], DATA_VERSION_TAG, data[key]))
    }
    if ranking:
        after[promotion.KEY] = ranking
        known = _has(records[promotion.KEY], CODE_VERSION_TAG, promotion.version(root))
        if not known or not unrecorded.isdisjoint(ranking):
            changed.add(promotion.KEY)
    stale = with_downstream(changed, after)
    checks = {dg.AssetCheckKey(asset_key(s.name), s.look.check): s.subject for s in stages if s.look.check}
    still = {check: subject for check, subject in checks.items() if check.asset_key not in unrecorded | stale}
    passed = _passed(root, instance, still)
    return Standing(
        frozenset(stale),
        frozenset(unrecorded - stale),
        passed,
        frozenset(checks.keys() - passed.keys()),
        after,
        {asset_key(name): outputs for name, outputs in locked.items()},
        records,
    )


def outdated(root: Path, instance: dg.DagsterInstance, stages: list[Stage]) -> set[dg.AssetKey]:
    """The assets about which there is anything to do: see :class:`Standing`."""
    return standing(root, instance, stages).assets


def with_downstream(keys: Iterable[dg.AssetKey], after: Mapping[dg.AssetKey, list[dg.AssetKey]]) -> set[dg.AssetKey]:
    """The keys, and every key downstream of them.

    Args:
        keys: Where to start.
        after: The direct dependencies of every key.
    """
    found = set(keys)
    while True:
        more = {key for key, before in after.items() if key not in found and not found.isdisjoint(before)}
        if not more:
            return found
        found |= more


def _records(instance: dg.DagsterInstance, keys: list[dg.AssetKey]) -> dict[dg.AssetKey, dg.EventLogEntry | None]:
    entries = [record.asset_entry for record in instance.get_asset_records(keys)]
    return dict.fromkeys(keys) | {entry.asset_key: entry.last_materialization for entry in entries}


def _has(event: dg.EventLogEntry | None, tag: str, value: str) -> bool:
    made = event.asset_materialization if event else None
    return made is not None and (made.tags or {}).get(tag) == value


def _passed(
    root: Path, instance: dg.DagsterInstance, checks: Mapping[dg.AssetCheckKey, str]
) -> dict[dg.AssetCheckKey, dg.AssetCheckEvaluation]:
    """Those checks whose last evaluation passed, on the latest materialisation and with the current expectations."""
    if not checks:
        return {}
    promised = promises(root)
    made = {record.asset_entry.asset_key: record.asset_entry.last_materialization_storage_id
            for record in instance.get_asset_records([check.asset_key for check in checks])}  # fmt: skip
    return {
        check: evaluation
        for check, subject in checks.items()
        for evaluation in evaluations(instance, check)
        if _still_holds(evaluation, made.get(check.asset_key), promised(subject))
    }


def _still_holds(evaluation: dg.AssetCheckEvaluation, materialization: int | None, promised: str) -> bool:
    held = evaluation.metadata.get(PROMISES)
    target = evaluation.target_materialization_data
    is_of_now = target is not None and target.storage_id == materialization
    return evaluation.passed and is_of_now and held is not None and held.value == promised
