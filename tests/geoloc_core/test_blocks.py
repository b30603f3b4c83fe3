"""Rows block by block: each row once, in order, in blocks that are as large as may be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoloc_core.blocks import blocks


@given(st.integers(0, 300), st.integers(0, 1000), st.integers(0, 50))
def test_the_blocks_hold_every_row_once_in_order_and_as_many_as_may_be(rows, most, width):
    found = list(blocks(rows, most, width))
    assert [row for part in found for row in range(part.start, part.stop)] == list(range(rows))
    sizes = [part.stop - part.start for part in found]
    full = max(1, most // max(1, width))
    assert all(size == full for size in sizes[:-1])
    assert all(1 <= size <= full for size in sizes)


@pytest.mark.parametrize(
    ("rows", "most", "width", "bounds"),
    [
        (0, 4, 1, []),
        (3, 4, 1, [(0, 3)]),
        (4, 4, 1, [(0, 4)]),
        (5, 4, 1, [(0, 4), (4, 5)]),
        (5, 9, 4, [(0, 2), (2, 4), (4, 5)]),
        (2, 3, 4, [(0, 1), (1, 2)]),
        (2, 0, 1, [(0, 1), (1, 2)]),
        (5, 4, 0, [(0, 4), (4, 5)]),
    ],
)
def test_a_block_has_one_row_at_least_and_ends_with_the_rows(rows, most, width, bounds):
    assert list(blocks(rows, most, width)) == [slice(*pair) for pair in bounds]
