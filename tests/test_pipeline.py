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

from geoloc_core.files import digest

from .conftest import ROOT

pytestmark = pytest.mark.slow

KILLED = (
    "fetch@mp16",
    "boundaries",
    "ingest@mp16",
    "label@mp16",
    "leaks",
    "pretrain@clip",
    "pretrain@vit",
    "encode@clip-mp16",
    "cells@semantic-mp16",
    "train_2@mlp_clip_vit_country",
    "answer_2@mlp_clip_vit_country",
    "score@mlp_clip_vit_country",
    "leaderboard",
)
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
    # beside what is encoded, a benchmark and training photos that end as labels and datasheets
    demo["corpora"] = {name: demo["corpora"][name] for name in ("mp16", "im2gps", "yfcc4k", "uk_grid")}
    demo["corpora"]["mp16"]["fetch"]["photos"] = 600
    demo["corpora"]["im2gps"]["fetch"]["photos"] = 100
    demo["corpora"]["uk_grid"]["fetch"]["size"] = 64
    demo["evaluation"]["benchmarks"] = ["im2gps"]
    demo["boundaries"] = {"kind": "geonames", "min_population": 15000, "reach_km": 150}
    for tower in demo["pretrain"].values():
        tower["epochs"] = 2
    for block in demo["variants"].values():
        if block["kind"] != "ensemble":
            block["recipe"] = {"epochs": 6}
    demo["registry"]["benchmark"] = "im2gps"
    (root / "params.yaml").write_text(yaml.safe_dump({"run": demo}))
    run(root, "geoloc", "plan")
    for words in (["init", "-q"], ["add", "-A"]):
        subprocess.run(["git", *words], cwd=root, check=True)
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", *identity, "commit", "-qm", "small"], cwd=root, check=True)
    return root


def run(root: Path, *words: str) -> str:
    done = subprocess.run(words, cwd=root, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def by_dagster(tmp_path_factory):
    """The project as ``geoloc demo`` leaves it, and what it printed."""
    root = small(tmp_path_factory.mktemp("dagster"))
    return root, run(root, "geoloc", "demo")


def seconds(stage: str, said: str) -> float:
    """How long a stage took when it ran through."""
    shown = re.sub(r"(_\d+)?@", " ", stage)
    took = re.search(rf"\] {shown} +([\d.]+) s", said)
    assert took, f"{stage} is not in: {said}"
    return float(took[1])


def kill_in(root: Path, stage: str, after_s: float) -> None:
    """Run the graph up to a stage in a plain shell, and kill it with all its processes by SIGKILL while it works."""
    lock, before = root / "dvc.lock", root / "before.lock"
    if lock.exists():
        shutil.copyfile(lock, before)
    while not killed(root, stage, after_s):
        # It was over sooner than ever: back to where it had not run, and DVC must not know that it had; then sooner.
        after_s /= 2
        shutil.rmtree(root / ".dvc" / "cache" / "runs")
        if before.exists():
            shutil.copyfile(before, lock)
        else:
            lock.unlink()
    before.unlink(missing_ok=True)


def killed(root: Path, stage: str, after_s: float) -> bool:
    """Whether the stage was still at work so long after its start, and is killed."""
    said = root / "said.log"
    with said.open("w") as stream:
        dvc = psutil.Popen(["dvc", "repro", stage], cwd=root, env=ENVIRONMENT, stdout=stream, stderr=stream)
        while not (started := of_stage(dvc, stage)) and dvc.poll() is None:
            time.sleep(0.02)
        if started:
            time.sleep(after_s)
        found = of_stage(dvc, stage)
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        code = dvc.wait()
    assert found or code == 0, f"{stage} ended with code {code} by itself: {said.read_text()[-2000:]}"
    said.unlink()
    return bool(code)


def of_stage(dvc: psutil.Popen, stage: str) -> list[psutil.Process]:
    """The processes of a stage that live: DVC tells each its name."""
    found = []
    with suppress(psutil.NoSuchProcess):
        for process in dvc.children(recursive=True):
            with suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE and process.environ().get("DVC_STAGE") == stage:
                    found.append(process)
    return found


@pytest.fixture(scope="module")
def by_shell(by_dagster, tmp_path_factory):
    """The project as ``dvc repro`` leaves it after a kill in every kind of stage."""
    root = small(tmp_path_factory.mktemp("shell"))
    for stage in KILLED:
        # a quarter of the time that Dagster showed, which has DVC's own second or so in it
        kill_in(root, stage, min(1.5, seconds(stage, by_dagster[1]) / 4))
    run(root, "dvc", "repro")
    return root


def test_every_stage_ran_and_the_leaderboard_is_printed(by_dagster):
    root, said = by_dagster
    stages = yaml.safe_load((root / "dvc.lock").read_text())["stages"]
    assert len(stages) == 39  # with that of the code, which is no asset
    assert "mlp_clip_vit_country" in said
    assert "promote" in said
    assert (root / "data/leaderboard/leaderboard.html").is_file()
    assert "| United Kingdom | 100 | 100.0% |" in (root / "data/datasheets/uk_grid.md").read_text()


def test_killed_in_every_stage_and_run_in_a_shell_it_ends_in_the_same_lock(by_dagster, by_shell):
    root, _ = by_dagster
    # DVC adds stages to the lock as they end, and Dagster runs two at a time: the entries count, not their order
    assert yaml.safe_load((by_shell / "dvc.lock").read_text()) == yaml.safe_load((root / "dvc.lock").read_text())
    assert digest(by_shell / "data") == digest(root / "data")
    partial = by_shell / ".state" / "partial"
    assert not [path for path in partial.rglob("*") if path.is_file()], "nothing unfinished is left"


def test_a_second_run_skips_everything(by_dagster):
    root, _ = by_dagster
    before = (root / "dvc.lock").read_text()
    assert "38 stages unchanged, all skipped" in run(root, "geoloc", "demo")
    assert (root / "dvc.lock").read_text() == before


def test_the_data_comes_back_from_the_remote_byte_for_byte(by_dagster):
    root, _ = by_dagster
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

    root, _ = by_dagster
    Image.new("RGB", (300, 200), "seagreen").save(tmp_path / "green.jpg")
    assert "geolocator-demo" in run(root, "geoloc", "predict", str(tmp_path / "green.jpg"))
    assert "rendered photos only" in run(root, "geoloc", "predict", str(tmp_path / "green.jpg"))


def test_every_function_that_a_stage_calls_is_part_of_its_digest(by_dagster, tmp_path):
    from geoloc_core.code import PACKAGE, Sources, instances, is_left_out
    from geoloc_core.project import Project

    root = Path(shutil.copytree(by_dagster[0], tmp_path / "project", symlinks=True))
    profile = Project.open(root / "params.yaml").profile
    stages = [
        "fetch uk_grid", "boundaries", "ingest uk_grid", "label uk_grid", "leaks", "pretrain clip", "pretrain vit",
        "encode im2gps --encoder vit", "texts clues", "encode-text clues --encoder clip", "truth im2gps",
        "fit-cells semantic mp16", *(f"{stage} {name}" for name in profile.variants for stage in ("train", "answer")),
        "score mlp_clip_vit_country", "leaderboard",
    ]  # fmt: skip
    sources, known = Sources(), instances(profile)
    for words in stages:
        out = tmp_path / "called.txt"
        run(root, sys.executable, "-P", str(ROOT / "tests" / "called.py"), str(out), *words.split())
        stage, name = words.split()[0].replace("-", "_"), words.split()[-1]
        if stage == "fit_cells":
            stage, name = "cells", words.split()[1]
        found = known[stage]
        instance = found[name] if isinstance(found, dict) else found
        closure = {":".join(at) for at in sources.closure(sources.roots(instance))}
        called = {call for call in out.read_text().split() if not is_left_out(tuple(call.split(":")))}
        assert called, words
        assert {call for call in called - closure if not call.startswith(f"{PACKAGE}.cli:")} == set(), words
