import json
import re
import shutil
import subprocess
import threading
import time
from contextlib import chdir

import psutil
import pytest
import yaml

from geoloc_core import plan
from geoloc_core.errors import UserError
from geoloc_core.files import replacing_folder
from geoloc_core.params.using import use
from geoloc_core.project import Project
from orchestration.assets import asset_key
from orchestration.dvc import changed_stages, digest, locked_outputs, read_stages
from orchestration.repository import with_dvc
from orchestration.reproduce import StageError, reproducing
from tests.conftest import ROOT
from tests.orchestration.small_project import dvc, replace, reproduce


def by_name(root):
    return {stage.name: stage for stage in read_stages(root)}


def versions(root):
    return {stage.name: stage.version for stage in read_stages(root)}


def changed(before, after):
    return {name for name in before if before[name] != after[name]}


def test_there_is_one_stage_per_entry_of_foreach_and_matrix(project):
    assert sorted(by_name(project)) == [
        "encode@clip-im2gps",
        "encode@clip-mp16",
        "encode@vit-im2gps",
        "encode@vit-mp16",
        "fetch@im2gps",
        "fetch@mp16",
        "ingest@im2gps",
        "ingest@mp16",
        "train_head@linear",
        "train_head@mlp",
    ]


def test_a_stage_tells_what_it_reads_and_how_it_is_shown(project):
    stages = by_name(project)
    train = stages["train_head@mlp"]
    assert train.stages == ("encode@clip-mp16",)
    assert train.summaries == ("data/summaries/train/mlp.json",)
    assert (train.look.group, train.look.pool, train.look.mlflow) == ("5_train", "gpu", "train/mlp")
    assert (train.subject, train.file_name) == ("mlp", "train_head__mlp")
    fetch = stages["fetch@mp16"]
    assert (fetch.sources, fetch.stages, fetch.description) == (("outside/mp16.csv",), (), "Bring mp16 here")


def test_keys_have_the_stage_and_its_entry_as_parts():
    assert asset_key("encode@clip-mp16").path == ["encode", "clip-mp16"]
    assert asset_key("/datasets/mp 16").path == ["datasets", "mp_16"]


def test_a_recipe_changes_with_its_own_parameters_only(project):
    before = versions(project)
    replace(project / "params.yaml", "lr: 0.2", "lr: 0.3")
    assert changed(before, versions(project)) == {"train_head@mlp"}


def test_a_recipe_changes_with_its_code(project):
    before = versions(project)
    replace(project / "code" / "work.sh", "working on", "busy with")
    assert changed(before, versions(project)) == set(before)


def test_a_recipe_does_not_change_with_its_data(project):
    before = versions(project)
    (project / "outside" / "mp16.csv").write_text("more")
    assert versions(project) == before


def test_code_that_is_missing_is_no_obstacle_to_reading(project):
    (project / "code" / "work.sh").unlink()
    assert len(read_stages(project)) == 10


@pytest.fixture
def real(project):
    """The project's own graph."""
    for name in ("dvc.yaml", "params.yaml", "plan.yaml"):
        (project / name).write_text((ROOT / name).read_text())
    return project


def test_a_digest_takes_keys_of_numbers_beside_those_of_text():
    assert digest({750: 1, "country": 2}) == digest({"country": 2, 750: 1}) != digest({750: 2, "country": 2})


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["papers", "full"])
def test_every_profile_is_a_graph(real, profile):
    use(real / "params.yaml", profile)
    known = Project.open(real / "params.yaml")
    plan.write(known)
    names = set(by_name(real))
    assert {f"score@{name}" for name in known.profile.variants} | {"leaderboard"} <= names


@pytest.mark.slow
def test_no_answer_waits_for_a_corpus_that_nobody_learns_from_or_is_scored_on(real):
    run = yaml.safe_load((real / "params.yaml").read_text())["run"]
    learned = {variant["corpus"] for variant in run["variants"].values()}
    used = (*learned, *run["evaluation"]["benchmarks"], run["registry"]["benchmark"])
    stages, truth = by_name(real), {f"truth@{name}" for name in used}
    assert len(truth) < len(run["corpora"])
    assert {name for name in stages if name.startswith("truth@")} == truth
    features = (
        "classifier", "guidebook_attention", "fine_tuned", "feature_experts", "protonet_refinement",
        "geocell_classifier", "geoclip", "zero_shot", "contrastive_captions", "sequence_classifier",
        "retrieval", "hierarchical", "density",
    )  # fmt: skip
    inputs = {kind: {"answer"} for kind in ("ensemble", "place_ensemble")} | {kind: {"encode"} for kind in features}
    for name, variant in run["variants"].items():
        (answer,) = [stage for at, stage in stages.items() if re.fullmatch(rf"answer_\d@{name}", at)]
        kinds = {re.split("[@_]", at)[0] for at in answer.stages}
        cells = {"cells"} if variant.get("labels") in run["cells"] else set()
        facts = {"facts"} if "tasks" in variant else set()
        assert kinds == {"train", "truth", "boundaries", *inputs[variant["kind"]], *cells, *facts}, name
        assert {at for at in answer.stages if at.startswith("truth")} == truth
        score = stages[f"score@{name}"]
        assert score.stages == (answer.name, "leaks"), "no model runs where scores are made"
    assert {*stages["leaderboard"].stages} == {f"score@{name}" for name in run["variants"]}
    kinds = {re.split("[@_]", at)[0] for at in stages["report"].stages}
    assert kinds == {"leaderboard", "score", "answer", "label", "ingest", "train", "truth"}
    for name in used:
        assert stages[f"truth@{name}"].stages == (f"ingest@{name}", f"label@{name}")


def test_a_wrong_look_is_named_with_its_stage(project):
    replace(project / "dvc.yaml", "kinds: [numpy]", "kind: numpy")
    with pytest.raises(UserError, match=r"dvc.yaml: stage encode@clip-mp16: meta.dagster.kind: Extra"):
        read_stages(project)


def test_a_folder_without_a_pipeline_says_so(tmp_path):
    with pytest.raises(UserError, match=r"no dvc\.yaml"):
        read_stages(tmp_path)


def test_all_stages_have_changed_before_the_first_run(project):
    assert changed_stages(project) == set(by_name(project))
    assert locked_outputs(project) == {}


@pytest.fixture
def sleeper():
    """A process that does nothing."""
    process = subprocess.Popen(["sleep", "300"])
    yield process
    process.kill()
    process.wait()


def hold(project, process):
    """Let DVC believe that a process writes what `fetch@mp16` does."""
    path, held = str(project / "data" / "raw" / "mp16"), {"pid": process.pid, "cmd": "dvc repro"}
    (project / ".dvc" / "tmp" / "rwlock").write_text(json.dumps({"write": {path: held}, "read": {}}))


@pytest.mark.slow
def test_locks_of_the_dead_are_let_go(project, sleeper):
    sleeper.kill()
    while psutil.Process(sleeper.pid).status() != psutil.STATUS_ZOMBIE:  # nobody has waited for it yet
        time.sleep(0.01)
    hold(project, sleeper)
    assert reproduce(project, by_name(project)["fetch@mp16"]).changed


@pytest.mark.slow
def test_locks_of_the_living_are_waited_for(project, sleeper):
    hold(project, sleeper)
    said = reproducing(project, by_name(project)["fetch@mp16"])
    assert next(said) == f"waiting for `dvc repro` (process {sleeper.pid})"
    assert not (project / "data" / "raw" / "mp16").exists()
    sleeper.kill()
    (outcome,) = said
    assert outcome.changed


@pytest.mark.slow
def test_a_wait_ends_with_its_run(project, sleeper):
    hold(project, sleeper)
    before = (project / ".dvc" / "tmp" / "rwlock").read_text()
    said = reproducing(project, by_name(project)["fetch@mp16"])
    next(said)
    with pytest.raises(KeyboardInterrupt):
        said.throw(KeyboardInterrupt)
    assert not any(thread.name.startswith("reproduce") for thread in threading.enumerate())
    assert json.loads((project / ".dvc" / "tmp" / "rwlock").read_text()) == json.loads(before)


@pytest.mark.parametrize("text", [b"", b'{"read": {', b"[]", b'{"read": 5}', b"\xcb\xfe"])
def test_a_list_of_locks_that_is_not_readable_is_forgotten(project, text):
    (project / ".dvc" / "tmp").mkdir(exist_ok=True)
    (project / ".dvc" / "tmp" / "rwlock").write_bytes(text)
    said = []
    with_dvc(project, lambda repo: dvc_rwlock(repo), said.append)
    assert len(said) == 1
    assert said[0].startswith(".dvc/tmp/rwlock: not readable")


def dvc_rwlock(repo):
    from dvc.rwlock import rwlock

    with rwlock(repo.tmp_dir, repo.fs, "test", ["a"], ["b"], False):
        pass


@pytest.mark.slow
def test_a_lock_file_that_was_half_written_is_put_aside(project):
    lock, aside = project / "dvc.lock", project / ".state" / "dvc.lock.torn"
    outs = [{"path": "out", "hash": "md5", "md5": "a" * 32, "size": 1}]
    stages = {f"stage{n}": {"cmd": "x", "outs": outs} for n in range(3)}
    whole = yaml.safe_dump({"schema": "2.0", "stages": stages}, sort_keys=False)
    torn = 0
    for cut in range(3, len(whole), len(whole) // 12):
        lock.write_text(whole[:cut])
        assert len(changed_stages(project)) == 10
        assert lock.exists() != aside.exists()
        torn += aside.exists()
        aside.unlink(missing_ok=True)
        lock.write_text(whole[:cut])
        assert set(locked_outputs(project)) <= set(stages)
        aside.unlink(missing_ok=True)
    assert torn > 3


@pytest.mark.parametrize("text", [b"\xcb\xfe", b"<<<<<<< HEAD\nschema: '2.0'\n"])
def test_a_lock_file_that_is_none_is_put_aside_and_that_is_said(project, text):
    (project / "dvc.lock").write_bytes(text)
    said = []
    with_dvc(project, lambda repo: repo.index.stages and repo.status(), said.append)
    assert [line.partition(":")[0] for line in said] == ["dvc.lock"]
    assert (project / ".state" / "dvc.lock.torn").read_bytes() == text


def test_a_lock_file_that_is_whole_stays(project):
    (project / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    (project / "dvc.yaml").write_text("stages: [")
    with pytest.raises(Exception, match=r"dvc\.yaml"):
        changed_stages(project)
    assert (project / "dvc.lock").exists()


def test_a_failed_stage_mends_nothing(project):
    (project / "trouble").mkdir()
    (project / "trouble" / "mp16").write_text("geoloc: error: no rows")
    stage = by_name(project)["fetch@mp16"]
    (project / "code" / "work.sh").write_text("printf x > dvc.lock; echo 'geoloc: error: no rows'; exit 2\n")
    with pytest.raises(StageError, match=r"^fetch@mp16: no rows$"):
        reproduce(project, stage)
    assert (project / "dvc.lock").read_text() == "x"


def test_what_cannot_be_mended_does_not_hide_what_went_wrong(project):
    (project / "dvc.lock").write_text("stages: [")
    (project / ".state").write_text("no folder to put it aside in")
    with pytest.raises(Exception, match=r"dvc\.lock.*corrupted"):
        changed_stages(project)
    assert (project / "dvc.lock").exists()


def test_data_versions_ignore_summaries_beside_data(project):
    stage = by_name(project)["train_head@mlp"]
    one = {"data/models/mlp": "a", "data/summaries/train/mlp.json": "b"}
    assert stage.data_version(one) == stage.data_version({**one, "data/summaries/train/mlp.json": "c"})
    assert stage.data_version(one) != stage.data_version({**one, "data/models/mlp": "c"})
    only = {"data/summaries/train/mlp.json": "b"}
    assert stage.data_version(only) != stage.data_version({"data/summaries/train/mlp.json": "c"})
    assert json.dumps(stage.data_version(one))


def test_what_a_kill_left_in_a_folder_is_no_part_of_it(tmp_path):
    from dvc.repo import Repo

    corpora = tmp_path / "corpora"
    corpora.mkdir()
    (corpora / "a").write_text("1")
    shutil.copy(ROOT / ".dvcignore", tmp_path)
    (tmp_path / "dvc.yaml").write_text("stages: {s: {cmd: touch out, deps: [corpora], outs: [out]}}")
    with Repo.init(str(tmp_path), no_scm=True) as repo, chdir(tmp_path):
        repo.reproduce()
        with replacing_folder(corpora / "b") as unfinished:
            unfinished.mkdir()
            (unfinished / "x").write_text("2")
            assert not repo.status()
        assert repo.status()


@pytest.mark.slow
def test_the_run_cache_brings_back_what_another_profile_had_built(project):
    """As after ``geoloc use``, which changes the line that names the profile, and nothing else."""
    params = yaml.safe_load((project / "params.yaml").read_text())["run"]
    other = {**params, "heads": {"linear": {"lr": 0.9}}}
    text = yaml.safe_dump({"profiles": {"one": params, "other": other}}, sort_keys=False)
    text = text.replace("  one:", "  one: &one").replace("  other:", "  other: &other")
    (project / "params.yaml").write_text(f"{text}run: *one\n")
    (project / "code/work.sh").write_text((project / "code/work.sh").read_text() + "echo $name >> ran\n")
    dvc(project, "repro")
    built, ran = (project / "data/models/linear").read_bytes(), (project / "ran").read_text().splitlines()
    assert ran.count("linear") == 1
    use(project / "params.yaml", "other")
    dvc(project, "repro")
    use(project / "params.yaml", "one")
    dvc(project, "repro")
    ran = (project / "ran").read_text().splitlines()
    assert (project / "data/models/linear").read_bytes() == built
    assert ran.count("linear") == 2, "once for each profile"
    assert ran.count("clip-mp16") == 1, "what both share is built once"


@pytest.mark.slow
def test_a_crawl_that_is_to_look_again_is_out_of_date_and_runs_though_nothing_has_changed(project):
    stage = by_name(project)["fetch@mp16"]
    assert reproduce(project, stage).changed
    assert not reproduce(project, stage).changed
    note = project / ".state" / "partial" / "fetch" / "mp16" / "again.json"
    note.parent.mkdir(parents=True)
    note.write_text(json.dumps({"at": time.time() + 1e6, "addresses": 2}))
    assert stage.name not in changed_stages(project)
    note.write_text(json.dumps({"at": 1, "addresses": 2}))
    assert stage.name in changed_stages(project)
    assert reproduce(project, stage).changed
