"""Matches the rows of a table with photos: each row and each file is kept or refused, none is lost."""

import unicodedata
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Protocol

from geoloc_core.corpora.decode import not_a_photo
from geoloc_core.corpora.on_disk import Rows, Shelf, Spool, as_bytes, as_text, files_on, packed, temporary, unpacked
from geoloc_core.corpora.photo import MAX_FILE_BYTES, Flaw, Gps, Photo, Reason, Refusal, as_flaw, load, printable
from geoloc_core.errors import UserError, is_of_the_machine, named

SHOWN = 3
"""Files that a message names."""
HINTS = 1000
"""Missing photos for which files that come near are looked up: of a table without its files, all rows are missing."""
Alias = Callable[[str], str]
"""What else a file may be called, given its path."""


class Store(Protocol):
    """Where a corpus keeps its photos, by name."""

    def names(self) -> Shelf:
        """Every file, for the caller to keep."""
        ...

    def load(self, name: str) -> bytes | Flaw:
        """The bytes of a file, or why they cannot be had."""
        ...


@dataclass(frozen=True)
class Folder:
    """Photos as files below a folder.

    Attributes:
        root: The folder.
        tables: Files there that are known not to be photos.
        suffixed: Whether only files with the suffix of a photo are photos.
        listed: Its photos, where they have been listed before.
    """

    root: Path
    tables: frozenset[str | None] = frozenset()
    suffixed: bool = False
    listed: Shelf | None = None

    def names(self) -> Shelf:
        """Paths relative to the folder; none if it is not there."""
        if self.listed is not None:
            return self.listed
        return files_on(self.root, self.tables) if self.root.is_dir() else Shelf()

    def load(self, name: str) -> bytes | Flaw:
        """The bytes of a file, or why they cannot be had."""
        wrong = not_a_photo(name) if self.suffixed else None
        return (Reason.NOT_A_PHOTO, wrong) if wrong else load(self.root, name)


@dataclass(frozen=True)
class Zips:
    """Photos inside zip files, which are read in place: nothing is unpacked, so no name can lead anywhere.

    Attributes:
        files: The zip files.
        members: Which one holds a name, and the member's entry.
    """

    files: tuple[zipfile.ZipFile, ...]
    members: Shelf

    @classmethod
    def open(cls, paths: Iterable[Path]) -> "Zips":
        """Read the tables of contents.

        Raises:
            UserError: A file is not a zip file.
        """
        files: list[zipfile.ZipFile] = []
        members = Shelf()
        for path in paths:
            try:
                files.append(zipfile.ZipFile(path))
            except Exception as error:  # zipfile raises whatever a damaged table of contents leads to
                if is_of_the_machine(error):
                    raise named(error, path) from None
                why = " ".join(str(error).split()) or type(error).__name__
                raise UserError(f"{path}: not a readable zip file ({why}); fetch it again") from None
            if _overlap(files[-1].infolist()):
                raise UserError(f"{path}: damaged: its members overlap; fetch it again")
            number = len(files) - 1
            for info in files[-1].infolist():
                if info.is_dir():
                    continue
                entry, name = packed((number, *(getattr(info, field) for field in ENTRY))), printable(info.filename)
                # No row can name a second one of a name, so that it is refused.
                for key in (name, f"{path.name}/{name}", f"{path.name}/{info.header_offset}/{name}"):
                    if members.first(key, entry) is None:
                        break
            # What a shelf holds need not be in memory too: entries of five million files would fill it.
            files[-1].filelist.clear()
            files[-1].NameToInfo.clear()
        return cls(tuple(files), members)

    def names(self) -> Shelf:
        """Names of the members."""
        found = Shelf()
        for name in self.members:
            found.first(name)
        return found

    def load(self, name: str) -> bytes | Flaw:
        """The bytes of a member, or why they cannot be had."""
        number, *cells = unpacked(self.members[name])
        info = zipfile.ZipInfo()
        for field, value in zip(ENTRY, cells, strict=True):
            setattr(info, field, value)
        if info.flag_bits & ENCRYPTED:
            return Reason.UNREADABLE, f"{self.files[number].filename}: encrypted"
        if info.file_size > MAX_FILE_BYTES:
            return Reason.TOO_LARGE, f"{info.file_size:,} bytes; at most {MAX_FILE_BYTES:,} are read"
        if info.file_size > SMALL_BYTES and info.file_size > MAX_RATIO * info.compress_size:
            return Reason.TOO_LARGE, (
                f"{info.compress_size:,} bytes that unpack to {info.file_size:,}: implausible for a photo"
            )
        try:
            # No more than was promised is unpacked, whatever the compressed stream holds.
            with self.files[number].open(info) as stream:
                return stream.read(info.file_size + 1)
        except Exception as error:  # zipfile and its decompressors raise whatever damaged bytes lead to
            if is_of_the_machine(error):
                raise named(error, self.files[number].filename) from None
            why = " ".join(str(error).split()) or type(error).__name__
            return Reason.UNREADABLE, f"{self.files[number].filename}: {why}"


ENTRY = ("orig_filename", "compress_type", "flag_bits", "header_offset", "CRC", "compress_size", "file_size")
"""What reading a member needs of its entry."""
ENCRYPTED = 1
SMALL_BYTES, MAX_RATIO = 64 * 2**20, 100
"""A member larger than the former unpacks to at most so many times its size: else a small file fills the memory."""


def _overlap(members: Iterable[zipfile.ZipInfo]) -> bool:
    spans = sorted((info.header_offset, info.compress_size) for info in members)
    return any(start + size > after for (start, size), (after, _) in pairwise(spans))


@dataclass(frozen=True)
class Row:
    """What a table says of a photo.

    Attributes:
        photo: Everything but its bytes.
        names: The names its file may have, the likeliest first.
        where: The table or the row of it, for messages.
        refused: Why its photo is not taken, whatever it is; it is not read then.
        absent: Why there may be no file.
    """

    photo: Photo
    names: tuple[str, ...]
    where: str
    refused: Flaw | None = None
    absent: Flaw | None = None


def listed(
    rows: Iterable[Row | Photo | Refusal],
    store: Store,
    table: str,
    limit: int | None = None,
    alias: Alias | None = None,
) -> Iterator[Photo | Refusal]:
    """Each row with its photo, then the files that no row names.

    A file that a row spells otherwise (:func:`spelling`) is its own if no row names it exactly, no other one spells it
    so and no other file is spelt so. Such rows come after the others.

    Args:
        rows: In the order of the table; anything else is passed on.
        store: Where the photos are.
        table: The table's name, for messages.
        limit: After that many photos the rest is neither read nor refused.
        alias: What else the files may be called.
    """
    files, found = Files(store.names(), alias), 0
    for item in _matched(rows, store, files):
        yield item
        found += isinstance(item, Photo)
        if found == limit:
            return
    yield from unnamed(files, table)


def _matched(rows: Iterable[Row | Photo | Refusal], store: Store, files: "Files") -> Iterator[Photo | Refusal]:
    met, later = Shelf(), Spool()
    for row in rows:
        if not isinstance(row, Row):
            yield row
        elif met.first(row.photo.image_id) is not None:
            yield Refusal(row.photo.image_id, Reason.DUPLICATE, f"in {row.where}: the id occurred before")
        elif (name := files.take(row.names)) is None and files.claim(row.names):
            later.add(_packed(row))
        else:
            yield _item(row, name, store, files)
    for row in map(_unpacked, later):
        yield _item(row, files.take_alike(row.names), store, files)


def _item(row: Row, name: str | None, store: Store, files: "Files") -> Photo | Refusal:
    if row.refused:
        return Refusal(row.photo.image_id, *row.refused)
    if name is None and row.absent:
        return Refusal(row.photo.image_id, *row.absent)
    if name is None:
        detail = f"in {row.where}, but there is no file {row.names[0]}{files.hint(row.names)}"
        return Refusal(row.photo.image_id, Reason.MISSING, detail)
    data = store.load(name)
    if isinstance(data, bytes):
        # Half as slow as `replace`, once a photo.
        return Photo(**{**vars(row.photo), "data": data, "path": printable(name)})
    return Refusal(row.photo.image_id, *data)


def _packed(row: Row) -> bytes:
    taken = row.photo.captured_at
    gps = row.photo.gps
    photo = {**vars(row.photo), "captured_at": taken and taken.isoformat(), "gps": gps and gps.model_dump()}
    return packed({**vars(row), "photo": photo})


def _unpacked(record: bytes) -> Row:
    row = unpacked(record)
    photo = row["photo"]
    taken = photo["captured_at"]
    photo |= {"captured_at": taken and datetime.fromisoformat(taken), "flaw": as_flaw(photo["flaw"])}
    photo |= {"gps": photo["gps"] and Gps(**photo["gps"])}
    flaws = {name: as_flaw(row[name]) for name in ("refused", "absent")}
    return Row(**{**row, **flaws, "photo": Photo(**photo), "names": tuple(row["names"])})


def unnamed(names: Iterable[str], table: str) -> Iterator[Refusal]:
    """Files that a table does not name."""
    for name in names:
        wrong = not_a_photo(name)
        yield Refusal(printable(name), Reason.NOT_A_PHOTO if wrong else Reason.NO_METADATA, wrong or f"not in {table}")


def base(path: str) -> str:
    """A file's name without its folders."""
    return path.rpartition("/")[2]


def spelling(path: str) -> str:
    r"""What the spellings of one path have in common.

    They differ in letter case, in how accents are composed, in ``\`` for ``/``, in ``./``, repeated slashes and
    spaces around a part. ``..`` stays: it leads elsewhere.
    """
    parts = (part.strip() for part in path.replace("\\", "/").split("/"))
    plain = "/".join(part for part in parts if part not in ("", ".")).casefold()
    return plain if plain.isascii() else unicodedata.normalize("NFC", unicodedata.normalize("NFD", plain).casefold())


class Spellings:
    """Names on disk, found by another spelling.

    Args:
        names: Each once.
        alias: What else each may be called.
    """

    def __init__(self, names: Iterable[str], alias: Alias | None = None) -> None:
        self._file = temporary()
        self._file.execute("CREATE TABLE names (stem BLOB, spelling BLOB, name BLOB)")
        self._file.execute("BEGIN")
        self._file.executemany("INSERT INTO names VALUES (?, ?, ?)", self._entries(names, alias))
        # Sorted once, as the rows of a table are (:class:`Rows`).
        self._file.execute("CREATE INDEX spelt ON names (stem, spelling)")

    @staticmethod
    def _entries(names: Iterable[str], alias: Alias | None) -> Iterator[tuple[bytes, bytes, bytes]]:
        for name in names:
            for spelt in {spelling(name), spelling(alias(name)) if alias else spelling(name)}:
                yield as_bytes(_stem(spelt)), as_bytes(spelt), as_bytes(name)

    def alike(self, name: str) -> Iterator[str]:
        """Names that are spelt so."""
        spelt = spelling(name)
        query = "SELECT DISTINCT name FROM names WHERE stem = ? AND spelling = ?"
        found = self._file.execute(query, (as_bytes(_stem(spelt)), as_bytes(spelt)))
        return (as_text(other) for (other,) in found)

    def near(self, name: str) -> list[str]:
        """A few names of the same last part, its suffix aside."""
        query = "SELECT DISTINCT name FROM names WHERE stem = ? LIMIT ?"
        found = self._file.execute(query, (as_bytes(_stem(spelling(name))), SHOWN))
        return [as_text(other) for (other,) in found]


def _stem(spelt: str) -> str:
    last = spelt.rpartition("/")[2]
    return last.rpartition(".")[0] or last


class Files:
    """The files of a corpus, each taken once at most.

    Args:
        names: All of them.
        alias: What else a file may be called.
    """

    def __init__(self, names: Shelf, alias: Alias | None = None) -> None:
        self._names, self._alias = names, alias
        self._claimed, self._contested = Shelf(), Shelf()
        self._hinted = 0

    def __iter__(self) -> Iterator[str]:
        """What was not taken."""
        return iter(self._names)

    @cached_property
    def _spellings(self) -> Spellings:
        # Made when it is needed first: most corpora spell their files as they are.
        return Spellings(self._names.ever, self._alias)

    def take(self, names: Iterable[str]) -> str | None:
        """Take the first of those names that is a file's own; None where none is."""
        return next((name for name in names if self._names.take(name)), None)

    def claim(self, names: Iterable[str]) -> bool:
        """Remember that a row spells a file this way; whether such a file is left."""
        found = self._alike(names)
        for name in found:
            if self._claimed.first(name) is not None:
                self._contested.first(name)
        return bool(found)

    def take_alike(self, names: Iterable[str]) -> str | None:
        """Take the one file that is spelt so, if only one row claimed it; else None."""
        found = self._alike(names)
        alone = len(found) == 1 and found[0] not in self._contested
        return found[0] if alone and self._names.take(found[0]) else None

    def holds(self, names: Iterable[str]) -> bool:
        """Whether a file that is left is named or spelt so."""
        names = tuple(names)
        return any(name in self._names for name in names) or bool(self._alike(names))

    def hint(self, names: Iterable[str]) -> str:
        """For a message, which files come near those names; empty where none does, and after :data:`HINTS` of them."""
        self._hinted += 1
        if self._hinted > HINTS:
            return ""
        names = tuple(names)
        alike = self._alike(names)
        if len(alike) == 1:
            return f"; {printable(alike[0])} differs only in spelling, but another row matches it too"
        if alike:
            return f"; {_shown(alike)} are spelt alike, and it is unclear which one is meant"
        near = [other for name in names for other in self._spellings.near(name)]
        left = [other for other in near if other in self._names]
        if left:
            return f"; the closest file name is {_shown(left)}"
        return f"; the closest file name is {_shown(near)}, which another row names" if near else ""

    def _alike(self, names: Iterable[str]) -> list[str]:
        found = (other for name in names for other in self._spellings.alike(name) if other in self._names)
        return list(dict.fromkeys(islice(found, SHOWN + 1)))


def _shown(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(printable(name) for name in islice(names, SHOWN)))


class Members:
    """The rows of a table, found by the names that files have in an archive that is read once."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    @cached_property
    def _spellings(self) -> Spellings:
        return Spellings(self._rows.keys)

    def find(self, names: Iterable[str]) -> dict[str, tuple[int, dict[str, Any]]]:
        """Number and cells of the row of each name that has one: its own, else the only one that is spelt so."""
        wanted = set(names)
        found = self._rows.find(wanted)
        for name in wanted - set(found):
            alike = list(islice(self._spellings.alike(name), 2))
            if len(alike) == 1:
                found[name] = self._rows.find(alike)[alike[0]]
        return found

    def hint(self, name: str) -> str:
        """For a message, which rows come near a name; empty where none does."""
        near = self._spellings.near(name)
        return f"; the closest name is {_shown(near)}" if near else ""
