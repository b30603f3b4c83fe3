"""From facts to a photo: far things first, near things over them."""

import io
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image

from geoloc_core.corpora.world import known
from geoloc_core.corpora.world.paint import buildings, indoors, land, landmarks, plants, roads, signs
from geoloc_core.corpora.world.paint.backdrop import TILE, backdrop, film, tint
from geoloc_core.corpora.world.paint.canvas import OVERSAMPLE, Camera, Canvas
from geoloc_core.corpora.world.photo import Facts, Photo
from geoloc_core.corpora.world.scenes import Scene

Item = tuple[float, Callable[[], None]]
"""Metres ahead, and how to draw it."""

COVER = {
    "tropical": 1.3,
    "temperate": 1.0,
    "boreal": 1.25,
    "mediterranean": 0.8,
    "savanna": 0.6,
    "steppe": 0.3,
    "tundra": 0.35,
    "desert": 0.3,
}
"""How much grows, by biome."""
ROWS = {"skyscraper": 40.0, "building_facade": 15.0, "plaza": 34.0, "harbor": 38.0, "parking_lot": 38.0}
"""Scenes with houses side by side across the picture, and how many metres away they are."""


@dataclass(frozen=True)
class Rendered:
    """A photo as pixels.

    Attributes:
        image: RGB.
        things: What has been drawn: classes of ``paint.canvas.CLASSES``, or more exact names of theirs.
        mask: 1,000 × class + instance, shape (size, size), int32; see ``paint.canvas.CLASSES``. None unless asked for.
    """

    image: Image.Image
    things: frozenset[str]
    mask: np.ndarray | None

    def jpeg(self, quality: int = 87) -> bytes:
        """The photo as a JPEG file."""
        stream = io.BytesIO()
        self.image.save(stream, "JPEG", quality=quality)
        return stream.getvalue()


def render(photo: Photo, size: int = 224, masks: bool = False) -> Rendered:
    """Draw a photo.

    Args:
        photo: Which one.
        size: Width and height in pixels.
        masks: Whether the mask of what is where is wanted too.
    """
    rng = photo.stream("picture")
    canvas = outdoors(rng, photo.facts, size, masks) if photo.facts else indoors.draw(rng, photo.scene, size, masks)
    mask = None if canvas.mask is None else np.array(canvas.mask)
    return Rendered(_developed(rng, canvas.finished()), frozenset(canvas.things), mask)


def _developed(rng: random.Random, image: Image.Image) -> Image.Image:
    """Film: a little noise, exposure and contrast, as cameras differ."""
    size = image.width
    top, left = (rng.randrange(TILE - size) if size < TILE else 0 for _ in range(2))
    noise = film()[top : top + size, 3 * left : 3 * (left + size)]
    noise = np.resize(noise, (size, 3 * size)) if size > TILE else noise
    contrast, exposure = rng.uniform(0.94, 1.12), rng.uniform(0.93, 1.08)
    pixels = np.asarray(image).reshape(size, 3 * size) * np.float32(contrast)
    pixels += np.float32(118 * (exposure - contrast))
    pixels += noise * np.float32(rng.uniform(1.5, 5))
    return Image.fromarray(np.clip(pixels, 0, 255, out=pixels).astype(np.uint8).reshape(size, size, 3))


def outdoors(rng: random.Random, facts: Facts, size: int, masks: bool) -> Canvas:
    """Draw a photo that shows its place."""
    high = facts.scene.storeys > 2
    horizon = rng.uniform(0.56, 0.66) if high else rng.uniform(0.42, 0.58)
    image, classes = backdrop(rng, size, horizon, facts.scene, facts.climate, facts.locality, facts.moment)
    canvas = Canvas(image, tint(facts.moment), classes if masks else None)
    camera = Camera(
        canvas.pixels, rng.uniform(1.6, 2.6), int(size * horizon) * OVERSAMPLE, canvas.pixels * rng.uniform(0.95, 1.25)
    )
    land.mountains(canvas, camera, rng, facts)
    if facts.scene.water != "none":
        land.water(canvas, camera, rng, facts)
    if facts.scene.name in ("rice_paddy", "vineyard", "field/cultivated"):
        land.crops(canvas, camera, rng, facts)
    items: list[Item] = []
    road = roads.Road(rng, facts) if facts.scene.road != "none" else None
    if road:
        roads.surface(canvas, camera, rng, facts, road)
        items += _beside(canvas, camera, rng, facts, road) + _traffic(canvas, camera, rng, facts, road)
        items += _street_houses(canvas, camera, rng, facts, road)
    else:
        items += _open_houses(canvas, camera, rng, facts) + _landmark(canvas, camera, rng, facts)
    items += _greenery(canvas, camera, rng, facts, road)
    for _, paint in sorted(items, key=lambda item: -item[0]):
        paint()
    return canvas


def _greenery(canvas: Canvas, camera: Camera, rng: random.Random, facts: Facts, road: roads.Road | None) -> list[Item]:
    scene = facts.scene
    count = int(26 * scene.plants * COVER[facts.climate.biome] * rng.uniform(0.6, 1.2))
    items: list[Item] = []
    for _ in range(count if scene.water != "sea" else count // 5):
        z = _distance(rng, scene)
        clear = road.half + road.walk + 2.2 if road else 0.28 * z if z < 12 else 0.0
        x = rng.choice((-1, 1)) * (clear + rng.random() * max(6.0, 0.62 * z)) + (road.x(0, z) if road else 0)
        if abs(x) < 0.7 * z:
            items.append((z, partial(plants.tree, canvas, camera, rng, facts, x, z)))
    return items


def _distance(rng: random.Random, scene: Scene) -> float:
    """Metres to a plant: on this shore or the other, where there is water."""
    if scene.water == "sea" or (scene.water == "lake" and rng.random() < 0.15):
        return rng.uniform(5.5, 8.0)
    if scene.water == "lake":
        return rng.uniform(95, 150)
    if scene.water == "river":
        return 30 + 110 * rng.random() ** 1.5
    nearest = 8 if scene.road != "none" else 11 if scene.plants >= 2 else 16
    return nearest + 130 * rng.random() ** 1.5


def _street_houses(canvas: Canvas, camera: Camera, rng: random.Random, facts: Facts, road: roads.Road) -> list[Item]:
    """Rows of houses on both sides of a road."""
    items: list[Item] = []
    scene = facts.scene
    setback = road.half + road.walk + (0.3 if scene.houses > 0.8 else rng.uniform(3, 8) if scene.houses > 0.3 else 12)
    for side in (-1, 1):
        z = rng.uniform(5, 12)
        while z < 120:
            length, depth = rng.uniform(7, 13), rng.uniform(7, 11)
            if rng.random() < scene.houses:
                inner = road.x(side * setback, z)
                left, right = (inner - depth, inner) if side < 0 else (inner, inner + depth)
                shop = scene.houses > 0.8 and rng.random() < 0.6
                it = buildings.house(rng, facts, left, right, z, z + length, shop)
                items.append((z + 3, partial(buildings.draw, canvas, camera, rng, facts, it)))
            z += length + (0.2 if scene.houses > 0.8 else rng.uniform(2, 9))
    return items


def _open_houses(canvas: Canvas, camera: Camera, rng: random.Random, facts: Facts) -> list[Item]:
    """Houses that face the camera across open ground."""
    scene = facts.scene
    if scene.name in ROWS:
        return _house_row(canvas, camera, rng, facts) + _square(canvas, camera, rng, facts)
    if scene.name == "house":
        near, x = rng.uniform(14, 20), rng.uniform(-7, -3)
        return [_detached(canvas, camera, rng, facts, x, near)]
    if scene.water in ("sea", "lake"):
        return []
    spots = [rng.uniform(35, 90) for _ in range(6) if rng.random() < scene.houses * 2]
    return [_detached(canvas, camera, rng, facts, rng.uniform(-0.5, 0.4) * near, near) for near in spots]


def _detached(canvas: Canvas, camera: Camera, rng: random.Random, facts: Facts, x: float, near: float) -> Item:
    it = buildings.house(rng, facts, x, x + rng.uniform(8, 12), near, near + 8)
    return near, partial(buildings.draw, canvas, camera, rng, facts, it, across=rng.random() < 0.6)


def _house_row(canvas: Canvas, camera: Camera, rng: random.Random, facts: Facts) -> list[Item]:
    """Houses side by side, or towers behind each other."""
    name = facts.scene.name
    towers, z = name == "skyscraper", ROWS[name] * rng.uniform(0.85, 1.2)
    items: list[Item] = []
    x = -1.2 * z
    while x < 1.2 * z:
        width = rng.uniform(8, 15) * (1.6 if towers else 1)
        near = z + rng.uniform(0, 0.5 * z if towers else 1)
        shop = name in ("plaza", "building_facade") and rng.random() < 0.5
        it = buildings.house(rng, facts, x, x + width, near, near + 9, shop)
        items.append((near, partial(buildings.draw, canvas, camera, rng, facts, it, across=True)))
        x += width + (rng.uniform(0, 12) if towers else 0.1)
    return items


def _square(canvas: Canvas, camera: Camera, rng: random.Random, facts: Facts) -> list[Item]:
    """What stands in front of a row of houses: a flag, parked cars."""
    items: list[Item] = []
    flag = known.flag_of(facts.culture.country)
    if flag and rng.random() < 0.5:
        items.append((13.0, partial(signs.flag, canvas, camera, flag, rng.uniform(-5, 2), 13.0)))
    if facts.scene.name == "parking_lot":
        spots = [(x, z) for z in (9.0, 17.0) for x in (-5.2, -2.0, 1.2, 4.4) if rng.random() < 0.8]
        items += [(z, partial(roads.car, canvas, camera, rng, facts, x, z, True)) for x, z in spots]
    return items


def _landmark(canvas: Canvas, camera: Camera, rng: random.Random, facts: Facts) -> list[Item]:
    painter = landmarks.PAINTERS.get(facts.scene.name)
    if painter is None:
        return []
    x, z = rng.uniform(-5, 3), rng.uniform(24, 36)
    return [(z, partial(painter, canvas, camera, rng, facts, x, z))]


def _beside(canvas: Canvas, camera: Camera, rng: random.Random, facts: Facts, road: roads.Road) -> list[Item]:
    """Poles, posts and signs along a road."""
    items: list[Item] = []
    edge = road.half + (road.walk - 0.4 if road.walk else 1.4)
    side = rng.choice((-1, 1))
    if rng.random() < 0.7:
        start, step = rng.uniform(7, 20), 28.0 if road.kind == "highway" else 22.0
        depths = [start + step * k for k in range(5)]
        for z in depths:
            x = road.x(side * edge, z)
            items.append((z, partial(signs.pole, canvas, camera, facts, x, z)))
        if facts.culture.pole != "steel":
            items.append((depths[-1], partial(signs.wires, canvas, camera, road, side * edge, depths)))
    if road.kind == "highway" or rng.random() < 0.35:
        first, gap = (5.0, 9.0) if road.kind == "highway" else (5.5, 4.5)
        for away in (first + gap * k for k in range(8)):
            for hand in (-1, 1):
                x = road.x(hand * (road.half + 0.9), away)
                items.append((away, partial(signs.bollard, canvas, camera, facts, x, away)))
    own = -1 if facts.culture.left else 1
    if rng.random() < (0.75 if road.kind == "highway" else 0.5):
        z = rng.uniform(17, 23)
        x = road.x(own * (edge + 1.6), z)
        items.append((z, partial(signs.direction_sign, canvas, camera, rng, facts, x, z)))
    flag = known.flag_of(facts.culture.country)
    if flag and road.walk and rng.random() < 0.35:
        far = rng.uniform(16, 21)
        items.append((far, partial(signs.flag, canvas, camera, flag, road.x(-own * edge, far), far)))
    if rng.random() < 0.55:
        near = rng.uniform(10, 13)
        at = road.x(own * (edge + 0.3), near)
        items.append((near, partial(signs.warning_sign, canvas, camera, rng, facts, at, near)))
    return items


def _traffic(canvas: Canvas, camera: Camera, rng: random.Random, facts: Facts, road: roads.Road) -> list[Item]:
    """Cars ahead in the own lane and oncoming ones in the other."""
    busy = {"street": 0.75, "highway": 0.5, "track": 0.12}[road.kind]
    items: list[Item] = []
    own = -road.centre if road.kind != "track" else 0.0
    for offset, away in ((own, True), (-own, False)):
        z = rng.uniform(5.5, 11) if away else rng.uniform(9, 22)
        while z < 70:
            if rng.random() < busy:
                x = road.x(offset, z)
                items.append((z, partial(roads.car, canvas, camera, rng, facts, x, z, away)))
            z += rng.uniform(9, 30)
    return items
