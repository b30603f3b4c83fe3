"""Scores are figures of written answers alone: no model runs, and nothing is measured of a row that cannot be."""

import json
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from geoloc_core import parquet
from geoloc_core.contracts.metrics import lower_is_better, names, rounded
from geoloc_core.corpora import leaked
from geoloc_core.errors import UserError
from geoloc_core.evaluation import conformal
from geoloc_core.evaluation import score as stage
from geoloc_core.evaluation.score import DETAILS, score
from geoloc_core.files import CHECKSUMS, digest
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.geo.sphere import haversine_km
from geoloc_core.variants import answers
from geoloc_core.variants.answer import answer
from tests.geoloc_core.made_answers import make_project, with_joint


def scores_of(project, variant):
    return json.loads((project.scores(variant) / "scores.json").read_text())


def scored(project, variant):
    answer(project, variant)
    score(project, variant)
    return scores_of(project, variant)


def test_scores_stand_on_photos_and_their_places():
    def made(ids=("a", "b"), latitudes=(1.0, 2.0), longitudes=(3.0, 4.0)):
        found = {"image_id": ids, "true_latitude": latitudes, "true_longitude": longitudes}
        return stage._sha256(lambda name: [pa.chunked_array([pa.array(found[name])])])

    others = [made(ids=("a", "c")), made(ids=("ab", "")), made(latitudes=(1.0, 2.5)), made(longitudes=(3.0, 4.5))]
    assert made() == made()
    assert len({made(), *others}) == 5


def test_scores_agree_with_the_written_answers(project):
    report = scored(project, "by_region")
    assert list(report["benchmarks"]) == ["validation", "im2gps"]
    assert (report["family"], report["encoders"], report["labels"]) == ("classifier", ["clip"], "subdivision")
    for name, figures in report["benchmarks"].items():
        rows = pd.read_parquet(answers.path(project, "by_region", name))
        assert len(rows) == figures["n"]
        best = rows["classes"].str[0]
        placed, known = rows["true_latitude"].notna(), rows["true_class"].notna()
        right = best == rows["true_class"]
        assert figures["accuracy"] == pytest.approx(100 * np.mean(right[placed | known]))
        told = placed | rows["true_country"].notna()
        country = best.str.split(".").str[0] == rows["true_country"]
        assert figures["country_accuracy"] == pytest.approx(100 * np.mean(country[told]))
        errors = haversine_km(rows["latitude"], rows["longitude"], rows["true_latitude"], rows["true_longitude"])[
            placed
        ]
        assert figures["located"] == len(errors)
        assert figures["mean_km"] == pytest.approx(np.mean(errors))
        assert figures["median_km"] == pytest.approx(np.median(errors))
        assert figures["within_750km"] == pytest.approx(100 * np.mean(errors <= 750))
        assert figures["accuracy"] > figures["majority_accuracy"] > 0
        assert figures["top_5"] == figures["top_10"] == pytest.approx(100 * known.sum() / (placed | known).sum())
        assert set(names((1, 5, 10), (1, 25, 200, 750, 2500))) <= figures.keys()


def test_rows_of_which_nothing_is_known_are_left_out_and_those_without_a_unit_missed(project):
    figures = scored(project, "by_country")["benchmarks"]
    assert [figures["im2gps"][name] for name in ("n", "located", "published")] == [39, 38, 42]
    assert [figures["validation"][name] for name in ("n", "located", "published")] == [10, 10, 42]
    rows = pd.read_parquet(answers.path(project, "by_country", "im2gps"))
    assert rows["image_id"].tolist() == [f"im2gps-{i}" for i in range(1, 40)]
    assert rows["true_class"].isna().tolist() == [True] + [False] * 38
    assert figures["im2gps"]["top_5"] == pytest.approx(100 * 38 / 39)


def test_a_country_without_a_place_counts_where_it_can_be_told_and_in_no_distance(project):
    """Row 2 of the benchmark has a country, and neither coordinates nor a subdivision."""
    whole = scored(project, "by_region")["benchmarks"]["im2gps"]
    path = answers.path(project, "by_region", "im2gps")
    table = parquet.read(path, "", answers.ANSWERS.names)
    rest = table.filter(np.array(table["image_id"].to_pylist()) != "im2gps-2")
    assert len(rest) == len(table) - 1
    parquet.write(rest.replace_schema_metadata(answers.ANSWERS.metadata), path)
    score(project, "by_region")
    without = scores_of(project, "by_region")["benchmarks"]["im2gps"]
    changed = {name for name in whole if whole[name] != without[name]}
    countries = {"country_accuracy", "country_top_5", "country_top_10", "macro_country", "continent_accuracy"}
    blind = {f"majority_{name}" for name in countries}
    assert {"n", "country_accuracy", "majority_country_accuracy"} <= changed <= {"n"} | countries | blind


def change(project, variant, benchmark, column, values):
    """Write other values into a column of the answers."""
    path = answers.path(project, variant, benchmark)
    table = parquet.read(path, "", answers.ANSWERS.names)
    field = answers.ANSWERS.field(column)
    table = table.set_column(answers.ANSWERS.get_field_index(column), field, pa.array(values, field.type))
    parquet.write(table.replace_schema_metadata(answers.ANSWERS.metadata), path)


def test_rows_that_belong_together_make_the_intervals_wider(project):
    apart = scored(project, "by_region")
    right = np.array(pq.read_table(answers.path(project, "by_region", "im2gps"))["true_rank"].to_pylist()) == 0
    names = [f"right {i % 2}" if hit else "wrong" for i, hit in enumerate(right)]
    change(project, "by_region", "im2gps", "group_id", names)
    score(project, "by_region")
    together = scores_of(project, "by_region")
    assert apart["groups"]["im2gps"] == {"count": 39, "largest": 1}
    assert together["groups"]["im2gps"]["count"] == 3
    one, other = (report["intervals"]["im2gps"]["accuracy"] for report in (apart, together))
    assert one["widening"] == pytest.approx(1)
    assert other["widening"] > 1.5
    assert other["high"] - other["low"] > one["high"] - one["low"]
    assert apart["benchmarks"]["im2gps"] == together["benchmarks"]["im2gps"]


def test_every_figure_has_an_interval_around_it_and_is_compared_with_the_baseline(project):
    report = scored(project, "by_region")
    figures, intervals, gains = (report[part]["im2gps"] for part in ("benchmarks", "intervals", "over_majority"))
    for name in names((1, 5, 10), (1, 25, 200, 750, 2500)):
        assert intervals[name]["low"] <= figures[name] <= intervals[name]["high"], name
        sign = -1 if lower_is_better(name) else 1
        assert gains[name]["value"] == pytest.approx(sign * (figures[name] - figures[f"majority_{name}"])), name
    assert gains["accuracy"]["low"] > 0, "it does know something"
    draws = stage.read_draws(project, "by_region", "im2gps", "accuracy")
    assert np.mean(draws) == pytest.approx(figures["accuracy"], abs=1)


def test_the_picture_has_a_curve_of_each_benchmark_that_has_places(project):
    def colours():
        with Image.open(project.plot("score", "by_region")) as picture:
            return sum(max(rgb) - min(rgb) > 100 for _, rgb in picture.convert("RGB").getcolors(2**20))

    scored(project, "by_region")
    assert colours()
    for name in ("validation", "im2gps"):
        n = len(pq.read_table(answers.path(project, "by_region", name)))
        for axis in ("true_latitude", "true_longitude"):
            change(project, "by_region", name, axis, [None] * n)
    score(project, "by_region")
    assert not colours(), "axes alone"


def test_the_curve_ends_at_the_largest_error_and_begins_at_a_tenth_of_a_kilometre():
    km, percent = stage._curve(np.array([5.0, 0.0, 3000.0, 20.0]))
    assert (km.tolist(), percent.tolist()) == ([0.1, 5, 20, 3000], [25, 50, 75, 100])
    km, percent = stage._curve(np.arange(5001.0)[::-1])
    assert len(km) == 1000
    assert (km[-1], percent[-1]) == (5000, 100)
    np.testing.assert_allclose(percent, 100 * (np.rint(np.where(km > 0.1, km, 0)) + 1) / 5001)


def leak(project, rows):
    project.leaks.mkdir(parents=True)
    parquet.write(pa.Table.from_pylist(rows, schema=leaked.ROWS), project.leaks / leaked.NAME)


@pytest.mark.parametrize(("least", "kinds"), [(10, set()), (1, {"classes", "caps"})])
def test_what_lies_beside_the_figures_names_the_coverage_that_is_promised(project, monkeypatch, least, kinds):
    """Of few groups nothing is."""
    monkeypatch.setattr(conformal, "LEAST_GROUPS", least)
    scored(project, "by_region")
    beside = json.loads((project.scores("by_region") / DETAILS).read_text())
    assert {name: part["promised"] for name, part in beside.items()} == {"validation": 90, "im2gps": 90}
    assert [set(part["sets"]) for part in beside.values()] == [kinds] * 2


def test_figures_without_rows_that_leak_stand_beside_those_of_all(project):
    assert scored(project, "by_region")["clean"] == {"validation": None, "im2gps": None}, "nobody has looked"
    right = np.array(pq.read_table(answers.path(project, "by_region", "im2gps"))["true_rank"].to_pylist()) == 0
    ids = pq.read_table(answers.path(project, "by_region", "im2gps"))["image_id"].to_pylist()
    known = [name for name, hit in zip(ids, right, strict=True) if hit]
    other = {"image_id": ids[0], "scored": "im2gps", "learned": "osv5m/train"}
    leak(project, [{"image_id": name, "scored": "im2gps", "learned": "mp16/train"} for name in known] + [other])
    score(project, "by_region")
    report = scores_of(project, "by_region")
    assert report["clean"]["validation"] == {"n": 10, "leaked": 0, "figures": {}, "intervals": {}}
    clean = report["clean"]["im2gps"]
    assert (clean["n"], clean["leaked"]) == (39 - len(known), len(known)), "it has not learned from osv5m"
    assert clean["figures"]["accuracy"] == 0 < report["benchmarks"]["im2gps"]["accuracy"]
    assert clean["intervals"]["accuracy"][1] > 0


def test_what_it_learned_from_is_that_of_its_members_too(tmp_path):
    made_project = make_project(tmp_path)
    made = with_joint(made_project.root)
    for variant in ("by_country", "narrow", "joint"):
        answer(made, variant)
        assert answers.note(made, variant).trained_on == ["mp16"]
    assert answers.note(made, "by_country").parameters == 7, "as its card says"


def test_the_summary_is_rounded(project):
    figures = scored(project, "by_country")["benchmarks"]
    summary = json.loads(project.summary("score", "by_country").read_text())
    assert summary["im2gps"] == {
        name: rounded(name, value) for name, value in figures["im2gps"].items() if value is not None
    }
    assert summary["im2gps"]["n"] == 39
    for name, value in summary["im2gps"].items():
        assert value == pytest.approx(figures["im2gps"][name], abs=0.051)
        assert value == round(value, 2)
    assert project.plot("score", "by_country").read_bytes().startswith(b"\x89PNG")


def test_scoring_again_without_any_model_gives_the_same_bytes(project):
    scored(project, "by_region")
    first = digest(project.scores("by_region"), project.plot("score", "by_region"))
    for folder in ("models", "features", "truth"):
        shutil.rmtree(project.data / folder)
    score(project, "by_region")
    assert digest(project.scores("by_region"), project.plot("score", "by_region")) == first


def test_what_was_not_answered_is_named_with_its_remedy(project):
    with pytest.raises(UserError, match=r"answers\.json: no such file; run `geoloc answer by_region`"):
        score(project, "by_region")
    scored(project, "by_region")
    before = digest(project.scores("by_region"))
    answers.path(project, "by_region", "im2gps").unlink()
    with pytest.raises(UserError, match=r"im2gps\.parquet: no answers; run `geoloc answer by_region` first"):
        score(project, "by_region")
    assert digest(project.scores("by_region")) == before


def test_answers_of_other_classes_are_refused(project):
    answer(project, "by_region")
    space = answers.space(project, "by_region")
    path = project.answers("by_region") / "labels.json"
    (project.answers("by_region") / CHECKSUMS).unlink()  # which tells what was changed from what belongs together
    ids = ["XXX.1", *space.ids[1:]]
    other = LabelSpace(space.kind, ids, space.names, space.parents, space.latitudes, space.longitudes)
    other.save(path)
    with pytest.raises(UserError, match=r"parquet: not of the classes beside it; run `geoloc answer by_region`"):
        score(project, "by_region")
    space.take(np.arange(3)).save(path)
    with pytest.raises(UserError, match=r"4 frequencies for 3 classes; run `geoloc answer by_region`"):
        score(project, "by_region")


def test_a_benchmark_of_countries_alone_has_no_distances(project):
    answer(project, "by_country")
    path = answers.path(project, "by_country", "im2gps")
    table = parquet.read(path, "", answers.ANSWERS.names)
    for axis in ("true_latitude", "true_longitude"):
        at = table.schema.get_field_index(axis)
        table = table.set_column(at, answers.ANSWERS.field(axis), pa.nulls(len(table), pa.float64()))
    parquet.write(table.replace_schema_metadata(answers.ANSWERS.metadata), path)
    score(project, "by_country")
    figures = scores_of(project, "by_country")["benchmarks"]["im2gps"]
    assert (figures["n"], figures["located"]) == (39, 0)
    assert figures["mean_km"] is figures["median_km"] is figures["within_750km"] is figures["geoguessr"] is None
    assert figures["accuracy"] == figures["country_accuracy"] > 80
    assert "mean_km" not in json.loads(project.summary("score", "by_country").read_text())["im2gps"]


@pytest.mark.parametrize("n", [1, 7, 5000])
def test_the_curve_tells_the_share_within_each_error(n):
    errors = np.random.default_rng(n).exponential(1000, n) + 1
    at, shares = stage._curve(errors)
    assert len(at) == min(n, 1000)
    np.testing.assert_allclose(shares, [100 * np.mean(errors <= km) for km in at])
    assert (at[-1], shares[-1]) == (errors.max(), 100)
