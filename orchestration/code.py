"""``plan.yaml`` and ``code.yaml``, brought up to date before Dagster looks at any stage."""

import hashlib
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import geoloc_core
from geoloc_core.errors import UserError
from geoloc_core.files import read_json, write_json
from orchestration.dvc import CODE, read_lock
from orchestration.repository import with_dvc

SOURCES = (".py", ".html", ".md", ".css", ".js")
"""Suffixes of what the digests of code depend on."""


def refresh_code(root: Path) -> None:
    """Bring ``plan.yaml`` and ``code.yaml`` up to date, before any stage is looked at.

    `geoloc plan` runs in a process of its own: this one may have loaded an earlier version of the code. It is left out
    while nothing that it reads has changed.

    Raises:
        UserError: The parameters are wrong.
    """
    graph = root / "dvc.yaml"
    text = graph.read_text(encoding="utf-8", errors="replace") if graph.is_file() else ""
    if not re.search(rf"^  {CODE}:$", text, re.MULTILINE):
        return
    files, note = [root / "plan.yaml", root / f"{CODE}.yaml"], root / ".state" / f"{CODE}.json"
    read = _digest(_read_by_code(root))
    if not all(file.is_file() for file in files) or _noted(note) != {"read": read, "written": _written(files)}:
        _run_plan(root)
        note.parent.mkdir(exist_ok=True)
        write_json(note, {"read": read, "written": _written(files)})
    with_dvc(root, _lock_code)


def _written(files: list[Path]) -> str:
    return _digest(file.read_bytes() for file in files)


def _run_plan(root: Path) -> None:
    command = [sys.executable, "-P", "-m", "geoloc_core", "--params", str(root / "params.yaml"), "plan"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        first, *rest = done.stderr.splitlines() or [f"geoloc plan: exit code {done.returncode}"]
        raise UserError(first.removeprefix("geoloc: error: "), *rest)


def _read_by_code(root: Path) -> Iterator[bytes]:
    """What the digests depend on: the sources, the parameters, the versions of Python and of all that is installed."""
    yield sys.version.encode()
    for folder in sorted({Path(entry) for entry in sys.path}):
        yield from sorted(found.name.encode() for found in folder.glob("*.dist-info"))
    params = root / "params.yaml"
    yield params.read_bytes() if params.is_file() else b""
    package = Path(geoloc_core.__file__).parent
    for path in sorted(path for path in package.rglob("*.*") if path.suffix in SOURCES):
        yield path.relative_to(package).as_posix().encode()
        yield path.read_bytes()


def _digest(parts: Iterable[bytes]) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(hashlib.sha256(part).digest())
    return found.hexdigest()


def _md5(file: Path) -> str:
    return hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()


def _noted(note: Path) -> dict[str, str] | None:
    """What is noted of the last time; nothing where there is no note that can be read."""
    try:
        return read_json(note, shape=dict[str, str])
    except UserError:
        return None


def _lock_code(repo: Any) -> None:
    """Let ``dvc.lock`` name ``code.yaml`` as it is, as if DVC had run the stage."""
    file = Path(repo.root_dir) / f"{CODE}.yaml"
    if read_lock(repo).get(CODE, {}).get(file.name) != _md5(file):
        repo.commit(CODE, force=True)
