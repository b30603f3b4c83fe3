import numpy as np
import pytest
import shapely

from geoloc_core.geo.geocells.division import pieces
from geoloc_core.geo.geocells.voronoi import cut_up, graph
from geoloc_core.geo.sphere import unit_vectors, wrap

EAST, WEST = shapely.box(174, -20, 180, -12), shapely.box(-180, -20, -172, -12)
OUTLINES = {"plain": shapely.box(10, 40, 24, 48), "antimeridian": shapely.union(EAST, WEST)}
FRAMES = {"plain": (40, 48, 10, 24), "antimeridian": (-20, -12, 174, 188)}


@pytest.mark.parametrize("where", FRAMES)
@pytest.mark.parametrize("count", [2, 3, 12, 150])
def test_a_polygon_is_divided_by_the_nearest_place(where, count):
    rng = np.random.default_rng(count)
    south, north, west, east = FRAMES[where]
    latitudes, longitudes = rng.uniform(south, north, count), wrap(rng.uniform(west, east, count))
    labels = np.arange(count) % min(count, 5)
    found = cut_up(OUTLINES[where], latitudes, longitudes, labels)
    lat, lon = rng.uniform(south, north, 2000), wrap(rng.uniform(west, east, 2000))
    nearest = labels[(unit_vectors(lat, lon) @ unit_vectors(latitudes, longitudes).T).argmax(axis=1)]
    inside = np.array([shapely.contains_xy(shape, lon, lat) for shape in found])
    assert (inside.sum(axis=0) == 1).all()
    # Lines in degrees between steps of 10 km stray from great circles by some metres.
    assert (inside.argmax(axis=0) == nearest).mean() > 0.998
    assert shapely.area(found).sum() == pytest.approx(OUTLINES[where].area, rel=1e-6)


@pytest.mark.parametrize(
    "latitudes",
    [[10.0], [10, 11], [10, 11, 12], [10.0, 11, 12, 13, 14], [0.0, 0, 0, 0]],
    ids=["one", "two", "three", "meridian", "equator"],
)
def test_places_in_whatever_position_are_connected(latitudes):
    longitudes = np.arange(len(latitudes)) * float(latitudes[0] == 0)
    made = graph(unit_vectors(latitudes, longitudes))
    assert pieces(np.zeros(len(latitudes), dtype=np.int64), made.starts, made.neighbours)[1] == 1


def test_places_as_good_as_coincident_are_connected():
    rng = np.random.default_rng(1)
    spots = np.concatenate([rng.uniform(40, 41, (30, 2))] * 3) + np.repeat([0, 1e-13, 3e-13], 30)[:, None]
    made = graph(unit_vectors(*spots.T))
    assert pieces(np.zeros(90, dtype=np.int64), made.starts, made.neighbours)[1] == 1
