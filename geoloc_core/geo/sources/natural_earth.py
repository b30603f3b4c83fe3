"""Natural Earth at any scale (public domain, naturalearthdata.com): countries and, if given, subdivisions."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from geoloc_core import progress
from geoloc_core.geo import vectors
from geoloc_core.pins import Sha256
from geoloc_core.plugins import Strict

if TYPE_CHECKING:
    from geopandas import GeoDataFrame
    from pandas import DataFrame, Series

APPROXIMATE = False
NOT_ISO = {"KOS": "XKX"}
"""Codes in wide use for countries that ISO 3166 leaves out."""
OPTIONAL = ["ADM1_CODE", "NAME", "ISO_3166_2", "TYPE", "TYPE_EN"]
"""What only some files of subdivisions have."""
COLUMNS = ["GID_1", "GID_0", "COUNTRY", "NAME_1", "TYPE_1", "ENGTYPE_1", "ISO_1"]


class Options(Strict):
    """Where the files lie, relative to the project."""

    kind: Literal["natural_earth"]
    path: Path
    """``ne_*_admin_0_countries`` as GeoPackage, GeoJSON or shapefile."""
    subdivisions: Path | None = None
    """``ne_10m_admin_1_states_provinces``, or a file made from it that has ADM0_A3, NAME, or more of its columns."""
    sha256: Sha256 | None = None
    """Checksum of the files, so that others make the stage stale: the stage asks for it, and says which it is."""


def files(options: Options, root: Path) -> list[Path]:
    """The one file or both."""
    return [root / path for path in (options.path, options.subdivisions) if path]


def read(options: Options, root: Path) -> "dict[int, GeoDataFrame]":
    """Countries and perhaps subdivisions in GADM's schema.

    Raises:
        UserError: A file is missing, broken, or not one of Natural Earth's.
    """
    frame = vectors.read(root / options.path, ["ISO_A3_EH", "ADM0_A3", "ADMIN"])
    fallback = frame["ADM0_A3"].replace(NOT_ISO)
    frame["GID_0"] = frame["ISO_A3_EH"].where(frame["ISO_A3_EH"].str.fullmatch("[A-Z]{3}", na=False), fallback)
    # Some codes have several rows (a country and its islands): the largest names the country.
    joined = vectors.dissolve(vectors.largest_first(frame).rename(columns={"ADMIN": "COUNTRY"}), "GID_0")
    countries = joined[["GID_0", "COUNTRY", "geometry"]]
    if options.subdivisions is None:
        return {0: countries}
    codes = frame.drop_duplicates("ADM0_A3").set_index("ADM0_A3")["GID_0"]
    return {0: countries, 1: _subdivisions(root / options.subdivisions, codes, countries)}


def _subdivisions(path: Path, codes: "Series", countries: "DataFrame") -> "GeoDataFrame":
    """First-level units of the countries; ``codes`` maps Natural Earth's own codes of countries to ours."""
    frame = vectors.read(path, ["ADM0_A3"], optional=OPTIONAL)
    frame["GID_0"] = frame["ADM0_A3"].map(codes)
    lost = frame["GID_0"].isna()
    if lost.any():
        names = ", ".join(sorted(set(frame["ADM0_A3"][lost].astype(str))))
        progress.say(f"boundaries: {path}: {lost.sum():,} rows left out, their countries are not in the file: {names}")
    frame = vectors.largest_first(frame[~lost])
    known = countries.set_index("GID_0")["COUNTRY"]
    frame = frame.assign(
        GID_1=frame["ADM1_CODE"].fillna(vectors.numbered(frame, "GID_0", "NAME")),
        COUNTRY=frame["GID_0"].map(known),
        NAME_1=frame["NAME"],
        TYPE_1=frame["TYPE"],
        ENGTYPE_1=frame["TYPE_EN"],
        ISO_1=frame["ISO_3166_2"],
    )
    return vectors.dissolve(frame, "GID_1")[[*COLUMNS, "geometry"]]
