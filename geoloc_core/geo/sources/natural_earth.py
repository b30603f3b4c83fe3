"""Natural Earth's countries at any scale (public domain, naturalearthdata.com)."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from geoloc_core.geo import vectors
from geoloc_core.plugins import Strict

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

APPROXIMATE = False
NOT_ISO = {"KOS": "XKX"}
"""Codes in wide use for countries that ISO 3166 leaves out."""


class Options(Strict):
    """Where the file lies."""

    kind: Literal["natural_earth"]
    path: Path
    """``ne_*_admin_0_countries`` as GeoPackage, GeoJSON or shapefile; relative to the project."""


def read(options: Options, root: Path) -> "dict[int, GeoDataFrame]":
    """Countries in GADM's schema.

    Raises:
        UserError: The file is missing, broken, or not one of Natural Earth's countries.
    """
    import numpy as np
    import shapely

    frame = vectors.read(root / options.path, ["ISO_A3_EH", "ADM0_A3", "ADMIN"])
    fallback = frame["ADM0_A3"].replace(NOT_ISO)
    frame["GID_0"] = frame["ISO_A3_EH"].where(frame["ISO_A3_EH"].str.fullmatch("[A-Z]{3}", na=False), fallback)
    # Some codes have several rows (a country and its islands): the largest names the country.
    frame = frame.iloc[np.argsort(-shapely.area(frame.geometry.to_numpy()), kind="stable")]
    return {0: vectors.dissolve(frame.rename(columns={"ADMIN": "COUNTRY"}), "GID_0")[["GID_0", "COUNTRY", "geometry"]]}
