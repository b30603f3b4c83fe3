"""Files that are already on this machine."""

import fcntl
import os
import shutil
from pathlib import Path
from typing import Any, Literal

from geoloc_core.corpora.photo import leads_out
from geoloc_core.errors import UserError
from geoloc_core.files import files_under, remove
from geoloc_core.plugins import Strict
from geoloc_core.progress import track

FICLONE = 0x40049409
"""The Linux request for a copy that shares its blocks until one of the two changes."""


class Options(Strict):
    """Where the files are."""

    kind: Literal["files"]
    path: Path
    """The folder, in the corpus' published layout; relative to the project."""


def fetch(options: Options, *, name: str, source: Any, seed: int, out: Path, partial: Path) -> dict[str, Any]:
    """Copy a folder as it is, free of cost where the file system can clone.

    Never by hard links: the cache may write-protect what it tracks, and the originals are the user's.

    Args:
        options: Where the files are.
        name: The corpus.
        source: Not needed.
        seed: Not needed.
        out: The folder to write.
        partial: What an interrupted run had copied; it is not copied again.

    Returns:
        Files and bytes, in all and by suffix.

    Raises:
        UserError: The folder is missing, empty or holds a link to nothing, to a folder or out of it.
    """
    key = f"run.corpora.{name}.fetch.path"
    if not options.path.is_dir():
        raise UserError(f"{key}: {options.path} is not a folder; expected the one with the corpus' files")
    files = files_under(options.path)
    if not files:
        raise UserError(f"{key}: {options.path} is empty; expected the corpus' files")
    for path in track(files, f"fetch {name}", len(files), "files"):
        _bring(options.path, path, partial / path)
    for path in set(files_under(partial)) - set(files):
        remove(partial / path)
    shutil.move(partial, out)
    types = by_suffix(out)
    return {
        "files": sum(entry["files"] for entry in types.values()),
        "bytes": sum(entry["bytes"] for entry in types.values()),
        "types": types,
    }


def by_suffix(folder: Path) -> dict[str, dict[str, int]]:
    """Files and bytes by suffix, sorted by suffix."""
    types: dict[str, dict[str, int]] = {}
    for path in files_under(folder):
        suffix = os.path.splitext(path)[1].lower() or "none"
        entry = types.setdefault(suffix, {"files": 0, "bytes": 0})
        entry["files"] += 1
        entry["bytes"] += (folder / path).stat().st_size
    return dict(sorted(types.items()))


def _bring(folder: Path, path: str, target: Path) -> None:
    file = folder / path
    try:
        there = file.stat()
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}; expected a file; repair or remove it") from None
    if file.is_dir():
        raise UserError(f"{file}: a link to a folder; expected files; use that folder itself, or copy it")
    if file.is_symlink() and leads_out(folder, file):
        raise UserError(
            f"{file}: a link that leads out of {folder}; expected files; copy the file it points to into the folder"
        )
    if not file.is_file():
        # A pipe or a device has no end that could be waited for.
        raise UserError(f"{file}: neither a file nor a folder; expected files; move it away")
    if target.exists() and _same(there, target.stat()):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with file.open("rb") as source, target.open("wb") as copy:
            try:
                fcntl.ioctl(copy, FICLONE, source.fileno())
            except OSError:
                shutil.copyfileobj(source, copy, 2**20)
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}; expected a readable file and space for its copy") from None
    # Last, so that a copy with the original's time is a whole one.
    os.utime(target, ns=(there.st_atime_ns, there.st_mtime_ns))


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)
