"""One judge of the tables that others wrote, and each door that a table comes in by."""

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoloc_core import tables
from geoloc_core.corpora import places
from geoloc_core.corpora.fetch import urls
from geoloc_core.corpora.sources import osv5m, photos, places365, streetview
from geoloc_core.corpora.tables import csv_chunks, read_csv
from geoloc_core.encoders.text import sentences
from geoloc_core.errors import UserError
from geoloc_core.geo import points
from geoloc_core.geo.geocells.schemes import s2
from geoloc_core.params import Texts

WANTED = ("path", "latitude", "longitude")
GOOD = "path,latitude,longitude\na.jpg,48.85,2.35\nsub/b.jpg,1,2\n"


def read(tmp_path: Path, content: str | bytes, columns: tuple[str, ...] = WANTED, **more) -> dict[int, list[str]]:
    """Rows by their numbers."""
    (tmp_path / "t.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    table = read_csv(tmp_path / "t.csv", columns, **more)
    return dict(zip(table.index.tolist(), table.to_numpy().tolist(), strict=True))


def wrong(tmp_path: Path, content: str | bytes, columns: tuple[str, ...] = WANTED) -> str:
    """What is said of a table, in one line that begins with its name."""
    with pytest.raises(UserError) as caught:
        read(tmp_path, content, columns)
    said = str(caught.value)
    assert said.startswith(f"{tmp_path / 't.csv'}: ")
    assert "\n" not in said
    return said.removeprefix(f"{tmp_path / 't.csv'}: ")


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (GOOD, {2: ["a.jpg", "48.85", "2.35"], 3: ["sub/b.jpg", "1", "2"]}),
        (GOOD.replace("\n", "\r\n"), {2: ["a.jpg", "48.85", "2.35"], 3: ["sub/b.jpg", "1", "2"]}),
        (GOOD.replace("\n", "\r"), {2: ["a.jpg", "48.85", "2.35"], 3: ["sub/b.jpg", "1", "2"]}),
        ("\ufeff" + GOOD[:-1], {2: ["a.jpg", "48.85", "2.35"], 3: ["sub/b.jpg", "1", "2"]}),
        ("path,latitude,longitude\na,1,2\n\n\nb,3,4\n", {2: ["a", "1", "2"], 5: ["b", "3", "4"]}),
        ("path,latitude,longitude\r\na,1,2\r\r\nb,3,4\r\r\n", {2: ["a", "1", "2"], 4: ["b", "3", "4"]}),
        ("\n\npath,latitude,longitude\n\na,1,2\n", {5: ["a", "1", "2"]}),
        ("path,latitude,longitude\n,,\na,1,2\n,,\n", {3: ["a", "1", "2"]}),
        ('path,latitude,longitude\n"a\n\nb",1,2\nc,3,4\n', {2: ["a\n\nb", "1", "2"], 3: ["c", "3", "4"]}),
        ('path,latitude,longitude\na,1,"2\n"\n', {2: ["a", "1", "2\n"]}),
        ("path, Latitude , longitude\na, 1,2\n", {2: ["a", " 1", "2"]}),
        ("PATH,LATITUDE,LONGITUDE\na,1,2\n", {2: ["a", "1", "2"]}),
        (",path,latitude,longitude\n7,a,1,2\n", {2: ["7", "a", "1", "2"]}),
        ("path,latitude,longitude", {}),
        ("path,latitude,longitude\n", {}),
    ],
)
def test_rows_have_the_numbers_of_a_spreadsheet(tmp_path, content, rows):
    assert read(tmp_path, content) == rows


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("path;latitude;longitude\na.jpg;48,85;2,35\n", "row 1 looks like its header, semicolons between the columns"),
        ("path\tlatitude\tlongitude\na.jpg\t1\t2\n", "row 1 looks like its header, tabs between the columns"),
        ("pfad|breite|länge\na.jpg|1|2\n", "row 1 looks like its header, bars between the columns"),
        ("# exported\npath,latitude,longitude\na.jpg,1,2\n", "row 2 looks like its header, commas between the columns"),
        ("sep=;\npath;latitude;longitude\na;1;2\n", "row 2 looks like its header, semicolons between the columns"),
        ("Trip\n\npath,latitude,longitude\na,1,2\n", "row 3 looks like its header, commas between"),
        (GOOD.encode("utf-16"), "its encoding is UTF-16; expected UTF-8: save it as 'CSV UTF-8', or convert it: iconv"),
        (GOOD.encode("utf-16-le"), "its encoding is UTF-16; expected UTF-8"),
        (GOOD.encode("utf-32"), "its encoding is UTF-32; expected UTF-8"),
        (GOOD.replace("sub", "Zürich").encode("cp1252"), r"row 3 is not UTF-8, .*Windows-1252.*'Zürich/b.jpg'"),
        (GOOD.replace("path", "path,größe").encode("cp1252"), r"row 1 is not UTF-8, .*'größe'"),
        (b"PK\3\4\x14\0\6\0\x08\0" + bytes(range(1, 200)), "not a text file, it contains zero bytes; expected a CSV"),
        ("path,latitude,longitude,latitude\na,1,2,5\n", "2 columns named latitude; expected one"),
        ("path,latitude,longitude, latitude \na,1,2,5\n", "2 columns named latitude; expected one"),
        ("path,Latitude,LATITUDE,longitude\na,1,2,5\n", "columns Latitude, LATITUDE; expected one latitude"),
        ("path,note,note,latitude,longitude\na,b,c,1,2\n", "2 columns named note; expected one"),
        ("path,latitude,longitude\na,1,2\n\nb,3\n", "row 4: 2 cells; expected 3"),
        (
            "path,latitude,longitude\na,48,85,2,35\n",
            "row 2: 5 cells; expected 3, and quotes around a cell with a comma",
        ),
        ('path,latitude,longitude\n"a\nb",1,2\nc,1,2,3\n', "row 3: 4 cells; expected 3"),
        ('path,latitude,longitude\na,1,2\n"b,3,4\nc,5,6\n', "row 3: a quote is opened and never closed"),
        ('path,latitude,longitude\na,1,2\nb,3,"4\nc,5,6\n', "the last row: a quote is opened and never closed"),
        (
            "path,lat,lon\na,1,2\n",
            "no column latitude, longitude; expected path, latitude, longitude, got path, lat, lon",
        ),
        ("", "empty; expected a CSV with columns path, latitude, longitude"),
        ("\n\n,,\n", "empty; expected a CSV with columns path, latitude, longitude"),
        (
            ",".join(["path", "latitude", "longitude", *map(str, range(99_997))]) + "\n",
            "100,000 columns; at most 5,000",
        ),
        ("path,latitude,longitude," + "x" * (2 << 20) + "\n", "its header is longer than 1 MB"),
        ("path,latitude,longitude\na,1," + "2" * (3 << 20) + "\nb,1,2\n", "a row is too long to be read"),
    ],
)
def test_what_is_no_such_csv_is_said_with_its_remedy(tmp_path, content, said):
    assert re.match(said, wrong(tmp_path, content))


def test_a_wide_table_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_parts", lambda *_: pytest.fail("it was read"))
    assert "100,001 columns" in wrong(tmp_path, "c," * 100_000 + "\n")


def test_what_is_no_file_is_said(tmp_path):
    with pytest.raises(UserError, match=r"none\.csv: no such file; expected a CSV with columns path"):
        read_csv(tmp_path / "none.csv", WANTED)
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\); expected a CSV with columns path"):
        read_csv(tmp_path, WANTED)


def test_a_table_without_a_header_has_the_columns_that_it_is_said_to_have(tmp_path):
    assert read(tmp_path, "a,1\n\nb,2\n", ("id", "url"), header=False) == {1: ["a", "1"], 3: ["b", "2"]}


def test_further_columns_are_called_so_that_nothing_is_lost(tmp_path):
    (tmp_path / "t.csv").write_text("image_id,path,,table_image_id,_flaw,Path\n1,2,3,4,5,6\n")
    table = next(csv_chunks(tmp_path / "t.csv", ("path",), taken=("_flaw",)))
    assert table.columns.tolist() == [
        "table_table_image_id",
        "path",
        "unnamed_3",
        "table_image_id",
        "table__flaw",
        "Path",
    ]
    assert table.to_numpy().tolist() == [list("123456")]


cells = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=6)


@given(st.lists(st.lists(cells, min_size=3, max_size=3) | st.just([]), max_size=20), st.sampled_from(["\n", "\r\n"]))
def test_every_row_that_a_csv_writer_writes_comes_back_under_its_number(tmp_path_factory, rows, end):
    """Rows of empty cells alone are blank lines."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([list(WANTED), *rows])
    found = read(tmp_path_factory.mktemp("csv"), text.getvalue())
    assert found == {number: row for number, row in enumerate(rows, 2) if any(row)}


@given(st.lists(st.tuples(cells.filter(str.strip), cells, st.integers()), max_size=9))
def test_what_is_written_as_csv_comes_back_whatever_reads_it(tmp_path_factory, rows):
    """Also carriage returns, which Python's writer does not quote where lines end in a newline."""
    text = io.StringIO(newline="")
    tables.CsvWriter(text).writerows([WANTED, *rows])
    expected = [[first, second, str(number)] for first, second, number in rows]
    assert list(csv.reader(io.StringIO(text.getvalue(), newline=""))) == [list(WANTED), *expected]
    assert list(read(tmp_path_factory.mktemp("csv"), text.getvalue()).values()) == expected


def test_rows_keep_their_numbers_over_the_parts_of_a_long_table(tmp_path):
    lines = [f"{n},{n % 80},{'x' * 100}" if n % 3 else "" for n in range(60_000)]
    (tmp_path / "t.csv").write_text("\n".join([",".join(WANTED), *lines, ""]))
    parts = list(tables.read_csv(tmp_path / "t.csv", WANTED).parts)
    assert len(parts) > 3
    numbers = np.concatenate([np.asarray(part.numbers) for part in parts])
    names = np.concatenate([part.batch.column(0).to_pylist() for part in parts]).astype(int)
    assert (numbers == names + 2).all()
    assert len(names) == 40_000


PLAIN = re.compile(tables.NUMBER, re.ASCII)
odd = st.sampled_from(
    ["True", "4_8.85", "0x10", "nan", "inf", "-Infinity", "1e999", "48,85", "१", "1d5", "--1", "+-1", " "]
)
likely = st.from_regex(
    re.compile(r"[ +-]{0,2}[0-9_]{0,3}[.,]?[0-9]{0,3}(e[+-]?[0-9]{1,3})?[ x]?", re.ASCII), fullmatch=True
)
texts = st.lists(st.floats().map(repr) | likely | odd | st.text(max_size=4), max_size=8)


@given(texts)
def test_a_number_is_a_plain_decimal_one_whatever_stands_beside_it(texts):
    expected = [float(t) if PLAIN.fullmatch(t.strip()) and np.isfinite(float(t)) else np.nan for t in texts]
    np.testing.assert_array_equal(tables.numbers(pa.array(texts, pa.string())), expected)
    alone = [tables.numbers(pa.array([text], pa.string()))[0] for text in texts]
    np.testing.assert_array_equal(alone, expected)


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("48,85", "decimal point"),
        (" -0,5", "decimal point"),
        ("48°51'", "decimal degrees"),
        ("48.85N", "decimal degrees"),
        ("W 2.35", "decimal degrees"),
        ("1,234,567", None),
        ("north", None),
        ("", None),
    ],
)
def test_advice_is_given_where_it_is_clear_what_was_meant(text, advice):
    assert (advice in tables.advice(text)) if advice else tables.advice(text) == ""


def by_photos(path: Path) -> None:
    options = photos.Options(kind="photos", table=path.name, path_column="id")
    list(photos.read(options, path.parent).items)


def by_streetview(path: Path) -> None:
    list(streetview.read(streetview.Options(kind="streetview", table=path.name), path.parent).items)


def by_places365(path: Path) -> None:
    (path.parent / "images").mkdir(exist_ok=True)
    options = places365.Options(kind="places365", metadata=path.name, images="images")
    list(places365.read(options, path.parent).items)


def by_osv5m(path: Path) -> None:
    (path.parent / "images/train").mkdir(parents=True, exist_ok=True)
    list(osv5m.read(osv5m.Options(kind="osv5m", metadata=path.name), path.parent).items)


def by_panoramas(path: Path) -> None:
    places.places(places.Panoramas(plan="panoramas"), path, 0)


def by_addresses(path: Path) -> None:
    (path.parent / "urls.csv").write_text("1,http://h/1\n")
    urls._copy_rows(path, path.parent / "copy.csv", path.parent / "urls.csv", np.array([0]))


DOORS: dict[str, tuple[tuple[str, ...], Callable[[Path], object]]] = {
    "ingest photos": (("id", "latitude", "longitude"), by_photos),
    "ingest streetview": (streetview.COLUMNS, by_streetview),
    "ingest places365": (places365.COLUMNS, by_places365),
    "ingest osv5m": (osv5m.COLUMNS, by_osv5m),
    "locate and cells": (("latitude", "longitude"), lambda path: points.read(path, "read")),
    "published cells": (s2.COLUMNS, s2.read_published),
    "panoramas": (("pano_id", "copyright"), by_panoramas),
    "fetch urls": (("IMG_ID", "caption"), by_addresses),
    "texts": (("id", "text"), lambda path: sentences.gathered(Texts(path=path, text="text", id="id"), path)),
}
SPOILT: dict[str, tuple[Callable[[str, str], bytes], str]] = {
    "semicolons": (lambda head, row: f"{head}\n{row}\n".replace(",", ";").encode(), "semicolons between the columns"),
    "comment": (lambda head, row: f"# mine\n{head}\n{row}\n".encode(), "row 2 looks like its header"),
    "utf-16": (lambda head, row: f"{head}\n{row}\n".encode("utf-16"), "its encoding is UTF-16"),
    "latin-1": (lambda head, row: f"{head},x\n{row},ü\n".encode("latin-1"), "row 2 is not UTF-8"),
    "twice": (lambda head, row: f"{head},{head.split(',')[1]}\n{row},1\n".encode(), "2 columns .*; expected one"),
    "more cells": (lambda head, row: f"{head}\n{row}\n\n{row},9,9\n".encode(), "row 4: .* cells; expected"),
    "fewer cells": (lambda head, row: f"{head}\n{row}\n\nx\n".encode(), "row 4: 1 cell; expected"),
    "too wide": (lambda head, row: f"{head}{',' * 6000}\n".encode(), "columns; at most 5,000 are read"),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("spoilt", SPOILT)
def test_every_door_says_the_same_of_a_spoilt_table(tmp_path, door, spoilt):
    columns, enter = DOORS[door]
    make, said = SPOILT[spoilt]
    (tmp_path / "t.csv").write_bytes(make(",".join(columns), ",".join("1" for _ in columns)))
    with pytest.raises(UserError, match=said) as caught:
        enter(tmp_path / "t.csv")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "t.csv") in str(caught.value)


@pytest.mark.parametrize("value", ["True", "4_8.85", "0x10", "48,85", "१", "1 2"])
def test_no_door_takes_for_degrees_what_another_refuses(tmp_path, value):
    table = f'id,latitude,longitude\n1,1,2\n\n2,"{value}",2\n'
    (tmp_path / "t.csv").write_text(table)
    with pytest.raises(UserError, match=f"column latitude, row 4: {value}; expected −90 … 90 degrees"):
        points.read(tmp_path / "t.csv", "read")
    options = photos.Options(kind="photos", table="t.csv", path_column="id")
    # what becomes of it depends on the photo, which is none here
    _, second = photos._rows(options, csv_chunks(tmp_path / "t.csv", ("id",)), [])
    assert f"t.csv row 4: latitude {value!r}" in second.photo.flaw[1]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"key": ["a"], "Text": ["b"], "TEXT": ["c"]}, "columns Text, TEXT; expected one text"),
        ({"text": ["a"], "id": ["b"]}, None),
        ({" Text ": ["a"], "id": ["b"]}, None),
    ],
)
def test_a_parquet_of_texts_has_the_same_judge(tmp_path, columns, said):
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    given = Texts(path=tmp_path / "t.parquet", text="text")
    if said:
        with pytest.raises(UserError, match=said):
            sentences.gathered(given, given.path)
    else:
        assert sentences.gathered(given, given.path)["text"].to_pylist() == ["a"]
