"""Rows that are worked on some at a time, so that what is made of them fits in memory."""

from collections.abc import Iterator


def blocks(rows: int, most: int, width: int = 1) -> Iterator[slice]:
    """Slices of so many rows, one after the other; the last may be shorter.

    Of no rows there are none. Who needs one even then, to join what is made of the blocks, says ``max(1, rows)``: in an
    array that ends before, the slice is empty.

    Args:
        rows: How many there are.
        most: Numbers at a time; of one row there may be more.
        width: Numbers of each row.
    """
    step = max(1, most // max(1, width))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))
