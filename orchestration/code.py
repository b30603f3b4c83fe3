"""The digests of the stages' code, brought up to date before anything is planned."""

import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import geoloc_core
from geoloc_core.errors import UserError
from geoloc_core.files import read_json, write_json
from orchestration.dvc import CODE, read_lock
from orchestration.repository import with_dvc


def refresh_code(root: Path) -> None:
    """Bring ``code.yaml`` up to date, as DVC does before ``dvc repro``, but not before it runs or reads one stage.

    `geoloc code` runs in a process of its own: this one may have loaded an earlier version of the code. It is left out
    while nothing that it reads has changed.

    Raises:
        UserError: The parameters are wrong.
    """
    graph = root / "dvc.yaml"
    text = graph.read_text(encoding="utf-8", errors="replace") if graph.is_file() else ""
    if not re.search(rf"^  {CODE}:$", text, re.MULTILINE):
        return
    file, note = root / f"{CODE}.yaml", root / ".state" / f"{CODE}.json"
    read = _digest(_read_by_code(root))
    if not file.is_file() or _noted(note) != {"read": read, "written": _md5(file)}:
        _run_code(root)
        note.parent.mkdir(exist_ok=True)
        write_json(note, {"read": read, "written": _md5(file)})
    with_dvc(root, _lock_code)


def _run_code(root: Path) -> None:
    command = [sys.executable, "-P", "-m", "geoloc_core", "--params", str(root / "params.yaml"), "code"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        first, *rest = done.stderr.splitlines() or [f"geoloc code: exit code {done.returncode}"]
        raise UserError(first.removeprefix("geoloc: error: "), *rest)


def _read_by_code(root: Path) -> Iterator[bytes]:
    """What the digests depend on: the sources, the parameters, the versions of Python and of all that is installed."""
    yield sys.version.encode()
    for folder in sorted({Path(entry) for entry in sys.path}):
        yield from sorted(found.name.encode() for found in folder.glob("*.dist-info"))
    params = root / "params.yaml"
    yield params.read_bytes() if params.is_file() else b""
    package = Path(geoloc_core.__file__).parent
    for path in sorted(package.rglob("*.py")):
        yield path.relative_to(package).as_posix().encode()
        yield path.read_bytes()


def _digest(parts: Iterator[bytes]) -> str:
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
