import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoloc_core.corpora.splits import _uniform, joined_by_place, split_by_group
from geoloc_core.geo import s2

GROUPS = st.lists(st.text(max_size=5), max_size=60)


SHARES = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(lambda pair: (min(pair), max(pair) - min(pair)))
"""Shares of validation and test, together at most 1."""
MANY = [f"group {n}" for n in range(100)]


@given(GROUPS, SHARES, st.integers(0, 10))
def test_a_group_never_straddles(groups, shares, seed):
    sides: dict = {}
    for group, side in zip(groups, split_by_group(groups, *shares, seed), strict=True):
        assert sides.setdefault(group, side) == side


@given(GROUPS, GROUPS, SHARES)
def test_more_rows_move_no_group(some, more, shares):
    alone = split_by_group(some, *shares, 1).tolist()
    assert split_by_group(some + more, *shares, 1)[: len(some)].tolist() == alone
    assert split_by_group(more + some, *shares, 1)[len(more) :].tolist() == alone


@given(st.floats(0, 1), st.integers(0, 10))
def test_without_a_test_share_groups_are_where_they_always_were(share, seed):
    always = ["validation" if _uniform(group, seed) < share else "train" for group in MANY]
    assert split_by_group(MANY, share, 0.0, seed).tolist() == always


@given(st.lists(st.floats(0, 1), min_size=4, max_size=4).map(sorted), st.integers(0, 10))
def test_larger_shares_move_groups_out_of_training_alone(cuts, seed):
    small, large, low, high = cuts
    before, after = split_by_group(MANY, small, 1 - high, seed), split_by_group(MANY, large, 1 - low, seed)
    assert set(before[before != after]) <= {"train"}


def test_about_the_shares_of_the_groups_are_held_out():
    split = split_by_group([f"group {n}" for n in range(20000)], 0.2, 0.1, 20)
    assert np.mean(split == "validation") == pytest.approx(0.2, abs=0.01)
    assert np.mean(split == "test") == pytest.approx(0.1, abs=0.01)


def test_the_seed_changes_the_split_and_nothing_else_does():
    assert split_by_group(MANY, 0.2, 0.1, 1).tolist() != split_by_group(MANY, 0.2, 0.1, 2).tolist()
    assert "".join(side[0] for side in split_by_group(MANY[:16], 0.5, 0.0, 20)) == "vvvtvtvvvvvvvttt"
    assert "".join(side[:2] for side in split_by_group(MANY[:16], 0.5, 0.25, 20)) == "vavavatevatrvavavavavavavatetete"


PLACES = st.lists(
    st.tuples(
        st.sampled_from("abcdefgh"),
        st.one_of(st.tuples(st.floats(-90, 90), st.floats(-180, 180)), st.just((float("nan"), float("nan")))),
    ),
    max_size=25,
)


@given(PLACES, st.sampled_from([10, 500, 4000]))
def test_neither_group_nor_block_straddles_and_nothing_is_joined_without_need(rows, km):
    groups = [group for group, _ in rows]
    lat, lon = (np.array([place[axis] for _, place in rows], float) for axis in (0, 1))
    joined = joined_by_place(groups, lat, lon, km).tolist()
    level = {10: 10, 500: 4, 4000: 1}[km]
    known = np.isfinite(lat)
    cells = np.full(len(rows), -1, dtype=object)
    cells[known] = s2.parents(s2.leaves(lat[known], lon[known]), level)
    unions = [{group} for group in set(groups)]
    for _, members in sorted((c, {g for g, d in zip(groups, cells, strict=True) if c == d}) for c in {*cells} - {-1}):
        touched = [union for union in unions if union & members]
        unions = [union for union in unions if not union & members] + [set().union(*touched)]
    assert joined == [min(next(union for union in unions if group in union)) for group in groups]


def test_a_group_that_meets_no_other_stays_on_its_side():
    groups = [f"group {n}" for n in range(40)]
    joined = joined_by_place(groups, np.linspace(-80, 80, 40), np.zeros(40), 50)
    assert joined.tolist() == groups
