import geopandas
import pytest
import shapely

from geoloc_core.errors import UserError
from geoloc_core.geo import boundaries
from geoloc_core.geo.sources import natural_earth

BOX = shapely.box(0, 0, 1, 1)


def read(path, root="."):
    return natural_earth.read(natural_earth.Options(kind="natural_earth", path=path), root)[0]


@pytest.fixture
def path(tmp_path):
    columns = {
        "iso_a3_eh": ["AUS", "NOR", "-99", "-99", "AUS", None],
        "adm0_a3": ["IOA", "NOR", "KOS", "SOL", "AUS", "CYN"],
        "admin": ["Small Islands", "Norway", "Kosovo", "Somaliland", "Australia", "N. Cyprus"],
    }
    shapes = [shapely.box(n, 0, n + (0.1 if n == 0 else 1), 1) for n in range(0, 12, 2)]
    geopandas.GeoDataFrame(columns, geometry=shapes, crs="EPSG:4326").to_file(tmp_path / "ne.geojson")
    return tmp_path / "ne.geojson"


def test_codes_are_iso_with_a_stable_fallback(path):
    countries = read(path)
    assert dict(zip(countries["GID_0"], countries["COUNTRY"], strict=True)) == {
        "AUS": "Australia",
        "CYN": "N. Cyprus",
        "NOR": "Norway",
        "SOL": "Somaliland",
        "XKX": "Kosovo",
    }
    assert countries.geometry[0].area == pytest.approx(1.1)


def test_the_path_is_relative_to_the_project(path):
    assert len(read(path.name, path.parent)) == 5


def test_another_file_is_named(tmp_path):
    geopandas.GeoDataFrame({"x": [1]}, geometry=[BOX], crs="EPSG:4326").to_file(tmp_path / "x.geojson")
    with pytest.raises(UserError, match=r"x.geojson, layer x: no column ISO_A3_EH, ADM0_A3, ADMIN; found x"):
        read(tmp_path / "x.geojson")


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("ne_110m_admin_0_countries.json", 177),
        ("ne_50m_admin_0_countries.json", 241),
        ("ne_10m_admin_0_countries.gpkg", 252),
    ],
)
def test_real_files_of_every_scale(shared, name, count):
    countries = read(shared / "boundaries" / name)
    assert len(countries) == count
    assert countries["GID_0"].is_unique
    assert countries.geometry.is_valid.all()
    assert {"NOR", "FRA", "XKX", "TWN", "ESH", "SOL"} <= set(countries["GID_0"])


@pytest.mark.parametrize(
    ("gid", "km2", "latitude", "longitude"),
    [
        ("RUS", 16.89e6, 66.0, 95.7),
        ("FJI", 19.0e3, -17.4, 178.5),
        ("LSO", 30.4e3, -29.6, 28.2),
        ("ATA", 12.26e6, -84.9, 82.0),
    ],
)
def test_real_areas_and_centroids(natural_earth, gid, km2, latitude, longitude):
    unit = boundaries.read_units(natural_earth).set_index("gid").loc[gid]
    assert unit["area_km2"] == pytest.approx(km2, rel=0.02)
    assert unit[["latitude", "longitude"]].tolist() == pytest.approx([latitude, longitude], abs=0.2)


def test_every_real_country_has_a_continent(natural_earth):
    units = boundaries.read_units(natural_earth).set_index("gid")["continent"]
    assert set(units) == {"Africa", "Antarctica", "Asia", "Europe", "North America", "Oceania", "South America"}
    assert units[["SOL", "CYN", "XKX", "USG"]].tolist() == ["Africa", "Europe", "Europe", "North America"]
