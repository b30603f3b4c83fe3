"""S2 cells of limited population (Müller-Budack et al. 2018, "Adaptive Geo-Cell Partitioning").

PlaNet (Weyand et al. 2016) introduced such cells. Division starts from large cells. One with more than ``tau_max``
photos is split in four, and one that ends with fewer than ``tau_min`` is dropped: a place there has no class. The
published partitions (``cells_50_5000.csv`` …) are read and
written; some copies went through a spreadsheet, which took tokens such as ``47e9`` for numbers, and their tokens are
restored from the mean coordinates.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field, model_validator

from geoloc_core import files, tables
from geoloc_core.errors import UserError
from geoloc_core.geo import s2
from geoloc_core.geo.geocells.ground import Ground, Points
from geoloc_core.geo.geocells.partition import Made, units_of
from geoloc_core.plugins import Strict

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("class_label", "hex_id", "imgs_per_cell", "latitude_mean", "longitude_mean")


class Options(Strict):
    """How many photos a cell has, or which published partition to take."""

    kind: Literal["s2"]
    tau_min: int = Field(50, ge=1)
    """A cell with fewer photos is dropped."""
    tau_max: int = Field(5000, ge=1)
    """A cell with more is split."""
    min_level: int = Field(2, ge=0, le=30)
    """Level of the largest cells."""
    max_level: int = Field(30, ge=0, le=30)
    """Level of the smallest."""
    file: Path | None = None
    """A published partition, whose classes are taken as they are."""

    @model_validator(mode="after")
    def _ordered(self) -> "Options":
        if self.min_level > self.max_level or self.tau_min > self.tau_max:
            raise ValueError("expected min_level ≤ max_level and tau_min ≤ tau_max")
        return self


@dataclass(frozen=True)
class S2Cells:
    """C disjoint cells.

    Attributes:
        cells: (C,) uint64 ids, in the order of the classes.
    """

    cells: np.ndarray

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        order = np.argsort(self.cells)
        first, last = s2.leaf_ranges(self.cells[order])
        return order, first, last

    def assign(self, points: Points) -> np.ndarray:
        """Cells (N,) int64 of points; −1 in none."""
        order, first, last = self._sorted
        leaf = s2.leaves(points.latitudes, points.longitudes)
        at = np.searchsorted(first, leaf, side="right") - 1
        inside = (at >= 0) & (leaf <= last[at])
        return np.where(inside, order[at], -1)

    def arrays(self) -> dict[str, np.ndarray]:
        """The ids."""
        return {"cells": self.cells}

    def shapes(self) -> np.ndarray:
        """Polygons (C,) in degrees; the sides, great circles, are drawn in steps."""
        import shapely

        from geoloc_core.geo.catchments import fold

        latitudes, longitudes = (np.repeat(axis, 2, axis=1)[:, 1:-1] for axis in s2.outlines(self.cells))
        # A corner at a pole has no longitude: the outline goes along the frame's edge from one side to the other.
        pole = np.abs(latitudes) > 90 - 1e-6
        before, after = np.roll(longitudes, 1, axis=1), np.roll(longitudes, -1, axis=1)
        longitudes = np.where(pole, np.where(np.roll(pole, 1, axis=1), after, before), longitudes)
        # Beyond ±180° and back is what crosses the antimeridian.
        longitudes = np.unwrap(longitudes, period=360, axis=1)
        turn = longitudes[:, -1] - longitudes[:, 0]
        polygons = shapely.polygons(np.stack([longitudes, latitudes], axis=2))
        for row in np.flatnonzero(np.abs(turn) > 180):
            polygons[row] = _around_pole(latitudes[row], longitudes[row])
        return fold(shapely.make_valid(polygons))


def _around_pole(latitudes: np.ndarray, longitudes: np.ndarray) -> object:
    """The polygon of an outline that goes once around the Earth."""
    import shapely

    pole = float(np.sign(latitudes.mean()) * 90)
    xy = np.column_stack([longitudes, latitudes])
    ends = np.array([[longitudes[-1], pole], [longitudes[0], pole]])
    return shapely.Polygon(np.concatenate([xy, ends]))


def build(options: Options, points: Points) -> Made:
    """Split and drop cells, or take a published partition."""
    ids = _read_ids(options.file) if options.file else _split(options, s2.leaves(points.latitudes, points.longitudes))
    if not len(ids):
        raise UserError(f"points: no cell has {options.tau_min} points; expected more points or a smaller tau_min")
    partition, centres = S2Cells(ids), s2.centres(ids)
    tokens = s2.tokens(ids)
    return Made(partition, tokens, tokens, *centres, units_of(partition, points, Points(*centres, points.ground)))


def _split(options: Options, leaves: np.ndarray) -> np.ndarray:
    """Ids (C,) of the cells of leaves (N,), in the order of the curve."""
    found = []
    for level in range(options.min_level, options.max_level + 1):
        cells, back, counts = np.unique(s2.parents(leaves, level), return_inverse=True, return_counts=True)
        done = (counts <= options.tau_max) | (level == options.max_level)
        found.append(cells[done & (counts >= options.tau_min)])
        leaves = leaves[~done[back]]
    return np.sort(np.concatenate(found))


def _read_ids(path: Path) -> np.ndarray:
    return s2.from_tokens(read_published(path)["hex_id"].tolist())


def read_published(path: Path) -> "pd.DataFrame":
    """A published partition: :data:`COLUMNS`, in the order of the classes, ``hex_id`` a valid token.

    Raises:
        UserError: The file is missing or no partition; the first bad row is named.
    """
    import pandas as pd
    import pyarrow as pa

    from geoloc_core.corpora.tables import read_csv

    table = read_csv(path, COLUMNS)[list(COLUMNS)]
    for column in COLUMNS:
        if column == "hex_id":
            continue
        wrong = np.isnan(tables.numbers(pa.array(table[column], pa.string())))
        if wrong.any():
            row = table.index[int(wrong.argmax())]
            raise UserError(f"{path}, row {row}: {column}: not a number; expected a partition")
        table[column] = pd.to_numeric(table[column])  # whole numbers stay whole
    tokens = _restored(table["hex_id"], table["latitude_mean"].to_numpy(), table["longitude_mean"].to_numpy())
    if (tokens == "").any():
        row = int((tokens == "").argmax())
        raise UserError(
            f"{path}, row {table.index[row]}: hex_id {table['hex_id'].iloc[row]!r}: no S2 cell that holds the mean "
            "coordinates; expected a token"
        )
    table["hex_id"] = tokens
    wrong = table["class_label"].to_numpy() != np.arange(len(table))
    if wrong.any():
        raise UserError(f"{path}, row {table.index[wrong.argmax()]}: class_label: expected {int(wrong.argmax())}")
    return table.reset_index(drop=True)


def _restored(texts: "pd.Series", latitudes: np.ndarray, longitudes: np.ndarray) -> np.ndarray:
    """Tokens (C,) of texts, those that a spreadsheet took for numbers restored; "" where no token fits.

    A cell holds the mean coordinates of its photos and of no other cell's; of several such the largest is taken.
    """
    tokens = texts.to_numpy(dtype=object).copy()
    certain = _holds(tokens.tolist(), latitudes, longitudes)
    means = np.sort(s2.leaves(latitudes, longitudes))
    low, high = s2.leaf_ranges(np.sort(s2.from_tokens(tokens[certain].tolist())))
    for row in np.flatnonzero(~certain):
        guesses = sorted(_guesses(tokens[row]))
        fits = _holds(guesses, *(np.full(len(guesses), axis[row]) for axis in (latitudes, longitudes)))
        ids = s2.from_tokens([guess for guess, fit in zip(guesses, fits, strict=True) if fit])
        first, last = s2.leaf_ranges(ids)
        alone = np.searchsorted(means, last, side="right") - np.searchsorted(means, first) == 1
        free = ids[alone & (np.searchsorted(high, first) == np.searchsorted(low, last, side="right"))]
        tokens[row] = "".join(s2.tokens(free[np.argsort(s2.levels(free), kind="stable")[:1]]))
    return tokens


def _holds(tokens: list[str], latitudes: np.ndarray, longitudes: np.ndarray) -> np.ndarray:
    """Whether each text (N,) is the token of a cell that holds a point (N,)."""
    ids = s2.from_tokens(tokens)
    first, last = s2.leaf_ranges(ids)
    leaf = s2.leaves(latitudes, longitudes)
    plain = np.array([not text.endswith("0") for text in tokens], dtype=bool)
    return s2.is_valid(ids) & (first <= leaf) & (leaf <= last) & plain


def _guesses(text: str) -> set[str]:
    """What a spreadsheet may have made ``text`` of: 4.7E+064 of 47e63, 477000 of 477e3, 71 of 071."""
    head, _, power = text.lower().partition("e+")
    whole, _, fraction = head.partition(".")
    digits = (whole + fraction).rstrip("0")
    if not re.fullmatch("[0-9]+", whole + fraction) or not re.fullmatch("[0-9]*", power):
        return set()
    if whole == "0" and not power:
        # Nought times any power of ten.
        return {f"0e{number:0{width}}" for width in (1, 2, 3) for number in range(1000)}
    zeros = int(power or 0) + len(whole) - len(digits)
    plain = {whole.zfill(width) for width in range(len(whole), 17)} if not power else set()
    shifted = {
        "0" * lead + digits + "0" * more + "e" + "0" * pad + str(zeros - more)
        for more in range(min(zeros, 15) + 1)
        for pad in range(3)
        for lead in range(3)
    }
    return {guess for guess in plain | shifted if digits and len(guess) <= 16}


def write_published(table: "pd.DataFrame", path: Path) -> None:
    """Write a partition as it is published: a line per class, numbers as they were read."""
    if path.suffix.lower() != ".csv":
        raise UserError(f"{path}: expected a name that ends in .csv")
    with files.replacing(path) as aside:
        table[list(COLUMNS)].to_csv(aside, index=False, lineterminator="\n")


def published(cells: np.ndarray, counts: np.ndarray, latitudes: np.ndarray, longitudes: np.ndarray) -> "pd.DataFrame":
    """The table of a partition of ours, in the published columns."""
    import pandas as pd

    values = (np.arange(len(cells)), s2.tokens(cells), counts, latitudes, longitudes)
    return pd.DataFrame(dict(zip(COLUMNS, values, strict=True)))


def load(arrays: dict[str, np.ndarray], ground: Ground) -> S2Cells:
    """The partition of saved arrays."""
    return S2Cells(**arrays)
