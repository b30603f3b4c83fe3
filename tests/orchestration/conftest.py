import shutil
from pathlib import Path

import dagster as dg
import pytest

from orchestration.environment import ROOT
from tests.orchestration.small_project import make_project


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in (ROOT, "DAGSTER_HOME", "DVC_ROOT", "DVC_STAGE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def checks_pass(monkeypatch):
    """Checks without a corpus behind them."""
    _checks(monkeypatch, passed=True)


@pytest.fixture
def checks_fail(monkeypatch):
    _checks(monkeypatch, passed=False)


class _Report:
    def __init__(self, passed: bool):
        self.passed, self.rows, self.verdict = passed, (self,), "rows: expected fine ones"

    def markdown(self) -> str:
        return "| expectation | ok |\n| -- | -- |\n| latitude within 90 | ✗ |"


def _checks(monkeypatch, passed: bool) -> None:
    from orchestration.checks import CHECKS

    monkeypatch.setitem(CHECKS, "manifest", ("rows are fine", lambda root, corpus: _Report(passed)))


@pytest.fixture(scope="session")
def empty_project(tmp_path_factory) -> Path:
    return make_project(tmp_path_factory.mktemp("project") / "empty")


@pytest.fixture
def project(empty_project, tmp_path) -> Path:
    """A project in which nothing ran yet."""
    return Path(shutil.copytree(empty_project, tmp_path / "project"))


@pytest.fixture
def instance(tmp_path):
    home = tmp_path / "dagster"
    home.mkdir()
    with dg.DagsterInstance.local_temp(str(home)) as made:
        yield made
