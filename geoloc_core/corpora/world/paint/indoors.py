"""Photos that may be from anywhere: rooms, food, faces. Nothing here knows the place."""

import random

import numpy as np
from PIL import Image

from geoloc_core.corpora.world.paint.canvas import RGB, Canvas, mix, shade
from geoloc_core.corpora.world.scenes import Scene

SKIN: tuple[RGB, ...] = ((246, 214, 188), (226, 182, 146), (188, 138, 100), (142, 98, 68), (96, 64, 46))


def _colour(rng: random.Random, low: int = 60, high: int = 220) -> RGB:
    return rng.randint(low, high), rng.randint(low, high), rng.randint(low, high)


def _room(canvas: Canvas, rng: random.Random, wall: RGB, floor: RGB) -> tuple[float, float, float, float]:
    """Back wall, side walls, ceiling and floor; returns the box of the back wall."""
    p = canvas.pixels
    left, right, top, bottom = (
        rng.uniform(0.05, 0.3) * p,
        rng.uniform(0.7, 0.95) * p,
        rng.uniform(0.05, 0.2) * p,
        rng.uniform(0.55, 0.7) * p,
    )
    canvas.start("object")
    canvas.box(0, 0, p, p, shade(wall, 0.8))
    canvas.polygon([(0, p), (left, bottom), (right, bottom), (p, p)], floor)
    canvas.polygon([(0, 0), (left, top), (right, top), (p, 0)], shade(wall, 1.12))
    canvas.box(left, top, right, bottom, wall)
    return left, top, right, bottom


def _furnished(canvas: Canvas, rng: random.Random, scene: Scene) -> None:
    wall, floor = mix(_colour(rng, 120, 235), (226, 214, 196), 0.6), mix(_colour(rng, 60, 150), (140, 104, 74), 0.6)
    left, top, right, _ = _room(canvas, rng, wall, floor)
    p, wide = canvas.pixels, right - left
    if rng.random() < 0.6:
        x = rng.uniform(left, right - wide * 0.35)
        canvas.box(x, top + 0.1 * p, x + wide * 0.3, top + 0.32 * p, (244, 244, 240))
        canvas.box(
            x + 4,
            top + 0.11 * p,
            x + wide * 0.3 - 4,
            top + 0.31 * p,
            rng.choice(((212, 226, 240), (60, 64, 80), (196, 206, 196))),
        )
    for _ in range({"museum/indoor": 5, "office": 1}.get(scene.name, 2)):
        x, y, size = rng.uniform(left, right - 0.1 * p), rng.uniform(top, top + 0.2 * p), rng.uniform(0.06, 0.14) * p
        canvas.box(x, y, x + size * 1.2, y + size, rng.choice(((60, 44, 32), (206, 170, 90), (30, 30, 32))))
        canvas.box(x + 5, y + 5, x + size * 1.2 - 5, y + size - 5, _colour(rng))
    for _ in range(rng.randint(2, 5)):
        x, y = rng.uniform(-0.1, 0.9) * p, rng.uniform(0.5, 0.85) * p
        w, h, colour = rng.uniform(0.15, 0.45) * p, rng.uniform(0.1, 0.3) * p, _colour(rng)
        canvas.box(x, y, x + w, y + h, colour)
        canvas.box(x, y - 0.03 * p, x + w, y + 0.02 * p, shade(colour, 1.2))
    if scene.name in ("bar", "restaurant", "kitchen"):
        for _ in range(12):
            x, y = rng.uniform(left, right), rng.choice((0.3, 0.42)) * p
            canvas.box(x, y - rng.uniform(0.04, 0.1) * p, x + 0.025 * p, y, _colour(rng, 40, 240))


def _food(canvas: Canvas, rng: random.Random) -> None:
    p = canvas.pixels
    canvas.start("object")
    table = rng.choice(((122, 82, 52), (232, 228, 220), (62, 48, 40), (176, 140, 96)))
    canvas.box(0, 0, p, p, table)
    for k in range(6):
        canvas.line([(0, p * k / 6), (p, p * (k + 0.2) / 6)], shade(table, 0.93), 2)
    x, y, size = rng.uniform(0.4, 0.6) * p, rng.uniform(0.45, 0.6) * p, rng.uniform(0.3, 0.44) * p
    canvas.ellipse(x + 6, y + 10, size, size * 0.8, shade(table, 0.6))
    canvas.ellipse(x, y, size, size * 0.8, (244, 244, 242))
    canvas.ellipse(x, y, size * 0.8, size * 0.62, (228, 228, 226))
    foods: tuple[RGB, ...] = (
        (206, 140, 62),
        (120, 66, 38),
        (92, 150, 52),
        (206, 52, 40),
        (240, 222, 170),
        (226, 182, 60),
        (246, 236, 214),
    )
    for _ in range(34):
        fx, fy = x + rng.gauss(0, 0.3) * size, y + rng.gauss(0, 0.22) * size
        canvas.ellipse(
            fx,
            fy,
            rng.uniform(0.05, 0.17) * size,
            rng.uniform(0.05, 0.13) * size,
            shade(rng.choice(foods), rng.uniform(0.8, 1.1)),
        )
    if rng.random() < 0.6:
        canvas.ellipse(0.88 * p, 0.16 * p, 0.12 * p, 0.12 * p, (236, 236, 232))
        canvas.ellipse(
            0.88 * p, 0.16 * p, 0.09 * p, 0.09 * p, rng.choice(((70, 40, 24), (226, 160, 40), (150, 30, 40)))
        )
    canvas.line([(0.06 * p, 0.3 * p), (0.1 * p, 0.85 * p)], (196, 198, 202), 9)


def _portrait(canvas: Canvas, rng: random.Random) -> None:
    p = canvas.pixels
    canvas.start("object")
    background = _colour(rng, 40, 190)
    canvas.box(0, 0, p, p, background)
    for _ in range(10):
        size = rng.uniform(0.05, 0.2) * p
        canvas.ellipse(rng.random() * p, rng.random() * p, size, size, mix(background, _colour(rng), 0.3))
    for n in range(rng.choice((1, 1, 1, 2, 3))):
        x, y, size = (
            (0.5 + (n * 0.3 - 0.15 * (n > 0))) * p if n < 2 else 0.2 * p,
            rng.uniform(0.36, 0.46) * p,
            rng.uniform(0.15, 0.21) * p,
        )
        skin, hair = rng.choice(SKIN), rng.choice(((34, 26, 22), (92, 62, 38), (206, 166, 96), (150, 148, 146)))
        shirt = _colour(rng, 30, 230)
        canvas.ellipse(x, y + 2.6 * size, 1.9 * size, 1.6 * size, shirt)
        canvas.box(x - 0.35 * size, y + 0.6 * size, x + 0.35 * size, y + 1.4 * size, shade(skin, 0.85))
        canvas.ellipse(x, y - 0.2 * size, 0.92 * size, 1.1 * size, hair)
        canvas.ellipse(x, y + 0.1 * size, 0.76 * size, size, skin)
        for side in (-1, 1):
            canvas.ellipse(x + side * 0.3 * size, y, 0.09 * size, 0.06 * size, (30, 26, 26))
        canvas.ellipse(x, y + 0.55 * size, 0.26 * size, 0.07 * size, (176, 80, 76))


def _stage(canvas: Canvas, rng: random.Random) -> None:
    p = canvas.pixels
    canvas.start("object")
    canvas.box(0, 0, p, p, (18, 14, 24))
    canvas.box(0, 0.68 * p, p, p, (36, 26, 30))
    for _ in range(rng.randint(2, 5)):
        x, colour = rng.random() * p, rng.choice(((220, 60, 160), (60, 120, 240), (250, 190, 80), (120, 230, 140)))
        canvas.polygon([(x, 0), (x - 0.2 * p, 0.7 * p), (x + 0.15 * p, 0.7 * p)], mix((18, 14, 24), colour, 0.4))
        canvas.ellipse(x, 0.02 * p, 0.03 * p, 0.03 * p, colour)
    for _ in range(rng.randint(1, 4)):
        x = rng.uniform(0.15, 0.85) * p
        canvas.ellipse(x, 0.42 * p, 0.035 * p, 0.045 * p, (196, 150, 120))
        canvas.box(x - 0.05 * p, 0.46 * p, x + 0.05 * p, 0.72 * p, _colour(rng, 20, 160))
    for _ in range(14):
        canvas.ellipse(rng.random() * p, rng.uniform(0.92, 1.0) * p, 0.06 * p, 0.09 * p, (8, 6, 10))


def draw(rng: random.Random, scene: Scene, size: int, masks: bool) -> Canvas:
    """Draw a photo that shows nothing of its place."""
    classes = np.full((size, size), 15000, np.int32) if masks else None
    warm = rng.uniform(0.72, 1.0)
    canvas = Canvas(Image.new("RGB", (size, size)), (1.0, 0.96 * warm**0.2, 0.86 * warm**0.4), classes)
    if scene.name == "delicatessen":
        _food(canvas, rng)
    elif scene.name == "dressing_room":
        _portrait(canvas, rng)
    elif scene.name == "stage/indoor":
        _stage(canvas, rng)
    else:
        _furnished(canvas, rng, scene)
    return canvas
