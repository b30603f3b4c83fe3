import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_photos import located, project, write

from geoloc_core.corpora import manifest
from geoloc_core.corpora.checks import Report, Row, check, check_labels, check_manifest, straddling
from geoloc_core.corpora.ingest import ingest
from geoloc_core.corpora.manifest import LABELS
from geoloc_core.errors import UserError

pytestmark = pytest.mark.slow  # the library takes seconds to import


@pytest.fixture
def made(tmp_path):
    """An ingested and labelled corpus of 12 photos in 4 groups."""
    made = project(tmp_path)
    write(made.raw("c"), {f"g{i // 3}/{i:02}.jpg": located(i, 1 + i) for i in range(12)})
    ingest(made, "c")
    label(made)
    return made


def label(made, **columns: object) -> None:
    rows = manifest.read_manifest(made.corpus("c"), ["image_id", "group_id"]).to_pandas()
    frame = pd.DataFrame(dict.fromkeys(LABELS.names), index=rows.index)
    frame["image_id"], frame["gid_0"], frame["distance_km"] = rows["image_id"], "FRA", 0.0
    frame["split"] = rows["group_id"].map(lambda group: "validation" if group == "g0" else "train")
    write_labels(made, frame.assign(**columns))


def write_labels(made, frame: pd.DataFrame) -> None:
    made.labels("c").parent.mkdir(exist_ok=True)
    table = pa.Table.from_pandas(frame, LABELS, preserve_index=False)
    manifest.write_table(table, made.labels("c"), LABELS)


def respell(made, **columns: object) -> None:
    path = made.corpus("c") / "manifest.parquet"
    table = manifest.read_manifest(made.corpus("c"))
    for name, value in columns.items():
        values = value if isinstance(value, list) else [value] * len(table)
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values))
    manifest.write_table(table, path, manifest.MANIFEST)


def failed(report: Report) -> list[tuple[str, str, int]]:
    assert report.passed == all(row.passed for row in report.rows)
    return [(row.expectation, row.column, row.unexpected) for row in report.rows if not row.passed]


def test_a_sound_corpus_passes_and_says_so_quietly(made, capfd):
    check(made, "c")
    assert failed(check_manifest(made, "c")) == failed(check_labels(made, "c")) == []
    told = capfd.readouterr()
    assert "manifest of c" in told.err
    assert "labels of c" in told.err
    assert "Calculating" not in told.err
    assert told.out == ""


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"latitude": [95.0] + [1.0] * 11}, ("from -90 to 90", "latitude", 1)),
        ({"longitude": [None] * 2 + [1.0] * 10}, ("none", "without_place", 2)),
        ({"sha256": ["a" * 64] * 2 + ["b" * 63 + f"{i:x}" for i in range(10)]}, ("unique", "sha256", 2)),
        ({"sha256": [f"{i:063x}Z" for i in range(12)]}, ("like ^[0-9a-f]{64}$", "sha256", 12)),
        ({"heading": [360.0] + [None] * 11}, ("from 0 to 360", "heading", 1)),
        ({"corpus": "other"}, ("exactly c", "corpus", 12)),
        ({"width": 0}, ("at least 1", "width", 12)),
        ({"row": 0}, ("unique together", "shard, row", 12)),
        ({"image_id": [f"{i}" for i in range(12)]}, ("equal", "image_id, attributes_image_id", 12)),
    ],
)
def test_a_wrong_manifest_fails_where_it_is_wrong(made, columns, expected):
    respell(made, **columns)
    assert failed(check_manifest(made, "c")) == [expected]


def test_a_photo_may_have_a_country_instead_of_coordinates(made):
    respell(made, latitude=[None] * 2 + [1.0] * 10, longitude=[None] * 3 + [1.0] * 9)
    assert failed(check_manifest(made, "c")) == [("none", "without_place", 3)]
    path = made.corpus("c") / "attributes.parquet"
    table = pq.read_table(path)
    pq.write_table(table.append_column("gid_0", pa.array(["FRA"] * 3 + [None] * 9)), path)
    # half a coordinate is a mistake whatever the country
    assert failed(check_manifest(made, "c")) == [("none", "without_place", 1)]


def test_lost_photos_fail(made):
    writer = manifest.ShardWriter(made.corpus("c") / "other")
    writer.add("a", b"x", "a")
    writer.close()
    manifest.shard_path(made.corpus("c") / "other", 0).replace(manifest.shard_path(made.corpus("c"), 0))
    assert failed(check_manifest(made, "c")) == [("1 rows", "", 1)]
    assert "got 12" in check_manifest(made, "c").markdown()


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"distance_km": [-1.0] + [0.0] * 11}, ("at least 0", "distance_km", 1)),
        ({"gid_0": ["fr"] + ["FRA"] * 11}, ("like ^[A-Z0-9]{3}$", "gid_0", 1)),
        ({"gid_0": [None] * 2 + ["FRA"] * 10}, ("not null in 90%", "gid_0", 2)),
        ({"split": "train"}, ("exactly train, validation", "split", 1)),
        ({"split": ["train", *["validation"] * 2, *["train"] * 9]}, ("none", "straddling_group", 3)),
    ],
)
def test_wrong_labels_fail_where_they_are_wrong(made, columns, expected):
    label(made, **columns)
    assert failed(check_labels(made, "c")) == [expected]


def test_one_photo_in_twelve_at_sea_is_fine(made):
    label(made, gid_0=[None] + ["FRA"] * 11, distance_km=[None] + [0.0] * 11)
    assert failed(check_labels(made, "c")) == []


def test_labels_of_another_order_or_length_fail(made):
    frame = manifest.read_table(made.labels("c"), LABELS).to_pandas()
    write_labels(made, frame[::-1])
    assert ("equal", "image_id, manifest_image_id", 12) in failed(check_labels(made, "c"))
    write_labels(made, frame[:9])
    assert failed(check_labels(made, "c")) == [("12 rows", "", 1)]
    write_labels(made, pd.concat([frame, frame[:1]]))
    found = failed(check_labels(made, "c"))
    assert ("12 rows", "", 1) in found
    assert ("unique", "image_id", 2) in found


def test_a_benchmark_has_but_one_split(made):
    made.profile.corpora["c"].role = "benchmark"
    assert ("exactly benchmark", "split", 2) in failed(check_labels(made, "c"))
    label(made, split="benchmark")
    assert failed(check_labels(made, "c")) == []


def test_a_failure_names_columns_counts_and_photos(made, capfd):
    label(made, distance_km=[-1.5] + [0.0] * 11)
    with pytest.raises(UserError, match="labels of c: distance_km at least 0; 1 expectation"):
        check(made, "c")
    assert "g0/00.jpg: -1.5" in capfd.readouterr().err
    assert "| at least 0 | distance_km | 1 | g0/00.jpg: -1.5 | ✗ |" in check_labels(made, "c").markdown()


def test_what_is_not_there_is_named(made):
    made.labels("c").unlink()
    with pytest.raises(UserError, match=r"c\.parquet: no such file; expected the labels"):
        check_labels(made, "c")
    with pytest.raises(UserError, match=r"corpus 'x': not in params\.yaml"):
        check_manifest(made, "x")


def test_a_straddling_group_is_named_on_its_rows():
    found = straddling(pd.Series(["a", "a", "b", "b"]), pd.Series(["train", "validation", "train", "train"]))
    assert found.tolist()[:2] == ["a", "a"]
    assert found[2:].isna().all()


def test_a_bar_in_an_example_does_not_break_the_table():
    line = Report("t", (Row("like a|b", "c", 1, ("x|y",), False),)).markdown().splitlines()[-1]
    assert line.count("|") == 6
