import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from geoloc_core.errors import UserError
from orchestration.databases import whole_databases
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


def test_an_instance_of_the_user_s_is_used_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", {**os.environ, "DAGSTER_HOME": str(tmp_path / "team")})
    with pytest.raises(UserError, match=r"/team: no dagster.yaml there; expected .* unset DAGSTER_HOME$"):
        enter(tmp_path)
    settings = tmp_path / "team" / "dagster.yaml"
    settings.parent.mkdir()
    settings.write_text("telemetry: {enabled: false}\n")
    for _ in range(2):
        enter(tmp_path)
        assert os.environ["DAGSTER_HOME"] == str(settings.parent)
    assert settings.read_text() == "telemetry: {enabled: false}\n"
    assert not (tmp_path / ".state" / "dagster").exists()
    assert Path(os.environ["GEOLOC_STEP_LOGS"]).is_dir()


SHARED = """
storage:
  postgres:
    postgres_db: {hostname: localhost, port: {env: NO_PORT}, username: a, password: secret, db_name: a}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "reason"),
    [(SHARED, "the environment variable NO_PORT is not set"), ("storage: [", "while parsing a flow node"),
     ("run_storage: {module: no_such, class: A}", "Couldn't import module no_such"),
     ("storage: {oracle: {}}", 'unexpected config entry "oracle"')],
)  # fmt: skip
def test_an_instance_that_cannot_be_used_is_one_line(tmp_path, monkeypatch, settings, reason):
    (tmp_path / "dagster.yaml").write_text(settings)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with (
        pytest.raises(UserError, match="Dagster's storage cannot be used") as told,
        whole_databases(tmp_path / "project"),
    ):
        pass
    assert reason in str(told.value)
    assert str(told.value).startswith(f"{tmp_path}/dagster.yaml: ")
    assert "\n" not in str(told.value)
