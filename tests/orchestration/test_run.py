"""The whole of ``geoloc demo`` in processes of its own, on a small project."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress

import dagster as dg
import psutil
import pytest

from orchestration.turn import holder
from tests.orchestration.small_project import PIPELINE, REPOSITORY, replace

pytestmark = pytest.mark.slow


@pytest.fixture
def project(project):
    replace(project / "dvc.yaml", ", check: manifest", "")  # there is no corpus behind it
    return project


@pytest.fixture
def short(project):
    """A project of two stages, which run at the same time."""
    (project / "dvc.yaml").write_text(PIPELINE[: PIPELINE.index("  ingest:")])
    return project


def start(root, **options):
    environment = {**os.environ, "GEOLOC_ROOT": str(root), "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-P", "-m", "orchestration.run", "--ui-hint"]
    return subprocess.Popen(command, cwd=root, env=environment, text=True, stderr=subprocess.PIPE,
                            stdout=subprocess.PIPE, **options)  # fmt: skip


def run(root):
    process = start(root)
    out, err = process.communicate(timeout=300)
    assert out == ""
    return process.returncode, err.splitlines()


def runs(root):
    with dg.DagsterInstance.from_config(str(root / ".state" / "dagster")) as instance:
        return [found.status.value for found in instance.get_runs()]


def test_everything_runs_once_then_nothing_then_what_changed(project, monkeypatch):
    monkeypatch.setenv("GEOLOC_STEP_LOGS", str(project / ".state" / "logs"))
    monkeypatch.setenv("DAGSTER_HOME", str(project / ".state" / "dagster"))
    code, lines = run(project)
    assert code == 0
    assert len([line for line in lines if line.startswith("[")]) == 10
    assert lines[-2].startswith("10 done in")
    assert lines[-1] == "To see the run: geoloc ui"
    code, lines = run(project)
    assert (code, lines[0]) == (0, "10 stages unchanged, all skipped")
    assert runs(project) == ["SUCCESS"]
    replace(project / "params.yaml", "lr: 0.2", "lr: 0.3")
    code, lines = run(project)
    assert lines[0].startswith("[1/1] train_head mlp")


def test_a_mistake_of_the_user_is_one_message_and_code_2(project):
    (project / "trouble").mkdir()
    (project / "trouble" / "mp16").write_text("geoloc: error: outside/mp16.csv: no rows\n")
    code, lines = run(project)
    assert code == 2
    assert "fetch@mp16: outside/mp16.csv: no rows" in lines
    assert not any("Traceback" in line for line in lines)
    (project / "trouble" / "mp16").unlink()
    assert run(project)[0] == 0


def test_a_broken_pipeline_is_one_message(project):
    (project / "dvc.yaml").write_text("stages: [\n")
    code, lines = run(project)
    assert code == 2
    assert lines[0].startswith("geoloc: error:")


def demo(root):
    """``geoloc demo``: who asks for a run, and the orchestrator under it."""
    code = (
        "import signal, sys; from types import SimpleNamespace; from pathlib import Path;"
        "signal.signal(signal.SIGINT, signal.default_int_handler);"  # a shell lets what it runs behind it ignore this
        "from geoloc_core.cli import _orchestrate;"
        "sys.exit(_orchestrate('run', SimpleNamespace(root=Path(sys.argv[1])), []))"
    )
    environment = {**os.environ, "GEOLOC_ROOT": str(root), "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen([sys.executable, "-P", "-c", code, str(root)], cwd=root, env=environment, text=True,
                            stderr=subprocess.PIPE, start_new_session=True)  # fmt: skip


def wait_for(path, process):
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.parametrize(
    ("number", "stages", "told"),
    [(signal.SIGINT, "short", "2 stopped in "), (signal.SIGTERM, "project", "2 stopped, 8 not started in ")],
    ids=["all at work", "more to come"],
)
def test_a_run_that_is_told_to_end_leaves_nothing_behind(request, number, stages, told):
    root = request.getfixturevalue(stages)
    script = (root / "code" / "work.sh").read_text()
    (root / "code" / "work.sh").write_text(f"touch started\nsleep 300\n{script}")
    process = demo(root)
    wait_for(root / "started", process)
    os.killpg(process.pid, number)  # as a terminal and `timeout` do
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert said.splitlines()[-1] == "geoloc: stopped; run the same command again to go on"
    assert said.splitlines()[-2].startswith(told)
    assert "Dagster" not in said
    assert not [p for p in alive(root) if p.name() == "sleep"]
    (root / "code" / "work.sh").write_text(script)
    assert run(root)[0] == 0


def alive(root):
    return [p for p in psutil.process_iter() if _of(p, root) and p.status() != psutil.STATUS_ZOMBIE]


def _of(process, project):
    try:
        return process.environ().get("GEOLOC_ROOT") == str(project)
    except psutil.Error:
        return False


def test_a_killed_run_is_taken_up_by_the_next(short, monkeypatch):
    script = (short / "code" / "work.sh").read_text()
    (short / "code" / "work.sh").write_text(f"touch started\nsleep 300\n{script}")
    process = start(short, start_new_session=True)
    wait_for(short / "started", process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    (short / "code" / "work.sh").write_text(script)
    code, lines = run(short)
    assert code == 0, lines
    monkeypatch.setenv("GEOLOC_STEP_LOGS", str(short / ".state" / "logs"))
    monkeypatch.setenv("DAGSTER_HOME", str(short / ".state" / "dagster"))
    assert runs(short) == ["SUCCESS", "FAILURE"]


def test_a_run_that_nobody_reads_any_more_ends_with_all_it_started(project):
    """As `geoloc demo 2>&1 | head -n 1` does."""
    script = (project / "code" / "work.sh").read_text()
    replace(project / "code" / "work.sh", "mkdir -p", '[ "$stage $name" = "fetch im2gps" ] && sleep 300\nmkdir -p')
    process = demo(project)
    assert process.stderr.readline().startswith("[ 1/10] fetch mp16")
    process.stderr.close()  # the next line is that of what reads this
    assert process.wait(timeout=300) == 1
    assert not [p for p in alive(project) if p.name() == "sleep"]
    (project / "code" / "work.sh").write_text(script)
    assert run(project)[0] == 0


def test_a_folder_that_is_no_repository_is_one_message(project):
    shutil.rmtree(project / ".dvc")
    code, lines = run(project)
    assert code == 2
    assert lines == [f"geoloc: error: {project}: DVC does not know this folder; work in a clone of the project, "
                     "or run `dvc init` in it"]  # fmt: skip
    (project / ".dvc").mkdir()
    (project / ".dvc" / "config").touch()
    code, lines = run(project)
    assert code == 2
    assert lines == [f"geoloc: error: {project}: not a git repository, as DVC expects; work in a clone of the project, "
                     "or run `git init` in it"]  # fmt: skip


ONE_STAGE = """
stages:
  fetch:
    cmd: sh code/work.sh data/raw/mp16 fetch mp16 outside/mp16.csv
    deps: [code/work.sh, outside/mp16.csv]
    outs: [data/raw/mp16]
    metrics: [data/summaries/fetch/mp16.json]
    meta: {dagster: {group: 1_fetch}}
"""


@pytest.fixture
def long(project):
    """A project of one stage, which is a real subcommand with workers of its own, and takes for ever."""
    (project / "dvc.yaml").write_text(ONE_STAGE)
    replace(project / "code" / "work.sh", 'mkdir -p "$(d', '[ -e over ] || { touch started; cd "$GEOLOC_CODE"; '
            'exec geoloc simulate osv5m --photos 1000000 --out "$GEOLOC_ROOT/made"; }\nmkdir -p "$(d')  # fmt: skip
    return project


def kin(process, root):
    """The processes of a run, from who asked for it to a worker of its stage."""
    while True:
        below = {p.pid: p for p in alive(root)}
        found = {"geoloc demo": process.pid}
        for pid, one in below.items():
            with suppress(psutil.Error):
                words = " ".join(one.cmdline())
                if "geoloc_core.lifeline" in words:
                    found["orchestrator"] = pid
                elif "multiprocessing.forkserver" in words:
                    parent = one.ppid() in below and "multiprocessing.forkserver" in " ".join(one.parent().cmdline())
                    found["step" if parent else "server of steps"] = pid
                elif "geoloc simulate" in words:
                    found["command"] = pid
                elif "multiprocessing.spawn" in words:
                    found["worker"] = pid
        if len(found) == 6:
            return found
        assert process.poll() is None, process.communicate()
        time.sleep(0.2)


def test_whichever_process_is_killed_the_others_end_and_the_next_run_goes_on(long, monkeypatch):
    monkeypatch.setenv("GEOLOC_CODE", str(REPOSITORY))
    for killed in ("geoloc demo", "orchestrator", "server of steps", "step", "command"):
        process = demo(long)
        os.kill(kin(process, long)[killed], signal.SIGKILL)  # each run comes as far as the one before
        process.communicate(timeout=120)
        assert process.returncode != 0, killed
        deadline = time.monotonic() + 60
        while left := alive(long):
            assert time.monotonic() < deadline, (killed, left)
            time.sleep(0.2)
    (long / "over").touch()
    code, lines = run(long)
    if lines[0].startswith("geoloc: .dvc/tmp/rwlock: not readable; deleted"):
        del lines[0]  # it was killed while DVC wrote its list
    assert (code, lines[0].partition("  ")[0]) == (0, "[1/1] fetch"), lines
    assert (long / "data" / "raw" / "mp16").read_text() == "mp16\na"


def test_of_two_at_once_the_second_is_told_and_the_first_goes_on(short):
    script = (short / "code" / "work.sh").read_text()
    (short / "code" / "work.sh").write_text(f"touch started; while [ ! -e over ]; do sleep 0.2; done\n{script}")
    first = start(short)
    while holder(short) is None:
        assert first.poll() is None, first.communicate()
        time.sleep(0.05)
    code, lines = run(short)  # while the first asks what is out of date
    assert (code, len(lines)) == (2, 1)
    started = f"geoloc: error: geoloc demo (process {first.pid}) is already running on this project; wait"
    assert lines[0].startswith(started)
    (short / "over").touch()
    _, said = first.communicate(timeout=300)
    assert first.returncode == 0, said
