"""Rows of a table and the photos they name: each row and each file is kept or refused, none is lost."""

import pickle
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from geoloc_core.corpora.decode import not_a_photo
from geoloc_core.corpora.on_disk import Shelf, files_on
from geoloc_core.corpora.photo import MAX_FILE_BYTES, Flaw, Photo, Reason, Refusal, load, printable
from geoloc_core.errors import UserError


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
        tables: Files there that are no photos and are known not to be.
    """

    root: Path
    tables: frozenset[str | None] = frozenset()

    def names(self) -> Shelf:
        """Paths relative to the folder."""
        return files_on(self.root, self.tables)

    def load(self, name: str) -> bytes | Flaw:
        """The bytes of a file, or why they cannot be had."""
        return load(self.root, name)


@dataclass(frozen=True)
class Zips:
    """Photos inside zip files, which are read in place: nothing is unpacked, so no name can lead anywhere.

    Attributes:
        files: The zip files.
        members: Which one holds a name, and the member's entry, pickled.
    """

    files: tuple[zipfile.ZipFile, ...]
    members: Shelf

    @classmethod
    def open(cls, paths: Iterable[Path]) -> "Zips":
        """Read the tables of contents.

        Raises:
            UserError: A file is no zip file.
        """
        files: list[zipfile.ZipFile] = []
        members = Shelf()
        for path in paths:
            try:
                files.append(zipfile.ZipFile(path))
            except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
                raise UserError(f"{path}: not a readable zip file ({error}); fetch it again") from None
            number = len(files) - 1
            for info in files[-1].infolist():
                entry = pickle.dumps((number, info))
                if not info.is_dir() and members.first(info.filename, entry) is not None:
                    # No row can name it, so that it is refused.
                    members.first(f"{path.name}/{info.filename}", entry)
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
        import zlib

        number, info = pickle.loads(self.members[name])  # noqa: S301 - written by this process, for itself alone
        if info.file_size > MAX_FILE_BYTES:
            return Reason.TOO_LARGE, f"{info.file_size:,} bytes; at most {MAX_FILE_BYTES:,} are read"
        try:
            # No more than was promised is unpacked, whatever the compressed stream holds.
            with self.files[number].open(info) as stream:
                return stream.read(info.file_size + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError) as error:
            return Reason.UNREADABLE, f"{self.files[number].filename}: {error}"


@dataclass(frozen=True)
class Row:
    """What a table says of a photo.

    Attributes:
        photo: Everything but its bytes.
        names: The names its file may have, the likeliest first.
        refused: Why its photo is not taken, whatever it is; it is not read then.
    """

    photo: Photo
    names: tuple[str, ...]
    refused: Flaw | None = None


def listed(
    rows: Iterable[Row | Refusal], store: Store, table: str, limit: int | None = None
) -> Iterator[Photo | Refusal]:
    """Each row with its photo, then the files that no row names.

    Args:
        rows: In the order of the table.
        store: Where the photos are.
        table: The table's name, for messages.
        limit: After that many photos the rest is neither read nor refused.
    """
    files, met = store.names(), Shelf()
    found = 0
    for row in rows:
        if isinstance(row, Refusal):
            yield row
            continue
        photo = row.photo
        if met.first(photo.image_id) is not None:
            yield Refusal(photo.image_id, Reason.DUPLICATE, f"in {table}: the id occurred before")
            continue
        name = next((name for name in row.names if files.take(name)), None)
        if row.refused:
            yield Refusal(photo.image_id, *row.refused)
            continue
        if name is None:
            yield Refusal(photo.image_id, Reason.MISSING, f"in {table}, but there is no file {row.names[0]}")
            continue
        data = store.load(name)
        if isinstance(data, bytes):
            yield replace(photo, data=data, path=name)
            found += 1
            if found == limit:
                return
        else:
            yield Refusal(photo.image_id, *data)
    yield from unnamed(files, table)


def unnamed(names: Iterable[str], table: str) -> Iterator[Refusal]:
    """Files that a table does not name."""
    for name in names:
        wrong = not_a_photo(name)
        yield Refusal(printable(name), Reason.NOT_A_PHOTO if wrong else Reason.NO_METADATA, wrong or f"not in {table}")
