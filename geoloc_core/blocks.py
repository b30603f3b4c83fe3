"""Rows that are worked on some at a time, so that what is made of them fits in memory."""

from collections.abc import Iterator


def blocks(rows: int, most: int, width: int = 1) -> Iterator[slice]:
    """Slices of so many rows, one after the other; the last may be shorter.

    There are none of no rows. A caller that joins what it makes of the blocks, and so needs one even then, asks for
    ``max(1, rows)``: of an array without rows the slice is empty.

    Args:
        rows: How many there are.
        most: Numbers at a time; a row that has more is a block of its own.
        width: Numbers of each row.
    """
    step = max(1, most // max(1, width))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))
