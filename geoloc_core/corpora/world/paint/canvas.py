"""A picture that is drawn twice as large as it will be, with an optional mask of what is where."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

RGB = tuple[int, int, int]
Point = tuple[float, float]

CLASSES = (
    "unlabelled",
    "sky",
    "ground",
    "water",
    "mountain",
    "road",
    "marking",
    "vegetation",
    "building",
    "sign",
    "bollard",
    "pole",
    "car",
    "plate",
    "flag",
    "object",
)
"""Classes of masks; a mask's value is 1,000 × the class's index + the number of the instance."""
OVERSAMPLE = 2


def mix(first: RGB, second: RGB, share: float) -> RGB:
    """A colour between two, ``share`` of the way to the second."""
    return (
        int(first[0] + (second[0] - first[0]) * share),
        int(first[1] + (second[1] - first[1]) * share),
        int(first[2] + (second[2] - first[2]) * share),
    )


def shade(colour: RGB, factor: float) -> RGB:
    """A darker or lighter colour."""
    return (
        min(255, int(colour[0] * factor)),
        min(255, int(colour[1] * factor)),
        min(255, int(colour[2] * factor)),
    )


def tone(colour: RGB, factors: tuple[float, float, float]) -> RGB:
    """A colour with its bands scaled one by one."""
    return (
        min(255, int(colour[0] * factors[0])),
        min(255, int(colour[1] * factors[1])),
        min(255, int(colour[2] * factors[2])),
    )


@dataclass(frozen=True)
class Camera:
    """A level pinhole camera: metres to pixels.

    Attributes:
        pixels: Width and height of the canvas.
        height: Metres of the lens above the ground.
        horizon: Row of the horizon, in pixels.
        focal: Focal length, in pixels.
    """

    pixels: int
    height: float
    horizon: float
    focal: float

    def at(self, x: float, y: float, z: float) -> Point:
        """Pixel of a point ``x`` m to the right, ``y`` m above the ground and ``z`` m ahead."""
        scale = self.focal / z
        return self.pixels / 2 + x * scale, self.horizon - (y - self.height) * scale


class Canvas:
    """Draws shapes in the light of the scene, and their classes where a mask is wanted."""

    def __init__(self, background: Image.Image, tint: tuple[float, float, float], masks: np.ndarray | None) -> None:
        """Start from a background.

        Args:
            background: Picture of the photo's final size.
            tint: Factors of red, green and blue by which the light changes the colours of things.
            masks: Classes of the background, shape (size, size), int32; none where no mask is wanted.
        """
        size = background.width
        self.pixels = size * OVERSAMPLE
        self.image = background.resize((self.pixels, self.pixels), Image.Resampling.NEAREST)
        self.mask = None if masks is None else Image.fromarray(masks, "I")
        self._draw = ImageDraw.Draw(self.image)
        self._mask_draw = None if self.mask is None else ImageDraw.Draw(self.mask)
        self._tint = tint
        self._counts: dict[str, int] = {}
        self._label = 0
        self.things: set[str] = set()
        """What has been drawn, by class or more exactly."""

    def start(self, kind: str, thing: str | None = None) -> None:
        """What is drawn next is a new instance of a class, which ``thing`` calls by a more exact name."""
        self.things.add(thing or kind)
        count = self._counts[kind] = self._counts.get(kind, -1) + 1
        self._label = 1000 * CLASSES.index(kind) + min(count, 999)

    def _lit(self, colour: RGB, glow: bool) -> RGB:
        if glow:
            return colour
        red, green, blue = self._tint
        return min(255, int(colour[0] * red)), min(255, int(colour[1] * green)), min(255, int(colour[2] * blue))

    def polygon(self, points: list[Point], colour: RGB, glow: bool = False) -> None:
        """Fill a polygon."""
        self._draw.polygon(points, fill=self._lit(colour, glow))
        if self._mask_draw:
            self._mask_draw.polygon([(x / OVERSAMPLE, y / OVERSAMPLE) for x, y in points], fill=self._label)

    def box(self, left: float, top: float, right: float, bottom: float, colour: RGB, glow: bool = False) -> None:
        """Fill a rectangle."""
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], colour, glow)

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: RGB, glow: bool = False) -> None:
        """Fill an ellipse."""
        self._draw.ellipse((x - rx, y - ry, x + rx, y + ry), fill=self._lit(colour, glow))
        if self._mask_draw:
            k = OVERSAMPLE
            self._mask_draw.ellipse(((x - rx) / k, (y - ry) / k, (x + rx) / k, (y + ry) / k), fill=self._label)

    def line(self, points: list[Point], colour: RGB, width: float, glow: bool = False) -> None:
        """Draw a line."""
        self._draw.line(points, fill=self._lit(colour, glow), width=max(1, round(width)))
        if self._mask_draw:
            thick = max(1, round(width / OVERSAMPLE))
            self._mask_draw.line([(x / OVERSAMPLE, y / OVERSAMPLE) for x, y in points], fill=self._label, width=thick)

    def finished(self) -> Image.Image:
        """The picture at its final size."""
        return self.image.reduce(OVERSAMPLE)


def ring(x: float, y: float, radius: float, corners: int, turn: float = 0.0) -> list[Point]:
    """A regular polygon."""
    step = 2 * math.pi / corners
    return [(x + radius * math.cos(turn + k * step), y + radius * math.sin(turn + k * step)) for k in range(corners)]
