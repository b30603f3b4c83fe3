"""Crawls that look again: when what was gone is to be asked for once more."""

import time
from pathlib import Path

from geoloc_core.errors import UserError
from geoloc_core.files import read_json

AGAIN = "again.json"
"""Beside what a crawl has brought: ``at``, seconds since the epoch, and how many ``addresses``."""


def due(state: Path) -> dict[str, int]:
    """The corpora whose crawl is to look again now, and how many addresses each asks for.

    Args:
        state: The project's ``.state``.
    """
    found = {}
    for note in sorted((state / "partial" / "fetch").glob(f"*/{AGAIN}")):
        try:
            known = read_json(note, shape=dict[str, float])
            if known["at"] < time.time():
                found[note.parent.name] = int(known["addresses"])
        except (UserError, KeyError):  # half of one: the next fetch writes it again
            continue
    return found
