"""Whatever lies damaged in a project's state is one line, or mended."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from geoloc_core.errors import UserError
from orchestration import ui
from orchestration.databases import check_databases
from orchestration.environment import enter
from orchestration.terminal import console
from tests.orchestration.small_project import REPOSITORY

GARBAGE = bytes(range(255, 127, -1)) * 50


def garbage(path):
    path.write_bytes(GARBAGE)


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def empty(path):
    path.write_bytes(b"")


def folder(path):
    path.unlink()
    path.mkdir()


def run(module, root):
    environment = {**os.environ, "GEOLOC_ROOT": str(root), "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-P", "-m", f"orchestration.{module}"], cwd=root, env=environment, text=True,
                          capture_output=True, check=False)  # fmt: skip
    return done.returncode, done.stderr.splitlines()


@pytest.fixture(scope="module")
def finished(empty_project, tmp_path_factory):
    """A project of one stage, up to date."""
    root = Path(shutil.copytree(empty_project, tmp_path_factory.mktemp("finished") / "project"))
    text = (root / "dvc.yaml").read_text()
    (root / "dvc.yaml").write_text(text[: text.index("  ingest:")])
    code, lines = run("run", root)
    assert code == 0, lines
    return root


@pytest.fixture
def damaged(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "project"))


DATABASES = (".state/dagster/history/runs.db", ".state/dagster/history/runs/index.db",
             ".state/dagster/schedules/schedules.db")  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", DATABASES)
@pytest.mark.parametrize("damage", [garbage, cut])
def test_a_damaged_database_of_dagster_is_named(damaged, name, damage):
    damage(damaged / name)
    code, lines = run("run", damaged)
    assert (code, len(lines)) == (2, 1), lines
    assert lines[0].startswith(f"geoloc: error: {damaged / name}: damaged (")
    assert lines[0].endswith("move it away and run the same command again: you lose the history of runs in "
                             "it, but no data")  # fmt: skip


@pytest.mark.slow
def test_what_was_moved_away_is_made_anew(damaged):
    for name in DATABASES:
        (damaged / name).unlink()
    code, lines = run("run", damaged)
    assert (code, lines[-1].partition(" in ")[0]) == (0, "2 unchanged"), lines


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("dvc.lock", garbage, "geoloc: dvc.lock: not readable; moved to .state/dvc.lock.torn"),
        (".dvc/tmp/rwlock", folder, "geoloc: error: {root}/.dvc/tmp/rwlock: Is a directory"),
    ],
)
def test_what_is_wrong_with_dvc_s_files_is_said(damaged, name, damage, said):
    damage(damaged / name)
    code, lines = run("run", damaged)
    assert lines[0].startswith(said.format(root=damaged)), lines
    assert not any("Traceback" in line for line in lines)
    assert code == (2 if "error" in said else 0)


@pytest.mark.parametrize("damage", [garbage, cut, empty])
def test_damaged_settings_are_replaced(tmp_path, monkeypatch, damage):
    monkeypatch.setattr(os, "environ", dict(os.environ))
    enter(tmp_path)
    settings = tmp_path / ".state" / "dagster" / "dagster.yaml"
    before = settings.read_bytes()
    damage(settings)
    enter(tmp_path)
    assert settings.read_bytes() == before


def a_file(root):
    (root / ".state").write_text("")


def one_deep(root):
    (root / ".state").mkdir()
    (root / ".state" / "dagster").write_text("")


def logs(root):
    (root / ".state").mkdir()
    (root / ".state" / "logs").write_text("")


def settings_folder(root):
    (root / ".state" / "dagster" / "dagster.yaml").mkdir(parents=True)


def not_writable(root):
    (root / ".state").symlink_to("/proc/fs")  # where nobody can make a folder, the administrator neither


@pytest.mark.parametrize("damage", [a_file, one_deep, logs, settings_folder, not_writable])
def test_a_state_that_cannot_be_written_to_is_one_line(tmp_path, monkeypatch, damage):
    monkeypatch.setattr(os, "environ", dict(os.environ))
    damage(tmp_path)
    with pytest.raises(UserError, match=rf"^{tmp_path}/\.state\S*: .+; expected to write there, since ") as told:
        enter(tmp_path)
    assert "\n" not in str(told.value)


@pytest.mark.slow
def test_such_a_state_ends_with_code_2(damaged):
    shutil.rmtree(damaged / ".state")
    a_file(damaged)
    for module in ("run", "ui"):
        code, lines = run(module, damaged)
        assert (code, len(lines)) == (2, 1), lines


@pytest.mark.slow
@pytest.mark.parametrize("damage", [garbage, cut])
def test_the_pages_name_mlflow_s_damaged_database_before_they_start(project, monkeypatch, damage):
    monkeypatch.setattr(os, "environ", dict(os.environ))
    store = project / ".state" / "mlflow" / "mlflow.db"
    store.parent.mkdir(parents=True)
    tables(store)
    check_databases(store.parent, "")
    damage(store)
    with pytest.raises(UserError, match=rf"^{store}: damaged \(.+\); expected an SQLite database; move it away"):
        ui.serve(project, 3000, 5000, [], console())


def tables(path):
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE runs (name TEXT)")
        database.executemany("INSERT INTO runs VALUES (?)", [("x" * 500,)] * 500)
