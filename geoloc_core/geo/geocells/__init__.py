"""Geocells: the world divided into classes of places, by one of several schemes.

A folder of cells holds ``cells.json`` (scheme, options, which boundaries), ``labels.json`` (the ``LabelSpace``,
which is all that a model needs) and ``arrays.npz`` (what assignment needs). The boundaries themselves stay where they
are.
"""

import io
import os
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from geoloc_core import files
from geoloc_core.errors import UserError
from geoloc_core.geo import sphere
from geoloc_core.geo.geocells.ground import Ground, Points
from geoloc_core.geo.geocells.partition import Made, Partition
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.plugins import Strict, kinds, module_of

SCHEMES = "geoloc_core.geo.geocells.schemes"
KIND = "geocell"
REMEDY = "run `geoloc cells build` again"
VERSION = 1


class Where(Strict):
    """The boundaries that cells were built on."""

    folder: str
    limit_km: float
    units: str


class Card(Strict):
    """What a folder of cells says of itself."""

    version: int
    options: dict[str, Any]
    cells: int
    boundaries: Where


@dataclass(frozen=True)
class Geocells:
    """C cells, built.

    Attributes:
        options: The scheme and its parameters.
        ground: The boundaries they were built on.
        partition: Which cell holds a point.
        space: Their label space; a class is a cell.
        counts: (C,) training points in each.
    """

    options: Strict
    ground: Ground
    partition: Partition
    space: LabelSpace
    counts: np.ndarray

    def __len__(self) -> int:
        return len(self.space)

    def assign(self, latitudes: ArrayLike, longitudes: ArrayLike) -> np.ndarray:
        """Cells (N,) int64 of points (N,) in degrees; −1 outside.

        Raises:
            UserError: A coordinate is not a number or out of range; its row is named.
        """
        return self.partition.assign(Points(*sphere.check(latitudes, longitudes), self.ground))

    def shapes(self) -> np.ndarray:
        """Polygons (C,) in degrees, for maps and areas."""
        return self.partition.shapes()

    def save(self, folder: Path) -> None:
        """Write a folder of cells: the same bytes for the same cells."""
        with files.replacing_folder(folder, "cells") as aside:
            aside.mkdir()
            arrays: dict[str, Any] = {"counts": self.counts, **self.partition.arrays()}
            np.savez_compressed(aside / "arrays.npz", **arrays)
            self.space.save(aside / "labels.json")
            files.write_json(aside / "cells.json", self._card(folder))

    def _card(self, folder: Path) -> dict[str, Any]:
        where = Path(os.path.relpath(self.ground.folder.absolute(), folder.absolute()))
        boundaries = {"folder": where.as_posix(), "limit_km": self.ground.limit_km, "units": self.ground.digest()}
        options = self.options.model_dump(mode="json")
        return {"version": VERSION, "options": options, "cells": len(self), "boundaries": boundaries}


def check(options: dict[str, Any]) -> Strict:
    """The options of a scheme, checked.

    Raises:
        UserError: The scheme does not exist, or a key or value is wrong; all are listed.
    """
    from pydantic import ValidationError

    kind = options.get("kind")
    if kind not in kinds(SCHEMES):
        raise UserError(f"scheme {kind!r}: unknown; expected one of: {', '.join(kinds(SCHEMES))}")
    try:
        checked: Strict = module_of(SCHEMES, kind).Options.model_validate(options)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'options'}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()
        )
        raise UserError(f"scheme {kind}: {wrong}") from None
    return checked


def build(options: Strict, latitudes: ArrayLike, longitudes: ArrayLike, boundaries: Path) -> Geocells:
    """Make the cells of a scheme for points (N,) in degrees.

    Args:
        options: A scheme's ``Options`` (:func:`check`).
        latitudes: (N,) degrees.
        longitudes: (N,) degrees.
        boundaries: A folder of units (``boundaries.write``).

    Raises:
        UserError: There are no points, a coordinate is wrong, or the boundaries are missing.
    """
    lat, lon = sphere.check(latitudes, longitudes)
    if not len(lat):
        raise UserError("points: none; expected at least one to build cells from")
    points = Points(lat, lon, Ground(boundaries))
    made = module_of(SCHEMES, options.kind).build(options, points)  # type: ignore[attr-defined]
    cells = made.partition.assign(points)
    counts = np.bincount(cells[cells >= 0], minlength=len(made.ids)).astype(np.int64)
    return Geocells(options, points.ground, made.partition, _space(made, cells, points), counts)


def _space(made: Made, cells: np.ndarray, points: Points) -> LabelSpace:
    """The label space: each cell at the mean of its points on the sphere, or at its own centre without any."""
    import pandas as pd

    vectors, inside = sphere.unit_vectors(points.latitudes, points.longitudes), cells >= 0
    counts = np.bincount(cells[inside], minlength=len(made.ids))
    sums = [np.bincount(cells[inside], vectors[inside, k], len(made.ids)) for k in range(3)]
    latitudes, longitudes = sphere.coordinates(np.stack(sums, axis=1))
    latitudes, longitudes = (
        np.where(counts > 0, mean, own) for mean, own in ((latitudes, made.latitudes), (longitudes, made.longitudes))
    )
    country, province = (pd.Series(made.gids[:, level]).fillna("") for level in (0, 1))
    continents = country.map(points.ground.table["continent"]).fillna("")
    levels = {
        "subdivision": province.where(province != "", country).tolist(),
        "country": country.tolist(),
        "continent": continents.tolist(),
    }
    return LabelSpace(KIND, made.ids, made.names, levels["country"], latitudes, longitudes, levels)


def load(folder: Path, boundaries: Path | None = None) -> Geocells:
    """Read a folder of cells.

    Args:
        folder: Written by :meth:`Geocells.save`.
        boundaries: Where the boundaries are now; where they were, seen from the folder, when not given.

    Raises:
        UserError: The folder is missing or broken, or the boundaries are not those that the cells were built on.
    """
    card = files.read_json(folder / "cells.json", f"expected a folder of cells; {REMEDY}", Card)
    if card.version != VERSION:
        raise UserError(f"{folder / 'cells.json'}: not cells of version {VERSION}; {REMEDY}")
    options = check(card.options)
    where = boundaries or Path(os.path.normpath(folder / card.boundaries.folder))
    ground = Ground(where, card.boundaries.limit_km)
    if ground.digest() != card.boundaries.units:
        raise UserError(
            f"{where}: not the units that {folder} was built on; give their folder or build the cells again"
        )
    space = LabelSpace.load(folder / "labels.json", REMEDY)
    path = folder / "arrays.npz"
    arrays = _arrays(path)
    try:
        counts = arrays.pop("counts")
        partition = module_of(SCHEMES, options.kind).load(arrays, ground)  # type: ignore[attr-defined]
    except (LookupError, ValueError, TypeError) as error:
        raise UserError(f"{path}: not the arrays of the scheme {options.kind}: {error}; {REMEDY}") from None  # type: ignore[attr-defined]
    if not len(space) == len(counts) == card.cells:
        raise UserError(f"{folder}: {card.cells} cells, {len(space)} labels, {len(counts)} counts; {REMEDY}")
    return Geocells(options, ground, partition, space, counts)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    data = files.read_bytes(path, REMEDY)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [name for name in archive.namelist() if name.endswith(".npy")]
            return {
                name.removesuffix(".npy"): np.lib.format.read_array(archive.open(name), allow_pickle=False)
                for name in names
            }
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, LookupError, RuntimeError) as error:
        raise UserError(f"{path}: damaged: {' '.join(str(error).split())}; {REMEDY}") from None


__all__ = ["Geocells", "build", "check", "load"]
