import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from zipfile import ZipFile

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from geoloc_core.corpora.on_disk import Rows, Shelf, files_on, in_chunks
from geoloc_core.corpora.sources import mp16_pro, osv5m, places365, streetview
from geoloc_core.errors import UserError
from geoloc_core.files import files_under

TEXT = st.text(st.characters(codec="utf-8"), max_size=5)


class ShelfAsADict(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.shelf, self.known = Shelf(), {}

    @rule(key=TEXT, value=st.binary(max_size=4))
    def first(self, key, value):
        assert self.shelf.first(key, value) == self.known.get(key)
        self.known.setdefault(key, value)

    @rule(key=TEXT)
    def take(self, key):
        assert self.shelf.take(key) == (self.known.pop(key, None) is not None)

    @rule(key=TEXT)
    def get(self, key):
        assert self.shelf.get(key) == self.known.get(key)
        assert (key in self.shelf) == (key in self.known)

    @rule(start=TEXT.map("{}\0".format))
    def count(self, start):
        assert self.shelf.count(start) == sum(key.startswith(start) and key != start for key in self.known)

    @invariant()
    def same(self):
        assert list(self.shelf) == sorted(self.known)
        assert len(self.shelf) == len(self.known)


TestShelf = ShelfAsADict.TestCase


def test_a_missing_key_is_a_key_error():
    with pytest.raises(KeyError, match="b"):
        Shelf()["b"]


def test_every_file_is_found_whatever_its_name(tmp_path):
    odd = os.fsdecode(b"caf\xe9.jpg")
    for name in ("b/2.jpg", "b/.hidden", "a.jpg", odd, "b/c/ü.jpg", "empty/x/1"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "empty/y").mkdir()
    (tmp_path / "dead").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / ("d/" * 300) / "x").mkdir(parents=True)
    (tmp_path / ("d/" * 300) / "x" / "y.jpg").write_bytes(b"")
    found = files_on(tmp_path, {"a.jpg", None})
    assert sorted(found) == sorted(set(files_under(tmp_path)) - {"a.jpg"})
    assert odd in found
    assert {"dead", "loop"} <= set(found)
    assert len(found) == 8


def test_a_full_disk_is_one_clear_line(tmp_path):
    """The limit on the size of a file stands for the disk's."""
    code = """
import resource, signal
from geoloc_core.corpora.on_disk import Shelf, room_on_disk
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4_000_000, 4_000_000))
with room_on_disk():
    shelf = Shelf()
    for number in range(10_000):
        shelf.first(str(number), bytes(1000))
"""
    run = subprocess.run([sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(tmp_path)},
                         capture_output=True, text=True)  # fmt: skip
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].startswith(f"geoloc_core.errors.UserError: {tmp_path}: disk I/O error; expected")


def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UserError, match="none: No such file or directory; expected a folder that can be read"):
        files_on(tmp_path / "none")


def chunks(table: pd.DataFrame, size: int):
    return (table.iloc[start : start + size] for start in range(0, max(len(table), 1), size))


ROW = st.tuples(TEXT, st.none() | st.integers(-(2**40), 2**40), st.floats(allow_nan=False))


@given(st.lists(ROW), st.integers(1, 4))
def test_rows_are_those_of_the_table(cells, size):
    table = pd.DataFrame(cells, columns=["key", "whole", "real"], index=range(2, len(cells) + 2))
    table["whole"] = table["whole"].astype("Int64")
    rows = Rows(chunks(table, size), "key")
    expected, again = {}, []
    for number, (key, whole, real) in enumerate(cells, 2):
        row = (number, {"key": key, "whole": whole, "real": real})
        if key in expected:
            again.append(row)
        else:
            expected[key] = row
    assert list(rows) == list(expected.values())
    assert list(rows.again) == again
    assert rows.find([*expected, "no such key"]) == expected
    assert (len(rows), rows.total, rows.columns) == (len(expected), len(cells), ("key", "whole", "real"))
    assert rows.last == (len(cells) + 1 if cells else 0)


@given(st.lists(st.integers()), st.integers(1, 7))
def test_chunks_are_the_items(items, size):
    found = list(in_chunks(items, size))
    assert [item for chunk in found for item in chunk] == items
    assert all(len(chunk) == size for chunk in found[:-1])


COUNTED = """
import json, sys
from pathlib import Path
import pyarrow
from geoloc_core.corpora import tables
from geoloc_core.plugins import module_of
tables.CHUNK = 512  # the shortest table fills it
module = module_of("geoloc_core.corpora.sources", sys.argv[1])
options = module.Options.model_validate({"kind": sys.argv[1], **json.loads(sys.argv[2])})
for folder in sys.argv[3:]:
    most = 0
    for items, _ in enumerate(module.read(options, Path(folder)).items, 1):
        most = max(most, sys.getallocatedblocks())
    print(items, most, pyarrow.total_allocated_bytes())
"""
PER_ZIP = 1_000

TABLES = {
    "places365": ({"metadata": "t.csv", "shards": "*.msg", "urls": "u.csv"}, places365.COLUMNS),
    "mp16_pro": ({"metadata": "t.csv", "authors": "t.csv"}, (*mp16_pro.COLUMNS, "AUTHOR", "city")),
    "osv5m": ({"metadata": "t.csv", "images": "images"}, osv5m.HEADER),
    "streetview": ({"table": "t.csv", "views": 4}, streetview.COLUMNS),
}


def cell(column: str, row: int) -> object:
    """What could stand there."""
    kind = column.lower()
    if kind in ("img_id", "id", "path", "pano_id"):
        return f"{row % 256:02x}/{row // 256 % 256:02x}/{row:012}.jpg"
    if kind.startswith("lat"):
        return 1 + row % 80
    if kind.startswith("lon"):
        return 1 + row % 170
    numeric = kind.endswith("label") or kind.startswith(("prob", "heading"))
    return row % 360 if numeric else "" if kind == "date" else f"{column} {row}"


def lay_out(folder: Path, kind: str, rows: int) -> None:
    """A table that names so many photos, and as many others where its corpus keeps them."""
    _, columns = TABLES[kind]
    folder.mkdir()
    with (folder / "t.csv").open("w") as table:
        print(*columns, sep=",", file=table)
        for row in range(rows):
            print(*(cell(column, row) for column in columns), sep=",", file=table)
    if kind == "places365":
        with (folder / "u.csv").open("w") as urls:
            for row in range(rows):
                print(cell("id", row), f"https://host.example/{row}.jpg", sep=",", file=urls)
        (folder / "0.msg").write_bytes(b"")
    elif kind == "mp16_pro":
        with tarfile.open(folder / "mp-16-images.tar", "w") as tar:
            for row in range(rows):
                tar.addfile(tarfile.TarInfo(f"mp-16/images/{row:012}.jpg"))
    elif kind == "osv5m":
        (folder / "images").mkdir()
        for number in range(rows // PER_ZIP):
            with ZipFile(folder / "images" / f"{number:02}.zip", "w") as file:
                for row in range(PER_ZIP):
                    file.writestr(f"{number:02}/{row:012}.png", b"")


def holds_no_more(kind: str, options: dict, folders: dict[Path, int]) -> None:
    """Reading the longest folder holds no more Python objects and Arrow bytes at a time than reading a short one.

    Both are counted exactly, so that an object kept for every second row is seen. The shortest folder loads what is
    loaded once. That SQLite writes to the disk is tested above.
    """
    command = [sys.executable, "-c", COUNTED, kind, json.dumps(options), *map(str, folders)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    counts = [tuple(map(int, line.split())) for line in lines]
    assert all(items >= rows for (items, _, _), rows in zip(counts, folders.values(), strict=True))
    _, short, long = folders.values()
    (_, few, little), (_, many, much) = counts[1:]
    assert many - few < (long - short) / 2, counts
    assert much - little < long - short, counts


@pytest.mark.slow
def test_a_folders_length_takes_no_memory(tmp_path):
    folders = {tmp_path / str(files): files for files in (500, 2_000, 8_000)}
    for folder, files in folders.items():
        for row in range(files):
            if row % 250 == 0:
                place = folder / f"{row:012}"
                place.mkdir(parents=True)
            os.mknod(place / f"{row:060}.jpg")
    holds_no_more("photos", {}, folders)


@pytest.mark.slow
@pytest.mark.parametrize("kind", TABLES)
def test_a_tables_length_takes_no_memory(tmp_path, kind):
    options, _ = TABLES[kind]
    folders = {tmp_path / str(rows): rows for rows in (1_000, 2_000, 8_000)}
    for folder, rows in folders.items():
        lay_out(folder, kind, rows)
    holds_no_more(kind, options, folders)
