"""The environment that Dagster, DVC, MLflow and the stages run in, set up in one place."""

import os
import sys
from pathlib import Path

from geoloc_core.errors import UserError

ROOT = "GEOLOC_ROOT"
IN_RUN = "GEOLOC_IN_RUN"
"""Environment variable of the processes of a run."""

_SILENT = {
    "DO_NOT_TRACK": "true",
    "DVC_NO_ANALYTICS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DAGSTER_DISABLE_TELEMETRY": "1",
}


def project_root() -> Path:
    """The project folder that is orchestrated: ``$GEOLOC_ROOT``, or where the process was started."""
    return Path(os.environ.get(ROOT) or Path.cwd()).resolve()


def enter(root: Path) -> None:
    """Let this process and its children find the project, its tools and its Dagster instance.

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
            f"{error.filename}: {error.strerror}; expected to write there: the state of this machine lies under "
            f"{root / '.state'}; mend its permissions, or move away what stands in its place"
        ) from None
    os.environ |= {ROOT: str(root), "DAGSTER_HOME": str(home), "GEOLOC_STEP_LOGS": str(logs), **tools()}


def tools() -> dict[str, str]:
    """What a child process needs to find this environment's commands, and to report nothing to anyone."""
    bin_folder = str(Path(sys.executable).parent)
    rest = [part for part in os.environ.get("PATH", os.defpath).split(os.pathsep) if part != bin_folder]
    return {"PATH": os.pathsep.join([bin_folder, *rest]), **_SILENT}
