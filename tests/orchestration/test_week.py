"""A week of a project that is left alone: Dagster's daemon, real checks and a real registry; shell commands train."""

import os
import shutil
import subprocess
import sys
import time
from datetime import timedelta

import dagster as dg
import numpy as np
import pytest
import yaml
from dagster._core.scheduler.instigation import InstigatorType, ScheduleInstigatorData
from PIL import Image

from geoloc_core.files import read_json
from geoloc_core.project import Project
from geoloc_core.registry import tracking, versions
from orchestration.automation import BECAUSE, SCHEDULE, SENSOR, STARTED_BY
from tests.geoloc_core.registry.made_champion import make_project, score, train
from tests.orchestration.host import daemon, dagster, kill, move_in, wait
from tests.orchestration.small_project import dvc
from tests.orchestration.test_operations import KEEP, told

pytestmark = pytest.mark.slow

PIPELINE = """
stages:
  train:
    foreach: [photos]
    do:
      cmd:
        - geoloc ingest ${item} --raw outside/${item} --out data/corpora/${item}
        - cp -r "trained/$(ls outside/${item}/*.png | wc -l)/." data/
      deps: ["outside/${item}", trained]
      outs: ["data/corpora/${item}", data/models, data/answers, data/scores, data/leaderboard]
      meta: {dagster: {group: 7_leaderboard, check: manifest}}
"""
"""One stage: with three steps and more, a run would first load the libraries, of which a copy needs none."""
MADE = ("models", "answers", "scores", "leaderboard")
TRAINED = {10: 50.0, 12: 70.0, 11: 40.0}
"""What is trained on so many photos: how many percent of the selection set it answers right."""


def give(root, photos, broken=0):
    """Let a folder hold so many photos, and files that are none."""
    folder = root / "outside" / "photos"
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        file.unlink()
    for number in range(photos):
        noise = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    for number in range(photos, photos + broken):
        (folder / f"{number}.jpg").write_bytes(b"cut off")
    rows = "".join(f"{file.name},1,2\n" for file in folder.iterdir())
    (folder / "t.csv").write_text(f"path,latitude,longitude\n{rows}")


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A project of ten photos in which nothing ran yet, and what training will make of them."""
    project = make_project(tmp_path / "project")
    root = project.root
    for photos, right in TRAINED.items():
        train(project, photos / 10)
        score(project, right)
        for made in MADE:
            shutil.copytree(project.data / made, root / "trained" / str(photos) / made)
    for made in MADE:
        shutil.rmtree(project.data / made)
    give(root, 10)
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["run"]["corpora"]["photos"] |= {"source": {"kind": "photos", "table": "t.csv"}}
    params["run"]["operations"] = {"hook": [sys.executable, "-c", KEEP], "look_minutes": 1 / 30}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    (root / "dvc.yaml").write_text(PIPELINE)
    (root / ".dvcignore").write_text(".state\n")
    dvc(root, "init", "--no-scm", "-q")
    move_in(root, monkeypatch)
    return root


class Week:
    """The project, and what its daemon, its registry and its hook say."""

    def __init__(self, root, instance, process):
        self.root, self.instance, self.process = root, instance, process
        self.project = Project.open(root / "params.yaml")

    def until(self, what):
        wait(self.root, self.process, what)

    def runs(self):
        """Of each run, from the first: who asked for it, what had changed, and how it ended."""
        runs = self.instance.get_runs()[::-1]
        return [(run.tags[STARTED_BY], run.tags.get(BECAUSE), run.status.value) for run in runs]

    def run(self, why, ended):
        """Wait for the end of the next run, which the sensor asks for; returns the run."""
        asked = len(self.runs())
        self.until(lambda: len(self.runs()) > asked and self.runs()[asked][2] in ("SUCCESS", "FAILURE"))
        assert self.runs()[asked] == (SENSOR, why, ended)
        return self.instance.get_runs()[::-1][asked]

    def says(self, what):
        """Wait for a look of the sensor that begins from now on to say something."""
        began = time.time()
        (state,) = [known for known in self.instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)
                    if known.instigator_name == SENSOR]  # fmt: skip

        def said():
            ticks = self.instance.get_ticks(state.instigator_origin_id, state.selector_id, after=began)
            return any(what in (tick.skip_reason or "") for tick in ticks)

        self.until(said)

    def aliases(self):
        client = tracking.client(self.project)
        held = {name: versions.holder(client, "geolocator", name) for name in ("champion", "previous", "challenger")}
        return {name: int(version.version) for name, version in held.items() if version is not None}

    def decided(self):
        """The last decision about a champion."""
        return read_json(self.root / ".state" / "promotion.json")["rule"]

    def rules(self, number):
        """What was decided of a version."""
        client = tracking.client(self.project)
        with tracking.fluent(self.project):
            return [known.rule for known in versions.decisions(versions.numbered(client, "geolocator", number))]

    def told(self):
        return [line["event"] for line in told(self.root)]

    def steps(self, run, kind):
        """The steps of a run of which there is such an event."""
        return {entry.step_key for entry in self.instance.all_logs(run.run_id, of_type=kind)}


def promote(root, *words):
    """Start `geoloc promote`, as a person does."""
    return subprocess.Popen(["geoloc", "promote", *words, "--because", "a wager"], cwd=root)


def missed(instance):
    """Let the schedule have been on for a week: the host was off last Monday at three."""
    (state,) = instance.all_instigator_state(instigator_type=InstigatorType.SCHEDULE)
    data = ScheduleInstigatorData(state.instigator_data.cron_schedule, time.time() - timedelta(days=7).total_seconds())
    instance.update_instigator_state(state.with_data(data))


@pytest.fixture
def week(root):
    with dg.DagsterInstance.from_config(os.environ["DAGSTER_HOME"]) as instance:
        dagster(root, "schedule", "start", SCHEDULE)
        missed(instance)
        process = daemon(root)
        try:
            week = Week(root, instance, process)
            week.until(week.runs)
            dagster(root, "sensor", "start", SENSOR)
            yield week
        finally:
            kill(root, process)


UP_TO_DATE = "up to date, nothing to do: params.yaml, dvc.yaml, dvc.lock, the code and "


def test_a_week(week):
    root = week.root
    week.until(lambda: week.runs()[0][2] in ("SUCCESS", "FAILURE"))
    assert week.runs() == [(SCHEDULE, None, "SUCCESS")]
    assert (week.aliases(), week.decided(), week.told()) == ({"champion": 1}, "first", ["promotion"])
    week.says(UP_TO_DATE)

    give(root, 12)
    week.run("outside/photos: 2 files more, 13 in all", "SUCCESS")
    assert (week.aliases(), week.decided()) == ({"champion": 2, "previous": 1}, "evidence")
    assert week.told() == ["promotion"] * 2

    give(root, 11)
    week.run("outside/photos: 1 file fewer, 12 in all", "SUCCESS")
    assert week.aliases() == {"champion": 2, "previous": 1, "challenger": 3}, "a worse one is not crowned"
    week.says(UP_TO_DATE)

    assert promote(root, "--rollback").wait() == 0
    week.says(UP_TO_DATE)
    assert (week.aliases(), week.told()) == ({"champion": 1, "challenger": 3}, ["promotion"] * 3)

    give(root, 11, broken=4)
    blocked = week.run("outside/photos: 4 files more, 16 in all", "FAILURE")
    assert week.steps(blocked, dg.DagsterEventType.STEP_FAILURE) == {"train__photos_manifest"}
    assert "promote" not in week.steps(blocked, dg.DagsterEventType.STEP_START)
    week.run("no run has brought everything up to date yet, or the last one failed", "FAILURE")
    week.says("the last 2 runs failed: waits until ")
    assert (week.aliases(), week.decided()) == ({"champion": 1, "challenger": 3}, "rolled back")
    (alert,) = told(root)[3:]
    assert (alert["event"], alert["stage"]) == ("failure", "train__photos_manifest")
    assert "expected drift of refused at most 5% (0.0% → 26.7% refused, unreadable 0.0% → 26.7%" in alert["cause"]

    give(root, 12)
    week.run("no run has brought everything up to date yet, or the last one failed", "SUCCESS")
    assert (week.aliases(), week.decided()) == ({"champion": 1, "challenger": 3}, "none left"), "a rollback stays"
    week.says(UP_TO_DATE)
    assert week.told()[3:] == ["failure", "recovery"]

    at_once = [promote(root, "--version", number) for number in ("2", "3")]
    assert [process.wait() for process in at_once] == [0, 0]
    assert sorted(week.aliases().items()) in ([("champion", 2), ("previous", 3)], [("champion", 3), ("previous", 2)])
    assert [week.rules(number)[-1] for number in (1, 2, 3)] == ["rolled back", "chosen", "chosen"]
    assert week.told()[5:] == ["promotion"] * 2
