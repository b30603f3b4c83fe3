"""The whole graph, small: Dagster and a plain shell agree, kills change nothing, and the data comes back."""

import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml

from geoloc_core import warm
from geoloc_core.files import digest

from .conftest import ROOT

pytestmark = pytest.mark.slow

ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def small(root: Path) -> Path:
    """A copy of the project with little of everything but code."""
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    for name in names.stdout.splitlines():
        if (ROOT / name).is_file() and not name.startswith(("tests/", "dvc.lock")):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, root / name)
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    demo = raw["profiles"]["demo"]
    # beside what is encoded, photos that end as labels and a datasheet
    photos = {
        "mp16": 300,
        "im2gps": 100,
        "us_grid": 150,
        "uk_cities_50": 200,
        "g50": 100,
        "masked": 100,
        "uk_grid": 100,
    }
    demo["corpora"] = {name: demo["corpora"][name] for name in photos}
    for name, corpus in demo["corpora"].items():
        corpus["fetch"] |= {"photos": photos[name], "size": 64}
    demo["expect"] = {name: said for name, said in demo["expect"].items() if name in photos}
    demo["evaluation"]["benchmarks"] = ["im2gps"]
    demo["boundaries"] = {"kind": "geonames", "min_population": 100_000, "reach_km": 150}
    demo["report"] = {"explained": {"variants": 3}}
    for tower in demo["pretrain"].values():
        tower["epochs"] = 1
    demo["pretrain"]["pieces"] |= {"epochs": 3, "batch": 8}  # so that it finds pieces at all
    epochs = {"classifier": 6, "guidebook_attention": 6, "fine_tuned": 1}
    for block in demo["variants"].values():
        if block["kind"] in epochs:
            block["recipe"] = {"epochs": epochs[block["kind"]]}
        elif "recipe" in block:
            block["recipe"]["epochs"] = 3
    demo["registry"]["benchmark"] = "im2gps"
    (root / "params.yaml").write_text(yaml.safe_dump({"run": demo}))
    run(root, "geoloc", "plan")
    for words in (["init", "-q"], ["add", "-A"]):
        subprocess.run(["git", *words], cwd=root, check=True)
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", *identity, "commit", "-qm", "small"], cwd=root, check=True)
    return root


def run(root: Path, *words: str, **variables: str) -> str:
    environment = ENVIRONMENT | variables
    done = subprocess.run(words, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def locked(root: Path) -> dict:
    """Each stage as it ran, by name."""
    return yaml.safe_load((root / "dvc.lock").read_text())["stages"]


@pytest.fixture(scope="module")
def by_dagster(tmp_path_factory):
    """The project as ``geoloc demo`` leaves it, what it printed, and a file of the functions that each stage called."""
    root, called = small(tmp_path_factory.mktemp("dagster")), tmp_path_factory.mktemp("called")
    noting = os.pathsep.join([str(ROOT / "tests" / "called"), *filter(None, [os.environ.get("PYTHONPATH")])])
    return root, run(root, "geoloc", "demo", PYTHONPATH=noting, GEOLOC_CALLED=str(called)), called


def seconds(stage: str, said: str) -> float:
    """How long a stage took when it ran through."""
    shown = re.sub(r"(_\d+)?@", " ", stage)
    took = re.search(rf"\] {shown} +([\d.]+) s", said)
    assert took, f"{stage} is not in: {said}"
    return float(took[1])


def one_of_each_kind(root: Path) -> list[str]:
    """A stage of each kind, and each pre-training; what reads comes before what is read."""
    kinds: dict[str, list[str]] = {}
    ended = list(locked(root))  # a stage is added as it ends
    for stage in ended:
        kinds.setdefault(stage if stage.startswith("pretrain@") else re.sub(r"(_\d+)?@.*", "", stage), []).append(stage)
    del kinds["code"]  # which runs whenever anything does
    chosen = {min(stages, key=lambda stage: (not re.search("mp16|mlp", stage), stage)) for stages in kinds.values()}
    return [stage for stage in reversed(ended) if stage in chosen]


def kill(root: Path, server: psutil.Process, stage: str, wait: float) -> bool:
    """Run a stage by force in a shell, and kill it by SIGKILL so long after its start.

    Args:
        root: The project.
        server: The process from which stages are forked, so that they do not load libraries first.
        stage: Its name.
        wait: Seconds.

    Returns:
        Whether it was at work then: not all of its outputs are there.
    """

    def at_work() -> list[psutil.Process]:
        found = []
        for fork in server.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if fork.status() != psutil.STATUS_ZOMBIE:
                    found.append(fork)
        return found

    said, killed = root / "said.log", False
    with said.open("w") as stream:
        environment = ENVIRONMENT | {warm.ADDRESS: os.environ[warm.ADDRESS]}
        command = ["dvc", "repro", "--force", "--single-item", stage]
        dvc = psutil.Popen(command, cwd=root, env=environment, stdout=stream, stderr=stream)
        while dvc.poll() is None and not at_work():
            time.sleep(0.02)
        time.sleep(wait)
        for process in at_work():
            with suppress(psutil.NoSuchProcess):
                process.kill()
                killed = True
        dvc.wait()
    assert killed or dvc.returncode == 0, said.read_text()[-3000:]
    said.unlink()
    return killed and bool(lost(root, stage))


def lost(root: Path, stage: str) -> list[str]:
    """The outputs of a stage that are not there."""
    return [out["path"] for out in locked(root)[stage]["outs"] if not (root / out["path"]).exists()]


@pytest.fixture(scope="module")
def killed(by_dagster, tmp_path_factory):
    """A copy of the project in which a stage of each kind was killed at work, and their names."""
    whole, said, _ = by_dagster
    root = Path(shutil.copytree(whole, tmp_path_factory.mktemp("killed") / "project", symlinks=True))
    stages = one_of_each_kind(root)
    with warm.ready(root):
        (server,) = [child for child in psutil.Process().children() if "geoloc_core.warm" in child.cmdline()]
        while not Path(os.environ[warm.ADDRESS]).exists():
            assert server.status() != psutil.STATUS_ZOMBIE, (root / ".state/logs/warm.log").read_text()[-3000:]
            time.sleep(0.1)
        for stage in stages:
            # a quarter of the time that Dagster showed, which has DVC's own second or so in it
            wait = min(1.5, seconds(stage, said) / 4)
            while not kill(root, server, stage, wait):
                wait /= 2
    assert all(lost(root, stage) for stage in stages)
    # DVC must not know that they had run
    kept = {stage: entry for stage, entry in locked(root).items() if stage not in stages}
    (root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": kept}, sort_keys=False))
    shutil.rmtree(root / ".dvc" / "cache" / "runs")
    return root, stages


def test_every_stage_ran_and_the_leaderboard_is_printed(by_dagster):
    root, said, _ = by_dagster
    planned = run(root, "dvc", "stage", "list", "--name-only").split()
    assert sorted(locked(root)) == sorted(planned)
    assert len(planned) > 30
    assert "mlp_clip_vit_country" in said
    assert "promote" in said
    assert (root / "data/leaderboard/leaderboard.html").is_file()
    assert "| United Kingdom | 100 | 100.0% |" in (root / "data/datasheets/uk_grid.md").read_text()


def test_killed_in_every_kind_of_stage_and_run_in_a_shell_it_ends_in_the_same_lock(by_dagster, killed):
    whole, (root, stages) = by_dagster[0], killed
    assert {"fetch@mp16", "boundaries", "ingest@mp16", "label@mp16", "leaks", "pretrain@clip", "pretrain@vit",
            "encode@clip-mp16", "cells@semantic-mp16", "train_2@mlp_clip_vit_country",
            "answer_2@mlp_clip_vit_country", "score@mlp_clip_vit_country", "leaderboard"} <= set(stages)  # fmt: skip
    said = run(root, "dvc", "repro")
    assert set(re.findall("Running stage '(.+)'", said)) == {*stages, "code"}
    # DVC adds stages to the lock as they end, and Dagster runs a few at a time: the entries count, not their order
    assert locked(root) == locked(whole)
    assert digest(root / "data") == digest(whole / "data")
    partial = root / ".state" / "partial"
    assert not [path for path in partial.rglob("*") if path.is_file()], "nothing unfinished is left"


def test_every_function_that_a_stage_calls_is_part_of_its_digest(by_dagster):
    from geoloc_core.code import PACKAGE, Sources, instances, is_left_out
    from geoloc_core.project import Project

    root, _, called = by_dagster
    sources, known = Sources(), instances(Project.open(root / "params.yaml").profile)
    stages = {stage: entry["params"]["code.yaml"] for stage, entry in locked(root).items() if stage != "code"}
    for stage, digests in stages.items():
        ((name, _),) = digests.items()
        kind, _, key = name.partition(".")
        instance = known[kind][key] if key else known[kind]
        closure = {":".join(at) for at in sources.closure(sources.roots(instance))}
        calls = {call for call in (called / stage).read_text().split() if not is_left_out(tuple(call.split(":")))}
        assert calls, stage
        starts = (f"{PACKAGE}.__main__:", f"{PACKAGE}.cli:")
        assert {call for call in calls - closure if not call.startswith(starts)} == set(), stage


def test_a_second_run_skips_everything(by_dagster):
    root = by_dagster[0]
    before = (root / "dvc.lock").read_text()
    assert f"{len(locked(root)) - 1} stages unchanged, all skipped" in run(root, "geoloc", "demo")
    assert (root / "dvc.lock").read_text() == before


def test_a_registered_version_is_made_again_whatever_the_project_is_now(by_dagster, tmp_path):
    """From its revision, with other code and other data in the project itself."""
    root = Path(shutil.copytree(by_dagster[0], tmp_path / "project", symlinks=True))
    with (root / "geoloc_core/evaluation/score.py").open("a") as code:
        code.write("raise SystemExit('not the code of that time')\n")
    shutil.rmtree(root / "data/answers")
    said = " ".join(run(root, "geoloc", "reproduce", "1", "--train").split())
    assert re.search(r"trained, answered and scored again, all \d+ figures are the same", said), said


def test_the_data_comes_back_from_the_remote_byte_for_byte(by_dagster):
    root = by_dagster[0]
    before = digest(root / "data")
    run(root, "dvc", "push", "-q")
    shutil.rmtree(root / "data")
    shutil.rmtree(root / ".dvc" / "cache")
    (root / "data").mkdir()
    shutil.copyfile(ROOT / "data" / "README.md", root / "data" / "README.md")
    run(root, "dvc", "pull", "-q")
    assert digest(root / "data") == before


def test_a_pulled_project_predicts(by_dagster, tmp_path):
    from PIL import Image

    Image.new("RGB", (300, 200), "seagreen").save(tmp_path / "green.jpg")
    said = run(by_dagster[0], "geoloc", "predict", str(tmp_path / "green.jpg"))
    assert "geolocator-demo" in said
    assert "rendered photos only" in said
