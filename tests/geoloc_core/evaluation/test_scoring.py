from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoloc_core.contracts.metrics import names
from geoloc_core.contracts.prediction import Prediction
from geoloc_core.evaluation import scoring
from geoloc_core.evaluation.scoring import Places, Told, Truth
from geoloc_core.geo.labelspace import LabelSpace
from tests.geoloc_core.made_answers import SPACES

KM = (1, 25, 200, 750, 2500)


def met(space, order, truth):
    """What becomes of answers whose classes (N, C) stand in an order."""
    shares = np.zeros(order.shape)
    np.put_along_axis(shares, order, np.arange(order.shape[1], 0, -1.0)[None], axis=1)
    shares /= shares.sum(axis=1, keepdims=True)
    found = Prediction.of_probabilities(shares, space, len(space), space.index(list(truth.classes)))
    return told(found, space, truth)


def told(prediction, space, truth):
    places = Places.of(space, [country for country in truth.countries if country is not None])
    return Told(scoring.outcomes(prediction, places, truth, KM), places)


def score(found, ks, thresholds_km):
    return scoring.figures(scoring.samples(found, ks, thresholds_km))


def truth_at(space, classes):
    ids, countries = (np.array(values, dtype=object)[classes] for values in (space.ids, space.countries))
    subdivisions = ids if space.kind == "subdivision" else unknown(len(classes))
    return Truth(space.latitudes[classes], space.longitudes[classes], ids, countries, subdivisions)


def unknown(n):
    return np.full(n, None, dtype=object)


@pytest.mark.parametrize("kind", SPACES)
def test_perfect_answers_score_everything(kind):
    space = SPACES[kind]
    n = len(space)
    order = (np.arange(n)[:, None] + np.arange(n)) % n
    found = met(space, order, truth_at(space, np.arange(n)))
    figures = score(found, (1, 5, 10), KM)
    assert set(figures) == set(names((1, 5, 10), KM))
    assert figures.pop("mean_km") == figures.pop("median_km") == 0
    assert figures.pop("geoguessr") == 5000
    first = found.outcomes.confidence[0]
    assert figures.pop("nll") == pytest.approx(-np.log(first))
    assert figures.pop("ece") == pytest.approx(100 * (1 - first)), "always right, and not as sure"
    if kind == "country":
        assert {figures.pop(name) for name in list(figures) if name.startswith("subdivision")} == {None}
    assert set(figures.values()) == {100.0}
    assert found.outcomes.placed.all()


def test_outcomes_that_are_gathered_are_those_that_were_given():
    space = SPACES["country"]
    n = len(space)
    truth = truth_at(space, np.arange(n))
    order = (np.arange(n)[:, None] + np.arange(n)) % n
    for unplaced in ([], [1, 2], [0, 2], list(range(n))):  # a column of one value is held as one row
        latitudes = np.where(np.isin(np.arange(n), unplaced), np.nan, truth.latitudes)
        given = met(space, order, replace(truth, latitudes=latitudes)).outcomes
        gathered = scoring.Gathered(n)
        gathered.add(given.take(np.arange(2)))
        gathered.add(given.take(np.arange(2, n)))
        whole = gathered.whole()
        for name in scoring.COLUMNS:
            np.testing.assert_array_equal(getattr(whole, name), getattr(given, name), err_msg=name)
        assert (whole.errors_km.strides[0] == 0) == (len(unplaced) in (0, n)), "it takes the room of one row"


def test_a_density_is_scored_where_there_is_one():
    space = SPACES["country"]
    n = len(space)
    truth = truth_at(space, np.arange(n))
    plain = met(space, (np.arange(n)[:, None] + np.arange(n)) % n, truth)
    assert "density_nll" not in score(plain, (1,), KM)
    densities = np.linspace(-3, 1, n)
    densities[1] = np.nan
    found = Told(replace(plain.outcomes, log_density=densities), plain.places)
    assert score(found, (1,), KM)["density_nll"] == pytest.approx(-np.nanmean(densities))


def test_a_wrong_subdivision_of_the_right_country_is_half_right():
    space = SPACES["subdivision"]
    found = met(space, np.array([[1, 0, 2, 3]]), truth_at(space, np.array([0])))
    figures = score(found, (1, 2), KM)
    assert (figures["accuracy"], figures["top_2"], figures["country_accuracy"]) == (0, 100, 100)


def test_rows_at_a_place_without_a_known_class_are_misses_but_have_an_error():
    space = SPACES["country"]
    truth = Truth(np.array([46.0, 0.0]), np.array([2.0, 0.0]), unknown(2), unknown(2), unknown(2))
    figures = score(met(space, np.array([[0, 1, 2]] * 2), truth), (1,), (1,))
    assert (figures["accuracy"], figures["country_accuracy"], figures["within_1km"]) == (0, 0, 50)


def test_a_class_that_the_model_does_not_know_is_missed_by_every_top_k():
    space = SPACES["country"]
    truth = Truth(np.array([np.nan]), np.array([np.nan]), *[np.array(["NZL"], object)] * 2, unknown(1))
    figures = score(met(space, np.array([[0, 1, 2]]), truth), (1, 5, 10), (1,))
    assert (figures["accuracy"], figures["top_10"], figures["country_accuracy"]) == (0, 0, 0)
    assert figures["within_1km"] is figures["median_km"] is None


def test_what_cannot_be_measured_for_a_row_is_left_out_of_that_figure_alone():
    space, nan = SPACES["subdivision"], np.nan
    # a whole row, a country alone that is answered right, one that is not, and a place alone that is answered exactly
    truth = Truth(
        np.array([50.0, nan, nan, 50.0]),
        np.array([3.0, nan, nan, 3.0]),
        np.array(["FRA.1", None, None, None], object),
        np.array(["FRA", "FRA", "PER", None], object),
        np.array(["FRA.1", None, None, None], object),
    )
    figures = score(met(space, np.array([[0, 1, 2, 3]] * 4), truth), (1,), (1,))
    assert (figures["within_1km"], figures["mean_km"]) == (100, 0)
    assert figures["subdivision_accuracy"] == 50, "of the first and the last, which is in none"
    assert figures["accuracy"] == 50, "of the first and the last"
    assert figures["country_accuracy"] == 50, "right, right, wrong, and in no country"


def test_an_answer_in_no_country_is_never_in_the_right_one():
    space = SPACES["subdivision"]
    nowhere = LabelSpace("cells", space.ids, space.names, [""] * 4, space.latitudes, space.longitudes)
    truth = Truth(np.zeros(2), np.zeros(2), unknown(2), np.array([None, "FRA"], object), unknown(2))
    found = met(nowhere, np.array([[0, 1, 2, 3]] * 2), truth)
    assert score(found, (1, 5), KM)["country_accuracy"] == 0
    assert found.outcomes.country.tolist() == [-1, -1]


def test_countries_of_candidates_count_once_each():
    space = SPACES["subdivision"]  # two of France, then Kenya and Peru
    found = met(space, np.array([[0, 1, 2, 3]] * 3), truth_at(space, np.array([1, 2, 3])))
    assert found.outcomes.country_ranks.tolist() == [0, 1, 2]
    assert found.outcomes.ranks.tolist() == [1, 2, 3]
    assert found.outcomes.subdivision_ranks.tolist() == [1, 2, 3]


def test_of_no_row_at_all_nothing_is_measured():
    truth = Truth(np.array([np.nan]), np.array([np.nan]), unknown(1), unknown(1), unknown(1))
    found = met(SPACES["country"], np.array([[0, 1, 2]]), truth)
    assert not found.outcomes.classed.any()
    figures = score(found, (1,), (1,))
    assert set(figures.values()) == {None}


@given(st.integers(0, 2**32), st.integers(1, 60))
def test_scores_do_not_depend_on_the_order_of_rows(seed, n):
    space, rng = SPACES["subdivision"], np.random.default_rng(seed)
    order = rng.permuted(np.tile(np.arange(4), (n, 1)), axis=1)
    truth = truth_at(space, rng.integers(0, 4, n))
    again = rng.permutation(n)
    shuffled = Truth(**{name: values[again] for name, values in vars(truth).items()})
    one, other = (
        score(met(space, answered, true), (1, 2, 3), KM)
        for answered, true in ((order, truth), (order[again], shuffled))
    )
    assert one == pytest.approx(other)


@given(st.integers(0, 2**32), st.integers(1, 30))
def test_more_answers_hit_more_and_all_answers_hit_all_known(seed, n):
    space, rng = SPACES["subdivision"], np.random.default_rng(seed)
    truth = truth_at(space, rng.integers(0, 4, n))
    known = rng.random(n) < 0.7
    truth = replace(truth, classes=np.where(known, truth.classes, None))
    found = met(space, rng.permuted(np.tile(np.arange(4), (n, 1)), axis=1), truth)
    figures = score(found, range(1, 7), KM)
    shares = [figures["accuracy"], *(figures[f"top_{k}"] for k in range(2, 7))]
    assert shares == sorted(shares)
    assert shares[3] == shares[5] == pytest.approx(100 * known.mean())


def always(space, frequencies, truth):
    return told(scoring.majority(space, np.array(frequencies), truth, len(space)), space, truth)


def test_the_baseline_answers_the_most_frequent_classes_in_order():
    space = SPACES["country"]
    most = scoring.most_frequent(space, np.array([1, 2, 3]), 2)
    assert most.classes.tolist() == [[2, 1]]
    assert most.probabilities.tolist() == [[3 / 6, 2 / 6]]
    assert (most.latitude[0], most.longitude[0]) == (-9, -75)
    found = always(space, [1, 2, 3], truth_at(space, np.array([2, 1, 0])))
    figures = score(found, (1, 2), KM)
    assert figures["accuracy"] == figures["country_accuracy"] == pytest.approx(100 / 3)
    assert figures["top_2"] == pytest.approx(200 / 3)
    assert figures["within_1km"] == pytest.approx(100 / 3)


def test_the_baseline_of_subdivisions_is_in_a_country():
    space = SPACES["subdivision"]
    found = always(space, [5, 1, 1, 1], truth_at(space, np.array([0, 1, 2])))
    assert found.outcomes.ranks.tolist() == [0, 1, 2]
    assert found.outcomes.country_ranks.tolist() == [0, 0, 1]
    np.testing.assert_allclose(found.outcomes.probability, [5 / 8, 1 / 8, 1 / 8])
    np.testing.assert_allclose(found.outcomes.before, [0, 5 / 8, 6 / 8])


def test_equally_frequent_classes_keep_their_order():
    assert scoring.most_frequent(SPACES["country"], np.zeros(3, np.int64), 3).classes.tolist() == [[0, 1, 2]]


def test_rows_that_are_taken_come_in_the_order_asked_for():
    space = SPACES["country"]
    n = len(space)
    whole = met(space, (np.arange(n)[:, None] + np.arange(n)) % n, truth_at(space, np.arange(n))).outcomes
    assert whole.take(np.arange(n)) is whole
    for rows in (np.arange(n)[::-1], np.array([1, 1]), np.arange(n - 1), np.array([], int)):
        taken = whole.take(rows)
        assert (len(taken), taken.candidates) == (len(rows), whole.candidates)
        assert taken.true_country.tolist() == whole.true_country[rows].tolist()
    assert len(set(whole.true_country.tolist())) == n
