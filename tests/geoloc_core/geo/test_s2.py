import numpy as np
import pytest
import s2sphere
from hypothesis import given
from hypothesis import strategies as st

from geoloc_core.geo import s2

LATITUDES = st.floats(-90, 90, allow_subnormal=False)
LONGITUDES = st.floats(-180, 180, allow_subnormal=False)


def reference(latitude: float, longitude: float) -> s2sphere.CellId:
    return s2sphere.CellId.from_lat_lng(s2sphere.LatLng.from_degrees(latitude, longitude))


@given(LATITUDES, LONGITUDES, st.integers(0, 30))
def test_ids_levels_and_tokens_are_those_of_the_reference(latitude, longitude, level):
    expected = reference(latitude, longitude).parent(level)
    found = s2.parents(s2.leaves([latitude], [longitude]), level)
    # Libraries differ in the last bit of a cosine, which is a leaf or two of a centimetre.
    if level <= 25:
        assert int(found[0]) == expected.id()
    assert s2.levels(found).tolist() == [level]
    assert s2.from_tokens(s2.tokens(found)).tolist() == found.tolist()
    assert s2.tokens(np.array([expected.id()], dtype=np.uint64)) == [expected.to_token()]
    assert s2.is_valid(found).all()


@given(LATITUDES, LONGITUDES, st.integers(0, 24))
def test_corners_and_centres_are_those_of_the_reference(latitude, longitude, level):
    cell = s2sphere.Cell(reference(latitude, longitude).parent(level))
    ids = np.array([cell.id().id()], dtype=np.uint64)
    latitudes, longitudes = s2.outlines(ids, steps=1)
    for corner in range(4):
        there = s2sphere.LatLng.from_point(cell.get_vertex(corner))
        here = s2sphere.LatLng.from_degrees(latitudes[0, corner], longitudes[0, corner])
        assert here.get_distance(there).degrees < 1e-9
    centre = s2sphere.LatLng.from_degrees(*(float(axis[0]) for axis in s2.centres(ids)))
    assert centre.get_distance(cell.id().to_lat_lng()).degrees < 1e-9


@given(LATITUDES, LONGITUDES, st.integers(0, 30))
def test_a_cell_is_an_interval_of_leaves_that_holds_its_centre(latitude, longitude, level):
    leaf = s2.leaves([latitude], [longitude])
    cell = s2.parents(leaf, level)
    first, last = s2.leaf_ranges(cell)
    assert first[0] <= leaf[0] <= last[0]
    centre = s2.leaves(*s2.centres(cell))
    assert first[0] <= centre[0] <= last[0]


@pytest.mark.parametrize("text", ["", "X", "zz", "-1", "8", "0x12", "12345678901234567", "4780000000000000z", "４７８"])
def test_what_is_no_token_is_no_cell(text):
    assert not s2.is_valid(s2.from_tokens([text])).any()
