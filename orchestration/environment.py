"""The environment that Dagster, DVC, MLflow and the stages run in, set up in one place."""

import os
import sys
from pathlib import Path

ROOT = "GEOLOC_ROOT"

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
    """Let this process and its children find the project, its tools and its Dagster instance."""
    home = root / ".state" / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    settings = Path(__file__).with_name("dagster.yaml").read_text(encoding="utf-8")
    here = home / "dagster.yaml"
    if not here.exists() or here.read_text(encoding="utf-8") != settings:
        here.write_text(settings, encoding="utf-8")
    logs = root / ".state" / "logs" / "steps"
    os.environ |= {ROOT: str(root), "DAGSTER_HOME": str(home), "GEOLOC_STEP_LOGS": str(logs), **tools()}


def tools() -> dict[str, str]:
    """What a child process needs to find this environment's commands, and to report nothing to anyone."""
    bin_folder = str(Path(sys.executable).parent)
    rest = [part for part in os.environ.get("PATH", os.defpath).split(os.pathsep) if part != bin_folder]
    return {"PATH": os.pathsep.join([bin_folder, *rest]), **_SILENT}
