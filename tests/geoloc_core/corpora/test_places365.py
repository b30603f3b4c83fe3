import msgpack
import pandas as pd
import pytest
from made_photos import REAL, encoded, needs_real, write
from pydantic import ValidationError

from geoloc_core.corpora.photo import Photo, Reason, Refusal, numbers
from geoloc_core.corpora.sources.places365 import COLUMNS, Options, read, read_metadata
from geoloc_core.errors import UserError

HEADER = ",".join(COLUMNS)
SHARDS = Options(kind="places365", metadata="m.csv", shards="shard_*.msg", urls="u.csv")
IMAGES = Options(kind="places365", metadata="m.csv", images="images")


def row(name: str, latitude: object = 1.5, longitude: object = -2.25, author: str = "7@N00", s365: object = 42):
    return f"{name},{author},{latitude},{longitude},2,11,{s365},0.25,0.125,0.625"


def table(*rows: str) -> bytes:
    return "\n".join((HEADER, *rows)).encode()


def shard(*names: str, text: bool = True) -> bytes:
    packed = [{"image": encoded(hash(name) % 1000), "id": name if text else name.encode()} for name in names]
    return b"".join(msgpack.packb(record, use_bin_type=text) for record in packed)


def summary(source) -> list[tuple[str, str]]:
    return [(item.image_id, item.reason.value if isinstance(item, Refusal) else "photo") for item in source.items]


@pytest.mark.parametrize(("text", "ninth"), [(True, "9"), (False, "9"), (True, "9²")])
def test_shards_are_read_in_the_order_of_their_numbers(tmp_path, text, ninth):
    names = ["aa/01/5.jpg", "aa/02/6.jpg", "aa/03/7.jpg"]
    write(tmp_path, {"m.csv": table(*map(row, names)), "u.csv": b"aa/02/6.jpg,http://x/6.jpg\n"})
    write(tmp_path, {"shard_10.msg": shard(names[0], text=text), f"shard_{ninth}.msg": shard(*names[1:], text=text)})
    source = read(SHARDS, tmp_path)
    photos = list(source.items)
    assert [photo.image_id for photo in photos] == [names[1], names[2], names[0]]
    assert source.total == 3
    first = photos[0]
    assert isinstance(first, Photo)
    assert (first.latitude, first.longitude, first.author, first.group_id) == (1.5, -2.25, "7@N00", "7@N00")
    assert first.source_url == "http://x/6.jpg"
    assert photos[1].source_url is None
    assert first.attributes["S365_Label"] == 42
    assert first.attributes["Prob_urban"] == 0.625
    assert source.attributes.names == [*COLUMNS[4:]]


def test_nothing_is_lost_between_table_and_shards(tmp_path):
    write(tmp_path, {"m.csv": table(row("a.jpg"), row("b.jpg"), row("c.jpg"), row("a.jpg", 3)), "u.csv": b"a,u\n"})
    write(tmp_path, {"shard_0.msg": shard("a.jpg", "x.jpg"), "shard_1.msg": shard("a.jpg", "b.jpg")})
    assert summary(read(SHARDS, tmp_path)) == [
        ("a.jpg", "duplicate"),
        ("a.jpg", "photo"),
        ("x.jpg", "no_metadata"),
        ("a.jpg", "duplicate"),
        ("b.jpg", "photo"),
        ("c.jpg", "missing"),
    ]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda data: data[: len(data) - 40], "ends within a record"),
        (lambda data: data[: len(data) // 2 + 1] + b"\xc1" * 50, ""),
        (lambda data: b"", "no records"),
        (lambda data: b"\x07\x07", "not a record"),
        (lambda data: msgpack.packb({"id": "a.jpg", "image": "text"}, use_bin_type=False) + data[:9], ""),
        (lambda data: msgpack.packb({"id": 5, "image": b"x"}) + data, "id and image"),
    ],
)
def test_a_broken_shard_is_told_and_loses_only_its_end(tmp_path, capsys, spoil, said):
    names = [f"{number}.jpg" for number in range(4)]
    write(tmp_path, {"m.csv": table(*map(row, names)), "u.csv": b"a,u\n"})
    write(tmp_path, {"shard_0.msg": spoil(shard(*names[:3])), "shard_1.msg": shard(names[3])})
    found = [item for item in summary(read(SHARDS, tmp_path)) if item[0] != "a.jpg"]
    told = " ".join(capsys.readouterr().err.split())
    assert "shard_0.msg: broken after" in told
    assert said in told
    assert sorted(name for name, _ in found) == names
    assert ("3.jpg", "photo") in found
    assert ("2.jpg", "missing") in found


def test_an_images_folder_flat_hashed_or_underscored(tmp_path):
    names = ["aa/bb/1.jpg", "aa/bb/2.jpg", "aa/bb/3.jpg", "aa/bb/4.jpg"]
    write(tmp_path, {"m.csv": table(*map(row, names)), "images/aa/bb/1.jpg": encoded(1)})
    write(tmp_path / "images", {"2.jpg": encoded(2), "aa_bb_3.jpg": encoded(3), "9.jpg": b"", "t.txt": b""})
    assert summary(read(IMAGES, tmp_path)) == [
        *((name, "photo") for name in names[:3]),
        (names[3], "missing"),
        ("9.jpg", "no_metadata"),
        ("t.txt", "not_a_photo"),
    ]


def test_a_name_never_leads_out_of_the_folder(tmp_path):
    write(tmp_path, {"m.csv": table(row("../secret.jpg")), "secret.jpg": encoded(1), "images/a.jpg": encoded(2)})
    assert ("../secret.jpg", "missing") in summary(read(IMAGES, tmp_path))


def test_bad_coordinates_are_named_with_their_row(tmp_path):
    rows = [row("a.jpg"), row("b.jpg", "abc"), row("c.jpg", 95), row("d.jpg", 0, 0), row("e.jpg", "", "")]
    rows += [row("f.jpg", "nan"), row("g.jpg", 10, "inf"), row("h.jpg", "", 5), row("i.jpg", "1e400")]
    write(tmp_path, {"m.csv": table(*rows)})
    found = pd.concat(read_metadata(tmp_path / "m.csv"))
    reasons = [flaw[0] if flaw else None for flaw in found["_flaw"]]
    bad, none = Reason.BAD_COORDINATES, Reason.NO_COORDINATES
    assert reasons == [None, bad, bad, bad, none, bad, bad, bad, bad]
    assert "m.csv row 3: LAT 'abc', LON '-2.25'" in found["_flaw"].iloc[1][1]


def test_numbers_are_exact():
    text = ["0.1", " -16.663606 ", "+5", "1e-3", ".5", "5.", "", "x", "0x10", "1_0", "１"]
    found = numbers(pd.Series(text)).tolist()
    assert found[:6] == [0.1, -16.663606, 5, 0.001, 0.5, 5]
    assert all(value != value for value in found[6:])


def test_captions_and_further_columns_become_attributes(tmp_path):
    content = f"{HEADER},country\n{row('a.jpg')},FR\n{row('b.jpg', author='')},\n"
    write(tmp_path, {"m.csv": content.encode(), "images/a.jpg": encoded(1), "images/b.jpg": encoded(2)})
    write(tmp_path, {"captions.csv": b'IMG_ID,caption\na.jpg,"a street, wet"\n'})
    source = read(IMAGES, tmp_path)
    a, b = source.items
    assert source.attributes.names == [*COLUMNS[4:], "country", "caption"]
    assert (a.attributes["caption"], a.attributes["country"]) == ("a street, wet", "FR")
    assert b.attributes["caption"] is None
    assert (b.author, b.group_id) == (None, "b.jpg")


def test_columns_called_as_ours_are_kept_beside_them(tmp_path):
    content = f"{HEADER},_flaw,_url,image_id\n{row('a.jpg')},x,y,z\n"
    write(tmp_path, {"m.csv": content.encode(), "images/a.jpg": encoded(1)})
    source = read(IMAGES, tmp_path)
    (photo,) = source.items
    assert (photo.flaw, photo.source_url) == (None, None)
    assert source.attributes.names[-3:] == ["table__flaw", "table__url", "table_image_id"]
    assert list(photo.attributes.values())[-3:] == ["x", "y", "z"]


def test_captions_of_no_photo_are_columns_all_the_same(tmp_path):
    write(tmp_path, {"m.csv": table(row("a.jpg")), "images/a.jpg": encoded(1), "captions.csv": b"IMG_ID,caption\n"})
    source = read(IMAGES, tmp_path)
    assert source.attributes.names == [*COLUMNS[4:], "caption"]
    assert [photo.attributes["caption"] for photo in source.items] == [None]
    write(tmp_path, {"captions.csv": b"IMG_ID,LAT\n"})
    with pytest.raises(UserError, match=r"captions\.csv: column LAT is in the metadata too"):
        read(IMAGES, tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"IMG_ID,LAT\n1,2\n", "no column AUTHOR, LON, S3_Label"),
        (b"", "empty; expected a CSV with columns IMG_ID, AUTHOR"),
        (b"\xff\xfe\x00", "its encoding is UTF-16; expected UTF-8"),
        (table(row("a.jpg"), row("b.jpg") + ",9,9"), "row 3: 12 cells; expected 10"),
        (table(row("a.jpg") + ",9", row("b.jpg") + ",9"), "row 2: 11 cells; expected 10"),
        (table(row("a.jpg"), row("b.jpg", s365="x")), "row 3, column S365_Label: expected a whole number, got 'x'"),
        (table(row("a.jpg", s365=1.5)), "row 2, column S365_Label"),
        (table(row("a.jpg"), row(" ")), "row 3, column IMG_ID: empty"),
    ],
)
def test_a_wrong_table_is_named_with_its_place(tmp_path, content, said):
    write(tmp_path, {"m.csv": content})
    with pytest.raises(UserError, match=said) as caught:
        list(read_metadata(tmp_path / "m.csv"))
    assert "\n" not in str(caught.value)
    assert "m.csv" in str(caught.value)


def test_missing_parts_are_named(tmp_path):
    with pytest.raises(UserError, match=r"m\.csv: no such file"):
        read(IMAGES, tmp_path)
    write(tmp_path, {"m.csv": table(row("a.jpg"))})
    with pytest.raises(UserError, match="images: no such folder"):
        read(IMAGES, tmp_path)
    with pytest.raises(UserError, match=r"u\.csv: no such file"):
        read(SHARDS, tmp_path)
    with pytest.raises(UserError, match=r"shard_\*\.msg: no such file"):
        read(SHARDS.model_copy(update={"urls": None}), tmp_path)
    with pytest.raises(ValidationError, match="either `shards` or `images`"):
        Options(kind="places365", metadata="m.csv")


@needs_real
@pytest.mark.parametrize(("name", "rows"), [("im2gps", 237), ("im2gps3k", 2997), ("yfcc25600", 25600)])
def test_published_tables_read_whole(name, rows):
    path = REAL / "benchmarks" / f"{name}_places365.csv"
    found = pd.concat(read_metadata(path))
    published = pd.read_csv(path, float_precision="round_trip")
    assert len(found) == rows
    assert found["_flaw"].isna().all()
    assert found["IMG_ID"].is_unique
    assert found["IMG_ID"].tolist() == published["IMG_ID"].tolist()
    for column in COLUMNS[2:]:
        assert found[column].tolist() == published[column].tolist()
