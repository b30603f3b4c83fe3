import json
import re
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely

from geoloc_core import files
from geoloc_core.errors import UserError
from geoloc_core.geo import boundaries
from geoloc_core.geo.units import read_units
from geoloc_core.params import Profile
from geoloc_core.project import Project


def test_units_know_their_parents_and_country(units):
    table = units.set_index("gid")
    assert list(units.columns) == list(boundaries.UNITS)
    assert units["level"].tolist() == [0, 0, 1, 1, 2, 2]
    assert table.loc["ALB.1.1_1", ["parent", "gid_0", "name"]].tolist() == ["ALB.1_1", "ALB", "South"]
    assert table.loc["ALB", "parent"] == ""
    assert table.loc["ALB.1.2_1", "name"] == "ALB.1.2_1", "a unit without a name is called by its id"


def test_areas_add_up_and_centroids_lie_on_the_sphere(units):
    table = units.set_index("gid")
    assert table.loc[["ALB.1_1", "ALB.2_1"], "area_km2"].sum() == pytest.approx(table.loc["ALB", "area_km2"])
    assert abs(table.loc["FJI", "longitude"]) == pytest.approx(180)
    assert table.loc["FJI", "latitude"] == pytest.approx(0, abs=1e-9)
    assert table.loc["ALB", ["longitude"]].tolist() == pytest.approx([10])


def test_areas_are_those_of_the_earth():
    from pyproj import Geod

    with_hole = shapely.box(-10, -10, 10, 10).difference(shapely.box(-1, -1, 1, 1))
    shapes = np.array(
        [shapely.box(-180, -90, 180, 90), shapely.box(0, 0, 90, 90), shapely.box(0, 60, 90, 90), with_hole]
    )
    areas, latitudes, longitudes = boundaries.sphere_areas(shapes, batch=3)
    assert areas[:2] == pytest.approx([510_065_621.7, 510_065_621.7 / 8], rel=1e-5)
    geodesic = [
        abs(Geod(ellps="WGS84").geometry_area_perimeter(shapely.segmentize(s, 0.01))[0]) / 1e6 for s in shapes[2:]
    ]
    assert areas[2:] == pytest.approx(geodesic, rel=1e-5)
    assert (latitudes[1], longitudes[1]) == pytest.approx((np.degrees(np.arctan(1 / np.sqrt(2))), 45), abs=1e-3)


def test_a_cap_has_its_centroid_at_the_pole():
    _, latitudes, _ = boundaries.sphere_areas(np.array([shapely.box(-180, 60, 180, 90)]))
    assert latitudes[0] == pytest.approx(90)


def test_a_concave_unit_may_not_hold_its_centroid():
    horseshoe = shapely.Point(0, 0).buffer(10).difference(shapely.box(-8, -11, 8, 8))
    _, latitudes, longitudes = boundaries.sphere_areas(np.array([horseshoe]))
    assert not horseshoe.contains(shapely.Point(longitudes[0], latitudes[0]))


def test_the_direction_of_a_ring_does_not_matter():
    square = shapely.box(0, 0, 1, 1)
    areas, *_ = boundaries.sphere_areas(np.array([square, square.reverse()]))
    assert areas[0] == pytest.approx(areas[1])


def test_a_country_outside_iso_has_the_continent_of_its_neighbour(levels):
    levels[0].loc[1, "GID_0"] = "XXX"
    units = boundaries.units_of(levels).set_index("gid")
    assert units.loc["XXX", "continent"] == "Europe"
    assert units.loc["ALB.1.1_1", "continent"] == "Europe"


def test_codes_of_iso_3166_are_stated_where_they_exist(levels):
    levels[0].loc[1, "GID_0"] = "XKO"
    levels[1]["ISO_1"] = ["AL-01", "NA"]
    codes = boundaries.units_of(levels).set_index("gid")["iso_3166"]
    assert codes.to_dict() == {
        "ALB": "AL",
        "XKO": "XK",
        "ALB.1_1": "AL-01",
        "ALB.2_1": "",
        "ALB.1.1_1": "",
        "ALB.1.2_1": "",
    }


def test_a_lost_parent_is_named(levels):
    levels[1].loc[1, "GID_0"] = "NOR"
    with pytest.raises(UserError, match=r"layer ADM_1: unit ALB.2_1 is in NOR, which is not in layer ADM_0"):
        boundaries.units_of(levels)


def test_layers_are_the_same_when_read_back(levels, folder):
    for level, frame in levels.items():
        again = boundaries.read_layer(folder, level)
        assert list(again.columns) == list(frame.columns)
        assert again.crs.to_epsg() == 4326
        assert shapely.equals(again.geometry.to_numpy(), frame.geometry.to_numpy()).all()
    assert boundaries.read_layer(folder, 3) is None


def test_the_same_units_are_the_same_bytes(levels, folder, tmp_path):
    boundaries.write(levels, tmp_path / "again")
    assert files.digest(folder) == files.digest(tmp_path / "again")


def test_units_of_another_making_are_refused(folder):
    path = folder / "units.parquet"
    table = pq.read_table(path).drop_columns(["continent"])
    pq.write_table(table.replace_schema_metadata({"geoloc.version": "2"}), path)
    with pytest.raises(UserError, match=r"units.parquet: not a units table of version 2"):
        read_units(folder)
    path.write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"units.parquet: damaged: .*geoloc boundaries"):
        read_units(folder)
    path.unlink()
    with pytest.raises(UserError, match=r"units.parquet: no such file.*geoloc boundaries"):
        read_units(folder)


@pytest.fixture
def project(tmp_path, levels, monkeypatch) -> Project:
    source = SimpleNamespace(APPROXIMATE=True, read=lambda options, root: levels, files=lambda options, root: [])
    monkeypatch.setattr(boundaries, "module_of", lambda package, kind: source)
    return Project(tmp_path, Profile.model_construct(boundaries=SimpleNamespace(kind="made_up")))


@pytest.mark.slow
def test_the_stage_writes_units_figures_and_a_picture(project, capsys):
    boundaries.build(project)
    written = sorted(path.name for path in project.boundaries.iterdir())
    assert written == ["boundaries.gpkg", "checksums.json", "index", "units.parquet"]
    summary = json.loads(project.summary("boundaries", "boundaries").read_text())
    assert summary == {
        "source": "made_up",
        "approximate": True,
        "units": {"level_0": 2, "level_1": 2, "level_2": 2},
        "continents": {
            "Europe": {"level_0": 1, "level_1": 2, "level_2": 2},
            "Oceania": {"level_0": 1, "level_1": 0, "level_2": 0},
        },
    }
    assert project.plot("boundaries", "boundaries").read_bytes().startswith(b"\x89PNG")
    assert "2 at level 0, 2 at level 1, 2 at level 2; approximate" in capsys.readouterr().err


def test_a_stage_that_fails_leaves_what_was_there(project, levels):
    boundaries.build(project)
    before = (project.boundaries / "boundaries.gpkg").read_bytes()
    levels[1].loc[0, "GID_0"] = "NOR"
    with pytest.raises(UserError):
        boundaries.build(project)
    assert (project.boundaries / "boundaries.gpkg").read_bytes() == before


SOURCES = {
    "natural_earth": {"path": "a.gpkg", "subdivisions": "b.gpkg"},
    "geoboundaries": {"path": "cgaz"},
    "gadm": {"path": ["a.gpkg", "b.gpkg"], "accept_licence": True},
}


@pytest.mark.parametrize("kind", SOURCES)
def test_a_file_of_the_user_is_read_only_with_its_checksum(tmp_path, kind):
    """Which the stage depends on, as it is among its parameters."""
    (tmp_path / "cgaz").mkdir()
    for name in ("a.gpkg", "b.gpkg", "cgaz/geoBoundariesCGAZ_ADM0.json", "cgaz/geoBoundariesCGAZ_ADM1.json"):
        (tmp_path / name).write_text(f"not {name}")

    def said(sha256: str | None) -> str:
        block = {"kind": kind, **SOURCES[kind], **({"sha256": sha256} if sha256 else {})}
        chosen = boundaries.module_of("geoloc_core.geo.sources", kind).Options.model_validate(block)
        with pytest.raises(UserError) as error:
            boundaries.build(Project(tmp_path, Profile.model_construct(boundaries=chosen)))
        return str(error.value)

    asked = re.search(r"boundaries\.sha256: missing; expected ([0-9a-f]{64}), that of .* and 1 more", said(None))
    assert asked
    assert "sha256" not in said(asked[1]), "it is read, and is no such file"
    for name in ("b.gpkg", "cgaz/geoBoundariesCGAZ_ADM1.json"):
        (tmp_path / name).write_text("another")
    assert f"boundaries.sha256: {asked[1]}; expected" in said(asked[1])
