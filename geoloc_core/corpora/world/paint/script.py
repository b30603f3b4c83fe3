"""Writing that looks like a script without saying anything: strokes on a 5 × 5 grid, no fonts."""

import random

from geoloc_core.corpora.world.paint.canvas import RGB, Canvas, Point

GLYPHS: dict[str, tuple[str, ...]] = {
    "latin": (
        "04 20 44;12 32",
        "00 04;00 40;02 32",
        "40 00 04 44",
        "00 04 34 43 41 30 00",
        "40 00 04 44;02 32",
        "00 04;40 44;02 42",
        "20 24",
        "04 00 44 40",
        "00 40 44 04 00",
        "04 00 30 31 02",
        "00 40;20 24",
        "00 24 40",
    ),
    "cyrillic": (
        "00 04;40 44;02 42",
        "04 00 40 44",
        "00 04 40 44",
        "00 04;02 32 34 04",
        "00 20 02;04 00;40 44;02 42",
        "00 44;40 04;20 24",
        "04 10 40 44;00 04",
        "34 30 00 04;35 45",
        "00 04;40 44;20 24;04 44",
        "40 10 01 02 42;40 44;22 04",
    ),
    "greek": (
        "04 20 44 04",
        "10 30 41 43 34 14 03 01 10;20 24",
        "00 40;02 42;04 44",
        "00 40 22 44 04",
        "04 00 40 44",
        "04 13 01 10 30 41 33 44",
        "00 20 24;40 20",
        "00 02 22 42 40;20 24",
        "04 20 44",
    ),
    "arabic": (
        "43 33 32 43 03",
        "42 40;42 02",
        "44 43 23 22 12 13 03;21 21",
        "43 03 01;30 30",
        "43 23 24 14 13 03;22 22",
        "40 43 03;15 15;25 25",
        "43 33 31 22 33 13 03",
    ),
    "hebrew": (
        "00 40 44",
        "00 04;40 44;00 44",
        "00 40 44 04",
        "10 30 34;04 44",
        "00 40 44;03 04",
        "00 40;42 44;03 04 44",
        "00 03 44 40;20 22",
    ),
    "devanagari": (
        "00 40;30 34;30 12 32",
        "00 40;30 34;03 13 12 32",
        "00 40;30 34;10 12 32;12 24",
        "00 40;20 22 42 44;20 11 13",
        "00 40;30 34;00 01 22 02 14",
        "00 40;20 21 43 24",
    ),
    "thai": (
        "14 11 00 10 11;11 20 40 44",
        "04 01 10 30 41 44;04 14",
        "00 03 14 41 44",
        "01 10 04 24 20 40 44",
        "14 12 02 10 40 44",
        "03 04 24 22 44 40;30 31",
    ),
    "hangul": (
        "00 20 24;40 44;42 52",
        "10 01 12 21 10;30 34;32 42",
        "00 02 22;40 44;03 04 44",
        "00 40;20 22;01 41;03 43 44",
        "01 21 23 03 01;40 44;32 42",
        "00 03 23;41 01;04 44;24 22",
    ),
    "kana": (
        "00 40 22;21 14",
        "10 04;30 20 24 44",
        "01 41;20 24;11 04",
        "00 40;02 42;22 14",
        "20 22 42 44 14 04;01 41",
        "11 02;31 42;04 24 40",
        "00 40 44 04 00;02 42;20 24",
    ),
    "han": (
        "00 40;20 24;02 42;22 04;22 44",
        "00 40 44 04 00;02 42;20 24",
        "10 04;11 41;21 24;22 42;24 44;03 23",
        "00 40;01 41;20 24;03 43;04 44",
        "20 02;20 42;11 31;12 32;22 24;04 44",
    ),
    "georgian": (
        "04 44 42 31 11 02;31 20",
        "00 03 14 34 43 32",
        "44 41 30 10 01 12",
        "10 01 02 13 33 42 41 30 10;42 44",
        "00 04 34 43",
    ),
    "armenian": ("00 03 14 34 43 40;43 54", "04 01 10 30 41;41 51", "00 04 44;02 32 30", "04 01 10 31 32 42"),
    "ethiopic": (
        "04 01 20 41 44;21 24",
        "10 30 41 42 33 13 02 01 10;23 24",
        "00 04;40 44;02 42;20 21",
        "00 40;20 24;04 14",
    ),
    "tamil": (
        "00 40;10 13 33 30;33 44",
        "21 10 01 12 21 24;21 40 44 14",
        "10 04 44 40;22 44",
        "02 11 22 13 02;22 31 42 44 04",
        "00 03 33 31 11;43 44",
    ),
}
"""Letters as strokes; a stroke is a chain of points xy."""

DENSE = {"han": 1.15, "hangul": 1.1, "kana": 1.05, "arabic": 0.8, "devanagari": 0.78}


def _strokes(glyph: str) -> list[list[tuple[float, float]]]:
    return [[(int(p[0]) / 4, int(p[1]) / 4) for p in stroke.split()] for stroke in glyph.split(";")]


LETTERS = {script: [_strokes(glyph) for glyph in glyphs] for script, glyphs in GLYPHS.items()}


def write(
    canvas: Canvas,
    rng: random.Random,
    script: str,
    corners: tuple[float, float, float, float],
    colour: RGB,
    slant: float = 0.0,
) -> None:
    """Fill a box with a word.

    Args:
        canvas: Where to write.
        rng: Which letters.
        script: One of ``LETTERS``.
        corners: Left, top, right and bottom in pixels; the text is as high as the box.
        colour: Ink.
        slant: Pixels by which the right end is lower than the left one.
    """
    left, top, right, bottom = corners
    height = bottom - top
    if height < 4 or right - left < 4:
        return
    pitch = height * DENSE.get(script, 0.85)
    count = max(1, int((right - left) / pitch))
    width = max(1.0, height / 6.5)
    for k in range(count):
        start = left + k * pitch
        drop = slant * k / count
        size = pitch * (1.0 if script in ("arabic", "devanagari") else 0.72)
        for stroke in rng.choice(LETTERS[script]):
            points: list[Point] = [(start + x * size, top + drop + y * height) for x, y in stroke]
            if len(points) == 2 and points[0] == points[1]:
                x, y = points[0]
                canvas.box(x - width / 2, y - width / 2, x + width / 2, y + width / 2, colour)
            else:
                canvas.line(points, colour, width)
