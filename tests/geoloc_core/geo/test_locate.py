import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc_core.errors import UserError
from geoloc_core.geo import sphere
from geoloc_core.geo.borders import Borders
from geoloc_core.geo.locate import Locator, Units
from geoloc_core.geo.rings import Rings

HERE = {"Alba's south-west": (2, 3), "east": (2, 13), "Fidzi": (0, 179.5), "sea": (-40, 60)}


def countries(shapes, gids, limit_km) -> Locator:
    table = np.array([[gid, None, None] for gid in gids], dtype=object)
    return Locator.build(np.array(shapes), Units(table, table), limit_km)


@pytest.fixture
def locator(folder) -> Locator:
    return Locator.open(folder, limit_km=50)


def test_the_finest_unit_decides_and_brings_its_parents(locator):
    found = locator.locate(*zip(*HERE.values(), strict=True))
    assert found.gid_0.tolist() == ["ALB", "ALB", "FJI", None]
    assert found.gid_1.tolist() == ["ALB.1_1", "ALB.2_1", None, None]
    assert found.gid_2.tolist() == ["ALB.1.1_1", None, None, None]
    assert found.distance_km.tolist()[:3] == [0, 0, 0]
    assert np.isnan(found.distance_km[3])


def test_both_sides_of_the_antimeridian_are_the_same_place(locator):
    found = locator.locate([0, 0, 1, 1], [180, -180, 179.999, -179.999])
    assert found.gid_0.tolist() == ["FJI"] * 4
    assert (found.distance_km == 0).all()


@pytest.mark.slow
def test_near_is_measured_across_the_antimeridian():
    found = countries([shapely.box(179, -2, 179.9, 2)], "X", 50).locate([0], [-179.9])
    assert found.gid_0[0] == "X"
    assert found.distance_km[0] == pytest.approx(sphere.haversine_km(0, 179.9, 0, -179.9), rel=1e-4)


def test_a_border_point_is_in_the_first_unit(locator):
    found = locator.locate([5, 2, 0, 10, 10], [5, 10, 0, 20, 10])
    assert found.gid_2.tolist() == ["ALB.1.1_1", None, "ALB.1.1_1", None, None]
    assert (found.distance_km == 0).all()


def test_overlapping_units_go_by_order():
    shapes = [shapely.box(0, 0, 2, 2), shapely.box(1, 1, 3, 3), shapely.box(0, 0, 3, 3)]
    found = countries(shapes, "ABC", 10).locate([1.5, 2.5, 0.5], [1.5, 2.5, 2.5])
    assert found.gid_0.tolist() == ["A", "B", "C"]


def test_far_north_the_nearest_unit_is_nearest_on_the_sphere():
    # From 79.5° north, 10° of longitude are 203 km and 3° of latitude 334 km: degrees alone would mislead.
    shapes = [shapely.box(0, 75, 5, 76.5), shapely.box(15, 79, 20, 80)]
    found = countries(shapes, ["south", "east"], 500).locate([79.5], [5])
    assert found.gid_0[0] == "east"
    assert found.distance_km[0] == pytest.approx(sphere.haversine_km(79.5, 5, 79.5, 15), rel=0.01)


def test_the_limit_is_kept(locator):
    degree = np.degrees(1 / sphere.EARTH_KM)
    found = locator.locate([-49.9 * degree, -50.1 * degree], [5, 5])
    assert found.gid_0.tolist() == ["ALB", None]
    assert found.distance_km[0] == pytest.approx(49.9, abs=0.01)


def test_no_limit_means_inside_only(folder):
    assert Locator.open(folder, limit_km=0).locate([-0.01], [5]).gid_0[0] is None


def test_no_points_are_no_trouble(locator):
    found = locator.locate([], [])
    assert len(found) == 0
    assert found.gid_0.dtype == object


@pytest.mark.parametrize("latitudes", [[0, np.nan], [0, 90.1]])
def test_wrong_coordinates_are_named(locator, latitudes):
    with pytest.raises(UserError, match="row 1"):
        locator.locate(latitudes, [0, 0])


def test_missing_boundaries_are_named(tmp_path):
    with pytest.raises(UserError, match=r"units.json: no such file; expected an index .*run `geoloc boundaries`"):
        Locator.open(tmp_path)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(-90, 90), st.floats(-180, 180)), min_size=1, max_size=20), st.integers(0, 9))
def test_nearest_border_agrees_with_trying_every_point_of_it(points, seed):
    random = np.random.default_rng(seed)
    west, south = random.uniform(-179, 170, 12), random.uniform(-80, 70, 12)
    shapes = shapely.box(west, south, west + random.uniform(0.01, 9, 12), south + random.uniform(0.01, 9, 12))
    lat, lon = np.array(points).T
    unit, km = Borders.of(Rings.of(shapes)).nearest(lat, lon, 25000)
    dense, owner = shapely.get_coordinates(shapely.segmentize(shapes, 0.02), return_index=True)
    brute = sphere.haversine_km(lat[:, None], lon[:, None], dense[:, 1], dense[:, 0])
    # The vertices are 2.2 km apart, so the nearest one is at most 1.2 km along the border from the nearest place.
    farthest = np.hypot(km, 1.2) + 0.05
    assert (km <= brute.min(axis=1) + 0.001).all()
    assert (brute.min(axis=1) <= farthest).all()
    at_unit = np.array([row[owner == u].min() for row, u in zip(brute, unit, strict=True)])
    assert (at_unit <= farthest).all()


def test_units_equally_near_go_by_order():
    shapes = np.array([shapely.box(0, 1, 1, 2), shapely.box(0, -2, 1, -1), shapely.box(1, 1, 2, 2)])
    unit, _ = Borders.of(Rings.of(shapes)).nearest(np.array([0.0, 0.5]), np.array([0.5, 1.0]), 200)
    assert unit.tolist() == [0, 0]


def test_names_follow_ids(locator):
    found = locator.locate([0, -40, 2, 7], [180, 60, 13, 3])
    assert found.name(0).tolist() == ["Fidzi", None, "Alba", "Alba"]
    assert found.name(1).tolist() == [None, None, "East", "West"]
    assert found.name(2).tolist() == [None, None, None, "ALB.1.2_1"], "a unit without a name is called by its id"


CITIES = {
    "Maseru": (-29.3167, 27.4833, "LSO"),
    "Bloemfontein": (-29.1, 26.2167, "ZAF"),
    "Vatican": (41.9029, 12.4534, "VAT"),
    "Rome": (41.8933, 12.4829, "ITA"),
    "San Marino": (43.9367, 12.4467, "SMR"),
    "Suva": (-18.1416, 178.4419, "FJI"),
    "Taveuni, east of the antimeridian": (-16.8, -179.98, "FJI"),
    "Anadyr": (64.7333, 177.5167, "RUS"),
    "Uelen, east of the antimeridian": (66.1594, -169.8092, "RUS"),
    "Pristina": (42.6629, 21.1655, "XKX"),
    "Paris": (48.8566, 2.3522, "FRA"),
    "Oslo": (59.9139, 10.7522, "NOR"),
    "Honolulu": (21.3069, -157.8583, "USA"),
    "Amundsen–Scott": (-90, 0, "ATA"),
}


@pytest.mark.slow
def test_cities_are_in_their_countries(natural_earth):
    lat, lon, gids = zip(*CITIES.values(), strict=True)
    found = Locator.open(natural_earth, 25).locate(lat, lon)
    assert dict(zip(CITIES, found.gid_0, strict=True)) == dict(zip(CITIES, gids, strict=True))


def test_real_photos_are_in_their_countries(natural_earth, shared):
    import pandas as pd

    photos = pd.read_csv(shared / "images/manifest.csv").dropna(subset=["lat", "lon", "country"])
    assert len(photos) > 100
    found = Locator.open(natural_earth, 25).locate(photos["lat"], photos["lon"])
    # The manifest and Natural Earth's ADMIN use the same English names.
    located = found.unit >= 0
    assert located.mean() > 0.95
    assert (found.name(0) == photos["country"])[located].mean() >= 0.98
