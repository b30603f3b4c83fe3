import numpy as np
import pytest
import rasterio.shutil
from rasterio import Affine

from geoloc_core.errors import UserError
from geoloc_core.geo import rasters, sphere
from geoloc_core.geo.rasters import Raster


def write(path, values, west=-180.0, north=90.0, crs="EPSG:4326", nodata=None, **more):
    """A GeoTIFF of bands (B, H, W) or one (H, W) with square pixels that span 360°."""
    values = np.asarray(values)
    values = values[None] if values.ndim == 2 else values
    step = 360 / values.shape[2]
    size = {"count": values.shape[0], "height": values.shape[1], "width": values.shape[2]}
    transform = Affine(step, 0, west, 0, -step, north)
    with rasterio.open(
        path, "w", "GTiff", dtype=values.dtype, crs=crs, transform=transform, nodata=nodata, **size
    ) as out:
        out.write(values)
        out.update_tags(**more)
    return path


@pytest.fixture
def numbered(tmp_path):
    """10° pixels that hold their own number, row by row from the north-west."""
    return write(tmp_path / "numbered.tif", np.arange(18 * 36, dtype=np.int32).reshape(18, 36))


def test_a_point_has_the_value_of_its_pixel(numbered):
    rows, columns = np.divmod(np.arange(18 * 36), 36)
    for shift in (1e-6, 5, 10 - 1e-6):
        found = Raster.open(numbered).sample(90 - 10 * rows - shift, -180 + 10 * columns + shift)
        assert found.tolist() == list(range(18 * 36))


def test_poles_and_the_antimeridian_are_inside(numbered):
    found = Raster.open(numbered).sample([90, 90, -90, -90, 0, 0], [-180, 180, 179.9, 0, -180, 180])
    assert found.tolist() == [0, 0, 17 * 36 + 35, 17 * 36 + 18, 9 * 36, 9 * 36]


def test_longitudes_may_run_from_0_to_360(tmp_path):
    values = np.arange(18 * 36, dtype=np.float32).reshape(18, 36)
    west = Raster.open(write(tmp_path / "a.tif", values))
    east = Raster.open(write(tmp_path / "b.tif", np.roll(values, 18, axis=1), west=0.0))
    centred = Raster.open(write(tmp_path / "c.tif", values, west=-185.0))
    random = np.random.default_rng(2)
    lat, lon = random.uniform(-90, 90, 500), random.uniform(-180, 180, 500)
    assert (west.sample(lat, lon) == east.sample(lat, lon)).all()
    assert (centred.sample(lat, lon) == west.sample(lat, sphere.wrap(lon + 5))).all()


def test_pixels_may_be_registered_by_their_centres(tmp_path):
    """The same numbers said to be at pixel centres: GDAL shifts the grid by half a pixel."""
    values = np.arange(18 * 36, dtype=np.int32).reshape(18, 36)
    path = write(tmp_path / "points.tif", values, AREA_OR_POINT="Point")
    text = "ncols 36\nnrows 18\nxllcenter -175\nyllcenter -85\ncellsize 10\n"
    (tmp_path / "centres.asc").write_text(text + "\n".join(" ".join(map(str, row)) for row in values))
    for one in (path, tmp_path / "centres.asc"):
        assert Raster.open(one).sample([85, 5], [-175, 5]).tolist() == [0, 8 * 36 + 18]


def test_a_file_may_begin_in_the_south(tmp_path):
    path = tmp_path / "south.tif"
    values = np.arange(18 * 36, dtype=np.int32).reshape(18, 36)
    transform = Affine(10, 0, -180, 0, 10, -90)
    with rasterio.open(path, "w", "GTiff", 36, 18, 1, "EPSG:4326", transform, "int32") as out:
        out.write(values, 1)
    assert Raster.open(path).sample([-90, -85, 90], [-180, -175, -180]).tolist() == [0, 0, 17 * 36]


def test_part_of_the_world_is_nan_elsewhere(tmp_path):
    path = tmp_path / "part.tif"
    with rasterio.open(path, "w", "GTiff", 4, 3, 1, "EPSG:4326", Affine(5, 0, 170, 0, -5, 10), "uint8") as out:
        out.write(np.arange(1, 13, dtype=np.uint8).reshape(3, 4), 1)
    found = Raster.open(path).sample([9, 9, 9, -4, 10.1, 9, 9], [171, -179, -171, 170, 171, 169.9, 0], limit_km=0)
    assert found[:4].tolist() == [1, 3, 4, 9]
    assert np.isnan(found[4:]).all()


@pytest.fixture
def island(tmp_path):
    """1° pixels, empty but for a column at 179.5° with its row's number and one pixel at the pole."""
    values = np.full((180, 360), -9999, dtype=np.float32)
    values[:, 359] = np.arange(180)
    values[0, 100] = 777
    return write(tmp_path / "island.tif", values, nodata=-9999)


def test_the_sea_has_the_value_of_the_nearest_coast(island):
    raster = Raster.open(island)
    # 179.5° is the nearest centre on either side of the antimeridian, 56 to 167 km from points at the equator.
    assert raster.sample([0.5, 0.5, -0.5], [179.0, -179.5, -178.6], limit_km=300).tolist() == [89, 89, 90]
    assert np.isnan(raster.sample([0.5], [-178.0], limit_km=200)).all()
    assert np.isnan(raster.sample([0.5], [-179.5], limit_km=0)).all()
    assert raster.sample([89.9], [-20.0], limit_km=300).tolist() == [777]


@pytest.mark.parametrize("many", [0, 1000])
def test_the_nearest_is_the_nearest_on_the_sphere(tmp_path, monkeypatch, many):
    monkeypatch.setattr(rasters, "MANY", many)
    random = np.random.default_rng(3)
    values = np.where(random.random((60, 120)) < 0.7, 0, random.integers(1, 9999, (60, 120))).astype(np.int32)
    values[20:40, 30:60] = 5000  # land with an inside
    raster = Raster.open(write(tmp_path / "noise.tif", values, nodata=0))
    lat, lon = random.uniform(-90, 90, 400), random.uniform(-180, 180, 400)
    rows, columns = np.nonzero(values)
    km = sphere.haversine_km(lat[:, None], lon[:, None], 90 - 3 * (rows + 0.5), -180 + 3 * (columns + 0.5))
    own = values[np.floor((90 - lat) / 3).astype(int), np.floor((lon + 180) / 3).astype(int)]
    expected = np.where(own > 0, own, np.where(km.min(axis=1) < 250, values[rows, columns][km.argmin(axis=1)], -1))
    assert np.nan_to_num(raster.sample(lat, lon, 250), nan=-1).tolist() == expected.tolist()
    assert (expected == -1).any()
    assert ((own == 0) & (expected > 0)).any()


def test_a_large_raster_is_read_in_strips_to_the_same_end(island, numbered, monkeypatch):
    random = np.random.default_rng(4)
    lat, lon = (
        np.append(random.uniform(-90, 90, 300), [90, -90]),
        np.append(random.uniform(-180, 180, 300), [180, -180]),
    )
    whole = [Raster.open(path).sample(lat, lon, 400) for path in (island, numbered)]
    monkeypatch.setattr(rasters, "STRIP", 360 * 7)
    strips = [Raster.open(path).sample(lat, lon, 400) for path in (island, numbered)]
    assert np.array_equal(whole, strips, equal_nan=True)


def test_months_become_a_mean_or_a_range(tmp_path):
    months = np.stack([np.full((18, 36), 10.0 * n, dtype=np.float32) for n in range(12)])
    months[3, 0, :] = np.nan
    one = write(tmp_path / "year.tif", months)
    many = [write(tmp_path / f"month_{n:02}.tif", month) for n, month in enumerate(months)]
    for path in (one, many):
        assert Raster.open(path, "mean").sample([0.0], [0.0]).tolist() == [55]
        assert Raster.open(path, "range").sample([0.0], [0.0]).tolist() == [110]
        assert np.isnan(Raster.open(path, "mean").sample([89.0], [0.0]))
        assert Raster.open(path, 3).sample([0.0], [0.0]).tolist() == [20]


def test_a_netcdf_of_one_variable_need_not_name_it(tmp_path):
    path, values = tmp_path / "one.nc", np.arange(18 * 36, dtype=np.float32).reshape(18, 36)
    rasterio.shutil.copy(write(tmp_path / "one.tif", values), path, driver="netCDF")
    assert Raster.open(path).sample([90, -85], [-180, 175]).tolist() == [0, 17 * 36 + 35]
    assert Raster.open(path, variable="Band1").grid == Raster.open(path).grid
    with pytest.raises(UserError, match=r"one.nc: no variable rain; expected one of: Band1"):
        Raster.open(path, variable="rain")


def test_packed_values_come_in_their_unit(tmp_path):
    path = write(tmp_path / "packed.tif", np.full((18, 36), 215, dtype=np.int16))
    with rasterio.open(path, "r+") as out:
        out.scales, out.offsets = (0.1,), (-10.0,)
    assert Raster.open(path).sample([0.0], [0.0]) == pytest.approx([11.5])


def test_a_missing_value_may_be_stated(numbered):
    found = Raster.open(numbered, empty=[0, 1]).sample([90, 90, 90], [-180, -169, -159], 1)
    assert np.isnan(found[:2]).all()
    assert found[2] == 2


def test_koppen_classes_have_names():
    values = np.array([1, 15, 30, 0, np.nan, 31])
    assert rasters.koppen(values, rasters.KOPPEN_BECK).tolist() == ["Af", "Cfb", "EF", None, None, None]
    assert rasters.koppen(values, rasters.KOPPEN_RUBEL).tolist() == ["Af", "Cwa", "EF", None, None, "ET"]


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    return path


VALUES = np.zeros((180, 360), dtype=np.float32)
MISTAKES = {
    "no such file": lambda tmp: Raster.open(tmp / "x.tif"),
    "no coordinate system; expected degrees": lambda tmp: Raster.open(write(tmp / "x.tif", VALUES, crs=None)),
    "coordinates are in World_Mollweide": lambda tmp: Raster.open(write(tmp / "x.tif", VALUES, crs="ESRI:54009")),
    "longitudes 0 … 360, latitudes -90 … 4000": lambda tmp: Raster.open(
        write(tmp / "x.tif", np.zeros((4090, 360), np.uint8), west=0.0, north=4000.0)
    ),
    "no band 2; expected one of 1 … 1": lambda tmp: Raster.open(write(tmp / "x.tif", VALUES), band=2),
    "no variable rain; expected one of: none": lambda tmp: Raster.open(write(tmp / "x.tif", VALUES), variable="rain"),
    "its grid is not that of": lambda tmp: Raster.open(
        [write(tmp / "y.tif", VALUES), write(tmp / "x.tif", VALUES[::2, ::2])], "mean"
    ),
    "not a raster that can be read": lambda tmp: Raster.open(cut(write(tmp / "x.tif", VALUES))).sample([-80], [0]),
}


@pytest.mark.parametrize("says", MISTAKES)
def test_mistakes_are_named_in_one_line(tmp_path, says):
    with pytest.raises(UserError) as error:
        MISTAKES[says](tmp_path)
    assert says in str(error.value)
    assert "x.tif" in str(error.value)
    assert "\n" not in str(error.value)


def test_text_is_no_raster(tmp_path):
    (tmp_path / "x.tif").write_text("no raster")
    with pytest.raises(UserError, match=r"x.tif: not a raster that can be read"):
        Raster.open(tmp_path / "x.tif")


def test_wrong_coordinates_are_named(numbered):
    with pytest.raises(UserError, match="row 1: longitude 200"):
        Raster.open(numbered).sample([0, 0], [0, 200])


CITIES = {
    "La Paz": (-16.50, -68.15),
    "Amsterdam": (52.37, 4.90),
    "Mumbai": (19.08, 72.88),
    "Yakutsk": (62.03, 129.73),
    "Singapore": (1.30, 103.85),
}


def city(name):
    return np.array([CITIES[name]]).T


@pytest.mark.slow
def test_real_climates_of_known_cities(shared):
    import pandas as pd

    raster = Raster.open(shared / "geodata/koppen_rubel2017_100arcsec.tif", empty=[32])
    places = {"Singapore": "Af", "Amsterdam": "Cfb", "Yakutsk": "Dfc"}
    for name, climate in places.items():
        assert rasters.koppen(raster.sample(*city(name)), rasters.KOPPEN_RUBEL) == [climate]
    # The list follows other thresholds (−3 °C, mountains): the main groups agree, the finer letters often not.
    cities = pd.read_csv(shared / "geodata/kgcities.csv")
    found = rasters.koppen(raster.sample(cities["lat"], cities["lon"]), rasters.KOPPEN_RUBEL)
    there = [(one, other) for one, other in zip(found, cities["rcz"], strict=True) if one is not None]
    assert len(there) >= len(cities) - 2, "one is in the sea, one a typing error"
    assert np.mean([one[0] == other[0] for one, other in there]) > 0.75
    codes = pd.read_csv(shared / "geodata/koppen_codes.csv")["class"].tolist()
    assert codes[:31] == rasters.KOPPEN_RUBEL


def test_real_heights_of_known_cities(shared):
    raster = Raster.open(shared / "geodata/elevation_etopo20.tif")
    assert 3000 < raster.sample(*city("La Paz"))[0] < 4800
    assert -20 < raster.sample(*city("Amsterdam"))[0] < 40


def test_real_densities_of_known_cities(shared):
    raster = Raster.open(shared / "geodata/gpw_v4_population_density_rev11_2020_30_min.asc")
    assert raster.sample(*city("Mumbai"))[0] > 3000
    assert raster.sample(*city("Yakutsk"))[0] < 100
    assert np.isnan(raster.sample([0.0], [-30.0]))[0]


def test_real_temperatures_of_known_cities(shared):
    path = shared / "geodata/air.mon.ltm.nc"
    mean, spread = (Raster.open(path, band, variable="air") for band in ("mean", "range"))
    assert 25 < mean.sample(*city("Singapore"))[0] < 29
    assert spread.sample(*city("Singapore"))[0] < 4
    assert mean.sample(*city("Yakutsk"))[0] < -5
    assert spread.sample(*city("Yakutsk"))[0] > 45
    assert np.isfinite(mean.sample([90, -90, 0, 0], [0, 0, 180, -180])).all()
    with pytest.raises(UserError, match=r"air.mon.ltm.nc: no variable rain; expected one of: .*air"):
        Raster.open(path, variable="rain")
