"""What every layout promises: what is written is read, nothing is lost, and a wrong folder is one clear line."""

import random
import shutil
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_layouts import layout, split

from geoloc_core.corpora.decode import Decoder, Sound
from geoloc_core.corpora.ingest import write
from geoloc_core.corpora.manifest import read_manifest
from geoloc_core.corpora.photo import Photo, Refusal
from geoloc_core.errors import UserError
from geoloc_core.files import digest, files_under
from geoloc_core.pictures import quiet_pillow
from geoloc_core.plugins import kinds

LAYOUTS = {
    "mp16": {"kind": "places365", "metadata": "m.csv", "shards": "shard_*.msg", "urls": "u.csv"},
    "im2gps": {"kind": "places365", "metadata": "m.csv", "images": "images"},
    "yfcc26k": {"kind": "places365", "metadata": "m.csv", "images": "images", "hashed": True},
    "photos": {"kind": "photos"},
    "table": {"kind": "photos", "table": "t.csv", "author_column": "who"},
    "yfcc4k": {"kind": "yfcc100m", "metadata": "yfcc4k.csv"},
    "info": {"kind": "yfcc100m", "metadata": "info.txt"},
    "dump": {"kind": "yfcc100m", "metadata": "dump", "hashes": "hash", "named_by": "hash", "images": "."},
    "mp16_pro": {"kind": "mp16_pro"},
    "g50": {"kind": "countries"},
    "us_grid": {"kind": "us_grid"},
    "osv5m": {"kind": "osv5m"},
    "uk_grid": {"kind": "uk_grid"},
    "uk_cities": {"kind": "uk_cities"},
    "g3_streetview": {"kind": "streetview"},
    "panoramas": {"kind": "streetview", "views": 4},
    "g3_guidebook": {"kind": "g3_guidebook"},
}
"""A name for each way in which a corpus of the real world is laid out."""


OF_PLACES = ("us_grid", "uk_grid", "uk_cities", "g3_streetview", "panoramas", "g3_guidebook")
"""Layouts with several views of a place."""


def test_every_source_is_here():
    assert {options["kind"] for options in LAYOUTS.values()} == set(kinds("geoloc_core.corpora.sources"))


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_is_written_is_read(tmp_path, name):
    module, options, made = layout(tmp_path, **LAYOUTS[name])
    source = module.read(options, tmp_path)
    photos, refused = split(source)
    assert not refused
    assert len(photos) == len(made) == len({photo.image_id for photo in photos})
    assert source.total in (None, len(made))
    decoder = Decoder(1e9)
    with quiet_pillow():
        assert all(isinstance(decoder.check(photo), Sound) for photo in photos)
    assert all(set(photo.attributes) <= set(source.attributes.names) for photo in photos)
    if name not in ("photos", "g50"):  # EXIF says it, or nothing does
        near = {(round(shot.latitude, 5), round(shot.longitude, 5)) for shot in made}
        assert {(round(p.latitude, 5), round(p.longitude, 5)) for p in photos} == near
    if module.PLAN.headings:
        places = {shot.index: shot.spot for shot in made}
        assert name == "g50" or len({photo.group_id for photo in photos}) == len(set(places.values()))


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_whole_of_it_becomes_a_corpus(tmp_path, name):
    module, options, made = layout(tmp_path / "raw", **LAYOUTS[name])
    (tmp_path / "out").mkdir()
    tally = write(module.read(options, tmp_path / "raw"), tmp_path / "out", name, 1e9)
    assert (tally.seen, tally.refused, tally.unusable) == (len(made), 0, {})
    rows = read_manifest(tmp_path / "out").to_pandas()
    if name not in OF_PLACES:
        assert rows["place_id"].isna().all()
        return
    assert rows["place_id"].equals(rows["group_id"])
    places = rows.groupby("place_id")
    assert (places[["latitude", "longitude"]].nunique() == 1).all(axis=None)
    assert places.ngroups == len({shot.spot for shot in made}) == len(rows.drop_duplicates(["latitude", "longitude"]))
    assert set(places.size()) == {len(module.PLAN.headings)}
    if name != "g3_guidebook":  # its views are turned against a panorama of which no heading is known
        assert {tuple(sorted(turns)) for _, turns in places["heading"]} == {module.PLAN.headings}


@pytest.mark.parametrize("name", LAYOUTS)
def test_writing_twice_gives_the_same_bytes(tmp_path, name):
    for folder in ("a", "b"):
        layout(tmp_path / folder, **LAYOUTS[name])
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_wrong_folder_is_one_clear_line(tmp_path, name):
    module, options, _ = layout(tmp_path / "raw", **LAYOUTS[name])
    (tmp_path / "empty").mkdir()
    for raw in (tmp_path / "nowhere", tmp_path / "empty"):
        if raw.exists() and name == "photos":
            continue  # an empty folder is a folder of photos, and ingest says that it holds none
        with pytest.raises(UserError) as caught:
            list(module.read(options, raw).items)
        assert "\n" not in str(caught.value)
        assert "expected" in str(caught.value)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_takedown_is_heeded(tmp_path, name):
    module, options, made = layout(tmp_path, **LAYOUTS[name])
    unwanted = split(module.read(options, tmp_path))[0][3].image_id
    photos, refused = split(module.read(options.model_copy(update={"takedown": (unwanted,)}), tmp_path))
    assert [(item.image_id, item.reason) for item in refused] == [(unwanted, "takedown")]
    assert len(photos) == len(made) - 1


def spoil(data: bytes, rng: random.Random) -> bytes:
    """Bytes cut, changed, doubled or made text of no encoding."""
    if not data:
        return b"\xff"
    at, other = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return rng.choice(
        (
            data[:at],
            data[:at] + data[other:],
            data[:other] + data[at:],
            data[:at] + rng.randbytes(8) + data[at + 8 :],
            data[:at] + b"\x00,\n\"\t'" + data[at:],
            b"\xff\xfe" + data,
        )
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_spoilt_files_are_refused_or_read_but_never_crash(tmp_path, name, seed):
    rng = random.Random(seed)
    raw = tmp_path / "raw"
    shutil.rmtree(raw, ignore_errors=True)
    module, options, _ = layout(raw, **LAYOUTS[name])
    files = files_under(raw)
    tables = [file for file in files if not file.endswith((".jpg", ".png"))]
    for file in {rng.choice(files), rng.choice(tables or files)}:
        (raw / file).write_bytes(spoil((raw / file).read_bytes(), rng))
    decoder = Decoder(1e9)
    items: list[Photo | Refusal] = []
    with suppress(UserError):  # one clear line is an answer too
        items = list(module.read(options, raw).items)
    with quiet_pillow():
        assert all(isinstance(i, Refusal) or isinstance(decoder.check(i), Sound | Refusal) for i in items)
    ids = [item.image_id for item in items if isinstance(item, Photo)]
    assert len(ids) == len(set(ids))
    assert all(isinstance(item.detail, str) and item.detail for item in items if isinstance(item, Refusal))
