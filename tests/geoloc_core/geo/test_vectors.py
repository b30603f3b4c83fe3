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


def folded(file, shape):
    return vectors.read(file([shape]), ["Name"]).geometry[0]


FIDZI = shapely.union(shapely.box(179, -2, 180, 2), shapely.box(-180, -2, -178, 2))
ACROSS = {
    "beyond 180": shapely.box(179, -2, 182, 2),
    "beyond -180": shapely.box(-181, -2, -178, 2),
    "jumping": shapely.Polygon([(179, -2), (-178, -2), (-178, 2), (179, 2)]),
    "jumping back": shapely.Polygon([(-178, -2), (-178, 2), (179, 2), (179, -2)]),
}


@pytest.mark.parametrize("how", ACROSS)
def test_shapes_are_cut_at_the_antimeridian_however_they_cross_it(file, how):
    assert folded(file, ACROSS[how]).equals(FIDZI)


def test_holes_cross_the_antimeridian_with_their_shape(file):
    ring = [(178, -3), (-177, -3), (-177, 3), (178, 3)]
    holes = [[(179, -2), (-178, -2), (-178, 2), (179, 2)], [(-177.9, 0), (-177.5, 0), (-177.5, 1)]]
    expected = shapely.union(shapely.box(178, -3, 180, 3), shapely.box(-180, -3, -177, 3))
    expected = expected.difference(FIDZI).difference(shapely.Polygon(holes[1]))
    assert folded(file, shapely.Polygon(ring, holes)).symmetric_difference(expected).area < 1e-9


def test_shapes_that_reach_a_pole_stay_whole(file):
    cap = shapely.Polygon([(-180, -90), (180, -90), (180, -80), (90, -70), (0, -75), (-90, -70), (-180, -80)])
    assert folded(file, cap).equals(cap)
    band = shapely.box(-180, 10, 180, 20)
    assert folded(file, band).equals(band)


def test_collections_keep_what_has_an_area(file):
    mixed = shapely.GeometryCollection([shapely.LineString([(0, 0), (9, 9)]), SQUARE, shapely.MultiPolygon([SQUARE])])
    assert folded(file, mixed).equals(SQUARE)


MISTAKES = {
    "no such file": lambda file: (file().with_name("other.gpkg"), {}),
    "no layer sea; expected one of: land": lambda file: (file(), {"layer": "sea"}),
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


def test_a_shape_that_is_cut_at_the_antimeridian_has_no_lines():
    # one part beyond the edge, one that begins on it, as Natural Earth's Fiji has
    crossing = shapely.MultiPolygon([shapely.box(179, -1, 181, 0), shapely.box(180, 2, 181, 3)])
    (found,) = vectors.repair(np.array([crossing], dtype=object), "here")
    assert found.geom_type == "MultiPolygon"
    assert shapely.area(found) == pytest.approx(3)
    assert shapely.bounds(found).tolist() == [-180, -1, 180, 3]
