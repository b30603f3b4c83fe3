"""Photos and corpora made for tests: sound ones, and every way to be broken."""

import io
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from geoloc_core.corpora.fetch import files
from geoloc_core.corpora.sources import photos
from geoloc_core.params import Labels
from geoloc_core.project import Project

REAL = Path(__file__).parents[3].parent / "shared" / "data"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason=f"real data not on this machine: {REAL}")


def image(seed: int, size: tuple[int, int] = (48, 32)) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), np.uint8)
    return Image.fromarray(noise).resize(size)


def encoded(seed: int = 0, kind: str = "JPEG", exif: Image.Exif | None = None, **size: Any) -> bytes:
    stream = io.BytesIO()
    image(seed, **size).save(stream, kind, **({"exif": exif} if exif else {}))
    return stream.getvalue()


def dms(degrees: float) -> tuple[IFDRational, IFDRational, IFDRational]:
    """Degrees in thousandths of a second, the way cameras write them."""
    whole = round(abs(degrees) * 3_600_000)
    degree, rest = divmod(whole, 3_600_000)
    return IFDRational(degree, 1), IFDRational(rest // 60_000, 1), IFDRational(rest % 60_000, 1000)


def gps(latitude: Any, longitude: Any, refs: tuple[Any, Any] = ("N", "E"), **more: Any) -> Image.Exif:
    """EXIF with a position, and with further tags as ``gps_16="T"``, ``ifd_36867="…"`` or ``tag_315="…"``."""
    exif = Image.Exif()
    block = exif.get_ifd(0x8825)
    block.update({1: refs[0], 2: latitude, 3: refs[1], 4: longitude})
    for key, value in more.items():
        where, tag = key.split("_")
        {"gps": block, "ifd": exif.get_ifd(0x8769), "tag": exif}[where][int(tag)] = value
    exif[0x8825] = block
    return exif


def located(seed: int, latitude: float = 48.5, longitude: float = 2.25) -> bytes:
    refs = ("S" if latitude < 0 else "N", "W" if longitude < 0 else "E")
    return encoded(seed, exif=gps(dms(latitude), dms(longitude), refs))


def bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """A PNG of a few bytes whose header promises 3.6 gigapixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def write(folder: Path, contents: dict[str, bytes]) -> Path:
    for name, data in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def project(root: Path, source: Any = None, role: str = "train", megapixels: float = 200.0, **more: Any) -> Project:
    """A project with one corpus ``c`` whose raw folder is ``data/raw/c``."""
    corpus = SimpleNamespace(
        role=role,
        fetch=files.Options(kind="files", path=root / "given"),
        source=source or photos.Options(kind="photos"),
        max_megapixels=megapixels,
        licences=more.get("licences"),
        same_place_km=more.get("same_place_km", 1.0),
    )
    profile = SimpleNamespace(seed=7, demo=False, labels=Labels(), corpora={"c": corpus}, expect={})
    return Project(root, profile)  # type: ignore[arg-type]
