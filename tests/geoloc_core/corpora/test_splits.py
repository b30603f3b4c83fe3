import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoloc_core.corpora.splits import joined_by_place, split_by_group
from geoloc_core.geo import s2

GROUPS = st.lists(st.text(max_size=5), max_size=60)


@given(GROUPS, st.floats(0, 1), st.integers(0, 10))
def test_a_group_never_straddles(groups, share, seed):
    sides: dict = {}
    for group, side in zip(groups, split_by_group(groups, share, seed), strict=True):
        assert sides.setdefault(group, side) == side


@given(GROUPS, GROUPS)
def test_more_rows_move_no_group(some, more):
    assert split_by_group(some + more, 0.2, 1)[: len(some)].tolist() == split_by_group(some, 0.2, 1).tolist()


def test_about_the_share_of_the_groups_is_held_out():
    split = split_by_group([f"group {n}" for n in range(20000)], 0.2, 20)
    assert np.mean(split == "validation") == pytest.approx(0.2, abs=0.01)


def test_the_seed_changes_the_split_and_nothing_else_does():
    groups = [f"group {n}" for n in range(100)]
    assert split_by_group(groups, 0.2, 1).tolist() != split_by_group(groups, 0.2, 2).tolist()
    assert "".join(side[0] for side in split_by_group(groups[:16], 0.5, 20)) == "vvvtvtvvvvvvvttt"


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
