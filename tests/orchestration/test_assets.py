import json
import shutil

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from orchestration.assets import asset_key
from orchestration.outdated import outdated
from orchestration.pipeline import chains
from tests.orchestration.small_project import definitions, dvc, materialize, read_stages, replace

pytestmark = pytest.mark.usefixtures("checks_pass")


def key(text):
    return dg.AssetKey(text.split("/"))


def materialization(result, text):
    return next(iter(result.asset_materializations_for_node(key(text).to_python_identifier())))


def failures(result):
    events = [event for event in result.all_events if event.event_type_value == "STEP_FAILURE"]
    return {event.step_key: event.step_failure_data for event in events}


def test_how_much_a_stage_reads_is_no_part_of_its_key():
    assert asset_key("train_12@mlp_2").path == ["train", "mlp_2"]
    assert asset_key("train_head@mlp").path == ["train_head", "mlp"]


def test_every_stage_and_source_is_an_asset(project):
    graph = definitions(project).resolve_asset_graph()
    assert {"/".join(k.path) for k in graph.external_asset_keys} == {"outside/mp16.csv", "outside/im2gps.csv"}
    assert len(graph.materializable_asset_keys) == 10
    train = graph.get(key("train_head/mlp"))
    assert train.parent_keys == {key("encode/clip-mp16")}
    assert (train.group_name, train.kinds, train.pools) == ("5_train", {"dvc", "pytorch"}, {"gpu"})
    assert graph.get(key("fetch/mp16")).description == "Bring mp16 here"


def test_selections_by_string_work(project):
    graph = definitions(project).resolve_asset_graph()

    def select(text):
        return {"/".join(k.path) for k in dg.AssetSelection.from_string(text).resolve(graph)}

    assert select('group:"5_train"') == {"train_head/linear", "train_head/mlp"}
    assert select('key:"encode/clip-mp16"+') == {"encode/clip-mp16", "train_head/linear", "train_head/mlp"}
    assert "promote" not in select("*")


@pytest.mark.slow
def test_a_materialisation_shows_what_the_stage_says_of_itself(project, instance):
    (project / ".state" / "mlflow" / "runs" / "train").mkdir(parents=True)
    note = project / ".state" / "mlflow" / "runs" / "train" / "mlp.json"
    note.write_text(json.dumps({"run_id": "a", "experiment_id": "1"}))
    keys = ("fetch/mp16", "ingest/mp16", "encode/clip-mp16", "train_head/mlp")
    result = materialize(project, instance, *keys)
    assert result.success
    shown = materialization(result, "train_head/mlp")
    assert shown.metadata["dvc"].value == "ran"
    assert shown.metadata["dagster/row_count"].value == 5
    assert shown.metadata["loss"].value == 0.25
    assert shown.metadata["benchmarks"].records[0].data == {"benchmarks": "im2gps", "km": 812.5}
    assert shown.metadata["mlflow_run"].value.endswith("/runs/a")
    made = {record.data["output"] for record in shown.metadata["outputs"].records}
    assert made == {"data/models/mlp", "data/summaries/train/mlp.json"}
    assert materialization(materialize(project, instance, *keys), "train_head/mlp").metadata["dvc"].value == "unchanged"


def test_a_command_knows_its_dagster_run_without_knowing_dagster(project, instance):
    replace(project / "code" / "work.sh", 'echo "working', 'echo "$MLFLOW_RUN_CONTEXT" >&2; echo "working')
    result = materialize(project, instance, "fetch/mp16")
    said = (project / ".state" / "logs" / "fetch__mp16.log").read_text()
    assert json.loads(said[said.index("{") : said.index("}") + 1]) == {
        "dagster.run_id": result.run_id,
        "dvc.stage": "fetch@mp16",
    }


def test_a_failure_is_the_stage_s_own_words(project, instance):
    (project / "trouble").mkdir()
    (project / "trouble" / "mp16").write_text(
        "geoloc: error: outside/mp16.csv: row 7: latitude 91; expected -90 to 90\n"
    )
    result = materialize(project, instance, "fetch/mp16", "ingest/mp16")
    told = failures(result)["fetch__mp16"]
    assert not result.success
    assert told.user_failure_data.description == "fetch@mp16: outside/mp16.csv: row 7: latitude 91; expected -90 to 90"
    assert told.user_failure_data.metadata["exit_code"].value == 2
    assert told.error.cause is None


@pytest.mark.slow
def test_what_comes_after_a_failed_check_does_not_start(project, instance, checks_fail):
    result = materialize(project, instance, "fetch/mp16", "ingest/mp16", "encode/clip-mp16")
    (check,) = result.get_asset_check_evaluations()
    assert (check.passed, check.blocking) == (False, True)
    assert "latitude within 90" in check.metadata["report"].value
    assert not (project / "data" / "features").exists()
    still = outdated(project, instance, read_stages(project))
    assert {key("ingest/mp16"), key("encode/clip-mp16")} <= still


@pytest.mark.slow
def test_dvc_and_dagster_write_the_same_lock(project, instance, tmp_path):
    twin = shutil.copytree(project, tmp_path / "twin")
    assert materialize(project, instance).success
    dvc(twin, "repro")
    locks = [yaml.safe_load((root / "dvc.lock").read_text()) for root in (project, twin)]
    assert locks[0] == locks[1]
    assert set(locks[0]["stages"]) == {stage.name for stage in read_stages(project)}
    dvc(project, "status", "-q")


@pytest.mark.slow
def test_what_is_outdated_is_what_changed_and_what_follows(project, instance):
    def now():
        return {"/".join(k.path) for k in outdated(project, instance, read_stages(project))}

    assert len(now()) == 10
    assert materialize(project, instance).success
    assert now() == set()
    replace(project / "params.yaml", "dim: 4", "dim: 5")
    clip = {"encode/clip-mp16", "encode/clip-im2gps", "train_head/linear", "train_head/mlp"}
    assert now() == clip
    dvc(project, "repro")
    unheard = {"encode/clip-mp16", "encode/clip-im2gps"}
    assert now() == unheard, "Dagster has not heard of what was done without it; the heads have the same bytes"
    assert materialize(project, instance, *unheard).success
    assert now() == set()
    replace(project / "params.yaml", "seed: 1", "seed: 1\n  expect: {mp16: {countries: [GBR]}}")
    promised = now()
    assert {"ingest/mp16"} <= promised, "a check of what was promised before says nothing of what is promised now"
    assert "fetch/mp16" not in promised
    assert "ingest/im2gps" not in promised


@pytest.mark.slow
def test_the_pages_show_the_same_staleness(project, instance):
    def stale():
        graph = definitions(project).resolve_asset_graph()
        resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
        keys = graph.materializable_asset_keys
        return {"/".join(k.path) for k in keys if resolver.get_status(k) != StaleStatus.FRESH}

    assert materialize(project, instance).success
    assert stale() == set()
    replace(project / "params.yaml", "lr: 0.2", "lr: 0.3")
    assert stale() == {"train_head/mlp"}
    replace(project / "params.yaml", "dim: 4", "dim: 5")
    assert {"encode/clip-mp16", "encode/clip-im2gps"} <= stale()
    assert materialize(project, instance, "encode/clip-mp16", "encode/clip-im2gps").success
    assert stale() == {"train_head/mlp"}, "the same bytes leave what follows fresh"


def test_what_most_waits_for_starts_first(project):
    ahead = chains(read_stages(project))
    assert ahead["fetch@mp16"] == 3  # ingest, encode, train
    assert ahead["fetch@im2gps"] == 2  # ingest, encode
    assert ahead["train_head@mlp"] == 0
