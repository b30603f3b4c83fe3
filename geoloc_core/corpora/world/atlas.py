"""What the world is like where its photos are taken, as rasters: elevation, people, temperature, rain and climate zone.

They take the place of SRTM, GHSL, WorldClim and Köppen–Geiger, and are read as those are.
"""

from pathlib import Path

import numpy as np

from geoloc_core.corpora.world import terrain
from geoloc_core.corpora.world.climate import LOCAL, LOCAL_KM, Climate, climate_at
from geoloc_core.corpora.world.fields import field, unit_vectors
from geoloc_core.geo.rasters import KOPPEN_BECK
from geoloc_core.geo.sphere import EARTH_KM

STEP = 0.5
"""Degrees of a pixel."""
NONE = -9999.0
HEIGHT, WIDTH = int(180 / STEP), int(360 / STEP)


def write(folder: Path) -> None:
    """Write a GeoTIFF of each quantity into a folder, which is made; pixels far from any town hold none."""
    rows, columns, people = _settled()
    latitudes, longitudes = 90 - (rows + 0.5) * STEP, (columns + 0.5) * STEP - 180
    points = unit_vectors(latitudes, longitudes)
    terrains = (terrain.coast_km(points), terrain.elevation_m(points), field(LOCAL, LOCAL_KM, points))
    places = list(zip(latitudes.tolist(), longitudes.tolist(), *(values.tolist() for values in terrains), strict=True))
    warm, cold = ([climate_at(lat, lon, month, *known) for lat, lon, *known in places] for month in (7, 1))
    area = (EARTH_KM * np.radians(STEP)) ** 2 * np.cos(np.radians(latitudes))
    wetness = np.array([one.wetness for one in warm])
    rain = 0.1 + 9.0 * wetness**2
    spread = np.abs([july.temperature_c - january.temperature_c for july, january in zip(warm, cold, strict=True)])
    quantities = {
        "elevation": terrains[1],
        "population": people / area,
        "temperature_mean": np.array([one.annual_c for one in warm]),
        "temperature_range": spread,
        "precipitation_mean": rain,
        "precipitation_range": rain * (1.6 - wetness),
        "climate": np.array([1 + KOPPEN_BECK.index(zone(*pair)) for pair in zip(warm, spread.tolist(), strict=True)]),
    }
    folder.mkdir(parents=True)
    for name, values in quantities.items():
        _write(folder / f"{name}.tif", rows, columns, values)


def zone(land: Climate, spread: float) -> str:
    """The Köppen–Geiger zone of what grows there.

    Args:
        land: Its climate.
        spread: From the coldest month to the warmest, °C.
    """
    warm, hot = land.annual_c >= 18, land.annual_c + spread / 2 >= 22
    match land.biome:
        case "tundra":
            return "ET" if land.annual_c + spread / 2 > 0 else "EF"
        case "boreal":
            return "Dfc"
        case "desert":
            return "BWh" if warm else "BWk"
        case "steppe":
            return "BSh" if warm else "BSk"
        case "mediterranean":
            return "Csa" if hot else "Csb"
        case "savanna":
            return "Aw"
        case "tropical":
            return "Af" if land.wetness > 0.75 else "Am"
    cold = land.annual_c - spread / 2 < 0
    return f"{'D' if cold else 'C'}f{'a' if hot else 'b'}"


def _settled() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows and columns of the pixels with a town, and of those beside them, and how many people live in each."""
    from geoloc_core.geo.towns import Towns

    towns = Towns.load(15000)
    people = np.zeros((HEIGHT, WIDTH))
    row = np.minimum((90 - towns.latitudes) / STEP, HEIGHT - 1).astype(np.int64)
    column = np.minimum((towns.longitudes + 180) / STEP, WIDTH - 1).astype(np.int64)
    np.add.at(people, (row, column), towns.populations)
    near = np.zeros((HEIGHT, WIDTH), bool)
    for down in (-1, 0, 1):
        for across in (-1, 0, 1):
            near[np.clip(row + down, 0, HEIGHT - 1), (column + across) % WIDTH] = True
    rows, columns = np.nonzero(near)
    return rows, columns, people[rows, columns]


def _write(path: Path, rows: np.ndarray, columns: np.ndarray, values: np.ndarray) -> None:
    import rasterio
    from rasterio.transform import from_origin

    pixels = np.full((HEIGHT, WIDTH), NONE, np.float32)
    pixels[rows, columns] = values
    shape = {"height": HEIGHT, "width": WIDTH, "count": 1, "dtype": "float32", "nodata": NONE}
    with rasterio.open(
        path, "w", driver="GTiff", crs="EPSG:4326", transform=from_origin(-180, 90, STEP, STEP), compress="deflate",
        **shape,
    ) as file:  # fmt: skip
        file.write(pixels, 1)
