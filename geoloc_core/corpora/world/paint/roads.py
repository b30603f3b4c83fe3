"""Roads, their markings, and cars."""

import random

from geoloc_core.corpora.world.paint import script as writing
from geoloc_core.corpora.world.paint.canvas import RGB, Camera, Canvas, Point, mix, shade, tone
from geoloc_core.corpora.world.photo import Facts

LINE = {"yellow": (236, 188, 40), "white": (240, 240, 236)}
PLATES: dict[str, tuple[RGB, RGB | None]] = {
    "white": ((244, 244, 240), None),
    "yellow": ((248, 206, 40), None),
    "eu": ((246, 246, 244), (24, 62, 160)),
    "black": ((26, 26, 28), None),
    "blue": ((22, 72, 170), None),
    "green": ((28, 112, 66), None),
    "red": ((200, 36, 40), None),
}
DEPTHS = (2.2, 3, 4, 5.5, 8, 12, 18, 28, 45, 75, 130, 260)
PAINT: tuple[RGB, ...] = ((206, 206, 208), (52, 56, 62), (238, 238, 236), (150, 34, 36), (40, 72, 128), (112, 116, 122))


class Road:
    """A road that runs away from the camera, which stands in its own lane.

    Attributes:
        half: Half the width of the road, m.
        centre: How far to the right of the camera the middle of the road is, m.
        walk: Width of the pavement, m.
    """

    def __init__(self, rng: random.Random, facts: Facts) -> None:
        kind = facts.scene.road
        self.half = {"street": 4.2, "highway": 4.0, "track": 2.2}[kind]
        self.walk = 2.4 if kind == "street" else 0.0
        lane = 0.0 if kind == "track" else 2.0
        self.centre = lane if facts.culture.left else -lane
        self.bend = rng.gauss(0, 0.0006) if kind == "street" else rng.gauss(0, 0.0016)
        self.kind = kind

    def x(self, offset: float, z: float) -> float:
        """Metres to the right of the camera of a point ``offset`` m from the middle of the road."""
        return self.centre + offset + self.bend * z * z

    def strip(
        self, camera: Camera, low: float, high: float, near: float = DEPTHS[0], far: float = DEPTHS[-1]
    ) -> list[Point]:
        """The outline of what lies between two offsets from the middle and two depths."""
        depths = [near, *(z for z in DEPTHS if near < z < far), far]
        left = [camera.at(self.x(low, z), 0, z) for z in depths]
        return left + [camera.at(self.x(high, z), 0, z) for z in reversed(depths)]


def surface(canvas: Canvas, camera: Camera, rng: random.Random, facts: Facts, road: Road) -> None:
    """Asphalt or dirt, pavements and lines."""
    climate = facts.climate
    canvas.start("road")
    if road.kind == "track":
        dirt = mix(shade(climate.soil, 1.1), (240, 244, 250), 0.7 * climate.snow)
        canvas.polygon(road.strip(camera, -road.half, road.half), dirt)
        for rut in (-1.1, 0.7):
            canvas.polygon(road.strip(camera, rut - 0.28, rut + 0.42), shade(dirt, 0.86))
        return
    grey = 92 + 24 * facts.locality.asphalt + (26 if climate.biome in ("desert", "savanna") else 0)
    asphalt = mix((int(grey), int(grey), int(grey + 4)), climate.soil, 0.14)
    asphalt = tone(asphalt, facts.locality.earth)
    asphalt = mix(asphalt, (226, 230, 238), 0.55 * climate.snow)
    if road.walk:
        walk = mix((176, 172, 166), climate.soil, 0.2)
        canvas.polygon(
            road.strip(camera, -road.half - road.walk, road.half + road.walk),
            mix(walk, (238, 242, 248), 0.8 * climate.snow),
        )
        for side in (-1, 1):
            canvas.polygon(road.strip(camera, side * road.half, side * (road.half + 0.25)), (206, 202, 196))
    else:
        shoulder = mix(climate.soil, asphalt, 0.3)
        canvas.polygon(
            road.strip(camera, -road.half - 1.2, road.half + 1.2), mix(shoulder, (238, 242, 248), 0.8 * climate.snow)
        )
    canvas.polygon(road.strip(camera, -road.half, road.half), asphalt)
    if climate.snow < 0.8:
        _markings(canvas, camera, facts, road)


def _markings(canvas: Canvas, camera: Camera, facts: Facts, road: Road) -> None:
    culture = facts.culture
    canvas.start("marking", "edge line" if culture.edge != "none" and road.kind == "highway" else None)
    colour = LINE[culture.centre]
    if culture.dash == "solid":
        canvas.polygon(road.strip(camera, -0.15, 0.15), colour)
    elif culture.dash == "double":
        for offset in (-0.34, 0.14):
            canvas.polygon(road.strip(camera, offset, offset + 0.2), colour)
    else:
        length, gap = (2.5, 3.5) if culture.dash == "short" else (5.0, 7.0)
        z = 2.4
        while z < 90:
            canvas.polygon(road.strip(camera, -0.15, 0.15, z, z + length), colour)
            z += length + gap
    if culture.edge != "none" and road.kind == "highway":
        for side in (-1, 1):
            inner = side * (road.half - 0.45)
            canvas.polygon(road.strip(camera, inner, inner + 0.25), LINE[culture.edge])
    if facts.scene.name == "crosswalk":
        for k in range(-4, 4):
            canvas.polygon(road.strip(camera, k + 0.1, k + 0.6, 6.5, 9.5), (242, 242, 238))


def car(canvas: Canvas, camera: Camera, rng: random.Random, facts: Facts, x: float, z: float, away: bool) -> None:
    """A car from behind or from the front."""
    canvas.start("car")
    k = camera.focal / z
    px, ground = camera.at(x, 0, z)
    taxi = facts.scene.name in ("downtown", "crosswalk", "street") and rng.random() < 0.3
    colour = facts.culture.accent if taxi else rng.choice(PAINT)
    van = rng.random() < 0.3
    top = (1.95 if van else 1.45) * k
    half = 0.88 * k
    canvas.ellipse(px, ground, half * 1.1, 0.12 * k, (44, 44, 48))
    for side in (-1, 1):
        canvas.box(
            px + side * half * 0.8 - 0.13 * k, ground - 0.5 * k, px + side * half * 0.8 + 0.13 * k, ground, (28, 28, 30)
        )
    canvas.polygon(
        [
            (px - half * 0.74, ground - top),
            (px + half * 0.74, ground - top),
            (px + half, ground - 0.9 * k),
            (px - half, ground - 0.9 * k),
        ],
        shade(colour, 0.92),
    )
    canvas.polygon(
        [
            (px - half * 0.66, ground - top + 0.1 * k),
            (px + half * 0.66, ground - top + 0.1 * k),
            (px + half * 0.84, ground - 0.95 * k),
            (px - half * 0.84, ground - 0.95 * k),
        ],
        (58, 68, 80),
    )
    canvas.box(px - half, ground - 0.95 * k, px + half, ground - 0.28 * k, colour)
    light: RGB = (196, 30, 30) if away else (250, 246, 220)
    for side in (-1, 1):
        canvas.box(
            px + side * half * 0.82 - 0.14 * k,
            ground - 0.85 * k,
            px + side * half * 0.82 + 0.14 * k,
            ground - 0.65 * k,
            light,
            glow=facts.moment.sun_elevation < 0,
        )
    _plate(canvas, rng, facts, px, ground - 0.55 * k, k, away)


def _plate(canvas: Canvas, rng: random.Random, facts: Facts, x: float, y: float, k: float, rear: bool) -> None:
    kind = facts.culture.plate
    if kind == "yellow" and not rear and facts.culture.country in ("GB", "KE", "HK", "LK", "UG", "CY", "MO"):
        kind = "white"
    colour, strip = PLATES[kind]
    half, tall = (0.3 if facts.culture.country in ("US", "CA", "JP", "AU") else 0.42) * k, 0.14 * k
    canvas.start("plate")
    canvas.box(x - half, y - tall, x + half, y + tall, colour)
    if strip:
        canvas.box(x - half, y - tall, x - half * 0.78, y + tall, strip)
    if tall > 3:
        ink: RGB = (30, 30, 34) if sum(colour) > 380 else (250, 250, 250)
        writing.write(canvas, rng, "latin", (x - half * 0.65, y - tall * 0.6, x + half * 0.9, y + tall * 0.6), ink)
