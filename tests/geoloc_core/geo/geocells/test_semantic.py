import geopandas
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc_core.geo import boundaries, geocells
from geoloc_core.geo.geocells import voronoi
from geoloc_core.geo.geocells.division import divide, pieces
from geoloc_core.geo.geocells.fuse import fuse, neighbourhood
from geoloc_core.geo.geocells.ground import Ground
from geoloc_core.geo.geocells.schemes.semantic import Options
from geoloc_core.geo.sphere import unit_vectors



def frame(columns: dict, shapes: list) -> geopandas.GeoDataFrame:
    return geopandas.GeoDataFrame(columns, geometry=shapes, crs="EPSG:4326")


ROUNDS = ((8, 0.05), (10, 0.025), (15, 0.015))


@pytest.fixture(scope="module")
def land(tmp_path_factory):
    """Gridia of 8 × 8 squares in four provinces and an island; Farland, small; Voidia without photos."""
    cells = [(row, column) for row in range(8) for column in range(8)]
    squares = [shapely.box(10 + c, 40 + r, 11 + c, 41 + r) for r, c in cells] + [shapely.box(21, 40, 22, 41)]
    province = [1 + (r // 4) * 2 + c // 4 for r, c in cells] + [2]
    gids = [f"GRI.{p}.{n}_1" for n, p in enumerate(province)]
    second = {
        "GID_2": gids,
        "GID_0": "GRI",
        "COUNTRY": "Gridia",
        "GID_1": [f"GRI.{p}_1" for p in province],
        "NAME_1": [f"P{p}" for p in province],
        "NAME_2": [f"Square {n}" for n in range(len(squares))],
        "TYPE_2": "square",
        "ENGTYPE_2": "square",
    }
    level_2 = frame(second, squares)
    parts = level_2.dissolve("GID_1").reset_index()
    level_1 = frame(
        {"GID_1": parts["GID_1"], "GID_0": "GRI", "COUNTRY": "Gridia", "NAME_1": parts["NAME_1"], "TYPE_1": "p"}
        | {"ENGTYPE_1": "p"},
        parts.geometry.to_list(),
    )
    far, void = shapely.box(-60, 0, -58, 2), shapely.box(-50, 0, -48, 2)
    whole = shapely.union_all(squares)
    level_0 = frame({"GID_0": ["FAR", "GRI", "VOI"], "COUNTRY": ["Farland", "Gridia", "Voidia"]}, [far, whole, void])
    folder = tmp_path_factory.mktemp("land") / "boundaries"
    boundaries.write({0: level_0, 1: level_1, 2: level_2}, folder)
    return folder


def photos(seed: int, count: int, far: int = 5, repeats: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Photos of a few towns in Gridia, some everywhere, and a few in Farland."""
    rng = np.random.default_rng(seed)
    towns = rng.uniform([40.5, 10.5], [47.5, 17.5], (5, 2))
    at = towns[rng.integers(0, 5, count)] + rng.normal(size=(count, 2)) * rng.exponential(0.3, (count, 1))
    at[::4] = rng.uniform([40, 10], [48, 18], (len(at[::4]), 2))
    at = np.clip(at, [40.001, 10.001], [47.999, 17.999])
    at[: count // 3] = np.repeat(at[: count // 3 : repeats], repeats, axis=0)[: count // 3]
    away = rng.uniform([0.1, -59.9], [1.9, -58.1], (far, 2))
    return tuple(np.concatenate([at, away]).T)  # type: ignore[return-value]


def build(land, latitudes, longitudes, **options):
    return geocells.build(Options(kind="semantic", **options), latitudes, longitudes, land)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(40, 3000), repeats=st.integers(1, 3))
def test_cells_hold_every_point_within_the_limits(land, seed, count, repeats):
    latitudes, longitudes = photos(seed, count, repeats=repeats)
    made = build(land, latitudes, longitudes)
    cells = made.assign(latitudes, longitudes)
    assert (cells >= 0).all()
    assert made.counts.sum() == count + 5
    np.testing.assert_array_equal(np.bincount(cells, minlength=len(made)), made.counts)
    country = np.array(made.space.levels["country"])
    assert made.counts[country == "FAR"].tolist() == [5]
    assert (made.counts[country == "GRI"] >= 30).all()
    assert made.counts.max() <= 60


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(100, 2000))
def test_every_place_on_land_is_in_one_cell_and_its_polygon(land, seed, count):
    made = build(land, *photos(seed, count))
    rng = np.random.default_rng(seed)
    boxes = np.array([[40, 48, 10, 18], [40, 41, 21, 22], [0, 2, -60, -58], [0, 2, -50, -48]])
    low_lat, high_lat, low_lon, high_lon = boxes[rng.integers(0, 4, 400)].T
    latitudes, longitudes = rng.uniform(low_lat, high_lat), rng.uniform(low_lon, high_lon)
    cells = made.assign(latitudes, longitudes)
    assert (cells >= 0).all()
    shapes = made.shapes()
    assert shapely.is_valid(shapes).all()
    point, cell = shapely.STRtree(shapes).query(shapely.points(longitudes, latitudes), "within")
    assert sorted(point.tolist()) == list(range(400))
    assert (cell[np.argsort(point)] == cells).mean() > 0.99  # lines in degrees stray a little from great circles
    whole = sum(shapely.area(shape) for shape in shapes)
    assert whole == pytest.approx(64 + 1 + 4 + 4, rel=1e-6)


def test_the_same_points_give_the_same_cells(land, tmp_path):
    latitudes, longitudes = photos(4, 2500)
    given = latitudes.copy()
    first, second = (build(land, latitudes, longitudes) for _ in range(2))
    first.save(tmp_path / "a")
    second.save(tmp_path / "b")
    for name in ("arrays.npz", "labels.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    np.testing.assert_array_equal(latitudes, given)


def test_cells_are_the_same_when_read_back(land, tmp_path):
    latitudes, longitudes = photos(5, 1500)
    made = build(land, latitudes, longitudes)
    made.save(tmp_path / "cells")
    again = geocells.load(tmp_path / "cells")
    everywhere = np.random.default_rng(0).uniform([39, 9], [49, 19], (2000, 2)).T
    np.testing.assert_array_equal(again.assign(*everywhere), made.assign(*everywhere))
    assert (again.space.ids, again.space.levels) == (made.space.ids, made.space.levels)
    assert again.options == made.options


def test_a_cell_knows_what_holds_it_and_lies_amid_its_points(land):
    latitudes, longitudes = photos(6, 1500)
    made = build(land, latitudes, longitudes)
    cells = made.assign(latitudes, longitudes)
    for cell in (0, len(made) // 2):
        mean = unit_vectors(latitudes[cells == cell], longitudes[cells == cell]).mean(axis=0)
        centre = unit_vectors(made.space.latitudes[cell], made.space.longitudes[cell])
        assert mean @ centre / np.linalg.norm(mean) == pytest.approx(1)
    assert set(made.space.levels) == {"subdivision", "country", "continent"}
    for subdivision, country in zip(made.space.levels["subdivision"], made.space.parents, strict=True):
        assert subdivision.startswith(country)
    assert len(set(made.space.ids)) == len(set(made.space.names)) == len(made)


def test_units_fuse_within_their_country_and_first_within_their_province(land):
    ground = Ground(land)
    graph = neighbourhood(ground)
    counts = np.where(ground.gids[:, 0] == "GRI", 20, 3)
    province = np.unique(ground.gids[:, 1].astype(str), return_inverse=True)[1]
    group = fuse(counts, ground.areas, province, graph, 30)
    for number in np.unique(group):
        assert len(set(ground.gids[group == number, 0])) == 1
    totals = np.bincount(group, counts)
    assert (totals[np.unique(group[ground.gids[:, 0] == "GRI"])] >= 30).all()
    mixed = sum(len(set(ground.gids[group == number, 1].astype(str))) > 1 for number in np.unique(group))
    assert mixed <= 1


def test_the_units_of_a_country_are_connected_and_of_no_other(land):
    ground = Ground(land)
    graph = neighbourhood(ground)
    country = np.unique(ground.gids[:, 0].astype(str), return_inverse=True)[1]
    owner = np.repeat(np.arange(len(country)), np.diff(graph.starts))
    assert (country[owner] == country[graph.neighbours]).all()
    _, found = pieces(country, graph.starts, graph.neighbours)
    assert found == 3


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(70, 1500), st.integers(1, 40))
def test_parts_are_connected_and_within_the_limits_unless_points_coincide(seed, count, most):
    rng = np.random.default_rng(seed)
    spots = rng.normal(size=(3, 2))[rng.integers(0, 3, count)] + rng.normal(size=(count, 2)) * 0.2
    vectors, weights = unit_vectors(*spots.T), rng.integers(1, most + 1, count)
    graph = voronoi.graph(vectors)
    samples, xi = (np.array(column) for column in zip(*ROUNDS, strict=True))
    parts = divide(vectors, weights, graph.starts, graph.neighbours, 30, 60, samples, xi)
    totals = np.bincount(parts, weights)
    assert totals.sum() == weights.sum()
    assert totals.min() >= 30
    for part in np.flatnonzero(totals > 60):
        # No cut leaves 30 on both sides only where a few places hold nearly all.
        assert weights[parts == part].max() > 1
    _, found = pieces(parts, graph.starts, graph.neighbours)
    assert found == parts.max() + 1


def test_points_at_one_place_stay_together_and_lose_nobody(land):
    latitudes, longitudes = np.full(500, 44.25), np.full(500, 14.25)
    made = build(land, latitudes, longitudes)
    assert made.counts.max() == 500 == made.counts.sum()


@pytest.mark.parametrize("options", [{"min_points": 30, "max_points": 59}, {"rounds": [[1, 0.05]]}, {"rounds": [[8, 2]]}])
def test_impossible_options_are_refused_in_one_line(options):
    with pytest.raises(geocells.UserError, match="scheme semantic: "):
        geocells.check({"kind": "semantic", **options})
