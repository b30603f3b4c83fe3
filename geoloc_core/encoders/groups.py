"""The four groups of features that the feature experts are trained on: one expert per group.

Ground, structures, vegetation and vehicles are the groups of "Image Geolocalization with Directed Feature
Identification" (Gong, Brumley 2024); which class belongs to which is our reading of its examples (road and terrain;
buildings; foliage; cars and trucks). Classes of Mapillary Vistas, Cityscapes, COCO panoptic, ADE20K and of the masks
of the rendered world are known; a class of no group, such as sky or a person, has none.
"""

GROUPS: dict[str, tuple[str, ...]] = {
    "ground": (
        "bike lane", "catch basin", "crosswalk plain", "curb", "curb cut", "dirt", "dirt track", "earth", "field",
        "gravel", "ground", "land", "lane marking crosswalk", "lane marking general", "manhole", "marking", "parking",
        "path", "pavement", "pedestrian area", "playingfield", "pothole", "rail track", "railroad", "road", "runway",
        "sand", "service lane", "sidewalk", "snow", "terrain",
    ),
    "structures": (
        "awning", "banister", "bannister", "banner", "barrier", "bench", "bike rack", "billboard", "bollard", "booth",
        "bridge", "building", "bulletin board", "canopy", "cctv camera", "column", "fence", "fire hydrant", "fountain",
        "grandstand", "guard rail", "house", "hovel", "junction box", "mailbox", "parking meter", "phone booth", "pier",
        "pole", "railing", "roof", "sculpture", "sign", "signboard", "skyscraper", "stairs", "stairway", "step",
        "stop sign", "street light", "streetlight", "tent", "tower", "traffic light", "traffic sign",
        "traffic sign (back)", "traffic sign (front)", "traffic sign frame", "trash can", "tunnel", "utility pole",
        "wall", "wall brick", "wall stone",
    ),
    "vegetation": ("flower", "grass", "palm", "plant", "potted plant", "tree", "vegetation"),
    "vehicles": (
        "airplane", "bicycle", "boat", "bus", "car", "caravan", "minibike", "motorcycle", "on rails", "other vehicle",
        "plate", "ship", "trailer", "train", "truck", "van", "vehicle", "wheeled slow",
    ),
}  # fmt: skip

_GROUP_OF = {name: group for group, names in GROUPS.items() for name in names}
_SUFFIXES = (" merged", " other", " stuff")


def group_of(label: str) -> str | None:
    """The group of a class, however its vocabulary spells it; None where it belongs to none."""
    name = " ".join(label.lower().replace("_", " ").replace("-", " ").split())
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    for known in (name, *(part.strip() for part in name.split(","))):  # ADE20K gives synonyms, the usual one first
        if known in _GROUP_OF:
            return _GROUP_OF[known]
    return None
