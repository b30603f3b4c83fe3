"""Class weights: what the papers write, and what follows from it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoloc_core.training.weights import EffectiveNumber, InverseFrequency, class_weights

ROWS = st.lists(st.integers(0, 5), min_size=1, max_size=200)
OPTIONS = st.one_of(
    st.none(),
    st.builds(InverseFrequency, power=st.floats(0, 1)),
    st.builds(EffectiveNumber, beta=st.floats(0, 0.99999)),
)


@given(ROWS, OPTIONS)
def test_rows_weigh_one_on_average_and_classes_without_rows_nothing(targets, options):
    weights, counts = class_weights(options, np.array(targets), 7), np.bincount(targets, minlength=7)
    np.testing.assert_allclose((weights * counts).sum(), len(targets), rtol=1e-5)
    assert (weights[counts == 0] == 0).all()
    present = counts > 0
    order = np.argsort(counts[present], kind="stable")
    assert (np.diff(weights[present][order]) <= 1e-5 * weights.max()).all(), "the rarer, the more"


@given(ROWS)
def test_inverse_frequency_gives_every_class_the_same_say(targets):
    weights, counts = class_weights(InverseFrequency(), np.array(targets), 6), np.bincount(targets, minlength=6)
    shares = (weights * counts)[counts > 0]
    np.testing.assert_allclose(shares, shares[0], rtol=1e-5)


@pytest.mark.parametrize("options", [None, InverseFrequency(power=0), EffectiveNumber(beta=0)])
def test_all_rows_may_weigh_alike(options):
    assert class_weights(options, np.array([0, 0, 0, 2]), 3).tolist() == [1, 0, 1]


def test_numbers():
    rows = np.repeat([0, 1, 2], [1, 10, 100])
    found = class_weights(InverseFrequency(), rows, 3)
    np.testing.assert_allclose(found / found[2], [100, 10, 1], rtol=1e-6)
    found = class_weights(InverseFrequency(power=0.5), rows, 3)
    np.testing.assert_allclose(found / found[2], [10, 10**0.5, 1], rtol=1e-6)
    found = class_weights(EffectiveNumber(beta=0.9), rows, 3)
    expected = np.array([0.1 / (1 - 0.9**n) for n in (1, 10, 100)])
    np.testing.assert_allclose(found / found[2], expected / expected[2], rtol=1e-6)
    towards = class_weights(EffectiveNumber(beta=1 - 1e-9), rows, 3)
    np.testing.assert_allclose(towards, class_weights(InverseFrequency(), rows, 3), rtol=1e-5)


def test_no_rows_give_no_weights():
    assert class_weights(InverseFrequency(), np.array([], np.int64), 3).tolist() == [0, 0, 0]
