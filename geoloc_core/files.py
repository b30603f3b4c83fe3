"""Files that are complete or absent, that replace only earlier results, and that are verified when they are read."""

import errno
import hashlib
import json
import os
import re
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import TYPE_CHECKING, Any

from geoloc_core.errors import UserError, in_a_line

if TYPE_CHECKING:
    import numpy as np
    from pydantic import BaseModel

CHECKSUMS = "checksums.json"
"""In each folder that is written here: all its files with their SHA-256; Parquet has checksums of its own, and null."""
CHEAP = 64 * 2**20
"""Bytes up to which a file is verified before it is mapped into memory: this takes a twentieth of a second."""
DEVICES = (Path("/dev"), Path("/proc"), Path("/sys"))
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108
"""A disk in memory among the devices, where plain files may be."""
DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO})
NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK, errno.ENOSYS})
"""Errors of file systems that have no hard links, or no more of them for a file."""
ROOM = 2**20
"""Bytes below which a disk counts as full when a library could not write and does not say why."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file aside, and put it in place only when the block succeeds.

    A plain file that is there is replaced. Of a link to a file the link is replaced, never what it leads to.

    Yields:
        The path to write to, in the same folder. It does not exist yet; ``path`` is untouched until the end.

    Raises:
        UserError: The file cannot be written: see :func:`check_file`.
    """
    check_file(path)
    with _aside(path) as aside:
        yield aside
        check_file(path)
        os.replace(aside, path)


@contextmanager
def replacing_folder(path: Path, kind: str | None = None, own: bool = False) -> Iterator[Path]:
    """Write a folder aside, and put it in place with a list of its checksums only when the block succeeds.

    Args:
        path: The folder.
        kind: What it holds, such as ``cells``. Left out for a published layout, which has to stay as it is: such a
            folder gets no list.
        own: Whether a folder without a list may be replaced, because the caller knows that it wrote the folder.

    Yields:
        The path to write to, in the same folder. It does not exist yet; ``path`` is untouched until the end.

    Raises:
        UserError: The folder cannot be written or must not be replaced: see :func:`check_folder`.
    """
    _restore(path, kind)
    check_folder(path, kind, own)
    with _aside(path) as aside:
        yield aside
        if kind is not None:
            write_checksums(aside, kind)
        check_folder(path, kind, own)
        _swap(aside, path)


def check_file(path: Path) -> None:
    """Find out, before any work, whether :func:`replacing` may write a file.

    Raises:
        UserError: The path is a folder or a device, or cannot be created.
    """
    if path.is_dir():
        raise UserError(f"{path}: a folder; expected the name of a file to write; choose another name")
    place = Path(os.path.realpath(path.parent))
    among_devices = any(place.is_relative_to(devices) for devices in DEVICES)
    if (among_devices and not place.is_relative_to(SHARED_MEMORY)) or (path.exists() and not path.is_file()):
        raise UserError(f"{path}: a device; expected the name of a plain file to write; choose another name")
    _check_beside(path, folder=False)
    _check_place(path)


def check_folder(path: Path, kind: str | None = None, own: bool = False) -> None:
    """Find out, before any work, whether :func:`replacing_folder` may write a folder.

    An existing folder may be replaced if it is empty, or if it is of this kind and its list names all its files.

    Raises:
        UserError: It contains other files, is a link, or is the working folder or above it, or cannot be created.
    """
    if path.is_symlink():
        raise UserError(f"{path}: a link; expected a folder to write; use the folder it points to, or remove the link")
    if Path.cwd().is_relative_to(path.resolve()):
        raise UserError(f"{path}: the folder you are in, or one above it; expected a new folder; choose another name")
    if path.exists() and not path.is_dir():
        raise UserError(f"{path}: a file; expected the name of a folder to write; choose another name")
    if path.exists() and not own and (others := _others(path, kind)):
        more = f" and {len(others) - 1:,} more" if others[1:] else ""
        raise UserError(
            f"{path}: already contains files that geoloc did not write{f' as {kind}' if kind else ''} "
            f"({others[0]}{more}); choose another folder or move them away"
        )
    _check_beside(path, folder=True)
    _check_place(path)


def _others(folder: Path, kind: str | None) -> list[str]:
    """The files of a folder that :func:`replacing_folder` did not write there for the same kind."""
    listed: set[str] = set()
    with suppress(UserError):
        found = checksums(folder)
        listed = {CHECKSUMS, *found.files} if found.kind == kind else set()
    return [name for name in files_under(folder) if name not in listed]


def _check_beside(path: Path, folder: bool) -> None:
    """The names next to a path that are written to and removed must not be in use by anything else."""
    for beside in (_new(path), *([_old(path)] if folder else [])):
        if os.path.lexists(beside) and (beside.is_symlink() or beside.is_dir() != folder):
            raise UserError(f"{beside}: in the way; geoloc uses this name while it writes {path.name}; move it away")


def _new(path: Path) -> Path:
    """Where the replacement of a path is written."""
    return path.with_name(f".{path.name}.new")


def _old(path: Path) -> Path:
    """Where a folder is kept while another takes its place."""
    return path.with_name(f".{path.name}.old")


def _restore(path: Path, kind: str | None) -> None:
    """Put back a folder that was moved away by a run that was killed before it had put the new one in place."""
    old = _old(path)
    if kind is not None and not os.path.lexists(path) and (old / CHECKSUMS).is_file() and not _others(old, kind):
        old.rename(path)


def _check_place(path: Path) -> None:
    """The nearest existing folder above a path must accept new files."""
    place = path.absolute().parent
    while not os.path.lexists(place):
        place = place.parent
    why = os.strerror(errno.EACCES) if place.is_dir() else f"{place} is not a folder"
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise UserError(f"{path}: cannot be created ({why}); expected a folder that can be written to")


@contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """A free name next to a path; nothing is left there if the block fails."""
    aside = _new(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove(aside)
    try:
        yield aside
    except BaseException as error:  # any: what was begun is removed, whatever stopped it
        number = _of_the_disk(error, aside)
        with suppress(OSError):
            remove(aside)
        if number is not None:
            raise OSError(number, os.strerror(number), str(path)) from error
        raise


def _of_the_disk(error: BaseException, aside: Path) -> int | None:
    """The number of a disk error that a library reports in its own words; None for other errors and known numbers."""
    if not isinstance(error, Exception) or isinstance(error, UserError):
        return None
    if isinstance(error, OSError) and error.errno:
        return error.errno if error.errno in DISK and not error.filename else None
    if said := re.search(r"os error (\d+)", str(error)):  # of Rust
        return int(said[1])
    if "disk is full" in str(error):  # of SQLite
        return errno.ENOSPC
    if shutil.disk_usage(aside.parent).free < ROOM:
        return errno.ENOSPC
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    written = [aside / name for name in files_under(aside)] if aside.is_dir() else [aside]
    if limit != resource.RLIM_INFINITY and any(file.is_file() and file.stat().st_size >= limit for file in written):
        return errno.EFBIG
    return None


def _swap(aside: Path, path: Path) -> None:
    """Put a folder in the place of another, which is not lost if that fails."""
    old = _old(path)
    remove(old)
    if path.is_dir():
        path.rename(old)
    try:
        os.replace(aside, path)
    except OSError:
        with suppress(OSError):
            old.rename(path)
        raise
    remove(old)


def remove(path: Path) -> None:
    """Delete a file or a folder of the project's own, if it is there; of a link, the link alone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Checksums:
    """The files that were written into a folder.

    Attributes:
        kind: What the folder contains; empty if there is no list.
        files: SHA-256 by name; None of Parquet, which has checksums of its own.
    """

    kind: str
    files: dict[str, str | None]


def write_checksums(folder: Path, kind: str) -> None:
    """List the files of a folder with their checksums, for :func:`verify` and for whoever replaces the folder."""
    names = [name for name in files_under(folder) if name != CHECKSUMS]
    sums = {name: None if name.endswith(".parquet") else sha256_of(folder / name) for name in names}
    write_json(folder / CHECKSUMS, {"kind": kind, "files": sums})


def checksums(folder: Path, remedy: str = "rebuild the folder") -> Checksums:
    """The list that :func:`write_checksums` wrote; an empty one where there is none.

    Raises:
        UserError: It is damaged.
    """
    path = folder / CHECKSUMS
    try:
        raw = json.loads(path.read_bytes())
        return Checksums(str(raw["kind"]), dict(raw["files"]))
    except (FileNotFoundError, NotADirectoryError):
        return Checksums("", {})
    except (ValueError, RecursionError, IsADirectoryError, LookupError, TypeError):
        raise UserError(f"{path}: damaged; expected the list of the folder's files; {remedy}") from None


def verify(path: Path, remedy: str, data: bytes | None = None, at_most: int | None = None) -> None:
    """Compare a file with the checksum in the list of its folder, or of the folder above, if there is such a list.

    Args:
        path: The file.
        remedy: What rebuilds it.
        data: Its bytes, where they have been read.
        at_most: Files larger than this many bytes are not verified.

    Raises:
        UserError: It differs from what was written.
    """
    listed = (checksums(folder).files.get(path.relative_to(folder).as_posix()) for folder in path.parents[:2])
    expected = next(filter(None, listed), None)
    if expected is None or (at_most is not None and path.stat().st_size > at_most):
        return
    found = sha256_of(path) if data is None else hashlib.sha256(data).hexdigest()
    if found != expected:
        raise UserError(f"{path}: damaged: its SHA-256 is {found}; expected {expected}; {remedy}")


def write_json(path: Path, value: Any) -> None:
    """Write JSON, readable and in one piece; records by their fields."""
    with replacing(path) as aside:
        # Of names that are no text, JSON has an escape where UTF-8 has nothing.
        text = json.dumps(value, indent=2, ensure_ascii=False, default=_fields) + "\n"
        aside.write_text(text, encoding="utf-8", errors="backslashreplace")


def _fields(record: "BaseModel") -> dict[str, Any]:
    return record.model_dump(mode="json")


def read_bytes(path: Path, remedy: str = "") -> bytes:
    """The bytes of a file, as they were written.

    Raises:
        UserError: It is missing, a folder, or differs from its checksum.
    """
    if path.is_dir():
        raise UserError(_told(path, "a folder; expected a file", remedy))
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(_told(path, "no such file", remedy)) from None
    verify(path, remedy, data)
    return data


def read_json(path: Path, remedy: str = "", shape: Any = None) -> Any:
    """Read JSON.

    Args:
        path: The file.
        remedy: What rebuilds it, for messages.
        shape: What it must be: any type that pydantic knows. Left out, it may be anything.

    Returns:
        An instance of ``shape``, or what JSON has.

    Raises:
        UserError: It is missing, damaged, or of another shape.
    """
    data = read_bytes(path, remedy)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UserError(_told(path, f"not valid JSON: {in_a_line(error)}", remedy)) from None
    if shape is None:
        return value
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(shape).validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(_told(path, f"{f'{where}: ' if where else ''}{first['msg']}", remedy)) from None


def read_array(path: Path, remedy: str = "") -> "np.ndarray":
    """The array of a ``.npy``, mapped into memory; verified first if it has at most :data:`CHEAP` bytes.

    Raises:
        UserError: It is missing, damaged or not an array.
    """
    import numpy as np

    if path.is_dir() or not path.exists():
        raise UserError(_told(path, "a folder; expected a file" if path.is_dir() else "no such file", remedy))
    verify(path, remedy, at_most=CHEAP)
    try:
        # what is mapped keeps no file open, and what another kind of file holds is not guessed
        return np.lib.format.open_memmap(path, mode="r")
    except (ValueError, EOFError, TypeError, SyntaxError, TokenError, OverflowError, RecursionError) as error:
        raise UserError(_told(path, f"damaged: not a NumPy array: {in_a_line(error)}", remedy)) from None


def new_array(path: Path, dtype: Any, shape: tuple[int, ...]) -> "np.memmap":
    """A ``.npy`` to fill, mapped into memory.

    Its space on the disk is reserved at once if the system supports it, so that no later write fails.

    Raises:
        OSError: There is not enough space.
    """
    import numpy as np

    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):  # macOS has none
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, path.stat().st_size))
    return array


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Make a file available at another path too: by a hard link, or by a copy if the file system has no links."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        shutil.copy2(source, target)


def _told(path: Path, what: str, remedy: str) -> str:
    return f"{path}: {what}; {remedy}" if remedy else f"{path}: {what}"


def digest(*paths: Path) -> str:
    """SHA-256 of files and of all files in folders, names included, independent of their location.

    Lists of checksums are left out, since they only repeat what is in the files.
    """
    total = hashlib.sha256()
    for path in paths:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            if file.name != CHECKSUMS:
                total.update(file.relative_to(path).as_posix().encode() + b"\0")
                total.update(bytes.fromhex(sha256_of(file)))
    return total.hexdigest()


def verified_digest(folder: Path, remedy: str) -> str:
    """The :func:`digest` of a folder; its files are verified if it has a list of checksums.

    Raises:
        UserError: A file is missing or differs from what was written.
    """
    listed, total = checksums(folder, remedy).files, hashlib.sha256()
    found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    if lacking := [name for name in listed if name not in found]:
        raise UserError(f"{folder / lacking[0]}: no such file; {remedy}")
    for name, path in found.items():
        if path.name != CHECKSUMS:
            sha256 = sha256_of(path)
            if listed.get(name) not in (None, sha256):
                raise UserError(f"{path}: damaged: its SHA-256 is {sha256}; expected {listed[name]}; {remedy}")
            total.update(name.encode() + b"\0" + bytes.fromhex(sha256))
    return total.hexdigest()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def files_under(folder: Path) -> list[str]:
    """All files below a folder as sorted relative paths with ``/``, hidden ones and dead links too."""
    found = []
    for parent, folders, names in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(parent, name))]
        found += [Path(parent, name).relative_to(folder).as_posix() for name in (*names, *links)]
    return sorted(found)


def keep_only_own(partial: Path, request: dict[str, Any]) -> None:
    """Empty a folder of unfinished work, unless the same request left it behind.

    Args:
        partial: The folder; its ``request.json`` records the request.
        request: Everything that the unfinished work depends on.

    Raises:
        UserError: The path is in use by something that the project did not write.
    """
    note = partial / "request.json"
    if note.is_dir() or (os.path.lexists(partial) and not partial.is_dir()):
        there = f"{note}: a folder; expected a file" if note.is_dir() else f"{partial}: not a folder; expected one"
        raise UserError(f"{there} of unfinished work, or nothing; move it away")
    with suppress(UserError):  # a missing or damaged note is no request of ours
        if read_json(note) == request:
            return
    remove(partial)
    write_json(note, request)
