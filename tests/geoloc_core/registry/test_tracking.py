"""MLflow on a real SQLite database: runs, the registry, and when a champion falls."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading

import mlflow
import psutil
import pytest

from geoloc_core.errors import UserError
from geoloc_core.files import read_json, write_json
from geoloc_core.project import Project
from geoloc_core.registry import promotion, tracking

from .made_champion import make_project


@pytest.fixture
def project(tmp_path, database):
    """A project with a trained variant and a database that is ready."""
    return make_project(tmp_path / "project", database)


@pytest.mark.slow
def test_a_run_remembers_what_made_it(project):
    (project.root / "dvc.lock").write_text(
        "schema: '2.0'\nstages:\n  label@photos:\n    outs:\n    - {path: data/labels/photos.parquet, md5: abc123}\n"
    )
    reads = [project.labels("photos")]
    with tracking.run(project, "train", "linear", {"kind": "classifier", "recipe": {"lr": 0.1}}, reads) as log:
        log({"loss": 2.0}, 0)
        log({"loss": 1.0}, 1)
        write_json(project.model("linear") / "model.json", {"made": 1})
        log.model(project.model("linear"))
    client = tracking.client(project)
    found = client.get_run(log.run_id)
    assert found.info.status == "FINISHED"
    assert found.data.params["recipe.lr"] == "0.1"
    assert found.data.tags["family"] == "classifier"
    assert tracking.PROCESS not in found.data.tags
    (read,) = found.inputs.dataset_inputs
    assert (read.dataset.name, read.dataset.digest) == ("labels/photos.parquet", "abc123")
    assert {tag.key: tag.value for tag in read.tags} == {"mlflow.data.context": "training"}
    assert [m.value for m in client.get_metric_history(log.run_id, "loss")] == [2.0, 1.0]
    assert tracking.run_of(project, client, "linear") == log.run_id
    _score(project)
    found = client.get_run(log.run_id)
    assert found.data.metrics["im2gps/within_750km"] == 12.5
    assert found.data.metrics["im2gps/majority/within_750km"] == 3.5
    assert not {"im2gps/nll", "im2gps/n"} & found.data.metrics.keys()
    assert found.data.tags[tracking.NOTE] == "# A card"
    (scored,) = [read.dataset for read in found.inputs.dataset_inputs if read.dataset.name == "im2gps"]
    assert (scored.digest, json.loads(scored.profile)["n"]) == ("f00d", 8)
    assert [f.path for f in client.list_artifacts(log.run_id, "plots/score")] == ["plots/score/linear.png"]
    write_json(project.model("linear") / "model.json", {"made": 2})
    assert tracking.run_of(project, client, "linear") != log.run_id, "another model is another run"


@pytest.mark.slow
def test_mlflow_s_pages_open_on_runs(project):
    client = tracking.client(project)
    number = tracking.experiment(project, client)
    for key in (tracking.KIND, tracking.NOTE):  # as an experiment of an earlier version, or made by hand
        client.delete_experiment_tag(number, key)
    tracking.experiment(project, client)
    found = client.get_experiment(number)
    assert found.tags[tracking.KIND] == "custom_model_development"
    assert "grouped by benchmark" in found.tags[tracking.NOTE]
    client.set_experiment_tag(number, tracking.NOTE, "ours")
    tracking.experiment(project, client)
    assert client.get_experiment(number).tags[tracking.NOTE] == "ours", "what a person wrote stays"


@pytest.mark.slow
def test_the_revision_says_whether_the_code_has_changed_since(project):
    (project.root / "geoloc_core").mkdir()
    (project.root / "geoloc_core" / "a.py").write_text("x = 1")
    (project.root / ".gitignore").write_text("/*\n!geoloc_core\n")

    def git(*words):
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", *identity, *words], cwd=project.root, check=True, capture_output=True)

    def revision():
        with tracking.run(project, "train", "linear", {}, []) as log:
            pass
        return tracking.client(project).get_run(log.run_id).data.tags["git.revision"]

    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "one")
    assert len(revision()) == 10
    (project.root / "notes.txt").write_text("no code")
    assert len(revision()) == 10
    (project.root / "geoloc_core" / "a.py").write_text("x = 2")
    assert revision().endswith(", changed since")


@pytest.mark.slow
def test_a_failing_stage_leaves_a_failed_run(project):
    with pytest.raises(RuntimeError), tracking.run(project, "train", "linear", {}, []) as log:
        raise RuntimeError
    assert tracking.client(project).get_run(log.run_id).info.status == "FAILED"


@pytest.mark.slow
def test_two_projects_in_one_process_keep_apart(tmp_path, database):
    """MLflow's own state is the process' environment, which stages started from it would inherit."""
    before = dict(os.environ)
    for name in ("here", "there"):
        project = make_project(tmp_path / name, database)
        with tracking.run(project, "train", name, {}, []) as log, tracking.fluent(project):
            log({"loss": 1.0}, 0)
            assert mlflow.get_tracking_uri() == tracking.uri(project)
    for name in ("here", "there"):
        client = tracking.client(Project.open(tmp_path / name / "params.yaml"))
        runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
        assert [run.data.tags["geoloc.name"] for run in runs] == [name]
    leaked = {key for key, value in os.environ.items() if "TRACKING_URI" in key and before.get(key) != value}
    assert not leaked


@pytest.mark.slow
def test_a_store_that_does_not_answer_is_one_clear_line(tiny_project, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused at once
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{taken.getsockname()[1]}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        with pytest.raises(UserError, match="MLflow's store cannot be used") as said:
            promotion.champion(tiny_project)
    assert "\n" not in str(said.value)


ADDRESSES = {
    "https://ann:s3cret@mlflow.example.org/base": "https://mlflow.example.org/base",
    "https://s3cret@mlflow.example.org:8443": "https://mlflow.example.org:8443",
    "mysql://ann:s3cret/with@signs:@db:3306/mlflow": "mysql://db:3306/mlflow",
    "no route to http://ann:s3cret@a:1/x; http://:s3cret@b": "no route to http://a:1/x; http://b",
    "http://127.0.0.1:5000/a b@c": "http://127.0.0.1:5000/a b@c",
    "sqlite:////home/me@work/mlflow.db": "sqlite:////home/me@work/mlflow.db",
}


@pytest.mark.parametrize(("text", "shown"), ADDRESSES.items())
def test_addresses_are_shown_without_their_passwords(text, shown):
    assert tracking.without_secrets(text) == shown


@pytest.mark.slow
@pytest.mark.parametrize("address", ["http://ann:s3cret@127.0.0.1:9", "oracle+x://ann:s3cret@a"])
def test_a_password_is_told_to_nobody(tiny_project, address, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError, match="MLflow's store cannot be used") as said:
        promotion.champion(tiny_project)
    assert "s3cret" not in str(said.value)


@pytest.mark.slow
def test_a_deleted_experiment_is_named(project):
    with tracking.run(project, "train", "linear", {}, []):
        pass
    client = tracking.client(project)
    client.delete_experiment(client.get_experiment_by_name("geolocator").experiment_id)
    with (
        pytest.raises(UserError, match="mlflow experiments restore"),
        tracking.run(project, "train", "linear", {}, []),
    ):
        pass


@pytest.mark.slow
def test_many_processes_may_open_a_new_database_at_once(tiny_project):
    code = (
        "import sys; from pathlib import Path; from geoloc_core.project import Project;"
        "from geoloc_core.registry import tracking;"
        "project = Project.open(Path('params.yaml'));"
        "context = tracking.run(project, 'train', sys.argv[1], {}, []);"
        "log = context.__enter__(); log({'x': 1.0}, 0); context.__exit__(None, None, None)"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, f"v{i}"], cwd=tiny_project.root, stderr=subprocess.PIPE)
        for i in range(4)
    ]
    errors = [process.communicate()[1].decode() for process in started]
    assert [process.returncode for process in started] == [0] * 4, errors
    client = tracking.client(tiny_project)
    experiments = [e.experiment_id for e in client.search_experiments()]
    assert len(client.search_runs(experiments)) == 4


@pytest.mark.slow
def test_runs_that_name_the_same_data_at_once_all_keep_it(project):
    from concurrent.futures import ThreadPoolExecutor

    store = tracking.client(project)
    where = tracking.experiment(project, store)
    runs = [store.create_run(where).info.run_id for _ in range(6)]
    gate = threading.Barrier(len(runs))

    def name(run: str) -> None:
        for number in range(5):
            gate.wait()
            tracking._log_inputs(store, run, "training", {f"data/{number}": "a", f"data/also{number}": "b", "none": ""})

    with ThreadPoolExecutor(len(runs)) as pool:
        list(pool.map(name, runs))
    assert [len(store.get_run(run).inputs.dataset_inputs) for run in runs] == [10] * len(runs)


def statuses(project) -> dict[str, str]:
    """Status of every run by its stage and name."""
    client = tracking.client(project)
    runs = client.search_runs([tracking.experiment(project, client)])
    return {run.info.run_name: run.info.status for run in runs}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("point", "number"),
    [
        *(("training", number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL)),
        *((point, signal.SIGTERM) for point in ("create_run", "log_batch", "log_artifacts", "set_tag")),
        *((point, signal.SIGKILL) for point in ("create_run", "log_artifacts", "set_tag")),
    ],
)
def test_a_run_ends_with_its_process_or_with_the_next_run(project, point, number):
    from . import victims

    with victims.waiting(victims.stage, project, point) as process:
        with tracking.run(project, "train", "meanwhile", {}, []):
            pass
        assert statuses(project) == {"train linear": "RUNNING", "train meanwhile": "FINISHED"}, "it lives"
        process.send_signal(number)
    at_once = number != signal.SIGKILL and point != "create_run"  # where nobody knows the run's id yet
    assert statuses(project)["train linear"] == ("KILLED" if at_once else "RUNNING")
    with tracking.run(project, "pretrain", "other", {}, []):
        pass
    assert statuses(project) == {"train linear": "KILLED", "train meanwhile": "FINISHED", "pretrain other": "FINISHED"}


@pytest.mark.slow
def test_runs_of_others_are_left_alone(project):
    client = tracking.client(project)
    experiment = tracking.experiment(project, client)
    own = tracking.process()
    here, pid, _ = own.split()
    tags = {"own": own, "host": "elsewhere 1 1.00", "odd": f"{here} x y", "reused": f"{here} {pid} 1.00"}
    for name, tag in tags.items():
        client.create_run(experiment, tags={"mlflow.runName": name, tracking.PROCESS: tag})
    client.create_run(experiment, tags={"mlflow.runName": "untagged"})
    with tracking.run(project, "train", "linear", {}, []):
        pass
    running = dict.fromkeys(["own", "host", "odd", "untagged"], "RUNNING")
    assert statuses(project) == {**running, "reused": "KILLED", "train linear": "FINISHED"}


def test_a_process_is_known_by_more_than_its_number():
    own = tracking.process()
    assert not tracking.is_gone(own)
    host, pid, started = own.split()
    assert tracking.is_gone(f"{host} {pid} {float(started) - 1:.2f}"), "the number was another's before"
    ended = psutil.Popen([sys.executable, "-c", ""])
    tag = f"{host} {ended.pid} {ended.create_time() - psutil.boot_time():.2f}"
    while ended.status() != psutil.STATUS_ZOMBIE:
        pass
    assert tracking.is_gone(tag), "nobody has asked for its exit code yet"
    ended.wait()
    assert tracking.is_gone(tag)


@pytest.mark.slow
def test_signals_are_as_before_once_the_run_has_ended(project):
    usual = {signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_IGN}  # whatever the tests before have left
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    try:
        with tracking.run(project, "train", "linear", {}, []):
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN, "as nohup has it"
        assert {number: signal.getsignal(number) for number in usual} == usual
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.slow
def test_a_note_holds_ids_alone(project):
    with tracking.run(project, "train", "linear", {}, []) as log:
        pass
    note = read_json(tracking.store(project) / "runs" / "train" / "linear.json")
    assert note == {"run_id": log.run_id, "experiment_id": tracking.experiment(project, log.client)}


def _read_only(database, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///file:{database}?mode=ro&uri=true")


def _locked(database, monkeypatch):
    held = sqlite3.connect(database)
    held.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr(test_a_damaged_store_is_one_clear_line, "held", held, raising=False)


def _emptied(database, monkeypatch):
    with sqlite3.connect(database) as held:
        held.execute("DROP TABLE experiments")


def _newer(database, monkeypatch):
    with sqlite3.connect(database) as held:
        held.execute("UPDATE alembic_version SET version_num = 'f00d'")


def _folder(database, monkeypatch):
    database.unlink()
    database.mkdir()


DAMAGE = {
    "garbage": lambda database, _: database.write_bytes(b"garbage " * 1000),
    "cut off": lambda database, _: database.write_bytes(database.read_bytes()[:5000]),
    "a folder": _folder,
    "no tables": _emptied,
    "another version's": _newer,
    "locked": _locked,
    "read-only": _read_only,
    "another scheme": lambda _, monkeypatch: monkeypatch.setenv("MLFLOW_TRACKING_URI", "oracle+x://a"),
    "no server": lambda _, monkeypatch: monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9"),
}


def _train(project):
    with tracking.run(project, "train", "linear", {}, []):
        pass


def _score(project):
    project.plot("score", "linear").parent.mkdir(parents=True, exist_ok=True)
    project.plot("score", "linear").write_bytes(b"a plot")
    figures = {"n": 8, "within_750km": 12.5, "majority_within_750km": 3.5, "nll": None}
    report = {"benchmarks": {"im2gps": figures}, "sha256": {"im2gps": "f00d"}}
    tracking.log_scores(project, {"linear": report}, {"linear": "# A card"})


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("ask", [_train, _score, promotion.promote, promotion.champion])
def test_a_damaged_store_is_one_clear_line(project, damage, ask, monkeypatch):
    monkeypatch.chdir(project.root)  # MLflow makes folders for a store that it cannot read
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    DAMAGE[damage](tracking.store(project) / "mlflow.db", monkeypatch)
    with pytest.raises(UserError) as said:
        ask(project)
    assert "\n" not in str(said.value)
    if (damage, ask) != ("read-only", promotion.champion):  # which finds nothing there to read
        assert "MLflow's store cannot be used (" in str(said.value)
        assert "; " in str(said.value)


@pytest.mark.slow
@pytest.mark.parametrize("ask", [_train, promotion.promote, promotion.champion])
def test_a_place_that_is_no_folder_is_one_clear_line(project, ask):
    place = tracking.store(project)
    place.rename(project.root / "away")
    place.touch()
    with pytest.raises(UserError, match=r"mlflow/.*lock: cannot be made there"):
        ask(project)


@pytest.mark.slow
def test_an_empty_file_becomes_a_database(project):
    database = tracking.store(project) / "mlflow.db"
    database.write_bytes(b"")
    _train(project)
    assert statuses(project) == {"train linear": "FINISHED"}


@pytest.mark.slow
def test_a_store_that_goes_away_under_a_training_is_one_clear_line(project):
    with (
        pytest.raises(UserError, match="MLflow's store cannot be used"),
        tracking.run(project, "train", "linear", {}, []) as log,
    ):
        (tracking.store(project) / "mlflow.db").write_bytes(b"garbage " * 1000)
        log({"loss": 1.0}, 0)


@pytest.mark.slow
def test_what_failed_first_is_told_even_when_the_store_is_gone(project):
    with pytest.raises(ZeroDivisionError), tracking.run(project, "train", "linear", {}, []):
        (tracking.store(project) / "mlflow.db").write_bytes(b"garbage " * 1000)
        raise ZeroDivisionError
