"""The leaderboard's figures, by hand: who is first, who is best, what stands beside what."""

import numpy as np
import pytest
from pydantic import ValidationError

from geoloc_core.contracts.metrics import column
from geoloc_core.errors import UserError
from geoloc_core.evaluation import board, leaderboard, tables
from geoloc_core.evaluation import score as stage
from geoloc_core.evaluation.board import Interval, Report, Row, Section
from geoloc_core.families.classifier import Options
from tests.geoloc_core.made_answers import PAPERS, profile

FIGURES = {"n": 9, "located": 8, "published": 12}
BLOCK = Options(kind="classifier", corpus="mp16", encoders=("clip",), labels="country")
GROUPS = {"count": 9, "largest": 1}


def report(variant="one", country="Peru", labels="country", corpus="mp16", photos="a", **benchmarks):
    """Scores as the stage writes them, of the metrics given for each benchmark; nobody can tell how sure they are."""
    nothing = {name: dict.fromkeys(values) for name, values in benchmarks.items()}
    return {
        "parameters": None,
        "groups": dict.fromkeys(benchmarks, GROUPS),
        "intervals": nothing,
        "over_majority": nothing,
        "clean": dict.fromkeys(benchmarks),
        "variant": variant,
        "family": "classifier",
        "encoders": ("clip",),
        "corpus": corpus,
        "labels": labels,
        "classes": 3,
        "majority": {"id": country[:3].upper(), "name": country},
        "convention": "as the crow flies",
        "demo": False,
        "sha256": dict.fromkeys(benchmarks, photos),
        "benchmarks": {name: FIGURES | values for name, values in benchmarks.items()},
    }


def build(metric="within_750km", **reports):
    variants = dict.fromkeys(reports, BLOCK)
    named = {name: found | {"variant": name} for name, found in reports.items()}
    return board.build(profile(metric=metric, demo=False, variants=variants), named)


def of(value, **more):
    """A benchmark's figures."""
    return {"within_750km": value, "median_km": None if value is None else 1000 - value, **more}


def test_variants_stand_from_the_best_to_those_that_could_not_be_measured():
    reports = {
        name: report(im2gps=of(50.0), validation=of(value)) for name, value in zip("abcd", (5, None, 7, 6), strict=True)
    }
    for metric in ("within_750km", "median_km"):
        made = build(metric, **reports)
        rows = [[row.name for row in section.rows if not row.baseline] for section in made.sections]
        assert rows == [["a", "b", "c", "d"], ["c", "d", "a", "b"]], "of equal ones the first in the parameters"
        assert (made.best.variant, made.best.value) == ("a", 50 if metric == "within_750km" else 950)
        assert made.best.higher_is_better == (metric == "within_750km")


def test_the_deciding_benchmark_stands_first_and_what_is_held_out_of_a_corpus_last():
    one = report(validation=of(1), test=of(2), im2gps=of(3))
    other = report(corpus="osv", validation=of(4), im2gps=of(5))
    made = build(one=one, other=other)
    assert [(section.name, section.corpus) for section in made.sections] == [
        ("im2gps", "im2gps"), ("validation", "mp16"), ("test", "mp16"), ("validation", "osv"),
    ]  # fmt: skip
    assert [section.title for section in made.sections][:2] == ["im2gps", "validation split of mp16"]
    assert made.sections[0].count == "9 of 12 published rows; variants were selected on these"
    assert (made.best.benchmark_sha256, made.convention, made.banner) == ("a", "as the crow flies", "")


def test_what_cannot_be_compared_is_said():
    with pytest.raises(UserError, match="variants: none"):
        board.build(profile(), {})
    with pytest.raises(UserError, match=r"registry\.benchmark: no variant is scored on im2gps"):
        build(one=report(validation=of(1)))
    with pytest.raises(
        UserError, match=r"one has no 'within_750km' on im2gps; expected one of: n, located, published$"
    ):
        build(one=report(im2gps=of(None)))
    with pytest.raises(UserError, match="validation: one, other were scored on different photos"):
        build(
            one=report(im2gps=of(1), validation=of(1)),
            other=report(im2gps=of(1), validation=of(1)) | {"sha256": {"im2gps": "a", "validation": "b"}},
        )


def test_a_baseline_stands_once_for_each_most_frequent_class_and_label_space():
    reports = {
        "a": report(country="Peru", im2gps=of(1, majority_within_750km=3.14159, majority_located=8)),
        "b": report(country="Peru", im2gps=of(2, majority_within_750km=3.14159)),
        "c": report(country="Peru", labels="subdivision", im2gps=of(3, majority_within_750km=4.0)),
        "d": report(country="Kenya", im2gps=of(4, majority_within_750km=None)),
    }
    rows = [row for row in build(**reports).sections[0].rows if row.baseline]
    found = {(row.name, row.labels): row.values for row in rows}
    assert found == {
        ("always Peru", "country"): {"within_750km": 3.14},
        ("always Peru", "subdivision"): {"within_750km": 4.0},
        ("always Kenya", "country"): {},
    }


def test_a_row_has_its_own_figures_and_those_of_its_paper():
    made = board.build(
        profile(demo=True, variants={"by_country": BLOCK}),
        {"by_country": report(im2gps=of(12.3456, majority_accuracy=1.0), im2gps3k=of(1.0), validation=of(2.0))},
        papers=PAPERS,
    )
    [im2gps, validation] = (section.rows[0] for section in made.sections)
    assert im2gps.values == {"within_750km": 12.35, "median_km": 987.7}
    assert (im2gps.name, im2gps.family, im2gps.encoders, im2gps.labels) == (
        "by_country", "classifier", ("clip",), "country",
    )  # fmt: skip
    assert (im2gps.paper, validation.paper) == ({"within_200km": 4.4}, {"accuracy": 8.2, "mean_km": 5107})
    assert im2gps.source == validation.source == "Someone 2024, Table 2"
    assert made.banner == board.BANNER
    assert made.sources == {"Someone 2024, Table 2": ["by_country"]}


@pytest.mark.parametrize(
    ("low", "beats"), [(0.5, True), (0.0, False), (-0.5, False), (None, None)], ids=["surely", "just", "not", "unknown"]
)
def test_a_row_says_whether_it_beats_the_majority_by_more_than_its_interval(low, beats):
    gain = {"value": 2.0, "low": low, "high": 3.5, "p": 0.01}
    clean = {"n": 7, "leaked": 2, "figures": {"within_750km": 45.0}, "intervals": {"within_750km": [40.0, 50.0]}}
    interval = {"low": 44.0, "high": 56.0, "widening": 1.1}
    made = report(im2gps=of(50.0)) | {
        "parameters": 1234,
        "over_majority": {"im2gps": {board.OVER_MAJORITY: gain}},
        "intervals": {"im2gps": {"within_750km": interval, "median_km": None}},
        "clean": {"im2gps": clean},
    }
    row = build(one=made).sections[0].rows[0]
    assert (row.over_majority.model_dump(), row.beats_majority, row.parameters) == (gain, beats, 1234)
    assert row.clean.model_dump(mode="json") == clean
    assert {name: found.model_dump() for name, found in row.intervals.items()} == {"within_750km": interval}
    assert (row.spreads, row.paper, row.source) == ({}, {}, "")


def test_a_section_says_how_much_wider_its_intervals_are_than_of_independent_rows():
    def made(*widenings):
        wide = [{board.OVER_MAJORITY: Interval(low=1, high=2, widening=one)} for one in widenings]
        rows = [Row(name=str(n), labels="country", values={}, intervals=found) for n, found in enumerate(wide)]
        groups = GROUPS | {"count": 1}
        return Section(name="b", corpus="b", n=9, published=9, groups=groups, selected=False, rows=rows)

    assert (made().widening(), made(None).widening(), made(None, 1.26, 3.0).widening()) == (None, None, 1.26)
    assert made(1.26).count.endswith("intervals 1.3 times as wide as of independent rows")
    assert "intervals" not in made(None).count


def section(*values, metric="accuracy", labels=None, baseline=()):
    rows = [
        Row(name=str(i), labels=(labels or ["country"] * 9)[i], values={metric: v}, baseline=i in baseline)
        for i, v in enumerate(values)
    ]
    return Section(name="b", corpus="b", n=1, published=2, groups=GROUPS, selected=False, rows=rows)


def test_the_best_figures_are_those_that_no_peer_betters():
    def best(made, metric):
        return [made.is_best(column(metric), row) for row in made.rows]

    assert best(section(5, 7, 7, 6), "accuracy") == [False, True, True, False]
    assert best(section(5, 7, 5, 6, metric="mean_km"), "mean_km") == [True, False, True, False]
    assert best(section(5, 7, 6, baseline=(1,)), "accuracy") == [False, False, False], "the baseline is a peer"
    mixed = {"labels": ["country", "cells", "cells"]}
    assert best(section(5, 7, 6, **mixed), "accuracy") == [True, True, False]
    for shared in ("country_accuracy", "within_25km"):
        assert best(section(5, 7, 6, metric=shared, **mixed), shared) == [False, True, False]
    assert best(section(5, 7), "mean_km") == [False, False]


def test_columns_are_those_of_any_row_in_the_order_of_tables():
    rows = [
        Row(name="a", labels="country", values={"mean_km": 1, "accuracy": 2, "country_accuracy": 2, "luck": 3}),
        Row(name="b", labels="country", values={}, paper={"top_5": 1}),
    ]
    made = Section(name="b", corpus="b", n=1, published=2, groups=GROUPS, selected=False, rows=rows)
    assert [found.name for found in made.columns()] == ["accuracy", "top_5", "mean_km"]
    mixed = made.model_copy(update={"rows": [*rows, Row(name="c", labels="cells", values={})]})
    assert [found.name for found in mixed.columns()] == ["accuracy", "top_5", "country_accuracy", "mean_km"]


def test_a_shade_is_how_far_a_figure_lies_from_the_worst():
    peers = [10.0, 20.0, 14.0]
    assert [tables._goodness(column("accuracy"), value, peers) for value in peers] == pytest.approx([0, 1, 0.4])
    assert [tables._goodness(column("mean_km"), value, peers) for value in peers] == pytest.approx([1, 0, 0.6])
    assert tables._goodness(column("accuracy"), 3.0, [3.0, 3.0]) == 0


def test_what_a_narrow_terminal_gives_up_first():
    made = build(a=report(im2gps=of(9.0, accuracy=1.0, mean_km=7.0, within_25km=2.0)))
    drawn = tables.table(made, made.sections[0])
    ranks = {found.heading: found.rank for found in drawn.columns if found.rank}
    assert ranks == {
        "750 km": 1, "top-1": 2, "median": 3, "over majority": 4, "mean": 5, "labels": 6, "25 km": 8,
        "behind the best": 98, "family": 99, "encoders": 99, "parameters": 99,
    }  # fmt: skip
    firsts = {found.heading: found.first for found in drawn.columns if found.group}
    assert (firsts["750 km"], firsts["median"]) == ("descending", "ascending")
    assert [row.tone for row in drawn.rows] == ["best", "quiet"]
    assert drawn.ordered_by is drawn.columns[3]


@pytest.mark.parametrize(
    "change",
    [
        {"sha256": {}},
        {"benchmarks": {"im2gps": {"n": 1}}},
        {"benchmarks": {"im2gps": {"published": 1}}},
        {
            "benchmarks": {"im2gps": FIGURES, "test": FIGURES | {"accuracy": 1.0}},
            "sha256": {"im2gps": "a", "test": "a"},
        },
    ],
)
def test_scores_that_are_not_whole_are_refused(change):
    whole = report(im2gps=of(1.0))
    Report.model_validate(whole)
    with pytest.raises(ValidationError):
        Report.model_validate(whole | change)


def test_the_summary_is_that_of_the_deciding_benchmark():
    reports = {
        "a": report(im2gps=of(1.0, majority_within_750km=0.5), validation=of(3.0)),
        "b": report(validation=of(9.0)),
    }
    found = leaderboard._summary(build(**reports))
    assert found["values"] == {"a": 1.0, "always Peru": 0.5}
    assert (found["variant"], found["n"], found["published"]) == ("a", 9, 12)


def test_the_curve_is_the_cumulative_distribution():
    km, percent = stage._curve(np.array([30.0, 0.0, 10.0, 20.0]))
    assert km.tolist() == [0.1, 10, 20, 30], "a logarithm has no zero"
    assert percent.tolist() == [25, 50, 75, 100]
    km, percent = stage._curve(np.arange(5000.0)[::-1])
    assert (len(km), km[-1], percent[-1]) == (1000, 4999, 100)
    np.testing.assert_allclose(percent, 100 * (np.floor(km) + 1) / 5000)
