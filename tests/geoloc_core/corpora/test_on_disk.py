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
import json, resource, sys
from pathlib import Path
from geoloc_core.plugins import module_of
kind, options, raw = sys.argv[1], json.loads(sys.argv[2]), Path(sys.argv[3])
module = module_of("geoloc_core.corpora.sources", kind)
source = module.read(module.Options.model_validate({"kind": kind, **options}), raw)
print(sum(1 for _ in source.items), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
TABLES = {
    "places365": ({"metadata": "t.csv", "shards": "*.msg", "urls": "u.csv"}, ",".join(places365.COLUMNS)),
    "mp16_pro": ({"metadata": "t.csv", "authors": "t.csv"}, ",".join((*mp16_pro.COLUMNS, "AUTHOR", "city"))),
    "osv5m": ({"metadata": "t.csv", "images": "images"}, ",".join(osv5m.HEADER)),
    "streetview": ({"table": "t.csv", "views": 4}, ",".join(streetview.COLUMNS)),
}


def cell(column: str, row: int) -> object:
    """What could stand there; ids are longer than a pointer, so that keeping them would be seen."""
    kind = column.lower()
    if kind in ("img_id", "id", "path", "pano_id"):
        return f"{row % 256:02x}/{row // 256 % 256:02x}/{row:012}.jpg"
    if kind.startswith("lat"):
        return 1 + row % 80
    if kind.startswith("lon"):
        return 1 + row % 170
    numeric = kind.endswith("label") or kind.startswith(("prob", "heading"))
    return row % 360 if numeric else "" if kind == "date" else f"{column} {row}"


def lay_out(folder: Path, header: str, rows: int) -> None:
    """A table that names so many photos, and a tar and zip files of as many others."""
    columns = header.split(",")
    folder.mkdir()
    with (folder / "t.csv").open("w") as table:
        print(header, file=table)
        for row in range(rows):
            print(*(cell(column, row) for column in columns), sep=",", file=table)
    with (folder / "u.csv").open("w") as urls:
        for row in range(rows):
            print(cell("id", row), f"https://host.example/{row}.jpg", sep=",", file=urls)
    (folder / "0.msg").write_bytes(b"")
    with tarfile.open(folder / "mp-16-images.tar", "w") as tar:
        for row in range(rows):
            tar.addfile(tarfile.TarInfo(f"mp-16/images/{row:012}.jpg"))
    (folder / "images").mkdir()
    for number in range(rows // 10_000):
        with ZipFile(folder / "images" / f"{number:02}.zip", "w") as file:
            for row in range(10_000):
                file.writestr(f"{number:02}/{row:012}.png", b"")


def counted(kind: str, options: dict, folder: Path) -> tuple[int, float]:
    """Items of a source, and the most memory that counting them took, in MB."""
    # By way of a shell that stays: a process counts as its own what the one that started it held.
    command = ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-c", COUNTED, kind, json.dumps(options), str(folder)]
    items, peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return int(items), float(peak)


@pytest.mark.slow
def test_a_folders_length_takes_no_memory(tmp_path):
    peaks = []
    for files in (1_000, 150_000):
        folder = tmp_path / str(files)
        for row in range(files):
            if row % 1000 == 0:
                place = folder / f"{row:012}"
                place.mkdir(parents=True)
            os.mknod(place / f"{row:060}.jpg")
        items, peak = counted("photos", {}, folder)
        assert items == files
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 20, peaks


@pytest.mark.slow
@pytest.mark.parametrize("kind", TABLES)
def test_a_tables_length_takes_no_memory(tmp_path, kind):
    options, header = TABLES[kind]
    peaks = []
    for rows in (50_000, 130_000):  # the first fills the buffers
        folder = tmp_path / str(rows)
        lay_out(folder, header, rows)
        items, peak = counted(kind, options, folder)
        assert items >= rows
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 30, peaks
