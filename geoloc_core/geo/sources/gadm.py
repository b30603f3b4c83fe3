"""GADM 4.1, ``gadm_410-levels.gpkg`` (gadm.org).

Free for academic and other non-commercial use; never redistributed.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from geoloc_core.errors import UserError
from geoloc_core.geo import vectors
from geoloc_core.plugins import Strict

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

APPROXIMATE = False
COLUMNS = {
    0: ["GID_0", "COUNTRY"],
    1: ["GID_1", "GID_0", "COUNTRY", "NAME_1", "TYPE_1", "ENGTYPE_1"],
    2: ["GID_2", "GID_0", "COUNTRY", "GID_1", "NAME_1", "NAME_2", "TYPE_2", "ENGTYPE_2"],
}


class Options(Strict):
    """Where the file lies, and that its licence was read."""

    kind: Literal["gadm"]
    path: Path
    """The file, relative to the project."""
    accept_licence: bool = False
    """That the use is academic or otherwise non-commercial, and nothing is redistributed."""


def read(options: Options, root: Path) -> "dict[int, GeoDataFrame]":
    """Countries and two levels of subdivisions.

    Raises:
        UserError: The licence was not accepted, or the file is missing, broken or another.
    """
    if not options.accept_licence:
        raise UserError(
            "boundaries.accept_licence: false; GADM is free for academic and other non-commercial use, and "
            "must not be redistributed (gadm.org/license.html): set it to true if your use is such, or use "
            "natural_earth"
        )
    return {level: _read(root / options.path, level) for level in COLUMNS}


def _read(path: Path, level: int) -> "GeoDataFrame":
    frame = vectors.read(path, COLUMNS[level], layer=f"ADM_{level}")
    text = frame[COLUMNS[level]].replace({"NA": None, "": None})
    frame[COLUMNS[level]] = text
    # GADM fills levels that a country does not have with empty ids: the level above stands for them.
    return vectors.dissolve(frame[text[f"GID_{level}"].notna()], f"GID_{level}")
