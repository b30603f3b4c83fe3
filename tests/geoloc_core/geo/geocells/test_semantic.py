import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc_core.geo import geocells
from geoloc_core.geo.geocells import voronoi
from geoloc_core.geo.geocells.division import divide, pieces
from geoloc_core.geo.geocells.fuse import fuse, neighbourhood
from geoloc_core.geo.geocells.ground import Ground
from geoloc_core.geo.geocells.schemes.semantic import Options
from geoloc_core.geo.sphere import unit_vectors

ROUNDS = ((8, 0.05), (10, 0.025), (15, 0.015))


def build(land, latitudes, longitudes, **options):
    return geocells.build(Options(kind="semantic", **options), latitudes, longitudes, land)


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(40, 3000), repeats=st.integers(1, 3))
def test_cells_hold_every_point_within_the_limits(land, photos, seed, count, repeats):
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


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(100, 2000))
def test_every_place_on_land_is_in_one_cell_and_its_polygon(land, photos, seed, count):
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


def test_the_same_points_give_the_same_cells(land, photos, tmp_path):
    latitudes, longitudes = photos(4, 2500)
    given = latitudes.copy()
    first, second = (build(land, latitudes, longitudes) for _ in range(2))
    first.save(tmp_path / "a")
    second.save(tmp_path / "b")
    for name in ("arrays.npz", "labels.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    np.testing.assert_array_equal(latitudes, given)


def test_cells_are_the_same_when_read_back(land, photos, tmp_path):
    latitudes, longitudes = photos(5, 1500)
    made = build(land, latitudes, longitudes)
    made.save(tmp_path / "cells")
    again = geocells.load(tmp_path / "cells")
    everywhere = np.random.default_rng(0).uniform([39, 9], [49, 19], (2000, 2)).T
    np.testing.assert_array_equal(again.assign(*everywhere), made.assign(*everywhere))
    assert (again.space.ids, again.space.levels) == (made.space.ids, made.space.levels)
    assert again.options == made.options


def test_a_cell_knows_what_holds_it_and_lies_amid_its_points(land, photos):
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


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(70, 1500), st.integers(1, 40))
def test_parts_are_connected_and_within_the_limits_unless_points_coincide(seed, count, most):
    rng = np.random.default_rng(seed)
    spots = rng.normal(size=(3, 2))[rng.integers(0, 3, count)] + rng.normal(size=(count, 2)) * 0.2
    vectors, weights = unit_vectors(*spots.T), rng.integers(1, most + 1, count)
    graph = voronoi.graph(vectors)
    parts = divide(vectors, weights, graph.starts, graph.neighbours, 30, 60, ROUNDS)
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


@pytest.mark.parametrize(
    "options", [{"min_points": 30, "max_points": 59}, {"rounds": [[1, 0.05]]}, {"rounds": [[8, 2]]}]
)
def test_impossible_options_are_refused_in_one_line(options):
    with pytest.raises(geocells.UserError, match="scheme semantic: "):
        geocells.check({"kind": "semantic", **options})
