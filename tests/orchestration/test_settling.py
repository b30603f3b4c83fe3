"""A run of everything in which little is out of date: what is up to date takes no process of its own."""

import os
import shutil
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.execution.api import create_execution_plan

from geoloc_core import warm
from orchestration import executor
from orchestration.checks import CHECKS
from orchestration.compat import CODE_VERSION_TAG, DATA_VERSION_TAG
from orchestration.dvc import read_stages
from orchestration.outdated import outdated, standing
from orchestration.settling import Parts, held_back, parts_of
from tests.orchestration.small_project import definitions, dvc, materialize, replace

KEYS = {"fetch/mp16", "fetch/im2gps", "ingest/mp16", "ingest/im2gps", "encode/clip-mp16", "encode/clip-im2gps",
        "encode/vit-mp16", "encode/vit-im2gps", "train_head/linear", "train_head/mlp"}  # fmt: skip
CHECK_STEPS = {"ingest__mp16_manifest", "ingest__im2gps_manifest"}


def whole(root: str) -> dg.JobDefinition:
    """The job of the whole graph, which a run finds by the name of this function."""
    return definitions(Path(root)).resolve_job_def("everything")


def run_all(root, instance):
    """Materialise everything with the executor of real runs."""
    return dg.execute_job(dg.build_reconstructable_job(__name__, "whole", (str(root),)), instance)


def steps(result, kind):
    return {event.step_key for event in result.all_events if event.event_type_value == kind}


def last(instance, key):
    return instance.get_latest_materialization_event(dg.AssetKey(key.split("/"))).asset_materialization


def told(made):
    return {name: value for name, value in made.metadata.items() if name != "dvc"}


@pytest.mark.slow
def test_what_is_up_to_date_is_recorded_again_without_processes_and_checks_are_not_made_again(
    project, instance, monkeypatch, checks_pass
):
    assert materialize(project, instance).success
    before = {key: last(instance, key) for key in KEYS}
    monkeypatch.setitem(CHECKS, "manifest", ("", lambda root, corpus: pytest.fail("the check is made again")))
    for _ in range(2):
        result = run_all(project, instance)
        assert result.success
        assert not steps(result, "STEP_WORKER_STARTING")
        assert len(steps(result, "ASSET_MATERIALIZATION")) == len(KEYS)
        assert steps(result, "ASSET_CHECK_EVALUATION") == CHECK_STEPS
        assert outdated(project, instance, read_stages(project)) == set()
    for key in KEYS:
        assert last(instance, key).metadata["dvc"].value == "unchanged"
        assert (told(last(instance, key)), last(instance, key).tags) == (told(before[key]), before[key].tags)
    check = dg.AssetCheckKey(dg.AssetKey(["ingest", "mp16"]), "manifest")
    (record,) = instance.event_log_storage.get_asset_check_execution_history(check, limit=1)
    evaluation = record.event.dagster_event.asset_check_evaluation_data
    assert evaluation.passed
    assert evaluation.metadata["expectations"].value == 1, "the report is that of the check that was made"
    assert evaluation.target_materialization_data.run_id == result.run_id


@pytest.mark.slow
def test_what_was_made_without_dagster_is_recorded_as_dagster_would(project, instance, tmp_path):
    replace(project / "dvc.yaml", ", check: manifest", "")
    twin = Path(shutil.copytree(project, tmp_path / "twin"))
    dvc(project, "repro")
    assert len(outdated(project, instance, read_stages(project))) == len(KEYS)
    result = run_all(project, instance)
    assert result.success
    assert not steps(result, "STEP_WORKER_STARTING")
    assert outdated(project, instance, read_stages(project)) == set()
    ours = {key: last(instance, key) for key in KEYS}
    assert materialize(twin, instance).success
    kinds = (CODE_VERSION_TAG, DATA_VERSION_TAG, "dagster/input_data_version/")
    for key in KEYS:
        theirs = last(instance, key)
        assert told(ours[key]) == told(theirs)
        assert ours[key].tags == {name: value for name, value in theirs.tags.items() if name.startswith(kinds)}


@pytest.mark.slow
def test_only_what_is_out_of_date_takes_a_step_and_nothing_passes_a_failed_check(project, instance, checks_pass):
    stages = read_stages(project)
    assert materialize(project, instance).success
    replace(project / "params.yaml", "lr: 0.2", "lr: 0.3")
    replace(project / "params.yaml", "seed: 1", "seed: 1\n  expect: {mp16: {countries: [GBR]}}")
    plan = create_execution_plan(definitions(project).resolve_job_def("everything"))
    parts = parts_of(project, instance, stages, plan)
    assert parts.stale == ["train_head__mlp"]
    assert parts.checks_first == ["ingest__mp16_manifest"]
    assert parts.passed == ["ingest__im2gps_manifest"]
    assert len(parts.current) == len(KEYS) - 1
    assert held_back(plan, parts, []) == set()
    assert held_back(plan, parts, ["ingest__mp16_manifest"]) == {"train_head__mlp"}, "not only what is next to it"
    assert held_back(plan, parts, ["ingest__im2gps_manifest"]) == set(), "nothing was trained on it"


@pytest.mark.slow
def test_a_check_that_is_asked_for_by_name_is_made(project, instance, checks_pass):
    assert materialize(project, instance).success
    job = definitions(project).resolve_job_def("everything")
    check = dg.AssetCheckKey(dg.AssetKey(["ingest", "mp16"]), "manifest")
    plan = create_execution_plan(job.get_subset(asset_selection=set(), asset_check_selection={check}))
    parts = parts_of(project, instance, read_stages(project), plan)
    assert check in standing(project, instance, read_stages(project)).passed
    assert (parts.checks_first, parts.passed, parts.current) == (["ingest__mp16_manifest"], [], [])


@pytest.mark.parametrize(("stale", "ahead"), [(3, True), (2, False)])
def test_libraries_are_loaded_ahead_before_the_first_step_is_forked(tmp_path, monkeypatch, stale, ahead):
    seen = []

    class Steps:
        def execute(self, context, steps):
            seen.append((steps, warm.ADDRESS in os.environ))
            return iter(())

    monkeypatch.setattr(executor, "settle", lambda *_: ())
    monkeypatch.setattr(executor, "held_back", lambda *_: set())
    monkeypatch.setattr(executor, "part_of_plan", lambda context, plan, steps: list(steps))
    work = [f"train__{number}" for number in range(stale)]
    parts = Parts(None, checks_first=["first"], checks=["later"], stale=work)
    assert list(executor._InTurn(tmp_path, [], Steps())._steps_of(None, None, parts)) == []
    assert seen == [(["first"], ahead), ([*work, "later"], ahead)], "steps have the environment of the first"
    assert warm.ADDRESS not in os.environ
