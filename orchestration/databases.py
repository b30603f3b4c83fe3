"""SQLite databases that a disk, a copy or another program left damaged."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from geoloc_core.errors import UserError

LOST = "move it away and run the same command again: the history of runs that it held is lost, no data is"


@contextmanager
def whole_databases(root: Path) -> Iterator[None]:
    """Name the damaged database where Dagster finds in the middle of the block that one is.

    Raises:
        UserError: One under ``.state/dagster`` is not whole.
    """
    from sqlalchemy.exc import DatabaseError

    try:
        yield
    except DatabaseError:
        check_databases(root / ".state" / "dagster", LOST)
        raise


def check_databases(folder: Path, remedy: str) -> None:
    """Read all SQLite databases under a folder.

    Raises:
        UserError: One is not whole.
    """
    for path in sorted(folder.rglob("*.db")):
        damage = damage_of(path)
        if damage:
            raise UserError(f"{path}: damaged ({damage}); expected an SQLite database; {remedy}")


def damage_of(path: Path) -> str | None:
    """What is wrong with a database; an empty file is one without tables."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            found = database.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.OperationalError as error:  # locked by a writer, or not to be opened: no damage that was seen
        return None if path.is_file() else str(error)
    except sqlite3.DatabaseError as error:
        return str(error)
    return None if found == "ok" else " ".join(str(found).split())
