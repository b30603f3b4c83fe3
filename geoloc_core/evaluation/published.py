"""The tables of the papers as data, ``published.yaml``: each cell as printed, and what stands for its row here."""

import re
from collections.abc import Iterable, Iterator
from decimal import Decimal, InvalidOperation
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from geoloc_core.contracts.metrics import column
from geoloc_core.plugins import Strict
from geoloc_core.yamls import parse_yaml

DATA = "evaluation/published.yaml"
"""By its path in the package."""
EMPTY = ("–", "N/A")
"""Cells without a figure: left empty, and printed as such."""
COUNTED = "photos"
"""What pairs and units are counted in."""
COSTS = ("parameters", "seconds_per_epoch")
"""What tables print of a model beside its scores: millions of parameters that are trained, and seconds of an epoch."""
TOPS = {"accuracy": 1, "top_5": 5, "top_10": 10}
"""What is told of regions and countries: the k of each metric."""

Kind = Literal["scores", "regions", "countries", "pairs", "units"]


def _cells(value: Any) -> Any:
    return tuple(value.split()) if isinstance(value, str) else value


class Column(Strict):
    """A column of a table.

    Attributes:
        head: What stands above it.
        metric: What it is called here; ``photos`` of pairs and units.
        on: The benchmark, or the held-out split, where its rows do not say it.
        fraction: Whether shares are printed from 0 to 1.
    """

    head: str
    metric: str
    on: str = ""
    fraction: bool = False


class Row(Strict):
    """A row of a table.

    Attributes:
        name: What the paper calls it.
        variants: Those that stand for it, in profiles that have them; the table's if none are named.
        key: What the row is about, in tables of that kind.
        on: The benchmark of all its cells.
        cells: The text of each, its decimal point a point and without other separators.
        note: What is to be known of it.
        unsound: Benchmarks on which its figures are not set beside ours.
    """

    name: str
    variants: tuple[str, ...] = ()
    key: str = ""
    on: str = ""
    cells: Annotated[tuple[str, ...], BeforeValidator(_cells)]
    note: str = ""
    unsound: tuple[str, ...] = ()


class Table(Strict):
    """A table of a paper.

    Attributes:
        id: Its anchor in the report.
        paper: Authors and year.
        name: What the paper calls it.
        caption: What it shows.
        kind: What its rows are, and so where our figures come from.
        data: What its figures stand on.
        on: The benchmark, or the held-out split, of all its cells.
        variants: Those that stand for rows that name none.
        level: Of units: countries or subdivisions.
        corpus: Whose photos are counted.
        ladder: Whether each row adds to the one above it.
        columns: At least one.
        rows: At least one.
    """

    id: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]*$")]
    paper: str
    name: str
    caption: str
    kind: Kind = "scores"
    data: str
    on: str = ""
    variants: tuple[str, ...] = ()
    level: Literal["", "country", "subdivision"] = ""
    corpus: str = ""
    ladder: bool = False
    columns: Annotated[tuple[Column, ...], Field(min_length=1)]
    rows: Annotated[tuple[Row, ...], Field(min_length=1)]

    @property
    def source(self) -> str:
        """What it is cited as."""
        return f"{self.paper}, {self.name}"

    @model_validator(mode="after")
    def _whole(self) -> Self:
        for one in self.columns:
            self._check_metric(one)
        for row in self.rows:
            if len(row.cells) != len(self.columns):
                raise ValueError(f"{self.id}: {row.name}: {len(row.cells)} cells; expected {len(self.columns)}")
            for text in row.cells:
                _check_cell(self.id, row.name, text)
            if bool(row.key) != (self.kind != "scores"):
                raise ValueError(f"{self.id}: {row.name}: expected a key in all tables but those of scores")
            if self.kind != "units" and not all(self._placed(row, one) for one in self.columns):
                raise ValueError(f"{self.id}: {row.name}: not said on which benchmark")
        for one in self.columns:
            if any(value is not None and not _possible(value, one) for value in self._figures(one)):
                raise ValueError(f"{self.id}: {one.head}: expected figures from 0, and shares to 100 %")
        if {bool(self.level), bool(self.corpus)} != {self.kind == "units"}:
            raise ValueError(f"{self.id}: expected level and corpus of units, and of nothing else")
        return self

    def _figures(self, one: Column) -> Iterator[Decimal | None]:
        at = self.columns.index(one)
        return (figure(row.cells[at], one) for row in self.rows)

    def _check_metric(self, one: Column) -> None:
        match self.kind:
            case "pairs" | "units":
                known = one.metric == COUNTED
            case "regions" | "countries":
                known = one.metric in TOPS
            case _:
                known = one.metric in COSTS or column(one.metric) is not None
        if not known:
            raise ValueError(f"{self.id}: {one.metric!r}: no metric of a table of {self.kind}")

    def _placed(self, row: Row, one: Column) -> bool:
        return one.metric in COSTS or bool(self.place(row, one))

    def place(self, row: Row, one: Column) -> str:
        """The benchmark, or the held-out split, of a cell."""
        return row.on or one.on or self.on

    def standing(self, row: Row) -> tuple[str, ...]:
        """The variants that stand for a row."""
        return row.variants or self.variants


def _possible(value: Decimal, one: Column) -> bool:
    found = column(one.metric)
    return value >= 0 and not (found and found.percentage and value > 100)


def _check_cell(table: str, row: str, text: str) -> None:
    try:
        _ = text in EMPTY or Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{table}: {row}: {text!r}; expected a number, – or N/A") from None


def figure(text: str, one: Column) -> Decimal | None:
    """The figure of a cell in the unit of our metric, with the digits of the paper; None where it has none."""
    if text in EMPTY:
        return None
    return Decimal(text).scaleb(2) if one.fraction else Decimal(text)


class Tables(Strict):
    """All tables, in the order of the report."""

    tables: tuple[Table, ...]

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if len({table.id for table in self.tables}) != len(self.tables):
            raise ValueError("tables: two of one id")
        known: dict[tuple[str, str, str], tuple[float, str]] = {}
        for variant, benchmark, metric, value, table in self.figures():
            other, where = known.setdefault((variant, benchmark, metric), (value, table.source))
            if other != value:
                raise ValueError(
                    f"{table.id}: {variant}: {metric} on {benchmark} is {value}, and in {where} {other}; expected one "
                    "row of a variant"
                )
        return self

    def figures(self) -> Iterator[tuple[str, str, str, float, Table]]:
        """Every figure that may stand beside one of ours: variant, benchmark, metric, value and the table."""
        for table in self.tables:
            for row in table.rows if table.kind == "scores" else ():
                for text, one in zip(row.cells, table.columns, strict=True):
                    value, benchmark = figure(text, one), table.place(row, one)
                    if value is None or one.metric in COSTS or benchmark in row.unsound:
                        continue
                    for variant in table.standing(row):
                        yield variant, benchmark, one.metric, float(value), table

    def source(self, variant: str) -> str:
        """Where the rows of a variant are printed; nothing where it stands for none."""
        return cited(table.source for name, _, _, _, table in self.figures() if name == variant)

    def beside(self, variant: str, benchmark: str) -> tuple[dict[str, float], str]:
        """The figures of a variant's rows on a benchmark by metric, and where they are printed."""
        found: dict[str, float] = {}
        sources: dict[str, None] = {}
        for name, place, metric, value, table in self.figures():
            if (name, place) == (variant, benchmark):
                found[metric] = value
                sources[table.source] = None
        return found, "; ".join(sources)


def papers_of(sources: Iterable[str]) -> dict[str, str]:
    """By source of a table, its paper; a source that is of no table known here stands for itself."""
    known = {table.source: table.paper for table in tables().tables}
    return {source: known.get(source, source) for source in sources}


def cited(sources: Iterable[str]) -> str:
    """Sources of tables as one entry per paper, such as “Someone 2024, Tables 2 and 3”."""
    names: dict[str, list[str]] = {}
    for source, paper in papers_of(sources).items():
        names.setdefault(paper, []).append(source.removeprefix(f"{paper}, "))
    return "; ".join(paper if found == [paper] else f"{paper}, {_listed(found)}" for paper, found in names.items())


def _listed(names: list[str]) -> str:
    """Names in a row; the numbers of tables share their word."""
    numbered = [name.removeprefix("Table ") for name in names if re.fullmatch(r"Table \w+", name)]
    if len(numbered) < 2:
        return " and ".join(names)
    others = [name for name in names if not re.fullmatch(r"Table \w+", name)]
    return " and ".join([f"Tables {', '.join(numbered[:-1])} and {numbered[-1]}", *others])


@cache
def tables() -> Tables:
    """The tables of the papers."""
    path = Path(__file__).parents[1] / DATA
    return Tables.model_validate(parse_yaml(path.read_bytes()))
