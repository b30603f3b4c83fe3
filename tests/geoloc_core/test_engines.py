"""Where photos are encoded and answered changes no byte of what is made, whatever dies meanwhile."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
import yaml

from geoloc_core import code
from geoloc_core.encoders import extraction
from geoloc_core.errors import UserError
from geoloc_core.files import digest, read_json, remove, write_checksums
from geoloc_core.params import load
from geoloc_core.plan import plan
from geoloc_core.project import Project
from geoloc_core.variants import answer as stage
from tests.conftest import PHOTOS, ROOT
from tests.geoloc_core.encoders.made_segmenters import STREET, segformer
from tests.geoloc_core.encoders.test_extraction import write_corpus
from tests.geoloc_core.encoders.test_preprocess import photo
from tests.geoloc_core.encoders.test_towers import network
from tests.geoloc_core.made_answers import make_project, with_joint

with_ray = pytest.mark.skipif(find_spec("ray") is None, reason="the extra `ray` is not installed: make ray")
SHARDS, EACH = 10, 12
NODE = (
    "--block", "--num-cpus=1", "--num-gpus=0", "--object-store-memory=80000000", "--node-ip-address=127.0.0.1",
    "--disable-usage-stats",
)  # fmt: skip
SOON = "--system-config=" + json.dumps({"health_check_period_ms": 1000, "health_check_failure_threshold": 3})
"""How soon a machine that says nothing is given up."""


@dataclass
class Cluster:
    """Two machines on the loopback interface, each of one worker."""

    folder: Path
    port: int
    nodes: list[subprocess.Popen] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self, *options: str) -> None:
        """Start a machine, and wait until the cluster has it."""
        said = (self.folder / "said").open("ab")
        command = [sys.executable, "-m", "geoloc_core.lifeline", str(os.getpid())]  # it ends with the tests, however
        command += ["ray.scripts.scripts", "start", *NODE, *options]
        self.nodes.append(subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True))
        wait(lambda: (self.folder / "said").read_bytes().count(b"Ray runtime started") == len(self.nodes))

    def kill(self, node: int) -> None:
        """End a machine and all on it at once."""
        found = psutil.Process(self.nodes[node].pid)
        for one in (found, *found.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                one.kill()
        self.nodes[node].wait()

    def workers(self) -> list[psutil.Process]:
        """The processes that do the work."""
        found = []
        for node in self.nodes:
            with suppress(psutil.NoSuchProcess):
                found += [child for child in psutil.Process(node.pid).children(recursive=True) if works(child)]
        return found


def works(process: psutil.Process) -> bool:
    try:
        return "MapWorker" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False


def wait(until, seconds=120):
    """Wait until something holds, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := until()):
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.02)
    return found


@pytest.fixture(scope="module")
def cluster():
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # paths of sockets must be short
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        made = Cluster(folder, free.getsockname()[1])
    patch = pytest.MonkeyPatch()  # without a secret, anyone on the machine could run code in it
    patch.setenv("RAY_AUTH_MODE", "token")
    patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        made.start("--head", f"--port={made.port}", f"--temp-dir={folder}", "--include-dashboard=false", SOON)
        made.start(f"--address={made.address}")
        yield made
    finally:
        for node in reversed(range(len(made.nodes))):
            if made.nodes[node].poll() is None:
                made.kill(node)
        shutil.rmtree(folder, ignore_errors=True)
        patch.undo()


def opened(root: Path, engine: dict) -> Project:
    """A project of many photos in shards, of a network and a segmenter."""
    run = dict(PHOTOS, engine=engine)
    run["encoders"] = {
        "net": {"kind": "onnx", "output": "colour", "size": 16, "batch": 5},
        "cut": {"kind": "segformer", "min_area": 0.0, "batch": 2},
    }
    run["checkpoints"] = {"net": {"file": "net.onnx"}, "cut": {"file": "cut"}}
    (root / "params.yaml").write_text(yaml.safe_dump({"run": run}))
    return Project.open(root / "params.yaml")


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """The project, and its features as this process makes them."""
    root = tmp_path_factory.mktemp("project")
    project = opened(root, {"kind": "local"})
    for name, write in (
        ("net", lambda f: network(f / "model.onnx", ["N", 3, 16, 16], 1)),
        ("cut", lambda f: segformer(f, labels=STREET)),
    ):
        project.weights(name).mkdir(parents=True)
        write(project.weights(name))
        write_checksums(project.weights(name), "weights")
    shards = [[photo(900 + 10 * shard + row, 900) for row in range(EACH)] for shard in range(SHARDS)]
    shards[3][4] = b"no photo"
    write_corpus(project.corpus("photos"), shards)
    extraction.encode(project, "photos", "net")
    project.features("net", "photos").rename(root / "net")
    return root


def geoloc(root: Path, *words: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "geoloc_core", *words]
    return subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@with_ray
@pytest.mark.slow
def test_a_driver_a_worker_and_a_machine_are_killed_and_it_ends_in_the_same_bytes(here, cluster):
    project = opened(here, {"kind": "ray", "address": cluster.address})
    parts = project.partial("encode", "")

    def made() -> list[Path]:
        return sorted(parts.glob("net-photos-*/*.npy"))

    def encode() -> subprocess.Popen:
        return geoloc(here, "encode", "photos", "--encoder", "net")

    command = encode()
    wait(made)
    command.kill()
    command.communicate()
    wait(lambda: not cluster.workers())
    kept = {part: part.stat().st_mtime_ns for part in made()}
    assert 0 < len(kept) < SHARDS

    command = encode()
    wait(lambda: len(made()) > len(kept))
    cluster.workers()[0].kill()
    some = len(made())
    wait(lambda: len(made()) > some or command.poll() is not None)
    assert len(made()) < SHARDS
    cluster.kill(1)
    cluster.start(f"--address={cluster.address}")
    wait(lambda: len(made()) == SHARDS or command.poll() is not None)
    assert {part: part.stat().st_mtime_ns for part in kept if part.exists()} in (kept, {}), "made again"
    out, said = command.communicate()
    assert command.returncode == 0, said
    assert not out
    assert digest(project.features("net", "photos")) == digest(here / "net")
    assert read_json(project.summary("encode", "net-photos"))["missing"] == 1
    assert "Traceback" not in said


@with_ray
@pytest.mark.slow
def test_a_mistake_is_told_once(here, cluster):
    project = opened(here, {"kind": "ray", "address": cluster.address})
    shard = project.corpus("photos") / "shards" / "00007.parquet"
    whole = shard.read_bytes()
    end = int.from_bytes(whole[-8:-4], "little") + 8  # of the footer: the count is right, and the photos are gone
    shard.write_bytes(whole[:4] + bytes(len(whole) - 4 - end) + whole[-end:])
    command = geoloc(here, "encode", "photos", "--encoder", "net")
    _, said = command.communicate()
    shard.write_bytes(whole)
    remove(project.partial("encode", ""))
    assert command.returncode == 2
    lines = [line for line in said.splitlines() if "error" in line]
    assert len(lines) == 1, said
    assert lines[0].startswith(f"geoloc: error: {shard}: ")


@with_ray
@pytest.mark.slow
def test_pieces_and_answers_are_those_of_one_process(here, cluster, tmp_path, monkeypatch):
    engine = {"kind": "ray", "address": cluster.address}
    found = []
    for project in (opened(here, {"kind": "local"}), opened(here, engine)):
        extraction.encode(project, "photos", "cut")
        found.append(digest(project.features("cut", "photos")))
    assert found[0] == found[1]

    make_project(tmp_path)
    made = with_joint(tmp_path)  # an ensemble reads what others answer
    there = Project(made.root, made.profile.model_copy(update={"engine": project.profile.engine}))
    for variant in made.profile.variants:
        stage.answer(made, variant)
    monkeypatch.setattr(stage, "ROWS", 11)
    for variant in ("by_region", "joint"):
        found = []
        for project in (made, there):
            stage.answer(project, variant)
            found.append(digest(project.answers(variant)))
        assert found[0] == found[1]


@with_ray
@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1"),
        ("ray://here:10001", "expected host:port of the cluster's head"),
    ],
)
def test_a_cluster_that_is_not_there_is_one_line(tmp_path, address, says):
    made = opened(tmp_path, {"kind": "ray", "address": address})
    job = extraction.engines.Job(made, iter, lambda: iter)
    with pytest.raises(UserError, match=f"engine: .*{says}"):
        list(job.results([1, 2]))
    assert list(job.results([1])) == [1], "a single item is not worth sending"


def test_without_the_extra_it_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    job = extraction.engines.Job(opened(tmp_path, {"kind": "ray"}), iter, lambda: iter)
    with pytest.raises(UserError, match="engine: ray is not installed; run `make ray`"):
        list(job.results([1, 2]))


@pytest.mark.slow
def test_another_engine_puts_nothing_out_of_date(tmp_path):
    sources = code.Sources()
    here, there = (opened(tmp_path, engine) for engine in ({"kind": "local"}, {"kind": "ray", "cpus": 2}))
    assert here.profile.engine != there.profile.engine
    assert code.digests(here.profile, sources) == code.digests(there.profile, sources)
    assert plan(here) == plan(there)
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert "engine" not in str([stage.get("do", stage).get("params") for stage in stages.values()])
    assert load(ROOT / "params.yaml").engine.kind == "local"
