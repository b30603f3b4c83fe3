"""Zip files, tars and shards made to break, to fill the memory or to lead elsewhere."""

import bz2
import errno
import gzip
import io
import lzma
import os
import re
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgpack
import numpy as np
import pytest
from made_photos import encoded, write

from geoloc_core.corpora import archive, photo
from geoloc_core.corpora.archive import MAX_HEADER_BYTES, members
from geoloc_core.corpora.listing import MAX_RATIO, SMALL_BYTES, Zips
from geoloc_core.corpora.photo import Photo, Reason, Refusal
from geoloc_core.corpora.sources import mp16_pro, osv5m, places365
from geoloc_core.errors import OF_THE_MACHINE, UserError
from tests.benchmarks.memory import STATUS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
PHOTOS = {f"{number}.jpg": encoded(number).ljust(6000, bytes([number])) for number in range(4)}
METHODS = {
    "stored": zipfile.ZIP_STORED,
    "deflate": zipfile.ZIP_DEFLATED,
    "bzip2": zipfile.ZIP_BZIP2,
    "lzma": zipfile.ZIP_LZMA,
}
OSV5M = osv5m.Options(kind="osv5m")
MP16_PRO = mp16_pro.Options(kind="mp16_pro")
SHARDS = places365.Options(kind="places365", metadata="m.csv", shards="s_*.msg", captions=None)


def zipped(photos: dict[str, bytes] = PHOTOS, method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as file:
        for name, data in photos.items():
            file.writestr(zipfile.ZipInfo(name), data, method)
    return stream.getvalue()


def tarred(photos: dict[str, bytes] = PHOTOS, style: int = tarfile.GNU_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=style) as file:
        for name, data in photos.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def packed(photos: dict[str, bytes] = PHOTOS) -> bytes:
    return b"".join(msgpack.packb({"id": name, "image": data}) for name, data in photos.items())


def of_zip(folder: Path, data: bytes) -> list[Photo | Refusal]:
    rows = "".join(f"{name[:-4]},1,2,,,,,\n" for name in PHOTOS)
    write(folder, {"train.csv": f"{','.join(osv5m.COLUMNS)}\n{rows}".encode(), "images/train/00.zip": data})
    return list(osv5m.read(OSV5M, folder).items)


def of_tar(folder: Path, data: bytes) -> list[Photo | Refusal]:
    rows = "".join(f"{name},1,2\n" for name in PHOTOS)
    write(folder, {"MP16_Pro_places365.csv": f"IMG_ID,LAT,LON\n{rows}".encode(), "mp-16-images.tar": data})
    return list(mp16_pro.read(MP16_PRO, folder).items)


def of_shard(folder: Path, data: bytes) -> list[Photo | Refusal]:
    rows = "".join(f"{name},u,1,2,1,2,3,0.1,0.7,0.2\n" for name in PHOTOS)
    write(folder, {"m.csv": f"{','.join(places365.COLUMNS)}\n{rows}".encode(), "s_0.msg": data})
    return list(places365.read(SHARDS, folder).items)


def accounted(found: list[Photo | Refusal]) -> dict[str, str]:
    """What became of each photo of the table: its bytes are right, or it is refused, once."""
    ids = {name.removesuffix(".jpg") for name in PHOTOS}
    mine = [item for item in found if item.image_id.removesuffix(".jpg") in ids]
    assert len(mine) == len(ids) == len({item.image_id for item in mine}) or any(
        isinstance(item, Refusal) and item.reason in (Reason.DUPLICATE, Reason.NO_METADATA) for item in mine
    )
    assert {item.image_id.removesuffix(".jpg") for item in mine} == ids
    assert all("\n" not in item.detail and item.detail for item in found if isinstance(item, Refusal))
    return {item.image_id: item.reason.value if isinstance(item, Refusal) else "photo" for item in mine}


@pytest.mark.parametrize("read", [of_zip, of_tar, of_shard])
def test_a_sound_container_gives_every_photo(tmp_path, read):
    data = {of_zip: zipped, of_tar: tarred, of_shard: packed}[read]()
    assert set(accounted(read(tmp_path, data)).values()) == {"photo"}


MADE = {
    **{f"zip {name}": (of_zip, zipped(method=method)) for name, method in METHODS.items()},
    "tar": (of_tar, tarred()),
    "pax": (of_tar, tarred({**PHOTOS, "é" * 200: bytes(6000)}, tarfile.PAX_FORMAT)),
    "tar.gz": (of_tar, gzip.compress(tarred(), mtime=0)),
    "tar.bz2": (of_tar, bz2.compress(tarred())),
    "tar.xz": (of_tar, lzma.compress(tarred())),
    "shard": (of_shard, packed()),
}


def spoilt(data: bytes, random: np.random.Generator, kind: str) -> bytes:
    out = bytearray(data)
    for _ in range(random.integers(1, 4)):
        # Where the headers are: of a zip near the end, of a tar at multiples of 512.
        span = min(600, len(out))
        near = {"zip": len(out) - span, "tar": 512 * int(random.integers(1 + len(out) // 512))}.get(kind[:3], 0)
        at = near + int(random.integers(span)) if random.random() < 0.7 else int(random.integers(len(out)))
        match random.integers(6):
            case 0:
                out[at : at + 4] = random.bytes(4)
            case 1:
                out[at : at + 4] = random.choice([b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\x80\0\0\0"])
            case 2:
                del out[at : at + int(random.integers(1, 600))]
            case 3:
                del out[at:]
            case 4:
                out[at:at] = random.bytes(int(random.integers(1, 9)))
            case 5 if at < len(out):
                out[at] ^= 1 << int(random.integers(8))
        if not out:
            return b""
    return bytes(out)


def loaded(path: Path) -> list[bytes | tuple[Reason, str]]:
    """What the members of a container are, whatever tables say of them."""
    if path.suffix == ".zip":
        store = Zips.open([path])
        return [store.load(name) for name in store.names()]
    return [data for _, data in (places365.records(path) if path.suffix == ".msg" else members(path))]


@pytest.mark.parametrize("kind", MADE)
def test_500_spoilt_containers_give_members_or_one_clear_line(tmp_path, kind, capfd):
    read, whole = MADE[kind]
    random = np.random.default_rng(len(kind))
    path = tmp_path / {of_zip: "a.zip", of_tar: "a.tar", of_shard: "a.msg"}[read]
    known, sound, lines = set(PHOTOS.values()), 0, 0
    for _ in range(500):
        path.write_bytes(spoilt(whole, random, kind))
        said = ""
        try:
            found = loaded(path)
        except UserError as error:
            said = str(error)
        if said:
            assert "\n" not in said
            assert " object at " not in said
            lines += 1
            continue
        assert all(isinstance(data, bytes) or ("\n" not in data[1] and data[1]) for data in found)
        sound += sum(data in known for data in found)
    told = capfd.readouterr().err
    assert " object at " not in told
    assert 20 < sound < 2000
    assert lines or "broken after" in " ".join(told.split())


@pytest.mark.parametrize("kind", MADE)
def test_spoilt_containers_lose_no_photo_unsaid(tmp_path, kind):
    read, whole = MADE[kind]
    random = np.random.default_rng(len(kind))
    for _ in range(8):
        with suppress(UserError):
            accounted(read(tmp_path, spoilt(whole, random, kind)))


def test_damaged_members_are_refused_by_name_and_the_others_kept(tmp_path):
    for name, method in METHODS.items():
        data = bytearray(zipped(method=method))
        at = data.index(b"2.jpg") + 40
        data[at : at + 20] = b"\xff" * 20
        found = accounted(of_zip(tmp_path / name, bytes(data)))
        assert found == {"0": "photo", "1": "photo", "2": "unreadable", "3": "photo"}


def test_an_encrypted_member_is_refused(tmp_path):
    data = bytearray(zipped())
    entry = data.index(b"PK\x01\x02")
    data[entry + 8] |= 1
    found = of_zip(tmp_path, bytes(data))
    assert accounted(found) == {"0": "unreadable", "1": "photo", "2": "photo", "3": "photo"}
    assert found[0].detail.endswith("00.zip: encrypted")


def test_a_name_that_is_no_text_is_one_clear_line(tmp_path):
    data = zipped({**PHOTOS, "é.jpg": b"x"}).replace("é.jpg".encode(), b"\xff\xfe.jpg")
    with pytest.raises(UserError, match=r"00\.zip: not a readable zip file \('utf-8' codec .*\); fetch it again"):
        of_zip(tmp_path, data)


def test_members_that_overlap_are_one_clear_line(tmp_path):
    """Many entries of one stream of bytes: a small file that would unpack without an end."""
    data = bytearray(zipped())
    first = data.index(b"PK\x01\x02")
    second = data.index(b"PK\x01\x02", first + 1)
    data[second + 42 : second + 46] = data[first + 42 : first + 46]
    with pytest.raises(UserError, match=r"00\.zip: damaged: its members overlap"):
        of_zip(tmp_path, bytes(data))


def test_a_member_that_unpacks_to_much_more_than_a_photo_is_not_unpacked(tmp_path):
    size = SMALL_BYTES + 1
    found = of_zip(tmp_path, zipped({**PHOTOS, "1.jpg": bytes(size)}, zipfile.ZIP_DEFLATED))
    assert accounted(found) == {"0": "photo", "1": "too_large", "2": "photo", "3": "photo"}
    assert f"unpack to {size:,}: implausible for a photo" in found[1].detail
    assert MAX_RATIO > 1


def test_a_zip64_is_a_zip(tmp_path, monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 1000)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)
    data = zipped()
    assert b"PK\x06\x06" in data
    monkeypatch.undo()
    assert set(accounted(of_zip(tmp_path, data)).values()) == {"photo"}


def test_each_of_many_members_of_one_name_counts(tmp_path):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("0.jpg", PHOTOS["0.jpg"])
        for _ in range(2):
            with pytest.warns(UserWarning, match="Duplicate name"):
                file.writestr("0.jpg", PHOTOS["0.jpg"])
    write(tmp_path, {"00.zip": stream.getvalue()})
    assert len(Zips.open([tmp_path / "00.zip"]).names()) == 3


def special(kind: bytes, name: str = "l.jpg", target: str = "/etc/passwd") -> bytes:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member.tobuf()


def test_what_is_no_file_in_a_tar_is_refused_and_no_name_leads_anywhere(tmp_path):
    kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
    data = b"".join(special(kind, f"{n}.lnk") for n, kind in enumerate(kinds))
    data += tarred({"/etc/0.jpg": PHOTOS["0.jpg"], "../../../1.jpg": PHOTOS["1.jpg"], "a/b/2.jpg": PHOTOS["2.jpg"]})
    found = of_tar(tmp_path, data)
    refused = {item.image_id: item.reason.value for item in found if isinstance(item, Refusal)}
    assert refused == {
        **{f"{n}.lnk": "not_a_photo" for n in range(5)},
        "..": "no_metadata",
        "1.jpg": "missing",
        "3.jpg": "missing",
    }
    assert {item.image_id for item in found if isinstance(item, Photo)} == {"0.jpg", "2.jpg"}


def long_header(kind: bytes, size: int) -> bytes:
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = kind, size
    return member.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_header_without_end_is_not_read(tmp_path, kind, capfd):
    size = MAX_HEADER_BYTES + 1
    data = tarred({"0.jpg": PHOTOS["0.jpg"]})[: 512 + 6144] + long_header(kind, size) + bytes(512)
    assert list(accounted(of_tar(tmp_path, data)).values()) == ["photo", *["missing"] * 3]
    said = " ".join(capfd.readouterr().err.split())
    assert "mp-16-images.tar: broken after 1 files (ReadError: a header of more than 1,048,576 bytes)" in said


def test_headers_that_lead_on_without_end_are_not_followed(tmp_path, capfd):
    """A name before a name before a name: each is small."""
    data = (long_header(tarfile.GNUTYPE_LONGNAME, 512) + b"a" * 512) * 3000
    assert set(accounted(of_tar(tmp_path, data)).values()) == {"missing"}
    assert "mp-16-images.tar: broken after 0 files" in " ".join(capfd.readouterr().err.split())


LIMITED = """
import sys
from pathlib import Path
from geoloc_core.corpora.archive import members
from tests.benchmarks.memory import peak
count = sum(1 for _ in members(Path(sys.argv[1])))
print(count, peak())
"""


@pytest.mark.skipif(not STATUS.exists(), reason="Linux tells the peak of each process")
def test_a_long_name_that_fills_the_memory_is_refused_early(tmp_path):
    """Half a gigabyte of a name in half a megabyte of gzip."""
    with gzip.open(tmp_path / "a.tar", "wb", compresslevel=1) as stream:
        stream.write(long_header(tarfile.GNUTYPE_LONGNAME, 2**29))
        for _ in range(2**9):
            stream.write(b"a" * 2**20)
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "a.tar")]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    count, peak = map(int, run.stdout.split())
    assert count == 0
    assert peak < 300e6
    assert "a.tar: broken after 0 files (ReadError: a header of more" in " ".join(run.stderr.split())


def test_a_tar_that_goes_wrong_in_the_middle_says_so(tmp_path, capfd):
    data = bytearray(tarred())
    data[data.index(b"2.jpg")] ^= 1
    (tmp_path / "a.tar").write_bytes(data)
    assert [name for name, _ in members(tmp_path / "a.tar")] == ["0.jpg", "1.jpg"]
    assert "a.tar: broken after 2 files (no header)" in " ".join(capfd.readouterr().err.split())


def test_xz_that_asks_for_gigabytes_is_refused(tmp_path, capfd):
    (tmp_path / "a.tar").write_bytes(with_large_dictionary(lzma.compress(tarred())))
    assert list(members(tmp_path / "a.tar")) == []
    assert "Memory usage limit" in " ".join(capfd.readouterr().err.split())


def with_large_dictionary(xz: bytes) -> bytes:
    """The file with a dictionary of a gigabyte stated in the header of its first block."""
    start, size = 12, (xz[12] + 1) * 4
    header = bytearray(xz[start : start + size])
    header[header.index(b"\x21\x01") + 2] = 36  # 2^(36 / 2 + 12) bytes
    header[-4:] = struct.pack("<I", zlib.crc32(header[:-4]))
    return xz[:start] + bytes(header) + xz[start + size :]


HOSTILE: dict[str, Callable[[], bytes]] = {
    "bytes": lambda: b"\xc6" + struct.pack(">I", 2**32 - 1),
    "text": lambda: b"\xdb" + struct.pack(">I", 2**32 - 1),
    "array": lambda: b"\xdd" + struct.pack(">I", 2**30 - 1),
    "map": lambda: b"\xdf" + struct.pack(">I", 2**30 - 1),
    "extension": lambda: b"\xc9" + struct.pack(">I", 2**32 - 1) + b"\1",
    "nested": lambda: b"\x91" * 100_000,
    "odd key": lambda: b"\x81\x91\1\1",
    "time": lambda: b"\xc7\x0c\xff" + b"\xff" * 12,
    "numbers": lambda: b"\x82\xa2id\1\xa5image\2",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_record_that_promises_the_world_ends_its_shard(tmp_path, case, capfd):
    data = packed({"0.jpg": PHOTOS["0.jpg"]}) + HOSTILE[case]() + packed({"1.jpg": PHOTOS["1.jpg"]})
    assert accounted(of_shard(tmp_path, data))["0.jpg"] == "photo"
    assert "s_0.msg: broken after 1 photos" in " ".join(capfd.readouterr().err.split())


def fails(number: int) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def of_folder(folder: Path, _: bytes) -> bytes | tuple[Reason, str]:
    write(folder, PHOTOS)
    return photo.load(folder, "0.jpg")


READERS = {
    "file": (of_folder, b"", photo, "open"),
    "zip": (of_zip, zipped(), zipfile.ZipExtFile, "read"),
    "zip's contents": (of_zip, zipped(), zipfile.ZipFile, "_RealGetContents"),
    "tar": (of_tar, tarred(), archive.Forward, "read"),
    "shard": (of_shard, packed(), msgpack, "Unpacker"),
}


@pytest.mark.parametrize("number", sorted(OF_THE_MACHINE), ids=errno.errorcode.get)
@pytest.mark.parametrize("reader", READERS)
def test_an_error_of_the_machine_refuses_nothing(tmp_path, monkeypatch, reader, number):
    read, data, owner, name = READERS[reader]
    monkeypatch.setattr(owner, name, fails(number), raising=False)
    with pytest.raises(OSError, match=re.escape(os.strerror(number))) as caught:
        read(tmp_path, data)
    assert Path(caught.value.filename).is_file()


def test_a_file_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(photo, "open", fails(errno.EACCES), raising=False)
    assert of_folder(tmp_path, b"") == (Reason.UNREADABLE, "Permission denied")
