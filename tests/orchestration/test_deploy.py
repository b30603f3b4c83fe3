"""``deploy/``: what it names is what is locked, and its scripts, on a real PostgreSQL and a server of S3's."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from geoloc_core.errors import UserError
from geoloc_core.registry import promotion, tracking
from geoloc_core.serving import bundle
from tests.conftest import ROOT
from tests.geoloc_core.registry.made_champion import make_project as made_champion
from tests.orchestration.small_project import dvc, make_project, replace

DEPLOY = ROOT / "deploy"
POSTGRES = Path(min(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), default="none")).parent


def parsed(name: str) -> dict:
    return yaml.safe_load((DEPLOY / name).read_text())


def locked(name: str) -> str:
    found = re.search(rf"^{name}==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert found, f"{name} is not in the lock file"
    return found[1]


def test_versions_and_settings_are_the_same_wherever_they_are_stated():
    services, values = parsed("compose.yaml")["services"], parsed("kubernetes/values.yaml")
    assert f"--version {locked('dagster')} " in (DEPLOY / "kubernetes" / "values.yaml").read_text()
    project = (ROOT / "pyproject.toml").read_text()
    for name in ("dagster", "dagster-postgres", r"mlflow\[auth\]"):
        assert re.search(rf'"{name}=={re.escape(locked(name.partition(chr(92))[0]))}"', project), name
    (version,) = re.findall(r'^version = "(.+)"', project, re.MULTILINE)
    ours = {f"geoloc:{version}"}
    pods = [*values["dagster-user-deployments"]["deployments"], values["dagsterWebserver"], values["dagsterDaemon"]]
    assert {f"{pod['image']['repository']}:{pod['image']['tag']}" for pod in pods} == ours
    images = {name: service["image"] for name, service in services.items()}
    others = {"postgres": f"postgres:{values['postgresql']['image']['tag']}", "store": images["store"]}
    assert images == dict.fromkeys(images, *ours) | others
    assert all(re.search(r":\d+\.\d+", image) for image in images.values()), "an image without a version"
    # Dagster's settings: one truth, but for where the history is
    own = yaml.safe_load((ROOT / "orchestration" / "dagster.yaml").read_text())
    team = parsed("dagster/dagster.yaml")
    assert own | {"storage": team["storage"]} == team
    chart = values["additionalInstanceConfig"] | {"telemetry": values["telemetry"]}
    assert chart == {name: team[name] for name in chart}
    logs = values["computeLogManager"]["config"]["customComputeLogManager"]
    assert logs == team["compute_logs"]
    postgres = team["storage"]["postgres"]["postgres_db"]
    assert values["postgresql"]["postgresqlScheme"] == postgres["scheme"]
    named = {field["env"] for field in postgres.values() if isinstance(field, dict)}
    for service in ("code", "webserver", "daemon"):
        assert named <= set(services[service]["environment"])


def test_every_service_is_watched_and_no_secret_is_written_down():
    compose = parsed("compose.yaml")
    lasting = {name for name, service in compose["services"].items() if service.get("restart") != "no"}
    assert lasting == {"postgres", "store", "mlflow", "code", "webserver", "daemon"}
    assert all("healthcheck" in compose["services"][name] for name in lasting)
    asked = set(re.findall(r"\$\{([A-Z]\w*)", (DEPLOY / "compose.yaml").read_text())) - {
        "GEOLOC_BACKUPS",
        "GEOLOC_BUCKET",
    }
    example = dict(line.split("=", 1) for line in (DEPLOY / ".env.example").read_text().splitlines() if "=" in line)
    assert asked == set(example)
    assert not any(value for name, value in example.items() if re.search("PASSWORD|SECRET|ACCESS_KEY", name))
    for name, service in compose["services"].items():
        for key, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|ACCESS_KEY", key):
                assert re.fullmatch(r"\$\{\w+:\?\}", value), (name, key)
        for scripts in re.findall(r"/project/(deploy/\S+?\.\w+)", str(service)):
            assert (ROOT / scripts).is_file()
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


def as_postgres(*words: object) -> None:
    """Run a command of the server's, which refuses to be run by the administrator."""
    first = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []
    subprocess.run([*first, *map(str, words)], cwd="/", check=True, capture_output=True)


def any_port() -> int:
    """A port that nothing else has, not even another run of these tests."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def postgres() -> Iterator[dict[str, str]]:
    """A PostgreSQL server with two empty databases: what psql has to know."""
    if not (POSTGRES / "initdb").is_file():
        pytest.skip("PostgreSQL is not here: apt-get install postgresql")
    port = str(any_port())
    with tempfile.TemporaryDirectory(prefix="postgres", dir="/tmp") as folder:  # where the user `postgres` may look
        password, data = Path(folder) / "password", Path(folder) / "data"
        password.write_text("secret")
        if os.getuid() == 0:
            shutil.chown(folder, "postgres")
            shutil.chown(password, "postgres")
        as_postgres(POSTGRES / "initdb", "-D", data, "-U", "geoloc", "--pwfile", password, "-A", "scram-sha-256", "-N")
        how = f"-p {port} -k {folder} -c fsync=off -c listen_addresses=127.0.0.1"
        as_postgres(POSTGRES / "pg_ctl", "-D", data, "-o", how, "-l", Path(folder) / "log", "-w", "start")
        known = {"PGHOST": "127.0.0.1", "PGPORT": port, "PGUSER": "geoloc", "PGPASSWORD": "secret"}
        try:
            for name in ("dagster", "mlflow"):
                subprocess.run(["createdb", name], env={**os.environ, **known}, check=True)
            yield known
        finally:
            as_postgres(POSTGRES / "pg_ctl", "-D", data, "-m", "immediate", "stop")


@pytest.fixture(scope="module")
def team(postgres, tmp_path_factory) -> Iterator[dict[str, str]]:
    """The environment of everyone on the team: with PostgreSQL, and a store with its bucket."""
    store, tracked, folder = any_port(), any_port(), tmp_path_factory.mktemp("team")
    known = {
        **postgres,
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{store}", "AWS_ACCESS_KEY_ID": "team",
        "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1",
        "DAGSTER_HOME": str(shutil.copytree(DEPLOY / "dagster", folder / "dagster")),
        "DAGSTER_POSTGRES_HOST": postgres["PGHOST"], "DAGSTER_POSTGRES_PORT": postgres["PGPORT"],
        "DAGSTER_POSTGRES_USER": postgres["PGUSER"], "DAGSTER_POSTGRES_PASSWORD": postgres["PGPASSWORD"],
        "DAGSTER_POSTGRES_DB": "dagster", "GEOLOC_STEP_LOGS": str(folder / "steps"),
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{tracked}",
        "MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": "administrator",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }  # fmt: skip
    words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(store)]
    with server(words, known, folder / "store.log", f"{known['AWS_ENDPOINT_URL']}/moto-api/"):
        run(known, *here(parsed("compose.yaml")["services"]["bucket"]["command"]))
        yield known


@pytest.fixture(scope="module")
def mlflow(team, tmp_path_factory) -> Iterator[None]:
    """MLflow's server, as the compose file starts it."""
    service, port = parsed("compose.yaml")["services"]["mlflow"], team["MLFLOW_TRACKING_URI"].rpartition(":")[2]
    given = {"POSTGRES_PASSWORD": team["PGPASSWORD"], "MLFLOW_FLASK_SERVER_SECRET_KEY": "key",
             "MLFLOW_AUTH_ADMIN_PASSWORD": team["MLFLOW_TRACKING_PASSWORD"]}  # fmt: skip
    stated = {name: filled(value, given) for name, value in service["environment"].items() if "AWS" not in name}
    address = stated["MLFLOW_BACKEND_STORE_URI"].replace("@postgres:5432", f"@127.0.0.1:{team['PGPORT']}")
    stated |= {"MLFLOW_BACKEND_STORE_URI": address, "MLFLOW_PORT": port, "MLFLOW_WORKERS": "1"}
    log = tmp_path_factory.mktemp("mlflow") / "mlflow.log"
    with server(here(service["command"]), team | stated, log, f"{team['MLFLOW_TRACKING_URI']}/health"):
        yield


def filled(value: str, variables: dict[str, str]) -> str:
    """A value of the compose file with its variables, and defaults, filled in."""
    return re.sub(r"\$\{(\w+):(?:-(.*?)|\?)\}", lambda found: variables.get(found[1]) or found[2] or "", value)


def here(words: list[str], folder: Path | None = None) -> list[str]:
    """A command of the compose file as it is outside a container."""
    folders = {"/project/": f"{ROOT}/", "/backups/": f"{folder}/", "$$": "$"}
    for there, ours in folders.items():
        words = [word.replace(there, ours) for word in words]
    return words


def started(words: list[str], environment: dict[str, str], log: Path) -> subprocess.Popen:
    with log.open("wb") as stream:
        return subprocess.Popen(words, cwd=log.parent, env={**os.environ, **environment}, stdout=stream, stderr=stream)


@contextmanager
def server(words: list[str], environment: dict[str, str], log: Path, address: str) -> Iterator[None]:
    """A server that answers, until the block ends."""
    process = started(words, environment, log)
    try:
        deadline = time.monotonic() + 300
        while not answers(address):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield
    finally:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        process.wait()


def answers(address: str) -> bool:
    try:
        return httpx.get(address, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def run(environment: dict[str, str], *words: str, cwd: Path = ROOT, code: int = 0) -> str:
    done = subprocess.run(words, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def section(title: str) -> list[str]:
    """The commands that a section of the operations page gives."""
    text = (ROOT / "docs" / "operations.md").read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]


WHOLE_GRAPH = """
from orchestration.environment import enter, project_root
enter(project_root())
from orchestration.definitions import defs, stages
from orchestration.assets import asset_key
from orchestration.execution import execute
from orchestration.instance import opened_instance
with opened_instance() as instance:
    for event in execute(instance, [asset_key(stage.name) for stage in stages]):
        print(event.message, flush=True)
"""

HISTORY = """
import json
from dagster import DagsterInstance
with DagsterInstance.get() as instance:
    runs = {run.run_id: run.status.value for run in instance.get_runs()}
    known = {key.to_user_string(): instance.get_latest_materialization_event(key) for key in instance.all_asset_keys()}
    made = {key: event.run_id for key, event in known.items() if event}
print(json.dumps([runs, made]))
"""


def history(team: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """The status of each run, and the run that made each asset, as PostgreSQL has them."""
    return tuple(json.loads(run(team, sys.executable, "-c", HISTORY).splitlines()[-1]))


@pytest.fixture(scope="module")
def tree(team, tmp_path_factory) -> Path:
    """The team's working tree after two runs of everything at once, the first of which was killed."""
    root = make_project(tmp_path_factory.mktemp("tree") / "project")
    text = (root / "dvc.yaml").read_text().replace(", check: manifest", "")  # there is no corpus behind it
    (root / "dvc.yaml").write_text(text[: text.index("  encode:")])
    replace(root / "code" / "work.sh", "mkdir -p", 'while [ -e "hold/$name" ]; do sleep 0.1; done\nmkdir -p')
    (root / "hold").mkdir()
    (root / "hold" / "mp16").touch()
    environment = team | {"GEOLOC_ROOT": str(root)}
    words, logs = [sys.executable, "-P", "-c", WHOLE_GRAPH], [root / "first.log", root / "second.log"]
    first = started(words, environment, logs[0])
    said(logs[0], 'Started execution of step "fetch__mp16"', first)
    second = started(words, environment, logs[1])
    said(logs[1], "Waiting for Dagster run", second)
    first.send_signal(signal.SIGKILL)
    first.wait()
    (root / "hold" / "mp16").unlink()
    assert second.wait(300) == 0, logs[1].read_text()
    return root


def said(log: Path, what: str, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 200
    while what not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


@pytest.mark.slow
def test_two_at_once_on_one_postgresql_take_turns_and_a_kill_holds_up_nobody(team, tree):
    runs, made = history(team)
    assert sorted(runs.values()) == ["STARTED", "SUCCESS"], "nobody has looked for dead runs yet"
    (whole,) = [name for name, status in runs.items() if status == "SUCCESS"]
    assert len(made) == 4
    assert set(made.values()) == {whole}
    text = run(team | {"GEOLOC_ROOT": str(tree)}, sys.executable, "-P", "-m", "orchestration.run", cwd=tree)
    assert "4 stages unchanged" in text
    assert sorted(history(team)[0].values()) == ["FAILURE", "SUCCESS"]
    assert not (tree / ".state" / "dagster").exists(), "the project made an instance of its own"
    wrong = team | {"GEOLOC_ROOT": str(tree), "DAGSTER_POSTGRES_DB": "nobody_s"}
    text = run(wrong, sys.executable, "-P", "-m", "orchestration.run", cwd=tree, code=2)
    (line,) = [line for line in text.splitlines() if "geoloc: error" in line]
    assert 'database "nobody_s" does not exist' in line
    assert "Traceback" not in text


OBJECTS = """
import json, s3fs, sys
found = s3fs.S3FileSystem().find("geoloc/" + sys.argv[1], detail=True)
print(json.dumps({name: known["ETag"] for name, known in found.items()}))
"""


def objects(team: dict[str, str], under: str = "") -> dict[str, str]:
    """The objects of the bucket whose names begin so, each with the hash of what it holds."""
    return json.loads(run(team, sys.executable, "-c", OBJECTS, under).splitlines()[-1])


FILES = 60


@pytest.fixture(scope="module")
def pushed(team, tree) -> Path:
    """The working tree, with a folder of files of its own, after a push that was killed and one that was not."""
    photos = tree / "photos"
    photos.mkdir()
    for number in range(FILES):
        (photos / f"{number}.jpg").write_bytes(os.urandom(100_000))
    dvc(tree, "add", "photos")
    remote, push, *_ = [line for line in section("Several users") if line.startswith("dvc ")]
    run(team, *remote.split(), cwd=tree)
    process = subprocess.Popen([*push.split(), "--jobs", "1"], cwd=tree, env={**os.environ, **team},
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    while not (there := stored(team)):
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    there = stored(team)
    assert 0 < there < FILES, "the kill came after the end"
    assert re.search(r"\d+ files? pushed", run(team, *push.split(), cwd=tree))
    return tree


def stored(team: dict[str, str]) -> int:
    """How many objects of DVC's the store has: it is asked itself, as a client takes a second to start."""
    listed = httpx.get(f"{team['AWS_ENDPOINT_URL']}/geoloc?list-type=2&prefix=dvc/", timeout=60).text
    return listed.count("<Key>")


@pytest.mark.slow
def test_a_push_that_was_killed_goes_on_and_another_clone_pulls_all(team, pushed):
    _, push, pull, collect = [line for line in section("Several users") if line.startswith("dvc ")]
    assert "Everything is up to date" in run(team, *push.split(), cwd=pushed)
    before = {path.name: path.read_bytes() for path in (pushed / "photos").iterdir()}
    shutil.rmtree(pushed / "photos")
    shutil.rmtree(pushed / "data")
    shutil.rmtree(pushed / ".dvc" / "cache")
    run(team, *pull.split(), cwd=pushed)
    assert {path.name: path.read_bytes() for path in (pushed / "photos").iterdir()} == before
    assert (pushed / "data" / "corpora" / "mp16").is_file()
    held = len(objects(team, "dvc"))
    (pushed / "photos.dvc").unlink()
    run(team, *collect.split(), cwd=pushed)
    assert len(objects(team, "dvc")) == held - FILES - 1, "the files and their list"
    assert "Everything is up to date" in run(team, *push.split(), cwd=pushed)


@pytest.fixture(scope="module")
def champion(team, mlflow, tmp_path_factory):
    """A champion, registered through MLflow's server."""
    project = made_champion(tmp_path_factory.mktemp("registry") / "project")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in team.items():
            patch.setenv(name, value)
        promotion.promote(project)
    return project


@pytest.mark.slow
def test_a_model_is_registered_and_loaded_through_the_server_by_whoever_has_a_password(team, champion, monkeypatch):
    for name, value in team.items():
        monkeypatch.setenv(name, value)
    version, folder = promotion.champion(champion)
    assert (version, bundle.load(folder).variant) == ("1", "linear")
    client = tracking.client(champion)
    (found,) = client.search_runs([tracking.experiment(champion, client)])
    assert found.info.artifact_uri.startswith("mlflow-artifacts:/"), "clients need no key of the store's"
    assert len(objects(team, "mlflow")) > 100
    assert promotion.promote(champion).champion.version == 1, "the files that it has counted are all there"
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "guessed")
    with pytest.raises(UserError, match="MLflow's store cannot be used") as told:
        tracking.client(champion)
    assert "guessed" not in str(told.value)


EMPTIED = "import s3fs; store = s3fs.S3FileSystem(); store.rm('geoloc', recursive=True); print(store.exists('geoloc'))"


@pytest.mark.slow
def test_what_was_saved_comes_back(team, tree, champion, monkeypatch, tmp_path):
    tools = {name: parsed("compose.yaml")["services"][name]["entrypoint"] for name in ("backup", "restore")}
    asked = [line.split()[-2:] for line in section("Backup and restore") if " run --rm " in line]
    assert [name for name, _ in asked] == ["backup", "restore"]
    (save, name), (load, _) = asked
    before, held = history(team), objects(team)
    assert "saved in" in run(team, *here(tools[save], tmp_path), f"{name}/"), "however the folder is written"
    assert "is there already" in run(team, *here(tools[save], tmp_path), name, code=2)
    assert run(team, *here(tools[load], tmp_path), "2001-01-01", code=2).startswith("geoloc: error: ")
    for database in ("dagster", "mlflow"):
        run(team, "dropdb", "--force", database)
    assert run(team, sys.executable, "-c", EMPTIED).split()[-1] == "False"
    assert "restored from" in run(team, *here(tools[load], tmp_path), name)
    assert (history(team), objects(team)) == (before, held)
    # the server that is running has lost its connections: what it would read is asked of the database itself
    address = f"postgresql+psycopg2://geoloc:{team['PGPASSWORD']}@127.0.0.1:{team['PGPORT']}/mlflow"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    client = tracking.client(champion)
    found = client.get_model_version_by_alias("geolocator", "champion")
    assert str(found.version) == "1"
    model = found.source.removeprefix("models:/")
    assert any(f"/models/{model}/artifacts/MLmodel" in name for name in held)
