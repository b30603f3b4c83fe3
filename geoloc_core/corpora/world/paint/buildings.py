"""Houses in the style of the country, in perspective, and the landmarks people photograph."""

import random
from dataclasses import dataclass

from geoloc_core.corpora.world.paint import script as writing
from geoloc_core.corpora.world.paint.canvas import RGB, Camera, Canvas, Point, mix, shade, tone
from geoloc_core.corpora.world.paint.looks import LOOKS, Look
from geoloc_core.corpora.world.photo import Facts


def choose(rng: random.Random, options: tuple[RGB, ...], place: float) -> RGB:
    """A colour of a palette: which ones are common shifts smoothly with the place."""
    spread = (place + 2) / 4 * len(options) + rng.gauss(0, len(options) * 0.28)
    return options[int(spread) % len(options)]


@dataclass(frozen=True)
class House:
    """A house that stands square to the camera: its ground plan in m, and its looks."""

    left: float
    right: float
    near: float
    far: float
    storeys: int
    wall: RGB
    roof: RGB
    look: Look
    shop: bool


def house(
    rng: random.Random, facts: Facts, left: float, right: float, near: float, far: float, shop: bool = False
) -> House:
    """A house of this place on a plot."""
    look = LOOKS[facts.culture.style]
    fewest, most = look.storeys
    storeys = max(1, round(rng.randint(fewest, most) * facts.scene.storeys))
    if facts.place.remote > 0.3 and most > 4:
        storeys = min(storeys, 3)
    wall = shade(choose(rng, look.walls, facts.locality.walls), rng.uniform(0.92, 1.05))
    return House(
        left,
        right,
        near,
        far,
        storeys,
        tone(wall, facts.locality.earth),
        choose(rng, look.roofs, facts.locality.roofs),
        look,
        shop,
    )


def _wall(camera: Camera, a: tuple[float, float], b: tuple[float, float], low: float, high: float) -> list[Point]:
    return [
        camera.at(a[0], low, a[1]),
        camera.at(b[0], low, b[1]),
        camera.at(b[0], high, b[1]),
        camera.at(a[0], high, a[1]),
    ]


def _between(a: tuple[float, float], b: tuple[float, float], t: float) -> tuple[float, float]:
    return a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t


def _facade(
    canvas: Canvas,
    camera: Camera,
    rng: random.Random,
    it: House,
    a: tuple[float, float],
    b: tuple[float, float],
    base: float,
    tone: float,
    night: bool,
) -> None:
    """One wall from ground point ``a`` to ``b``, with windows where they would be seen."""
    storey, top = 3.0, base + 3.0 * it.storeys
    corners = _wall(camera, a, b, base, top)
    canvas.polygon(corners, shade(it.wall, tone))
    width = abs(corners[1][0] - corners[0][0])
    tall = max(corners[0][1] - corners[3][1], corners[1][1] - corners[2][1]) / it.storeys
    if tall < 7 or width < 8:
        return
    _surface(canvas, camera, it, a, b, base, tone, tall)
    length = abs(b[0] - a[0]) + abs(b[1] - a[1])
    columns = max(1, min(int(length / 3.0), int(width / 7), 7))
    shop = it.shop and tall > 16
    for floor in range(1 if shop else 0, it.storeys):
        for column in range(columns):
            centre, half = (column + 0.5) / columns, 0.21 / columns * min(1.0, 1.5)
            low = base + floor * storey + 0.9
            if it.look.shutters and tall > 14:
                canvas.polygon(
                    _wall(
                        camera,
                        _between(a, b, centre - 1.75 * half),
                        _between(a, b, centre + 1.75 * half),
                        low,
                        low + 1.5,
                    ),
                    shade(it.look.shutters, tone),
                )
            elif tall > 20:
                canvas.polygon(
                    _wall(
                        camera,
                        _between(a, b, centre - 1.3 * half),
                        _between(a, b, centre + 1.3 * half),
                        low - 0.15,
                        low + 1.65,
                    ),
                    shade(it.look.trim, tone),
                )
            lit = night and rng.random() < 0.5
            glass = (250, 214, 128) if lit else shade((62, 76, 92), rng.uniform(0.8, 1.4))
            canvas.polygon(
                _wall(camera, _between(a, b, centre - half), _between(a, b, centre + half), low, low + 1.5),
                glass,
                glow=lit,
            )


def _surface(
    canvas: Canvas,
    camera: Camera,
    it: House,
    a: tuple[float, float],
    b: tuple[float, float],
    base: float,
    tone: float,
    tall: float,
) -> None:
    """What the wall is made of."""
    top = base + 3.0 * it.storeys
    if it.look.detail in ("boards", "bricks") and tall > 18:
        rows = it.storeys * 5
        for row in range(1, rows):
            y = base + (top - base) * row / rows
            canvas.line([camera.at(a[0], y, a[1]), camera.at(b[0], y, b[1])], shade(it.wall, tone * 0.9), 1)
    if it.look.detail == "beams":
        for t in (0.02, 0.34, 0.66, 0.98):
            x, z = _between(a, b, t)
            canvas.line([camera.at(x, base, z), camera.at(x, top, z)], shade(it.look.trim, tone), max(1, tall / 14))
    if it.look.detail in ("beams", "panels"):
        for floor in range(1, it.storeys + 1):
            y = base + 3.0 * floor - 0.1
            canvas.line(
                [camera.at(a[0], y, a[1]), camera.at(b[0], y, b[1])], shade(it.look.trim, tone), max(1, tall / 16)
            )
    if it.look.detail == "boards" and tall > 12:
        for x, z in (a, b):
            canvas.line([camera.at(x, base, z), camera.at(x, top, z)], shade(it.look.trim, tone), max(1, tall / 18))


def _gable_roof(canvas: Canvas, camera: Camera, it: House, base: float, snow: float) -> None:
    """A roof whose ridge runs away from the camera: its gable faces the camera, one slope is in view."""
    top, middle = base + 3.0 * it.storeys, (it.left + it.right) / 2
    over = 0.9 if it.look.detail in ("eaves", "stilts") else 0.45
    peak = top + it.look.pitch * (it.right - it.left) / 2
    roof = mix(it.roof, (240, 244, 248), 0.85 * snow)
    near, far = it.near - over, it.far + over
    for side in (it.left - over, it.right + over):
        seen = (side > 0) == (middle > 0)
        slope = [
            camera.at(side, top - 0.2, near),
            camera.at(side, top - 0.2, far),
            camera.at(middle, peak, far),
            camera.at(middle, peak, near),
        ]
        if not seen:
            canvas.polygon(slope, shade(roof, 0.85))
    gable = [
        camera.at(it.left, top, it.near),
        camera.at(it.right, top, it.near),
        camera.at(middle, peak - 0.2, it.near),
    ]
    canvas.polygon(gable, shade(it.wall, 0.95))
    inner = it.right + over if middle < 0 else it.left - over
    slope = [
        camera.at(inner, top - 0.2, near),
        camera.at(inner, top - 0.2, far),
        camera.at(middle, peak, far),
        camera.at(middle, peak, near),
    ]
    canvas.polygon(slope, roof)
    verge = max(1.0, camera.focal / it.near * 0.22)
    canvas.line(
        [
            camera.at(it.left - over, top - 0.2, near),
            camera.at(middle, peak, near),
            camera.at(it.right + over, top - 0.2, near),
        ],
        shade(roof, 0.8),
        verge,
    )


def _side_roof(canvas: Canvas, camera: Camera, it: House, base: float, snow: float) -> None:
    """A roof whose ridge runs across the picture: its front slope faces the camera."""
    top = base + 3.0 * it.storeys
    depth = min(it.far - it.near, 9.0)
    peak, over = top + it.look.pitch * depth / 2, 0.6
    roof = mix(it.roof, (240, 244, 248), 0.85 * snow)
    front = [
        camera.at(it.left - over, top - 0.2, it.near - over),
        camera.at(it.right + over, top - 0.2, it.near - over),
        camera.at(it.right + over, peak, it.near + depth / 2),
        camera.at(it.left - over, peak, it.near + depth / 2),
    ]
    canvas.polygon(front, roof)
    for share in (0.33, 0.66):
        rows = [
            (x0 + (x1 - x0) * share, y0 + (y1 - y0) * share)
            for (x0, y0), (x1, y1) in ((front[0], front[3]), (front[1], front[2]))
        ]
        canvas.line([rows[0], rows[1]], shade(roof, 0.9), 1)
    canvas.line([front[0], front[1]], shade(roof, 0.72), max(1.0, camera.focal / it.near * 0.18))


def draw(canvas: Canvas, camera: Camera, rng: random.Random, facts: Facts, it: House, across: bool = False) -> None:
    """Draw a house."""
    canvas.start("building")
    night = facts.moment.sun_elevation < 0
    base = 2.2 if it.look.detail == "stilts" and it.storeys == 1 else 0.0
    if base:
        for x in (it.left + 0.4, (it.left + it.right) / 2, it.right - 0.4):
            canvas.line(
                [camera.at(x, 0, it.near), camera.at(x, base, it.near)],
                it.look.trim,
                max(1.0, camera.focal / it.near * 0.25),
            )
    lit_left = facts.moment.sun_side < 0
    if it.right < 0:
        _facade(
            canvas, camera, rng, it, (it.right, it.far), (it.right, it.near), base, 0.78 if lit_left else 1.0, night
        )
    elif it.left > 0:
        _facade(canvas, camera, rng, it, (it.left, it.near), (it.left, it.far), base, 1.0 if lit_left else 0.78, night)
    _facade(canvas, camera, rng, it, (it.left, it.near), (it.right, it.near), base, 0.92, night)
    snow = facts.climate.snow
    if it.look.roof == "gable" and it.storeys < 6:
        (_side_roof if across else _gable_roof)(canvas, camera, it, base, snow)
    else:
        top = base + 3.0 * it.storeys
        trim = mix(it.look.trim, (240, 244, 248), snow)
        canvas.polygon(
            _wall(camera, (it.left - 0.2, it.near), (it.right + 0.2, it.near), top - 0.1, top + 0.5), shade(trim, 0.95)
        )
    if it.look.detail == "antenna" and rng.random() < 0.6:
        x = rng.uniform(it.left, it.right)
        top = 3.0 * it.storeys
        canvas.polygon(_wall(camera, (x, it.near), (x + 1.6, it.near), top, top + 1.8), (52, 62, 78))
    if it.shop:
        _shop(canvas, camera, rng, facts, it)


def _shop(canvas: Canvas, camera: Camera, rng: random.Random, facts: Facts, it: House) -> None:
    """A shop front on the street side: door, awning and a board with writing."""
    x = it.right if it.right < 0 else it.left
    near, far = (x, it.near), (x, it.near + min(8.0, it.far - it.near))
    if it.left < 0 < it.right:
        near, far = (it.left, it.near), (it.right, it.near)
    canvas.polygon(_wall(camera, near, far, 0, 2.4), (70, 76, 84))
    accent = facts.culture.accent if rng.random() < 0.65 else shade(facts.culture.accent, rng.uniform(0.6, 1.3))
    canvas.start("sign", "shop sign")
    board = _wall(camera, near, far, 2.5, 3.7)
    canvas.polygon(board, accent)
    ink: RGB = (255, 250, 236) if sum(accent) < 430 else (40, 30, 40)
    xs = sorted(point[0] for point in board)
    tops = sorted(board, key=lambda p: p[1])
    height = min(abs(board[3][1] - board[0][1]), abs(board[2][1] - board[1][1]))
    top = max(tops[0][1], tops[1][1]) + 0.15 * height
    writing.write(
        canvas, rng, facts.script, (xs[1] if xs[0] < 0 else xs[0] + 2, top, xs[-1] - 2, top + 0.6 * height), ink
    )
    if facts.script in ("han", "kana", "hangul") and height > 6:
        _banner(canvas, camera, rng, facts, near)


def _banner(canvas: Canvas, camera: Camera, rng: random.Random, facts: Facts, at: tuple[float, float]) -> None:
    """A sign that hangs over the pavement, written from top to bottom."""
    out = 1.2 if at[0] < 0 else -1.2
    colour = rng.choice(((222, 44, 40), (250, 222, 60), (34, 102, 190), facts.culture.accent))
    canvas.start("sign", "shop sign")
    corners = _wall(camera, at, (at[0] + out, at[1]), 3.2, 7.0)
    canvas.polygon(corners, colour)
    left, right = min(p[0] for p in corners), max(p[0] for p in corners)
    top, step = corners[2][1], right - left
    for k in range(int((corners[0][1] - top) / max(step, 4))):
        writing.write(
            canvas,
            rng,
            facts.script,
            (left + 1, top + k * step + 1, right - 1, top + (k + 0.8) * step),
            (255, 255, 250),
        )
