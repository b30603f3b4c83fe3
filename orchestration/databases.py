"""Damaged SQLite databases: found, and named with what to do."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from geoloc_core.errors import UserError

LOST = "move it away and run the same command again: you lose the history of runs in it, but no data"


@contextmanager
def whole_databases(root: Path) -> Iterator[None]:
    """Name the damaged database if Dagster fails to read one while the block runs.

    Raises:
        UserError: A database under ``.state/dagster`` is damaged.
    """
    from sqlalchemy.exc import DatabaseError

    try:
        yield
    except DatabaseError:
        check_databases(root / ".state" / "dagster", LOST)
        raise


def check_databases(folder: Path, remedy: str) -> None:
    """Run SQLite's quick check on all databases under a folder.

    Raises:
        UserError: One is damaged.
    """
    for path in sorted(folder.rglob("*.db")):
        damage = damage_of(path)
        if damage:
            raise UserError(f"{path}: damaged ({damage}); expected an SQLite database; {remedy}")


def damage_of(path: Path) -> str | None:
    """What is wrong with a database; None for a sound one, which an empty file is too."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            found = database.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.OperationalError as error:  # locked by a writer, or cannot be opened: no damage found
        return None if path.is_file() else str(error)
    except sqlite3.DatabaseError as error:
        return str(error)
    return None if found == "ok" else " ".join(str(found).split())
