import numpy as np
import pytest
import shapely

from geoloc_core.geo import sphere
from geoloc_core.geo.catchments import catchments, distinct, fold

RANDOM = np.random.default_rng(7)


def places(count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.degrees(np.arcsin(RANDOM.uniform(-0.95, 0.95, count))), RANDOM.uniform(-180, 180, count)


@pytest.fixture(scope="module")
def made():
    latitudes, longitudes = places(600)
    latitudes[:2], longitudes[:2] = [-17, -16.5], [179.5, -179.5]
    return latitudes, longitudes, catchments(latitudes, longitudes, np.full(600, 400.0))


def test_every_point_is_with_its_nearest_place(made):
    latitudes, longitudes, shapes = made
    lat, lon = places(4000)
    distance = sphere.haversine_km(lat[:, None], lon[:, None], latitudes, longitudes)
    first, second = np.sort(distance, axis=1)[:, :2].T
    # A straight line in degrees strays from a great circle by some kilometres: leave out what lies on borders.
    clear = (second - first > 40) & (np.abs(first - 400) > 20)
    tree = shapely.STRtree(shapes)
    point, place = tree.query(shapely.points(lon[clear], lat[clear]), predicate="within")
    expected = np.where(first < 400, distance.argmin(axis=1), -1)[clear]
    found = np.full(clear.sum(), -1)
    found[point] = place
    assert len(point) == len(set(point))
    assert (found == expected).all()


def test_shapes_are_valid_and_within_the_frame(made):
    _, _, shapes = made
    assert shapely.is_valid(shapes).all()
    assert (shapely.area(shapes) > 0).all()
    assert shapely.union_all(shapes).bounds[0] >= -180
    assert shapely.union_all(shapes).bounds[2] <= 180


def test_a_shape_across_the_antimeridian_has_two_parts(made):
    _, _, shapes = made
    assert shapely.get_type_id(shapes[:2]).tolist() == [shapely.GeometryType.MULTIPOLYGON] * 2
    assert shapely.within(shapely.points([179.9, -179.9], -16.9), shapes[:2].reshape(2, 1)).any(axis=0).all()


def test_each_place_has_its_own_reach():
    shapes = catchments(np.array([0.0, 40.0]), np.array([0.0, 60.0]), np.array([10.0, 300.0]))
    assert shapely.area(shapes[0]) == pytest.approx(np.pi * np.degrees(10 / sphere.EARTH_KM) ** 2, rel=0.02)
    south, north = shapes[1].bounds[1], shapes[1].bounds[3]
    assert sphere.haversine_km(south, 60, north, 60) == pytest.approx(600, rel=0.02)


def test_places_that_coincide_count_once():
    latitudes = np.array([10.0, 10.0, 10.0, 20.0, 20.0])
    longitudes = np.array([5.0, 5.0, 5.00001, 5.0, 5.01])
    assert distinct(latitudes, longitudes).tolist() == [True, False, False, True, True]


def test_fold_moves_what_is_beyond_to_the_other_side():
    west, east, plain = fold(
        np.array([shapely.box(-182, 0, -179, 1), shapely.box(178, 0, 183, 1), shapely.box(0, 0, 1, 1)])
    )
    assert west.equals(shapely.union(shapely.box(178, 0, 180, 1), shapely.box(-180, 0, -179, 1)))
    assert east.equals(shapely.union(shapely.box(178, 0, 180, 1), shapely.box(-180, 0, -177, 1)))
    assert plain.equals(shapely.box(0, 0, 1, 1))
