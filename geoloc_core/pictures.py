"""How an encoded photo becomes a picture: the one door of everything that looks at photos.

Ingest, encoders, pre-training and answers all decode here, so that what one of them takes every other takes too, and
sees in the same colours, the same way up.
"""

import math
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from geoloc_core.errors import in_a_line, is_of_the_machine

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

MAX_MEGAPIXELS = 200.0
"""A photo with more is refused, unless a corpus sets another limit: decoding it could exhaust the memory."""
BACKGROUND = (255, 255, 255)
"""The background of transparent pictures, RGB: white, as on paper and in most viewers."""
PIXELS_AT_ONCE = 400_000_000
"""What threads decode at the same time, 1.6 GB; a photo with more is decoded alone."""
FORMATS = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), "JPEG"),
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    **dict.fromkeys((".heic", ".heif", ".hif"), "HEIF"),
    **dict.fromkeys((".jp2", ".j2k", ".jpx"), "JPEG2000"),
    ".png": "PNG",
    ".webp": "WEBP",
    ".gif": "GIF",
    ".bmp": "BMP",
    ".avif": "AVIF",
}
"""Format by suffix. Pillow opens much else, some of it by starting other programs: no photo needs that."""
DECODERS = {"AVIF": "avif", "JPEG": "jpg", "JPEG2000": "jpg_2000", "PNG": "zlib", "TIFF": "libtiff", "WEBP": "webp"}
"""By format, what Pillow must have been built with to decode it."""
JPEG = ("JPEG", "MPO")
SHRINKS = (8, 4, 2)
"""What a JPEG can be divided by while it is decoded, fast: those that libjpeg-turbo has vector code for."""
ORIENTATION = 0x0112
"""The EXIF tag that says how the camera was held."""
BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0
"""Tags of TIFF, and the value of the second for a negative."""

Least = Callable[["Image"], tuple[int, int]]
"""The smallest width and height, pixels, that a photo may be decoded at."""
Fault = Literal["empty", "unreadable", "truncated", "too_large", "no_range"]
T = TypeVar("T")


class PictureError(Exception):
    """Why a picture cannot be read, in one line that names no file.

    Attributes:
        fault: What kind of fault it is.
    """

    def __init__(self, fault: Fault, detail: str) -> None:
        super().__init__(detail)
        self.fault = fault


class DecoderError(Exception):
    """A decoder failed at a photo: what it raised is the cause."""


def ask(call: Callable[..., T], *args: Any, **options: Any) -> T:
    """What one call of Pillow's gives for a photo.

    Raises:
        DecoderError: The photo is damaged.
        ImportError: The decoder is not installed.
        MemoryError: There was too little memory for it.
        OSError: Of the machine, not of the photo.
    """
    try:
        return call(*args, **options)
    except Exception as error:  # any: Pillow's decoders raise whatever a damaged file leads them to
        if is_of_the_machine(error):
            raise
        raise DecoderError(in_a_line(error)) from error


class Room:
    """A limit on the pixels in use at once. Who wants more than are free waits, unless no others are in use.

    Args:
        pixels: How many.
    """

    def __init__(self, pixels: int) -> None:
        self._pixels, self._used = pixels, 0
        self._changed = threading.Condition()

    @contextmanager
    def take(self, pixels: int) -> Iterator[None]:
        """Hold as many pixels for as long as the block runs."""
        with self._changed:
            self._changed.wait_for(lambda: not self._used or self._used + pixels <= self._pixels)
            self._used += pixels
        try:
            yield
        finally:
            with self._changed:
                self._used -= pixels
                self._changed.notify_all()


# Memory is one for the whole process, whoever's threads decode.
_ROOM = Room(PIXELS_AT_ONCE)


@contextmanager
def opened(
    data: bytes,
    max_pixels: float = math.inf,
    least: "Least | None" = None,
    alone: bool = False,
) -> Iterator["Image"]:
    """An encoded photo of which the header alone has been read; what is done with it in the block may decode it.

    Args:
        data: The encoded photo.
        max_pixels: A photo with more is not opened. Without a limit where ingest has judged already.
        least: The width and height, pixels, that the block gives to :func:`draft`, where it calls that.
        alone: Whether to wait until no other photo is decoded.

    Raises:
        PictureError: It is no photo, has too many pixels, or a decoder failed at it in the block (:func:`ask`).
        ImportError: A decoder is not installed.
        MemoryError: It did not fit beside others.
        OSError: Of the machine, not of the photo.
    """
    from PIL import Image

    known = formats()
    if not data:
        raise PictureError("empty", "0 bytes")
    try:
        with ask(Image.open, BytesIO(data), formats=known) as image:
            pixels = image.width * image.height
            if pixels > max_pixels:
                limit = f"at most {max_pixels / 1e6:g} megapixels are read"
                raise PictureError("too_large", f"{image.width} × {image.height} pixels; {limit}")
            with _ROOM.take(PIXELS_AT_ONCE if alone else _decoded(image, least)):
                yield image
    except DecoderError as error:
        raise _fault(error, data) from None
    except MemoryError:
        if alone:
            raise PictureError("too_large", "does not fit in memory") from None
        raise


def _decoded(image: "Image", least: "Least | None") -> int:
    """As how many pixels a photo is held while it is decoded."""
    pixels = image.width * image.height
    # All coefficients of a progressive JPEG are held, whatever it is reduced to.
    if least is None or image.format not in JPEG or image.info.get("progressive"):
        return pixels
    width, height = least(image)
    most = min(image.width // max(1, width), image.height // max(1, height))
    return pixels // next((shrink for shrink in SHRINKS if shrink <= most), 1) ** 2


def draft(image: "Image", width: int, height: int) -> None:
    """Let a JPEG be decoded at a fraction of its size, but no smaller than this.

    Other formats are left alone: what they would be decoded from is a thumbnail, which says nothing of the photo.
    """
    if image.format in JPEG:
        ask(image.draft, None, (width, height))


def rgb(image: "Image") -> "Image":
    """The colours of an opened photo as RGB of 8 bits, as the pixels are stored.

    Raises:
        PictureError: Its pixels are numbers whose range nothing states.
        DecoderError: It is damaged.
    """
    from PIL import Image

    ask(image.load)
    if image.mode in ("I", "F"):
        kind = "floating-point numbers" if image.mode == "F" else "integers of 32 bits or with a sign"
        raise PictureError("no_range", f"its pixels are {kind}, and nothing says which value is white")
    if image.mode.startswith("I;16"):
        return Image.fromarray(_grey(image)).convert("RGB")
    if image.has_transparency_data:
        # Pillow converts premultiplied grey by no shorter way.
        seen = ask(image.convert, "LA") if image.mode == "La" else image
        seen = seen if seen.mode == "RGBA" else ask(seen.convert, "RGBA")
        picture = Image.new("RGB", image.size, BACKGROUND)
        picture.paste(seen, mask=seen)
        return picture
    return image if image.mode == "RGB" else ask(image.convert, "RGB")


def _grey(image: "Image") -> "np.ndarray":
    """Grey of 9 to 16 bits as its high 8 bits, (height, width) uint8, which is what Pillow makes of deep colours."""
    import numpy as np

    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    grey = (values >> (tags.get(BITS_PER_SAMPLE, (16,))[0] - 8)).astype(np.uint8)
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        grey = 255 - grey
    if "transparency" in image.info:
        grey[values == image.info["transparency"]] = BACKGROUND[0]
    return grey


def orientation(image: "Image") -> int:
    """How the pixels are to be turned to be seen upright, 1 … 8; 1 (not at all) where nothing says so.

    Of a photo that is decoded already, as TIFF and HEIF are turned by that.
    """
    try:
        value = ask(ask(image.getexif).get, ORIENTATION)
    except DecoderError:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def upright(image: "Image") -> "Image":
    """The colours of an opened photo as RGB of 8 bits, the way it is to be seen.

    Raises:
        PictureError: Its pixels are numbers whose range nothing states.
        DecoderError: It is damaged.
    """
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    picture = rgb(image)
    turn = turns.get(orientation(image))
    return picture if turn is None else picture.transpose(turn)


def encoded(pixels: "np.ndarray") -> bytes:
    """Pixels (H, W, 3) uint8 as an encoded photo that loses nothing: BMP, which takes no time to write or to read."""
    from PIL import Image

    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "BMP")
    return stream.getvalue()


def family(image: "Image") -> str:
    """The format of an opened photo, as :data:`FORMATS` names it."""
    return "JPEG" if image.format in JPEG else str(image.format)


@cache
def formats() -> tuple[str, ...]:
    """The formats that can be opened; Pillow is made ready for them, once in a process.

    Raises:
        ImportError: A decoder is missing: its photos would seem to be no photos.
    """
    from PIL import Image, features
    from pillow_heif import register_heif_opener

    lacking = [name for name, feature in DECODERS.items() if not features.check(feature)]
    if lacking:
        raise ImportError(f"Pillow was built without a decoder of {', '.join(lacking)}", name="PIL")
    Image.init()
    register_heif_opener()
    # Pillow's own limit, one for the whole process, would judge photos a second time.
    Image.MAX_IMAGE_PIXELS = None
    return tuple(sorted(set(FORMATS.values())))


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Without Pillow's warnings: what is wrong with a photo is told by whoever opens it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _fault(error: DecoderError, data: bytes) -> PictureError:
    from PIL import UnidentifiedImageError

    if isinstance(error.__cause__, UnidentifiedImageError):
        if _ends_early(data):
            return PictureError("truncated", f"breaks off after {len(data):,} bytes")
        return PictureError("unreadable", f"{len(data):,} bytes that no decoder recognises as {', '.join(formats())}")
    return PictureError("truncated" if _ends_early(data, str(error)) else "unreadable", str(error))


def _ends_early(data: bytes, message: str = "") -> bool:
    """Whether a photo that failed to decode breaks off, by its format's own end mark or lengths."""
    if data.startswith(b"\x89PNG"):
        return b"IEND" not in data[-16:]
    if data.startswith(b"RIFF"):
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    if data[4:8] == b"ftyp":
        at, length = 0, 8
        while length >= 8 and at < len(data):
            length = int.from_bytes(data[at : at + 4], "big")
            at += length
        return at > len(data)
    return "truncated" in message.lower()
