"""Ten thousand spoilt inputs: each is kept or refused with a reason, nothing crashes, nothing hangs."""

import io
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import msgpack
import numpy as np
import pandas as pd
import pillow_heif
import pytest
from made_photos import dms, encoded, gps, image, located, write
from PIL import Image

from geoloc_core.corpora import manifest
from geoloc_core.corpora.ingest import write as write_corpus
from geoloc_core.corpora.photo import Reason, Source
from geoloc_core.corpora.sources import photos, places365
from geoloc_core.errors import UserError
from geoloc_core.pictures import FORMATS
from geoloc_core.variants.guard import guard

pytestmark = pytest.mark.slow

pillow_heif.register_heif_opener()


def deep(kind: str) -> bytes:
    """Grey of 16 bits."""
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 65536, (48, 64), np.uint16)).save(stream, kind)
    return stream.getvalue()


KINDS = {kind: suffix for suffix, kind in reversed(FORMATS.items())}
PICTURES = [
    (KINDS[kind], encoded(seed, kind, size=(64, 48)))
    for seed, kind in enumerate(("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF", "JPEG2000"))
] + [
    (".jpg", located(9)),
    (".jpg", encoded(10, exif=gps(dms(1), dms(2), tag_315="ann", ifd_36867="2010:01:02 03:04:05", tag_274=6))),
    (".webp", encoded(11, "WEBP", exif=gps(dms(1), dms(2)))),
    (".heic", encoded(12, "HEIF", exif=gps(dms(1), dms(2), ifd_36867="2010-01-02 03:04:05"), size=(64, 48))),
    (".png", deep("PNG")),
    (".tif", deep("TIFF")),
]
PLACED = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/" xmlns:exif="http://ns.adobe.com/exif/1.0/"><x:d exif:GPSLatitude="48,51.5N" '
    b'exif:GPSLongitude="2,17.6E" exif:GPSDOP="3/2" exif:DateTimeOriginal="2010-01-02T03:04:05"/></x:xmpmeta>'
)
NOTE = b"""{"title": "IMG_1.jpg", "photoTakenTime": {"timestamp": "1564567805"},
"geoDataExif": {"latitude": 0.0, "longitude": 0.0}, "geoData": {"latitude": 48.85, "longitude": 2.35}}"""


def spoilt(data: bytes, random: np.random.Generator) -> bytes:
    """The bytes with one to three mutations, mostly near the start, where the headers are."""
    out = bytearray(data)
    for _ in range(random.integers(1, 4)):
        size = len(out)
        at = int(random.integers(max(1, size if random.random() < 0.5 else min(size, 400))))
        some = random.bytes(int(random.integers(1, 9)))
        match random.integers(8):
            case 0:
                out[at : at + 1] = some[:1]
            case 1:
                out[at : at + len(some)] = some
            case 2:
                del out[at : at + int(random.integers(1, max(2, size // 4)))]
            case 3:
                del out[at:]
            case 4:
                out[at:at] = some
            case 5:
                out[at : at + 4] = random.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\x80\0\0\0"])
            case 6:
                other = int(random.integers(max(1, size)))
                out[at : at + 64] = out[other : other + 64]
            case 7 if size > at:
                out[at] ^= 1 << int(random.integers(8))
    return bytes(out)


def ingested(read: Callable[[], Source], folder: Path) -> int | None:
    """How many photos of a spoilt corpus were seen, all accounted for; None where one clear line refuses it whole."""
    folder.mkdir()
    said = ""
    try:
        tally = write_corpus(read(), folder, "c", 1e6)
    except UserError as error:
        said = str(error)
    if said:
        assert "\n" not in said
        return None
    kept, refused = (manifest.count(folder / f"{name}.parquet") for name in ("manifest", "rejects"))
    assert tally.seen == kept + refused
    assert refused == tally.refused
    rejects = pd.read_parquet(folder / "rejects.parquet")
    assert set(rejects["reason"]) <= {reason.value for reason in Reason}
    assert rejects["detail"].str.strip().ne("").all()
    rows = manifest.read_manifest(folder).to_pandas()
    assert rows["latitude"].between(-90, 90).all()
    assert rows["longitude"].between(-180, 180).all()
    return tally.seen


def test_6500_spoilt_images(tmp_path):
    random = np.random.default_rng(1)
    chosen = [PICTURES[n % len(PICTURES)] for n in range(6500)]
    files = {f"{n // 500}/{n:05}{suffix}": spoilt(data, random) for n, (suffix, data) in enumerate(chosen)}
    table = "path,latitude,longitude\n" + "".join(f"{name},{n % 80 + 1},{n % 170}\n" for n, name in enumerate(files))
    write(tmp_path / "raw", {**files, "t.csv": table.encode()})
    options = photos.Options(kind="photos", table="t.csv")
    assert ingested(lambda: photos.read(options, tmp_path / "raw"), tmp_path / "out") == 6500
    kept = manifest.count(tmp_path / "out/manifest.parquet")
    assert 100 < kept < 6400, "the mutations are to break many photos, and not all"


def test_500_spoilt_packets_and_notes(tmp_path):
    random = np.random.default_rng(7)
    files = {}
    for n in range(250):
        stream = io.BytesIO()
        image(n).save(stream, "JPEG", xmp=spoilt(PLACED, random)[:60_000])
        files |= {f"x{n:03}.jpg": stream.getvalue(), f"t{n:03}.jpg": encoded(1000 + n)}
        files[f"t{n:03}.jpg.json"] = spoilt(NOTE, random)
    write(tmp_path / "raw", files)
    options = photos.Options(kind="photos")
    # the notes of photos are none of the files that are seen
    assert ingested(lambda: photos.read(options, tmp_path / "raw"), tmp_path / "out") == 500
    kept = pd.read_parquet(tmp_path / "out/attributes.parquet")["place_from"].value_counts()
    assert kept.between(10, 240).tolist() == [True] * 2, kept


def test_1000_spoilt_exif_blocks(tmp_path):
    random = np.random.default_rng(2)
    whole = encoded(3, exif=gps(dms(1), dms(2), tag_315="ann", ifd_36867="2010:01:02 03:04:05", tag_274=6))
    start = whole.index(b"Exif\0\0") + 6
    end = start + whole[4] * 256 + whole[5] - 8
    files = {}
    for n in range(1000):
        block = bytearray(whole[start:end])
        for at in random.integers(0, len(block), random.integers(1, 5)):
            block[at] = random.integers(256)
        files[f"{n:04}.jpg"] = whole[:start] + bytes(block) + whole[end:]
    write(tmp_path / "raw", files)
    options = photos.Options(kind="photos")
    assert ingested(lambda: photos.read(options, tmp_path / "raw"), tmp_path / "out") == 1000


HEADER = ",".join(places365.COLUMNS)
ROWS = "".join(f"{n}.jpg,u{n},{n + 1}.5,-{n}.25,1,2,{n},0.1,0.7,0.2\n" for n in range(4))
IMAGES = {f"{n}.jpg": encoded(n) for n in range(4)}


def test_1000_spoilt_tables_of_places(tmp_path):
    random = np.random.default_rng(3)
    write(tmp_path / "images", IMAGES)
    options = places365.Options(kind="places365", metadata="m.csv", images="images", captions=None)
    seen = []
    for n in range(1000):
        (tmp_path / "m.csv").write_bytes(spoilt(f"{HEADER}\n{ROWS}".encode(), random))
        seen.append(ingested(lambda: places365.read(options, tmp_path), tmp_path / f"out{n}"))
    assert None in seen
    assert len(set(seen)) > 1


def test_400_spoilt_tables_of_photos(tmp_path):
    random = np.random.default_rng(4)
    table = "path,latitude,longitude,who,note\n" + "".join(f'{n}.jpg,{n}.5,{n},a{n},"x, y"\n' for n in range(4))
    write(tmp_path / "raw", IMAGES)
    options = photos.Options(kind="photos", table="t.csv", author_column="who")
    seen = []
    for n in range(400):
        (tmp_path / "raw/t.csv").write_bytes(spoilt(table.encode(), random))
        seen.append(ingested(lambda: photos.read(options, tmp_path / "raw"), tmp_path / f"out{n}"))
    assert None in seen
    assert len(set(seen)) > 1


def test_400_spoilt_shards(tmp_path):
    random = np.random.default_rng(5)
    (tmp_path / "m.csv").write_text(f"{HEADER}\n{ROWS}")
    whole = b"".join(msgpack.packb({"image": data, "id": name}) for name, data in IMAGES.items())
    options = places365.Options(kind="places365", metadata="m.csv", shards="s_*.msg", captions=None)
    seen = []
    for n in range(400):
        (tmp_path / "s_0.msg").write_bytes(spoilt(whole, random))
        seen.append(ingested(lambda: places365.read(options, tmp_path), tmp_path / f"out{n}"))
    assert all(count is not None and count >= 4 for count in seen)


def test_200_spoilt_reports_and_manifests(tmp_path):
    """What a stage reads back: JSON and Parquet that were damaged on disk are named, never half used."""
    random = np.random.default_rng(6)
    leaks = tmp_path / "leaks"
    refused = 0
    for _ in range(100):
        text = json.dumps(["photographers: mine/train + test"]).encode()
        write(leaks, {"blocking.json": spoilt(text, random)})
        try:
            guard(SimpleNamespace(leaks=leaks), "other")
        except UserError:
            refused += 1
    assert refused > 10
    with manifest.TableWriter(tmp_path / "whole.parquet", manifest.REJECTS) as writer:
        writer.add({"image_id": "a", "reason": "empty", "detail": "0 bytes"})
    whole = (tmp_path / "whole.parquet").read_bytes()
    for _ in range(100):
        write(tmp_path, {"rejects.parquet": spoilt(whole, random)})
        with suppress(UserError):
            manifest.read_table(tmp_path / "rejects.parquet", manifest.REJECTS)
