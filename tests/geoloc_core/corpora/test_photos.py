import math
from datetime import datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_photos import REAL, dms, encoded, gps, located, needs_real, project, write
from PIL.TiffImagePlugin import IFDRational
from pydantic import ValidationError

from geoloc_core.corpora import exif
from geoloc_core.corpora.ingest import ingest
from geoloc_core.corpora.manifest import MANIFEST
from geoloc_core.corpora.photo import (
    MAX_TURN,
    Gps,
    Photo,
    Reason,
    Refusal,
    Said,
    direction,
    locate,
    moment,
    printable,
)
from geoloc_core.corpora.sources.photos import Options, group_of, read
from geoloc_core.corpora.tables import read_csv
from geoloc_core.errors import UserError
from geoloc_core.files import files_under, read_json
from geoloc_core.pictures import opened

FOLDER = Options(kind="photos")
TABLE = Options(kind="photos", table="t.csv", latitude_column="lat", longitude_column="lon")


def said_by(data: bytes, **rules) -> Said:
    with opened(data) as image:
        return exif.read(image, Gps(**rules))


def items(options, folder) -> dict[str, Photo | Refusal]:
    found = list(read(options, folder).items)
    return {item.image_id: item for item in found}


@given(st.floats(-90, 90), st.sampled_from(["NS", "EW"]), st.booleans())
def test_degrees_survive_the_way_through_minutes_and_seconds(value, signs, as_bytes):
    letter = signs[1] if value < 0 else signs[0]
    reference = letter.lower().encode() + b"\0" if as_bytes else letter
    assert exif.degrees(dms(value), reference, signs) == pytest.approx(value, abs=0.5e-3 / 3600 + 1e-12)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize(("latitude", "longitude"), [(48.8584, 2.2945), (-33.8568, 151.2153), (64.1, -21.9)])
def test_exif_is_read_from_every_format(kind, latitude, longitude):
    refs = ("S" if latitude < 0 else "N", "W" if longitude < 0 else "E")
    tags = gps(dms(latitude), dms(longitude), refs)
    (found,) = said_by(encoded(kind=kind, exif=tags)).places
    assert (found.latitude, found.longitude) == pytest.approx((latitude, longitude), abs=1e-6)
    assert found.flaw is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((12.5,), 12.5),
        (12.5, 12.5),
        ((12, 30.6), 12.51),
        ((12, 59, 60.0), 13.0),
        ([IFDRational(12), IFDRational(30), IFDRational(0)], 12.5),
    ],
)
def test_degrees_come_in_one_to_three_parts(value, expected):
    assert exif.degrees(value, "N", "NS") == pytest.approx(expected)
    assert exif.degrees(value, "S", "NS") == pytest.approx(-expected)


@pytest.mark.parametrize(
    ("value", "reference", "said"),
    [
        ((IFDRational(0, 0),) * 3, "N", "nan"),
        ((IFDRational(12), IFDRational(5, 0), IFDRational(0)), "N", "nan"),
        ((12, 61, 0), "N", "60 minutes"),
        ((-12, 0, 0), "N", "none negative"),
        ((math.nan, 0, 0), "N", "nan"),
        ((math.inf, 0, 0), "N", "inf"),
        ((1, 2, 3, 4), "N", "1 2 3 4"),
        ((), "N", "expected degrees"),
        ("12,5", "N", "12,5"),
        ((None, 1, 2), "N", "None"),
        ((12, 0, 0), None, "hemisphere None"),
        ((12, 0, 0), "", "hemisphere"),
        ((12, 0, 0), "E", "expected N or S"),
    ],
)
def test_what_is_no_position_is_said(value, reference, said):
    with pytest.raises(ValueError, match=said):
        exif.degrees(value, reference, "NS")


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        (None, Reason.NO_COORDINATES),
        (gps((IFDRational(0, 0),) * 3, dms(2)), Reason.BAD_COORDINATES),
        (gps(dms(0), dms(0)), Reason.BAD_COORDINATES),
        (gps(dms(90.5), dms(2)), Reason.BAD_COORDINATES),
        (gps(dms(48), dms(180.5)), Reason.BAD_COORDINATES),
    ],
)
def test_a_photo_without_a_usable_position_has_a_flaw(tags, reason):
    (found,) = said_by(encoded(exif=tags)).places
    assert found.flaw is not None
    assert found.flaw[0] is reason
    assert found.latitude is None


def test_time_heading_and_author_are_read():
    tags = gps(
        dms(1),
        dms(2),
        gps_16="T",
        gps_17=IFDRational(2705, 10),
        ifd_36867="2008:10:22 16:28:39",
        tag_315="Ada ",
        tag_33432="CC BY",
    )
    found = said_by(encoded(exif=tags))
    assert found.heading == 270.5
    assert found.captured_at == datetime(2008, 10, 22, 16, 28, 39)
    assert (found.author, found.licence) == ("Ada", "CC BY")


@pytest.mark.parametrize(
    ("block", "unusable"),
    [
        ({16: "M", 17: 90.0}, False),
        ({17: IFDRational(0, 0)}, False),
        ({}, False),
        ({17: 400.0}, True),
        ({17: -1.0}, True),
        ({17: "x"}, True),
    ],
)
def test_a_heading_is_true_north_or_nothing(block, unusable):
    doubts: dict[str, str] = {}
    assert exif.heading(block, doubts) is None
    assert ("heading" in doubts) == unusable
    assert exif.heading({17: 360.0}, {}) == 0


@pytest.mark.parametrize("value", ["0000:00:00 00:00:00", "    :  :     :  :  ", "", b"\0" * 19, None])
def test_a_camera_without_a_clock_has_no_time(value):
    assert exif.moment(value) is None


@pytest.mark.parametrize(
    "value",
    [
        "yesterday",
        b"\xff",
        5,
        "2019:13:01 00:00:00",
        "2019:02:30",
        "31.07.2019",
        "2019:07:31 24:15:00",
        "9999:12:31 24:00:00",
    ],
)
def test_what_is_no_time_is_said(value):
    with pytest.raises(ValueError, match="expected a date such as 2019:07:31"):
        exif.moment(value)


@pytest.mark.parametrize(
    "value",
    [
        "2019:07:31 12:00:05",
        "2019-07-31 12:00:05",
        "2019/07/31 12:00:05",
        "2019-07-31T12:00:05.250+02:00",
        b"2019:07:31 12:00:05\0",
        "2019:07:31 12:00:05Z",
        "2019:07:31 12:00:05 +02:00",
        "20190731T120005",
    ],
)
def test_a_time_is_read_whatever_stands_between_its_numbers(value):
    assert exif.moment(value) == datetime(2019, 7, 31, 12, 0, 5)


@given(st.datetimes(datetime(1, 1, 1), datetime(9998, 12, 31)), st.sampled_from(":-/."))
def test_every_time_survives(time, between):
    said = f"{time.year:04}{between}{time.month:02}{between}{time.day:02} {time:%H:%M:%S}"
    assert moment(f"{said}.{time.microsecond:06} +0200") == time
    assert exif.moment(said) == time.replace(microsecond=0)


def test_midnight_may_end_a_day_and_a_day_may_have_no_time():
    assert exif.moment("2019:12:31 24:00:00") == datetime(2020, 1, 1)
    assert exif.moment("2019:12:31") == datetime(2019, 12, 31)


def test_damaged_exif_is_a_flaw_not_an_error():
    data = bytearray(located(1))
    start = data.index(b"Exif\0\0")
    data[start + 6 : start + 30] = b"\xff" * 24
    (found,) = said_by(bytes(data)).places
    assert found.flaw is not None
    assert found.flaw[0] is Reason.NO_COORDINATES


def test_every_file_is_a_photo_or_refused(tmp_path):
    write(tmp_path, {"a/x.jpg": located(1), "b/y.JPG": located(2), "n.txt": b"hi", ".DS_Store": b"x"})
    write(tmp_path, {".hidden/z.jpg": located(3), "noend": b"z"})
    (tmp_path / "dead.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "folder.jpg").symlink_to(tmp_path / "a")
    found = items(FOLDER, tmp_path)
    assert sorted(found) == sorted(printable(path) for path in files_under(tmp_path))
    assert {name for name, item in found.items() if isinstance(item, Photo)} == {"a/x.jpg", "b/y.JPG"}
    reasons = {name: item.reason for name, item in found.items() if isinstance(item, Refusal)}
    assert reasons.pop("dead.jpg") is Reason.MISSING
    assert set(reasons.values()) == {Reason.NOT_A_PHOTO}


@pytest.mark.parametrize("options", [FOLDER, TABLE])
def test_a_link_is_followed_within_the_corpus_alone(tmp_path, options):
    write(tmp_path / "real", {"a/x.jpg": located(1)})
    write(tmp_path, {"secret.jpg": located(2), "real-too/x.jpg": located(3)})
    links = {
        "inside.jpg": "a/x.jpg",
        "out.jpg": tmp_path / "secret.jpg",
        "up.jpg": "../real-too/x.jpg",
        "two.jpg": "out.jpg",
    }
    for name, target in links.items():
        (tmp_path / "real" / name).symlink_to(target)
    (tmp_path / "real/t.csv").write_text("path,lat,lon\n" + "".join(f"{name},1,2\n" for name in links))
    (tmp_path / "raw").symlink_to("real")  # the corpus itself may be a link
    found = items(options, tmp_path / "raw")
    assert isinstance(found["inside.jpg"], Photo)
    for name in ("out.jpg", "up.jpg", "two.jpg"):
        assert (found[name].reason, found[name].detail) == (
            Reason.NOT_A_PHOTO,
            "a link that leads out of the folder, which is not followed",
        )


def test_names_that_are_no_unicode_can_be_written_down():
    assert printable(b"caf\xe9.jpg".decode("utf-8", "surrogateescape")) == "caf\\xe9.jpg"
    assert printable("日本.jpg") == "日本.jpg"


@pytest.mark.parametrize(
    ("path", "by", "group"),
    [
        ("s/1/a.jpg", "folder", "s/1"),
        ("a.jpg", "folder", "."),
        ("s/a.jpg", "file", "s/a.jpg"),
        ("s/p_n_0.png", "prefix", "s/p_n"),
        ("s_1/a.png", "prefix", "s_1/a.png"),
    ],
)
def test_groups(path, by, group):
    assert group_of(path, by) == group


def test_a_table_says_where(tmp_path):
    rows = ["path,lat,lon,who,note", "a.jpg,10.5,-20.25,Ada,x", "b.jpg,abc,3,Bo,y", "c.jpg,,,Cy,z"]
    rows += ["d.jpg,1,2,Di,", "a.jpg,5,5,Ada,", "e.jpg,91,0,Ed,", "../secret.jpg,1,1,Eve,"]
    write(tmp_path / "raw", {f"{name}.jpg": encoded(ord(name)) for name in "abcex"})
    write(tmp_path, {"secret.jpg": encoded(9), "raw/t.csv": "\n".join(rows).encode("utf-8-sig")})
    options = TABLE.model_copy(update={"author_column": "who", "group_column": "who", "licence": "CC0"})
    source = read(options, tmp_path / "raw")
    found = list(source.items)
    a, b, c = found[:3]
    assert isinstance(a, Photo)
    assert (a.latitude, a.longitude, a.author, a.group_id, a.licence) == (10.5, -20.25, "Ada", "Ada", "CC0")
    assert a.attributes == {"note": "x"}
    assert source.attributes.names == ["note", "place_from"]
    assert b.flaw[0] is Reason.BAD_COORDINATES
    assert "t.csv row 3: lat 'abc', lon '3'" in b.flaw[1]
    assert c.flaw[0] is Reason.NO_COORDINATES
    assert found[5].flaw[0] is Reason.BAD_COORDINATES
    refused = [(item.image_id, item.reason) for item in found if isinstance(item, Refusal)]
    assert refused == [
        ("d.jpg", Reason.MISSING),
        ("a.jpg", Reason.DUPLICATE),
        ("../secret.jpg", Reason.MISSING),
        ("x.jpg", Reason.NO_METADATA),
    ]


@pytest.mark.parametrize(
    ("text", "degrees"),
    [("0", 0), ("90.5", 90.5), ("+450", 90), ("-90", 270), ("360", 0), ("359.999999999", 0), ("-1e-20", 0)],
)
def test_a_heading_is_brought_within_one_turn(text, degrees):
    assert direction(text) == degrees


@given(st.floats(-MAX_TURN, MAX_TURN))
def test_a_heading_stays_below_a_whole_turn_in_the_manifest(value):
    assert 0 <= np.float32(direction(repr(value))) < 360


@pytest.mark.parametrize("text", ["north", "nan", "inf", "1e9", "0x10", "90°", "१", "1 2"])
def test_what_is_no_heading_is_none(text):
    with pytest.raises(ValueError, match="degrees clockwise from north"):
        direction(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2019-07", datetime(2019, 7, 1)),
        ("2019-07-31", datetime(2019, 7, 31)),
        ("2019-07-31 12:30:05", datetime(2019, 7, 31, 12, 30, 5)),
        ("2019-07-31T12:30:05+02:00", datetime(2019, 7, 31, 12, 30, 5)),
        ("2019/07", datetime(2019, 7, 1)),
        ("2019/07/31", datetime(2019, 7, 31)),
        ("2019.07.31", datetime(2019, 7, 31)),
        ("2019:07:31 12:30:05", datetime(2019, 7, 31, 12, 30, 5)),
        ("2019/07/31T12:30:05Z", datetime(2019, 7, 31, 12, 30, 5)),
        ("2019-07-31 24:00:00", datetime(2019, 8, 1)),
        ("2019:12:31 24:00:00", datetime(2020, 1, 1)),
        ("2019-07-31T24:00:00.000+02:00", datetime(2019, 8, 1)),
        ("2019-07-31 24:00", datetime(2019, 8, 1)),
        ("2019-07-31 00:24:00", datetime(2019, 7, 31, 0, 24)),
        ("2019-07-31 24:00:00 +02:00", datetime(2019, 8, 1)),
        ("2019-07-31 2:05", datetime(2019, 7, 31, 2, 5)),
        ("2019:07:31 2:05:06.75 Z", datetime(2019, 7, 31, 2, 5, 6, 750_000)),
        ("2019-07-31T12:30:05,1234567+0200", datetime(2019, 7, 31, 12, 30, 5, 123_456)),
        ("2019.07.31  12", datetime(2019, 7, 31, 12)),
        ("20190731", datetime(2019, 7, 31)),
    ],
)
def test_a_date_is_a_month_a_day_or_a_time(text, expected):
    assert moment(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("2019", "2019-13", "2019-00", "2019-02-30", "July 2019", "0000-00", "07/2019", "31/07/2019", "31-07-2019"),
        *("07/31/2019", "2019-07/31", "2019:02:30 12:00:00", "2019-07-31 24:00:01", "2019-07-31 24:30:00"),
        *("2019-07-31 25:00:00", "9999-12-31 24:00:00", "0000:00:00 00:00:00", "2019-07-31 "),
        *("2019-07-31 24:00:00.5", "2019.07", "2019:07", "2019-07-31 1", "２019-07-31", "2019-07-31 12:30:05 Berlin"),
    ],
)
def test_what_is_no_date_is_none(text):
    with pytest.raises(ValueError, match="2019-07"):
        moment(text)


def test_a_row_without_a_path_is_named(tmp_path):
    table = b"path,lat,lon\na.jpg,1,2\n,3,4\n\n ,5,6\n"
    write(tmp_path, {"t.csv": table, "a.jpg": encoded(1)})
    found = items(TABLE, tmp_path)
    assert isinstance(found.pop("a.jpg"), Photo)
    assert found == {
        where: Refusal(where, Reason.BAD_ROW, f"{where}: no path") for where in ("t.csv row 3", "t.csv row 5")
    }


def test_a_crawl_says_when_and_which_way(tmp_path, capfd):
    rows = ["path,latitude,longitude,pano_id,heading,date,copyright", "a/0.jpg,1,2,a,0,2019-07,© G"]
    rows += ["a/90.jpg,1,2,a,east,2019-07,© G", "b/0.jpg,3,4,b,,,© G", "b/9.jpg,3,4,b,south,2019-7-1,© G"]
    rows += ["c/0.jpg,,,c,west,2019,© G"]
    taken = {f"{name}.jpg": encoded(number) for number, name in enumerate(["a/0", "a/90", "b/0", "b/9", "c/0"])}
    made = project(
        tmp_path,
        Options(kind="photos", table="t.csv", group_column="pano_id", heading_column="heading", date_column="date"),
    )
    write(made.raw("c"), {"t.csv": "\n".join(rows).encode(), **taken})
    ingest(made, "c")
    kept = pd.read_parquet(made.corpus("c") / "manifest.parquet").set_index("image_id")
    july = pd.Timestamp(2019, 7, 1)
    assert kept["heading"].replace(math.nan, None).to_dict() == {"a/0.jpg": 0, **dict.fromkeys(kept.index[1:])}
    assert kept["captured_at"].tolist()[:2] == [july, july]
    assert kept["captured_at"].isna().tolist() == [False, False, True, True]
    assert pd.read_parquet(made.corpus("c") / "attributes.parquet").columns.tolist() == [
        "image_id",
        "copyright",
        "place_from",
    ]
    # what is said of a refused photo is not counted
    assert read_json(made.summary("ingest", "c"))["unusable"] == {"captured_at": 1, "heading": 2}
    told = " ".join(capfd.readouterr().err.split())
    assert (
        "c: heading is unusable in 2 photos and was left empty, for example t.csv row 3: 'east'; expected degrees"
        in told
    )
    assert "c: captured_at is unusable in 1 photos and was left empty, for example t.csv row 5: '2019-7-1'" in told


def test_what_the_table_says_of_time_and_heading_counts_before_exif(tmp_path):
    tags = {"gps_16": "T", "gps_17": IFDRational(45), "ifd_36867": "2008:10:22 16:28:39"}
    data = [encoded(number, exif=gps(dms(1), dms(2), **tags)) for number in range(3)]
    rows = "path,latitude,longitude,h,d\na.jpg,1,2,90,2019-07\nb.jpg,1,2,,\nc.jpg,1,2,x,x"
    made = project(tmp_path, Options(kind="photos", table="t.csv", heading_column="h", date_column="d"))
    write(made.raw("c"), {"t.csv": rows.encode(), **{f"{name}.jpg": d for name, d in zip("abc", data, strict=True)}})
    ingest(made, "c")
    kept = pd.read_parquet(made.corpus("c") / "manifest.parquet")
    assert kept["heading"].tolist() == [90, 45, 45]
    assert kept["captured_at"].dt.year.tolist() == [2019, 2008, 2008]


@pytest.mark.parametrize(
    ("table", "kept"),
    [
        (
            "path, latitude, longitude\na.jpg, 48.85, 2.35\nsub/b.jpg, 1, 2\n",
            {"a.jpg": (48.85, 2.35), "sub/b.jpg": (1, 2)},
        ),
        ("Path,Latitude,LONGITUDE\na.jpg,1,2\n\nsub/b.jpg,3,4\n", {"a.jpg": (1, 2), "sub/b.jpg": (3, 4)}),
        ('note,path,latitude,longitude\n"x\ny",a.jpg,1,2\nz,sub/b.jpg,3,4\n', {"a.jpg": (1, 2), "sub/b.jpg": (3, 4)}),
    ],
)
def test_tables_as_people_save_them_are_read(tmp_path, table, kept):
    made = project(tmp_path, Options(kind="photos", table="t.csv"))
    write(made.raw("c"), {"t.csv": table.encode(), "a.jpg": encoded(1), "sub/b.jpg": encoded(2)})
    ingest(made, "c")
    found = pd.read_parquet(made.corpus("c") / "manifest.parquet")
    places = zip(found["latitude"], found["longitude"], strict=True)
    assert dict(zip(found["image_id"], places, strict=True)) == kept


def test_a_refused_row_has_the_number_that_a_spreadsheet_shows_and_advice(tmp_path):
    made = project(tmp_path, Options(kind="photos", table="t.csv"))
    rows = 'path,latitude,longitude\na.jpg,1,2\n\n\nb.jpg,200,2\nc.jpg,"48,85","2,35"\n'
    write(made.raw("c"), {"t.csv": rows.encode(), **{f"{name}.jpg": encoded(n) for n, name in enumerate("abc")}})
    ingest(made, "c")
    refused = pd.read_parquet(made.corpus("c") / "rejects.parquet").set_index("image_id")["detail"]
    assert refused["b.jpg"].startswith("t.csv row 5: latitude '200'")
    assert refused["c.jpg"].startswith("t.csv row 6: latitude '48,85'")
    assert refused["c.jpg"].endswith("; use a decimal point instead of a comma")


@pytest.mark.parametrize("name", [*MANIFEST.names, "reason", "detail", "image", "split", "gid_0", "_flaw", "month"])
def test_a_further_column_may_have_any_name(tmp_path, name):
    """What the project calls its own columns is no matter to a user's table."""
    options = Options(kind="photos", table="t.csv", latitude_column="y", longitude_column="x")
    made = project(tmp_path, options)
    write(made.raw("c"), {"t.csv": f"path,y,x,{name}\na.jpg,1,2,mine\n".encode(), "a.jpg": encoded(1)})
    ingest(made, "c")
    found = pd.read_parquet(made.corpus("c") / "attributes.parquet").to_dict("records")
    kept = "table_image_id" if name == "image_id" else name
    assert found == [{"image_id": "a.jpg", kept: "mine", "place_from": "table"}]


def test_mistakes_are_named(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        read(FOLDER, tmp_path / "none")
    write(tmp_path, {"t.csv": b"path,lat\na.jpg,1\n"})
    with pytest.raises(UserError, match=r"t\.csv: no column lon; expected path, lat, lon"):
        read(TABLE, tmp_path)
    with pytest.raises(ValidationError, match="heading_column` without `table`"):
        Options(kind="photos", heading_column="heading")
    with pytest.raises(ValidationError, match="author_column` without `table`"):
        Options(kind="photos", author_column="who")


def test_a_takedown_is_honoured(tmp_path):
    write(tmp_path, {"a.jpg": located(1), "b.jpg": located(2)})
    options = FOLDER.model_copy(update={"takedown": ("a.jpg",)})
    found = items(options, tmp_path)
    assert found["a.jpg"].reason is Reason.TAKEDOWN
    assert isinstance(found["b.jpg"], Photo)


@needs_real
@pytest.mark.slow
def test_real_photos_agree_with_what_is_known_of_them(tmp_path):
    made = project(tmp_path)
    (tmp_path / "data/raw").mkdir(parents=True)
    made.raw("c").symlink_to(REAL / "images")
    ingest(made, "c")
    kept = pd.read_parquet(made.corpus("c") / "manifest.parquet").set_index("image_id")
    refused = pd.read_parquet(made.corpus("c") / "rejects.parquet").set_index("image_id")
    assert len(kept) + len(refused) == len(files_under(REAL / "images")) == 126
    known = pd.read_csv(REAL / "images/manifest.csv").set_index("path")
    assert set(kept.index) | set(refused.index) == {*known.index, "manifest.csv"}
    # The other sets were published without EXIF.
    assert set(known.index[known["set"].eq("exif_gps")]) == set(kept.index)
    known = known.loc[kept.index]
    assert (kept["latitude"] - known["lat"]).abs().max() < 1e-4
    assert (kept["longitude"] - known["lon"]).abs().max() < 1e-4
    assert (kept[["width", "height"]].to_numpy() == known[["width", "height"]].to_numpy()).all()


@needs_real
@pytest.mark.slow
def test_real_photos_with_their_table(tmp_path):
    made = project(tmp_path, TABLE.model_copy(update={"table": "manifest.csv", "licence_column": "licence"}))
    (tmp_path / "data/raw").mkdir(parents=True)
    made.raw("c").symlink_to(REAL / "images")
    ingest(made, "c")
    known = pd.read_csv(REAL / "images/manifest.csv")
    kept = pd.read_parquet(made.corpus("c") / "manifest.parquet")
    refused = pd.read_parquet(made.corpus("c") / "rejects.parquet")
    assert kept["image_id"].tolist() == known.loc[known["lat"].notna(), "path"].tolist()
    assert refused["image_id"].tolist() == known.loc[known["lat"].isna(), "path"].tolist()
    assert set(refused["reason"]) == {"no_coordinates"}
    assert kept["licence"].notna().all()


def test_geoclips_gallery_is_sound(shared):
    """100,000 real coordinates: metadata alone, as there are no photos to go with them."""
    table = read_csv(shared / "benchmarks/geoclip_gallery_100k.csv", ("LAT", "LON"))
    places = locate(table, "LAT", "LON", "gallery")
    assert len(places) == 100_000
    assert not places["flaw"].notna().any()
    assert places.duplicated(["latitude", "longitude"]).sum() == 5877
