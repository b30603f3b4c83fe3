"""The digests of the stages' code, brought up to date before anything is planned."""

import hashlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from geoloc_core.errors import UserError
from orchestration.dvc import CODE, read_lock
from orchestration.repository import with_dvc


def refresh_code(root: Path) -> None:
    """Bring ``code.yaml`` up to date, as DVC does before ``dvc repro``, but not before it runs or reads one stage.

    `geoloc code` runs in a process of its own: this one may have loaded an earlier version of the code.

    Raises:
        UserError: The parameters are wrong.
    """
    graph = root / "dvc.yaml"
    text = graph.read_text(encoding="utf-8", errors="replace") if graph.is_file() else ""
    if not re.search(rf"^  {CODE}:$", text, re.MULTILINE):
        return
    _run_code(root)
    with_dvc(root, _lock_code)


def _run_code(root: Path) -> None:
    command = [sys.executable, "-P", "-m", "geoloc_core", "--params", str(root / "params.yaml"), "code"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        first, *rest = done.stderr.splitlines() or [f"geoloc code: exit code {done.returncode}"]
        raise UserError(first.removeprefix("geoloc: error: "), *rest)


def _md5(file: Path) -> str:
    return hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()


def _lock_code(repo: Any) -> None:
    """Let ``dvc.lock`` name ``code.yaml`` as it is, as if DVC had run the stage."""
    file = Path(repo.root_dir) / f"{CODE}.yaml"
    if read_lock(repo).get(CODE, {}).get(file.name) != _md5(file):
        repo.commit(CODE, force=True)
