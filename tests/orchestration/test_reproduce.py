import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from orchestration.dvc import read_stages
from orchestration.reproduce import STEP, StageError, last_words
from tests.orchestration.small_project import reproduce


@pytest.fixture
def fetch(project):
    return next(stage for stage in read_stages(project) if stage.name == "fetch@mp16")


def test_a_stage_runs_once_and_is_then_unchanged(project, fetch, capfd):
    first = reproduce(project, fetch)
    again = reproduce(project, fetch)
    assert (first.changed, again.changed) == (True, False)
    assert first.outputs == again.outputs
    assert set(first.outputs) == {"data/raw/mp16", "data/summaries/fetch/mp16.json"}
    assert "working on mp16" in capfd.readouterr().err


def test_what_a_stage_prints_is_kept(project, fetch):
    reproduce(project, fetch)
    assert "working on mp16" in (project / ".state" / "logs" / "fetch__mp16.log").read_text()


def test_a_mistake_of_the_user_is_said_as_the_stage_said_it(project, fetch):
    (project / "trouble").mkdir()
    (project / "trouble" / "mp16").write_text("loading\ngeoloc: error: outside/mp16.csv: no rows\n  expected some\n")
    with pytest.raises(StageError) as told:
        reproduce(project, fetch)
    assert str(told.value) == "fetch@mp16: outside/mp16.csv: no rows\n  expected some"
    assert told.value.exit_code == 2


def test_any_other_failure_names_the_command_and_the_log(project, fetch):
    (project / "code" / "work.sh").write_text("echo loading; echo Boom >&2; exit 3\n")
    with pytest.raises(
        StageError, match=r"(?s)exited with 3; its full output is in .state/logs/fetch__mp16.log.*Boom"
    ) as told:
        reproduce(project, fetch)
    assert told.value.exit_code == 3


def test_missing_data_is_named(project, fetch):
    (project / "outside" / "mp16.csv").unlink()
    with pytest.raises(
        StageError, match=r"^fetch@mp16: \S*outside/mp16\.csv: no such file or folder; `sh code/work"
    ) as told:
        reproduce(project, fetch)
    assert told.value.exit_code == 2


@pytest.mark.slow
@pytest.mark.parametrize("deaf", [False, True])
def test_a_process_that_outlived_its_run_is_ended_first(project, fetch, deaf):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    marks = {"DVC_ROOT": str(project), "DVC_STAGE": fetch.name, STEP: str(dead.pid)}
    words = ["sh", "-c", "trap '' TERM; exec sleep 60"] if deaf else ["sleep", "60"]
    orphan = subprocess.Popen(words, env={**os.environ, **marks})
    other = subprocess.Popen(["sleep", "60"], env={**os.environ, **marks, STEP: str(os.getpid())})
    try:
        # the system shows what a process was told a moment after it has begun
        while psutil.Process(orphan.pid).name() != "sleep" or STEP not in psutil.Process(orphan.pid).environ():
            time.sleep(0.01)
        reproduce(project, fetch)
        assert not psutil.pid_exists(orphan.pid)
        assert psutil.Process(other.pid).status() != psutil.STATUS_ZOMBIE
    finally:
        for process in (other, orphan):
            process.kill()
            process.wait()


@pytest.mark.slow
def test_an_interrupt_ends_the_command(project, fetch):
    (project / "code" / "work.sh").write_text("touch started; sleep 60\n")

    def interrupt():
        while not (project / "started").exists():
            time.sleep(0.1)
        signal.raise_signal(signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            reproduce(project, fetch)
    finally:
        thread.join()
        signal.signal(signal.SIGINT, before)
    assert not any(p.name() == "sleep" for p in psutil.Process().children(recursive=True))


def test_last_words_start_at_the_error(tmp_path):
    log = tmp_path / "x.log"
    log.write_text("Running stage 'x':\n> geoloc x\n1\ngeoloc: error: params.yaml: 2 errors\n  a\n  b\n")
    assert last_words(log) == "params.yaml: 2 errors\n  a\n  b"
    log.write_text("\n".join(map(str, range(50))))
    assert last_words(log, most=2) == "48\n49"
