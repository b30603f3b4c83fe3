import zipfile
from datetime import datetime

import pytest
from made_layouts import layout, split
from made_photos import encoded, write

from geoloc_core.corpora.sources.osv5m import HEADER, Options, read
from geoloc_core.errors import UserError

OPTIONS = Options(kind="osv5m")


def table(*rows: dict[str, object]) -> bytes:
    lines = [",".join(str(row.get(name, "NaN" if name == "city" else "")) for name in HEADER) for row in rows]
    return "\n".join((",".join(HEADER), *lines, "")).encode()


def row(number: object, **values: object) -> dict[str, object]:
    known = {"id": number, "latitude": 48.5, "longitude": 2.5, "captured_at": 1403618400000, "country": "FR"}
    return known | {"creator_username": "ann", "creator_id": 17, "sequence": "s1"} | values


def test_zips_are_read_in_place(tmp_path):
    write(tmp_path, {"train.csv": table(row(1), row(2), row(3), row(1), row("")), "images/train/x.txt": b""})
    for number, names in (("00", ["00/1.jpg", "00/9.jpg"]), ("01", ["../../2.jpg"])):
        with zipfile.ZipFile(tmp_path / f"images/train/{number}.zip", "w") as file:
            for name in names:
                file.writestr(name, encoded(len(name) + int(name[-5])))
    before = sorted(tmp_path.rglob("*"))
    photos, refused = split(read(OPTIONS, tmp_path))
    assert sorted(tmp_path.rglob("*")) == before
    assert [photo.image_id for photo in photos] == ["1", "2"]
    assert [(item.image_id, item.reason.value) for item in refused] == [
        ("3", "missing"),
        ("1", "duplicate"),
        ("train.csv row 6", "bad_row"),
        ("00/9.jpg", "no_metadata"),
    ]
    first = photos[0]
    assert (first.author, first.group_id, first.licence) == ("ann", "17", "CC BY-SA 4.0")
    assert first.captured_at == datetime(2014, 6, 24, 14)
    assert (first.attributes["country"], first.attributes["city"]) == ("FR", None)


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ("1403618400000.0", datetime(2014, 6, 24, 14)),
        ("-1000", datetime(1969, 12, 31, 23, 59, 59)),
        ("2014-06-24 14:00:00 +02:00", datetime(2014, 6, 24, 14)),
        ("2014-06", datetime(2014, 6, 1)),
        ("", None),
        ("NaN", None),
    ],
)
def test_a_time_is_milliseconds_or_a_date(tmp_path, stated, expected):
    write(tmp_path, {"train.csv": table(row(1, captured_at=stated)), "images/train/1.jpg": b"x"})
    ((photo,), _) = split(read(OPTIONS, tmp_path))
    assert (photo.captured_at, photo.unusable) == (expected, {})


@pytest.mark.parametrize(
    "stated", ["24.06.2014", "9" * 20, "1_403_618_400_000", "１４０３６１８４０００００", "2014-06-31"]
)
def test_what_is_no_time_is_named_with_its_row(tmp_path, stated):
    write(tmp_path, {"train.csv": table(row(1, captured_at=stated)), "images/train/1.jpg": b"x"})
    ((photo,), _) = split(read(OPTIONS, tmp_path))
    assert photo.captured_at is None
    assert photo.unusable == {
        "captured_at": f"train.csv row 2: {stated!r}; expected milliseconds since 1970, or a date such as 2019-07-31"
    }


def test_of_two_files_with_one_name_the_first_is_taken(tmp_path):
    write(
        tmp_path, {"train.csv": table(row(1)), "images/train/a/1.jpg": encoded(1), "images/train/b/1.jpg": encoded(2)}
    )
    (photo,), (other,) = split(read(OPTIONS, tmp_path))
    assert (photo.path, other.image_id, other.reason.value) == ("a/1.jpg", "b/1.jpg", "no_metadata")


def test_a_second_member_of_one_name_is_refused(tmp_path):
    write(tmp_path, {"train.csv": table(row(1)), "images/train/x.txt": b""})
    for number in ("00", "01"):
        with zipfile.ZipFile(tmp_path / f"images/train/{number}.zip", "w") as file:
            file.writestr("00/1.jpg", encoded(int(number)))
    (photo,), (other,) = split(read(OPTIONS, tmp_path))
    assert photo.data == encoded(0)
    assert (other.image_id, other.reason.value) == ("01.zip/00/1.jpg", "no_metadata")


def test_unpacked_zips_are_the_same_corpus(tmp_path):
    module, options, made = layout(tmp_path / "zips", kind="osv5m")
    with zipfile.ZipFile(tmp_path / "zips/images/train/00.zip") as file:
        file.extractall(tmp_path / "files/images/train")
    write(tmp_path / "files", {"train.csv": (tmp_path / "zips/train.csv").read_bytes()})
    zipped, unpacked = (split(module.read(options, tmp_path / kind))[0] for kind in ("zips", "files"))
    assert zipped == unpacked
    assert len(zipped) == len(made)


@pytest.mark.slow
def test_a_limit_reads_no_further(tmp_path):
    """Rows beyond the limit are so wrong that reading them would fail."""
    rows = table(*(row(n) for n in range(20_000))) + b'"' + b"," * 99 + b"\n"
    write(tmp_path, {"train.csv": rows, **{f"images/train/00/{n}.jpg": encoded(n) for n in (1, 3, 4)}})
    options = OPTIONS.model_copy(update={"limit": 2})
    photos, refused = split(read(options, tmp_path))
    assert [photo.image_id for photo in photos] == ["1", "3"]
    assert [item.image_id for item in refused] == ["0", "2"]
    with pytest.raises(UserError, match="row 20002: a quote is opened"):
        list(read(OPTIONS, tmp_path).items)


def test_groups_are_creators_or_sequences(tmp_path):
    write(
        tmp_path, {"train.csv": table(row(1), row(2, creator_id="", creator_username="")), "images/train/1.jpg": b"x"}
    )
    write(tmp_path, {"images/train/2.jpg": b"y"})
    assert [p.group_id for p in split(read(OPTIONS, tmp_path))[0]] == ["17", "2"]
    by_ride = OPTIONS.model_copy(update={"group_by": "sequence"})
    assert [p.group_id for p in split(read(by_ride, tmp_path))[0]] == ["s1", "s1"]


@pytest.mark.parametrize("spoil", [lambda data: data[:50], lambda data: b"", lambda data: b"PK" + bytes(400)])
def test_a_broken_zip_is_named(tmp_path, spoil):
    layout(tmp_path, kind="osv5m")
    path = tmp_path / "images/train/00.zip"
    path.write_bytes(spoil(path.read_bytes()[:3000]))
    with pytest.raises(UserError, match=r"00\.zip: not a readable zip file"):
        list(read(OPTIONS, tmp_path).items)


def test_a_spoilt_member_is_refused_and_the_others_are_kept(tmp_path):
    _, _, made = layout(tmp_path, kind="osv5m")
    path = tmp_path / "images/train/00.zip"
    data = bytearray(path.read_bytes())
    at = data.find(made[0].jpeg) + 100
    data[at] ^= 0xFF
    path.write_bytes(data)
    photos, refused = split(read(OPTIONS, tmp_path))
    assert len(photos) == len(made) - 1
    assert [item.reason.value for item in refused] == ["unreadable"]


def test_a_table_without_a_column_is_named(tmp_path):
    write(tmp_path, {"train.csv": b"id,latitude\n1,2\n", "images/train/1.jpg": b""})
    with pytest.raises(UserError, match="no column longitude, thumb_original_url"):
        read(OPTIONS, tmp_path)
