"""Hand-made tables: continents, countries, confusions, calibration, selective prediction, areas and sets."""

from dataclasses import replace

import numpy as np
import pytest

from geoloc_core.contracts.prediction import Prediction
from geoloc_core.evaluation import conformal, details, scoring
from geoloc_core.evaluation.bootstrap import Groups
from geoloc_core.evaluation.scoring import Places, Told, Truth
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.geo.sphere import EARTH_KM

SPACE = LabelSpace(
    "country", ["BRA", "FRA", "KEN", "USA"], ["Brazil", "France", "Kenya", "United States"], [""] * 4,
    np.array([-10.0, 46.0, 0.5, 38.0]), np.array([-55.0, 2.0, 38.0, -97.0]),
)  # fmt: skip
KM = (25, 2500)


def told(answers, true, confidence=None, at=None):
    """Rows of true countries, answered with one and after it the others; at the centres of the true ones."""
    n = len(true)
    first = np.array([SPACE.ids.index(name) for name in answers])
    shares = np.full((n, 4), 0.0)
    sure = np.full(n, 0.7) if confidence is None else np.asarray(confidence)
    shares[:] = ((1 - sure) / 3)[:, None]
    shares[np.arange(n), first] = sure
    truth = np.array([SPACE.ids.index(name) if name in SPACE.ids else -1 for name in true])
    found = Prediction.of_probabilities(shares, SPACE, 4, truth)
    known = truth >= 0
    latitudes, longitudes = (
        np.where(known, axis[truth], np.nan) if at is None else np.full(n, at)
        for axis in (SPACE.latitudes, SPACE.longitudes)
    )
    countries = np.array(true, object)
    places = Places.of(SPACE, sorted({name for name in true if name}))
    nothing = np.full(n, None, object)
    return Told(
        scoring.outcomes(found, places, Truth(latitudes, longitudes, countries, countries, nothing), KM), places
    )


def alone(n):
    return Groups(np.arange(n))


def test_continents_by_hand_and_the_americas_as_one():
    met = told(["FRA", "FRA", "KEN", "FRA", "USA", "BRA"], ["FRA", "FRA", "FRA", "KEN", "BRA", "USA"])
    found = details.details(met, alone(6), (1, 2), KM)
    tops = {region.name: (region.top[1].n, region.top[1].value) for region in found.continents}
    assert tops == {
        "Africa": (1, 0), "Europe": (3, pytest.approx(200 / 3)), "North America": (1, 0), "South America": (1, 0),
    }  # fmt: skip
    four = {region.name: region.top[1].n for region in found.four_groups}
    assert four == {"Africa": 1, "Europe": 3, "South & North America": 2}
    assert 100 * np.nanmean(met.continents) == pytest.approx(100 * 2 / 6), "Brazil is not in North America"


def test_macro_is_the_mean_of_countries_and_not_of_rows():
    met = told(["FRA"] * 4 + ["KEN", "FRA"], ["FRA"] * 4 + ["KEN", "KEN"])
    figures = scoring.figures(scoring.samples(met, (1, 5), KM))
    assert figures["country_accuracy"] == pytest.approx(500 / 6)
    assert figures["macro_country"] == pytest.approx((100 + 50) / 2)
    assert figures["continent_accuracy"] == figures["country_accuracy"]
    assert figures["subdivision_accuracy"] is None


def test_confusions_count_each_way_apart_the_most_frequent_first():
    met = told(["KEN", "KEN", "FRA", "FRA", "BRA", "KEN"], ["FRA", "FRA", "KEN", "FRA", None, "BRA"])
    found = [(pair.true, pair.answered, pair.n) for pair in details.confusions(met)]
    assert found == [("FRA", "KEN", 2), ("BRA", "KEN", 1), ("KEN", "FRA", 1)]


def test_recall_of_countries_the_highest_first():
    met = told(["FRA", "FRA", "KEN", "USA"], ["FRA", "KEN", "KEN", "BRA"])
    found = details.details(met, alone(4), (1, 2), KM).countries
    assert [(region.name, region.top[1].value, region.top[1].n) for region in found] == [
        ("FRA", 100, 1), ("KEN", 50, 2), ("BRA", 0, 1),
    ]  # fmt: skip
    assert found[0].median_km.value == 0


def test_calibration_by_hand():
    met = told(["FRA"] * 10, ["FRA"] * 6 + ["KEN"] * 4, confidence=[0.9] * 5 + [0.4] * 5)
    figures = scoring.figures(scoring.samples(met, (1,), KM))
    assert figures["ece"] == pytest.approx(100 * (0.5 * abs(0.9 - 1.0) + 0.5 * abs(0.4 - 0.2)), rel=1e-5)
    expected = -(5 * np.log(0.9) + np.log(0.4) + 4 * np.log(0.2)) / 10
    assert figures["nll"] == pytest.approx(expected, rel=1e-5)
    found = details.reliability(met, alone(10))
    assert [(part.confidence, part.accuracy.value, part.accuracy.n) for part in found] == [
        (pytest.approx(40), 20, 5), (pytest.approx(90), 100, 5),
    ]  # fmt: skip


def test_equal_confidences_share_a_bin_and_are_answered_together():
    met = told(["FRA"] * 8, ["FRA"] * 4 + ["KEN"] * 4)
    assert len(details.reliability(met, alone(8))) == 1
    curve, area = details.selective(met)
    assert {point.coverage for point in curve} == {100}
    assert area == pytest.approx(50)


def test_leaving_out_the_least_sure_rows():
    met = told(["FRA"] * 4, ["FRA", "FRA", "FRA", "KEN"], confidence=[0.9, 0.8, 0.7, 0.6])
    curve, area = details.selective(met)
    assert {point.coverage: point.accuracy for point in curve} == {25: 100, 50: 100, 75: 100, 100: 75}
    assert area == pytest.approx(100 * (0 + 0 + 0 + 1 / 4) / 4)


def test_recall_rises_with_the_area_searched():
    met = told(["FRA", "KEN"], ["FRA", "FRA"])
    found = {(reach.radius_km, reach.candidates): reach for reach in details.recall_area(met, KM)}
    assert found[25, 1].recall == 50
    assert found[25, 4].recall == 100, "the second answer names France among the others"
    assert found[25, 1].area_km2 == pytest.approx(np.pi * 25**2, rel=1e-4)
    assert found[2500, 2].area_km2 == pytest.approx(4 * np.pi * EARTH_KM**2 * (1 - np.cos(2500 / EARTH_KM)))


@pytest.mark.parametrize(("most", "listed"), [(1, [1]), (4, [1, 2, 3, 4]), (10, [1, 2, 3, 5, 10])])
def test_recall_is_listed_for_the_first_few_and_for_all_candidates(most, listed):
    met = told(["FRA", "KEN"], ["FRA", "FRA"])
    met = replace(met, outcomes=replace(met.outcomes, candidates=most))
    found = details.recall_area(met, KM)
    assert [(reach.radius_km, reach.candidates) for reach in found] == [(km, k) for km in KM for k in listed]


def test_of_rows_without_anything_known_there_is_nothing_to_tell():
    met = told(["FRA", "KEN"], [None, None])
    found = details.details(met, alone(2), (1,), KM)
    assert found.continents == found.countries == found.confusions == found.reliability == found.selective == []
    assert found.recall_area == []
    assert found.risk_coverage_area is None
    assert set(scoring.figures(scoring.samples(met, (1, 5), KM)).values()) == {None}


def test_distances_are_restated_in_every_convention():
    met = told(["FRA", "KEN"], ["FRA", "FRA"])
    found = details.conventions(met, alone(2), KM)
    sphere = found["geoloc"]["mean_km"].value
    assert found["pigeon"]["mean_km"].value == pytest.approx(sphere * 6378.137 / 6371)
    assert found["g3"]["mean_km"].value == found["geoclip"]["mean_km"].value != sphere
    assert {table["within_25km"].value for table in found.values()} == {50}
    assert found["geoloc"].keys() == {"within_25km", "within_2500km", "mean_km", "median_km", "geoguessr"}


def many(rng, groups):
    """Rows of a model that is as sure as it is right, in groups that differ."""
    codes = np.repeat(np.arange(groups), rng.integers(1, 6, groups))
    sure = np.clip(rng.beta(4, 3, groups)[codes] + rng.normal(0, 0.1, len(codes)), 0.3, 0.97)
    true = rng.integers(0, 4, len(codes))
    right = rng.random(len(codes)) < sure
    answer = np.where(right, true, (true + rng.integers(1, 4, len(codes))) % 4)
    names = np.array(SPACE.ids)
    return told(names[answer].tolist(), names[true].tolist(), sure), Groups(codes)


def test_sets_hold_the_truth_as_often_as_promised():
    rng = np.random.default_rng(0)
    held = {"classes": [], "caps": []}
    for _ in range(12):
        (calibration, of), (fresh, others) = many(rng, 60), many(rng, 120)
        promise = conformal.learn(calibration, of)
        for kind, found in conformal.covered(promise, fresh, others, np.ones(len(fresh.outcomes))).items():
            held[kind].append(found.coverage.value)
            assert found.coverage.low < found.coverage.value < found.coverage.high
            assert sum(part.n for part in found.continents.values()) == found.coverage.n
    for values in held.values():
        assert 88 <= np.mean(values) <= 97, "90 are promised, and whole classes or answers make it more"


def test_a_set_has_the_classes_before_which_little_enough_ranks():
    met = told(["FRA", "FRA"], ["FRA", "KEN"], confidence=[0.7, 0.4])
    promise = conformal.Promise(classes=0.5, caps=1.0, easiest_km=1.0)
    sizes = conformal.sizes(promise, np.array([[0.7, 0.1, 0.1, 0.1], [0.4, 0.2, 0.2, 0.2]], np.float32))
    found = conformal.covered(promise, met, alone(2), sizes)["classes"]
    assert found.coverage.value == pytest.approx(100 * np.mean(met.outcomes.before <= 0.5))
    assert found.size == pytest.approx(np.median([1, 2])), (
        "0.7 ranks before a second class; 0.4 does, and 0.6 before a third"
    )


def test_a_class_before_which_as_much_ranks_as_was_promised_is_in_the_set():
    shares = np.array([[0.5, 0.25, 0.125, 0.125], [0.5, 0.5, 0, 0]], np.float32)
    for promised, expected in ((0.5, [2, 2]), (0.75, [3, 2]), (0.49, [1, 1]), (1.0, [0, 0])):
        sizes = conformal.sizes(conformal.Promise(classes=promised, caps=1.0, easiest_km=1.0), shares)
        assert sizes.tolist() == expected


def test_rows_without_a_truth_are_not_counted():
    met = told(["FRA", "FRA", "KEN"], ["FRA", None, "KEN"])
    promise = conformal.Promise(classes=0.5, caps=1.0, easiest_km=1.0)
    found = conformal.covered(promise, met, alone(3), np.ones(3))
    assert {kind: part.coverage.n for kind, part in found.items()} == {"classes": 2, "caps": 2}


def test_of_few_groups_nothing_is_promised_and_of_hard_rows_everything():
    rng = np.random.default_rng(1)
    met, groups = many(rng, 8)
    assert conformal.learn(met, groups).classes is None
    met = told(["FRA"] * 20, ["FRA"] * 10 + ["NZL"] * 10)
    promise = conformal.learn(met, alone(20))
    assert promise.classes == np.inf, "half of the classes are none of the model's"
    sizes = conformal.sizes(promise, np.full((20, 4), 0.25))
    found = conformal.covered(promise, met, alone(20), sizes)["classes"]
    assert found.coverage.value == 100
    assert found.size is None


@pytest.mark.parametrize(("coverage", "rank"), [(0.9, 18), (0.8, 16), (0.95, 19), (0.951, None)])
def test_a_promise_is_the_least_score_that_covers_enough_rows(coverage, rank):
    """Of 19 rows, each a group of its own, the ⌈20 · coverage⌉-th; where that is the 20th, everything."""
    scores = np.random.default_rng(0).permutation(np.arange(1.0, 20.0))
    found = conformal._level(scores, np.arange(19), coverage)
    assert found == (np.inf if rank is None else rank)


def test_a_group_is_on_one_side_whatever_else_there_is():
    ids = np.array([f"g{number // 3}" for number in range(300)], object)
    side = conformal.half(ids)
    assert (side[::3] == side[1::3]).all()
    assert 0.3 < side.mean() < 0.7
    np.testing.assert_array_equal(conformal.half(ids[50:80]), side[50:80])


def test_a_cap_is_measured_against_a_kilometre_where_all_rows_are_as_easy_as_can_be():
    met = told(["FRA"] * 40, ["FRA"] * 40, confidence=[1.0] * 40)
    assert (met.outcomes.spread_km[met.outcomes.placed] == 0).all()
    assert conformal.learn(met, alone(40)).easiest_km == 1.0
    nowhere = told(["FRA"] * 4, [None] * 4)
    assert conformal.learn(nowhere, alone(4)).easiest_km == 1.0
