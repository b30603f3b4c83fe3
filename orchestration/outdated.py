"""Which assets are out of date."""

from collections.abc import Mapping
from pathlib import Path

import dagster as dg

from orchestration import promotion
from orchestration.assets import asset_key
from orchestration.checks import PROMISES, promises
from orchestration.compat import CODE_VERSION_TAG, DATA_VERSION_TAG
from orchestration.dvc import Stage, changed_stages, locked_outputs


def outdated(root: Path, instance: dg.DagsterInstance, stages: list[Stage]) -> set[dg.AssetKey]:
    """The assets to materialise, with everything downstream.

    These are the stages that DVC would run, those that were never materialised, those recorded with another recipe or
    other data than the current ones (after a ``dvc repro``), and those whose check has not passed.
    """
    recipes = {asset_key(stage.name): stage.version for stage in stages}
    after = {asset_key(stage.name): [asset_key(name) for name in stage.stages] for stage in stages}
    ranking = [asset_key(stage.name) for stage in stages if stage.look.group == promotion.RANKING]
    if ranking:
        recipes[promotion.KEY] = promotion.version(root)
        after[promotion.KEY] = ranking
    locked = locked_outputs(root)
    data = {asset_key(s.name): s.data_version(locked[s.name]) for s in stages if s.name in locked}
    recorded = _recorded(instance, list(recipes))
    found = {asset_key(name) for name in changed_stages(root)} & set(recipes)
    found |= {
        key
        for key, recipe in recipes.items()
        if recorded.get(key) is None
        or recorded[key][CODE_VERSION_TAG] != recipe
        or (key in data and recorded[key][DATA_VERSION_TAG] != data[key])
    }
    found |= _unchecked(root, instance, stages)
    return with_downstream(found, after)


def with_downstream(keys: set[dg.AssetKey], after: Mapping[dg.AssetKey, list[dg.AssetKey]]) -> set[dg.AssetKey]:
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


def _recorded(instance: dg.DagsterInstance, keys: list[dg.AssetKey]) -> dict[dg.AssetKey, dict[str, str]]:
    records = instance.get_asset_records(keys)
    events = {record.asset_entry.asset_key: record.asset_entry.last_materialization for record in records}
    found = {}
    for key, event in events.items():
        if event and event.asset_materialization:
            found[key] = {CODE_VERSION_TAG: "", DATA_VERSION_TAG: "", **(event.asset_materialization.tags or {})}
    return found


def _unchecked(root: Path, instance: dg.DagsterInstance, stages: list[Stage]) -> set[dg.AssetKey]:
    """Assets whose latest materialisation has not passed its check with the current expectations."""
    checks = {dg.AssetCheckKey(asset_key(s.name), s.look.check): s.subject for s in stages if s.look.check}
    if not checks:
        return set()
    promised = promises(root)
    latest = instance.event_log_storage.get_latest_asset_check_execution_by_key(list(checks))
    records = instance.get_asset_records([check.asset_key for check in checks])
    made = {r.asset_entry.asset_key: r.asset_entry.last_materialization_storage_id for r in records}
    return {
        check.asset_key
        for check, subject in checks.items()
        if check not in latest or not _passed(latest[check].event, made.get(check.asset_key), promised(subject))
    }


def _passed(entry: dg.EventLogEntry | None, materialization: int | None, promised: str) -> bool:
    event = entry.dagster_event if entry else None
    if event is None or event.event_type != dg.DagsterEventType.ASSET_CHECK_EVALUATION:  # planned, but never executed
        return False
    evaluation = event.asset_check_evaluation_data
    held = evaluation.metadata.get(PROMISES)
    target = evaluation.target_materialization_data
    is_of_now = target is not None and target.storage_id == materialization
    return evaluation.passed and is_of_now and held is not None and held.value == promised
