"""The environment variables and folders that Dagster, DVC, MLflow and the stages need."""

import os
import sys
from pathlib import Path

from geoloc_core import telemetry
from geoloc_core.errors import UserError

ROOT = "GEOLOC_ROOT"
IN_RUN = "GEOLOC_IN_RUN"
"""Environment variable with the id of the run, in the processes that it starts."""

PAGES = "GEOLOC_PAGES"
"""Environment variable with the address of Dagster's pages, where they are served."""

HOME = "DAGSTER_HOME"
"""Environment variable of Dagster's: the folder whose ``dagster.yaml`` says where an instance keeps its history."""


def project_root() -> Path:
    """The project folder: ``$GEOLOC_ROOT``, or else the current folder."""
    return Path(os.environ.get(ROOT) or Path.cwd()).resolve()


def own_home(root: Path) -> Path:
    """The folder of the project's own Dagster instance, on SQLite."""
    return root / ".state" / "dagster"


def is_shared(root: Path) -> bool:
    """Whether ``$DAGSTER_HOME`` names an instance of the user's, which other machines may use too."""
    home = os.environ.get(HOME) or None
    return home is not None and Path(home).resolve() != own_home(root).resolve()


def enter(root: Path) -> None:
    """Set the environment so that this process and its children find the project, its tools and its Dagster instance.

    The instance is the one that ``$DAGSTER_HOME`` names, as it is; left out, it is the project's own.

    Raises:
        UserError: The project's ``.state`` cannot be written to, or ``$DAGSTER_HOME`` names no instance.
    """
    home, logs = own_home(root), root / ".state" / "logs" / "steps"
    settings = Path(__file__).with_name("dagster.yaml").read_bytes()
    here = home / "dagster.yaml"
    shared = Path(os.environ[HOME]).resolve() if is_shared(root) else None
    if shared and not (shared / "dagster.yaml").is_file():
        raise UserError(
            f"{HOME}={shared}: no dagster.yaml there; expected the folder of a Dagster instance, such as "
            f"deploy/dagster; to use the project's own: unset {HOME}"
        )
    try:
        for folder in (*(() if shared else (home,)), logs):
            folder.mkdir(parents=True, exist_ok=True)
        if not shared and (not here.exists() or here.read_bytes() != settings):
            here.write_bytes(settings)
    except OSError as error:
        raise UserError(
            f"{error.filename}: {error.strerror}; expected to write there, since this machine's state "
            f"is kept in {root / '.state'}; fix its permissions, or move away the file that is in the way"
        ) from None
    os.environ |= {ROOT: str(root), HOME: str(shared or home), "GEOLOC_STEP_LOGS": str(logs), **tools()}


def tools() -> dict[str, str]:
    """Variables with which a child process finds the commands of this environment and sends no telemetry."""
    bin_folder = str(Path(sys.executable).parent)
    rest = [part for part in os.environ.get("PATH", os.defpath).split(os.pathsep) if part != bin_folder]
    return {"PATH": os.pathsep.join([bin_folder, *rest]), **telemetry.OFF}
