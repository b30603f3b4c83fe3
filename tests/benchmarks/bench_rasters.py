"""Points sampled in a second from each raster: ``python tests/benchmarks/bench_rasters.py [points]``.

Two sets of points: where photos are (GeoCLIP's gallery, shaken), and evenly over the sphere, most of them at sea.
"""

import platform
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from geoloc_core.geo.rasters import Raster
from geoloc_core.geo.towns import Towns

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
RASTERS = {
    "Köppen–Geiger 100″": ("koppen_rubel2017_100arcsec.tif", {"empty": [32]}),
    "elevation 20′": ("elevation_etopo20.tif", {}),
    "population density 30′": ("gpw_v4_population_density_rev11_2020_30_min.asc", {}),
    "mean temperature 2.5°": ("air.mon.ltm.nc", {"variable": "air", "band": "mean"}),
    "temperature range 2.5°": ("air.mon.ltm.nc", {"variable": "air", "band": "range"}),
}


def photos(count: int) -> np.ndarray:
    """Places (N, 2) of photos, each shaken by up to 0.05°."""
    random = np.random.default_rng(0)
    gallery = pd.read_csv(SHARED / "benchmarks" / "geoclip_gallery_100k.csv")[["LAT", "LON"]].to_numpy()
    places = gallery[random.integers(0, len(gallery), count)] + random.uniform(-0.05, 0.05, (count, 2))
    return np.clip(places, [-90, -180], [90, 180])


def even(count: int) -> np.ndarray:
    """Places (N, 2) spread evenly over the sphere."""
    random = np.random.default_rng(1)
    return np.stack([np.degrees(np.arcsin(random.uniform(-1, 1, count))), random.uniform(-180, 180, count)], axis=1)


def seconds(sample: object, places: np.ndarray) -> tuple[float, float]:
    """The first call, which reads the file, and the median of three more."""
    took = []
    for _ in range(4):
        started = time.perf_counter()
        sample(*places.T)  # type: ignore[operator]
        took.append(time.perf_counter() - started)
    return took[0], float(np.median(took[1:]))


def main(count: int = 2_000_000) -> None:
    print(f"{platform.machine()}, one process, {count:,} points, limit 25 km\n")
    print("| raster | first call at photos, s | points/s at photos | points/s over the sphere |")
    print("|---|---|---|---|")
    rows = {}
    for name, (file, options) in RASTERS.items():
        rows[name] = Raster.open(SHARED / "geodata" / file, **options).sample
    rows["nearest town"] = Towns.load().nearest
    sets = photos(count), even(count)
    for name, sample in rows.items():
        (first, at_photos), (_, over_sphere) = (seconds(sample, places) for places in sets)
        print(f"| {name} | {first:.2f} | {count / at_photos:,.0f} | {count / over_sphere:,.0f} |")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
