"""How what a table calls a photo finds its file."""

import os
import unicodedata
from datetime import datetime

import msgpack
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_photos import REAL, encoded, needs_real, write

from geoloc_core.corpora import listing
from geoloc_core.corpora.ingest import write as write_corpus
from geoloc_core.corpora.listing import Folder, Row, Spellings, listed, spelling
from geoloc_core.corpora.on_disk import Shelf
from geoloc_core.corpora.photo import Photo, Reason, Refusal
from geoloc_core.corpora.sources import g3_guidebook, mp16_pro, osv5m, photos, places365, streetview, yfcc100m

NFC, NFD = (unicodedata.normalize(form, "Zürich") for form in ("NFC", "NFD"))
OTHERWISE = {
    "composed": (f"{NFC}.jpg", f"{NFD}.jpg"),
    "decomposed": (f"{NFD}/b.jpg", f"{NFC}/b.jpg"),
    "dot": ("./a.jpg", "a.jpg"),
    "dots": ("s/./a.jpg", "s/a.jpg"),
    "backslash": (r"s\a.jpg", "s/a.jpg"),
    "spaces": (" a.jpg ", "a.jpg"),
    "case": ("S/A.JPG", "s/a.jpg"),
    "slashes": ("s//a.jpg", "s/a.jpg"),
    "sharp": ("STRASSE.jpg", "straße.jpg"),
    "all": (rf".\\S\.\{NFD.upper()}.JPEG ", f"s/{NFC}.jpeg"),
}


def items(tmp_path, rows: list[str], files: list[str]) -> list[Photo | Refusal]:
    write(tmp_path, {name: encoded(number) for number, name in enumerate(files)})
    frame = pd.DataFrame({"path": rows, "latitude": "1", "longitude": "2"})
    frame.to_csv(tmp_path / "t.csv", index=False)
    return list(photos.read(photos.Options(kind="photos", table="t.csv"), tmp_path).items)


def told(found: list[Photo | Refusal]) -> dict[str, str]:
    assert len({item.image_id for item in found}) == len(found)
    return {item.image_id: item.reason.value if isinstance(item, Refusal) else item.path for item in found}


@pytest.mark.parametrize("case", OTHERWISE)
def test_another_spelling_of_a_file_is_that_file(tmp_path, case):
    said, there = OTHERWISE[case]
    assert told(items(tmp_path, ["x/b.jpg", said], ["x/b.jpg", there])) == {"x/b.jpg": "x/b.jpg", said: there}


@pytest.mark.parametrize("said", ["../a.jpg", "a.jpeg", "s/a.jpg", "b.jpg"])
def test_another_name_is_another_file_and_what_comes_near_is_named(tmp_path, said):
    found = items(tmp_path, [said], ["a.jpg"])
    assert told(found) == {said: "missing", "a.jpg": "no_metadata"}
    assert found[0].detail.endswith(
        f"there is no file {said}" + ("" if said == "b.jpg" else "; the closest file name is a.jpg")
    )


def test_a_files_own_name_counts_before_any_other_spelling(tmp_path):
    found = items(tmp_path, ["A.jpg", "a.JPG", "a.jpg"], ["a.jpg", "A.JPG", "a.JPG"])
    assert told(found) == {"a.jpg": "a.jpg", "a.JPG": "a.JPG", "A.jpg": "A.JPG"}


def test_of_two_files_that_are_spelt_alike_neither_is_meant(tmp_path):
    found = items(tmp_path, ["A.jpg"], ["a.jpg", "a.JPG"])
    assert told(found) == {"A.jpg": "missing", "a.jpg": "no_metadata", "a.JPG": "no_metadata"}
    assert "a.JPG, a.jpg are spelt alike, and it is unclear which one is meant" in found[0].detail


def test_of_two_rows_that_spell_a_file_alike_neither_has_it(tmp_path):
    found = items(tmp_path, ["A.jpg", "a.JPG"], ["a.jpg"])
    assert told(found) == {"A.jpg": "missing", "a.JPG": "missing", "a.jpg": "no_metadata"}
    assert all("a.jpg differs only in spelling, but another row matches it too" in item.detail for item in found[:2])


def test_of_many_missing_photos_the_first_get_a_hint(tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "HINTS", 2)
    found = items(tmp_path, [f"{folder}/a.jpg" for folder in "xyz"], ["a.jpg"])
    assert ["the closest file name is a.jpg" in item.detail for item in found[:3]] == [True, True, False]


def test_a_refused_row_keeps_its_file_from_a_row_that_spells_it_alike():
    """The file may be the refused one's, whose place is another."""
    shelf = Shelf()
    shelf.first("a.jpg")

    class Names:
        def names(self) -> Shelf:
            return shelf

        def load(self, name: str) -> bytes:
            return b"x"

    rows = [
        Row(Photo("1", b"", "", "g"), ("A.jpg",), "t", refused=(Reason.LICENCE, "none")),
        Row(Photo("2", b"", "", "g"), ("a.JPG",), "t"),
    ]
    assert told(list(listed(rows, Names(), "t"))) == {"1": "licence", "2": "missing", "a.jpg": "no_metadata"}


def test_a_file_that_another_row_named_is_said_to_be_so(tmp_path):
    found = items(tmp_path, ["a.jpg", "./a.jpg"], ["a.jpg"])
    assert told(found) == {"a.jpg": "a.jpg", "./a.jpg": "missing"}
    assert (
        found[1].detail
        == "in t.csv row 3, but there is no file ./a.jpg; the closest file name is a.jpg, which another row names"
    )


def test_a_file_lies_in_one_group_however_it_is_spelt(tmp_path):
    found = items(tmp_path, [r"S\a.jpg", "s/b.jpg"], ["s/a.jpg", "s/b.jpg"])
    assert {item.group_id for item in found} == {"s"}


def test_names_that_are_no_unicode_are_no_trouble(tmp_path):
    odd = os.fsdecode(b"caf\xe9.jpg")
    found = items(tmp_path, ["A.jpg"], ["a.jpg", odd])
    assert told(found) == {"A.jpg": "a.jpg", "caf\\xe9.jpg": "no_metadata"}


names = st.lists(st.text("aAé/.\\ ́", min_size=1, max_size=5), max_size=6, unique=True)


class Held:
    """A store of names alone."""

    def __init__(self, files: list[str]) -> None:
        self.files = files

    def names(self) -> Shelf:
        shelf = Shelf()
        for name in self.files:
            shelf.first(name)
        return shelf

    def load(self, name: str) -> bytes:
        return name.encode()


@given(names, names)
def test_each_row_and_each_file_counts_once_and_no_file_is_taken_for_another(rows, files):
    taken = datetime(2020, 1, 2)
    photo = Photo("", b"", "", "g", flaw=(Reason.BAD_COORDINATES, "x"), captured_at=taken, attributes={"n": 1.5})
    table = [Row(Photo(**{**vars(photo), "image_id": name}), (name,), "t") for name in rows]
    found = list(listed(table, Held(files), "t"))
    assert sorted(item.image_id for item in found[: len(rows)]) == sorted(rows)
    kept = {item.image_id: item.data.decode() for item in found if isinstance(item, Photo)}
    assert all(item.flaw == photo.flaw and item.captured_at == taken for item in found if isinstance(item, Photo))
    assert len(set(kept.values())) == len(kept)
    assert sorted([*kept.values(), *(item.image_id for item in found[len(rows) :])]) == sorted(files)
    assert {name: name for name in rows if name in files}.items() <= kept.items()
    for name in set(rows) - set(files):
        alike = [file for file in files if spelling(file) == spelling(name) and file not in rows]
        others = [row for row in rows if spelling(row) == spelling(name) and row not in files]
        assert (name in kept) == (len(alike) == len(others) == 1)


@given(names)
def test_spellings_are_found_by_any_of_them(found):
    index = Spellings(found)
    for name in found:
        assert set(index.alike(name)) == {other for other in found if spelling(other) == spelling(name)}


def places(*ids: str) -> bytes:
    rows = [f"{name},u{n},{n + 1},2,1,2,3,0.1,0.7,0.2" for n, name in enumerate(ids)]
    return "\n".join([",".join(places365.COLUMNS), *rows]).encode()


def test_im2gps_own_archive_names_places_before_the_ids(tmp_path):
    ids = ["104123223_7410c654ba_19_19355699@N00.jpg", "1095548455_f636d22cbb_12770_8576809@N08.jpg", "5_a_1_2@N0.jpg"]
    files = [f"{place}_{n:05}_{name}" for n, (place, name) in enumerate(zip(["Rome", "New_York"], ids, strict=False))]
    write(tmp_path, {"m.csv": places(*ids)})
    write(tmp_path, {f"images/{name}": encoded(n) for n, name in enumerate([*files, "Oslo_00007_9_b_1_2@N0.jpg"])})
    options = places365.Options(kind="places365", metadata="m.csv", images="images")
    assert told(list(places365.read(options, tmp_path).items)) == {
        ids[0]: files[0],
        ids[1]: files[1],
        ids[2]: "missing",
        "Oslo_00007_9_b_1_2@N0.jpg": "no_metadata",
    }


@pytest.mark.slow
@needs_real
def test_im2gps_archives_give_the_published_rows(tmp_path):
    """237 photos under CMU's names; 3,000 of IM2GPS3k, of which three have no row."""
    for table, rows, more, name in (
        ("im2gps_places365.csv", 237, 0, "Some Place_{:05}_{}"),
        ("im2gps3k_places365.csv", 2997, 3, "{1}"),
    ):
        ids = pd.read_csv(REAL / "benchmarks" / table)["IMG_ID"].tolist()
        assert len(ids) == rows
        raw = tmp_path / table
        photo = encoded(1)
        ids += [f"9{number}_a_1_2@N00.jpg" for number in range(more)]
        write(raw, {table: (REAL / "benchmarks" / table).read_bytes()})
        write(raw, {f"images/{name.format(number, one)}": photo for number, one in enumerate(ids)})
        (tmp_path / f"out {table}").mkdir()
        options = places365.Options(kind="places365", metadata=table, images="images")
        source = places365.read(options, raw)
        tally = write_corpus(source, tmp_path / f"out {table}", "c", 1e6, same_place_km=None)
        assert (tally.kept, dict(tally.reasons)) == (rows, {Reason.NO_METADATA: more} if more else {})


def test_every_source_takes_another_spelling(tmp_path):
    """Beside the table of photos: each file is spelt otherwise than its table does."""
    data = encoded(1).ljust(6000, b"\0")
    write(tmp_path / "images", {"images/A.JPG": data, "m.csv": places("a.jpg")})
    write(
        tmp_path / "shards", {"m.csv": places("aa/b.jpg"), "s_0.msg": msgpack.packb({"id": r"AA\b.jpg", "image": data})}
    )
    write(tmp_path / "osv5m", {"train.csv": b",".join(name.encode() for name in osv5m.COLUMNS) + b"\nx1,1,2,,,,,\n"})
    write(tmp_path / "osv5m", {"images/train/00/X1.JPG": data})
    write(
        tmp_path / "streetview",
        {"panoramas.csv": b",".join(c.encode() for c in streetview.COLUMNS) + b"\n./a/0.jpg,a,1,2,0,\n"},
    )
    write(tmp_path / "streetview", {"A/0.jpg": data})
    write(
        tmp_path / "g3",
        {
            "dataset/train/train.csv": b"IMG_ID,LAT,LON\nAb_0.png,1,2\n",
            "dataset/train/images/ab_0.PNG": encoded(1, "PNG"),
        },
    )
    fields = dict.fromkeys(yfcc100m.FIELDS, "") | {"photo_id": "7", "longitude": "2", "latitude": "1"}
    write(tmp_path / "yfcc", {"dump": "\t".join(fields.values()).encode() + b"\n", "images/7.JPG": data})
    write(tmp_path / "tar", {"MP16_Pro_places365.csv": b"IMG_ID,LAT,LON\naa/bb/1.jpg,1,2\n", "x/y/AA_bb_1.jpg": data})
    import tarfile

    with tarfile.open(tmp_path / "tar/mp-16-images.tar", "w") as tar:
        tar.add(tmp_path / "tar/x/y/AA_bb_1.jpg", "x/y/AA_bb_1.jpg")
    cases = {
        "images": (places365, {"metadata": "m.csv", "images": "images"}),
        "shards": (places365, {"metadata": "m.csv", "shards": "s_*.msg"}),
        "osv5m": (osv5m, {}),
        "streetview": (streetview, {"views": 1}),
        "g3": (g3_guidebook, {}),
        "yfcc": (yfcc100m, {"metadata": "dump"}),
        "tar": (mp16_pro, {}),
    }
    for name, (module, options) in cases.items():
        parsed = module.Options(kind=module.__name__.rpartition(".")[2], **options)
        found = list(module.read(parsed, tmp_path / name).items)
        assert [type(item) for item in found] == [Photo], (name, found)


def test_a_folder_that_is_not_there_has_no_names(tmp_path):
    assert len(Folder(tmp_path / "none").names()) == 0
