"""Databases that are damaged or do not answer: found, and named with what to do."""

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from geoloc_core.errors import UserError
from geoloc_core.registry.tracking import without_secrets
from orchestration.environment import HOME, is_shared, own_home

LOST = "move it away and run the same command again: you lose the history of runs in it, but no data"


@contextmanager
def whole_databases(root: Path) -> Iterator[None]:
    """Say in one line why Dagster's storage cannot be used, if it fails before the block or while it runs.

    Raises:
        UserError: A database under ``.state/dagster`` is damaged; or the instance that ``$DAGSTER_HOME`` names has
            wrong settings, or its database does not answer.
    """
    from sqlalchemy.exc import DatabaseError

    if is_shared(root):
        with _answering(*_of_settings()):
            _look()
        with _answering():
            yield
        return
    try:
        yield
    except DatabaseError:
        check_databases(own_home(root), LOST)
        raise


def _look() -> None:
    from dagster import DagsterInstance

    with DagsterInstance.get() as instance:
        instance.get_runs(limit=1)


def _of_settings() -> list[type[Exception]]:
    """What Dagster raises for settings that it cannot use."""
    from dagster import DagsterInvalidConfigError
    from dagster_shared.check import CheckError
    from yaml import YAMLError

    return [DagsterInvalidConfigError, CheckError, ImportError, YAMLError]


@contextmanager
def _answering(*more: type[Exception]) -> Iterator[None]:
    from sqlalchemy.exc import DatabaseError

    known: list[type[Exception]] = [DatabaseError, *more]
    with suppress(ImportError):  # it is optional, and so may be what is missing
        from dagster_postgres.utils import DagsterPostgresException

        known.append(DagsterPostgresException)
    try:
        yield
    except tuple(known) as error:
        settings = Path(os.environ[HOME]) / "dagster.yaml"
        raise UserError(
            f"{settings}: Dagster's storage cannot be used ({_reason(error)}); correct the settings or their "
            f"variables, start the database, or use the project's own: unset {HOME}"
        ) from None


def _reason(error: Exception) -> str:
    """What is wrong, without the addresses and traces that Dagster and SQLAlchemy add to it."""
    said = str(error.__cause__ or error)
    unset = re.search(r'environment variable "(\w+)" which is not set', said)
    if unset:
        return f"the environment variable {unset[1]} is not set"
    return without_secrets(" ".join(said.partition("\n\n")[0].partition("(Background")[0].split())[:300].strip())


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
