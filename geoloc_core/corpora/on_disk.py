"""What is looked up and grows with a corpus, on disk: five million rows take no more memory than ten thousand.

SQLite keeps each in a temporary file of its own, where ``TMPDIR`` says, else in ``/var/tmp`` or ``/tmp``. It has no
name and is gone with the process, however that ends.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from geoloc_core.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")

CACHE_KIB = 2 * 1024


def temporary() -> sqlite3.Connection:
    """A database of its own in a temporary file."""
    file = sqlite3.connect("", isolation_level=None)
    # Nothing of it outlives a kill, so nothing need be safe from one.
    for pragma in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{CACHE_KIB}"):
        file.execute(f"PRAGMA {pragma}")
    return file


def in_chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items, so many at a time."""
    every = iter(items)
    while chunk := list(islice(every, size)):
        yield chunk


@contextmanager
def room_on_disk() -> Iterator[None]:
    """Say where room was wanted if there is none left for what a block keeps on disk.

    Raises:
        UserError: SQLite could not write.
    """
    try:
        yield
    except sqlite3.OperationalError as error:
        where = os.environ.get("SQLITE_TMPDIR") or os.environ.get("TMPDIR") or "/var/tmp"  # noqa: S108 - as SQLite does
        raise UserError(f"{where}: {error}; expected space for temporary files; free some, or set TMPDIR") from None


def as_bytes(text: str) -> bytes:
    """Text, or the name of a file whatever bytes it holds, as bytes."""
    return text.encode("utf-8", "surrogateescape")


def as_text(data: bytes) -> str:
    """What :func:`as_bytes` was given."""
    return data.decode("utf-8", "surrogateescape")


class Shelf:
    """Values by key, on disk. Keys are text, or names of files whatever bytes they hold."""

    def __init__(self) -> None:
        self._file = temporary()
        # What was taken off stays, without a value.
        self._file.execute("CREATE TABLE shelf (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID")
        self._file.execute("BEGIN")
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, key: str) -> bool:
        return self.get(key) is not None

    def __iter__(self) -> Iterator[str]:
        """The keys in the order of their bytes. Nothing may be put in or taken out meanwhile."""
        query = "SELECT key FROM shelf WHERE value IS NOT NULL ORDER BY key"
        return (as_text(key) for (key,) in self._file.execute(query))

    @property
    def ever(self) -> Iterator[str]:
        """As iterating, with the keys that were taken off."""
        return (as_text(key) for (key,) in self._file.execute("SELECT key FROM shelf ORDER BY key"))

    def get(self, key: str) -> bytes | None:
        """The value of a key; None where there is none."""
        found = self._file.execute("SELECT value FROM shelf WHERE key = ?", (as_bytes(key),)).fetchone()
        return found[0] if found else None

    def __getitem__(self, key: str) -> bytes:
        found = self.get(key)
        if found is None:
            raise KeyError(key)
        return found

    def count(self, start: str) -> int:
        """How many keys start so; the last character of the start is NUL."""
        assert start.endswith("\0")
        low = as_bytes(start)
        query = "SELECT count(value) FROM shelf WHERE key > ? AND key < ?"
        return int(self._file.execute(query, (low, low[:-1] + b"\1")).fetchone()[0])

    def first(self, key: str, value: bytes = b"") -> bytes | None:
        """The value that a key has already; None where it is new, and has this one from now on."""
        put = "INSERT INTO shelf VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value WHERE value IS NULL"
        if self._file.execute(put, (as_bytes(key), value)).rowcount:
            self._count += 1
            return None
        return self.get(key)

    def take(self, key: str) -> bool:
        """Take a key off; whether it was there."""
        off = "UPDATE shelf SET value = NULL WHERE key = ? AND value IS NOT NULL"
        taken = self._file.execute(off, (as_bytes(key),)).rowcount == 1
        self._count -= taken
        return taken


class Spool:
    """Records on disk, read in the order in which they were written."""

    def __init__(self) -> None:
        self._file = temporary()
        self._file.execute("CREATE TABLE spool (number INTEGER PRIMARY KEY, record BLOB)")
        self._file.execute("BEGIN")

    def add(self, record: bytes) -> None:
        """Append a record."""
        self._file.execute("INSERT INTO spool (record) VALUES (?)", (record,))

    def __iter__(self) -> Iterator[bytes]:
        return (record for (record,) in self._file.execute("SELECT record FROM spool ORDER BY number"))


def packed(record: Any) -> bytes:
    """Text, numbers, bytes, None and tuples and mappings of them, as bytes."""
    import msgpack

    return bytes(msgpack.packb(record, unicode_errors="surrogateescape"))


def unpacked(data: bytes) -> Any:
    """What :func:`packed` was given, tuples as lists."""
    import msgpack

    return msgpack.unpackb(data, unicode_errors="surrogateescape", strict_map_key=False)


def files_on(folder: Path, others: Iterable[str | None] = ()) -> Shelf:
    """All files below a folder as relative paths with ``/``, hidden ones and dead links too.

    Args:
        folder: A folder.
        others: Paths to leave out.

    Raises:
        UserError: A folder cannot be read.
    """
    found, others, at = Shelf(), frozenset(others), ""
    try:
        # A folder is gone into as it is met, since a list of a corpus' folders may be as long as that of its files.
        inside = [("", os.scandir(folder))]
        while inside:
            parent, entries = inside[-1]
            entry = next(entries, None)
            if entry is None:
                inside.pop()
                continue
            path = f"{parent}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                at = path
                inside.append((f"{path}/", os.scandir(entry.path)))
            elif path not in others:
                found.first(path)
    except OSError as error:
        raise UserError(f"{folder / at}: {error.strerror}; expected a folder that can be read") from None
    return found


class Rows:
    """A table on disk, its rows found by key.

    Of rows with one key the first counts; :attr:`again` names the others.

    Attributes:
        columns: The table's.
        total: How many rows it has.
        last: The highest number of a row, 0 where there is none.

    Args:
        chunks: The table in pieces of the same columns, each indexed by the rows' numbers, which rise. There is one at
            least.
        key: The column of keys, text.
    """

    def __init__(self, chunks: Iterable["pd.DataFrame"], key: str) -> None:
        self._file = temporary()
        self._file.execute("CREATE TABLE rows (number INTEGER PRIMARY KEY, key BLOB, cells BLOB)")
        self._file.execute("BEGIN")
        self.columns: tuple[str, ...] = ()
        for chunk in chunks:
            self.columns = tuple(chunk.columns)
            at = 1 + self.columns.index(key)
            plain = chunk.astype(object).where(chunk.notna(), None)
            self._file.executemany(
                "INSERT INTO rows VALUES (?, ?, ?)",
                ((row[0], as_bytes(row[at]), packed(row[1:])) for row in plain.itertuples(name=None)),
            )
        # Sorted once at the end: keys come in any order, and putting each in its place would touch a page per row.
        self._file.execute("CREATE INDEX by_key ON rows (key)")
        self.total, last = self._file.execute("SELECT count(*), max(number) FROM rows").fetchone()
        self.last = last or 0
        self._file.execute(
            "CREATE TABLE again AS SELECT * FROM rows WHERE EXISTS "
            "(SELECT 1 FROM rows AS other WHERE other.key = rows.key AND other.number < rows.number)"
        )
        doubles = self._file.execute("DELETE FROM rows WHERE number IN (SELECT number FROM again)").rowcount
        self._count = self.total - doubles

    def __len__(self) -> int:
        """Different keys."""
        return self._count

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Number and cells of each row that counts, in the order of the table."""
        return self._listed("SELECT number, cells FROM rows ORDER BY number")

    @property
    def again(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Number and cells of each row whose key occurred before, in the order of the table."""
        return self._listed("SELECT number, cells FROM again ORDER BY number")

    @property
    def keys(self) -> Iterator[str]:
        """The different keys, in their order."""
        return (as_text(key) for (key,) in self._file.execute("SELECT DISTINCT key FROM rows ORDER BY key"))

    def find(self, keys: Iterable[str]) -> dict[str, tuple[int, dict[str, Any]]]:
        """The rows of those keys that have one: number and cells, None where a cell is missing."""
        found = {}
        for key in keys:
            row = self._file.execute("SELECT number, cells FROM rows WHERE key = ?", (as_bytes(key),)).fetchone()
            if row:
                found[key] = row[0], self._cells(row[1])
        return found

    def _listed(self, query: str) -> Iterator[tuple[int, dict[str, Any]]]:
        return ((number, self._cells(cells)) for number, cells in self._file.execute(query))

    def _cells(self, record: bytes) -> dict[str, Any]:
        return dict(zip(self.columns, unpacked(record), strict=True))
