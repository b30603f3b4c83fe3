import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoloc_core.corpora.splits import split_by_group

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
