"""What a command writes replaces nothing but its own: all else there is refused in one line, before any work."""

import errno
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from geoloc_core import files, parquet
from geoloc_core.errors import UserError
from geoloc_core.geo import boundaries

from ..conftest import PHOTOS
from .corpora.made_photos import located
from .encoders.made_checkpoints import MADE
from .encoders.test_alone import corpus
from .test_artefacts import countries, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """What every command that writes where a user says needs to read."""
    root = tmp_path_factory.mktemp("targets")
    profile = {**PHOTOS, "checkpoints": {"net": {"file": "net"}}, "encoders": {"net": {"kind": "vit"}}}
    (root / "params.yaml").write_text(yaml.safe_dump({"run": profile}))
    (root / "points.csv").write_text("latitude,longitude\n48,2\n0,38\n-9,-75\n")
    boundaries.write({0: countries()}, root / "B")
    countries().to_file(root / "units.gpkg", layer="ADM_0")
    (root / "net").mkdir()
    MADE["vit-l16-in21k"].write(root / "net")
    corpus(root / "corpus", "photos")
    (root / "raw").mkdir()
    for number in range(3):
        (root / "raw" / f"{number}.jpg").write_bytes(located(number))
    build = "cells build points.csv --scheme s2 --set tau_min=1 --boundaries B --out cells"
    assert run(root, *build.split()) == 0
    return root


COMMANDS = {
    "locate": "locate points.csv --boundaries B --out {}.csv",
    "locate, Parquet": "locate points.csv --boundaries B --out {}.parquet",
    "index": "locate points.csv --boundaries units.gpkg --out located.csv --index {}",
    "build": "cells build points.csv --scheme s2 --set tau_min=1 --boundaries B --out {}",
    "assign": "cells assign points.csv --cells cells --out {}.csv",
    "map": "cells map cells --out {}.html",
    "export": "cells export cells --out {}.csv",
    "encode": "encode corpus --encoder net --checkpoint net --out {}",
    "ingest": "ingest photos --raw raw --out {}",
    "simulate": "simulate photos --photos 100 --size 32 --out {}",
}
FOLDERS = ("index", "build", "encode", "ingest", "simulate")
"""Those that write a folder."""


def place(root: Path, command: str, name: str) -> tuple[list[str], Path]:
    words = COMMANDS[command].format(name).split()
    return words, root / next(word for word in words if word.startswith(name))


def mine(path: Path) -> Path:
    """A folder of the user's."""
    (path / "thesis").mkdir(parents=True)
    (path / "thesis" / "chapter.txt").write_text("years of work")
    return path


def of_another_command(path: Path) -> Path:
    """A folder that was written here, but by none of these."""
    with files.replacing_folder(path, "model") as aside:
        aside.mkdir()
        (aside / "model.json").write_text("{}")
    return path


def file(path: Path) -> Path:
    """A file of the user's."""
    path.write_text("years of work")
    return path


def linked(path: Path) -> Path:
    """A link to a folder of the user's."""
    path.symlink_to(mine(path.with_name(f"{path.name} elsewhere")), target_is_directory=True)
    return path


def own_with_a_note(path: Path) -> Path:
    """A result of ours in which the user put a file."""
    with files.replacing_folder(path, "cells") as aside:
        aside.mkdir()
        (aside / "cells.json").write_text("{}")
    (path / "notes.txt").write_text("years of work")
    return path


def below_a_file(path: Path) -> Path:
    path.write_text("years of work")
    return path / "x"


THERE = (mine, of_another_command, linked, own_with_a_note)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("there", [*THERE, file], ids=lambda make: make.__name__)
def test_what_is_not_its_own_is_refused_and_stays(root, tmp_path, capsys, command, there):
    words, path = place(root, command, f"{tmp_path}/target")
    if there is file and command not in FOLDERS:
        pytest.skip("a file takes the place of a file that the user names")
    there(path)
    before = tree(tmp_path)
    assert run(root, *words) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1, "it is said before any work"
    assert said[0].startswith(f"geoloc: error: {path}: ")
    assert tree(tmp_path) == before


def tree(folder: Path) -> dict[str, str]:
    """Everything below a folder, links and what files hold."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        found[name] = os.readlink(path) if path.is_symlink() else path.read_text() if path.is_file() else ""
    return found


@pytest.mark.parametrize("command", FOLDERS)
@pytest.mark.parametrize("name", [".", "..", "sub/..", "{root}", "{root}/.."])
def test_the_working_folder_and_those_above_it_are_never_replaced(root, capsys, command, name):
    words = COMMANDS[command].format(name.format(root=root)).split()
    (root / "sub").mkdir(exist_ok=True)
    before = sorted(path.name for path in root.iterdir())
    assert run(root, *words) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert "the folder you are in, or one above it" in said[0]
    assert sorted(path.name for path in root.iterdir()) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_a_place_below_a_file_is_refused(root, tmp_path, capsys, command):
    (tmp_path / "taken").write_text("years of work")
    words = COMMANDS[command].format(f"{tmp_path}/taken/x").split()
    assert run(root, *words) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert "cannot be created" in said[0]
    assert (tmp_path / "taken").read_text() == "years of work"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_that_may_not_be_written_to_is_refused(root, tmp_path, capsys, command):
    (tmp_path / "closed").mkdir(mode=0o555)
    words = COMMANDS[command].format(f"{tmp_path}/closed/x").split()
    assert run(root, *words) == 2
    assert "Permission denied" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_folders_above_are_made_and_its_own_is_replaced(root, tmp_path, capsys, command):
    words, path = place(root, command, f"{tmp_path}/new/er/target")
    assert run(root, *words) == 0
    assert path.exists()
    assert run(root, *words) == (2 if command == "simulate" else 0), "a published layout says not whose it is"
    assert sorted(tmp_path.rglob(".*")) == [], "nothing unfinished is left"


@pytest.mark.parametrize("name", ["/dev/null", "/dev/stdout", "/dev/full", "/proc/self/fd/1", "/dev/shm/../null"])
def test_a_device_is_no_file_to_write(name):
    before = os.lstat(name).st_ino
    with pytest.raises(UserError, match="a device"), files.replacing(Path(name)):
        pass
    assert os.lstat(name).st_ino == before


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="this system has no disk in memory here")
def test_a_disk_in_memory_among_the_devices_takes_files():
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder, files.replacing(Path(folder, "x")) as aside:
        aside.write_text("new")
        files.check_file(Path(folder, "x"))


@pytest.mark.parametrize("beside", [".x.new", ".x.old"])
def test_what_lies_beside_and_is_never_ours_stays(tmp_path, beside):
    (tmp_path / beside).write_text("years of work")
    with (
        pytest.raises(UserError, match=r"in the way; .* move it away"),
        files.replacing_folder(tmp_path / "x", "cells"),
    ):
        pass
    assert (tmp_path / beside).read_text() == "years of work"


def test_a_folder_beside_a_file_that_is_written_stays(tmp_path):
    mine(tmp_path / ".x.new")
    with pytest.raises(UserError, match="in the way"), files.replacing(tmp_path / "x"):
        pass
    assert tree(tmp_path / ".x.new") == {"thesis": "", "thesis/chapter.txt": "years of work"}


@pytest.mark.parametrize(("kind", "back"), [("cells", True), ("index", False)])
def test_what_a_killed_run_had_moved_away_is_put_back(tmp_path, kind, back):
    with files.replacing_folder(tmp_path / "x", "cells") as aside:
        aside.mkdir()
        (aside / "cells.json").write_text("{}")
    (tmp_path / "x").rename(tmp_path / ".x.old")
    with pytest.raises(RuntimeError), files.replacing_folder(tmp_path / "x", kind) as aside:
        raise RuntimeError
    assert (tmp_path / "x" / "cells.json").is_file() == back
    assert (tmp_path / ".x.old").exists() != back


def test_of_a_link_to_a_file_the_link_is_replaced(tmp_path):
    (tmp_path / "mine").write_text("years of work")
    for target in ("mine", "nowhere"):
        link = tmp_path / f"to {target}"
        link.symlink_to(tmp_path / target)
        with files.replacing(link) as aside:
            aside.write_text("new")
        assert link.read_text() == "new"
        assert not link.is_symlink()
    assert (tmp_path / "mine").read_text() == "years of work"
    assert not (tmp_path / "nowhere").exists()


def test_what_appears_while_the_work_goes_on_is_not_replaced(tmp_path):
    with pytest.raises(UserError, match="a folder"), files.replacing(tmp_path / "x") as aside:
        aside.write_text("new")
        mine(tmp_path / "x")
    with pytest.raises(UserError, match="already contains"), files.replacing_folder(tmp_path / "y", "cells") as aside:
        aside.mkdir()
        mine(tmp_path / "y")
    assert (tmp_path / "x/thesis/chapter.txt").read_text() == (tmp_path / "y/thesis/chapter.txt").read_text()
    assert not list(tmp_path.glob(".*"))


NAMES = st.sets(st.sampled_from(["a", "b", "c/d", "c/e", "f.parquet"]))


@given(ours=NAMES, theirs=NAMES)
def test_a_folder_is_replaced_if_all_its_files_are_its_own(tmp_path_factory, ours, theirs):
    folder = tmp_path_factory.mktemp("replaced") / "folder"
    with files.replacing_folder(folder, "letters") as aside:
        for name in ours:
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            (aside / name).write_text(name)
        aside.mkdir(exist_ok=True)
    for name in theirs:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
    before = tree(folder)
    if theirs <= ours:
        files.check_folder(folder, "letters")
    else:
        with pytest.raises(UserError, match="already contains files"):
            files.check_folder(folder, "letters")
    assert tree(folder) == before
    with pytest.raises(UserError, match="already contains files"):
        files.check_folder(folder, "numbers")


DISKS = {
    "full": "mount -t tmpfs -o size=1m none {0}",
    "read-only": "mount -t tmpfs -o size=1m,ro none {0}",
}
"""How a small disk comes about: in a namespace of its own, which ends with the command."""
WRITERS = """
import sys
from pathlib import Path
import numpy as np, pyarrow as pa
from geoloc_core import cli, files, parquet
from geoloc_core.corpora import manifest

place, values = Path(sys.argv[1]), np.random.default_rng(0).random(300_000)

def shards(path):
    with files.replacing_folder(path, "photos") as aside:
        aside.mkdir()
        with manifest.ShardWriter(aside) as writer:
            for number in range(200):
                writer.add(str(number), values.tobytes()[:30_000], "x.jpg")

def table(path):
    with files.replacing(path) as aside, manifest.TableWriter(aside, manifest.REJECTS) as writer:
        for number, value in enumerate(values):
            writer.add({"image_id": str(value), "reason": str(value), "detail": str(value)})

def csv(path):
    from pyarrow import csv
    rows = pa.table({"a": values})
    with files.replacing(path) as aside, parquet.closing(csv.CSVWriter(aside, rows.schema)) as writer:
        writer.write_table(rows)

def whole(path):
    with files.replacing(path) as aside:
        parquet.write(pa.table({"a": values}), aside)

def array(path):
    with files.replacing(path) as aside:
        files.new_array(aside, np.float64, values.shape)[:] = values

def saved(path):
    with files.replacing(path) as aside, aside.open("wb") as stream:
        np.save(stream, values)

def tensors(path):
    from safetensors.numpy import save_file
    with files.replacing(path) as aside:
        save_file({"a": values}, aside)

def json(path):
    files.write_json(path, values.tolist())

cli.geoloc = lambda **_: globals()[sys.argv[2]](place / "made")
cli.main()
"""
SORTS = ("shards", "table", "csv", "whole", "array", "saved", "tensors", "json")


def one_line(done: subprocess.CompletedProcess, path: Path, says: str) -> None:
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"geoloc: error: {path}: {says}"), done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("disk", DISKS)
def test_a_disk_that_takes_nothing_is_one_line(tmp_path, disk, sort):
    mounted = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*mounted, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no disk can be mounted here")
    python = f'{DISKS[disk].format(tmp_path)} && exec {sys.executable} -c "$0" {tmp_path} {sort}'
    done = subprocess.run([*mounted, "sh", "-c", python, WRITERS], capture_output=True, text=True, check=False)
    if disk == "full":
        one_line(done, tmp_path / "made", "No space left on device; make room")
    else:
        one_line(done, tmp_path / "made", "cannot be created (Permission denied)")


@pytest.mark.parametrize("sort", SORTS)
def test_a_file_that_grows_beyond_the_limit_is_one_line(tmp_path, sort):
    done = subprocess.run(
        [sys.executable, "-c", WRITERS, tmp_path, sort],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20)),
    )
    one_line(done, tmp_path / "made", "File too large; allow larger files")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bit", [1, 128])
def test_no_flipped_bit_of_a_table_changes_what_is_read(tmp_path, bit):
    path = tmp_path / "table.parquet"
    schema = pa.schema([pa.field("id", pa.string(), nullable=False), ("value", pa.float64())], {"published": "1234"})
    parquet.write(pa.table({"id": ["a", "b", "c"], "value": [1.5, None, 3.5]}, schema), path)
    whole, table = path.read_bytes(), parquet.read(path, "make it")
    refused = 0
    for at in range(0, len(whole), 3):
        changed = bytearray(whole)
        changed[at] ^= bit
        path.write_bytes(changed)
        try:
            found = parquet.read(path, "make it")
        except UserError:
            refused += 1
            continue
        assert found.equals(table)
        # That there is metadata at all is not said anywhere else: who needs some asks for it.
        assert (found.schema.metadata or {}).get(b"published") in (b"1234", None)
    assert refused > len(whole) // 6


def test_a_file_that_cannot_be_opened_is_not_said_to_be_damaged(tmp_path):
    path = tmp_path / "table.parquet"
    parquet.write(pa.table({"a": [1]}), path)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        with pytest.raises(OSError, match="Too many open files") as caught:
            parquet.read(path, "make it")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert (caught.value.errno, caught.value.filename) == (errno.EMFILE, str(path))


def test_fetch_leaves_what_somebody_else_put_there(tiny_project, tmp_path, capsys):
    raw = mine(tiny_project.raw("photos"))
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "a.jpg").write_bytes(located(0))
    for _ in range(2):
        assert run(tmp_path, "fetch", "photos") == 2
        assert (
            f"{raw}: already contains files that geoloc did not write (thesis/chapter.txt)" in capsys.readouterr().err
        )
    assert (raw / "thesis/chapter.txt").read_text() == "years of work"
    files.remove(raw)
    for _ in range(2):
        assert run(tmp_path, "fetch", "photos") == 0, "its own is replaced"


@pytest.mark.parametrize("shape", [(0, 3), (5,), (4, 3, 2)])
def test_a_new_array_is_read_as_it_was_filled(tmp_path, shape):
    with files.replacing_folder(tmp_path / "made", "features") as aside:
        aside.mkdir()
        array = files.new_array(aside / "a.npy", np.float16, shape)
        array[:] = 1.5
        array.flush()
    found = files.read_array(tmp_path / "made" / "a.npy")
    assert (found.shape, found.dtype) == (shape, np.float16)
    assert (found == 1.5).all()
