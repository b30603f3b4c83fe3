"""Whether everything under ``data/`` is still as it was written: ``geoloc check`` without a corpus."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from geoloc_core import parquet
from geoloc_core.errors import UserError
from geoloc_core.files import CHECKSUMS, checksums, files_under, read_bytes, read_json, verify
from geoloc_core.progress import say, track
from geoloc_core.project import Project

Check = Callable[[], object]
"""Raises :class:`UserError` where a file is not as it was written, :class:`OSError` where it cannot be read."""


def check(project: Project) -> None:
    """Read every artefact, and name the damaged ones with the command that rebuilds them.

    Published files, under ``data/raw``, were not written by the project and are left out.

    Raises:
        UserError: A file is missing, damaged or cannot be read.
    """
    found = dict(checks(project))
    told = [_flaw(path, check) for path, check in track(found.items(), "check", len(found), "files")]
    damaged = list(dict.fromkeys(filter(None, told)))  # a list that is damaged is told of by all its files
    known = [name for name in files_under(project.data) if not name.startswith("raw/") and name != "README.md"]
    unknown = [name for name in known if project.data / name not in found]
    for said in damaged:
        say(f"check: {said}")
    say(f"check: {len(found):,} files, {len(damaged):,} damaged; {len(unknown):,} other files have no checksum")
    if damaged:
        raise UserError(f"{project.data}: {len(damaged):,} of {len(found):,} files are damaged")


def checks(project: Project) -> Iterator[tuple[Path, Check]]:
    """How each file of the project is checked: by the list in its folder, or by itself."""
    for name in files_under(project.data):
        path = project.data / name
        maker = project.maker(path)
        remedy = f"run `{maker}` again" if maker else "no stage writes it; move it away"
        if name.startswith("raw/"):
            continue
        if path.name == CHECKSUMS:
            yield path, partial(checksums, path.parent)
            yield from _listed(path.parent, remedy)
        elif path.suffix == ".parquet":
            yield path, partial(parquet.verify, path, remedy)
        elif path.suffix == ".json":
            yield path, partial(read_json, path, remedy)


def _listed(folder: Path, remedy: str) -> Iterator[tuple[Path, Check]]:
    try:
        listed = checksums(folder).files
    except (UserError, OSError):  # which are told of the list itself
        return
    for name in listed:
        yield folder / name, partial(_verify, folder / name, listed[name], remedy)


def _verify(path: Path, sha256: str | None, remedy: str) -> None:
    if not path.is_file():
        read_bytes(path, remedy)
    elif sha256 is not None:
        verify(path, remedy)
    else:
        parquet.verify(path, remedy)


def _flaw(path: Path, check: Check) -> str | None:
    try:
        check()
    except UserError as error:
        return str(error)
    except OSError as error:
        return f"{path}: cannot be read: {os.strerror(error.errno) if error.errno else error}"
    return None
