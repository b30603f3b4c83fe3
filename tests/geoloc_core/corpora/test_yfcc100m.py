import csv
from datetime import datetime

import pytest
from made_layouts import layout, split
from made_photos import encoded, write

from geoloc_core.corpora.photo import Reason
from geoloc_core.corpora.sources.yfcc100m import FIELDS, HEADER, Options, by_hash, read
from geoloc_core.errors import UserError

CUT = Options(kind="yfcc100m", metadata="info.txt")
DUMP = Options(kind="yfcc100m", metadata="dump", hashes="hash", named_by="hash", images="photos", min_accuracy=12)


def fields(photo_id: int, **values: object) -> list[str]:
    known = {
        "photo_id": photo_id, "user_nsid": "7@N00", "date_taken": "2012-05-28 00:23:30.0", "title": "a+b%2C+c",
        "longitude": -73.98, "latitude": 40.74, "accuracy": 15, "page_url": "p", "license_name": "BY",
        "extension": "jpg", "media_type": 0,
    }  # fmt: skip
    return [str((known | values).get(name, "")) for name in FIELDS]


def lines(*rows: list[str]) -> bytes:
    return "".join("\t".join(row) + "\n" for row in rows).encode()


def numbered(row: list[str]) -> list[str]:
    return ["1", row[0], "beef", *row[1:]]


def reasons(source) -> dict[str, str]:
    return {item.image_id: item.reason.value for item in split(source)[1]}


def test_a_line_says_who_when_where_and_under_which_licence(tmp_path):
    write(tmp_path, {"info.txt": lines(numbered(fields(5))), "images/5.jpg": encoded(1)})
    (photo,) = split(read(CUT, tmp_path))[0]
    assert (photo.image_id, photo.latitude, photo.longitude) == ("5", 40.74, -73.98)
    assert (photo.author, photo.group_id, photo.licence, photo.source_url) == ("7@N00", "7@N00", "BY", "p")
    assert photo.captured_at == datetime(2012, 5, 28, 0, 23, 30)
    assert (photo.attributes["caption"], photo.attributes["accuracy"]) == ("a b, c", 15)


def test_what_is_no_date_and_no_accuracy_is_named_with_its_row(tmp_path):
    rows = [fields(1, date_taken="28.05.2012", accuracy="street"), fields(2, date_taken="", accuracy=" ")]
    write(tmp_path, {"info.txt": lines(*map(numbered, rows)), "images/1.jpg": encoded(1), "images/2.jpg": encoded(2)})
    (wrong, unknown), _ = split(read(CUT, tmp_path))
    assert (wrong.captured_at, wrong.attributes["accuracy"]) == (None, None)
    assert wrong.unusable["captured_at"].startswith("info.txt row 1: '28.05.2012'; expected a date")
    assert wrong.unusable["accuracy"] == "info.txt row 1: 'street'; expected a number from 1 to 16"
    assert (unknown.captured_at, unknown.attributes["accuracy"], unknown.unusable) == (None, None, {})


def test_a_line_without_an_id_is_named(tmp_path):
    write(tmp_path, {"info.txt": lines(numbered(fields("")), numbered(fields(2))), "images/2.jpg": encoded(2)})
    photos, (refused,) = split(read(CUT, tmp_path))
    assert [photo.image_id for photo in photos] == ["2"]
    assert (refused.image_id, refused.reason.value) == ("info.txt row 1", "bad_row")
    assert refused.detail == "info.txt row 1: no photo_id"


def test_no_line_and_no_file_is_lost(tmp_path):
    rows = [fields(1), fields(2), fields(1), fields(3, latitude=""), fields(4, latitude=91), fields(6, date_taken="?")]
    table = lines(*map(numbered, rows)) + b"short\tline\n"
    images = {f"images/{n}.jpg": encoded(n) for n in (1, 3, 4, 6, 9)}
    write(tmp_path, {"info.txt": table, **images, "images/note.txt": b""})
    photos, refused = split(read(CUT, tmp_path))
    assert len(photos) + len(refused) == 9
    assert {p.image_id: p.flaw and p.flaw[0] for p in photos} == {
        "1": None,
        "3": Reason.BAD_COORDINATES,
        "4": Reason.BAD_COORDINATES,
        "6": None,
    }
    assert {r.image_id: r.reason.value for r in refused} == {
        "2": "missing",
        "1": "duplicate",
        "info.txt row 7": "bad_row",
        "9.jpg": "no_metadata",
        "note.txt": "not_a_photo",
    }


def test_a_dump_is_joined_with_its_hashes_and_filtered(tmp_path):
    rows = [fields(n) for n in (1, 2, 3)] + [fields(4, accuracy=11), fields(5, media_type=1), fields(6, accuracy="")]
    digests = {n: f"{n:032x}" for n in range(1, 7)}
    table = "".join(f"{n}\t{digests[n]}\n" for n in (6, 5, 4, 2, 1)).encode()
    write(tmp_path, {"dump": lines(*rows), "hash": table, "ids.txt": b"2\n"})
    write(tmp_path / "photos", {by_hash(digests[n]): encoded(n) for n in digests})
    found = read(DUMP.model_copy(update={"leave_out": "ids.txt"}), tmp_path)
    assert [photo.image_id for photo in split(found)[0]] == ["1"]
    said = reasons(read(DUMP.model_copy(update={"leave_out": "ids.txt"}), tmp_path))
    assert {key: said[key] for key in "23456"} == {
        "2": "excluded",
        "3": "bad_row",
        "4": "excluded",
        "5": "not_a_photo",
        "6": "excluded",
    }
    photos, refused = split(read(DUMP.model_copy(update={"only": "ids.txt"}), tmp_path))
    assert [photo.image_id for photo in photos] == ["2"]
    assert len(refused) == 5 + 1, "each row once, and the file of the one that has no hash"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"info.txt": b"a\tb\n", "images/x": b""}, "row 1 has 2 fields between tabs; expected 23 or 25"),
        ({"info.txt": lines(numbered(fields(1)))}, "images: no such folder"),
        ({"images/x": b""}, "info.txt: no such file"),
    ],
)
def test_a_wrong_folder_is_named(tmp_path, files, said):
    with pytest.raises(UserError, match=said):
        read(CUT, write(tmp_path, files))


def test_a_wrong_list_of_hashes_is_named(tmp_path):
    write(tmp_path, {"dump": lines(fields(1)), "hash": b"x\ty\n", "photos/a.jpg": b""})
    with pytest.raises(UserError, match="expected photo_id and hash"):
        list(read(DUMP, tmp_path).items)


def test_yfcc4k_is_read_whole(shared, tmp_path):
    """4,536 rows of the real table; the photos themselves are not here but one."""
    table = (shared / "benchmarks/yfcc4k.csv").read_bytes()
    write(tmp_path, {"yfcc4k.csv": table, "images/10201275523.jpg": encoded(1)})
    (photo,), refused = split(read(CUT.model_copy(update={"metadata": "yfcc4k.csv"}), tmp_path))
    assert (photo.latitude, photo.longitude, photo.author) == (43.649708, -79.365637, "55289779@N00")
    assert photo.attributes["caption"].startswith("Images from the intersection of Parliament and Queen, 2013")
    assert {item.reason for item in refused} == {Reason.MISSING}
    assert len(refused) == 4535


def test_the_written_header_is_the_real_one(shared, tmp_path):
    layout(tmp_path, kind="yfcc100m", metadata="yfcc4k.csv")
    with (shared / "benchmarks/yfcc4k.csv").open(encoding="utf-8", newline="") as real:
        assert tuple(next(csv.reader(real))) == HEADER
    with (tmp_path / "yfcc4k.csv").open(encoding="utf-8", newline="") as mine:
        assert tuple(next(csv.reader(mine))) == HEADER
