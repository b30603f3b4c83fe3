import geopandas
import numpy as np
import pytest
import shapely

from geoloc_core.errors import UserError
from geoloc_core.geo import vectors

SQUARE = shapely.box(0, 0, 1, 1)


@pytest.fixture
def file(tmp_path):
    def write(shapes=(SQUARE,), crs="EPSG:4326", name="shapes.gpkg", layer="land"):
        frame = geopandas.GeoDataFrame({"Name": ["a", "b", "c"][: len(shapes)]}, geometry=list(shapes), crs=crs)
        frame.to_file(tmp_path / name, layer=layer)
        return tmp_path / name

    return write


@pytest.mark.parametrize("name", ["shapes.gpkg", "shapes.geojson", "shapes.shp"])
def test_columns_are_found_in_any_case_and_format(file, name):
    layer = "land" if name.endswith("gpkg") else None
    frame = vectors.read(file(name=name, layer=layer), ["NAME"])
    assert list(frame.columns) == ["NAME", "geometry"]
    assert frame["NAME"].tolist() == ["a"]
    assert frame.geometry[0].equals(SQUARE)


def test_broken_shapes_are_repaired_and_stay_polygons(file):
    bow_tie = shapely.Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])
    spike = shapely.Polygon([(0, 0), (1, 0), (1, 1), (1, 5), (1, 1), (0, 1)])
    frame = vectors.read(file([bow_tie, spike, SQUARE]), ["Name"])
    assert frame.geometry.is_valid.all()
    assert shapely.area(frame.geometry.to_numpy()).tolist() == pytest.approx([2, 1, 1])


MISTAKES = {
    "no such file": lambda file: (file().with_name("other.gpkg"), {}),
    "no layer sea; expected it among: land": lambda file: (file(), {"layer": "sea"}),
    "layer land: no column ISO, GID; found Name": lambda file: (file(), {"columns": ["ISO", "GID"]}),
    "layer land: coordinates are in WGS 84 / Pseudo-Mercator": lambda file: (file(crs="EPSG:3857"), {}),
    "layer land: coordinates are in an unknown system": lambda file: (file(crs=None), {}),
    "layer land, row 1: shape beyond": lambda file: (file([SQUARE, shapely.box(0, 0, 500, 1)]), {}),
    "layer land, row 0: shape without area": lambda file: (file([shapely.Point(1, 1)]), {}),
}


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
@pytest.mark.parametrize("says", MISTAKES)
def test_mistakes_are_named_in_one_line(file, says):
    path, options = MISTAKES[says](file)
    with pytest.raises(UserError) as error:
        vectors.read(path, **{"columns": ["Name"], **options})
    assert says in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["shapes.gpkg", "shapes.geojson"])
@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.9])
def test_a_truncated_file_is_named(file, name, share):
    path = file(name=name, layer="land" if name.endswith("gpkg") else None)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=f"{name}.*fetch it again"):
        vectors.read(path, ["Name"])


def test_dissolve_joins_rows_and_keeps_the_first(file):
    shapes = np.array([shapely.box(1, 0, 2, 1), SQUARE, shapely.box(5, 5, 6, 6)])
    frame = geopandas.GeoDataFrame({"gid": ["B", "B", "A"], "name": ["x", "y", "z"]}, geometry=shapes, crs=vectors.CRS)
    joined = vectors.dissolve(frame, "gid")
    assert joined["gid"].tolist() == ["A", "B"]
    assert joined["name"].tolist() == ["z", "x"]
    assert joined.geometry[1].equals(shapely.box(0, 0, 2, 1))
