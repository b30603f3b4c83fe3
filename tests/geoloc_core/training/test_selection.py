"""Ensemble selection, by hand: each round adds the member with which the sum of all so far is best."""

import numpy as np
import pytest

from geoloc_core.training.selection import select


def likeness(wanted):
    """How alike a sum points."""
    return lambda total: (round(float(total @ wanted / np.linalg.norm(total) / np.linalg.norm(wanted)), 9),)


def test_each_round_adds_to_all_that_were_added_before():
    counts, history, best = select(list(np.eye(3)), likeness(np.ones(3)), 4)
    assert counts.tolist() == [1, 1, 1]
    assert best == 2
    assert [merit for (merit,) in history] == pytest.approx([3**-0.5, 2 / 6**0.5, 1, 4 / 18**0.5, 5 / 27**0.5])


def test_a_member_may_count_more_than_once():
    counts, history, best = select(list(np.eye(2)), likeness(np.array([2.0, 1.0])), 5)
    assert counts.tolist() == [2, 1]
    assert history[best] == (1.0,)


def test_the_best_member_alone_is_kept_where_no_sum_is_better():
    counts, history, best = select(list(np.eye(3)), likeness(np.array([0.0, 1.0, 0.0])), 3)
    assert (counts.tolist(), best) == ([0, 1, 0], 0)
    assert history == [(1.0,)] * 4, "it is added again and again, which changes nothing"
