"""What a photo shows: kinds of scenes, how they are labelled in Places365, where each is likely."""

import random
from dataclasses import dataclass
from typing import Literal

from geoloc_core.corpora.world.climate import Climate
from geoloc_core.corpora.world.rng import pick

Road = Literal["none", "street", "highway", "track"]
Water = Literal["none", "sea", "lake", "river"]


@dataclass(frozen=True)
class Scene:
    """A kind of scene.

    Attributes:
        name: Its name in Places365.
        s16: Its index among the 16 classes of Places365's second level.
        s365: Its index among the 365 classes of Places365.
        s3: 0 indoor, 1 natural, 2 urban.
        road: Which kind of road runs through it.
        houses: How densely it is built up, 0 to 1.
        plants: How much grows beside what the climate says, 0 to 2.
        water: What water there is.
        relief: Height of the horizon's hills, relative to the land's own.
        storeys: How much higher than usual houses are.
    """

    name: str
    s16: int
    s365: int
    s3: int
    road: Road = "none"
    houses: float = 0.0
    plants: float = 1.0
    water: Water = "none"
    relief: float = 1.0
    storeys: float = 1.0


INDOOR = (
    Scene("living_room", 2, 215, 0),
    Scene("bedroom", 2, 52, 0),
    Scene("kitchen", 2, 203, 0),
    Scene("restaurant", 0, 284, 0),
    Scene("bar", 0, 39, 0),
    Scene("stage/indoor", 5, 315, 0),
    Scene("museum/indoor", 5, 236, 0),
    Scene("office", 1, 244, 0),
    Scene("delicatessen", 0, 114, 0),
    Scene("dressing_room", 1, 126, 0),
)
"""Scenes that say nothing about the place. Food counts as delicatessen and portraits as dressing room, since Places365
has no class for either."""

OUTDOOR = (
    Scene("street", 15, 319, 2, "street", 0.9, 0.5),
    Scene("residential_neighborhood", 15, 283, 2, "street", 0.6, 1.0),
    Scene("downtown", 15, 125, 2, "street", 1.0, 0.2, storeys=2.6),
    Scene("crosswalk", 15, 112, 2, "street", 0.95, 0.4, storeys=1.6),
    Scene("skyscraper", 15, 307, 2, "none", 1.0, 0.4, storeys=5.0),
    Scene("building_facade", 15, 67, 2, "none", 0.9, 0.3, storeys=1.4),
    Scene("plaza", 15, 270, 2, "none", 0.8, 0.4, storeys=1.4),
    Scene("village", 15, 348, 2, "track", 0.4, 1.0),
    Scene("house", 14, 183, 2, "none", 0.3, 1.0),
    Scene("church/outdoor", 11, 91, 2, "none", 0.25, 0.8),
    Scene("mosque/outdoor", 11, 230, 2, "none", 0.25, 0.6),
    Scene("temple/asia", 11, 330, 2, "none", 0.15, 1.0),
    Scene("harbor", 10, 171, 2, "none", 0.6, 0.1, "sea"),
    Scene("highway", 10, 175, 2, "highway", 0.05, 1.0),
    Scene("field_road", 10, 142, 1, "track", 0.04, 0.8),
    Scene("forest_road", 10, 152, 1, "highway", 0.0, 2.0),
    Scene("desert_road", 10, 118, 1, "highway", 0.03, 1.0),
    Scene("parking_lot", 10, 257, 2, "none", 0.5, 0.5),
    Scene("mountain", 7, 232, 1, "none", 0.03, 1.0, relief=2.2),
    Scene("mountain_snowy", 6, 234, 1, "none", 0.02, 0.7, relief=2.6),
    Scene("valley", 7, 344, 1, "none", 0.08, 1.2, "river", 1.8),
    Scene("beach", 6, 48, 1, "none", 0.08, 0.5, "sea", 0.6),
    Scene("coast", 6, 97, 1, "none", 0.06, 0.4, "sea", 1.2),
    Scene("lake/natural", 6, 205, 1, "none", 0.04, 1.2, "lake", 1.4),
    Scene("river", 6, 288, 1, "none", 0.1, 1.2, "river"),
    Scene("field/wild", 8, 141, 1, "none", 0.02, 0.9),
    Scene("field/cultivated", 8, 140, 1, "none", 0.05, 0.6),
    Scene("rice_paddy", 8, 287, 1, "none", 0.08, 0.8),
    Scene("vineyard", 8, 349, 1, "none", 0.08, 0.5),
    Scene("pasture", 8, 258, 1, "none", 0.05, 0.8),
    Scene("forest/broadleaf", 8, 150, 1, "none", 0.0, 2.0),
    Scene("rainforest", 8, 279, 1, "none", 0.0, 2.0),
    Scene("tundra", 7, 341, 1, "none", 0.02, 0.6),
    Scene("snowfield", 6, 309, 1, "none", 0.04, 0.8),
    Scene("desert/sand", 7, 116, 1, "none", 0.03, 0.5),
    Scene("desert/vegetation", 7, 117, 1, "none", 0.02, 1.2),
)

BY_NAME = {scene.name: scene for scene in INDOOR + OUTDOOR}
STREET_VIEW = {
    "street": 2.0,
    "residential_neighborhood": 2.0,
    "highway": 2.0,
    "village": 1.5,
    "field_road": 1.0,
    "forest_road": 0.7,
    "desert_road": 0.7,
    "downtown": 0.7,
}
"""How often a camera car meets each kind of scene."""

MUSLIM = "arabic"
TEMPLES = ("thai", "kana", "han", "hangul", "devanagari", "tamil")


def _chances(climate: Climate, script: str) -> dict[str, float]:
    """How likely each outdoor scene is at a place."""
    biome, green = climate.biome, climate.wetness > 0.3
    chances = {
        "street": 2.2,
        "residential_neighborhood": 1.6,
        "downtown": 1.2,
        "crosswalk": 0.6,
        "skyscraper": 0.4,
        "building_facade": 0.8,
        "plaza": 0.8,
        "village": 0.8,
        "house": 0.8,
        "highway": 1.2,
        "parking_lot": 0.4,
        "field_road": 0.7,
        "river": 0.5 * green,
        "lake/natural": 0.5 * green,
        "valley": 0.4,
        "field/cultivated": 0.4 * green,
        "field/wild": 0.7,
        "pasture": 0.4 * green,
    }
    if climate.coast_km < 60:
        chances |= {"beach": 1.0, "coast": 0.8, "harbor": 0.6}
    if climate.elevation_m > 500:
        chances |= {"mountain": 1.3, "valley": 0.7}
    if biome == "desert":
        chances |= {"desert/sand": 1.2, "desert/vegetation": 1.0, "desert_road": 1.2}
    if biome in ("temperate", "boreal", "mediterranean"):
        chances |= {"forest/broadleaf": 0.8, "forest_road": 0.7}
    if biome == "tropical":
        chances |= {"rainforest": 1.2, "rice_paddy": 1.2 if script in TEMPLES else 0.2}
    if biome == "mediterranean":
        chances["vineyard"] = 0.7
    if biome == "tundra":
        chances["tundra"] = 1.5
    if climate.snow > 0.5:
        chances |= {"snowfield": 1.0, "mountain_snowy": 1.0 if climate.elevation_m > 300 else 0.1}
    if script in TEMPLES:
        chances["temple/asia"] = 0.8
    elif script == MUSLIM:
        chances["mosque/outdoor"] = 0.9
    else:
        chances["church/outdoor"] = 0.6
    return chances


def outdoor(rng: random.Random, climate: Climate, script: str) -> Scene:
    """A scene that there may be at a place."""
    return BY_NAME[pick(rng, _chances(climate, script))]


def along_a_road(rng: random.Random, climate: Climate) -> Scene:
    """A scene as a camera car sees it."""
    dry = {"desert_road": 2.0, "forest_road": 0.0} if climate.biome == "desert" else {"desert_road": 0.0}
    return BY_NAME[pick(rng, STREET_VIEW | dry)]


def indoor(rng: random.Random) -> Scene:
    """A scene that may be anywhere."""
    return rng.choice(INDOOR)


def probabilities(rng: random.Random, scene: Scene) -> tuple[float, float, float]:
    """How sure a scene classifier is of indoor, natural and urban: always most of what the scene is."""
    sure = rng.betavariate(6, 1.2) * 0.49 + 0.505
    share = rng.random()
    rest = ((1 - sure) * share, (1 - sure) * (1 - share))
    values = list(rest)
    values.insert(scene.s3, sure)
    return values[0], values[1], values[2]
