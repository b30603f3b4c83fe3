"""What a photo says of itself, in EXIF and XMP, and what lies beside it: read where it can be trusted, else named."""

import io
import json
from datetime import datetime

import pandas as pd
import pillow_heif
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_photos import dms, encoded, gps, image, located, project, write
from PIL import Image, PngImagePlugin

from geoloc_core.corpora import exif, takeout, xmp
from geoloc_core.corpora.ingest import ingest
from geoloc_core.corpora.on_disk import Shelf
from geoloc_core.corpora.photo import Gps, Photo, Place, Reason, Said, place_flaw, settled
from geoloc_core.corpora.sources.photos import Options
from geoloc_core.errors import UserError
from geoloc_core.files import read_json
from geoloc_core.pictures import opened

pillow_heif.register_heif_opener()
PARIS = (48.8583, 2.2945)


def said_by(data: bytes, **rules) -> Said:
    with opened(data) as picture:
        return exif.read(picture, Gps(**rules))


def packet(properties: str) -> bytes:
    """XMP with properties as attributes, or as elements."""
    body = f" {properties} />" if properties.startswith("exif:") else f">{properties}</rdf:Description>"
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description xmlns:exif="http://ns.adobe.com/exif/1.0/"{body}</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    ).encode()


def with_xmp(properties: str, kind: str = "JPEG", tags: Image.Exif | None = None, seed: int = 0) -> bytes:
    stream, options = io.BytesIO(), {"exif": tags} if tags else {}
    if kind == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", packet(properties).decode())
    image(seed).save(stream, kind, xmp=packet(properties), **options)
    return stream.getvalue()


HERE = 'exif:GPSLatitude="48,51.498N" exif:GPSLongitude="2,17.67E"'


def ingested(tmp_path, files: dict[str, bytes], **options) -> tuple[pd.DataFrame, pd.DataFrame, dict]:
    """What is kept, with its attributes, what is refused, and the summary."""
    made = project(tmp_path, Options(kind="photos", **options))
    write(made.raw("c"), {"sound.jpg": located(99), **files})
    ingest(made, "c")
    folder = made.corpus("c")
    kept = pd.read_parquet(folder / "manifest.parquet").merge(pd.read_parquet(folder / "attributes.parquet"))
    refused = pd.read_parquet(folder / "rejects.parquet")
    return kept.set_index("image_id"), refused.set_index("image_id"), read_json(made.summary("ingest", "c"))


DOUBTS = [
    ({"gps_9": "V"}, {"void": True}, "GPSStatus V"),
    ({"gps_31": 5000.0}, {"max_error_m": 5000}, "GPSHPositioningError 5000 m; expected at most 1000 m"),
    ({"gps_11": 99.0}, {"max_dop": None}, "GPSDOP 99; expected at most 50"),
    ({"gps_18": "TOKYO"}, {"datums": ("Tokyo",)}, "GPSMapDatum 'TOKYO'; expected WGS-84"),
    ({"gps_18": "NAD-27\0"}, {"datums": ("NAD27",)}, "GPSMapDatum 'NAD-27'"),
]
"""Tags, what takes the place all the same, and what is said where it is not taken."""


@pytest.mark.parametrize(("tags", "rules", "detail"), DOUBTS)
def test_a_place_that_the_camera_doubts_is_excluded(tags, rules, detail):
    data = encoded(exif=gps(dms(35), dms(139), **tags))
    (place,) = said_by(data).places
    assert place.flaw is not None
    assert place.flaw[0] is Reason.EXCLUDED
    assert detail in place.flaw[1]
    (taken,) = said_by(data, **rules).places
    assert (taken.latitude, taken.longitude) == (35, 139)


SURE = [
    {"gps_9": "A"},
    {"gps_31": 1000.0},
    {"gps_11": 50.0},
    *({"gps_18": datum} for datum in ("WGS-84   ", "WGS84", "wgs 84", "WGS 1984", "JGD2000", "", "\0\0")),
]


@pytest.mark.parametrize("tags", SURE, ids=str)
def test_a_place_that_the_camera_is_sure_of_is_taken(tags):
    (place,) = said_by(encoded(exif=gps(dms(35), dms(139), **tags))).places
    assert (place.latitude, place.longitude, place.record) == (35, 139, "exif")


def test_what_is_excluded_is_refused_with_its_reason(tmp_path):
    files = {f"{n}.jpg": encoded(n, exif=gps(dms(35), dms(139), **tags)) for n, (tags, _, _) in enumerate(DOUBTS)}
    kept, refused, _ = ingested(tmp_path, files)
    assert kept.index.tolist() == ["sound.jpg"]
    assert set(refused["reason"]) == {"excluded"}
    for n, (_, _, detail) in enumerate(DOUBTS):
        assert f"EXIF {detail}" in refused.at[f"{n}.jpg", "detail"]


FORMS = [
    HERE,
    'exif:GPSLatitude="48,51,29.88N" exif:GPSLongitude="2,17,40.2E"',
    "<exif:GPSLatitude>48,51.498N</exif:GPSLatitude><exif:GPSLongitude>2,17.67E</exif:GPSLongitude>",
    'exif:GPSLatitude="48.8583N" exif:GPSLongitude="2.2945E"',
]


@pytest.mark.parametrize("form", FORMS)
def test_xmp_says_where_in_every_form(form):
    (nothing, place) = said_by(with_xmp(form)).places
    assert nothing.flaw == (Reason.NO_COORDINATES, "no GPS position in EXIF")
    assert (place.latitude, place.longitude) == pytest.approx(PARIS)
    assert (place.record, place.flaw) == ("xmp", None)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "HEIF"])
def test_xmp_is_read_from_every_format(kind):
    place = said_by(with_xmp(HERE, kind)).places[-1]
    assert (place.latitude, place.longitude) == pytest.approx(PARIS)


@pytest.mark.slow
@given(st.floats(-90, 90), st.floats(-180, 180))
def test_a_position_survives_xmp(latitude, longitude):
    def written(value: float, letters: str) -> str:
        minutes = abs(value) * 60
        return f"{int(minutes // 60)},{minutes % 60:.8f}{letters[value < 0]}"

    found = xmp.read(
        packet(f'exif:GPSLatitude="{written(latitude, "NS")}" exif:GPSLongitude="{written(longitude, "EW")}"')
    )
    place = exif.place(found.gps, Gps(), "xmp")
    if place_flaw(round(latitude, 9), round(longitude, 9)) is None:
        assert (place.latitude, place.longitude) == pytest.approx((latitude, longitude), abs=1e-8)


@pytest.mark.parametrize(
    ("properties", "reason", "detail"),
    [
        (f'{HERE} exif:GPSMapDatum="Tokyo"', Reason.EXCLUDED, "XMP GPSMapDatum 'Tokyo'"),
        (f'{HERE} exif:GPSDOP="990/10"', Reason.EXCLUDED, "XMP GPSDOP 99"),
        (f'{HERE} exif:GPSStatus="V"', Reason.EXCLUDED, "XMP GPSStatus V"),
        ('exif:GPSLatitude="91,0N" exif:GPSLongitude="2,0E"', Reason.BAD_COORDINATES, "XMP latitude 91"),
        ('exif:GPSLatitude="48.5" exif:GPSLongitude="2,0E"', Reason.BAD_COORDINATES, "XMP hemisphere '5'"),
        ('exif:GPSLatitude="4_8N" exif:GPSLongitude="2,0E"', Reason.BAD_COORDINATES, "XMP position '4_8N'"),
        ('exif:GPSLatitude="north" exif:GPSLongitude="2,0E"', Reason.BAD_COORDINATES, "XMP hemisphere 'h'"),
        ('exif:GPSLatitude="48,51.498N"', Reason.NO_COORDINATES, "no GPS position in XMP"),
    ],
)
def test_xmp_is_judged_as_exif_is(properties, reason, detail):
    flaw = said_by(with_xmp(properties)).places[-1].flaw
    assert flaw is not None
    assert flaw[0] is reason
    assert detail in flaw[1]


BOMB = (
    b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
    + b"".join(b'<!ENTITY %c "%s">' % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(8))
    + b"]><x>&i;</x>"
)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (BOMB, "document type"),
        (b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><x/>', "document type"),
        (b"<x>" + b" " * xmp.MAX_BYTES + b"</x>", "bytes; at most"),
        (b"<x><y></x>", "cannot be read: mismatched tag"),
        (b'<?xml version="1.0" encoding="no-such"?><x/>', "cannot be read"),
        (b"\xff\xfe\xff", "cannot be read"),
    ],
)
def test_a_packet_that_is_none_or_would_grow_is_refused(data, said):
    with pytest.raises(ValueError, match=said):
        xmp.read(data)


@given(st.binary(max_size=300), st.integers(0, 400))
def test_a_damaged_packet_is_a_flaw_never_an_error(noise, at):
    whole = packet(HERE)
    stream = io.BytesIO()
    image(0).save(stream, "JPEG", xmp=whole[:at] + noise + whole[at + len(noise) :])
    for place in said_by(stream.getvalue()).places:
        assert (place.flaw is None) == (place.latitude is not None)


def test_xmp_says_when_and_which_way_where_exif_does_not():
    more = f'{HERE} exif:DateTimeOriginal="2019-07-31T12:30:05+02:00" exif:GPSImgDirection="901/10"'
    found = said_by(with_xmp(more))
    assert (found.captured_at, found.heading) == (datetime(2019, 7, 31, 12, 30, 5), pytest.approx(90.1))
    tags = gps(dms(1), dms(2), ifd_36867="2008:10:22 16:28:39")
    found = said_by(with_xmp(more, tags=tags))
    assert (found.captured_at, found.heading) == (datetime(2008, 10, 22, 16, 28, 39), None)
    assert [place.record for place in found.places] == ["exif"]


@pytest.mark.parametrize("said", ["9_0", "9_01/1_0", "９０", "nan", "east", "90/0"])
def test_a_heading_of_xmp_is_a_number_or_named(said):
    found = said_by(with_xmp(f'{HERE} exif:GPSImgDirection="{said}"'))
    assert found.heading is None
    assert found.unusable["heading"].startswith(f"GPSImgDirection {said!r}")


HEIC = encoded(21, "HEIF", exif=gps(dms(60.5), dms(-68), ("N", "W"), ifd_36867="2019:07:31 12:00:00"))


def test_a_phones_heic_is_read(tmp_path):
    kept, refused, _ = ingested(tmp_path, {"IMG_1.HEIC": HEIC})
    row = kept.loc["IMG_1.HEIC"]
    assert (row["latitude"], row["longitude"], row["place_from"]) == (60.5, -68, "exif")
    assert row["captured_at"] == pd.Timestamp(2019, 7, 31, 12)
    assert (row["width"], row["height"]) == (48, 32)
    assert refused.empty


def test_a_photo_of_another_format_than_its_name_is_kept_and_told(tmp_path, capfd):
    files = {"a.heic": located(1), "b.png": located(2), "c.png": located(3), "d.jpg": encoded(4, "PNG")}
    files |= {"e.jpg": encoded(5, "WEBP", exif=gps(dms(1), dms(2))), "f.mpo": located(6), "g.jpeg": located(7)}
    kept, refused, summary = ingested(tmp_path, files)
    assert kept.index.tolist() == ["a.heic", "b.png", "c.png", "e.jpg", "f.mpo", "g.jpeg", "sound.jpg"]
    assert refused["reason"].to_dict() == {"d.jpg": "no_coordinates"}
    assert summary["mislabelled"] == {"JPEG named .heic": 1, "JPEG named .png": 2, "WEBP named .jpg": 1}
    assert "c: 2 photos are JPEG named .png; read by content, not by name" in " ".join(capfd.readouterr().err.split())


def test_dates_are_read_or_named(tmp_path, capfd):
    dates = {
        "alone": {"tag_306": "2019:07:03 10:00:00"},
        "dashes": {"ifd_36867": "2019-07-31 12:00:00"},
        "midnight": {"ifd_36867": "2019:07:31 24:00:00"},
        "digitized": {"ifd_36868": "2019:07:04 10:00:00", "tag_306": "2021:01:01 00:00:00"},
        "second": {"ifd_36867": "yesterday", "tag_306": "2019:07:05 10:00:00"},
        "unset": {"ifd_36867": "0000:00:00 00:00:00"},
        "wrong": {"ifd_36867": "31.07.2019"},
    }
    files = {
        f"{name}.jpg": encoded(n, exif=gps(dms(1), dms(2), **tags)) for n, (name, tags) in enumerate(dates.items())
    }
    kept, _, summary = ingested(tmp_path, files)
    found = kept["captured_at"].drop("sound.jpg").dropna()
    assert {name.removesuffix(".jpg"): str(time) for name, time in found.items()} == {
        "alone": "2019-07-03 10:00:00",
        "dashes": "2019-07-31 12:00:00",
        "midnight": "2019-08-01 00:00:00",
        "digitized": "2019-07-04 10:00:00",
        "second": "2019-07-05 10:00:00",
    }
    assert summary["unusable"] == {"captured_at": 1}
    told = " ".join(capfd.readouterr().err.split())
    assert "captured_at is unusable in 1 photos and was left empty, for example wrong.jpg: DateTimeOriginal" in told


def test_what_the_photo_says_wrongly_does_not_matter_where_the_table_knows(tmp_path):
    tags = gps(dms(1), dms(2), ifd_36867="yesterday", gps_17=400.0)
    table = b"path,latitude,longitude,d\na.jpg,1,2,2019-07-31\nb.jpg,1,2,\n"
    files = {"t.csv": table, "a.jpg": encoded(1, exif=tags), "b.jpg": encoded(2, exif=tags)}
    _, _, summary = ingested(tmp_path, files, table="t.csv", date_column="d")
    assert summary["unusable"] == {"captured_at": 1, "heading": 2}


def beside(*names: str) -> dict[str, str]:
    files = Shelf()
    for name in names:
        files.first(name)
    found = takeout.beside(files)
    left = [*files]
    assert {name for name in names if name.endswith(".json")} - set(left) == {found[path].decode() for path in found}
    return {path: found[path].decode() for path in found}


LONG = "PXL_20230101_101112345_a_very_long_name_indeed.PORTRAIT.jpg"


@pytest.mark.parametrize(
    ("photo", "note"),
    [
        ("IMG_1.jpg", "IMG_1.jpg.json"),
        ("a/b (1)/IMG_1.jpg", "a/b (1)/IMG_1.jpg.supplemental-metadata.json"),
        ("IMG_1.jpg", "IMG_1.jpg.supplemental-metad.json"),
        ("IMG_1.jpg", "IMG_1.jpg.s.json"),
        ("IMG_1.jpg", "IMG_1.jpg..json"),
        ("IMG_1(1).jpg", "IMG_1.jpg(1).json"),
        ("IMG_1(12).jpg", "IMG_1.jpg.supplemental-metadata(12).json"),
        ("IMG_1(1).jpg", "IMG_1(1).jpg.json"),
        ("IMG_1-edited.jpg", "IMG_1.jpg.json"),
        ("IMG_1-edited(2).jpg", "IMG_1.jpg(2).json"),
        ("a" * 47 + ".jpg", "a" * 46 + ".json"),
        ("a" * 40 + ".HEIC", "a" * 40 + ".HEIC.json"),
        ("a" * 44 + ".jpg", "a" * 44 + ".j.json"),
        ("a" * 41 + ".jpg", "a" * 41 + ".jpg..json"),
        (LONG, f"{LONG}.json"),
    ],
)
def test_a_note_is_found_by_its_photos_name(photo, note):
    assert beside(photo, note, "IMG_2.jpg", "metadata.json", "other/IMG_1.jpg") == {photo: note}


def test_a_note_is_of_one_photo_and_its_edited_copies():
    notes = ["IMG_1.jpg.json", "IMG_1.jpg(1).json"]
    found = beside("IMG_1.jpg", "IMG_1-edited.jpg", "IMG_1(1).jpg", "IMG_1(2).jpg", "IMG_1.mp4", *notes)
    assert found == {"IMG_1.jpg": notes[0], "IMG_1-edited.jpg": notes[0], "IMG_1(1).jpg": notes[1]}
    assert beside("a" * 46 + "1.jpg", "a" * 46 + "2.jpg", "a" * 46 + "3.jpg", "a" * 46 + ".json") == {}
    assert beside("a.jpg", "b.json", ".a.jpg.json", "labels.json") == {}


def note(geo: object = None, guess: object = None, stamp: object = None) -> bytes:
    said = {"title": "x.jpg", "geoDataExif": geo, "geoData": guess, "photoTakenTime": {"timestamp": stamp}}
    return json.dumps(said).encode()


def at(latitude: object, longitude: object) -> dict[str, object]:
    return {"latitude": latitude, "longitude": longitude, "altitude": 0.0}


def settled_by(data: bytes) -> Place:
    return settled(Photo("x", b"", "x", "g"), [takeout.read(data, "x.json")])


def test_a_note_says_where_and_when():
    found = takeout.read(note(at(*PARIS), at(1.0, 2.0), "1564567805"), "x.json")
    assert [(place.latitude, place.longitude) for place in found.places] == [PARIS, (1, 2)]
    assert found.captured_at == datetime(2019, 7, 31, 10, 10, 5)
    place = settled_by(note(at(0.0, 0.0), at(1.0, 2.0)))
    assert (place.latitude, place.longitude, place.record) == (1, 2, "takeout")


@pytest.mark.parametrize(
    ("data", "reason", "detail"),
    [
        (note(at(0.0, 0.0), at(0, 0)), Reason.NO_COORDINATES, "x.json: geoData has no place"),
        (note(), Reason.NO_COORDINATES, "x.json: geoDataExif has no place"),
        (note(at(91, 0)), Reason.BAD_COORDINATES, "latitude 91"),
        (note(at(float("nan"), 0)), Reason.BAD_COORDINATES, "latitude nan"),
        (note(at("4_8", 2)), Reason.BAD_COORDINATES, "latitude 4_8"),
        (note(at(True, 2)), Reason.BAD_COORDINATES, "latitude True"),
        (note(at("north", 0)), Reason.BAD_COORDINATES, "latitude north"),
        (note(at(10**400, 0)), Reason.BAD_COORDINATES, "expected degrees"),
        (note([1, 2]), Reason.NO_COORDINATES, "no place"),
        (b"[1]", Reason.NO_COORDINATES, "expected an object"),
        (b"{", Reason.NO_COORDINATES, "cannot be read as JSON"),
        (b"\xff\xfe\0", Reason.NO_COORDINATES, "cannot be read as JSON"),
        (b"[" * 100_000, Reason.NO_COORDINATES, "cannot be read as JSON"),
        (b" " * (takeout.MAX_BYTES + 1), Reason.NO_COORDINATES, "at most"),
    ],
)
def test_a_note_without_a_place_is_a_flaw(data, reason, detail):
    flaw = settled_by(data).flaw
    assert flaw is not None
    assert flaw[0] is reason
    assert detail in flaw[1]


@pytest.mark.parametrize("stamp", ["yesterday", "1_564_567_805", "１５６４５６７８０５", True, [1], "9" * 30, 1e400])
def test_a_note_whose_time_is_none_says_so(stamp):
    found = takeout.read(note(stamp=stamp), "x.json")
    assert found.captured_at is None
    assert found.unusable["captured_at"].startswith("x.json: photoTakenTime ")


EXIF_PLACE, XMP_PLACE, NOTE = Place("exif", 1, 2), Place("xmp", 3, 4), Place("takeout", 5, 6)
NONE, BAD, OUT = (
    Place("exif", flaw=(reason, reason.value))
    for reason in (Reason.NO_COORDINATES, Reason.BAD_COORDINATES, Reason.EXCLUDED)
)


@pytest.mark.parametrize(
    ("own", "places", "record", "reason"),
    [
        ({"latitude": 9.0, "longitude": 9.0}, [EXIF_PLACE], "table", None),
        ({"flaw": BAD.flaw}, [EXIF_PLACE], "table", Reason.BAD_COORDINATES),
        ({"flaw": NONE.flaw}, [EXIF_PLACE], "exif", None),
        ({}, [EXIF_PLACE, XMP_PLACE], "exif", None),
        ({}, [NONE, XMP_PLACE, NOTE], "xmp", None),
        ({}, [BAD, BAD, NOTE], "takeout", None),
        ({}, [OUT, XMP_PLACE, NOTE], "exif", Reason.EXCLUDED),
        ({}, [NONE, BAD, NONE], "table", Reason.BAD_COORDINATES),
        ({}, [], "table", Reason.NO_COORDINATES),
        ({"flaw": NONE.flaw}, [], "table", Reason.NO_COORDINATES),
        ({"placeless": True}, [NONE], "table", None),
        ({"placeless": True, "flaw": BAD.flaw}, [], "table", Reason.BAD_COORDINATES),
    ],
)
def test_the_first_record_with_a_place_counts(own, places, record, reason):
    found = settled(Photo("x", b"", "x", "g", **own), [Said(tuple(places[:2])), Said(tuple(places[2:]))])
    assert found.record == record
    assert (found.flaw[0] if found.flaw else None) is reason


def test_every_place_says_where_it_is_from(tmp_path):
    files = {
        "exif.jpg": located(1),
        "xmp.jpg": with_xmp(HERE, seed=2),
        "t/IMG_1.jpg": encoded(3),
        "t/IMG_1.jpg.supplemental-metad.json": note(at(0.0, 0.0), at(48.85, 2.35), "1564567805"),
        "t/IMG_2.jpg": located(4),
        "t/IMG_2.jpg.json": note(at(9.0, 9.0)),
        "t/IMG_3.jpg": encoded(5),
        "t/IMG_3.jpg.json": b"{",
        "t/IMG_4.mp4": b"video",
        "t/IMG_4.mp4.json": note(at(9.0, 9.0)),
        "t/metadata.json": b"{}",
        "void.jpg": with_xmp(HERE, tags=gps(dms(48.8583), dms(2.2945), gps_9="V"), seed=6),
    }
    kept, refused, summary = ingested(tmp_path, files)
    assert kept["place_from"].to_dict() == {
        "exif.jpg": "exif",
        "sound.jpg": "exif",
        "t/IMG_1.jpg": "takeout",
        "t/IMG_2.jpg": "exif",
        "xmp.jpg": "xmp",
    }
    assert kept.loc["t/IMG_1.jpg", ["latitude", "longitude"]].tolist() == [48.85, 2.35]
    assert kept.at["t/IMG_1.jpg", "captured_at"] == pd.Timestamp(2019, 7, 31, 10, 10, 5)
    assert refused["reason"].to_dict() == {
        "t/IMG_3.jpg": "no_coordinates",
        "t/IMG_4.mp4": "not_a_photo",
        "t/IMG_4.mp4.json": "not_a_photo",
        "t/metadata.json": "not_a_photo",
        "void.jpg": "excluded",
    }
    assert "IMG_3.jpg.json: cannot be read as JSON" in refused.at["t/IMG_3.jpg", "detail"]
    # the notes of photos are no files that are seen, as tables are none
    assert summary["seen"] == len(kept) + len(refused) == 1 + len(files) - 3


def test_a_table_counts_before_the_photo_and_its_note(tmp_path):
    table = b"path,latitude,longitude\na.jpg,1,2\nb.jpg,,\nc.jpg,abc,2\nsound.jpg,,\n"
    files = {"t.csv": table, "a.jpg": located(1), "b.jpg": encoded(2), "c.jpg": located(3), "d.jpg": located(4)}
    files |= {f"{name}.jpg.json": note(at(7.0, 8.0)) for name in "abd"}
    kept, refused, summary = ingested(tmp_path, files, table="t.csv")
    assert kept["place_from"].to_dict() == {"a.jpg": "table", "b.jpg": "takeout", "sound.jpg": "exif"}
    assert kept.at["b.jpg", "latitude"] == 7
    assert refused["reason"].to_dict() == {"c.jpg": "bad_coordinates", "d.jpg": "no_metadata"}
    assert summary["seen"] == 5


def test_a_table_has_no_column_that_ingest_writes(tmp_path):
    with pytest.raises(
        UserError, match=r"t.csv: has a column place_from, a name that ingest uses itself; rename the column"
    ):
        ingested(tmp_path, {"t.csv": b"path,latitude,longitude,place_from\n"}, table="t.csv")
