import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoloc_core.errors import UserError
from geoloc_core.geo import sphere

LATITUDES = st.floats(-90, 90)
LONGITUDES = st.floats(-180, 180)
POINTS = st.tuples(LATITUDES, LONGITUDES)
HALF_WAY_ROUND = np.pi * sphere.EARTH_KM


def reference_km(a, b):
    """Vincenty's formula on a sphere: well-conditioned at every distance, antipodes among them; in 30 digits."""
    from mpmath import atan2, cos, mp, mpf, radians, sin, sqrt

    mp.dps = 30
    lat, lon, other_lat, other_lon = (radians(mpf(float(v))) for v in (*a, *b))
    turn = other_lon - lon
    across = cos(other_lat) * sin(turn)
    along = cos(lat) * sin(other_lat) - sin(lat) * cos(other_lat) * cos(turn)
    dot = sin(lat) * sin(other_lat) + cos(lat) * cos(other_lat) * cos(turn)
    return float(atan2(sqrt(across**2 + along**2), dot) * mpf(sphere.EARTH_KM))


CORNERS = st.sampled_from([(90, 0), (-90, 17), (0, 180), (0, -180), (0, 0), (45, -180), (-45, 180), (1e-9, 1e-9)])


@given(POINTS | CORNERS, POINTS | CORNERS)
def test_distance_is_that_of_the_reference(a, b):
    # Near the antipode the haversine's rounding grows to its root: 1e-8 of the radius, decimetres.
    assert sphere.haversine_km(*a, *b) == pytest.approx(reference_km(a, b), rel=1e-9, abs=1e-3)


@given(POINTS, st.floats(-1e-3, 1e-3), st.floats(-1e-3, 1e-3))
def test_short_distances_are_exact(a, north, east):
    b = (np.clip(a[0] + north, -90, 90), np.clip(a[1] + east, -180, 180))
    assert sphere.haversine_km(*a, *b) == pytest.approx(reference_km(a, b), rel=1e-6, abs=1e-9)


@given(POINTS, st.floats(-1e-4, 1e-4), st.floats(-1e-4, 1e-4))
def test_near_the_antipode_it_is_half_way_round_less_a_little(a, north, east):
    b = (np.clip(-a[0] + north, -90, 90), sphere.wrap(a[1] + 180 + east))
    assert sphere.haversine_km(*a, *b) == pytest.approx(reference_km(a, b), abs=1e-3)


@given(POINTS, POINTS)
def test_distance_is_symmetric_and_bounded(a, b):
    there, back = sphere.haversine_km(*a, *b), sphere.haversine_km(*b, *a)
    assert there == pytest.approx(back, abs=1e-6)
    assert 0 <= there <= HALF_WAY_ROUND + 1e-9


@given(POINTS, POINTS, POINTS)
def test_a_detour_is_never_shorter(a, b, c):
    direct = sphere.haversine_km(*a, *c)
    assert direct <= sphere.haversine_km(*a, *b) + sphere.haversine_km(*b, *c) + 1e-3


@given(POINTS)
def test_a_point_is_at_itself_and_its_antipode_half_way_round(a):
    latitude, longitude = a
    assert sphere.haversine_km(*a, *a) == 0
    assert sphere.haversine_km(*a, -latitude, longitude - 180) == pytest.approx(HALF_WAY_ROUND, abs=1e-3)


@given(LATITUDES, st.floats(-40, 40))
def test_the_antimeridian_is_no_border(latitude, turn):
    here = sphere.haversine_km(latitude, 180, latitude, turn - 180)
    assert here == pytest.approx(sphere.haversine_km(latitude, 0, latitude, turn), abs=1e-6)


@given(LONGITUDES, LONGITUDES, LATITUDES)
def test_at_a_pole_every_longitude_is_the_same(one, other, latitude):
    distance = sphere.haversine_km(90, one, latitude, other)
    assert distance == pytest.approx((90 - latitude) / 180 * HALF_WAY_ROUND, abs=1e-3)


@pytest.mark.parametrize(
    ("a", "b", "km"),
    [
        ((52.5200, 13.4050), (48.8566, 2.3522), 877.5),
        ((-33.8688, 151.2093), (34.0522, -118.2437), 12062.0),
        ((-16.5, 179.9), (-16.5, -179.9), 21.3),
    ],
)
def test_known_distances(a, b, km):
    assert sphere.haversine_km(*a, *b) == pytest.approx(km, rel=2e-3)


def test_distances_broadcast_and_pass_nan_on():
    table = sphere.haversine_km(np.zeros((3, 1)), np.zeros((3, 1)), [0.0, np.nan], [90.0, 0.0])
    assert table.shape == (3, 2)
    assert table[:, 0] == pytest.approx(HALF_WAY_ROUND / 2)
    assert np.isnan(table[:, 1]).all()


def test_the_radius_is_a_parameter():
    assert sphere.haversine_km(0, 0, 0, 180, radius_km=1) == pytest.approx(np.pi)


@given(st.floats(-89.9, 89.9), LONGITUDES)
def test_vectors_go_there_and_back(latitude, longitude):
    vector = sphere.unit_vectors(latitude, longitude)
    assert np.linalg.norm(vector) == pytest.approx(1)
    assert sphere.haversine_km(*sphere.coordinates(vector), latitude, longitude) == pytest.approx(0, abs=1e-6)


@given(POINTS)
def test_tangents_are_perpendicular(a):
    east, north = sphere.tangents(*a)
    up = sphere.unit_vectors(*a)
    assert np.cross(east, north) == pytest.approx(up)


@given(st.floats(0, 20000))
def test_chords_and_arcs_are_inverse(km):
    assert sphere.arc_km(sphere.chord(km)) == pytest.approx(km, abs=0.05)


def test_lattice_covers_the_sphere_evenly():
    from scipy.spatial import cKDTree

    points = sphere.lattice(500)
    nearest = sphere.arc_km(cKDTree(points).query(points, k=2)[0][:, 1])
    assert 250 < nearest.min() <= nearest.max() < 700


@pytest.mark.parametrize(
    ("latitudes", "longitudes", "says"),
    [
        ([0, 91], [0, 0], "row 1: latitude 91.0"),
        ([0, np.nan], [0, 0], "row 1: latitude nan"),
        ([0, 0, 0], [0, 0, -180.5], "row 2: longitude -180.5"),
        ([0], [0, 1], "the same length"),
    ],
)
def test_wrong_coordinates_are_named(latitudes, longitudes, says):
    with pytest.raises(UserError, match=says):
        sphere.check(latitudes, longitudes)
