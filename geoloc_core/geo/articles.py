"""Names of countries as a sentence has them: in the Netherlands, in France."""

from collections.abc import Collection, Iterable

# fmt: off
PIGEON = frozenset((
    "ARE", "ATF", "BHS", "CCK", "COK", "COM", "CYM", "FLK", "FRO", "MDV", "MHL", "MNP", "NLD", "PCN", "PHL", "SLB",
    "SYC", "TCA", "USA", "VGB", "XPI", "XSP",
))
"""The 22 names that get an article in PIGEON's captions, as GADM's codes (Haas et al. 2024, released code)."""
PIGEOTTO = frozenset((
    "ARE", "BHS", "CAF", "CCK", "COD", "COG", "COK", "CYM", "DOM", "ESH", "FLK", "FRO", "GBR", "IMN", "MDV", "MNP",
    "NLD", "PHL", "SLB", "SYC", "TCA", "UMI", "USA", "VAT", "VGB", "VIR", "XCA",
))
"""The 27 names that get one in PIGEOTTO's captions, likewise."""
# fmt: on
RENAMED = {
    "South Georgia and the South Sand": "South Georgia and the South Sandwich Islands",
    "United States Minor Outlying Isl": "United States Minor Outlying Islands",
    "United States Of America": "United States",
    "United States of America": "United States",
}
"""Names that a file has cut short, or that the published captions shorten."""


def with_article(names: Iterable[str], codes: Iterable[str], listed: Collection[str]) -> list[str]:
    """Names of countries with "the" where their ISO 3166-1 alpha-3 code is listed, and never twice."""
    return [_with_article(RENAMED.get(name, name), code in listed) for name, code in zip(names, codes, strict=True)]


def _with_article(name: str, listed: bool) -> str:
    bare = name[4:] if name.lower().startswith("the ") else name
    return f"the {bare}" if listed or bare != name else name
