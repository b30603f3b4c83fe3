"""A table as data: one record, whatever it is drawn in."""

import math
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, Self

from geoloc_core import escape

MISSING = "–"
"""What stands where nothing is known."""
BEST = "★"
"""What marks the best row."""

Tone = Literal["", "best", "strong", "quiet", "bad"]


@dataclass(frozen=True)
class Link:
    """Text that leads to an address.

    Attributes:
        text: What is shown.
        address: Where it leads, if that is a page: relative, or of ``http`` or ``https``.
    """

    text: str
    address: str


Value = str | int | float | Link | None


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        value: A number, text or a link; None where nothing is known.
        interval: How sure it is, beneath it or in square brackets.
        note: What else is known of it, in small print or in brackets.
        hint: Where the note comes from.
        best: Whether it is the best of its column.
        shade: How good it is, from 0 to 1.
        shown: How its number is written, where not as its column says.
    """

    value: Value = None
    interval: str = ""
    note: str = ""
    hint: str = ""
    best: bool = False
    shade: float = 0.0
    shown: str = ""

    @property
    def address(self) -> str | None:
        """Where it leads, if it leads anywhere."""
        return escape.address(self.value.address) if isinstance(self.value, Link) else None

    @property
    def key(self) -> str | None:
        """The number that rows are ordered by; empty where nothing is known, None where the text is what counts."""
        match self.value:
            case str() | Link():
                return None
            case int(number) | float(number) if math.isfinite(number):
                return repr(number)
            case _:
                return ""


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        heading: What stands above it.
        group: What stands above it and its neighbours of the same group, where there is room for that.
        label: What stands above it where there is none; the heading if not given.
        align: On which side its cells stand: numbers on the right.
        format: How its numbers are written, as for :func:`format`.
        first: Which order of its values is asked for first.
        rank: The columns of the highest are left out first where not all fit; those of 0 never are.
    """

    heading: str
    group: str = ""
    label: str = ""
    align: Literal["left", "right"] = "left"
    format: str = ""
    first: Literal["ascending", "descending"] = "ascending"
    rank: int = 0

    @property
    def alone(self) -> str:
        """What stands above it where groups are not shown."""
        return self.label or self.heading

    @classmethod
    def of_numbers(cls, heading: str, format: str = ",") -> Self:  # noqa: A002
        """A column of numbers, such as counts."""
        return cls(heading, align="right", format=format, first="descending")

    def text(self, cell: Cell) -> str:
        """What is shown of a cell, before it is escaped."""
        match cell.value:
            case None:
                return MISSING
            case Link(text=text) | str(text):
                return text
            case number:
                return cell.shown or format(number, self.format)


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        cells: One for each column.
        tone: What sets the row off: the best of all, one to look at first, an aside, or a fault.
    """

    cells: tuple[Cell, ...]
    tone: Tone = ""

    @classmethod
    def of(cls, *values: Cell | Value, tone: Tone = "") -> Self:
        """A row of cells, or of what stands in them."""
        return cls(tuple(value if isinstance(value, Cell) else Cell(value) for value in values), tone)


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        columns: At least one.
        rows: Each with a cell for every column.
        title: What it is about.
        about: What its figures stand on, in a line.
        ordered_by: The column that its rows are in the order of.
    """

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    title: str = ""
    about: str = ""
    ordered_by: Column | None = None

    def __post_init__(self) -> None:
        if not self.columns or any(len(row.cells) != len(self.columns) for row in self.rows):
            raise ValueError(f"{self.title}: expected a cell for every column")

    @property
    def groups(self) -> list[tuple[str, int]]:
        """The groups of columns from left to right, each with how many it has; none where no column is of one."""
        found = [(name, len(list(alike))) for name, alike in groupby(self.columns, key=lambda column: column.group)]
        return found if any(name for name, _ in found) else []

    def pairs(self, row: Row) -> list[tuple[Column, Cell]]:
        """The cells of a row, each with its column."""
        return list(zip(self.columns, row.cells, strict=True))
