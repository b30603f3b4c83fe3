"""One door: whatever a photo is stored as, all that look at it see the same picture, or refuse it alike."""

import errno
import io
import struct
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageOps, TiffImagePlugin

from geoloc_core import pictures
from geoloc_core.corpora import perceptual
from geoloc_core.corpora.decode import Decoder, Sound
from geoloc_core.corpora.fetch import first_photos
from geoloc_core.corpora.perceptual import phash, small
from geoloc_core.corpora.photo import Photo, Refusal
from geoloc_core.corpora.sources import photos as photos_source
from geoloc_core.encoders.instances import Instances, Segment
from geoloc_core.encoders.preprocess import Preprocess, decode
from geoloc_core.errors import UserError
from geoloc_core.pictures import BACKGROUND, Room, opened, orientation, rgb, upright
from geoloc_core.serving.answer import read_photos
from geoloc_core.serving.bundle import Bundle

pillow_heif.register_heif_opener()
SIZE = (64, 48)
PREPROCESS = Preprocess(32, "squash", "bicubic", (0.5,) * 3, (0.5,) * 3)


def saved(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def ramp() -> np.ndarray:
    """(48, 64) uint8, dark at the top left and light at the bottom right."""
    return np.add.outer(np.arange(SIZE[1]) * 3, np.arange(SIZE[0]) * 1.7).astype(np.uint8)


def coloured() -> Image.Image:
    grey = ramp()
    return Image.fromarray(np.stack([grey, 255 - grey, grey // 2], -1))


def deep(values: np.ndarray | None = None) -> Image.Image:
    """Grey of 16 bits whose high bits are the ramp."""
    low = np.random.default_rng(0).integers(0, 256, ramp().shape, np.uint16)
    return Image.fromarray((ramp().astype(np.uint16) << 8 | low) if values is None else values)


def of_tags(bits: int, photometric: int = 1, sample_format: int = 1, order: str = "<") -> bytes:
    """The ramp as a TIFF of grey samples, which Pillow would not write so."""
    values = ramp().astype(np.uint32)
    if bits == 12:
        high = (values << 4).reshape(-1, 2)
        body = np.stack([high[:, 0] >> 4, (high[:, 0] & 15) << 4 | high[:, 1] >> 8, high[:, 1] & 255], -1)
        data = body.astype(np.uint8).tobytes()
    else:
        data = (values << (bits - 8)).astype(f"{order}u{bits // 8}").tobytes()
    tags = [(256, SIZE[0]), (257, SIZE[1]), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1)]
    tags += [(278, SIZE[1]), (279, len(data)), (339, sample_format)]
    at = 8 + len(data)
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags)
    head = b"II*\0" if order == "<" else b"MM\0*"
    return head + struct.pack(f"{order}I", at) + data + struct.pack(f"{order}H", len(tags)) + entries + bytes(4)


def keyed(image: Image.Image, colour: bytes) -> bytes:
    """A PNG in which one colour is transparent."""
    data = saved(image, "PNG")
    chunk = struct.pack(">I", len(colour)) + b"tRNS" + colour + struct.pack(">I", zlib.crc32(b"tRNS" + colour))
    at = data.index(b"IDAT") - 4
    return data[:at] + chunk + data[at:]


GREY = np.stack([ramp()] * 3, -1)
DEEP = {
    "png": saved(deep(), "PNG"),
    "tiff": saved(deep(), "TIFF"),
    "tiff deflate": saved(deep(), "TIFF", compression="tiff_adobe_deflate"),
    "tiff big-endian": of_tags(16, order=">"),
    "tiff 12 bits": of_tags(12),
    "tiff negative": of_tags(16, photometric=0),
    "jp2": saved(deep(), "JPEG2000"),
}


@pytest.mark.parametrize("kind", DEEP)
def test_deep_grey_is_scaled_by_its_depth(kind):
    expected = 255 - GREY if "negative" in kind else GREY
    np.testing.assert_array_equal(np.asarray(decode(DEEP[kind])), expected)


NO_RANGE = {
    "I tiff": saved(Image.fromarray(ramp().astype(np.int32)), "TIFF"),
    "F tiff": saved(Image.fromarray(ramp().astype(np.float32) / 255), "TIFF"),
    "unsigned 32 bits": of_tags(32),
    "signed 16 bits": of_tags(16, sample_format=2),
}


def hidden(shown: Image.Image) -> tuple[Image.Image, np.ndarray]:
    """A picture whose right half is transparent, but not empty; and what is to be seen."""
    rgba = np.dstack([np.asarray(shown.convert("RGB")), np.full((SIZE[1], SIZE[0]), 255, np.uint8)])
    seen = rgba[..., :3].copy()
    rgba[:, 32:, 3] = 0
    seen[:, 32:] = BACKGROUND
    return Image.fromarray(rgba), seen


def palette() -> tuple[Image.Image, np.ndarray]:
    """A picture of eight colours, of which four, on the right, are transparent; and what is to be seen."""
    index = np.tile(np.arange(SIZE[0], dtype=np.uint8) // 8, (SIZE[1], 1))
    colours = np.random.default_rng(1).integers(0, 200, (8, 3), np.uint8)
    image = Image.fromarray(index).convert("P")
    image.putdata(index.ravel().tolist())
    image.putpalette(colours.ravel().tolist())
    image.info["transparency"] = bytes([255] * 4 + [0] * 4)
    seen = colours[index]
    seen[:, 32:] = BACKGROUND
    return image, seen


RGBA, SEEN = hidden(coloured())
LA, SEEN_GREY = hidden(Image.fromarray(ramp()))
PALETTE, SEEN_PALETTE = palette()
STEPS = np.where(np.arange(SIZE[0]) < 32, 40, 90).astype(np.uint8) * np.ones((SIZE[1], 1), np.uint8)
KEYED = np.stack([np.where(STEPS == 90, 255, 40)] * 3, -1).astype(np.uint8)
TRANSPARENT = {
    "rgba png": (saved(RGBA, "PNG"), SEEN),
    "rgba tiff": (saved(RGBA, "TIFF"), SEEN),
    "rgba webp": (saved(RGBA, "WEBP", lossless=True, exact=True), SEEN),
    "rgba jp2": (saved(RGBA, "JPEG2000"), SEEN),
    "la png": (saved(LA.convert("LA"), "PNG"), SEEN_GREY),
    "la tiff": (saved(LA.convert("LA"), "TIFF"), SEEN_GREY),
    "la jp2": (saved(LA.convert("LA"), "JPEG2000"), SEEN_GREY),
    "p png": (saved(PALETTE, "PNG", transparency=PALETTE.info["transparency"]), SEEN_PALETTE),
    "l key png": (keyed(Image.fromarray(STEPS), struct.pack(">H", 90)), KEYED),
    "rgb key png": (keyed(Image.fromarray(STEPS).convert("RGB"), struct.pack(">3H", 90, 90, 90)), KEYED),
    "16-bit key png": (keyed(deep(STEPS.astype(np.uint16) << 8), struct.pack(">H", 90 << 8)), KEYED),
}
LOSSY = {
    "rgba avif": (saved(RGBA, "AVIF", quality=100), SEEN),
    "rgba heif": (saved(RGBA, "HEIF", quality=-1, chroma=444), SEEN),
    "cmyk jpeg": (saved(coloured().convert("CMYK"), "JPEG", quality=100, subsampling=0), np.asarray(coloured())),
    "cmyk tiff": (saved(coloured().convert("CMYK"), "TIFF"), np.asarray(coloured())),
    "ycbcr tiff": (saved(coloured().convert("YCbCr"), "TIFF"), np.asarray(coloured())),
    "lab tiff": (saved(coloured().convert("LAB"), "TIFF"), np.asarray(coloured())),
    "heif": (saved(coloured(), "HEIF", quality=-1, chroma=444), np.asarray(coloured())),
}


@pytest.mark.parametrize("kind", TRANSPARENT)
def test_what_is_transparent_is_not_seen(kind):
    data, seen = TRANSPARENT[kind]
    np.testing.assert_array_equal(np.asarray(decode(data)), seen)


@pytest.mark.parametrize("kind", LOSSY)
def test_other_colours_become_rgb(kind):
    data, seen = LOSSY[kind]
    difference = np.abs(np.asarray(decode(data), int) - seen)
    assert difference.mean() < 3
    assert np.percentile(difference, 95) <= 12


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"]
)
def test_every_mode_of_pillow_becomes_rgb(mode):
    found = rgb(Image.new(mode, (4, 4)))
    assert (found.mode, found.size) == ("RGB", (4, 4))


def test_half_transparent_colours_are_mixed_with_the_background():
    for mode in ("RGBA", "RGBa", "LA", "La"):
        image = Image.new("RGBA", (2, 2), (0, 0, 0, 128)).convert("LA" if "L" in mode else "RGBA")
        found = rgb(image if image.mode == mode else image.convert(mode)).getpixel((0, 0))
        assert found == (127,) * 3, mode


def refused(read: Callable[[], object]) -> str | None:
    """What is said, in one line; None where nothing is refused."""
    try:
        read()
    except UserError as error:
        said = str(error)
    else:
        return None
    assert "\n" not in said
    assert "BytesIO" not in said
    return said


def ingested(data: bytes, _: Path) -> bool:
    return isinstance(Decoder(1e9).check(Photo("x", data, "x", "g")), Sound)


def encoded(data: bytes, _: Path) -> bool:
    said = refused(lambda: PREPROCESS.write(data, np.empty((32, 32, 3), np.uint8)))
    assert said is None or said.startswith("not a readable photo: ")
    return said is None


def cut(data: bytes, _: Path) -> bool:
    tower = Instances(2, lambda photos: [[Segment("sky", 1.0, np.ones((2, 2), bool))] for _ in photos], 0.0, {})
    (found,) = tower([data])
    return not isinstance(found, UserError)


def asked(data: bytes, folder: Path) -> bool:
    (folder / "a.jpg").write_bytes(data)
    said = refused(lambda: read_photos([folder / "a.jpg"]))
    assert said is None or said.startswith(f"{folder / 'a.jpg'}: not a readable photo: ")
    return said is None


def drawn(data: bytes, folder: Path) -> bool:
    (folder / "a.jpg").write_bytes(data)
    return bool(first_photos(folder, photos_source.Options(kind="photos"), 1))


DOORS: list[Callable[[bytes, Path], bool]] = [ingested, encoded, cut, asked, drawn]
BROKEN = {
    "empty": b"",
    "text": b"hello",
    "cut jpeg": saved(coloured(), "JPEG")[:-300],
    "cut heif": LOSSY["heif"][0][:-30],
    "cut png": DEEP["png"][:-200],
}
TAKEN = {**DEEP, **{kind: data for kind, (data, _) in (TRANSPARENT | LOSSY).items()}}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("kind", [*TAKEN, *NO_RANGE, *BROKEN])
def test_every_door_takes_and_refuses_the_same(kind, door, tmp_path):
    assert door({**TAKEN, **NO_RANGE, **BROKEN}[kind], tmp_path) == (kind in TAKEN)


@pytest.mark.parametrize("kind", TAKEN)
def test_what_is_hashed_is_what_is_encoded(kind):
    data = TAKEN[kind]
    found = Decoder(1e9).check(Photo("x", data, "x", "g"))
    assert isinstance(found, Sound)
    whole = decode(data)
    expected = phash(small(whole))
    if "jpeg" in kind:
        assert found.phash is not None
        assert expected is not None
        assert (found.phash ^ expected).bit_count() < 8
    else:
        assert found.phash == expected
    scaled = whole.resize((32, 32), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(PREPROCESS.pixels(data), np.asarray(scaled))


@pytest.mark.parametrize(
    ("data", "reason", "detail"),
    [
        (b"", "empty", "0 bytes"),
        (b"hello", "unreadable", "5 bytes that no decoder recognises as AVIF, BMP, GIF, HEIF, JPEG"),
        (NO_RANGE["F tiff"], "no_range", "its pixels are floating-point numbers"),
        (NO_RANGE["signed 16 bits"], "no_range", "its pixels are integers"),
        (BROKEN["cut heif"], "truncated", ""),
        (BROKEN["cut png"], "truncated", ""),
    ],
)
def test_what_is_wrong_is_said_plainly(data, reason, detail):
    found = Decoder(1e9).check(Photo("x", data, "x.jpg", "g"))
    assert isinstance(found, Refusal)
    assert found.reason.value == reason
    assert detail in found.detail
    assert "BytesIO" not in found.detail
    with pytest.raises(UserError) as said:
        decode(data)
    assert str(said.value) == f"not a readable photo: {found.detail}"


LIKE_STORED = {"HEIF": {"quality": -1, "chroma": 444}, "AVIF": {"quality": 100}, "WEBP": {"lossless": True}}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_every_format_is_turned_once(kind, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    stored = coloured()
    if kind == "HEIF":  # where the tag alone means nothing: what is written is how the picture is to be turned
        stored.info["exif"] = exif.tobytes()
    options = LIKE_STORED.get(kind, {}) | ({} if kind == "HEIF" else {"exif": exif})
    with opened(saved(stored, kind, **options)) as image:
        found = np.asarray(upright(image), int)
    stored.getexif()[0x0112] = turn
    expected = np.asarray(ImageOps.exif_transpose(stored), int)
    assert found.shape == expected.shape
    assert np.abs(found - expected).mean() < 6


def test_the_turn_of_a_damaged_block_is_none():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = bytearray(saved(coloured(), "JPEG", exif=exif))
    at = data.index(b"Exif\0\0") + 6
    data[at : at + 8] = b"\xff" * 8
    with opened(bytes(data)) as image:
        assert orientation(image) == 1
    assert decode(bytes(data)).size == SIZE
    assert PREPROCESS.pixels(bytes(data)).shape == (32, 32, 3)


AT_MOST = "at most 200 megapixels are read"


def promised(width: int, height: int) -> bytes:
    """A JPEG whose header has other edges than its pixels."""
    data = bytearray(saved(coloured(), "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def test_one_limit_on_pixels(tmp_path):
    """Between Pillow's own limit, 179 megapixels, and 200 a photo is opened by all; beyond it by none."""
    with opened(promised(19_000, 10_000), 200e6) as image:
        assert image.size == (19_000, 10_000)
    vast = promised(20_001, 10_000)
    found = Decoder(200e6).check(Photo("x", vast, "x.jpg", "g"))
    assert isinstance(found, Refusal)
    assert (found.reason.value, found.detail) == ("too_large", f"20001 × 10000 pixels; {AT_MOST}")
    (tmp_path / "vast.jpg").write_bytes(vast)
    with pytest.raises(UserError, match=rf"vast.jpg: .*20001 × 10000 pixels; {AT_MOST}; scale it down"):
        read_photos([tmp_path / "vast.jpg"])
    bundle = Bundle("v", False, 10, {}, {})
    with pytest.raises(UserError, match=rf"photo 1: .*20001 × 10000 pixels; {AT_MOST}"):
        bundle.predict([saved(coloured(), "JPEG"), vast])


@pytest.mark.slow
def test_what_ingest_keeps_is_encoded_and_answered(tmp_path):
    large = saved(Image.new("1", (19_000, 10_000)), "PNG")  # 190 megapixels in 24 kB
    assert isinstance(Decoder(200e6).check(Photo("x", large, "x.png", "g")), Sound)
    assert PREPROCESS.pixels(large).shape == (32, 32, 3)
    (tmp_path / "large.png").write_bytes(large)
    assert read_photos([tmp_path / "large.png"]) == [large]


def test_threads_share_a_room():
    """No more than fit are inside at once, and what is larger than the room is alone in it."""
    room, lock, inside, most = Room(100), threading.Lock(), [], []

    def work(pixels: int) -> None:
        with room.take(pixels):
            with lock:
                inside.append(pixels)
                most.append(tuple(inside))
            threading.Event().wait(0.002)
            with lock:
                inside.remove(pixels)

    threads = [threading.Thread(target=work, args=(pixels,)) for pixels in [40, 60, 250, 30, 30, 300, 90, 10] * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 24
    assert all(sum(held) <= 100 or len(held) == 1 for held in most)
    assert any(len(held) > 1 for held in most)


@pytest.mark.parametrize(
    ("kind", "options", "charged"),
    [("JPEG", {}, 800 * 600 // 64), ("JPEG", {"progressive": True}, 800 * 600), ("PNG", {}, 800 * 600)],
)
def test_a_photo_takes_the_room_that_it_is_decoded_to(monkeypatch, kind, options, charged):
    """libjpeg holds all of a progressive photo, whatever it is reduced to."""
    taken = []

    class Counting(Room):
        def take(self, pixels: int):
            taken.append(pixels)
            return super().take(pixels)

    monkeypatch.setattr(pictures, "_ROOM", Counting(pictures.PIXELS_AT_ONCE))
    data = saved(Image.new("RGB", (800, 600), "red"), kind, **options)
    assert isinstance(Decoder(200e6).check(Photo("x", data, "x", "g")), Sound)
    Preprocess(64, "squash", "bicubic", (0.5,) * 3, (0.5,) * 3, reducing_gap=1.0).pixels(data)
    assert taken == [charged, charged]


@pytest.mark.parametrize(("failures", "kept"), [(0, True), (1, True), (2, False)])
def test_too_little_memory_beside_others_refuses_no_photo(monkeypatch, failures, kept):
    small, tries = perceptual.small, []

    def scarce(image: Image.Image) -> np.ndarray:
        tries.append(image)
        if len(tries) <= failures:
            raise MemoryError
        return small(image)

    monkeypatch.setattr(perceptual, "small", scarce)
    found = Decoder(200e6).check(Photo("x", saved(coloured(), "PNG"), "x.png", "g"))
    assert isinstance(found, Sound if kept else Refusal)
    assert kept or found.reason.value == "too_large"


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.ENOMEM], ids=errno.errorcode.get)
def test_an_error_of_the_machine_refuses_no_photo(monkeypatch, number):
    def fails(_: object) -> None:
        raise OSError(number, "the machine")

    monkeypatch.setattr(perceptual, "small", fails)
    with pytest.raises(OSError, match="the machine"):
        Decoder(200e6).check(Photo("x", saved(coloured(), "PNG"), "x.png", "g"))


def test_segmenters_get_no_more_photos_at_a_time_than_fit(monkeypatch):
    monkeypatch.setattr("geoloc_core.encoders.instances.PIXELS_AT_ONCE", 2 * 64 * 48)
    seen = []

    def segment(photos: list[Image.Image]) -> list[list[Segment]]:
        seen.append(len(photos))
        return [[] for _ in photos]

    data = saved(coloured(), "JPEG")
    assert Instances(8, segment, 0.0, {})([data, b"", data, data, data, data]) is not None
    assert seen == [2, 2, 1]
    found = Instances(8, segment, 0.0, {})([data, b"", data])
    assert [isinstance(features, UserError) for features in found] == [False, True, False]


def test_a_tiff_of_no_known_kind_is_refused_like_any_other():
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[262] = 8
    data = saved(Image.fromarray(ramp()), "TIFF", tiffinfo=info)
    found = Decoder(1e9).check(Photo("x", data, "x.tif", "g"))
    assert isinstance(found, Sound | Refusal)
    assert isinstance(found, Sound) == encoded(data, Path())
