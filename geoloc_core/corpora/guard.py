"""No training on photos that leak into what the model is scored on."""

from pathlib import Path
from typing import TYPE_CHECKING

from geoloc_core.errors import UserError
from geoloc_core.files import read_json
from geoloc_core.sets import leak_parts, set_parts

if TYPE_CHECKING:
    from geoloc_core.project import Project

REMEDY = "run `geoloc leaks`"


def guard(project: "Project", corpus: str) -> None:
    """Let training on a corpus begin only if ``geoloc leaks`` found nothing that blocks it.

    Raises:
        UserError: Its photos leak and the parameters do not allow it, or nobody has looked yet.
    """
    path = project.leaks / "blocking.json"
    found = [name for name in _blocking(path) if _blocked(name, path) == corpus]
    if found:
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        raise UserError(
            f"{project.leaks / 'leaks.json'}: {found[0]!r} leaks{more}; expected nothing shared with what a "
            f"model is scored on; list what is shared in takedown, or accept it in leaks.allow in params.yaml"
        )


def _blocking(path: Path) -> list[str]:
    names: list[str] = read_json(path, REMEDY, list[str])
    return names


def _blocked(leak: str, path: Path) -> str:
    """The corpus that a leak keeps from being trained on: that of its first set."""
    try:
        return set_parts(leak_parts(leak)[1])[0]
    except ValueError:
        raise UserError(f"{path}: {leak!r} names no leak; {REMEDY} again") from None
