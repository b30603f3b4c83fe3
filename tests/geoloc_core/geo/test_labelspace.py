import numpy as np
import pytest

from geoloc_core.errors import UserError
from geoloc_core.geo.labelspace import LabelSpace, from_photos, from_units


def test_classes_are_the_distinct_ids_in_order(units):
    space = from_units("subdivision", units, ["ALB.2_1", None, "ALB.1_1", "ALB.2_1", float("nan")])
    assert (space.kind, space.ids, space.names) == ("subdivision", ["ALB.1_1", "ALB.2_1"], ["West", "East"])
    assert space.parents == ["ALB", "ALB"]
    assert space.latitudes == pytest.approx([5, 5], abs=0.1)
    assert space.longitudes == pytest.approx([5, 15])
    assert space.index(["ALB.2_1", None, "FJI"]).tolist() == [1, -1, -1]


def test_a_label_space_is_the_same_when_read_back(units, tmp_path):
    space = from_units("country", units, ["FJI", "ALB"])
    space.save(tmp_path / "labels.json")
    again = LabelSpace.load(tmp_path / "labels.json")
    assert (again.ids, again.names, again.parents) == (space.ids, space.names, ["", ""])
    assert again.longitudes == pytest.approx(space.longitudes, abs=1e-6)


def test_an_id_of_other_boundaries_is_named(units):
    with pytest.raises(UserError, match=r"country 'NOR': not in units.parquet"):
        from_units("country", units, ["ALB", "NOR"])


def test_classes_that_photos_alone_say_something_of():
    """Their mean place is that on the sphere, across the date line and where two photos have no coordinates."""
    ids = np.array(["Suva", "7", "7", None, "Suva", "Suva", "10"], dtype=object)
    latitudes = np.array([-18.0, 0, 10, 50, np.nan, -18.0, 90])
    longitudes = np.array([179.0, 5, 5, 5, np.nan, -179.0, 0])
    countries = np.array(["FJI", "NGA", "CMR", "FRA", "FJI", None, None], dtype=object)
    space = from_photos("square", ids, latitudes, longitudes, countries)
    assert (space.kind, space.ids) == ("square", ["10", "7", "Suva"])
    assert space.names == ["square 10", "square 7", "Suva"]
    assert space.parents == ["", "CMR", "FJI"], "of as many photos the first by code"
    assert space.latitudes == pytest.approx([90, 5, -18.0], abs=0.01)
    assert abs(space.longitudes[2]) == pytest.approx(180)
    assert space.longitudes[1] == pytest.approx(5)


def test_a_class_without_a_place_is_named():
    nowhere = np.array([1.0, np.nan])
    with pytest.raises(UserError, match="city 'B': no training photo of it has coordinates; expected some"):
        from_photos("city", np.array(["A", "B"], dtype=object), nowhere, nowhere, np.array([None] * 2, dtype=object))
