"""Every metric that is computed has a column, a rounding and a way that it goes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoloc_core.contracts.metrics import COUNTS, column, lower_is_better, names, rounded, top_name, within_name
from geoloc_core.evaluation import bootstrap

KM = st.floats(1e-6, 1e7).map(lambda km: float(f"{km:g}"))


@given(st.lists(st.integers(1, 100), max_size=4), st.lists(KM, max_size=5))
def test_every_metric_has_a_column(top_k, thresholds):
    found = names(top_k, thresholds)
    assert set(found) >= {"accuracy", "median_km", *map(top_name, top_k), *map(within_name, thresholds)}
    columns = [column(name) for name in found]
    assert [part.name for part in columns] == found
    assert columns == sorted(columns, key=lambda part: part.order)
    for part in columns:
        assert part.show(None) == "–"
        assert part.show(12.34) in part.phrase(12.34)
        assert part.label


def test_the_order_is_that_of_the_tables():
    assert names((10, 1, 5), (750, 1, 25)) == [
        "accuracy", "top_5", "top_10",
        "country_accuracy", "country_top_5", "country_top_10", "macro_country",
        "subdivision_accuracy", "subdivision_top_5", "subdivision_top_10", "continent_accuracy",
        "within_1km", "within_25km", "within_750km", "mean_km", "median_km", "geoguessr", "nll", "ece",
    ]  # fmt: skip


def test_what_counts_classes_of_the_own_label_space_is_not_compared_across_label_spaces():
    own = [name for name in names((1, 5), (25,)) if not column(name).shared]
    assert own == ["accuracy", "top_5", "nll", "ece"]


def test_errors_fall_and_all_else_rises():
    falling = [name for name in names((1, 5), (25,)) if lower_is_better(name)]
    assert falling == ["mean_km", "median_km", "nll", "ece"]
    assert column("mean_km").improvement(-3.0) == column("accuracy").improvement(3.0) == 3


@pytest.mark.parametrize(
    "name",
    [
        "",
        "luck",
        "top_",
        "top_x",
        "within_km",
        "within_1.2.3km",
        "within_ekm",
        "n",
        "Top_5",
        "country_top_",
        "city_top_5",
    ],
)
def test_what_is_no_metric_has_no_column(name):
    assert column(name) is None
    assert not lower_is_better(name)


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [("n", 39.0, 39), ("located", 38, 38), ("accuracy", 12.3456, 12.35), ("within_25km", 1 / 3, 0.33),
     ("median_km", 123.456, 123.5), ("geoguessr", 4321.09, 4321.1), ("majority_mean_km", 9.87, 9.9)],
)  # fmt: skip
def test_figures_are_rounded_as_people_read_them(name, value, shown):
    assert rounded(name, value) == shown
    assert isinstance(rounded(name, value), int) == (name in COUNTS)


class Met:
    """Three of four classes known, one right and one second; two of three countries right; errors of 1, 3 and 11 km."""

    ranks, country_ranks, errors_km = np.array([0.0, 1, 7, -1]), np.array([0.0, 0, 1]), np.array([1.0, 3.0, 11.0])

    def within(self, km):
        return 1.0 * (self.errors_km <= km)

    def points(self):
        return np.array([10.0, 20.0, 60.0])


class Nothing(Met):
    ranks = country_ranks = errors_km = np.array([])

    def points(self):
        return np.array([])


VALUES = {
    "accuracy": 25, "top_2": 50, "top_7": 50, "top_8": 75, "country_accuracy": 200 / 3, "mean_km": 5, "median_km": 3,
    "within_3km": 200 / 3, "within_2.5km": 100 / 3, "geoguessr": 30,
}  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
def test_every_metric_by_hand(name):
    assert bootstrap.sample(column(name), Met()).figure == pytest.approx(VALUES[name])
    assert math.isnan(bootstrap.sample(column(name), Nothing()).figure)


@pytest.mark.parametrize(
    ("name", "label", "phrase"),
    [
        ("accuracy", "top-1", "1234.6 % with the right class (top-1)"),
        ("top_5", "top-5", "1234.6 % with the right class (top-5)"),
        ("within_2500km", "≤2,500 km", "1234.6 % of photos within 2,500 km"),
        ("median_km", "median km", "median error 1,235 km"),
        ("geoguessr", "GeoGuessr", "1,235 GeoGuessr points"),
    ],
)
def test_every_metric_in_words(name, label, phrase):
    assert (column(name).label, column(name).phrase(1234.56)) == (label, phrase)
