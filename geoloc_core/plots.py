"""The one look of all pictures: small, quiet, the same bytes for the same data."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoloc_core import escape
from geoloc_core.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL.Image import Image

COLOURS = ("#1f6f8b", "#e07a5f", "#3d405b", "#81b29a", "#f2cc8f", "#7b6d8d")
STYLE = {
    "figure.dpi": 110,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "text.parse_math": False,
    "axes.prop_cycle": f"cycler('color', {list(COLOURS)})",
}

PIXELS = 2
"""Of a dot map, per degree."""
LEFT, TOP, RIGHT, BOTTOM = 36, 26, 14, 20
"""Margins of a dot map in pixels."""


@contextmanager
def picture(path: Path, width: float = 6, height: float = 3.2) -> Iterator["Axes"]:
    """Draw on the axes and save them as PNG when the block ends.

    Args:
        path: The PNG to write.
        width: Inches.
        height: Inches.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure.subplots()
        with replacing(path) as aside:
            figure.savefig(aside, format="png", metadata={"Software": None})


def label(text: str, most: int = 20) -> str:
    """Untrusted text as a label: no more than so many characters, all of them visible."""
    return escape.terminal(text)[:most]


def world_map(axes: "Axes", latitudes: Any, longitudes: Any, **style: Any) -> None:
    """Points on a plain longitude–latitude frame.

    Args:
        axes: Where to draw.
        latitudes: (N,) degrees.
        longitudes: (N,) degrees.
        style: Passed on to ``scatter``.
    """
    axes.scatter(longitudes, latitudes, **{"s": 3, "alpha": 0.5, "linewidths": 0, **style})
    axes.set(xlim=(-180, 180), ylim=(-90, 90), xticks=range(-180, 181, 60), yticks=range(-90, 91, 30))


def dot_map(path: Path, title: str, points: Mapping[str, tuple[Any, Any]]) -> None:
    """Points on a plain longitude–latitude frame, as PNG; where many lie, the dots are darker.

    Drawn without Matplotlib, which takes longer to start than such a map takes to draw: every corpus has two.

    Args:
        path: The PNG to write.
        title: What stands above it.
        points: By name, (N,) latitudes and (N,) longitudes in degrees; those that are not finite are left out. The
            names stand in the legend if there are several.
    """
    import numpy as np
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (360 * PIXELS + 1 + LEFT + RIGHT, 180 * PIXELS + 1 + TOP + BOTTOM), "white")
    pen = ImageDraw.Draw(image)
    _grid(pen)
    pixels = np.asarray(image, dtype=np.float32)
    for colour, (latitudes, longitudes) in zip(_cycled(len(points)), points.values(), strict=True):
        cover = 1 - 0.4 ** _ink(np.asarray(latitudes, np.float64), np.asarray(longitudes, np.float64))
        inside = pixels[TOP : TOP + len(cover), LEFT : LEFT + cover.shape[1]]
        inside += cover[..., None] * (np.array(_rgb(colour), np.float32) - inside)
    image = Image.fromarray(pixels.round().astype(np.uint8))
    pen = ImageDraw.Draw(image)
    write(pen, (LEFT, 6), title, 13)
    for line, (colour, name) in enumerate(zip(_cycled(len(points)), points, strict=True) if len(points) > 1 else ()):
        y = TOP + 180 * PIXELS - 16 * (len(points) - line)
        pen.ellipse((LEFT + 8, y + 2, LEFT + 15, y + 9), fill=colour)
        write(pen, (LEFT + 20, y), name)
    save(image, path)


def write(pen: Any, at: tuple[float, float], text: str, size: int = 10, anchor: str = "la") -> None:
    """Text on a picture of Pillow's, where its anchor is to be."""
    from PIL import ImageFont

    pen.text(at, text, fill="#333333", font=ImageFont.load_default(size), anchor=anchor)


def save(image: "Image", path: Path) -> None:
    """A picture of Pillow's as PNG."""
    with replacing(path) as aside:
        image.save(aside, format="png")


def _grid(pen: Any) -> None:
    right, bottom = LEFT + 360 * PIXELS, TOP + 180 * PIXELS
    for degrees in range(-180, 181, 60):
        x = LEFT + (degrees + 180) * PIXELS
        pen.line((x, TOP, x, bottom), fill="#e6e6e6")
        write(pen, (x, bottom + 4), f"{degrees}°", anchor="ma")
    for degrees in range(-90, 91, 30):
        y = TOP + (90 - degrees) * PIXELS
        pen.line((LEFT, y, right, y), fill="#e6e6e6")
        write(pen, (LEFT - 4, y), f"{degrees}°", anchor="rm")


def _ink(latitudes: Any, longitudes: Any) -> Any:
    """How many dots, each three pixels wide, cover each pixel of the frame."""
    import numpy as np

    known = np.isfinite(latitudes) & np.isfinite(longitudes)
    high, wide = 180 * PIXELS + 1, 360 * PIXELS + 1
    row = ((90 - latitudes[known]) * PIXELS).round().astype(np.int64).clip(0, high - 1)
    column = ((longitudes[known] + 180) * PIXELS).round().astype(np.int64).clip(0, wide - 1)
    counts = np.bincount(row * wide + column, minlength=high * wide).reshape(high, wide).astype(np.float32)
    padded = np.pad(counts, 1)
    middle, cross = padded[1:-1, 1:-1], padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    corners = padded[:-2, :-2] + padded[:-2, 2:] + padded[2:, :-2] + padded[2:, 2:]
    return middle + 0.8 * cross + 0.3 * corners


def _cycled(count: int) -> Sequence[str]:
    return [COLOURS[number % len(COLOURS)] for number in range(count)]


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:], 16)
