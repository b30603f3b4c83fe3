"""Untrusted text, escaped for the place where it is shown: file names, authors, licences, countries, server replies.

The data keeps it unchanged. What is shown can neither control a terminal nor act as a link, a picture or code.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from html import escape

JOINERS = "\u200c\u200d"
"""Invisible, and part of how Persian, Hindi and others are written."""

_MARKDOWN = re.compile(
    r"[\\`*\[\]<>&|~$]"
    r"|(?<![^\W_])_|_(?![^\W_])"  # not within a word, where it is no emphasis
    r"|:(?=//)|(?<=[wW]{3})\.|@"  # addresses that become links by themselves
)


def terminal(text: str) -> str:
    r"""Text in one line that is safe for a terminal: invisible characters become escapes such as ``\x1b``.

    These are control codes, line breaks, marks of direction, tags, and halves of surrogate pairs.
    """
    if text.isprintable():
        return text
    return "".join(character if _is_shown(character) else _spelt(character) for character in text)


def _is_shown(character: str) -> bool:
    return character.isprintable() or character in JOINERS or unicodedata.category(character) == "Zs"


def _spelt(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def markdown(text: str) -> str:
    """Text that can stand in a line or a table of Markdown and is shown literally."""
    return _MARKDOWN.sub(r"\\\g<0>", " ".join(terminal(text).split()))


def markdown_table(header: Sequence[str], rule: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """The lines of a table in Markdown.

    Args:
        header: Names of the columns.
        rule: The line below each of them: ``---``, or ``---:`` for numbers.
        rows: The cells as text.
    """
    lines = [map(markdown, header), rule, *(map(markdown, cells) for cells in rows)]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def html(text: str) -> str:
    """Text of HTML, also within an attribute."""
    return escape(terminal(text))


def json(text: str) -> str:
    """The same JSON, safe for a terminal: unsafe characters are escaped."""
    lines = (line if line.isprintable() else _json_line(line) for line in text.split("\n"))
    return "\n".join(lines)


def _json_line(line: str) -> str:
    return "".join(character if _is_shown(character) else _utf16(character) for character in line)


def _utf16(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))
