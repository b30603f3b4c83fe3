"""A run of the whole graph: planned in this process, each step in a forked process."""

from collections.abc import Iterator, Sequence

import dagster as dg

from orchestration.automation import EVERYTHING
from orchestration.compat import execute_run_iterator
from orchestration.instance import this_host

_QUIET = {"loggers": {"console": {"config": {"log_level": "WARNING"}}}}


def execute(instance: dg.DagsterInstance, keys: Sequence[dg.AssetKey]) -> Iterator[dg.DagsterEvent]:
    """Materialise assets.

    Args:
        instance: Records the run.
        keys: The assets; their checks run too.

    Yields:
        The events of the run, as they happen.
    """
    job = dg.reconstructable(everything)
    all_there_are = set(job.get_definition().asset_layer.executable_asset_keys)
    selection = None if set(keys) == all_there_are else frozenset(keys)  # each step would resolve a selection again
    if selection is not None:
        job = job.get_subset(op_selection=None, asset_selection=selection)
    run = instance.create_run_for_job(
        job_def=job.get_definition(),
        run_config=_QUIET,
        asset_selection=selection,
        job_code_origin=job.get_python_origin(),
        tags={"geoloc/started_by": "geoloc demo", **this_host()},
    )
    yield from execute_run_iterator(job, run, instance)


def everything() -> dg.JobDefinition:
    """The job of the whole graph; the processes of a run find it by the name of this function."""
    from orchestration.definitions import defs

    return defs.resolve_job_def(EVERYTHING)


def step_labels(definitions: dg.Definitions, keys: Sequence[dg.AssetKey]) -> dict[str, str]:
    """The display name of each step of a run of these assets: ``encode clip-mp16``, ``check manifest mp16``."""
    wanted, labels = set(keys), {}
    repository = definitions.get_repository_def()
    for key, asset in repository.assets_defs_by_key.items():
        if key in wanted:
            labels[asset.node_def.name] = " ".join(key.path)
    for check, asset in repository.asset_checks_defs_by_key.items():
        if check.asset_key in wanted:
            labels.setdefault(asset.node_def.name, " ".join(["check", check.name, *check.asset_key.path[1:]]))
    return labels
