"""Which countries are taken for which, and how often for a neighbour."""

from dataclasses import dataclass

import numpy as np

from geoloc_core.evaluation.answered import Answered
from geoloc_core.evaluation.report import world
from geoloc_core.report.table import Cell, Column, Row, Table

MOST = 12
"""Countries of a matrix."""
PAIRS = 10
"""Pairs of a table."""


@dataclass(frozen=True)
class Confused:
    """Wrong answers on one benchmark.

    Attributes:
        pairs: The most frequent pairs of countries, either way.
        matrix: Photos of the countries that are confused most, by the country that is answered.
        said: How many go to a neighbour.
    """

    pairs: Table
    matrix: Table
    said: str


def confused(answered: Answered) -> Confused | None:
    """Wrong answers whose country and whose photo's country are known; None where there is none."""
    known = np.array([one is not None for one in answered.true_country], bool) & (answered.country != "")
    true, said = answered.true_country[known].astype(str), answered.country[known].astype(str)
    if not (true != said).any():
        return None
    ids, codes = np.unique(np.r_[true, said], return_inverse=True)
    counts = np.zeros((len(ids), len(ids)), np.int64)
    np.add.at(counts, (codes[: len(true)], codes[len(true) :]), 1)
    wrong = counts - np.diag(np.diag(counts))
    return Confused(_pairs(ids, wrong), _matrix(ids, counts, wrong), _said(ids, wrong))


def _said(ids: np.ndarray, wrong: np.ndarray) -> str:
    rows, columns = np.nonzero(wrong)
    near = sum(int(wrong[i, j]) for i, j in zip(rows, columns, strict=True) if world.borders(ids[i], ids[j]))
    total = int(wrong.sum())
    return f"{total:,} answers are in a wrong country; {near:,} of them ({near / total:.0%}) in one that borders on it."


def _pairs(ids: np.ndarray, wrong: np.ndarray) -> Table:
    either = np.triu(wrong + wrong.T, 1)
    first, second = np.nonzero(either)
    order = np.argsort(-either[first, second], kind="stable")[:PAIRS]
    heads = (
        Column("countries"),
        Column.of_numbers("confused"),
        Column.of_numbers("first for second"),
        Column.of_numbers("second for first"),
        Column("share a border"),
    )
    rows = [
        Row.of(
            f"{world.named(ids[i])} and {world.named(ids[j])}",
            int(either[i, j]),
            int(wrong[i, j]),
            int(wrong[j, i]),
            "yes" if world.borders(ids[i], ids[j]) else "no",
        )
        for i, j in zip(first[order], second[order], strict=True)
    ]
    return Table(heads, tuple(rows), "Most confused", "photos of the one that were taken for the other", heads[1])


def _matrix(ids: np.ndarray, counts: np.ndarray, wrong: np.ndarray) -> Table:
    """The countries with most wrong answers to or from them, from west to east, so that neighbours stand together."""
    busy = wrong.sum(axis=0) + wrong.sum(axis=1)
    most_wrong = np.argsort(-busy, kind="stable")[:MOST]
    east = np.array([world.longitude(str(ids[at])) for at in most_wrong])
    chosen = most_wrong[np.argsort(east, kind="stable")]
    most = max(1, int(counts[np.ix_(chosen, chosen)].max()))
    heads = (Column("photos of"), *(Column.of_numbers(ids[at]) for at in chosen), Column.of_numbers("elsewhere"))
    rows = []
    for at in chosen:
        here = [int(counts[at, to]) for to in chosen]
        cells = [Cell(n, best=to == at and n > 0, shade=n / most) for n, to in zip(here, chosen, strict=True)]
        rows.append(Row.of(f"{world.named(ids[at])} ({ids[at]})", *cells, int(counts[at].sum()) - sum(here)))
    return Table(heads, tuple(rows), "Confusion", "photos of each country (a row), by the country that is answered")
