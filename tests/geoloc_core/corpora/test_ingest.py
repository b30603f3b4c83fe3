import hashlib
import io
import random
import tempfile
import warnings
from pathlib import Path

import msgpack
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_photos import REAL, bomb, dms, encoded, gps, image, located, needs_real, project, write
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from geoloc_core.corpora import manifest
from geoloc_core.corpora.decode import Decoder
from geoloc_core.corpora.ingest import ingest, ingest_alone
from geoloc_core.corpora.ingest import write as write_corpus
from geoloc_core.corpora.photo import Photo, Refusal
from geoloc_core.corpora.sources import photos, places365
from geoloc_core.errors import UserError
from geoloc_core.files import digest, files_under, read_json
from geoloc_core.pictures import FORMATS, quiet_pillow


def refusal(name: str, data: bytes, megapixels: float = 200) -> str | None:
    with quiet_pillow():
        found = Decoder(megapixels * 1e6).check(Photo(name, data, name, "g"))
    return found.reason.value if isinstance(found, Refusal) else None


def tables(made) -> tuple[pd.DataFrame, pd.DataFrame]:
    folder = made.corpus("c")
    return pd.read_parquet(folder / "manifest.parquet"), pd.read_parquet(folder / "rejects.parquet")


BROKEN = {
    "empty.jpg": (b"", "empty"),
    "text.jpg": (b"not an image at all", "unreadable"),
    "html.webp": (b"<html>404 Not Found</html>", "unreadable"),
    "zeros.jpg": (bytes(5000), "unreadable"),
    "noise.jpg": (random.Random(1).randbytes(5000), "unreadable"),
    "head.jpg": (located(2)[:300], "truncated"),
    "cut.jpg": (located(2, 5)[:-200], "truncated"),
    "cut.png": (encoded(2, "PNG", size=(300, 300))[:-5000], "truncated"),
    "cut.webp": (encoded(2, "WEBP", size=(300, 300))[:-500], "truncated"),
    "bomb.png": (bomb(), "too_large"),
    "notes.txt": (b"hello", "not_a_photo"),
    ".hidden.jpg": (located(3), "not_a_photo"),
    "plain.jpg": (encoded(4), "no_coordinates"),
    "zero.jpg": (encoded(5, exif=gps(dms(0), dms(0))), "bad_coordinates"),
    "nofix.jpg": (encoded(6, exif=gps((IFDRational(0, 0),) * 3, dms(1))), "bad_coordinates"),
    "far.jpg": (encoded(7, exif=gps(dms(99), dms(1))), "bad_coordinates"),
    "twin.jpg": (located(100), "duplicate"),
}
SOUND = {"a.jpg": located(100), "sub/b.jpg": located(101, -33.5, -70.25), "sub/c.jpg": located(102, 60)}


def test_what_is_broken_is_refused_with_its_reason_and_nothing_is_lost(tmp_path, capfd):
    made = project(tmp_path)
    write(made.raw("c"), {**SOUND, **{name: data for name, (data, _) in BROKEN.items()}})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ingest(made, "c")
    kept, refused = tables(made)
    assert kept["image_id"].tolist() == list(SOUND)
    assert dict(zip(refused["image_id"], refused["reason"], strict=True)) == {
        name: reason for name, (_, reason) in BROKEN.items()
    }
    assert refused["detail"].str.len().gt(3).all()
    told = capfd.readouterr()
    assert told.out == ""
    assert f"c: 3 kept + {len(BROKEN)} refused = {3 + len(BROKEN)} seen" in told.err
    assert "Warning" not in told.err
    assert "bad_coordinates 3" in " ".join(told.err.split())
    assert "a.jpg" in refused.set_index("image_id").at["twin.jpg", "detail"]


def test_what_is_kept_is_kept_whole(tmp_path):
    made = project(tmp_path)
    write(made.raw("c"), SOUND)
    ingest(made, "c")
    rows = manifest.read_manifest(made.corpus("c")).to_pandas()
    (shard,) = manifest.shards(made.corpus("c"))
    (stored,) = manifest.read_photos(shard)
    assert stored == list(SOUND.values())
    assert rows["sha256"].tolist() == [hashlib.sha256(data).hexdigest() for data in SOUND.values()]
    assert rows["row"].tolist() == [0, 1, 2]
    assert rows["latitude"].tolist() == pytest.approx([48.5, -33.5, 60])
    assert rows["longitude"].tolist() == pytest.approx([2.25, -70.25, 2.25])
    assert rows["group_id"].tolist() == [".", "sub", "sub"]
    assert set(rows["width"]) == {48}
    assert set(rows["corpus"]) == {"c"}
    summary = read_json(made.summary("ingest", "c"))
    assert summary["seen"] == summary["kept"] == 3
    assert (summary["refused"], summary["reasons"], summary["groups"]) == (0, {}, 2)
    assert Image.open(made.plot("ingest", "c")).size[0] > 300


def places(root: Path, names: list[str], broken: bytes = b"") -> places365.Options:
    header = ",".join(places365.COLUMNS)
    rows = [f"{name},u{i % 3},{i + 1},{-i},1,2,{i},0.1,0.7,0.2" for i, name in enumerate(names)]
    packed = [msgpack.packb({"image": encoded(i), "id": name}) for i, name in enumerate(names)]
    packed[1] = msgpack.packb({"image": broken, "id": names[1]})
    write(root, {"m.csv": "\n".join([header, *rows]).encode(), "shard_0.msg": b"".join(packed)})
    return places365.Options(kind="places365", metadata="m.csv", shards="shard_*.msg")


def test_only_photos_of_the_licences_asked_for_are_taken(tmp_path):
    licensed = {
        name: encoded(seed, exif=gps(dms(48 + seed), dms(2), **tag))
        for seed, (name, tag) in enumerate(
            [("by.jpg", {"tag_33432": "CC BY"}), ("nc.jpg", {"tag_33432": "CC BY-NC"}), ("none.jpg", {})]
        )
    }
    made = project(tmp_path, licences=("CC BY", "CC0"))
    write(made.raw("c"), licensed)
    ingest(made, "c")
    kept, refused = tables(made)
    assert kept["image_id"].tolist() == ["by.jpg"]
    assert refused["reason"].tolist() == ["licence"] * 2
    assert refused["detail"].tolist() == [
        "licence 'CC BY-NC'; expected one of: CC BY, CC0",
        "no licence stated; expected one of: CC BY, CC0",
    ]


def test_the_first_of_the_same_bytes_stays_whatever_the_threads_do(tmp_path, monkeypatch):
    twins = {f"{n:03}.jpg": located(n % 7) for n in range(300)}
    for threads in (1, 5):
        monkeypatch.setattr("os.cpu_count", lambda threads=threads: threads)
        made = project(tmp_path / str(threads))
        write(made.raw("c"), twins)
        ingest(made, "c")
        kept, refused = tables(made)
        assert kept["image_id"].tolist() == [f"{n:03}.jpg" for n in range(7)]
        assert refused["detail"].tolist() == [f"the same bytes as {n % 7:03}.jpg" for n in range(7, 300)]


def test_nothing_that_helped_to_write_stays(tmp_path):
    made = project(tmp_path)
    write(made.raw("c"), SOUND)
    ingest(made, "c")
    found = {path.partition("/")[0] for path in files_under(made.corpus("c"))}
    assert found == {"checksums.json", "manifest.parquet", "attributes.parquet", "rejects.parquet", "shards"}


def test_attributes_are_aligned_with_the_manifest(tmp_path):
    made = project(tmp_path, places(tmp_path / "data/raw/c", ["p.jpg", "q.jpg", "r.jpg", "s.jpg"]))
    ingest(made, "c")
    kept, refused = tables(made)
    extra = pq.read_table(made.corpus("c") / "attributes.parquet").to_pandas()
    assert extra["image_id"].tolist() == kept["image_id"].tolist() == ["p.jpg", "r.jpg", "s.jpg"]
    assert extra["S365_Label"].tolist() == [0, 2, 3]
    assert extra["S365_Label"].dtype == "int32"
    assert extra["Prob_natural"].tolist() == [0.7] * 3
    assert refused["reason"].tolist() == ["empty"]


def test_the_same_photos_give_the_same_bytes(tmp_path, monkeypatch):
    digests = set()
    for run, threads in enumerate((1, 7)):
        monkeypatch.setattr("os.cpu_count", lambda threads=threads: threads)
        made = project(tmp_path / str(run))
        many = {f"{i:03}.jpg": located(i, 1 + i / 10) for i in range(150)}
        write(made.raw("c"), {**many, "bad.jpg": b"x", "bad.png": b""})
        ingest(made, "c")
        digests.add((digest(made.corpus("c")), digest(made.summary("ingest", "c")), digest(made.plot("ingest", "c"))))
    assert len(digests) == 1


def test_a_failed_run_leaves_the_last_one_alone(tmp_path):
    made = project(tmp_path)
    write(made.raw("c"), SOUND)
    ingest(made, "c")
    before = digest(made.corpus("c"), made.summary("ingest", "c"))
    for path in files_under(made.raw("c")):
        (made.raw("c") / path).write_bytes(encoded(1))
    with pytest.raises(UserError, match=r"none of 3 photos can be used \(no_coordinates 3\)"):
        ingest(made, "c")
    assert digest(made.corpus("c"), made.summary("ingest", "c")) == before


def test_an_empty_folder_and_an_unknown_corpus_are_named(tmp_path):
    made = project(tmp_path)
    with pytest.raises(UserError, match=r"corpus 'x': not in the profile in use"):
        ingest(made, "x")
    made.raw("c").mkdir(parents=True)
    with pytest.raises(UserError, match=r"none of 0 photos can be used .the folder is empty"):
        ingest(made, "c")


@pytest.mark.parametrize("alone", [False, True])
def test_why_every_photo_was_refused_stays_and_is_gone_once_one_is_kept(tmp_path, capfd, alone):
    made = project(tmp_path)
    write(made.raw("c"), {"a.jpg": encoded(1), "b.jpg": b"x", "c.jpg": encoded(2)})
    rejects = tmp_path / "out.rejects.parquet" if alone else made.partial("ingest", "c") / "rejects.parquet"

    def run():
        if alone:
            ingest_alone("c", made.profile.corpora["c"], made.raw("c"), tmp_path / "out")
        else:
            ingest(made, "c")

    for _ in range(2):
        with pytest.raises(UserError) as caught:
            run()
    assert f"can be used (no_coordinates 2, unreadable 1); expected photos with coordinates; {rejects} says why of" in (
        str(caught.value)
    )
    assert "no_coordinates 2" in " ".join(capfd.readouterr().err.split())
    refused = manifest.read_table(rejects, manifest.REJECTS).to_pandas()
    assert dict(zip(refused["image_id"], refused["reason"], strict=True)) == {
        "a.jpg": "no_coordinates",
        "b.jpg": "unreadable",
        "c.jpg": "no_coordinates",
    }
    write(made.raw("c"), SOUND)
    run()
    assert not rejects.exists()


def test_what_lies_where_refusals_would_is_left_alone(tmp_path):
    made = project(tmp_path)
    write(made.raw("c"), SOUND)
    (tmp_path / "out.rejects.parquet").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"out\.rejects\.parquet: already exists and geoloc did not write it"):
        ingest_alone("c", made.profile.corpora["c"], made.raw("c"), tmp_path / "out")
    assert (tmp_path / "out.rejects.parquet").read_bytes() == b"mine"


CUT = {kind: encoded(3, kind, size=(200, 160)) for kind in ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP")}


@pytest.mark.parametrize("kind", CUT)
@settings(max_examples=40, deadline=None)
@given(share=st.floats(0, 0.97))
def test_a_file_that_breaks_off_never_passes(kind, share):
    data = CUT[kind]
    suffix = next(suffix for suffix, name in FORMATS.items() if name == kind)
    assert refusal(f"x{suffix}", data) is None
    assert refusal(f"x{suffix}", data[: int(share * len(data))]) in ("truncated", "unreadable", "empty")


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
@pytest.mark.parametrize("progressive", [False, True])
def test_draft_decoding_finds_what_full_decoding_finds(mode, progressive):
    stream = io.BytesIO()
    image(8, (640, 480)).convert(mode).save(stream, "JPEG", progressive=progressive, quality=92)
    data = stream.getvalue()
    for share in (0.3, 0.6, 0.9, 0.99, 1):
        cut = data[: int(share * len(data))]
        try:
            Image.open(io.BytesIO(cut)).load()
            sound = True
        except OSError:
            sound = False
        assert (refusal("x.jpg", cut) is None) == sound
    assert sound


@pytest.mark.slow
def test_the_limit_on_pixels_is_exact_and_pillows_own_is_out_of_the_way(tmp_path):
    data = encoded(1, size=(100, 100))
    assert refusal("x.jpg", data, 0.01) is None
    assert refusal("x.jpg", data, 0.0099) == "too_large"
    made = project(tmp_path, megapixels=5000)
    write(made.raw("c"), {**SOUND, "bomb.png": bomb()})
    before = Image.MAX_IMAGE_PIXELS
    ingest(made, "c")
    assert before == Image.MAX_IMAGE_PIXELS
    assert tables(made)[1]["reason"].tolist() != ["too_large"]


contents = st.sampled_from([located(1), located(2, 3), b"", b"junk", encoded(3), located(4)[:-99], encoded(5, "PNG")])
paths = st.from_regex(r"([ab]/)?\.?[a-d]\.(jpg|PNG|txt)", fullmatch=True)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.dictionaries(paths, contents, max_size=12))
def test_kept_and_refused_are_seen(found):
    with tempfile.TemporaryDirectory() as folder:
        raw, out = write(Path(folder, "raw"), found), Path(folder, "out")
        raw.mkdir(exist_ok=True)
        out.mkdir()
        tally = write_corpus(photos.read(photos.Options(kind="photos"), raw), out, "c", 1e6)
        kept, refused = (pd.read_parquet(out / f"{name}.parquet") for name in ("manifest", "rejects"))
        assert sorted([*kept["image_id"], *refused["image_id"]]) == sorted(found)
        assert kept["sha256"].is_unique
        assert tally.seen == len(found) == len(kept) + tally.refused
        assert dict(refused["reason"].value_counts()) == tally.reasons


@needs_real
def test_a_published_benchmark_without_its_photos_is_all_missing(tmp_path):
    options = places365.Options(kind="places365", metadata="im2gps3k_places365.csv", images="images")
    made = project(tmp_path, options)
    write(made.raw("c"), {options.metadata: (REAL / "benchmarks" / options.metadata).read_bytes()})
    (made.raw("c") / "images").mkdir()
    with pytest.raises(UserError, match=r"none of 2,997 photos can be used \(missing 2,997\)"):
        ingest(made, "c")


def test_options_name_what_they_do_not_know():
    with pytest.raises(ValueError, match="colour"):
        photos.Options(kind="photos", colour="red")
