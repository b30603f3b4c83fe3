"""Files from outside the project that may be left out, which no dependency of DVC can be: known by their checksum."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import StringConstraints

from geoloc_core.errors import UserError
from geoloc_core.files import digest, sha256_of

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


def hold(paths: Sequence[Path], sha256: str | None, where: str) -> None:
    """Refuse files that are not those whose checksum the parameters state.

    A stage depends on its parameters: with the checksum of another file it is stale, and what it made is always of the
    files that they name.

    Args:
        paths: The files or folders that are read, in a stable order; none is as it should be.
        sha256: The checksum of the one file, or of all of them together.
        where: The block of the parameters that names them and has the key ``sha256``.

    Raises:
        UserError: One is not there, or the checksum is another or missing.
    """
    files = [part for path in paths for part in _parts(path)]
    missing = [path for path in files if not path.exists()]
    if missing:
        raise UserError(f"{missing[0]}: no such file; expected what {where} names")
    if not files:
        return
    found = sha256_of(files[0]) if len(files) == 1 and files[0].is_file() else digest(*files)
    if found != sha256:
        names = files[0].name if len(files) == 1 else f"{files[0].name} and {len(files) - 1} more"
        raise UserError(
            f"{where}.sha256: {sha256 or 'missing'}; expected {found}, that of {names}; put it there if you mean it: "
            "a stage is run again when its parameters change, not when such a file does"
        )


def _parts(path: Path) -> list[Path]:
    """The files of a shapefile, which are several of one name; of anything else, itself."""
    if path.suffix != ".shp" or not path.exists():
        return [path]
    return sorted(part for part in path.parent.iterdir() if part.stem == path.stem)
