import geopandas
import pytest
import shapely

from geoloc_core.errors import UserError
from geoloc_core.geo import boundaries
from geoloc_core.geo.locate import Locator
from geoloc_core.geo.sources import gadm

LOWER = {"VARNAME_1": "NA", "NL_NAME_1": "NA", "TYPE_1": "Comté", "ENGTYPE_1": "County", "CC_1": "NA", "HASC_1": "NA"}
FINEST = {"NL_NAME_1": "NA", "VARNAME_2": "NA", "NL_NAME_2": "NA", "TYPE_2": "NA", "ENGTYPE_2": "NA", "CC_2": "NA"}


@pytest.fixture
def path(tmp_path):
    """A small file in the schema of ``gadm_410-levels.gpkg``: Kenya with counties, Monaco undivided."""
    path = tmp_path / "gadm_410-levels.gpkg"
    kenya, monaco = shapely.box(34, -4, 42, 4), shapely.box(7.4, 43.7, 7.5, 43.8)
    west, east = shapely.box(34, -4, 38, 4), shapely.box(38, -4, 42, 4)
    columns = {"GID_0": ["KEN", "MCO"], "COUNTRY": ["Kenya", "Monaco"]}
    write(path, "ADM_0", columns, [kenya, monaco])
    columns = {"GID_1": ["KEN.1_1", "KEN.2_1", "NA"], "GID_0": ["KEN", "KEN", "MCO"]}
    columns |= {"COUNTRY": ["Kenya", "Kenya", "Monaco"], "NAME_1": ["Baringo", "Bomet", "NA"]}
    write(path, "ADM_1", {**columns, **LOWER, "ISO_1": "NA"}, [west, east, monaco])
    columns = {"GID_2": ["KEN.1.1_1"], "GID_0": "KEN", "COUNTRY": "Kenya", "GID_1": "KEN.1_1", "NAME_1": "Baringo"}
    write(path, "ADM_2", {**columns, **FINEST, "NAME_2": "Tiaty", "HASC_2": "NA"}, [west])
    return path


def write(path, layer, columns, shapes):
    geopandas.GeoDataFrame(columns, geometry=shapes, crs="EPSG:4326").to_file(path, layer=layer)


def options(path, accept=True):
    return gadm.Options(kind="gadm", path=path, accept_licence=accept)


def test_levels_come_in_the_schema_and_na_is_empty(path, tmp_path):
    levels = gadm.read(options(path.name), tmp_path)
    assert {level: list(frame.columns[:-1]) for level, frame in levels.items()} == gadm.OUT
    assert levels[1]["GID_1"].tolist() == ["KEN.1_1", "KEN.2_1"]
    assert levels[2]["TYPE_2"].isna().all()


def test_points_go_to_the_finest_level_there_is(path, tmp_path):
    boundaries.write(gadm.read(options(path), tmp_path), tmp_path / "boundaries")
    found = Locator.open(tmp_path / "boundaries").locate([0, 0, 43.75], [35, 40, 7.45])
    assert found.gid_0.tolist() == ["KEN", "KEN", "MCO"]
    assert found.gid_1.tolist() == ["KEN.1_1", "KEN.2_1", None]
    assert found.gid_2.tolist() == ["KEN.1.1_1", None, None]


def test_the_licence_must_be_accepted_before_anything_is_read(tmp_path):
    with pytest.raises(UserError, match=r"accept_licence.*non-commercial.*redistributed") as error:
        gadm.read(options("missing.gpkg", accept=False), tmp_path)
    assert "\n" not in str(error.value)


def test_the_wrong_file_of_gadm_is_named(tmp_path):
    path = tmp_path / "gadm_410.gpkg"
    write(path, "gadm_410", {"GID_0": ["KEN"]}, [shapely.box(0, 0, 1, 1)])
    with pytest.raises(UserError, match=r"gadm_410.gpkg: no layer ADM_0; expected it among: gadm_410"):
        gadm.read(options(path), tmp_path)


def test_a_missing_column_is_named(path, tmp_path):
    write(path, "ADM_2", {"GID_2": ["KEN.1.1_1"], "GID_0": "KEN"}, [shapely.box(0, 0, 1, 1)])
    with pytest.raises(UserError, match=r"layer ADM_2: no column COUNTRY, GID_1"):
        gadm.read(options(path), tmp_path)
