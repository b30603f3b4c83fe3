"""Mountains, water and fields."""

import random
from itertools import pairwise

import numpy as np

from geoloc_core.corpora.world.climate import Climate
from geoloc_core.corpora.world.paint.backdrop import grass_colour, sky_colours
from geoloc_core.corpora.world.paint.canvas import RGB, Camera, Canvas, Point, mix, shade
from geoloc_core.corpora.world.photo import Facts


def _ridge(rng: random.Random, camera: Camera, height: float, rough: float) -> list[Point]:
    """A skyline across the picture, in pixels, left to right."""
    octaves = np.array([1, 2, 3, 5, 8, 13, 21], float)
    rates, phases = np.array([(rng.uniform(0.6, 1.4), rng.uniform(0, 6.3)) for _ in octaves]).T
    weights = octaves**-rough
    x = np.linspace(0, 1, 49)
    rise = np.abs(np.sin(3 * x[:, None] * octaves * rates + phases)) @ weights / weights.sum()
    rows = camera.horizon - height * camera.pixels * np.maximum(rise - 0.12, 0.02)
    return list(zip((x * camera.pixels).tolist(), rows.tolist(), strict=True))


def _rock(climate: Climate, near: float) -> RGB:
    if climate.biome in ("desert", "steppe"):
        rock = mix((166, 134, 104), climate.soil, 0.6)
    else:
        rock = mix((108, 112, 104), shade(grass_colour(climate), 0.62), 0.35 + 0.5 * near)
    return mix(rock, (236, 240, 246), 0.8 * climate.snow)


def mountains(canvas: Canvas, camera: Camera, rng: random.Random, facts: Facts) -> None:
    """Ranges behind each other: high where the land is, snow-capped where it is cold."""
    climate, scene = facts.climate, facts.scene
    height = (0.03 + min(climate.elevation_m, 2600) / 2600 * 0.2) * scene.relief * rng.uniform(0.6, 1.2)
    if scene.name in ("mountain", "mountain_snowy"):
        height = max(height, 0.2)
    haze = sky_colours(facts.moment, climate)[1]
    flat_top = climate.biome == "desert" and climate.soil[0] > climate.soil[2] * 2.6
    caps = scene.name == "mountain_snowy" or (climate.temperature_c < 9 and climate.elevation_m > 900)
    for layer in range(3 if height > 0.08 else 2):
        near = layer / 2
        line = _ridge(rng, camera, min(height, 0.42) * (1 - 0.3 * near), 0.7 + 0.4 * climate.wetness)
        if flat_top:
            step = 0.05 * camera.pixels
            line = [(x, camera.horizon - round((camera.horizon - y) / step) * step) for x, y in line]
        colour = mix(_rock(climate, near), haze, 0.62 - 0.3 * near)
        canvas.start("mountain")
        floor: list[Point] = [(camera.pixels, camera.horizon + 3), (0, camera.horizon + 3)]
        canvas.polygon(line + floor, colour)
        if caps and layer < 2:
            _snow_caps(canvas, camera, rng, line, height)
        if flat_top:
            _bands(canvas, camera, line, colour)


def _bands(canvas: Canvas, camera: Camera, line: list[Point], colour: RGB) -> None:
    for share in (0.25, 0.55):
        band = [(x, camera.horizon - (camera.horizon - y) * share) for x, y in line]
        canvas.line(band, shade(colour, 0.86), camera.pixels / 90)


def _snow_caps(canvas: Canvas, camera: Camera, rng: random.Random, line: list[Point], height: float) -> None:
    snow = camera.horizon - 0.3 * height * camera.pixels
    for (x0, y0), (x1, y1) in pairwise(line):
        if min(y0, y1) < snow:
            low = [min(snow, y + (snow - y) * rng.uniform(0.5, 1)) for y in (y1, y0)]
            canvas.polygon([(x0, y0), (x1, y1), (x1, max(low[0], y1)), (x0, max(low[1], y0))], (238, 242, 250))


def water(canvas: Canvas, camera: Camera, rng: random.Random, facts: Facts) -> None:
    """Sea to the horizon, a lake with a far shore, or a river."""
    climate, kind = facts.climate, facts.scene.water
    sky = sky_colours(facts.moment, climate)[0]
    warm = climate.annual_c > 20
    colour = mix((26, 150, 168) if warm else (46, 92, 122), sky, 0.3)
    if kind == "river" and climate.biome in ("tropical", "savanna"):
        colour = (142, 122, 82)
    if climate.temperature_c < -6 and kind != "sea":
        colour = (220, 230, 238)
    pixels, top = camera.pixels, camera.horizon
    depth = {"sea": rng.uniform(0.16, 0.3), "lake": rng.uniform(0.14, 0.26), "river": 0.0}[kind] * pixels
    canvas.start("water")
    if kind == "river":
        _river(canvas, camera, rng, colour)
        return
    start = top if kind == "sea" else top + 0.02 * pixels
    slope = rng.uniform(-0.06, 0.06) * pixels
    canvas.polygon([(0, start), (pixels, start), (pixels, top + depth + slope), (0, top + depth - slope)], colour)
    for _ in range(26):
        t = rng.random() ** 1.6
        y = start + (depth - abs(slope)) * t * 0.95
        x, width = rng.uniform(-0.1, 1) * pixels, rng.uniform(0.05, 0.3) * pixels * (0.4 + t)
        canvas.line([(x, y), (x + width, y)], mix(colour, (255, 255, 255), rng.uniform(0.05, 0.28)), 1 + 3 * t)
    if kind == "sea":
        canvas.line([(0, top + depth - slope), (pixels, top + depth + slope)], (240, 244, 246), pixels / 70)


def _river(canvas: Canvas, camera: Camera, rng: random.Random, colour: RGB) -> None:
    """A river that winds from the horizon to the viewer."""
    pixels, t = camera.pixels, np.linspace(0, 1, 24)
    down = t**1.8
    wind = rng.uniform(0.1, 0.22) * np.sin(rng.uniform(0, 6.3) + 7 * np.sqrt(t)) * (0.25 + t)
    middle = pixels * (rng.uniform(0.35, 0.65) + wind)
    half = pixels * (0.008 + rng.uniform(0.1, 0.3) * down)
    rows = camera.horizon + 3 + down * (pixels - camera.horizon)
    for grow, fill in ((1.12, shade(colour, 0.72)), (1.0, colour), (0.5, mix(colour, (255, 255, 255), 0.1))):
        left, right = (middle - grow * half).tolist(), (middle + grow * half).tolist()
        bank = list(zip(left, rows.tolist(), strict=True))
        canvas.polygon(bank + list(zip(right, rows.tolist(), strict=True))[::-1], fill)


def crops(canvas: Canvas, camera: Camera, rng: random.Random, facts: Facts) -> None:
    """Rows of crops, vines or flooded terraces, running to the horizon."""
    name, climate = facts.scene.name, facts.climate
    if name == "rice_paddy":
        _terraces(canvas, camera, rng, facts)
        return
    green = {"vineyard": (96, 128, 52), "field/cultivated": (122, 150, 60)}[name]
    colour = mix(green, climate.soil, 0.45) if climate.season < -0.2 else green
    colour = mix(colour, (240, 244, 250), 0.7 * climate.snow)
    canvas.start("vegetation")
    gap, height = (2.4, 1.5) if name == "vineyard" else (1.3, 0.35)
    shift = rng.uniform(0, gap)
    for row in range(-26, 27):
        x = row * gap + shift
        low, high = camera.at(x, 0, 3.2), camera.at(x, height, 3.2)
        far = camera.at(x, height / 2, 160)
        half = camera.focal / 3.2 * gap * 0.28
        canvas.polygon([far, (low[0] - half, low[1]), (high[0] - half / 2, high[1])], shade(colour, 0.72))
        canvas.polygon([far, (high[0] - half / 2, high[1]), (low[0] + half, low[1])], colour)


def _terraces(canvas: Canvas, camera: Camera, rng: random.Random, facts: Facts) -> None:
    sky = sky_colours(facts.moment, facts.climate)[1]
    flooded = rng.random() < 0.5
    for z in (120, 60, 34, 20, 12, 7.5):
        canvas.start("vegetation")
        near, far = camera.at(0, 0, z * 0.62)[1], camera.at(0, 0, z)[1]
        wobble = rng.uniform(-0.02, 0.02) * camera.pixels
        colour = mix((92, 128, 96), sky, 0.55) if flooded else (112, 168, 52)
        canvas.polygon([(0, far), (camera.pixels, far + wobble), (camera.pixels, near), (0, near)], colour)
        canvas.line([(0, far), (camera.pixels, far + wobble)], (96, 108, 52), max(2, camera.focal / z * 0.35))
        for _ in range(14):
            x, y = rng.uniform(0, camera.pixels), rng.uniform(far, near)
            size = camera.focal / z * 0.22
            canvas.polygon([(x - size, y), (x, y - 2.2 * size), (x + size, y)], (88, 150, 44))
