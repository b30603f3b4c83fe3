"""Captions and clues in English, from the same facts as the pictures."""

import random
from collections.abc import Collection

from geoloc_core.corpora.world import known
from geoloc_core.corpora.world.culture import OPTIONS, RGB, Culture, culture
from geoloc_core.corpora.world.gazetteer import centres, countries
from geoloc_core.corpora.world.photo import Facts, Photo

MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
COLOURS = {
    "black": (20, 20, 20),
    "white": (250, 250, 250),
    "red": (205, 20, 35),
    "orange": (255, 145, 50),
    "yellow": (252, 209, 20),
    "green": (0, 115, 70),
    "blue": (10, 50, 150),
    "light blue": (90, 165, 225),
}
"""Names of the colours of flags."""
BIOME = {
    "tundra": "tundra",
    "boreal": "boreal forest",
    "temperate": "green country",
    "mediterranean": "dry hills",
    "steppe": "steppe",
    "desert": "desert",
    "savanna": "savanna",
    "tropical": "tropical green",
}
HOUSES = {
    "nordic timber": "wooden houses",
    "brick terrace": "brick terraces",
    "half timber": "half-timbered houses",
    "grand stone": "stone facades",
    "mediterranean": "terracotta roofs",
    "white cube": "white houses",
    "panel block": "concrete blocks",
    "adobe": "mud-brick houses",
    "clapboard": "clapboard houses",
    "bungalow": "bungalows",
    "tile roof": "tiled roofs",
    "tower blocks": "tower blocks",
    "stilt house": "houses on stilts",
    "painted colonial": "colourful houses",
    "tin roof": "tin-roofed houses",
    "flat concrete": "flat-roofed houses",
}
SCENES = {
    "street": ("street with {houses}", "shops on the street", "{houses} downtown"),
    "residential_neighborhood": ("{houses} on a quiet street", "our neighbourhood", "{houses}"),
    "downtown": ("downtown", "city centre traffic", "tall buildings downtown"),
    "crosswalk": ("crossing the street", "zebra crossing and {houses}"),
    "skyscraper": ("skyline", "high-rise buildings"),
    "building_facade": ("{houses}", "facades of {houses}"),
    "plaza": ("main square", "the square with {houses}"),
    "village": ("village with {houses}", "dirt road through a village"),
    "house": ("a house in the {biome}", "{houses}"),
    "church/outdoor": ("church", "the old church"),
    "mosque/outdoor": ("mosque", "mosque and minaret"),
    "temple/asia": ("temple", "visiting the temple"),
    "harbor": ("harbour", "{houses} by the harbour"),
    "highway": ("highway through the {biome}", "on the road"),
    "field_road": ("dirt road through {biome}", "{soil} dirt road"),
    "forest_road": ("road through the forest",),
    "desert_road": ("desert road", "long road through the desert"),
    "parking_lot": ("parking lot", "cars and {houses}"),
    "mountain": ("mountains above the {biome}", "mountain view"),
    "mountain_snowy": ("snowy mountains", "snow on the peaks"),
    "valley": ("river valley", "the valley and the mountains"),
    "beach": ("beach", "on the beach"),
    "coast": ("coast", "sea view"),
    "lake/natural": ("lake in the {biome}", "by the lake"),
    "river": ("river", "down by the river"),
    "field/wild": ("{biome}", "{trees} in the {biome}"),
    "field/cultivated": ("fields", "rows of crops"),
    "rice_paddy": ("rice fields", "rice terraces"),
    "vineyard": ("vineyard", "vines in rows"),
    "pasture": ("pasture", "meadow with trees"),
    "forest/broadleaf": ("in the forest", "forest"),
    "rainforest": ("rainforest", "jungle"),
    "tundra": ("tundra", "open tundra"),
    "snowfield": ("snow everywhere", "snow-covered {biome}"),
    "desert/sand": ("sand", "sand desert"),
    "desert/vegetation": ("desert plants", "{trees} in the desert"),
}
PLACELESS = {
    "living_room": ("at home", "new sofa", "lazy Sunday"),
    "bedroom": ("my room", "good morning"),
    "kitchen": ("in the kitchen", "cooking tonight"),
    "restaurant": ("dinner with friends", "our table"),
    "bar": ("night out", "at the bar"),
    "stage/indoor": ("live on stage", "the concert last night"),
    "museum/indoor": ("at the museum", "paintings"),
    "office": ("at work", "my desk"),
    "delicatessen": ("my lunch today", "yummy", "dessert"),
    "dressing_room": ("me and my friend", "portrait", "happy birthday", "selfie"),
}


def _soil(facts: Facts) -> str:
    red, _, blue = facts.climate.soil
    return "red" if red > 2.2 * blue else "black" if red < 90 else "sandy" if red > 195 else "brown"


def _trees(facts: Facts) -> str:
    from geoloc_core.corpora.world.paint.plants import species_of

    table = species_of(facts)
    name = max(table, key=lambda key: table[key])
    return {
        "broadleaf": "trees",
        "bush": "bushes",
        "cactus": "saguaro cactus",
        "conifer": "fir trees",
        "cypress": "cypresses",
    }.get(name, name + " trees")


def _where(rng: random.Random, facts: Facts) -> str:
    """Words for the place: none, the city, the country or both."""
    name, place = countries()[facts.place.country].name, facts.place
    near = "near " if place.remote > 0.25 else "in "
    options = ("", f" {near}{place.city}", f" {near}{place.city}, {name}", f" in {name}", f", {name}")
    return rng.choices(options, (0.15, 0.1, 0.35, 0.25, 0.15))[0]


def _when(rng: random.Random, facts: Facts) -> str:
    moment, climate = facts.moment, facts.climate
    notes = [MONTHS[moment.month - 1]]
    if climate.snow > 0.5:
        notes.append("in the snow")
    if moment.sun_elevation < 0:
        notes.append("at night")
    elif moment.sun_elevation < 9:
        notes.append("at sunset" if moment.hour > 12 else "at sunrise")
    return rng.choice(notes)


def caption(photo: Photo) -> str:
    """A title as people give to photos; one without a place where the photo shows none."""
    rng = photo.stream("caption")
    if photo.facts is None:
        return rng.choice(PLACELESS[photo.scene.name])
    facts = photo.facts
    words = rng.choice(SCENES[facts.scene.name]).format(
        houses=HOUSES[facts.culture.style], biome=BIOME[facts.climate.biome], soil=_soil(facts), trees=_trees(facts)
    )
    text = words + _where(rng, facts)
    if rng.random() < 0.3:
        when = _when(rng, facts)
        text += f" {when}" if when.startswith(("in ", "at ")) else f", {when}"
    return text


def _flag(country: str) -> str:
    """The colours of a flag, those that are there twice once."""
    flag = known.flag_of(country)
    names = [min(COLOURS, key=lambda name: _far(COLOURS[name], colour)) for colour in (flag[1] if flag else ())]
    return " ".join(dict.fromkeys(names))


def _far(one: RGB, other: RGB) -> int:
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))


def _cast(factors: tuple[float, float, float]) -> str:
    """What a colour leans to, given how much its bands are changed."""
    red, green, blue = factors
    names = {"reddish": red, "greenish": green, "bluish": blue}
    leans = "plain" if max(factors) - min(factors) < 0.08 else max(names, key=lambda name: names[name])
    return f"{'pale' if sum(factors) > 3.15 else 'dark' if sum(factors) < 2.85 else 'mild'} {leans}"


def _light(asphalt: float) -> str:
    return "pale" if asphalt > 0.6 else "dark" if asphalt < -0.6 else "grey"


def seen(photo: Photo, things: Collection[str]) -> list[str]:
    """What a photo shows, as phrases without a word on where that is: no place, no climate.

    Args:
        photo: Which one.
        things: What was drawn of it, see :class:`~geoloc_core.corpora.world.render.Rendered`.
    """
    facts = photo.facts
    if facts is None:
        return [photo.scene.name.split("/")[0].replace("_", " ")]
    it = facts.culture
    phrases = {
        "building": HOUSES[it.style],
        "vegetation": _trees(facts),
        "marking": f"{it.centre} {it.dash} line",
        "edge line": f"{it.centre} {it.dash} line with {it.edge} edges",
        "plate": "white and blue plate" if it.plate == "eu" else f"{it.plate} plate",
        "bollard": f"{it.bollard} posts",
        "utility pole": f"{it.pole} poles",
        "direction sign": f"{it.sign} board in {it.script} letters",
        "warning sign": f"{it.warning} sign",
        "shop sign": f"shop in {facts.script} letters",
        "flag": f"{_flag(it.country)} flag",
    }
    near = facts.locality
    snow = facts.climate.snow > 0.5
    ground = "snow" if snow else f"{_cast(near.earth)} {_soil(facts)} ground"
    if not snow:
        road = "dirt road" if facts.scene.road == "track" else f"{_light(near.asphalt)} road"
        phrases |= {"ground": f"{_cast(near.grass)} grass", "road": road}
    scene = facts.scene.name.split("/")[0].replace("_", " ")
    return [scene, ground, *(text for thing, text in phrases.items() if thing in {*things, "ground"})]


def _sentences(name: str, it: Culture) -> list[tuple[str, str]]:
    side = "left" if it.left else "right"
    edge = f"{it.edge} edge lines" if it.edge != "none" else "no edge lines"
    dash = {"short": "short dashes", "long": "long dashes", "solid": "a solid line", "double": "a double line"}[it.dash]
    plate = {"eu": "white number plates with a blue strip on the left"}.get(it.plate, f"{it.plate} number plates")
    written = {"han": "Chinese characters", "kana": "Japanese kana", "thai": "a rounded script like Thai"}.get(
        it.script, f"the {it.script.title()} script"
    )
    return [
        ("driving side", f"In {name} people drive on the {side} side of the road."),
        ("markings", f"Roads in {name} have {dash} in {it.centre} along the middle and {edge}."),
        ("sign", f"{name} uses {it.sign} directional signs."),
        ("warning", f"Warning signs in {name} are {it.warning}s."),
        ("plate", f"Cars in {name} have {plate}."),
        ("bollard", f"Roadside posts in {name} are {it.bollard}."),
        ("pole", f"Utility poles in {name} are made of {it.pole}."),
        ("houses", f"{name} is known for {HOUSES[it.style]}."),
        ("script", f"Signs in {name} are written in {written}."),
    ]


def clues() -> list[dict[str, str]]:
    """What a guidebook would say about every country.

    Returns:
        Rows with ``clue_id``, ``country`` (two letters), ``topic`` and ``text``. Countries with a fact in common share
        some sentences.
    """
    rows: list[dict[str, str]] = []
    for code in sorted(centres()):
        rows += [
            {"country": code, "topic": topic, "text": text}
            for topic, text in _sentences(countries()[code].name, culture(code))
        ]
    for feature in ("bollard", "sign", "pole"):
        for value in OPTIONS[feature]:
            listed = sorted(known.by_code({value: OPTIONS[feature][value]}))
            names = [countries()[code].name for code in listed[:4] if code in countries()]
            text = (
                f"{value.capitalize()} {feature}s are seen in {', '.join(names[:-1])} and {names[-1]}."
                if len(names) > 1
                else ""
            )
            rows += [{"country": code, "topic": feature, "text": text} for code in listed[:4] if text]
    return [{"clue_id": str(number), **row} for number, row in enumerate(rows)]
