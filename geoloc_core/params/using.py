"""Choosing the profile in use: the last line of ``params.yaml``, which DVC, Dagster and MLflow all read."""

import re
from pathlib import Path

from geoloc_core.errors import UserError
from geoloc_core.files import replacing
from geoloc_core.params.schema import entry
from geoloc_core.yamls import read_yaml


def use(path: Path, name: str) -> None:
    """Let ``run`` of a ``params.yaml`` name another of its profiles; nothing else in the file changes.

    Args:
        path: The file.
        name: The profile.

    Raises:
        UserError: There is no such profile, or the file does not say ``run: *<profile>``.
    """
    raw = read_yaml(path)
    profiles = raw.get("profiles") if isinstance(raw, dict) else None
    entry(profiles if isinstance(profiles, dict) else {}, name, "profile", str(path))
    text = path.read_bytes().decode()  # with the line ends that it has
    anchor = re.search(rf"^  {re.escape(name)}: *&([^\s,\[\]{{}}]+)", text, re.MULTILINE)
    if anchor is None:
        raise UserError(
            f"{path}: profile {name!r} has no anchor; expected `{name}: &{name}`, so that `run` can name it"
        )
    changed, count = re.subn(r"^run: *\*[^\s,\[\]{}]+", lambda _: f"run: *{anchor[1]}", text, flags=re.MULTILINE)
    if count != 1:
        raise UserError(f"{path}: no line `run: *<profile>`; expected one, which names the profile in use")
    if changed != text:
        with replacing(path) as aside:
            aside.write_bytes(changed.encode())


def used(path: Path) -> str:
    """The name of the profile in use; ``run`` where it stands there in full."""
    raw = read_yaml(path)
    profiles = raw.get("profiles") or {}
    return next((name for name, block in profiles.items() if block == raw["run"]), "run")
