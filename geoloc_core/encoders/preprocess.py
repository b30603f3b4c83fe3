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
        mode: ``crop`` scales the shorter edge and cuts the centre (CLIP); ``squash`` scales both edges to
            ``size`` (ViT).
        resample: ``bicubic`` or ``bilinear``.
        mean: Per channel, of values in [0, 1].
        std: Per channel, of values in [0, 1].
        shorter_edge: Of the scaled photo before the cut, pixels; ``size`` where it is None.
        rounding: Of half a pixel beside the cut: ``even`` as in torchvision, ``down`` as in transformers.
    """

    size: int
    mode: Literal["crop", "squash"]
    resample: Literal["bicubic", "bilinear"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    shorter_edge: int | None = None
    rounding: Literal["even", "down"] = "even"

    def __call__(self, photos: Sequence[bytes], pool: ThreadPoolExecutor | None = None) -> np.ndarray:
        """Decode and scale N encoded photos.

        Args:
            photos: N encoded photos of any format Pillow reads.
            pool: Threads to decode in; Pillow frees the interpreter while it decodes and scales.

        Returns:
            (N, size, size, 3) uint8.
        """
        return np.stack(list((pool.map if pool else map)(self.pixels, photos)))

    def pixels(self, photo: bytes) -> np.ndarray:
        """Decode and scale one photo: (size, size, 3) uint8."""
        image = decode(photo)
        width, height, left, top = self.geometry(*image.size)
        image = image.resize((width, height), RESAMPLING[self.resample])
        return np.asarray(image.crop((left, top, left + self.size, top + self.size)))

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
