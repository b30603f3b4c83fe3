"""No training on photos that leak into what the model is scored on."""

from pathlib import Path
from typing import TYPE_CHECKING

from geoloc_core.errors import UserError
from geoloc_core.files import read_json

if TYPE_CHECKING:
    from geoloc_core.project import Project


def guard(project: "Project", corpus: str) -> None:
    """Let training on a corpus begin only if ``geoloc leaks`` found nothing that blocks it.

    Raises:
        UserError: Its training photos leak and the parameters do not allow it, or nobody has looked yet.
    """
    found = [name for name in _blocking(project.leaks / "blocking.json") if f" {corpus}/train " in name]
    if found:
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        raise UserError(
            f"{project.leaks / 'leaks.json'}: {found[0]!r} leaks{more}; expected nothing shared with the training "
            f"photos; list what is shared in takedown, or accept it in leaks.allow in params.yaml"
        )


def _blocking(path: Path) -> list[str]:
    names: list[str] = read_json(path, "run `geoloc leaks`", list[str])
    return names
