"""What houses look like in each style of building."""

from dataclasses import dataclass
from typing import Literal

from geoloc_core.corpora.world.paint.canvas import RGB


@dataclass(frozen=True)
class Look:
    """A style of building.

    Attributes:
        walls: Colours of walls; which of them are common differs by place.
        roofs: Colours of roofs.
        roof: Form.
        pitch: Height of the roof as a share of its half-width.
        storeys: Fewest and most.
        trim: Colour of frames, corners and eaves.
        shutters: Colour beside the windows, if any.
        detail: What else marks the style.
    """

    walls: tuple[RGB, ...]
    roofs: tuple[RGB, ...]
    roof: Literal["gable", "flat"]
    pitch: float
    storeys: tuple[int, int]
    trim: RGB
    shutters: RGB | None = None
    detail: Literal["", "beams", "boards", "bricks", "stilts", "veranda", "panels", "antenna", "eaves"] = ""


LOOKS = {
    "nordic timber": Look(
        ((152, 40, 32), (148, 46, 36), (226, 190, 90), (238, 236, 228), (92, 116, 130)),
        ((58, 56, 60), (92, 50, 42)),
        "gable",
        0.85,
        (1, 2),
        (246, 246, 242),
        detail="boards",
    ),
    "brick terrace": Look(
        ((150, 74, 54), (168, 92, 66), (132, 66, 52), (206, 190, 160)),
        ((84, 74, 74), (112, 74, 62)),
        "gable",
        0.75,
        (2, 3),
        (240, 240, 236),
        detail="bricks",
    ),
    "half timber": Look(
        ((244, 238, 222), (236, 214, 170), (226, 196, 140), (238, 226, 210)),
        ((152, 66, 44), (124, 58, 44)),
        "gable",
        1.05,
        (2, 3),
        (92, 62, 44),
        (86, 108, 84),
        "beams",
    ),
    "grand stone": Look(
        ((226, 212, 182), (214, 198, 166), (232, 224, 204)),
        ((88, 98, 112), (104, 112, 124)),
        "gable",
        0.6,
        (3, 5),
        (198, 186, 160),
        (146, 166, 178),
    ),
    "mediterranean": Look(
        ((236, 206, 150), (232, 180, 128), (244, 232, 208), (222, 164, 124), (240, 220, 176)),
        ((196, 104, 66), (182, 92, 58)),
        "gable",
        0.38,
        (2, 4),
        (250, 240, 220),
        (72, 104, 78),
    ),
    "white cube": Look(
        ((250, 250, 248), (246, 244, 238), (252, 252, 252)),
        ((244, 244, 242), (60, 110, 190)),
        "flat",
        0,
        (1, 2),
        (44, 98, 184),
        (44, 98, 184),
    ),
    "panel block": Look(
        ((188, 184, 172), (204, 196, 178), (164, 168, 166), (206, 190, 150)),
        ((120, 118, 116),),
        "flat",
        0,
        (4, 9),
        (150, 150, 148),
        detail="panels",
    ),
    "adobe": Look(
        ((214, 180, 132), (202, 164, 118), (226, 202, 164), (196, 152, 106)),
        ((206, 174, 130),),
        "flat",
        0,
        (1, 3),
        (120, 84, 56),
    ),
    "clapboard": Look(
        ((232, 232, 226), (172, 190, 202), (206, 200, 178), (236, 222, 190), (150, 164, 150)),
        ((92, 88, 88), (112, 96, 86)),
        "gable",
        0.6,
        (1, 2),
        (250, 250, 250),
        detail="boards",
    ),
    "bungalow": Look(
        ((206, 170, 132), (226, 214, 190), (188, 136, 104), (238, 232, 220)),
        ((150, 62, 52), (112, 124, 130), (86, 96, 88)),
        "gable",
        0.45,
        (1, 1),
        (250, 250, 246),
        detail="veranda",
    ),
    "tile roof": Look(
        ((232, 226, 212), (206, 196, 176), (170, 158, 142), (218, 216, 212)),
        ((64, 72, 88), (58, 62, 74)),
        "gable",
        0.5,
        (2, 3),
        (110, 84, 62),
        detail="eaves",
    ),
    "tower blocks": Look(
        ((214, 206, 196), (196, 190, 186), (222, 200, 184), (178, 188, 194)),
        ((140, 136, 132),),
        "flat",
        0,
        (5, 12),
        (172, 172, 170),
        detail="antenna",
    ),
    "stilt house": Look(
        ((176, 134, 92), (150, 112, 78), (206, 188, 158), (122, 158, 150)),
        ((164, 76, 52), (92, 118, 132), (186, 92, 60)),
        "gable",
        0.85,
        (1, 2),
        (112, 80, 54),
        detail="stilts",
    ),
    "painted colonial": Look(
        ((240, 186, 62), (68, 168, 178), (226, 106, 92), (150, 196, 104), (236, 150, 176), (92, 132, 204)),
        ((188, 96, 62), (170, 84, 56)),
        "flat",
        0,
        (1, 2),
        (252, 250, 244),
    ),
    "tin roof": Look(
        ((196, 150, 108), (216, 196, 160), (120, 164, 176), (206, 174, 126)),
        ((164, 172, 178), (150, 84, 62), (176, 182, 186)),
        "gable",
        0.35,
        (1, 1),
        (116, 90, 66),
    ),
    "flat concrete": Look(
        ((232, 176, 170), (176, 208, 196), (240, 220, 160), (196, 188, 214), (206, 202, 196)),
        ((180, 174, 168),),
        "flat",
        0,
        (2, 4),
        (240, 236, 228),
        detail="antenna",
    ),
}
