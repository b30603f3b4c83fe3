"""Sky and ground, as arrays: what everything else is drawn on."""

import random
from functools import cache

import numpy as np
from PIL import Image

from geoloc_core.corpora.world.climate import Climate
from geoloc_core.corpora.world.culture import Locality
from geoloc_core.corpora.world.paint.canvas import RGB, mix, shade, tone
from geoloc_core.corpora.world.scenes import Scene
from geoloc_core.corpora.world.sun import Moment

TILE = 512


@cache
def noise() -> np.ndarray:
    """A tile of cloud-like noise that repeats without a seam: shape (512, 512), float32, mean 0, deviation 1."""
    rng = np.random.default_rng(20)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(TILE), np.fft.fftfreq(TILE)))
    frequency[0, 0] = 1
    spectrum = np.fft.fft2(rng.standard_normal((TILE, TILE))) / frequency**1.35
    spectrum[0, 0] = 0
    tile = np.fft.ifft2(spectrum).real
    return (tile / tile.std()).astype(np.float32)


@cache
def grain() -> np.ndarray:
    """A tile of fine noise, shape (512, 512), float32, mean 0, deviation 1."""
    return np.random.default_rng(21).standard_normal((TILE, TILE)).astype(np.float32)


@cache
def film() -> np.ndarray:
    """Three bands of the same fine noise, pixel by pixel, shape (512, 1536), float32, mean 0, deviation 1."""
    return np.repeat(grain(), 3, axis=1)


@cache
def mottle() -> np.ndarray:
    """What ground looks like from close by, shape (512, 512), float32."""
    return noise() + 0.5 * grain()


def sky_colours(moment: Moment, climate: Climate) -> tuple[RGB, RGB]:
    """Colours of the sky at the top and at the horizon."""
    height = moment.sun_elevation
    top, low = (72, 128, 214), (186, 212, 238)
    if climate.biome == "desert":
        top, low = (92, 150, 216), (226, 214, 192)
    elif climate.biome in ("tropical", "savanna"):
        top, low = (62, 134, 214), (204, 222, 232)
    elif climate.biome in ("boreal", "tundra"):
        top, low = (104, 150, 206), (208, 220, 232)
    if height < 14:
        warm = min(1.0, (14 - height) / 14)
        top, low = mix(top, (92, 108, 160), warm), mix(low, (252, 186, 122), warm)
    if height < 0:
        dark = min(1.0, -height / 9)
        top, low = mix(top, (12, 16, 40), dark), mix(low, (44, 42, 74), dark)
    return top, low


def tint(moment: Moment) -> tuple[float, float, float]:
    """Factors by which the light changes the colours of things."""
    height = moment.sun_elevation
    if height < 0:
        dark = min(1.0, -height / 9)
        return 0.8 - 0.56 * dark, 0.74 - 0.48 * dark, 0.76 - 0.36 * dark
    warm = max(0.0, 1 - height / 14)
    flat = 1 - 0.16 * moment.clouds
    return flat * (1 - 0.02 * warm), flat * (1 - 0.12 * warm), flat * (1 - 0.24 * warm)


def grass_colour(climate: Climate) -> RGB:
    """What the ground looks like where it is not bare, without snow."""
    biome, wet = climate.biome, climate.wetness
    if biome == "tropical":
        return (74, 132, 46)
    if biome in ("savanna", "steppe"):
        lush = max(0.0, min(1.0, (wet - 0.25) * 2.2 + 0.25 * climate.season))
        return mix((196, 168, 98), (122, 138, 62), lush)
    if biome == "mediterranean":
        return mix((128, 138, 66), (188, 168, 98), max(0.0, climate.season))
    if biome == "tundra":
        return mix((128, 116, 84), (122, 128, 74), max(0.0, climate.season))
    if biome == "desert":
        return mix(climate.soil, (150, 150, 96), 0.15)
    growth = max(0.0, min(1.0, (climate.temperature_c - 2) / 12))
    fresh = (92, 142, 56) if biome == "temperate" else (98, 128, 66)
    return mix((134, 124, 84), mix(fresh, (70, 136, 62), max(0.0, wet - 0.6)), growth)


def ground_colour(climate: Climate, scene: Scene, locality: Locality) -> RGB:
    """Colour of open ground: grass, sand, soil, paving, snow."""
    cover = {"desert": 0.1, "savanna": 0.55, "steppe": 0.75, "tundra": 0.8}.get(climate.biome, 0.92)
    soil = tone(climate.soil, locality.earth)
    colour = mix(soil, tone(grass_colour(climate), locality.grass), cover)
    if scene.name in ("beach", "desert/sand"):
        pale = mix((232, 214, 172), soil, 0.3)
        colour = pale if climate.biome != "boreal" else (170, 160, 146)
    elif scene.name in ("plaza", "parking_lot", "harbor", "building_facade", "skyscraper"):
        colour = mix((158, 154, 148), soil, 0.25)
    elif scene.houses > 0.8:
        colour = mix((150, 146, 138), soil, 0.35)
    elif scene.name == "field/cultivated":
        colour = mix(colour, (206, 176, 84) if climate.season > 0.2 else soil, 0.6)
    return mix(colour, (240, 244, 250), 0.92 * climate.snow)


def _towards_horizon(
    rng: random.Random, tile: np.ndarray, away: np.ndarray, size: int, wide: float, deep: float
) -> np.ndarray:
    """A tile laid out as a plane that runs to the horizon.

    Args:
        rng: Which part of the tile.
        tile: Shape (512, 512).
        away: Distance of each row of pixels, shape (rows,).
        size: Pixels across.
        wide: Cells of the tile across the picture at distance 1.
        deep: Cells of the tile from one unit of distance to the next.

    Returns:
        Shape (rows, size).
    """
    column = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    across = (column * (away[:, None] * np.float32(wide))).astype(np.int32) + rng.randrange(TILE)
    along = (away * np.float32(deep)).astype(np.int32) + rng.randrange(TILE)
    return tile.ravel()[((along % TILE) * TILE)[:, None] + (across & (TILE - 1))]


def _sky(rng: random.Random, size: int, rows: int, moment: Moment, climate: Climate) -> np.ndarray:
    """Red, green and blue of the rows above the horizon, shape (3, rows, size)."""
    top, low = (np.array(colour, np.float32)[:, None, None] for colour in sky_colours(moment, climate))
    down = np.linspace(0, 1, max(rows, 1), dtype=np.float32)
    sky = top + (low - top) * (down**1.4)[:, None]
    cover = _towards_horizon(rng, noise(), 1 / (np.float32(1.05) - down), size, 123, 34)
    opacity = np.clip((cover + np.float32((moment.clouds - 0.5) * 3.6)) * np.float32(0.75), 0, 1) * np.float32(0.92)
    light = min(max(0.45 + float(low.mean()) / 255 * 0.6, 0.25), 1.0)
    grey = (250 - 62 * max(0.0, moment.clouds - 0.3)) * light
    cloud = np.float32(grey) - 9 * cover
    return sky + (cloud - sky) * opacity


def _ground(rng: random.Random, size: int, rows: int, colour: np.ndarray, haze: RGB, rough: float) -> np.ndarray:
    """Red, green and blue of the rows below the horizon, shape (3, rows, size)."""
    down = (np.arange(rows, dtype=np.float32) + np.float32(1.5)) / size
    texture = _towards_horizon(rng, mottle(), 1 / down, size, 60, 36)
    far = np.exp(-16 * down)[:, None] * np.float32(0.55)
    texture *= np.float32(rough) * np.clip(down * 5, 0.15, 1)[:, None] * (1 - far)
    base = colour[:, None, None] * (1 - far) + np.array(haze, np.float32)[:, None, None] * far
    return base + texture * (colour * np.array([1, 0.95, 0.8], np.float32))[:, None, None]


def backdrop(
    rng: random.Random, size: int, horizon: float, scene: Scene, climate: Climate, locality: Locality, moment: Moment
) -> tuple[Image.Image, np.ndarray]:
    """Sky over ground.

    Args:
        rng: Where clouds are and how the ground is mottled.
        size: Width and height in pixels.
        horizon: Share of the height above the horizon.
        scene: What the photo shows.
        climate: The land.
        locality: Its own tones.
        moment: The sky.

    Returns:
        The picture and its classes, shape (size, size), int32.
    """
    rows = int(size * horizon)
    light = np.array(tint(moment), np.float32)
    haze = mix(shade(sky_colours(moment, climate)[1], 0.95), (128, 128, 128), 0.1)
    rough = 0.035 if climate.snow > 0.5 or scene.houses > 0.8 else 0.09
    lit = np.array(ground_colour(climate, scene, locality), np.float32) * light
    sky, ground = _sky(rng, size, rows, moment, climate), _ground(rng, size, size - rows, lit, haze, rough)
    bands = np.clip(np.concatenate([sky, ground], axis=1), 0, 255).astype(np.uint8)
    classes = np.full((size, size), 2000, np.int32)
    classes[:rows] = 1000
    return Image.merge("RGB", [Image.fromarray(band) for band in bands]), classes
