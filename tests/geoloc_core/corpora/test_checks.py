import re

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_photos import located, project, write

from geoloc_core import parquet
from geoloc_core.corpora import drift, manifest
from geoloc_core.corpora.checks import Report, Row, check, check_labels, check_manifest, straddling
from geoloc_core.corpora.ingest import ingest
from geoloc_core.corpora.manifest import LABELS
from geoloc_core.errors import UserError
from geoloc_core.files import remove
from geoloc_core.params import Drift, Expect, Labels
from geoloc_core.params.using import use

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
        ({"place_id": [None] + ["x"] * 5 + ["y"] * 3 + [None] * 3}, ("none", "straddling_place", 5)),
        ({"width": 0}, ("at least 1", "width", 12)),
        ({"row": 0}, ("unique together", "shard, row", 12)),
        ({"image_id": [f"{i}" for i in range(12)]}, ("equal", "image_id, attributes_image_id", 12)),
    ],
)
def test_a_wrong_manifest_fails_where_it_is_wrong(made, columns, expected):
    respell(made, **columns)
    assert failed(check_manifest(made, "c")) == [expected]


def test_a_benchmark_may_hold_the_same_bytes_twice(made):
    made.profile.corpora["c"].role = "benchmark"
    respell(made, sha256=["a" * 64] * 2 + ["b" * 63 + f"{i:x}" for i in range(10)])
    assert failed(check_manifest(made, "c")) == []


def test_a_photo_may_have_a_country_instead_of_coordinates(made):
    respell(made, latitude=[None] * 2 + [1.0] * 10, longitude=[None] * 3 + [1.0] * 9)
    assert failed(check_manifest(made, "c")) == [("none", "without_place", 3)]
    path = made.corpus("c") / "attributes.parquet"
    parquet.write(parquet.read(path, "").append_column("gid_0", pa.array(["FRA"] * 3 + [None] * 9)), path)
    # half a coordinate is a mistake whatever the country
    assert failed(check_manifest(made, "c")) == [("none", "without_place", 1)]


def test_lost_photos_fail(made):
    writer = manifest.ShardWriter(made.corpus("c") / "other")
    writer.add("a", b"x", "a")
    writer.close()
    manifest.shard_path(made.corpus("c") / "other", 0).replace(manifest.shard_path(made.corpus("c"), 0))
    assert failed(check_manifest(made, "c")) == [("1 rows", "", 1)]
    assert check_manifest(made, "c").verdict == "manifest of c: expected 1 rows (got 12)"
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


def test_a_test_split_is_there_where_it_is_asked_for_and_nowhere_else(made):
    thirds = ["train", "validation", "test"]
    label(made, split=[thirds[n // 3 % 3] for n in range(12)])
    assert failed(check_labels(made, "c")) == [("exactly train, validation", "split", 1)]
    made.profile.labels = Labels(test_share=0.2)
    assert failed(check_labels(made, "c")) == []
    label(made)
    assert failed(check_labels(made, "c")) == [("exactly train, validation, test", "split", 1)]


def test_a_failure_names_columns_counts_and_photos(made, capfd):
    label(made, distance_km=[-1.5] + [0.0] * 11)
    with pytest.raises(UserError, match=r"labels of c: distance_km at least 0 \(g0/00.jpg: -1.5\); 1 expectation"):
        check(made, "c")
    assert "g0/00.jpg: -1.5" in capfd.readouterr().err
    assert "| at least 0 | distance_km | 1 | g0/00.jpg: -1.5 | ✗ |" in check_labels(made, "c").markdown()


def test_what_is_not_there_is_named(made):
    made.labels("c").unlink()
    with pytest.raises(UserError, match=r"c\.parquet: no such file; expected the labels"):
        check_labels(made, "c")
    with pytest.raises(UserError, match=r"corpus 'x': not in the profile in use"):
        check_manifest(made, "x")


def test_a_straddling_group_is_named_on_its_rows():
    found = straddling(pd.Series(["a", "a", "b", "b"]), pd.Series(["train", "validation", "train", "train"]))
    assert found.tolist()[:2] == ["a", "a"]
    assert found[2:].isna().all()


def test_a_bar_in_an_example_does_not_break_the_table():
    line = Report("t", (Row("like a|b", "c", 1, ("x|y",), False),)).markdown().splitlines()[-1]
    assert len(re.findall(r"(?<!\\)\|", line)) == 6


def expecting(made, **promises: object) -> None:
    made.profile.expect["c"] = Expect.model_validate(promises)


@pytest.mark.parametrize(
    ("promises", "expected"),
    [
        ({"countries": ["FRA", "DEU", "CHE"]}, None),
        ({"countries": ["FRA", "DEU"], "elsewhere_share": 0.1}, None),
        ({"countries": ["FRA", "DEU"]}, ("exactly FRA, DEU in 99.0%", "gid_0", 1)),
        ({"countries": ["GBR"]}, ("exactly GBR in 99.0%", "gid_0", 11)),
        ({"min_countries": 3}, None),
        ({"min_countries": 4}, ("at least 4 different", "gid_0", 1)),
    ],
)
def test_labels_keep_what_a_corpus_promises_of_its_countries(made, promises, expected):
    label(made, gid_0=[None, "CHE", *["DEU"] * 3, *["FRA"] * 7], distance_km=[None] + [0.0] * 11)
    expecting(made, **promises)
    assert failed(check_labels(made, "c")) == ([expected] if expected else [])


def test_too_few_countries_are_counted(made):
    expecting(made, min_countries=2)
    assert "| at least 2 different | gid_0 | 1 | got 1 | ✗ |" in check_labels(made, "c").markdown()


def test_a_corpus_may_promise_that_few_photos_are_refused(made):
    write(made.raw("c"), {"g9/x.jpg": b"", "g9/y.jpg": b"junk", "g9/z.jpg": b""})
    ingest(made, "c")
    expecting(made, max_refused_share=0.2)
    assert failed(check_manifest(made, "c")) == []
    expecting(made, max_refused_share=0.19)
    assert failed(check_manifest(made, "c")) == [("at most 19.0% refused", "", 3)]
    assert "20.0%: empty 2, unreadable 1" in check_manifest(made, "c").markdown()


def test_a_first_version_and_one_that_did_not_change_have_nothing_to_compare_with(made):
    for _ in range(2):
        for report in (check_manifest(made, "c"), check_labels(made, "c")):
            assert report.passed
            assert "the first version: nothing to compare with" in report.markdown()


def test_photos_in_other_countries_block_until_they_are_accepted(made, capfd):
    check(made, "c")
    label(made, gid_0=["DEU"] * 3 + ["FRA"] * 9)
    with pytest.raises(UserError, match=r"drift of countries at most 20% .*25\.0% since") as told:
        check(made, "c")
    assert "DEU 0.0% → 25.0%, FRA 100.0% → 75.0%" in str(told.value)
    assert "if this is intended, run: geoloc check c --accept" in str(told.value)
    assert not check_labels(made, "c").passed  # asking again accepts nothing
    check(made, "c", accept=True)
    assert "accepted" in capfd.readouterr().err
    again = check_labels(made, "c")
    assert again.passed
    assert "accepted 2" in again.markdown()


def test_a_version_is_held_against_the_last_one_that_was_good_though_its_files_are_gone(made):
    check(made, "c")
    for path in (made.corpus("c"), made.labels("c")):
        remove(path)
    for number in range(4):
        (made.raw("c") / f"g{number // 3}/{number:02}.jpg").unlink()
    ingest(made, "c")
    assert failed(check_manifest(made, "c")) == [("drift of photos at most 25%", "", 1)]
    assert "12 → 8 photos; 50.0% since" in check_manifest(made, "c").markdown()
    expecting(made, drift={"photos": 0.5})
    assert check_manifest(made, "c").passed


def test_labels_that_are_still_to_be_made_are_accepted_with_their_manifest_and_only_they(made):
    check(made, "c")
    for number in range(4):
        (made.raw("c") / f"g{number // 3}/{number:02}.jpg").unlink()
    ingest(made, "c")
    check(made, "c", accept=True)  # beside the labels of the version before
    assert check_manifest(made, "c").passed
    halves = ["train"] * 5 + ["validation"] * 3
    label(made, gid_0="DEU", split=halves)
    for _ in range(2):
        report = check_labels(made, "c")
        assert report.passed
        assert "DEU 0.0% → 100.0%, FRA 100.0% → 0.0%; 100.0% since" in report.markdown()
    label(made, gid_0="GBR", split=halves)
    assert failed(check_labels(made, "c")) == [("drift of countries at most 20%", "", 1)]


def test_what_is_bad_is_no_version_even_if_accepted(made):
    respell(made, latitude=95.0)
    assert not check_manifest(made, "c", accept=True).passed
    respell(made, latitude=1.0, width=480)
    assert check_manifest(made, "c").passed
    assert "the first version" in check_manifest(made, "c").markdown()


def test_a_version_that_comes_back_is_as_good_as_it_was(made):
    label(made)
    assert check_labels(made, "c").passed
    label(made, gid_0="DEU")
    assert check_labels(made, "c", accept=True).passed
    label(made)
    assert check_labels(made, "c").passed
    label(made, gid_0=["DEU"] * 2 + ["FRA"] * 10)  # near the first version, which is the last one now
    assert check_labels(made, "c").passed


@pytest.mark.parametrize(
    ("columns", "limits", "expected"),
    [
        ({"width": 49}, {}, []),
        ({"width": 96}, {}, [("drift of sizes at most 25%", "", 1)]),
        ({"width": [480] + [48] * 11}, {}, []),
        ({"width": 96}, {"sizes": 1.1}, []),
    ],
)
def test_photos_of_another_size_block(made, columns, limits, expected):
    assert check_manifest(made, "c").passed
    respell(made, **columns)
    expecting(made, drift=limits)
    assert failed(check_manifest(made, "c")) == expected


def test_more_refusals_block_and_the_reason_is_named(made):
    check(made, "c")
    write(made.raw("c"), {"g9/x.jpg": b""})
    ingest(made, "c")
    assert failed(check_manifest(made, "c")) == [("drift of refused at most 5%", "", 1)]
    assert "0.0% → 7.7% refused, empty 0.0% → 7.7%" in check_manifest(made, "c").markdown()


def test_a_damaged_history_is_named(made):
    check(made, "c")
    made.versions("labels", "c").write_text("[")
    with pytest.raises(
        UserError, match=r"labels/c\.json: not valid JSON: .*; delete it, and the next version counts as the first"
    ):
        check_labels(made, "c")


def test_a_corpus_of_another_profile_is_no_version_of_this_one(made):
    params = made.root / "params.yaml"
    params.write_text("profiles:\n  demo: &demo {seed: 1}\n  papers: &papers {seed: 2}\nrun: *demo\n")
    check(made, "c")
    respell(made, width=480)
    assert not check_manifest(made, "c").passed
    use(params, "papers")
    assert "the first version" in check_manifest(made, "c").markdown()
    use(params, "demo")
    assert not check_manifest(made, "c").passed


def test_limits_of_drift_have_a_measure_each():
    figures = {"photos": 1, "refused": {}, "pixels": [1] * (drift.STEPS + 1), "countries": {"FRA": 1}}
    assert {measure(figures, figures).what for measure in drift.MEASURES.values()} == set(Drift.model_fields)
    assert drift.MEASURES.keys() == figures.keys()


counts = st.dictionaries(st.sampled_from(["FRA", "DEU", "GBR", drift.NOWHERE]), st.integers(1, 1000), min_size=1)
versions = st.fixed_dictionaries(
    {
        "photos": st.integers(1, 10**7),
        "refused": st.dictionaries(st.sampled_from(["missing", "empty"]), st.integers(1, 10**6)),
        "pixels": st.lists(st.integers(1, 10**8), min_size=drift.STEPS + 1, max_size=drift.STEPS + 1).map(sorted),
        "countries": counts,
    }
)


@given(versions, versions)
def test_drift_is_a_distance(one, other):
    for measure in drift.MEASURES.values():
        moved = measure(one, other).moved
        assert measure(one, one).moved == 0
        assert moved == pytest.approx(measure(other, one).moved)
        assert moved >= 0
    assert drift.MEASURES["countries"](one, other).moved <= 1 + 1e-9
    assert drift.MEASURES["refused"](one, other).moved <= 1


@given(versions, st.integers(2, 9))
def test_ten_times_the_photos_in_the_same_shares_do_not_move_countries(version, times):
    more = {**version, "countries": {name: times * count for name, count in version["countries"].items()}}
    assert drift.MEASURES["countries"](version, more).moved == pytest.approx(0)
    larger = {**version, "pixels": [times * size for size in version["pixels"]]}
    assert drift.MEASURES["pixels"](version, larger).moved == pytest.approx(times - 1)
