import geopandas
import pytest
import shapely

from geoloc_core.errors import UserError
from geoloc_core.geo import boundaries, vectors
from geoloc_core.geo.locate import Locator
from geoloc_core.geo.sources import geoboundaries
from geoloc_core.geo.units import read_units

KENYA = shapely.box(34, -4, 42, 4)
WEST, EAST = shapely.box(34, -4, 38, 4), shapely.box(38, -4, 42, 4)
MALTA = shapely.box(14, 35, 15, 36)
DISPUTED = shapely.box(30, 10, 31, 11)


def write(folder, level, rows, shapes, ending=".gpkg", crs="EPSG:4326"):
    """One of the world's files; rows are shapeGroup, shapeName, shapeID and shapeType."""
    names = ["shapeGroup", "shapeName", "shapeID", "shapeType"]
    columns = {name: [row[n] for row in rows] for n, name in enumerate(names) if level or name != "shapeID"}
    path = folder / f"geoBoundariesCGAZ_ADM{level}{ending}"
    geopandas.GeoDataFrame(columns, geometry=shapes, crs=crs).to_file(path)
    return path


@pytest.fixture
def folder(tmp_path):
    """Kenya in two parts, the west divided again; Malta undivided; a disputed area without a name."""
    countries = [("KEN", "Kenya", None, "ADM0"), ("MLT", None, None, "ADM0"), ("112", None, None, "DISP")]
    write(tmp_path, 0, countries, [KENYA, MALTA, DISPUTED])
    whole = [("MLT", None, None, "ADM0"), ("112", None, None, "DISP")]
    units = [("KEN", "West", "w1", "ADM1"), ("KEN", "East", "e1", "ADM1")]
    write(tmp_path, 1, [*units, *whole], [WEST, EAST, MALTA, DISPUTED])
    # The second reaches over the border of the first level: a point inside it says where it belongs.
    parts = [shapely.box(34, -4, 38, 0), shapely.box(34, 0, 38.2, 4), shapely.box(38.2, 0, 42, 4), EAST, MALTA]
    finest = [("KEN", "South", "s2", "ADM2"), ("KEN", "North", "n2", "ADM2"), ("KEN", "North", "n3", "ADM2")]
    write(tmp_path, 2, [*finest, ("KEN", "East", "e1", "ADM1"), whole[0]], parts)
    return tmp_path


def read(folder):
    return geoboundaries.read(geoboundaries.Options(kind="geoboundaries", path=folder), folder)


def test_levels_come_in_the_schema(folder):
    levels = read(folder)
    assert {level: list(frame.columns[:-1]) for level, frame in levels.items()} == vectors.COLUMNS
    assert dict(zip(levels[0]["GID_0"], levels[0]["COUNTRY"], strict=True)) == {
        "KEN": "Kenya",
        "MLT": "Malta",
        "112": "112",
    }
    assert levels[1]["GID_1"].tolist() == ["e1", "w1"], "what only repeats the level above is left out"
    assert dict(zip(levels[2]["GID_2"], levels[2]["GID_1"], strict=True)) == {"s2": "w1", "n2": "w1", "n3": "e1"}
    assert levels[2]["NAME_1"].tolist() == ["West", "East", "West"]


def test_points_find_their_units(folder, tmp_path):
    boundaries.write(read(folder), tmp_path / "boundaries")
    found = Locator.open(tmp_path / "boundaries").locate([-2, 2, 35.5, 10.5], [35, 41, 14.5, 30.5])
    assert found.gid_0.tolist() == ["KEN", "KEN", "MLT", "112"]
    assert found.gid_1.tolist() == ["w1", "e1", None, None]
    assert found.gid_2.tolist() == ["s2", "n3", None, None]
    units = read_units(tmp_path / "boundaries").set_index("gid")
    assert units.loc[["KEN", "112", "w1"], "iso_3166"].tolist() == ["KE", "", ""]
    assert units.loc["112", "continent"] == "Africa"


def test_the_finer_files_may_be_missing_or_of_another_format(folder):
    (folder / "geoBoundariesCGAZ_ADM2.gpkg").unlink()
    assert list(read(folder)) == [0, 1]
    (folder / "geoBoundariesCGAZ_ADM1.gpkg").unlink()
    (folder / "geoBoundariesCGAZ_ADM0.gpkg").unlink()
    write(folder, 0, [("KEN", "Kenya", None, "ADM0")], [KENYA], ".geojson")
    assert list(read(folder)) == [0]


def test_rows_of_no_country_are_left_out_and_said(folder, capsys):
    write(
        folder,
        1,
        [("KEN", "All", "a1", "ADM1"), ("XXX", "Lost", "x1", "ADM1"), (None, "Nowhere", "y1", "ADM1")],
        [KENYA, MALTA, MALTA],
    )
    levels = read(folder)
    assert levels[1]["GID_1"].tolist() == ["a1"]
    said = " ".join(capsys.readouterr().err.split())
    assert "1 rows left out, their country is not in the file of ADM0" in said
    assert "1 rows without shapeGroup left out" in said


def test_a_unit_without_an_id_is_numbered(folder):
    write(folder, 1, [("KEN", "West", None, "ADM1"), ("KEN", "East", None, "ADM1")], [WEST, EAST])
    assert read(folder)[1]["GID_1"].tolist() == ["KEN-ADM1.1_1", "KEN-ADM1.2_1"]


def test_mistakes_are_named(tmp_path):
    with pytest.raises(UserError, match=r"no geoBoundariesCGAZ_ADM0.*expected it with one of: .gpkg"):
        read(tmp_path)
    path = tmp_path / "geoBoundariesCGAZ_ADM0.gpkg"
    geopandas.GeoDataFrame({"x": [1]}, geometry=[KENYA], crs="EPSG:4326").to_file(path)
    with pytest.raises(UserError, match=r"ADM0.gpkg, layer .*: no column shapeGroup, shapeType; found x"):
        read(tmp_path)
    write(tmp_path, 0, [("KEN", "Kenya", None, "ADM0")], [KENYA], crs="EPSG:3857")
    with pytest.raises(UserError, match=r"ADM0.gpkg, layer .*: coordinates are in WGS 84 / Pseudo-Mercator"):
        read(tmp_path)
    write(tmp_path, 0, [], [])
    with pytest.raises(UserError, match=r"ADM0.gpkg, layer .*: no rows; expected polygons"):
        read(tmp_path)
