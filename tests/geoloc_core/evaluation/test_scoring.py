import numpy as np
import pytest

from geoloc_core.errors import UserError
from geoloc_core.evaluation import baselines, scoring
from geoloc_core.evaluation.scoring import Countries, Truth
from geoloc_core.models.prediction import Prediction
from tests.geoloc_core.evaluation.conftest import SPACES

KM = (1, 25, 200, 750, 2500)


def answers(space, classes):
    """Predictions that answer with the centroids of the best classes."""
    places = space.latitudes[classes], space.longitudes[classes]
    return Prediction(classes, np.ones(classes.shape), *places, places[0][:, 0], places[1][:, 0])


def truth_at(space, classes, **changed):
    countries = Countries.of(space)
    found = Truth(space.latitudes[classes], space.longitudes[classes], classes, countries.of_class[classes])
    return Truth(**{**vars(found), **changed})


@pytest.mark.parametrize("kind", SPACES)
def test_perfect_answers_score_everything(kind):
    space = SPACES[kind]
    classes = np.arange(len(space))
    found = scoring.outcomes(answers(space, classes[:, None]), truth_at(space, classes), Countries.of(space))
    figures = scoring.score(found, 1, (1, 5, 10), KM)
    assert figures.pop("mean_km") == figures.pop("median_km") == 0
    assert figures.pop("geoguessr") == 5000
    assert set(figures.values()) == {100.0}


def test_a_wrong_subdivision_of_the_right_country_is_half_right():
    space = SPACES["subdivision"]
    found = scoring.outcomes(answers(space, np.array([[1, 0]])), truth_at(space, np.array([0])), Countries.of(space))
    figures = scoring.score(found, 2, (1, 2), KM)
    assert (figures["accuracy"], figures["top_2"], figures["country_accuracy"]) == (0, 100, 100)


def test_rows_without_a_known_class_are_misses_but_have_an_error():
    space = SPACES["country"]
    unknown = np.array([-1, -1])
    truth = Truth(np.array([46.0, 0.0]), np.array([2.0, 0.0]), unknown, unknown)
    figures = scoring.score(
        scoring.outcomes(answers(space, np.array([[0], [0]])), truth, Countries.of(space)), 1, (1,), KM
    )
    assert (figures["accuracy"], figures["country_accuracy"], figures["within_1km"]) == (0, 0, 50)


def test_scores_do_not_depend_on_the_order_of_rows():
    space, rng = SPACES["subdivision"], np.random.default_rng(3)
    classes = np.array([rng.permutation(4) for _ in range(60)])
    truth = truth_at(space, rng.integers(0, 4, 60))
    order = rng.permutation(60)
    shuffled = Truth(**{name: values[order] for name, values in vars(truth).items()})
    one, other = (
        scoring.score(scoring.outcomes(answers(space, c), t, Countries.of(space)), 4, (1, 2, 3), KM)
        for c, t in ((classes, truth), (classes[order], shuffled))
    )
    assert one == pytest.approx(other)


def test_the_baseline_answers_the_most_frequent_classes_in_order():
    space = SPACES["country"]
    always = baselines.most_frequent(space, np.array([2, 2, 2, 0, 1, 1, -1, -1, -1, -1]), 2)
    assert always.classes.tolist() == [[2, 1]]
    assert always.probabilities.tolist() == [[3 / 6, 2 / 6]]
    assert (always.latitude[0], always.longitude[0]) == (-9, -75)
    found = scoring.outcomes(baselines.repeated(always, 3), truth_at(space, np.array([2, 1, 0])), Countries.of(space))
    figures = scoring.score(found, 2, (1, 2), KM)
    assert figures["accuracy"] == pytest.approx(100 / 3)
    assert figures["top_2"] == pytest.approx(200 / 3)


def test_equally_frequent_classes_keep_their_order():
    assert baselines.most_frequent(SPACES["country"], np.array([], dtype=np.int64), 3).classes.tolist() == [[0, 1, 2]]


def test_a_label_space_without_truth_is_named():
    with pytest.raises(UserError, match=r"label space 'geocell'.*country, subdivision"):
        scoring.unit_column("geocell")
