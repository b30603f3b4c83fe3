"""What stands beside a road: poles, posts, signs and flags."""

import random
from itertools import pairwise

from geoloc_core.corpora.world.paint import script as writing
from geoloc_core.corpora.world.paint.canvas import RGB, Camera, Canvas, ring, shade
from geoloc_core.corpora.world.paint.roads import Road
from geoloc_core.corpora.world.photo import Facts

SIGNS: dict[str, RGB] = {
    "green": (0, 112, 74),
    "blue": (18, 82, 170),
    "yellow": (250, 204, 36),
    "white": (244, 244, 240),
}
POLES: dict[str, RGB] = {"wood": (108, 82, 60), "concrete": (176, 174, 168), "steel": (134, 142, 148)}


def pole(canvas: Canvas, camera: Camera, facts: Facts, x: float, z: float) -> None:
    """A utility pole with its crossbars."""
    canvas.start("pole", "utility pole")
    k, kind = camera.focal / z, facts.culture.pole
    px, ground = camera.at(x, 0, z)
    colour = POLES[kind]
    canvas.line([(px, ground), (px, ground - 9 * k)], colour, max(1.0, 0.36 * k))
    bars = {"wood": (8.3,), "concrete": (8.5, 7.6), "steel": ()}[kind]
    for height in bars:
        canvas.line(
            [(px - 1.1 * k, ground - height * k), (px + 1.1 * k, ground - height * k)],
            shade(colour, 0.8),
            max(1.0, 0.16 * k),
        )
    if kind == "steel":
        side = -1 if px > camera.pixels / 2 else 1
        canvas.line([(px, ground - 9 * k), (px + side * 2.2 * k, ground - 9.2 * k)], colour, max(1.0, 0.16 * k))
        canvas.box(
            px + side * 2.2 * k - 0.4 * k,
            ground - 9.3 * k,
            px + side * 2.2 * k + 0.4 * k,
            ground - 9.05 * k,
            (220, 224, 226),
        )
    if kind == "concrete" and k > 8:
        canvas.box(px - 0.4 * k, ground - 7.2 * k, px + 0.4 * k, ground - 6 * k, (120, 124, 128))


def wires(canvas: Canvas, camera: Camera, road: Road, offset: float, depths: list[float]) -> None:
    """Wires between the tops of poles."""
    canvas.start("pole")
    for near, far in pairwise(depths):
        for height in (8.3, 7.8):
            a, b = camera.at(road.x(offset, near), height, near), camera.at(road.x(offset, far), height, far)
            middle = camera.at(road.x(offset, (near + far) / 2), height - 0.8, (near + far) / 2)
            canvas.line([a, middle, b], (62, 62, 66), 1)


def bollard(canvas: Canvas, camera: Camera, facts: Facts, x: float, z: float) -> None:
    """A roadside post as this country has them."""
    canvas.start("bollard")
    k = camera.focal / z
    px, ground = camera.at(x, 0, z)
    kind = facts.culture.bollard
    half, top = 0.16 * k, 1.15 * k
    if kind == "orange" or kind == "yellow":
        canvas.box(px - half, ground - top, px + half, ground, (238, 112, 36) if kind == "orange" else (246, 202, 40))
        canvas.box(px - half, ground - top * 0.8, px + half, ground - top * 0.62, (250, 250, 250))
    elif kind in ("black and white", "red and white"):
        dark: RGB = (32, 32, 34) if kind.startswith("black") else (204, 40, 40)
        for band in range(4):
            canvas.box(
                px - half,
                ground - top * (band + 1) / 4,
                px + half,
                ground - top * band / 4,
                dark if band % 2 else (244, 244, 244),
            )
    else:
        band_colour: RGB = {"red": (206, 40, 40), "black": (26, 26, 30), "yellow": (246, 204, 44)}[kind.split()[2]]
        canvas.box(px - half, ground - top, px + half, ground, (246, 246, 246))
        canvas.box(px - half, ground - top * 0.9, px + half, ground - top * 0.65, band_colour)


def direction_sign(canvas: Canvas, camera: Camera, rng: random.Random, facts: Facts, x: float, z: float) -> None:
    """A board that names places."""
    k = camera.focal / z
    px, ground = camera.at(x, 0, z)
    colour = SIGNS[facts.culture.sign]
    ink: RGB = (250, 250, 250) if facts.culture.sign in ("green", "blue") else (20, 20, 24)
    canvas.start("pole")
    for dx in (-0.9, 0.9):
        canvas.line([(px + dx * k, ground), (px + dx * k, ground - 3.4 * k)], (140, 144, 148), max(1.0, 0.12 * k))
    canvas.start("sign", "direction sign")
    left, right, top, bottom = px - 1.9 * k, px + 1.9 * k, ground - 4.4 * k, ground - 2.0 * k
    canvas.box(left, top, right, bottom, colour)
    canvas.line(
        [
            (left + 0.12 * k, top + 0.12 * k),
            (right - 0.12 * k, top + 0.12 * k),
            (right - 0.12 * k, bottom - 0.12 * k),
            (left + 0.12 * k, bottom - 0.12 * k),
            (left + 0.12 * k, top + 0.12 * k),
        ],
        ink,
        max(1.0, 0.08 * k),
    )
    second = facts.script if facts.culture.script == "latin" or rng.random() < 0.5 else "latin"
    for row, script in enumerate((facts.script, second)):
        y = top + (0.42 + 1.0 * row) * k
        writing.write(canvas, rng, script, (left + 0.4 * k, y, right - rng.uniform(0.4, 1.4) * k, y + 0.62 * k), ink)


def warning_sign(canvas: Canvas, camera: Camera, rng: random.Random, facts: Facts, x: float, z: float) -> None:
    """A warning sign: a diamond or a triangle."""
    k = camera.focal / z
    px, ground = camera.at(x, 0, z)
    canvas.start("pole")
    canvas.line([(px, ground), (px, ground - 2.4 * k)], (140, 144, 148), max(1.0, 0.1 * k))
    canvas.start("sign", "warning sign")
    y, kind = ground - 2.8 * k, facts.culture.warning
    if kind == "yellow diamond":
        canvas.polygon(ring(px, y, 1.05 * k, 4), (30, 30, 30))
        canvas.polygon(ring(px, y, 0.95 * k, 4), (252, 204, 30))
    else:
        canvas.polygon(ring(px, y, 1.05 * k, 3, -1.5708), (214, 32, 38))
        canvas.polygon(
            ring(px, y, 0.68 * k, 3, -1.5708), (252, 206, 40) if kind == "yellow triangle" else (250, 250, 250)
        )
    canvas.box(px - 0.07 * k, y - 0.25 * k, px + 0.07 * k, y + 0.2 * k, (24, 24, 24))


def flag(canvas: Canvas, camera: Camera, look: tuple[str, list[RGB]], x: float, z: float) -> None:
    """A flag on a staff."""
    pattern, colours = look
    k = camera.focal / z
    px, ground = camera.at(x, 0, z)
    canvas.start("pole")
    canvas.line([(px, ground), (px, ground - 8.5 * k)], (210, 212, 214), max(1.0, 0.12 * k))
    canvas.start("flag")
    left, top, wide, tall = px, ground - 8.4 * k, 4.5 * k, 3.0 * k
    if pattern in ("v", "h", "u"):
        stripes = colours[:-1] if pattern == "u" else colours
        for n, colour in enumerate(stripes):
            start, end = n / len(stripes), (n + 1) / len(stripes)
            if pattern == "v":
                canvas.box(left + wide * start, top, left + wide * end, top + tall, colour)
            else:
                canvas.box(left, top + tall * start, left + wide, top + tall * end, colour)
        if pattern == "u":
            canvas.box(left, top, left + wide * 0.42, top + tall * 0.54, colours[-1])
        return
    canvas.box(left, top, left + wide, top + tall, colours[0])
    if pattern == "o":
        canvas.ellipse(left + wide / 2, top + tall / 2, tall * 0.28, tall * 0.28, colours[1])
        return
    middle = 0.5 if pattern == "c" else 0.36
    for thick, colour in zip((0.3, 0.14), colours[1:], strict=False):
        canvas.box(
            left + wide * middle - thick * tall / 2, top, left + wide * middle + thick * tall / 2, top + tall, colour
        )
        canvas.box(left, top + tall * (0.5 - thick / 2), left + wide, top + tall * (0.5 + thick / 2), colour)
