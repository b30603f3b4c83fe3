"""From encoded photos to a tower's input: part of the tower, so that serving cannot drift from training."""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image

from geoloc_core import pictures
from geoloc_core.errors import UserError
from geoloc_core.pictures import JPEG, SHRINKS, PictureError, orientation, upright

RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.T,
    6: lambda pixels: pixels.T[:, ::-1],
    7: lambda pixels: pixels.T[::-1, ::-1],
    8: lambda pixels: pixels.T[::-1],
}
"""By EXIF orientation, the view of stored pixels (H, W) that stands upright."""
ON_ITS_SIDE = (5, 6, 7, 8)


@dataclass(frozen=True)
class Preprocess:
    """How a tower wants its photos.

    Attributes:
        size: Height and width of the input, pixels.
        mode: ``crop`` scales the shorter edge and cuts the centre (CLIP); ``squash`` scales both edges to
            ``size`` (ViT).
        resample: ``bicubic`` or ``bilinear``.
        mean: Per channel, of values in [0, 1].
        std: Per channel, of values in [0, 1].
        shorter_edge: Of the scaled photo before the cut, pixels; ``size`` where it is None.
        rounding: Of half a pixel beside the cut: ``even`` as in torchvision, ``down`` as in transformers.
        reducing_gap: How many times as large as the scaled photo a JPEG must still be for being decoded at a half, a
            quarter or an eighth of its size; None decodes in full, bit for bit as the tower's library does. Of 119
            real photos it concerns 43 at 2, 33 at 3 and 15 at 4, whose features of MobileNetV2 keep a cosine of at
            least 0.995, 0.998 and 0.9996 (saved again as JPEG of quality 95: 0.958).
    """

    size: int
    mode: Literal["crop", "squash"]
    resample: Literal["bicubic", "bilinear"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    shorter_edge: int | None = None
    rounding: Literal["even", "down"] = "even"
    reducing_gap: float | None = None

    def __call__(
        self, photos: Sequence[bytes], pool: ThreadPoolExecutor | None = None, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Decode and scale N encoded photos.

        Args:
            photos: N encoded photos of any format of :data:`~geoloc_core.pictures.FORMATS`.
            pool: Threads to decode in; the interpreter is free while a photo is decoded and scaled.
            out: (N, size, size, 3) uint8 to write to; made where there is none.

        Returns:
            (N, size, size, 3) uint8.

        Raises:
            UserError: One of them is not a photo.
        """
        out = np.empty((len(photos), self.size, self.size, 3), np.uint8) if out is None else out
        for _ in (pool.map if pool else map)(self.write, photos, out):
            pass
        return out

    def pixels(self, photo: bytes) -> np.ndarray:
        """Decode and scale one photo: (size, size, 3) uint8."""
        return self([photo])[0]

    def write(self, photo: bytes, out: np.ndarray) -> None:
        """Decode and scale one photo into ``out`` (size, size, 3) uint8.

        Raises:
            UserError: It is not a photo.
        """
        with _readable(photo, least=self._least) as image:
            if image.format not in JPEG or not self._write_plain(photo, image, out):
                self._write_any(image, out)

    def _write_plain(self, photo: bytes, image: Image.Image, out: np.ndarray) -> bool:
        """Write an ordinary JPEG; False, and nothing done, where Pillow has to judge. The same pixels either way."""
        turn = orientation(image)
        width, height, left, top = self.geometry(*_turned(image.size, turn))
        if image.mode not in ("RGB", "L") or min(left, top) < 0:  # beside the photo, Pillow pads
            return False
        import simplejpeg

        from geoloc_core.encoders.resample import resample

        shrink = self._shrink(image.size, turn)
        least = {"min_width": -(-image.width // shrink), "min_height": -(-image.height // shrink)}
        try:
            stored = simplejpeg.decode_jpeg(photo, "RGBX", **least)
        except ValueError:  # damaged, or of a kind that the decoder does not know
            return False
        pixels = UPRIGHT.get(turn, np.asarray)(stored.view(np.uint32)[:, :, 0])
        resample(pixels, width, height, left, top, self.resample == "bicubic", out)
        return True

    def _write_any(self, image: Image.Image, out: np.ndarray) -> None:
        size = None
        if image.format in JPEG:
            turn = orientation(image)
            size = _turned(image.size, turn)
            pictures.draft(image, *self._least(image))
        photo = upright(image)
        width, height, left, top = self.geometry(*(size or photo.size))
        photo = photo.resize((width, height), RESAMPLING[self.resample])
        out[:] = np.asarray(photo.crop((left, top, left + self.size, top + self.size)))

    def _least(self, image: Image.Image) -> tuple[int, int]:
        """The smallest width and height that a JPEG is decoded at."""
        shrink = self._shrink(image.size, orientation(image))
        return image.width // shrink, image.height // shrink

    def _shrink(self, stored: tuple[int, int], turn: int) -> int:
        """What a JPEG of a stored width and height is divided by while it is decoded."""
        if self.reducing_gap is None:
            return 1
        width, height = _turned(stored, turn)
        wide, high, _, _ = self.geometry(width, height)
        most = min(width / wide, height / high) / self.reducing_gap
        return next((shrink for shrink in SHRINKS if shrink <= most), 1)

    def geometry(self, width: int, height: int) -> tuple[int, int, int, int]:
        """What a photo is scaled to, and where it is cut: width, height, left and top, pixels."""
        if self.mode == "squash":
            return self.size, self.size, 0, 0
        # torchvision's Resize and CenterCrop, to the pixel: towers were trained with them
        edge = self.shorter_edge or self.size
        scaled = int(edge * max(width, height) / min(width, height))
        wide, high = (edge, scaled) if width <= height else (scaled, edge)
        return wide, high, self._beside(wide), self._beside(high)

    def _beside(self, length: int) -> int:
        spare = length - self.size
        return round(spare / 2) if self.rounding == "even" else spare // 2

    def normalised(self, pixels: np.ndarray) -> np.ndarray:
        """A tower's input (N, 3, size, size) float32 of scaled photos (N, size, size, 3) uint8."""
        scale = np.float32(1 / 255) / np.asarray(self.std, np.float32)
        offset = -np.asarray(self.mean, np.float32) / np.asarray(self.std, np.float32)
        return (pixels * scale + offset).transpose(0, 3, 1, 2)

    def to_json(self) -> dict[str, Any]:
        """As plain values, for fingerprints."""
        return asdict(self)


def decode(photo: bytes, max_pixels: float = math.inf) -> Image.Image:
    """One encoded photo as RGB, turned the way its EXIF orientation says.

    Args:
        photo: The encoded photo.
        max_pixels: Without a limit for photos that ingest has judged.

    Raises:
        UserError: It is not a photo that can be read, or has more pixels.
    """
    with _readable(photo, max_pixels) as image:
        return upright(image)


def _turned(size: tuple[int, int], turn: int) -> tuple[int, int]:
    return size[::-1] if turn in ON_ITS_SIDE else size


@contextmanager
def _readable(photo: bytes, max_pixels: float = math.inf, least: pictures.Least | None = None) -> Iterator[Image.Image]:
    try:
        with pictures.opened(photo, max_pixels, least) as image:
            yield image
    except PictureError as error:
        raise UserError(f"not a readable photo: {error}") from None
