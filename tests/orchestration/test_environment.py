import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from orchestration.environment import enter, project_root, tools
from tests.orchestration.small_project import REPOSITORY

HEAVY = ("torch", "torchvision", "lightning", "mlflow", "great_expectations", "pandas", "matplotlib", "sklearn")


def loaded(code: str, root: Path) -> set[str]:
    """The top-level modules that running some code loads."""
    script = f"{code}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    environment = {**os.environ, "GEOLOC_ROOT": str(root), "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-P", "-W", "error::FutureWarning", "-c", script], env=environment, cwd=root,
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert "Warning" not in done.stderr
    return set(done.stdout.split())


@pytest.mark.slow
def test_definitions_load_without_anything_heavy(project):
    code = "from orchestration.definitions import defs; defs.get_repository_def()"
    assert loaded(code, project).isdisjoint(HEAVY)


@pytest.mark.slow
def test_the_core_never_loads_the_orchestrator(project):
    code = (
        "import importlib, pkgutil, geoloc_core\n"
        "for module in pkgutil.walk_packages(geoloc_core.__path__, 'geoloc_core.'):\n"
        "    if not module.name.endswith('__main__'): importlib.import_module(module.name)"
    )
    assert loaded(code, project).isdisjoint({"dagster", "dvc", "orchestration"})


def test_the_command_of_this_environment_is_found_first(monkeypatch):
    monkeypatch.setenv("PATH", f"/usr/bin:{Path(sys.executable).parent}:/bin")
    assert tools()["PATH"].split(":") == [str(Path(sys.executable).parent), "/usr/bin", "/bin"]


def test_entering_a_project_sets_up_its_instance(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", dict(os.environ))
    enter(tmp_path)
    settings = yaml.safe_load((tmp_path / ".state" / "dagster" / "dagster.yaml").read_text())
    assert settings["telemetry"] == {"enabled": False}
    assert project_root() == tmp_path
    (tmp_path / ".state" / "dagster" / "dagster.yaml").write_text("nonsense: true\n")
    enter(tmp_path)
    assert "nonsense" not in (tmp_path / ".state" / "dagster" / "dagster.yaml").read_text()
