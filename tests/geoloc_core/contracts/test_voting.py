"""Votes of pieces, against a count by hand."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoloc_core.contracts.voting import vote, weights_of

PRIOR = np.array([0.2, 0.5, 0.3])


def shares(*rows):
    return np.array(rows, np.float64)


def test_the_class_that_most_pieces_name_wins_however_sure_the_others_are():
    pieces = shares([0.4, 0.3, 0.3], [0.4, 0.3, 0.3], [0.0, 1.0, 0.0])
    found = vote(pieces, np.zeros(3, int), 1, "majority", np.ones(3), PRIOR)
    # votes 2, 1, 0 and mean probabilities 0.8/3, 1.6/3, 0.6/3, over 3 pieces + 1
    assert found[0] == pytest.approx([(2 + 0.8 / 3) / 4, (1 + 1.6 / 3) / 4, 0.6 / 3 / 4])


def test_of_classes_that_are_named_equally_often_the_one_with_the_higher_mean_wins():
    pieces = shares([0.5, 0.4, 0.1], [0.1, 0.6, 0.3])
    found = vote(pieces, np.zeros(2, int), 1, "majority", np.ones(2), PRIOR)
    assert found[0].argmax() == 1


def test_a_weighted_vote_is_the_mean_with_weights():
    pieces = shares([0.6, 0.4, 0.0], [0.0, 0.2, 0.8])
    found = vote(pieces, np.zeros(2, int), 1, "weighted", np.array([1.0, 3.0]), PRIOR)
    assert found[0] == pytest.approx([0.15, 0.25, 0.6])


def test_weights_are_the_score_times_the_area():
    assert weights_of(np.array([0.5, 1.0], np.float32), np.array([10, 3])).tolist() == [5.0, 3.0]


def test_pieces_without_any_weight_count_alike():
    pieces = shares([1.0, 0.0, 0.0], [0.0, 0.0, 1.0])
    assert vote(pieces, np.zeros(2, int), 1, "weighted", np.zeros(2), PRIOR)[0] == pytest.approx([0.5, 0, 0.5])


@pytest.mark.parametrize("how", ["majority", "weighted"])
def test_a_photo_without_a_piece_has_the_prior(how):
    found = vote(shares([1.0, 0.0, 0.0]), np.array([1]), 3, how, np.ones(1), PRIOR)
    assert found[0] == pytest.approx(PRIOR)
    assert found[1].argmax() == 0
    assert found[2] == pytest.approx(PRIOR)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(1, 9)), max_size=20))
def test_a_majority_of_certain_pieces_is_a_count(cast):
    """Each piece is of a photo and certain of a class; the winner is what a hand count finds."""
    photos = np.array([photo for photo, _, _ in cast], int)
    pieces = np.eye(3)[[named for _, named, _ in cast]].reshape(-1, 3)
    weights = np.array([weight for _, _, weight in cast], float)
    for how in ("majority", "weighted"):
        found = vote(pieces, photos, 4, how, weights, PRIOR)
        assert found.sum(axis=1) == pytest.approx(np.ones(4))
        for photo in range(4):
            of_photo = [(named, weight if how == "weighted" else 1) for p, named, weight in cast if p == photo]
            if not of_photo:
                continue
            counts = [sum(weight for named, weight in of_photo if named == c) for c in range(3)]
            expected = [Fraction(count, sum(counts)) for count in counts]
            assert found[photo] == pytest.approx([float(share) for share in expected])
