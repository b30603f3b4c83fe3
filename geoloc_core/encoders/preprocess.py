"""From encoded photos to a tower's input: part of the tower, so that serving cannot drift from training."""

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps

from geoloc_core.errors import UserError

RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


@dataclass(frozen=True)
class Preprocess:
    """How a tower wants its photos.

    Attributes:
        size: Height and width of the input, pixels.
        mode: ``crop`` scales the shorter edge to ``size`` and cuts the centre (CLIP); ``squash`` scales
            both edges to ``size`` (ViT).
        resample: ``bicubic`` or ``bilinear``.
        mean: Per channel, of values in [0, 1].
        std: Per channel, of values in [0, 1].
    """

    size: int
    mode: Literal["crop", "squash"]
    resample: Literal["bicubic", "bilinear"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, photos: Sequence[bytes], pool: ThreadPoolExecutor | None = None) -> np.ndarray:
        """Decode, scale and normalise N encoded photos.

        Args:
            photos: N encoded photos of any format Pillow reads.
            pool: Threads to decode in; Pillow frees the interpreter while it decodes and scales.

        Returns:
            (N, 3, size, size) float32.
        """
        pixels = np.stack(list((pool.map if pool else map)(self.pixels, photos)))
        scale = np.float32(1 / 255) / np.asarray(self.std, np.float32)
        offset = -np.asarray(self.mean, np.float32) / np.asarray(self.std, np.float32)
        return (pixels * scale + offset).transpose(0, 3, 1, 2)

    def pixels(self, photo: bytes) -> np.ndarray:
        """Decode and scale one photo: (size, size, 3) uint8."""
        image = decode(photo)
        if self.mode == "squash":
            return np.asarray(image.resize((self.size, self.size), RESAMPLING[self.resample]))
        width, height = image.size
        # torchvision's Resize and CenterCrop, to the pixel: towers were trained with them
        short, long = min(width, height), max(width, height)
        scaled = int(self.size * long / short)
        shape = (self.size, scaled) if width <= height else (scaled, self.size)
        image = image.resize(shape, RESAMPLING[self.resample])
        left, top = round((shape[0] - self.size) / 2), round((shape[1] - self.size) / 2)
        return np.asarray(image.crop((left, top, left + self.size, top + self.size)))

    def to_json(self) -> dict[str, Any]:
        """As plain values, for fingerprints."""
        return asdict(self)


def decode(photo: bytes) -> Image.Image:
    """One encoded photo as RGB, turned the way its EXIF orientation says.

    Raises:
        UserError: It is not a photo that Pillow can read.
    """
    try:
        image = Image.open(io.BytesIO(photo))
        ImageOps.exif_transpose(image, in_place=True)
        return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"not a readable photo: {error}") from None
