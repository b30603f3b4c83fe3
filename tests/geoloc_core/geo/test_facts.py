"""Facts about places are what the rasters say, in the papers' units."""

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from geoloc_core.contracts.facts import FACTS
from geoloc_core.errors import UserError
from geoloc_core.geo.facts import Source, Sources, Zones
from geoloc_core.geo.rasters import KOPPEN_BECK, KOPPEN_RUBEL

LATITUDES, LONGITUDES = np.array([45.0, -45.0, np.nan, 45.0]), np.array([-90.0, 90.0, 0.0, 179.9])


def raster(path, north_west, elsewhere=-1.0, none=None):
    """A world of four pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.full((2, 2), elsewhere, np.float32)
    values[0, 0] = north_west
    shape = {"height": 2, "width": 2, "count": 1, "dtype": "float32", "nodata": none}
    with rasterio.open(
        path, "w", driver="GTiff", crs="EPSG:4326", transform=from_origin(-180, 90, 180, 90), **shape
    ) as f:
        f.write(values, 1)


def test_a_month_of_each_file_becomes_their_mean_and_their_range_in_the_facts_unit(tmp_path):
    for month, value in enumerate((30.0, 90.0, 60.0)):
        raster(tmp_path / f"prec_{month}.tif", value)
    for band, expected in (("mean", 60.0), ("range", 60.0), (2, 90.0)):
        found = Source(file="prec_*.tif", band=band, factor=0.1).sample(tmp_path, LATITUDES, LONGITUDES)
        assert found[0] == pytest.approx(expected / 10)
        assert np.isnan(found[2]), "nothing is known of a photo without coordinates"


def test_where_the_raster_has_none_nothing_is_known_unless_it_is_said_what_holds(tmp_path):
    raster(tmp_path / "people.tif", 5.0, elsewhere=-9.0, none=-9.0)
    found = Source(file="people.tif").sample(tmp_path, LATITUDES, LONGITUDES)
    assert found[0] == 5
    assert np.isnan(found[1:]).all()
    found = Source(file="people.tif", otherwise=0).sample(tmp_path, LATITUDES, LONGITUDES)
    np.testing.assert_array_equal(found, [5, 0, np.nan, 0])


@pytest.mark.parametrize(("legend", "order"), [("beck", KOPPEN_BECK), ("rubel", KOPPEN_RUBEL)])
def test_zones_are_in_one_order_whatever_the_legend(tmp_path, legend, order):
    for name in ("Cfb", "EF", "Af"):
        raster(tmp_path / "zones.tif", 1 + order.index(name), elsewhere=0)
        found = Zones(file="zones.tif", legend=legend).sample(tmp_path, LATITUDES, LONGITUDES)
        assert KOPPEN_BECK[int(found[0])] == name
        assert np.isnan(found[1:]).all(), "0 is the sea"


def test_a_zone_that_beck_does_not_have_is_the_one_it_became(tmp_path):
    raster(tmp_path / "zones.tif", 1 + KOPPEN_RUBEL.index("As"), elsewhere=0)
    found = Zones(file="zones.tif", legend="rubel").sample(tmp_path, LATITUDES, LONGITUDES)
    assert KOPPEN_BECK[int(found[0])] == "Aw"


def test_what_is_missing_is_said_in_a_line(tmp_path):
    sources = Sources(path="rasters", elevation=Source(file="e.tif"))
    assert [name for name in FACTS if sources.tells(name)] == ["elevation", "month"]
    months = np.array([1.0, 12, np.nan, 6])
    with pytest.raises(UserError, match=r"rasters: no such folder; expected the rasters that params\.yaml names"):
        sources.sample(tmp_path, LATITUDES, LONGITUDES, months)
    (tmp_path / "rasters").mkdir()
    with pytest.raises(UserError, match=r"no file e\.tif; expected a raster"):
        sources.sample(tmp_path, LATITUDES, LONGITUDES, months)
    raster(tmp_path / "rasters" / "e.tif", 7.0)
    found = sources.sample(tmp_path, LATITUDES, LONGITUDES, months)
    np.testing.assert_array_equal(found["month"], months)
    assert found["elevation"][0] == 7
    assert np.isnan(found["climate"]).all()
