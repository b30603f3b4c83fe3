"""What people photograph: churches, mosques and temples, as they are in each part of the world."""

import random
from collections.abc import Callable

from geoloc_core.corpora.world.paint.canvas import RGB, Camera, Canvas, mix, shade
from geoloc_core.corpora.world.paint.looks import LOOKS
from geoloc_core.corpora.world.photo import Facts


def church(canvas: Canvas, camera: Camera, rng: random.Random, facts: Facts, x: float, z: float) -> None:
    """A church as they are here: onion domes in the east, white towers in Latin America, spires elsewhere."""
    canvas.start("building")
    k = camera.focal / z
    px, ground = camera.at(x, 0, z)
    style = facts.culture.style
    wall: RGB = {
        "nordic timber": (244, 244, 240),
        "painted colonial": (250, 246, 232),
        "clapboard": (248, 248, 248),
        "panel block": (240, 238, 232),
        "white cube": (252, 252, 252),
        "mediterranean": (230, 210, 170),
    }.get(style, (178, 168, 150))
    roof = LOOKS[style].roofs[0]
    canvas.box(px - 3 * k, ground - 9 * k, px + 9 * k, ground, wall)
    canvas.polygon(
        [
            (px - 3.5 * k, ground - 9 * k),
            (px - 1 * k, ground - 14 * k),
            (px + 9 * k, ground - 14 * k),
            (px + 9.6 * k, ground - 9 * k),
        ],
        roof,
    )
    canvas.box(px - 6 * k, ground - 18 * k, px - 1.5 * k, ground, shade(wall, 0.92))
    for w in (0.5, 3.0, 5.5):
        canvas.box(px + w * k, ground - 6.5 * k, px + (w + 0.9) * k, ground - 2.5 * k, (66, 74, 92))
    middle, top = px - 3.75 * k, ground - 18 * k
    canvas.box(middle - 0.6 * k, top + 2 * k, middle + 0.6 * k, top + 4.5 * k, (58, 60, 72))
    if facts.culture.script in ("cyrillic", "georgian"):
        gold = (222, 176, 62) if rng.random() < 0.6 else (58, 108, 176)
        for dx, size in ((-3.75, 2.6), (2.0, 1.9), (6.5, 1.9)):
            base = top if dx < 0 else ground - 14 * k
            canvas.ellipse(px + dx * k, base - size * k, size * k, size * 1.1 * k, gold)
            canvas.polygon(
                [
                    (px + (dx - 0.8) * k, base - size * 1.7 * k),
                    (px + dx * k, base - (size * 2 + 1.6) * k),
                    (px + (dx + 0.8) * k, base - size * 1.7 * k),
                ],
                gold,
            )
    elif style in ("white cube", "painted colonial"):
        canvas.ellipse(middle, top, 2.3 * k, 2.4 * k, roof if style == "painted colonial" else (46, 100, 190))
    else:
        canvas.polygon(
            [
                (middle - 2.6 * k, top),
                (middle, top - (12 if style != "mediterranean" else 3) * k),
                (middle + 2.6 * k, top),
            ],
            shade(roof, 0.9),
        )


def mosque(canvas: Canvas, camera: Camera, rng: random.Random, facts: Facts, x: float, z: float) -> None:
    """A mosque with a dome and minarets."""
    canvas.start("building")
    k = camera.focal / z
    px, ground = camera.at(x, 0, z)
    wall = mix((238, 226, 202), facts.climate.soil, 0.2)
    dome = rng.choice(((64, 150, 160), (232, 226, 210), (206, 172, 92)))
    canvas.box(px - 9 * k, ground - 8 * k, px + 9 * k, ground, wall)
    canvas.ellipse(px, ground - 8.5 * k, 5 * k, 5.5 * k, dome)
    canvas.box(px - 9 * k, ground - 8 * k, px + 9 * k, ground - 6.8 * k, shade(wall, 0.86))
    for dx in (-6, -2, 2, 6):
        canvas.ellipse(px + dx * k, ground - 4 * k, 1.3 * k, 1.7 * k, (84, 72, 66))
        canvas.box(px + (dx - 1.3) * k, ground - 4 * k, px + (dx + 1.3) * k, ground, (84, 72, 66))
    for dx in (-11, 11)[: rng.randint(1, 2)]:
        canvas.box(px + (dx - 1) * k, ground - 20 * k, px + (dx + 1) * k, ground, shade(wall, 0.95))
        canvas.box(px + (dx - 1.6) * k, ground - 16 * k, px + (dx + 1.6) * k, ground - 15 * k, shade(wall, 0.8))
        canvas.polygon(
            [
                (px + (dx - 1.2) * k, ground - 20 * k),
                (px + dx * k, ground - 24 * k),
                (px + (dx + 1.2) * k, ground - 20 * k),
            ],
            dome,
        )


def temple(canvas: Canvas, camera: Camera, rng: random.Random, facts: Facts, x: float, z: float) -> None:
    """A temple: gold spires in Southeast Asia, carved towers in India, tiers of roofs in East Asia."""
    canvas.start("building")
    k = camera.focal / z
    px, ground = camera.at(x, 0, z)
    script = facts.culture.script
    if script == "thai":
        canvas.box(px - 8 * k, ground - 6 * k, px + 8 * k, ground, (246, 240, 226))
        for tier, half in enumerate((9.5, 7.0, 4.6)):
            base = ground - (5.5 + 2.6 * tier) * k
            canvas.polygon(
                [(px - half * k, base), (px, base - 5.5 * k), (px + half * k, base)],
                (196, 72, 42) if tier % 2 == 0 else (52, 112, 76),
            )
            canvas.line([(px - half * k, base), (px, base - 5.5 * k), (px + half * k, base)], (236, 190, 72), 0.7 * k)
        canvas.polygon([(px + 11 * k, ground), (px + 13 * k, ground - 20 * k), (px + 15 * k, ground)], (232, 188, 72))
        canvas.ellipse(px + 13 * k, ground - 3.5 * k, 3 * k, 4 * k, (226, 178, 62))
    elif script in ("devanagari", "tamil"):
        colours: tuple[RGB, ...] = ((226, 140, 62), (218, 196, 140), (196, 84, 74), (92, 158, 150))
        for tier in range(6):
            half = (7 - tier) * k
            canvas.box(
                px - half,
                ground - (tier + 1) * 3 * k,
                px + half,
                ground - tier * 3 * k,
                colours[tier % 4 if script == "tamil" else tier % 2],
            )
        canvas.box(px - 1.6 * k, ground - 4.5 * k, px + 1.6 * k, ground, (70, 52, 46))
    else:
        roof: RGB = {"kana": (62, 72, 84), "hangul": (72, 96, 92), "han": (206, 150, 52)}.get(script, (90, 80, 70))
        pillar: RGB = (186, 52, 38) if script != "hangul" else (62, 122, 108)
        for tier in range(rng.choice((2, 3, 5))):
            half, base = (7.5 - 1.1 * tier) * k, ground - tier * 4.4 * k
            canvas.box(px - half * 0.7, base - 3 * k, px + half * 0.7, base, (238, 228, 206) if tier % 2 else pillar)
            for dx in (-0.6, -0.2, 0.2, 0.6):
                canvas.box(px + dx * half - 0.3 * k, base - 3 * k, px + dx * half + 0.3 * k, base, pillar)
            canvas.polygon(
                [
                    (px - half * 1.2, base - 3.3 * k),
                    (px - half, base - 2.7 * k),
                    (px + half, base - 2.7 * k),
                    (px + half * 1.2, base - 3.3 * k),
                    (px + half * 0.6, base - 4.9 * k),
                    (px - half * 0.6, base - 4.9 * k),
                ],
                roof,
            )


PAINTERS: dict[str, Callable[..., None]] = {"church/outdoor": church, "mosque/outdoor": mosque, "temple/asia": temple}
