import numpy as np
import pytest

from geoloc_core.errors import UserError
from geoloc_core.geo import sphere
from geoloc_core.geo.towns import Towns


@pytest.fixture(scope="module")
def towns():
    return Towns.load()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("latitude", "longitude", "name", "country", "least"),
    [
        (-54.8, -68.3, "Ushuaia", "AR", 50_000),
        (-1.29, 36.82, "Nairobi", "KE", 2_000_000),
        (64.14, -21.93, "Reykjavík", "IS", 100_000),
        (-51.63, -69.22, "Río Gallegos", "AR", 50_000),
    ],
)
def test_known_towns(towns, latitude, longitude, name, country, least):
    town, km = towns.nearest([latitude], [longitude])
    assert (towns.names[town[0]], towns.countries[town[0]]) == (name, country)
    assert towns.populations[town[0]] > least
    assert km[0] < 10


def test_the_nearest_is_the_nearest_on_the_sphere(towns):
    random = np.random.default_rng(1)
    lat, lon = np.degrees(np.arcsin(random.uniform(-1, 1, 50))), random.uniform(-180, 180, 50)
    lat, lon = np.append(lat, [90, -90, 0, 0]), np.append(lon, [0, 12, 180, -180])
    town, km = towns.nearest(lat, lon)
    all_km = sphere.haversine_km(lat[:, None], lon[:, None], towns.latitudes, towns.longitudes)
    assert km == pytest.approx(all_km.min(axis=1), abs=1e-6)
    assert all_km[np.arange(len(lat)), town] == pytest.approx(km, abs=1e-6)


def test_beyond_the_limit_there_is_none(towns):
    town, km = towns.nearest([0.0, 48.86], [-30.0, 2.34], limit_km=50)
    assert town[0] == -1
    assert np.isnan(km[0])
    assert town[1] >= 0


def test_towns_come_by_population(towns):
    assert (np.diff(towns.populations) <= 0).all()
    assert len(towns) > 20_000


def test_wrong_coordinates_are_named(towns):
    with pytest.raises(UserError, match="row 1: latitude 91"):
        towns.nearest([0, 91], [0, 0])
