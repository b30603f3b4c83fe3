"""An answer against a plain oracle: its order, its ties, the truth, its rows apart and together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoloc_core.contracts.prediction import Evidence, Prediction, softmax
from geoloc_core.geo.labelspace import LabelSpace


def space(classes):
    names = [f"C{i}" for i in range(classes)]
    return LabelSpace(
        "country", names, names, [""] * classes, np.linspace(-80, 80, classes), np.linspace(9, 99, classes)
    )


@st.composite
def cases(draw):
    """Probabilities with many ties, a k, and true classes, some unknown."""
    n, c = draw(st.integers(1, 12)), draw(st.integers(1, 7))
    rows = draw(st.lists(st.lists(st.integers(0, 4), min_size=c, max_size=c), min_size=n, max_size=n))
    truth = draw(st.lists(st.integers(-1, c - 1), min_size=n, max_size=n))
    return np.array(rows) / 16, draw(st.integers(1, 9)), np.array(truth)


@given(cases())
def test_an_answer_is_what_plain_python_makes_of_the_probabilities(case):
    probabilities, k, truth = case
    here = space(probabilities.shape[1])
    found = Prediction.of_probabilities(probabilities, here, k, truth)
    for row, values in enumerate(probabilities.tolist()):
        order = sorted(range(len(values)), key=lambda c: (-values[c], c))
        assert found.classes[row].tolist() == order[:k]
        assert found.probabilities[row].tolist() == [values[c] for c in order[:k]]
        assert found.latitudes[row].tolist() == [here.latitudes[c] for c in order[:k]]
        assert (found.latitude[row], found.longitude[row]) == (here.latitudes[order[0]], here.longitudes[order[0]])
        known = truth[row] >= 0
        rank = order.index(truth[row]) if known else -1
        assert found.truth.rank[row] == rank
        assert found.truth.probability[row] == (values[truth[row]] if known else 0)
        assert found.truth.before[row] == pytest.approx(sum(values[c] for c in order[:rank]) if known else 1)
        if known and rank < k:
            assert found.classes[row, rank] == truth[row]
    assert Prediction.of_probabilities(probabilities, here, k).truth is None


def full(n, seed=0):
    """An answer with everything that an answer may have."""
    rng = np.random.default_rng(seed)
    ids = np.array([f"c{i}" for i in range(3 * n)], dtype=object).reshape(n, 3)
    found = Prediction.of_probabilities(
        rng.dirichlet(np.ones(5), n), space(5), 4, rng.integers(-1, 5, n), Evidence("clue", ids, rng.random((n, 3)))
    )
    more = {"radius_km": rng.random(n), "auxiliary": {"month": rng.random((n, 12))}}
    return Prediction(**vars(found) | more)


def flat(value, name=""):
    """Every array of an answer by its name."""
    if isinstance(value, np.ndarray):
        return {name: value.tolist()}
    inner = value if isinstance(value, dict) else getattr(value, "__dict__", {})
    return {key: array for part, item in inner.items() for key, array in flat(item, f"{name}.{part}").items()}


@given(st.lists(st.integers(0, 6), min_size=1, max_size=4), st.integers(0, 99))
def test_rows_apart_and_joined_are_the_same_answer(sizes, seed):
    whole = full(sum(sizes), seed)
    ends = np.cumsum(sizes)
    parts = [whole.rows(slice(end - size, end)) for end, size in zip(ends, sizes, strict=True)]
    assert [len(part) for part in parts] == sizes
    joined = Prediction.join(parts)
    assert len(flat(joined)) == 13
    assert flat(joined) == flat(whole)
    assert joined.evidence.kind == "clue"
    order = np.random.default_rng(seed).permutation(len(whole))
    assert flat(whole.rows(order).rows(np.argsort(order))) == flat(whole)


def test_what_an_answer_lacks_stays_lacking():
    found = Prediction.of_probabilities(np.eye(3), space(3), 2)
    joined = Prediction.join([found.rows(slice(0, 1)), found.rows(slice(1, 3))])
    assert joined.truth is joined.radius_km is joined.evidence is None
    assert joined.auxiliary == {}
    assert flat(joined) == flat(found)


@given(st.lists(st.lists(st.floats(-1e4, 1e4), min_size=3, max_size=3), min_size=1, max_size=5))
def test_softmax_is_a_probability_whatever_the_logits(logits):
    found = softmax(np.array(logits))
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert np.isfinite(found).all()
