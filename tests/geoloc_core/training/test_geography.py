"""What is known of a place comes from the labels, the manifest and the files that are given."""

import json

import numpy as np
import pandas as pd
import pytest
import rasterio

from geoloc_core.errors import UserError
from geoloc_core.geo.towns import Towns
from geoloc_core.training.geography import Sources, _towns, gather, read_labels

from .corpus import make_project


@pytest.fixture
def project(tmp_path):
    found = make_project(tmp_path, 12)
    sides = [{"country": "France", "side": "right"}, {"country": "Japan", "side": "left"}]
    (tmp_path / "sides.json").write_text(json.dumps(sides))
    classes = np.zeros((180, 360), np.uint8)
    classes[40:42, :] = 8  # Csa, 48 to 50 degrees north
    profile = {"driver": "GTiff", "height": 180, "width": 360, "count": 1, "dtype": "uint8", "nodata": 0}
    with rasterio.open(
        tmp_path / "koppen.tif", "w", **profile, crs="EPSG:4326", transform=rasterio.Affine(1, 0, -180, 0, -1, 90)
    ) as file:
        file.write(classes, 1)
    return found


def test_facts_of_every_photo(project):
    found = gather(project, "photos", Sources(climate="koppen.tif", driving_sides="sides.json"))
    assert list(found.codes[:4]) == ["FRA", "JPN", "NLD", "FRA"]
    assert list(found.countries[:3]) == ["France", "Japan", "Netherlands"]
    assert list(found.regions[:3]) == ["Aube", "Hokkaido", "Utrecht"]
    assert list(found.towns[:3]) == ["Troyes", "Wakkanai", "Utrecht"]
    assert list(found.climates[:3]) == ["Csa", None, None]
    assert list(found.sides[:3]) == ["right", "left", None]
    assert list(found.directions[:6]) == [None, "north", None, "north", None, "east"]
    assert list(found.months[:6]) == [None, "February", "March", None, "May", "June"]
    unknown = (found.codes, found.countries, found.towns, found.climates, found.sides)
    assert all(column[-1] is None for column in unknown), "a photo without a place"


def test_without_files_their_facts_are_unknown(project):
    found = gather(project, "photos", Sources())
    assert not any(found.climates)
    assert not any(found.sides)
    assert all(found.towns[:-1])


def test_a_town_must_be_near_enough(project):
    assert not any(gather(project, "photos", Sources(town_km=0.001)).towns)


def test_the_first_town_of_a_country_is_one_like_the_others():
    first = Towns.load(Sources().min_population).of_country("NL")
    places = np.array([[first.latitudes[0], first.longitudes[0]]])
    countries = pd.DataFrame({"iso_3166": ["NL"]}, ["NLD"])
    assert _towns(places, np.array(["NLD"], object), countries, Sources()).tolist() == [first.names[0]]


def test_a_town_is_never_across_the_border(project):
    import pyarrow.parquet as pq

    path = project.labels("photos")
    table = pq.read_table(path)
    codes = ["JPN" if code == "FRA" else code for code in table["gid_0"].to_pylist()]
    changed = table.set_column(table.schema.get_field_index("gid_0"), table.schema.field("gid_0"), [codes])
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata), path)
    found = gather(project, "photos", Sources())
    assert found.towns[0] is None, "Troyes is not in Japan"
    assert found.towns[1] == "Wakkanai"


def test_what_is_missing_is_said(project, tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.tif: no such file"):
        gather(project, "photos", Sources(climate="nowhere.tif"))
    (project.boundaries / "units.parquet").unlink()
    with pytest.raises(UserError, match=r"units.parquet: no such file; .*run `geoloc boundaries`"):
        gather(project, "photos", Sources())
    project.labels("photos").unlink()
    with pytest.raises(UserError, match="run `geoloc label photos`"):
        gather(project, "photos", Sources())


def test_labels_are_objects_whether_or_not_some_are_empty(project):
    found = read_labels(project, "photos", ["split", "gid_0"])
    assert list(found) == ["split", "gid_0"]
    assert [column.dtype for column in found.values()] == [object, object]
    assert found["gid_0"].tolist() == ["FRA", "JPN", "NLD"] * 3 + ["FRA", "JPN", None]
