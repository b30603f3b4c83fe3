import hashlib
import json
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

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
    with pytest.raises(UserError, match=r"gadm_410.gpkg: no layer ADM_0; expected one of: gadm_410"):
        gadm.read(options(path), tmp_path)


def test_a_missing_column_is_named(path, tmp_path):
    write(path, "ADM_2", {"GID_2": ["KEN.1.1_1"], "GID_0": "KEN"}, [shapely.box(0, 0, 1, 1)])
    with pytest.raises(UserError, match=r"layer ADM_2: no column COUNTRY, GID_1"):
        gadm.read(options(path), tmp_path)


BOX = shapely.box(0, 0, 1, 1)


def country(folder, gid, level, rows, shapes=None):
    """A file such as ``gadm41_GBR_1.json``, its names without spaces as GADM's are."""
    shapes = shapes or [shapely.box(n, 0, n + 1, 1) for n in range(len(rows))]
    features = [
        {"type": "Feature", "properties": row, "geometry": shapely.geometry.mapping(shape)}
        for row, shape in zip(rows, shapes, strict=True)
    ]
    system = {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}
    path = folder / f"gadm41_{gid}_{level}.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": system, "features": features}))
    return path


@pytest.fixture
def countries(tmp_path):
    folder = tmp_path / "countries"
    folder.mkdir()
    country(folder, "GBR", 0, [{"GID_0": "GBR", "COUNTRY": "UnitedKingdom"}], [shapely.box(0, 0, 3, 1)])
    names = ["England", "NorthernIreland", "WestMidlands"]
    codes = ["GB-ENG", "NA", "NA"]
    own = {"GID_0": "GBR", "COUNTRY": "UnitedKingdom", "TYPE_1": "Kingdom", "ENGTYPE_1": "Kingdom"}
    rows = [
        {"GID_1": f"GBR.{n + 1}_1", "NAME_1": name, "VARNAME_1": "NA", "ISO_1": code, **own}
        for n, (name, code) in enumerate(zip(names, codes, strict=True))
    ]
    country(folder, "GBR", 1, rows)
    country(folder, "MCO", 0, [{"GID_0": "MCO", "COUNTRY": "Monaco"}], [shapely.box(7, 43, 8, 44)])
    return folder


@pytest.mark.slow
def test_files_of_countries_are_joined_and_spaced(countries, tmp_path):
    for path in ("countries", (countries / "gadm41_MCO_0.json", *sorted(countries.glob("*GBR*")))):
        levels = gadm.read(gadm.Options(kind="gadm", path=path, accept_licence=True), tmp_path)
        assert levels[0]["COUNTRY"].tolist() == ["United Kingdom", "Monaco"]
        assert levels[1]["NAME_1"].tolist() == ["England", "Northern Ireland", "West Midlands"]
        assert set(levels[1]["COUNTRY"]) == {"United Kingdom"}
        assert list(levels) == [0, 1]
    units = boundaries.units_of(levels).set_index("gid")
    assert units.loc[["GBR", "MCO", "GBR.1_1", "GBR.2_1"], "iso_3166"].tolist() == ["GB", "MC", "GB-ENG", ""]


def test_a_geopackage_of_one_country_has_other_layers(path, tmp_path):
    one = tmp_path / "gadm41_KEN.gpkg"
    for level in range(3):
        frame = geopandas.read_file(path, layer=f"ADM_{level}")
        frame[frame["GID_0"] == "KEN"].to_file(one, layer=f"ADM_ADM_{level}")
    levels = gadm.read(options(one), tmp_path)
    assert [len(levels[level]) for level in range(3)] == [1, 2, 1]


def test_disputed_areas_are_told_from_the_country_they_are_named_after(tmp_path):
    path = tmp_path / "gadm_410-levels.gpkg"
    shapes = [shapely.box(70, 20, 80, 30), shapely.box(75, 32, 78, 35), shapely.box(33, 34, 34, 35)]
    columns = {"GID_0": ["IND", "Z01", "XAD"], "COUNTRY": ["India", "India", "Akrotiri and Dhekelia"]}
    write(path, "ADM_0", columns, shapes)
    own = {"GID_1": ["IND.1_1", "Z01.14_1"], "GID_0": ["IND", "Z01"], "COUNTRY": "India", "NAME_1": ["Goa", "?"]}
    write(path, "ADM_1", {**own, **LOWER}, shapes[:2])
    levels = gadm.read(options(path), tmp_path)
    assert levels[0]["COUNTRY"].tolist() == ["India", "Akrotiri and Dhekelia", "India (Z01)"]
    assert levels[1]["COUNTRY"].tolist() == ["India", "India (Z01)"]
    units = boundaries.units_of(levels).set_index("gid")
    assert units.loc[["Z01", "XAD", "Z01.14_1"], "continent"].tolist() == ["Asia", "Asia", "Asia"]
    assert units.loc["Z01.14_1", "name"] == "Z01.14_1", "a question mark is no name"
    assert units.loc[["IND", "Z01"], "iso_3166"].tolist() == ["IN", ""]


def test_a_missing_level_is_named(countries, tmp_path):
    for path in countries.glob("*_0.json"):
        path.unlink()
    with pytest.raises(UserError, match=r"no file of level 0; expected gadm41_XXX_0.json"):
        gadm.read(options("countries"), tmp_path)


def test_an_empty_folder_is_named(tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match=r"none: no GADM file; expected gadm_410-levels.gpkg or"):
        gadm.read(options("none"), tmp_path)


@pytest.fixture
def site(path):
    """A server of the folder of :func:`path`, where the archive is."""
    with zipfile.ZipFile(path.with_suffix(".zip"), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(path, "gadm_410-levels.gpkg")
    handler = partial(SimpleHTTPRequestHandler, directory=path.parent)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/gadm_410-levels.zip"
        server.shutdown()


def test_the_world_is_downloaded_once_and_stays_out_of_the_data(path, site, tmp_path, capsys):
    root = tmp_path / "project"
    digest = hashlib.sha256(path.with_suffix(".zip").read_bytes()).hexdigest()
    wanted = gadm.Options(kind="gadm", url=site, accept_licence=True)
    levels = gadm.read(wanted, root)
    said = capsys.readouterr().err
    assert "must not be redistributed" in said
    assert f"has sha256 {digest}; put it in boundaries.sha256" in said
    assert [len(levels[level]) for level in range(3)] == [2, 2, 1]
    assert [p.name for p in root.iterdir()] == [".state"]
    path.with_suffix(".zip").unlink()
    again = gadm.read(wanted.model_copy(update={"sha256": digest}), root)
    assert again[1].equals(levels[1])


def test_nothing_is_downloaded_without_the_licence(site, tmp_path):
    with pytest.raises(UserError, match="accept_licence"):
        gadm.read(gadm.Options(kind="gadm", url=site), tmp_path / "project")
    assert not (tmp_path / "project").exists()


def test_another_archive_is_refused(path, site, tmp_path):
    wanted = gadm.Options(kind="gadm", url=site, sha256="0" * 64, accept_licence=True)
    with pytest.raises(UserError, match=r"gadm_410-levels.zip: .*expected sha256 000"):
        gadm.read(wanted, tmp_path / "project")
    path.with_suffix(".zip").write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"gadm_410-levels.zip: not a zip archive"):
        gadm.read(gadm.Options(kind="gadm", url=site, accept_licence=True), tmp_path / "project")
