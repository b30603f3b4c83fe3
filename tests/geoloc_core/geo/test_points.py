"""``geoloc locate``: anyone's table in, the same rows with their units out."""

import json
from decimal import Decimal

import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from click.testing import CliRunner

from geoloc_core import parquet
from geoloc_core.cli import geoloc
from geoloc_core.errors import UserError
from geoloc_core.geo import points as stage
from geoloc_core.geo.locating import ADDED, locate_file

CSV = '''id,latitude,name,longitude
007,2,"a, b",3
8, 2.50 ,,13
9,0,"sea ""near""",-0.1
10,-40,far,60
'''
UNITS = ["ALB", "ALB.1_1", "ALB.1.1_1", "Alba", "West", "South"]


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text(CSV)
    return path


def rows(path) -> list[dict]:
    return pq.read_table(path).to_pylist()


def read(path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def test_the_rows_come_out_as_they_were_with_their_units(table, folder, tmp_path):
    out = tmp_path / "out.csv"
    words = ["locate", str(table), "--boundaries", str(folder), "--out", str(out), "--limit-km", "20"]
    result = CliRunner().invoke(geoloc, words, catch_exceptions=False)
    assert result.exit_code == 0
    found = read(out)
    assert list(found.columns) == ["id", "latitude", "name", "longitude", *ADDED]
    assert found[["id", "latitude", "name", "longitude"]].equals(read(table))
    assert found.loc[0, ADDED].tolist() == [*UNITS, "0"]
    assert found.loc[1, ADDED].tolist() == ["ALB", "ALB.2_1", "", "Alba", "East", "", "0"]
    assert found.loc[2, "gid_2"] == "ALB.1.1_1"
    assert float(found.loc[2, "distance_km"]) == pytest.approx(11.12, abs=0.01)
    assert found.loc[3, ADDED].tolist() == [""] * 7
    assert "4 points, 2 inside a unit, 1 within 20 km of one, 1 without" in result.stderr


def test_parts_and_formats_change_nothing(folder, tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    columns = {"longitude": random.uniform(-2, 22, 1000).astype(np.float32), "n": np.arange(1000)}
    table = pa.table({**columns, "latitude": random.uniform(-2, 12, 1000).astype(np.float32)})
    pq.write_table(table, tmp_path / "points.parquet")
    locate_file(tmp_path / "points.parquet", folder, tmp_path / "whole.parquet", 100, None)
    monkeypatch.setattr(stage, "ROWS", 77)
    locate_file(tmp_path / "points.parquet", folder, tmp_path / "parts.parquet", 100, None)
    locate_file(tmp_path / "points.parquet", folder, tmp_path / "parts.csv", 100, None)
    whole, parts = (pq.read_table(tmp_path / name) for name in ("whole.parquet", "parts.parquet"))
    assert parts.equals(whole)
    assert whole.select(table.column_names).equals(table)
    assert len(set(whole["gid_1"].to_pylist())) == 3
    assert read(tmp_path / "parts.csv")["gid_2"].tolist() == whole["gid_2"].fill_null("").to_pylist()


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("1,nan,x,2", r"points.csv: column latitude, row 6: nan; expected −90 … 90 degrees$"),
        ("1,,x,2", r"points.csv: column latitude, row 6: empty; expected"),
        ("1,2,x,east", r"points.csv: column longitude, row 6: east; expected −180 … 180 degrees"),
        ("1,2,x,180.5", r"points.csv: column longitude, row 6: 180.5; expected"),
        ("1,139.7,x,35.7", r"column latitude, row 6: 139.7; expected .*; are latitude and longitude swapped\?"),
        ("1,2", r"points.csv: row 6: 2 cells; expected 4, and quotes around a cell with a comma$"),
    ],
)
def test_a_wrong_coordinate_is_named_and_nothing_is_written(table, folder, tmp_path, row, says):
    table.write_text(CSV + row + "\n")
    out = tmp_path / "out.csv"
    out.write_text("before")
    with pytest.raises(UserError, match=says) as error:
        locate_file(table, folder, out, 100, None)
    assert "\n" not in str(error.value)
    assert out.read_text() == "before"
    with pytest.raises(UserError):
        locate_file(table, folder, tmp_path / "new.parquet", 100, None)
    assert not (tmp_path / "new.parquet").exists()


def test_a_wrong_row_of_parquet_is_counted_over_all_parts(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "ROWS", 10)
    table = pa.table({"latitude": [1.0] * 25 + [None, 1.0], "longitude": [1] * 27})
    pq.write_table(table, tmp_path / "points.parquet")
    with pytest.raises(UserError, match=r"points.parquet: column latitude, row 25: empty; expected"):
        locate_file(tmp_path / "points.parquet", folder, tmp_path / "out.csv", 100, None)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (
            "points.csv",
            "lat,lon\n1,2\n",
            r"points.csv: no column latitude, longitude; expected latitude, longitude, got lat, lon$",
        ),
        (
            "points.csv",
            "latitude,gid_0\n1,2\n",
            r"points.csv: no column longitude; expected latitude, longitude, got latitude, gid_0",
        ),
        (
            "points.csv",
            "latitude,longitude,gid_0\n1,2,3\n",
            r"already has a column gid_0, which this command adds; rename",
        ),
        ("points.csv", "latitude,longitude,latitude\n1,2,3\n", r"2 columns named latitude; expected one"),
        ("points.csv", "", r"points.csv: empty; expected a CSV with columns latitude, longitude"),
        ("points.parquet", "PAR1", r"points.parquet: not a Parquet file that can be read"),
        ("points.xlsx", "", r"points.xlsx: not a table; expected a name that ends in .csv or .parquet"),
        ("points.csv", None, r"points.csv: no such file; expected a table of points"),
    ],
)
def test_a_wrong_table_is_named(folder, tmp_path, name, content, says):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=says) as error:
        locate_file(tmp_path / name, folder, tmp_path / "out.csv", 100, None)
    assert "\n" not in str(error.value)


def test_a_table_without_rows_is_no_trouble(folder, tmp_path):
    (tmp_path / "points.csv").write_text("latitude,longitude\n")
    locate_file(tmp_path / "points.csv", folder, tmp_path / "out.parquet", 100, None)
    assert pq.read_table(tmp_path / "out.parquet").column_names == ["latitude", "longitude", *ADDED]


@pytest.mark.parametrize("index", [None, "name", "row", "both"])
def test_a_data_frame_comes_back_with_its_index(folder, tmp_path, index):
    frame = pd.DataFrame({"name": list("abc"), "latitude": [2.0, 2, 7], "longitude": [3.0, 13, 4], "n": [1, 2, 3]})
    frame["when"] = pd.to_datetime(["2019-07-31"] * 3, utc=True)
    frame["kind"] = pd.Categorical(["x", "y", "x"])
    frame = {
        None: frame,
        "name": frame.set_index("name"),
        "row": frame.set_index(pd.RangeIndex(5, 35, 10)),
        "both": frame.set_index(["name", "n"]),
    }[index]
    frame.to_parquet(tmp_path / "in.parquet")
    locate_file(tmp_path / "in.parquet", folder, tmp_path / "out.parquet", 100, None)
    found = pd.read_parquet(tmp_path / "out.parquet")
    pd.testing.assert_frame_equal(found[frame.columns], frame)
    assert found.columns.tolist() == [*frame.columns, *ADDED]
    assert found["gid_1"].tolist() == ["ALB.1_1", "ALB.2_1", "ALB.1_1"]
    said = json.loads(pq.read_schema(tmp_path / "out.parquet").metadata[b"pandas"])
    as_pandas = json.loads(pa.Schema.from_pandas(found).metadata[b"pandas"])
    strings = {"object", "str"}  # whichever the version of pandas that reads calls its own
    for ours, its in zip(said["columns"], as_pandas["columns"], strict=True):
        assert ours == its or {ours["numpy_type"], its["numpy_type"]} == strings


def test_geoparquet_stays_geoparquet(folder, tmp_path):
    shapes = [shapely.Point(3, 2), shapely.Point(13, 2)]
    frame = geopandas.GeoDataFrame({"latitude": [2.0, 2], "longitude": [3.0, 13]}, geometry=shapes, crs="EPSG:3857")
    frame.to_parquet(tmp_path / "in.parquet")
    locate_file(tmp_path / "in.parquet", folder, tmp_path / "out.parquet", 100, None)
    found = geopandas.read_parquet(tmp_path / "out.parquet")
    assert found.crs == frame.crs
    assert found.geometry.geom_equals(frame.geometry).all()
    assert found["gid_1"].tolist() == ["ALB.1_1", "ALB.2_1"]


def test_what_a_data_set_says_of_its_columns_has_the_new_ones(folder, tmp_path):
    features = {name: {"dtype": "float64", "_type": "Value"} for name in ("latitude", "longitude")}
    metadata = {"huggingface": json.dumps({"info": {"features": features}}), "mine": "kept", "pandas": "no JSON"}
    table = pa.table({"latitude": [2.0], "longitude": [3.0]}).replace_schema_metadata(metadata)
    pq.write_table(table, tmp_path / "in.parquet")
    locate_file(tmp_path / "in.parquet", folder, tmp_path / "out.parquet", 100, None)
    found = pq.read_schema(tmp_path / "out.parquet").metadata
    assert set(found) == {b"huggingface", b"mine"}
    said = json.loads(found[b"huggingface"])["info"]["features"]
    assert list(said) == ["latitude", "longitude", *ADDED]
    assert {said[name]["dtype"] for name in ADDED} == {"string", "float64"}


HELD = {
    "list": pa.array([[1, 2]]),
    "struct": pa.array([{"a": 1}]),
    "map": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
    "binary": pa.array([b"\x01\xff"]),
}


@pytest.mark.parametrize("kind", HELD)
def test_what_a_csv_cannot_hold_is_named_before_the_work(folder, tmp_path, monkeypatch, kind):
    pq.write_table(pa.table({"latitude": [2.0], "longitude": [3.0], "held": HELD[kind]}), tmp_path / "in.parquet")
    locate_file(tmp_path / "in.parquet", folder, tmp_path / "out.parquet", 100, None)
    assert pq.read_table(tmp_path / "out.parquet")["held"].to_pylist() == HELD[kind].to_pylist()
    monkeypatch.setattr("geoloc_core.geo.locating._locator", lambda *_: pytest.fail("the work began"))
    with pytest.raises(UserError, match=r"in.parquet: column held: its type is .*, which a CSV cannot hold"):
        locate_file(tmp_path / "in.parquet", folder, tmp_path / "out.csv", 100, None)
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    "latitudes",
    [
        pa.array([2, 7], pa.int8()),
        pa.array([2, 7], pa.float16()),
        pa.array(["2", " 7.0 "]),
        pa.array(["2", "+7"], pa.large_string()),
        pa.array(["2", "7"]).dictionary_encode(),
        pa.array([2.0, 7.0]).dictionary_encode(),
        pa.array([Decimal("2.00"), Decimal("7.00")]),
    ],
    ids=lambda array: str(array.type),
)
def test_degrees_may_be_any_kind_of_number(folder, tmp_path, latitudes):
    pq.write_table(pa.table({"Latitude": latitudes, " longitude": [3.0, 4]}), tmp_path / "in.parquet")
    locate_file(tmp_path / "in.parquet", folder, tmp_path / "out.csv", 100, None)
    found = read(tmp_path / "out.csv")
    assert found["gid_2"].tolist() == ["ALB.1.1_1", "ALB.1.2_1"]
    assert found.columns.tolist() == ["Latitude", " longitude", *ADDED]


@pytest.mark.parametrize(
    "latitudes",
    [pa.array([True]), pa.array([1], pa.timestamp("s")), pa.array([[1.0]]), pa.array([b"1"]), pa.array([{"a": 1.0}])],
    ids=lambda array: str(array.type),
)
def test_what_is_no_number_is_no_degrees(folder, tmp_path, latitudes):
    pq.write_table(pa.table({"latitude": latitudes, "longitude": [1.0]}), tmp_path / "in.parquet")
    with pytest.raises(UserError, match=r"column latitude: its type is .*; expected numbers, degrees"):
        locate_file(tmp_path / "in.parquet", folder, tmp_path / "out.parquet", 100, None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("latitude,longitude\n1,2\n\n\n200,2\n", "column latitude, row 5: 200; expected"),
        ('note,latitude,longitude\n"a\n\nb",1,2\nc,200,2\n', "column latitude, row 3: 200; expected"),
        ("latitude,longitude\nTrue,2\n", "column latitude, row 2: True; expected"),
        ("latitude,longitude\n4_8.85,2\n", "column latitude, row 2: 4_8.85; expected"),
        (
            'latitude,longitude\n"48,85",2\n',
            "row 2: 48,85; expected .* degrees; use a decimal point instead of a comma",
        ),
        (
            "latitude,longitude\n33.85S,2\n",
            "row 2: 33.85S; expected .* degrees; use decimal degrees, negative for south and west",
        ),
    ],
)
def test_a_bad_cell_is_named_with_the_row_that_a_spreadsheet_shows(folder, tmp_path, text, said):
    (tmp_path / "in.csv").write_text(text)
    with pytest.raises(UserError, match=said):
        locate_file(tmp_path / "in.csv", folder, tmp_path / "out.csv", 100, None)


def test_a_file_in_the_schema_of_gadm_does_as_well(levels, table, tmp_path):
    for level, frame in levels.items():
        frame.to_file(tmp_path / "units.gpkg", layer=f"ADM_{level}")
    locate_file(table, tmp_path / "units.gpkg", tmp_path / "out.parquet", 20, None)
    assert [rows(tmp_path / "out.parquet")[0][name] for name in ADDED[:5]] == UNITS[:5]
    assert rows(tmp_path / "out.parquet")[1]["name_1"] == "East"


def test_the_index_of_a_file_is_kept_until_the_file_changes(table, tmp_path, capsys):
    units, kept, out = tmp_path / "gadm41_ALB_1.json", tmp_path / "kept", tmp_path / "out.parquet"
    columns = {"GID_1": ["ALB.1_1", "ALB.2_1"], "GID_0": "ALB", "COUNTRY": "Alba", "NAME_1": ["West", "NA"]}
    shapes = [shapely.box(0, 0, 10, 10), shapely.box(10, 0, 20, 10)]
    geopandas.GeoDataFrame(columns, geometry=shapes, crs="EPSG:4326").to_file(units)
    for _ in range(2):
        locate_file(table, units, out, 100, kept)
        assert [row["name_1"] for row in rows(out)] == ["West", "ALB.2_1", "West", None]
    assert capsys.readouterr().err.count("indexing") == 1
    units.write_text(units.read_text().replace("West", "Occident"))
    locate_file(table, units, out, 100, kept)
    assert rows(out)[0]["name_1"] == "Occident"


def test_a_folder_that_is_no_index_is_left_alone(levels, table, tmp_path):
    levels[0].to_file(tmp_path / "units.gpkg", layer="ADM_0")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match=r"mine: already contains files that geoloc did not write as index .thesis.txt"):
        locate_file(table, tmp_path / "units.gpkg", tmp_path / "out.csv", 100, tmp_path / "mine")
    assert (tmp_path / "mine/thesis.txt").exists()


@pytest.mark.parametrize("index", [False, True])
def test_a_file_without_units_is_named(table, tmp_path, index):
    kept = tmp_path / "kept" if index else None
    with pytest.raises(UserError, match=r"units.gpkg: no such file"):
        locate_file(table, tmp_path / "units.gpkg", tmp_path / "out.csv", 100, kept)
    frame = geopandas.GeoDataFrame({"name": ["x"]}, geometry=[shapely.box(0, 0, 1, 1)], crs="EPSG:4326")
    frame.to_file(tmp_path / "units.gpkg")
    with pytest.raises(UserError, match=r"units.gpkg: no layer ADM_0 and no column GID_0"):
        locate_file(table, tmp_path / "units.gpkg", tmp_path / "out.csv", 100, kept)


def test_a_table_of_the_projects_own_stays_one_that_it_reads(tmp_path):
    table = pa.table({"latitude": [1.0], "longitude": [2.0]}).replace_schema_metadata({"mine": "kept"})
    parquet.write(table, tmp_path / "a.parquet")
    added = pa.schema([("cell", pa.int64())])
    stage.annotate(tmp_path / "a.parquet", tmp_path / "b.parquet", added, lambda lat, lon: [pa.array([3])], "read")
    found = parquet.read(tmp_path / "b.parquet", "")
    assert (found["cell"].to_pylist(), found.schema.metadata) == ([3], {b"mine": b"kept"})
