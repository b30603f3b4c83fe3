"""Scores are figures of written answers alone: no model runs, and nothing is measured of a row that cannot be."""

import json
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from geoloc_core import parquet
from geoloc_core.contracts.metrics import names, rounded
from geoloc_core.errors import UserError
from geoloc_core.evaluation import score as stage
from geoloc_core.evaluation.score import score
from geoloc_core.files import CHECKSUMS, digest
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.geo.sphere import haversine_km
from geoloc_core.variants import answers
from geoloc_core.variants.answer import answer


def scores_of(project, variant):
    return json.loads((project.scores(variant) / "scores.json").read_text())


def scored(project, variant):
    answer(project, variant)
    score(project, variant)
    return scores_of(project, variant)


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
    assert changed == {"n", "country_accuracy", "majority_country_accuracy"}


def test_the_summary_is_rounded(project):
    figures = scored(project, "by_country")["benchmarks"]
    summary = json.loads(project.summary("score", "by_country").read_text())
    assert summary["im2gps"] == {name: rounded(name, value) for name, value in figures["im2gps"].items()}
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
