"""Maps drawn on photos."""

import base64
import io

import numpy as np
from PIL import Image

from geoloc_core import plots

LEAST, MOST = 448, 640
"""Longer edge of a photo as it is shown, pixels."""
COLOURS = "inferno"
"""Perceptually uniform, and readable to people who do not tell red from green."""
TOP = 99.5
"""Percentile of a map that gets the brightest colour: one pixel alone does not darken the rest."""
STRIP = 14
"""Width of the scale, pixels."""


def shown(photo: np.ndarray) -> np.ndarray:
    """A photo (H, W, 3) uint8 at the size at which it is shown."""
    longest = max(photo.shape[:2])
    return _resized(photo, min(max(longest, LEAST), MOST) / longest)


def thumbnail(photo: np.ndarray, longest: int) -> np.ndarray:
    """A photo (H, W, 3) uint8 no larger than so many pixels."""
    return _resized(photo, min(1.0, longest / max(photo.shape[:2])))


def _resized(photo: np.ndarray, scale: float) -> np.ndarray:
    height, width = (max(1, round(edge * scale)) for edge in photo.shape[:2])
    return np.asarray(Image.fromarray(photo).resize((width, height), Image.Resampling.BICUBIC))


def heated(photo: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A photo (H, W, 3) uint8 in grey under the colours of a map (h, w): what speaks for the answer is bright."""
    height, width = photo.shape[:2]
    smooth = Image.fromarray(values.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    heat = relative(np.asarray(smooth, np.float64))[..., None]
    grey = np.repeat(np.asarray(Image.fromarray(photo).convert("L"), np.float64)[..., None], 3, axis=2)
    cover = 0.25 + 0.6 * heat
    found: np.ndarray = (grey * (1 - cover) + _colours(heat[..., 0]) * cover).round().astype(np.uint8)
    return found


def relative(values: np.ndarray) -> np.ndarray:
    """A map (h, w) between 0 and 1: what speaks against the answer, or not at all, is 0."""
    positive = np.maximum(values, 0)
    top = np.percentile(positive, TOP) or positive.max()
    found: np.ndarray = np.minimum(positive / top, 1) if top > 0 else positive
    return found


def _colours(heat: np.ndarray) -> np.ndarray:
    """RGB (…, 3) from 0 to 255 of values from 0 to 1."""
    from matplotlib import colormaps

    found: np.ndarray = colormaps[COLOURS](heat)[..., :3] * 255
    return found


def beside(photo: np.ndarray, heat: np.ndarray) -> Image.Image:
    """A photo (H, W, 3), beside it the same with its map, and the scale of its colours."""
    height, width = photo.shape[:2]
    gap, room = 12, 44
    canvas = Image.new("RGB", (2 * width + 2 * gap + STRIP + room, height), "white")
    canvas.paste(Image.fromarray(photo), (0, 0))
    canvas.paste(Image.fromarray(heat), (width + gap, 0))
    left = 2 * width + 2 * gap
    scale = np.broadcast_to(_colours(np.linspace(1, 0, height))[:, None], (height, STRIP, 3))
    canvas.paste(Image.fromarray(scale.round().astype(np.uint8)), (left, 0))
    from PIL import ImageDraw

    pen = ImageDraw.Draw(canvas)
    plots.write(pen, (left + STRIP + 4, 2), "most", 12)
    plots.write(pen, (left + STRIP + 4, height - 3), "none", 12, "ld")
    return canvas


def address(photo: np.ndarray) -> str:
    """A picture (H, W, 3) uint8 as an address that holds it, so that a page needs no other file."""
    stream = io.BytesIO()
    Image.fromarray(photo).save(stream, "WEBP", quality=80)  # half of a JPEG's size: a report has hundreds
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
