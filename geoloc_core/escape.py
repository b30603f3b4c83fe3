"""Untrusted text, escaped for the place where it is shown: file names, authors, licences, countries, server replies.

The data keeps it unchanged. What is shown can neither control a terminal nor act as a link, a picture or code.
"""

import re
import unicodedata
from urllib.parse import quote

JOINERS = "\u200c\u200d"
"""Invisible, and part of how Persian, Hindi and others are written."""

_MARKDOWN = re.compile(
    r"[\\`*\[\]<>&|~$#]"
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


def address(text: str) -> str | None:
    """Where a link may lead, in letters that no format takes for its own: a page of the web, or a relative path.

    None for anything else, such as a script.
    """
    found = quote(text, safe="/:?#[]@!$&'()*+,;=%~", errors="replace")
    scheme = re.match(r"[a-z][a-z0-9+.-]*(?=:)", found, re.IGNORECASE)
    return found if found and (scheme is None or scheme[0].lower() in ("http", "https")) else None


def json(text: str) -> str:
    """The same JSON, safe for a terminal: unsafe characters are escaped."""
    lines = (line if line.isprintable() else _json_line(line) for line in text.split("\n"))
    return "\n".join(lines)


def script(text: str) -> str:
    """JSON within a script of HTML: no tag, which could end or open a script, begins in it."""
    return json(text).replace("<", "\\u003c")


def _json_line(line: str) -> str:
    return "".join(character if _is_shown(character) else _utf16(character) for character in line)


def _utf16(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))
