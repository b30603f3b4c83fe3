"""An ensemble is never worse on what its weights were chosen with than its best member, and says who spoke for what."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoloc_core.contracts.batch import Answered, Batch
from geoloc_core.contracts.prediction import Prediction
from geoloc_core.families.ensemble import Ensemble, Options, fit, select, spread

from .made_lessons import data, run
from .made_models import ensemble, photos, space

OPTIONS = Options(kind="ensemble", corpus="c", members=("one", "other"), labels="country", rounds=20)


@st.composite
def members(draw):
    """Probabilities (N, C) of a few members, and true classes, some unknown."""
    n, c, m = draw(st.integers(1, 25)), draw(st.integers(1, 6)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    parts = [rng.dirichlet(np.full(c, 0.5), n) for _ in range(m)]
    for part in parts[1:]:
        part[rng.random(part.shape) < 0.3] = 0  # what it did not name
    return parts, rng.integers(-1, c, n)


def accuracy(total, truth):
    return np.mean((total.argmax(axis=1) == truth) & (truth >= 0))


@given(members(), st.integers(1, 20))
def test_the_mean_is_never_less_accurate_than_the_best_member(case, rounds):
    parts, truth = case
    counts, accuracies, best = select(parts, truth, rounds)
    assert accuracies[best] == max(accuracies)
    assert len(accuracies) == rounds + 1
    assert 1 <= counts.sum() <= rounds + 1
    assert (counts >= 0).all()
    best = max(accuracy(part, truth) for part in parts)
    assert accuracies[0] == pytest.approx(best)
    total = np.sum([count * part for count, part in zip(counts, parts, strict=True)], axis=0)
    assert accuracy(total, truth) >= best - 1e-12
    assert accuracy(total, truth) == pytest.approx(max(accuracies))


def test_without_a_row_to_choose_by_the_first_member_is_taken():
    counts, accuracies, _ = select([np.empty((0, 3))] * 2, np.empty(0, np.int64), 3)
    assert counts.tolist() == [1, 0]
    assert accuracies == [0.0] * 4


def test_of_equals_the_one_that_gives_the_truth_more_is_taken():
    """Of what it gives at all: shares of few candidates count as if they were of all."""
    modest, sure, few = [[0.6, 0.4]] * 2, [[0.9, 0.1]] * 2, [[0.19, 0.01]] * 2
    truth = np.array([0, -1])
    for parts, taken in (([modest, sure], 1), ([sure, modest], 0), ([sure, few], 1), ([sure, sure], 0)):
        counts, accuracies, best = select([np.array(part) for part in parts], truth, 0)
        assert counts.tolist() == np.eye(2)[taken].tolist()
        assert (accuracies, best) == ([0.5], 0), "an unknown class is a miss"
    apart, alike = [[0.51, 0.49], [0.09, 0.01]], [[0.6, 0.4]] * 2
    counts, _, _ = select([np.array(alike), np.array(apart)], np.array([0, 0]), 0)
    assert counts.tolist() == [0, 1], "each photo counts the same: 0.51 and 0.9 of what is given, not 0.6 of 1.1"
    unknown, accuracies, _ = select([np.array(modest), np.array(sure)], np.array([-1, -1]), 2)
    assert (unknown.tolist(), accuracies) == ([1, 0], [0.0] * 3)
    nothing, _, _ = select([np.zeros((2, 2)), np.array(few)], truth, 0)
    assert nothing.tolist() == [0, 1]


@given(st.integers(0, 2**32), st.integers(1, 20), st.integers(1, 8))
def test_what_a_member_names_is_put_where_its_classes_are_here(seed, n, k):
    rng = np.random.default_rng(seed)
    theirs = space(6)
    classes = rng.permutation(6)
    classes[rng.random(6) < 0.3] = -1
    shares = rng.dirichlet(np.ones(6), n)
    found = spread(Prediction.of_probabilities(shares, theirs, k), classes, 6)
    kept = np.argsort(-shares, axis=1)[:, :k]
    for row in range(n):
        expected = np.zeros(6)
        for theirs_at in kept[row]:
            if classes[theirs_at] >= 0:
                expected[classes[theirs_at]] = shares[row, theirs_at]
        np.testing.assert_array_equal(found[row], expected)


def test_evidence_is_what_each_member_gave_to_the_first():
    model, batch = ensemble().model, photos(30)
    answer = model.predict(batch, 6)
    parts = {
        name: weight * spread(batch.answers[name], classes, 6)
        for name, weight, classes in zip(model.members, model.weights, model.classes, strict=True)
    }
    first = answer.classes[:, 0]
    for row, (names, weights) in enumerate(zip(answer.evidence.ids, answer.evidence.weights, strict=True)):
        assert sorted(names) == ["one", "other"]
        assert weights.tolist() == sorted(weights, reverse=True)
        assert weights.tolist() == [parts[name][row, first[row]] for name in names]
    np.testing.assert_allclose(answer.evidence.weights.sum(axis=1), answer.probabilities[:, 0])
    assert (answer.classes[:, 0] == sum(parts.values()).argmax(axis=1)).all()


def test_members_that_gave_the_same_are_named_in_their_order():
    names = tuple(f"m{number:02d}" for number in range(40))
    given = Prediction.of_probabilities(np.array([[0.5, 0.5], [0.7, 0.3]]), space(2), 2)
    alike = Ensemble(space(2), list(names), np.full(40, 1 / 40), [np.arange(2)] * 40)
    found = alike.predict(Batch({}, answers=dict.fromkeys(names, given)))
    assert found.evidence.ids.tolist() == [list(names)] * 2


def answered(shares, at, rows, k=6):
    """What a member with some of the six classes answers."""
    theirs = space().take(np.array(at))
    return Answered(theirs, rows, Prediction.of_probabilities(shares[np.ix_(rows, at)], theirs, k))


def lesson(seed=0, n=80):
    """A member that knows the first three classes well, and one that knows the last three well, in another order."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 6, n)
    noise = rng.dirichlet(np.ones(6), n)
    right = np.eye(6)[truth]
    one, other = (np.where(known[:, None], 0.6 * right + 0.4 * noise, noise) for known in (truth < 3, truth >= 3))
    rows = np.arange(60, n), np.setdiff1d(np.arange(58, n), [61])
    return truth, {"one": (one, [0, 1, 2, 3, 4, 5], rows[0]), "other": (other, [5, 4, 3, 1], rows[1])}


def test_weights_are_chosen_on_the_rows_that_all_members_answer(tmp_path):
    truth, told = lesson()
    logged = []
    given_data = data(np.zeros((80, 1)), truth, 6, answers={name: answered(*of) for name, of in told.items()})
    fitted = fit(given_data, OPTIONS, run(tmp_path, lambda metrics, step: logged.append(metrics)))
    model = fitted.model
    assert model.weights.sum() == pytest.approx(1)
    assert (model.weights > 0).all(), "each knows what the other does not"
    assert model.classes[1].tolist() == [5, 4, 3, 1]
    assert logged == fitted.history
    assert sum(fitted.figures["weights"].values()) == pytest.approx(1, abs=1e-3)
    assert fitted.figures["trainable_parameters"] == 2
    assert "parameters" not in fitted.figures, "no member says how many it has"
    rows = np.setdiff1d(np.arange(60, 80), [61])
    batch = Batch({}, {name: answered(shares, at, rows).prediction for name, (shares, at, _) in told.items()})
    assert len(batch) == len(rows)
    answer = model.predict(batch, 6)
    right = 100 * np.mean(answer.classes[:, 0] == truth[rows])
    assert right == pytest.approx(fitted.history[fitted.best]["validation_accuracy"])
    alone = [
        100 * np.mean(np.array(at)[shares[np.ix_(rows, at)].argmax(axis=1)] == truth[rows])
        for shares, at, _ in told.values()
    ]
    assert right > max(alone)


@pytest.mark.parametrize("k", [1, 2])
def test_members_may_keep_few_candidates(tmp_path, k):
    truth, told = lesson()
    given_data = data(np.zeros((80, 1)), truth, 6, answers={name: answered(*of, k) for name, of in told.items()})
    fitted = fit(given_data, OPTIONS, run(tmp_path))
    rows = np.setdiff1d(np.arange(60, 80), [61])
    batch = Batch({}, {name: answered(shares, at, rows, k).prediction for name, (shares, at, _) in told.items()})
    answer = fitted.model.predict(batch, 6, truth[rows])
    assert (answer.probabilities.sum(axis=1) <= 1 + 1e-9).all()
    assert ((answer.probabilities > 0).sum(axis=1) <= 2 * k).all()
    named = np.take_along_axis(answer.probabilities, answer.truth.rank[:, None].astype(np.int64), axis=1)[:, 0]
    np.testing.assert_allclose(named, answer.truth.probability, rtol=1e-6)


def test_a_class_that_no_member_here_has_is_never_answered_first(tmp_path):
    truth, told = lesson()
    told = {name: (shares, [1, 2, 3], rows) for name, (shares, _, rows) in told.items()}
    given_data = data(np.zeros((80, 1)), truth, 6, answers={name: answered(*of) for name, of in told.items()})
    fitted = fit(given_data, OPTIONS, run(tmp_path))
    batch = Batch({}, {name: of.prediction for name, of in given_data.answers.items() if name == "one"})
    batch.answers["other"] = answered(told["other"][0], [1, 2, 3], given_data.answers["one"].rows).prediction
    assert set(fitted.model.predict(batch, 6).classes[:, 0]) <= {1, 2, 3}
