"""Trees, bushes and grass: which grow where, and how they look in which month."""

import math
import random
from collections.abc import Callable

from geoloc_core.corpora.world.paint.canvas import RGB, Camera, Canvas, mix, shade, tone
from geoloc_core.corpora.world.photo import Facts
from geoloc_core.corpora.world.rng import pick

SNOW = (238, 242, 248)


def species_of(facts: Facts) -> dict[str, float]:
    """What grows at a place, and how much of it."""
    climate, code = facts.climate, facts.culture.country
    biome = climate.biome
    if biome == "tropical":
        mixed = {"broadleaf": 0.5, "palm": 0.5, "banana": 0.35}
        return mixed | ({"bamboo": 0.2} if facts.place.longitude > 70 else {})
    if biome == "savanna":
        if code in ("AU", "PG", "TL"):
            return {"eucalyptus": 0.8, "bush": 0.2}
        africa = -20 < facts.place.longitude < 52 and -35 < facts.place.latitude < 20
        return {"acacia": 0.75, "bush": 0.3} if africa else {"broadleaf": 0.4, "palm": 0.4, "bush": 0.3}
    if biome == "desert":
        if -125 < facts.place.longitude < -95 and facts.place.latitude > 15:
            return {"cactus": 0.6, "bush": 0.6}
        return {"eucalyptus": 0.3, "bush": 0.8} if code == "AU" else {"palm": 0.35, "bush": 0.5}
    if biome == "mediterranean":
        if code in ("AU", "ZA", "US", "CL", "MX"):
            return {"eucalyptus": 0.6, "palm": 0.2, "bush": 0.3}
        return {"cypress": 0.4, "olive": 0.6, "pine": 0.3}
    if biome == "steppe":
        return {"bush": 0.7, "poplar": 0.25, "broadleaf": 0.15}
    if biome in ("boreal", "tundra"):
        trees = {"conifer": 0.75, "birch": 0.35}
        return trees if biome == "boreal" else {"bush": 0.8, "conifer": 0.12}
    if code in ("AU",):
        return {"eucalyptus": 0.8, "broadleaf": 0.2}
    if code == "NZ":
        return {"broadleaf": 0.5, "fern": 0.3, "poplar": 0.3}
    east = facts.place.longitude > 100
    cold = max(0.0, (11 - climate.annual_c) / 8)
    return {"broadleaf": 0.8, "conifer": 0.15 + 0.6 * cold, "birch": 0.12 * cold, "bamboo": 0.12 * east, "poplar": 0.1}


def leaf_colour(rng: random.Random, facts: Facts, species: str) -> RGB | None:
    """Colour of the leaves in the photo's month, or nothing where the tree is bare."""
    climate = facts.climate
    base = {
        "conifer": (38, 78, 52),
        "pine": (62, 96, 56),
        "palm": (84, 128, 52),
        "banana": (104, 160, 54),
        "acacia": (108, 122, 58),
        "eucalyptus": (112, 126, 96),
        "olive": (122, 132, 98),
        "cypress": (44, 76, 48),
        "bush": (112, 118, 72),
        "bamboo": (128, 160, 72),
        "fern": (70, 124, 56),
    }.get(species, (72, 118, 48))
    if species == "broadleaf" and climate.biome == "tropical":
        base = (42, 104, 44)
    base = shade(base, rng.uniform(0.85, 1.15))
    if species not in ("broadleaf", "birch", "poplar") or climate.annual_c > 17:
        return base
    if climate.temperature_c < 4:
        return None
    if climate.temperature_c < 11 and climate.waning:
        return rng.choice(((206, 138, 38), (190, 84, 34), (214, 172, 56), (150, 108, 44)))
    return mix(base, (142, 178, 64), 0.4) if climate.temperature_c < 10 else base


def _trunk(
    canvas: Canvas, x: float, ground: float, height: float, width: float, colour: RGB, lean: float = 0.0
) -> None:
    canvas.polygon(
        [
            (x - width, ground),
            (x - width * 0.6 + lean, ground - height),
            (x + width * 0.6 + lean, ground - height),
            (x + width, ground),
        ],
        colour,
    )


def _crown(
    canvas: Canvas,
    rng: random.Random,
    x: float,
    y: float,
    rx: float,
    ry: float,
    colour: RGB,
    light: float,
    dense: float = 1.0,
) -> None:
    """Leaves as blobs, dark below and bright towards the light."""
    count = min(22, int((4 + ry / 9) * dense))
    blobs = [(rng.random(), rng.uniform(0, 6.283), rng.uniform(0.28, 0.5)) for _ in range(count)]
    canvas.ellipse(x, y, rx * 0.78, ry * 0.78, shade(colour, 0.68))
    for step, bright in ((0.0, 0.74), (0.16, 1.0), (0.3, 1.22))[: 2 if ry < 14 else 3]:
        fill = shade(colour, bright)
        for radius, angle, size in blobs:
            reach = math.sqrt(radius) * 0.72
            px = x + rx * (reach * math.cos(angle) + 0.5 * step * light)
            py = y + ry * (reach * math.sin(angle) - step * 0.9)
            scale = size * (1 - 1.1 * step)
            canvas.ellipse(px, py, rx * scale, ry * scale, fill)


def _broadleaf(
    canvas: Canvas, rng: random.Random, x: float, ground: float, h: float, leaves: RGB | None, light: float
) -> None:
    _trunk(canvas, x, ground, h * 0.5, h * 0.03, (92, 74, 58))
    if leaves is None:
        _branches(canvas, rng, x, ground - h * 0.35, h * 0.6, (104, 90, 78))
    else:
        _crown(canvas, rng, x, ground - h * 0.62, h * rng.uniform(0.32, 0.42), h * 0.38, leaves, light)


def _branches(canvas: Canvas, rng: random.Random, x: float, y: float, h: float, colour: RGB) -> None:
    for _ in range(4 + int(min(h / 12, 9))):
        angle = rng.uniform(-1.1, 1.1)
        start = y - h * rng.uniform(0, 0.35)
        tip = (x + h * 0.62 * math.sin(angle), start - h * 0.62 * math.cos(angle))
        canvas.line([(x, start), tip], colour, max(1, h / 60))
        if h > 50:
            fork = (tip[0] + h * 0.14 * math.sin(angle + 0.7), tip[1] - h * 0.12)
            canvas.line([((x + tip[0]) / 2, (start + tip[1]) / 2), fork], colour, max(1, h / 90))


def _birch(
    canvas: Canvas, rng: random.Random, x: float, ground: float, h: float, leaves: RGB | None, light: float
) -> None:
    _trunk(canvas, x, ground, h * 0.75, max(1, h * 0.018), (226, 224, 216))
    if leaves is None:
        _branches(canvas, rng, x, ground - h * 0.4, h * 0.55, (150, 132, 124))
    else:
        _crown(canvas, rng, x, ground - h * 0.64, h * 0.2, h * 0.36, mix(leaves, (150, 180, 70), 0.3), light, 0.8)


def _conifer(canvas: Canvas, rng: random.Random, x: float, ground: float, h: float, leaves: RGB, light: float) -> None:
    _trunk(canvas, x, ground, h * 0.2, h * 0.02, (78, 62, 50))
    tiers = 3 if h < 40 else 6
    for tier in range(tiers):
        t = tier / tiers
        half = h * 0.2 * (1 - 0.86 * t) * rng.uniform(0.9, 1.1)
        base, top = ground - h * (0.1 + 0.8 * t), ground - h * (0.1 + 0.8 * t + 1.5 / tiers * 0.8)
        top = max(top, ground - h)
        canvas.polygon([(x - half, base), (x, top), (x + half, base)], shade(leaves, 0.8))
        canvas.polygon([(x, base), (x, top), (x + half * light, base)], shade(leaves, 1.15))


def _palm(canvas: Canvas, rng: random.Random, x: float, ground: float, h: float, leaves: RGB, light: float) -> None:
    lean = h * rng.uniform(-0.12, 0.12)
    _trunk(canvas, x, ground, h * 0.78, max(1, h * 0.02), (138, 116, 90), lean)
    x, top = x + lean, ground - h * 0.78
    for k in range(9):
        angle = -0.35 + k * 0.48 + rng.uniform(-0.15, 0.15)
        reach = h * rng.uniform(0.24, 0.32)
        mid = (x + reach * 0.55 * math.cos(angle), top - abs(reach * 0.35 * math.sin(angle)) - reach * 0.16)
        tip = (x + reach * math.cos(angle), top - reach * 0.3 * math.sin(angle) + reach * 0.28)
        under = (mid[0], mid[1] + reach * 0.2)
        canvas.polygon([(x, top), mid, tip, under], shade(leaves, 0.75 + 0.09 * (k % 5)))


def _acacia(canvas: Canvas, rng: random.Random, x: float, ground: float, h: float, leaves: RGB, light: float) -> None:
    top = ground - h * 0.72
    for reach in (-0.34, -0.1, 0.14, 0.36):
        canvas.line(
            [(x, ground), (x + 0.1 * reach * h, ground - h * 0.32), (x + reach * h, top)], (88, 70, 54), max(1, h / 45)
        )
    _crown(canvas, rng, x, top - h * 0.06, h * 0.62, h * 0.13, leaves, light, 1.4)


def _eucalyptus(
    canvas: Canvas, rng: random.Random, x: float, ground: float, h: float, leaves: RGB, light: float
) -> None:
    bark = (206, 194, 178)
    canvas.line(
        [(x, ground), (x + h * 0.02, ground - h * 0.4), (x - h * 0.12, ground - h * 0.72)], bark, max(1, h / 32)
    )
    canvas.line([(x + h * 0.02, ground - h * 0.4), (x + h * 0.14, ground - h * 0.7)], bark, max(1, h / 45))
    for dx, dy in ((-0.14, 0.76), (0.14, 0.72), (0.0, 0.88)):
        _crown(canvas, rng, x + dx * h, ground - dy * h, h * 0.17, h * 0.12, leaves, light, 0.6)


def _cypress(canvas: Canvas, rng: random.Random, x: float, ground: float, h: float, leaves: RGB, light: float) -> None:
    canvas.ellipse(x, ground - h * 0.5, h * 0.085, h * 0.5, shade(leaves, 0.85))
    canvas.ellipse(x + h * 0.025 * light, ground - h * 0.52, h * 0.045, h * 0.44, shade(leaves, 1.15))


def _poplar(
    canvas: Canvas, rng: random.Random, x: float, ground: float, h: float, leaves: RGB | None, light: float
) -> None:
    if leaves is None:
        _branches(canvas, rng, x, ground - h * 0.2, h * 0.75, (120, 106, 92))
        return
    canvas.ellipse(x, ground - h * 0.55, h * 0.11, h * 0.47, shade(leaves, 0.85))
    canvas.ellipse(x + h * 0.03 * light, ground - h * 0.58, h * 0.06, h * 0.4, shade(leaves, 1.12))


def _cactus(canvas: Canvas, rng: random.Random, x: float, ground: float, h: float, leaves: RGB, light: float) -> None:
    green, h = (86, 116, 70), h * 0.7
    width = max(2, h * 0.11)
    canvas.line([(x, ground), (x, ground - h)], green, width)
    canvas.ellipse(x, ground - h, width / 2, width / 2, green)
    for side, low in ((-1, rng.uniform(0.35, 0.5)), (1, rng.uniform(0.45, 0.6))):
        arm = x + side * h * 0.2
        canvas.line(
            [(x, ground - low * h), (arm, ground - low * h), (arm, ground - (low + 0.32) * h)], green, width * 0.75
        )
    canvas.line(
        [(x + width * 0.25 * light, ground), (x + width * 0.25 * light, ground - h)], shade(green, 1.25), width * 0.25
    )


def _bush(canvas: Canvas, rng: random.Random, x: float, ground: float, h: float, leaves: RGB, light: float) -> None:
    size = h * rng.uniform(0.12, 0.22)
    _crown(canvas, rng, x, ground - size * 0.6, size * 1.2, size * 0.75, leaves, light, 0.7)


def _bamboo(canvas: Canvas, rng: random.Random, x: float, ground: float, h: float, leaves: RGB, light: float) -> None:
    for _ in range(6):
        foot, lean = x + h * rng.uniform(-0.12, 0.12), h * rng.uniform(-0.18, 0.18)
        stem = [(foot, ground), (foot + lean * 0.4, ground - h * 0.6), (foot + lean, ground - h * 0.95)]
        canvas.line(stem, (150, 168, 84), max(1, h / 60))
        for _ in range(4):
            t = rng.uniform(0.55, 1.0)
            px, py, reach = (
                foot + lean * t * t,
                ground - h * 0.95 * t,
                h * rng.uniform(0.08, 0.16) * rng.choice((-1, 1)),
            )
            fill = shade(leaves, rng.uniform(0.75, 1.15))
            canvas.polygon(
                [
                    (px, py),
                    (px + reach * 0.6, py - h * 0.03),
                    (px + reach, py + h * 0.09),
                    (px + reach * 0.4, py + h * 0.05),
                ],
                fill,
            )


def _banana(canvas: Canvas, rng: random.Random, x: float, ground: float, h: float, leaves: RGB, light: float) -> None:
    h *= 0.55
    for k in range(7):
        angle = 0.5 + k * 0.36
        tip = (x + h * 0.6 * math.cos(angle), ground - h * (0.35 + 0.6 * math.sin(angle)))
        side = (x + h * 0.42 * math.cos(angle + 0.25), ground - h * (0.35 + 0.5 * math.sin(angle + 0.25)))
        canvas.polygon([(x, ground - h * 0.3), side, tip], shade(leaves, 0.75 + 0.1 * (k % 4)))
    _trunk(canvas, x, ground, h * 0.4, h * 0.04, (120, 120, 70))


def _fern(canvas: Canvas, rng: random.Random, x: float, ground: float, h: float, leaves: RGB, light: float) -> None:
    _palm(canvas, rng, x, ground, h * 0.6, leaves, light)


def _pine(canvas: Canvas, rng: random.Random, x: float, ground: float, h: float, leaves: RGB, light: float) -> None:
    _trunk(canvas, x, ground, h * 0.75, max(1, h * 0.02), (124, 84, 60))
    _crown(canvas, rng, x, ground - h * 0.82, h * 0.34, h * 0.15, leaves, light)


PAINTERS: dict[str, Callable[..., None]] = {
    "broadleaf": _broadleaf,
    "birch": _birch,
    "conifer": _conifer,
    "palm": _palm,
    "acacia": _acacia,
    "eucalyptus": _eucalyptus,
    "olive": _broadleaf,
    "cypress": _cypress,
    "poplar": _poplar,
    "cactus": _cactus,
    "bush": _bush,
    "bamboo": _bamboo,
    "banana": _banana,
    "fern": _fern,
    "pine": _pine,
}
HEIGHT = {
    "bush": 7.0,
    "cactus": 6.0,
    "banana": 7.0,
    "olive": 4.5,
    "acacia": 7.0,
    "palm": 10.0,
    "conifer": 13.0,
    "poplar": 14.0,
    "bamboo": 9.0,
}


def tree(canvas: Canvas, camera: Camera, rng: random.Random, facts: Facts, x: float, z: float) -> None:
    """One plant of those that grow here, ``x`` m to the right and ``z`` m ahead."""
    species = pick(rng, species_of(facts))
    height = HEIGHT.get(species, 9.5) * rng.uniform(0.7, 1.25)
    if facts.climate.biome in ("tundra", "steppe"):
        height *= 0.7
    px, ground = camera.at(x, 0, z)
    tall = height * camera.focal / z
    leaves = leaf_colour(rng, facts, species)
    if leaves is not None:
        leaves = mix(tone(leaves, facts.locality.grass), SNOW, 0.32 * facts.climate.snow)
        leaves = mix(leaves, (190, 204, 218), min(0.5, z / 300))
    canvas.start("vegetation")
    PAINTERS[species](canvas, rng, px, ground, tall, leaves, 1 if facts.moment.sun_side > 0 else -1)
