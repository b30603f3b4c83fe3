import pytest

from geoloc_core.errors import UserError
from geoloc_core.geo.labelspace import LabelSpace, from_units


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
