"""Files that are either whole or not there."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from geoloc_core.errors import UserError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file or a folder aside, and put it in place only when the block succeeds.

    Yields:
        The path to write to, in the same folder. It does not exist yet; ``path`` is untouched until the end.

    Raises:
        UserError: There can be no such file or folder.
    """
    aside = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove(aside)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise UserError(f"{path}: cannot be made there ({error.strerror}); expected a folder to write to") from None
    yield aside
    old = path.with_name(f".{path.name}.old")
    remove(old)
    if path.is_dir():
        path.rename(old)
    os.replace(aside, path)
    remove(old)


def remove(path: Path) -> None:
    """Delete a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON, readable and in one piece."""
    with replacing(path) as aside:
        # Of names that are no text, JSON has an escape where UTF-8 has nothing.
        text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
        aside.write_text(text, encoding="utf-8", errors="backslashreplace")


def read_json(path: Path) -> Any:
    """Read JSON."""
    return json.loads(path.read_text(encoding="utf-8"))


def digest(*paths: Path) -> str:
    """SHA-256 of files and of all files in folders, names included, independent of where they lie."""
    total = hashlib.sha256()
    for path in paths:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            total.update(file.relative_to(path).as_posix().encode() + b"\0")
            with file.open("rb") as stream:
                total.update(hashlib.file_digest(stream, "sha256").digest())
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
    """Start a folder of unfinished work afresh unless it was left behind by the same request.

    Args:
        partial: The folder; its ``request.json`` says whose it is.
        request: All that the unfinished work depends on.
    """
    note = partial / "request.json"
    try:
        if read_json(note) == request:
            return
    except (FileNotFoundError, ValueError):  # a damaged note is no request of ours
        pass
    remove(partial)
    write_json(note, request)


def parse_yaml(text: str | bytes) -> Any:
    """What a text in YAML says, read by libyaml where it is at hand: ten times as fast, and as safe.

    Raises:
        yaml.YAMLError: It is none.
    """
    import yaml

    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - either is a safe loader
