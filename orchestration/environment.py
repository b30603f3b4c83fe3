"""The environment variables and folders that Dagster, DVC, MLflow and the stages need."""

import os
import sys
from pathlib import Path

from geoloc_core import telemetry
from geoloc_core.errors import UserError

ROOT = "GEOLOC_ROOT"


def project_root() -> Path:
    """The project folder: ``$GEOLOC_ROOT``, or else the current folder."""
    return Path(os.environ.get(ROOT) or Path.cwd()).resolve()


def enter(root: Path) -> None:
    """Set the environment so that this process and its children find the project, its tools and its Dagster instance.

    Raises:
        UserError: The project's ``.state`` cannot be written to.
    """
    home, logs = root / ".state" / "dagster", root / ".state" / "logs" / "steps"
    settings = Path(__file__).with_name("dagster.yaml").read_bytes()
    here = home / "dagster.yaml"
    try:
        for folder in (home, logs):
            folder.mkdir(parents=True, exist_ok=True)
        if not here.exists() or here.read_bytes() != settings:
            here.write_bytes(settings)
    except OSError as error:
        raise UserError(
            f"{error.filename}: {error.strerror}; expected to write there, since this machine's state "
            f"is kept in {root / '.state'}; fix its permissions, or move away the file that is in the way"
        ) from None
    os.environ |= {ROOT: str(root), "DAGSTER_HOME": str(home), "GEOLOC_STEP_LOGS": str(logs), **tools()}


def tools() -> dict[str, str]:
    """Variables with which a child process finds the commands of this environment and sends no telemetry."""
    bin_folder = str(Path(sys.executable).parent)
    rest = [part for part in os.environ.get("PATH", os.defpath).split(os.pathsep) if part != bin_folder]
    return {"PATH": os.pathsep.join([bin_folder, *rest]), **telemetry.OFF}
