"""Private parts of other libraries are used in one module, which knows the versions that it was written for."""

import ast
import os
import re
import subprocess
import sys
from importlib import metadata

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from geoloc_core.errors import UserError
from orchestration import compat
from tests.conftest import ROOT
from tests.orchestration.small_project import REPOSITORY

LIBRARIES = {"dagster", "dagster_graphql", "dagster_shared", "dagster_webserver", "dvc", "dvc_data", "dvc_objects",
             "alembic", "mlflow"}  # fmt: skip
MODULES = sorted(path for package in ("orchestration", "geoloc_core") for path in (ROOT / package).rglob("*.py"))
COMPAT = ROOT / "orchestration" / "compat.py"


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def private_uses(source: str) -> list[str]:
    """What a module uses of the libraries that is private, or sets of theirs that is not its own."""
    tree = ast.parse(source)
    found, theirs = [], set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [(alias.name, alias.asname or alias.name.partition(".")[0]) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [(f"{node.module}.{alias.name}", alias.asname or alias.name) for alias in node.names]
        else:
            continue
        for path, bound in names:
            if path.partition(".")[0] in LIBRARIES:
                theirs.add(bound)
                found += [path] if any(map(is_private, path.split("."))) else []
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=name) if root(node) in theirs and (
                is_private(name) or not isinstance(node.ctx, ast.Load)
            ):
                found.append(ast.unparse(node))
            case ast.Call(func=ast.Name(id="setattr" | "getattr"), args=[target, *_]) if root(target) in theirs:
                found.append(ast.unparse(node))
            case ast.Call() if root(node.func) in theirs:
                found += [word.arg for word in node.keywords if word.arg and is_private(word.arg)]
            case ast.Constant(value=str(text)) if re.fullmatch(
                rf"({'|'.join(LIBRARIES)})(\.\w+)*\._[a-z]\w*(\.\w+)*", text
            ):
                found.append(text)
    return found


def root(node: ast.expr) -> str | None:
    while isinstance(node, ast.Attribute | ast.Call):
        node = node.value if isinstance(node, ast.Attribute) else node.func
    return node.id if isinstance(node, ast.Name) else None


@pytest.mark.parametrize("path", [path for path in MODULES if path != COMPAT], ids=lambda p: str(p.relative_to(ROOT)))
def test_no_other_module_uses_private_parts(path):
    assert private_uses(path.read_text(encoding="utf-8")) == []


PRIVATE = [
    "from dagster._core.events import EngineEventData",
    "from dagster import _check",
    "def f():\n    import dagster._cli.dev",
    "from dvc.rwlock import _edit_rwlock as edit",
    "import dagster as dg\ndg._core.events",
    "from dvc import rwlock\nrwlock._edit_rwlock('a')",
    "from dvc.repo import Repo\nRepo('.', _wait_for_lock=True)",
    "from dvc.repo import Repo\nRepo('.')._reset()",
    "from dvc import dvcfile\ndvcfile.modify_yaml = None",
    "from alembic.script import ScriptDirectory\nsetattr(ScriptDirectory, 'from_config', None)",
    "import importlib\nimportlib.import_module('dagster._core.events')",
]


@pytest.mark.parametrize("source", PRIVATE)
def test_a_private_use_is_found(source):
    assert len(private_uses(source)) == 1


def test_a_public_use_is_none():
    assert (
        private_uses("import dagster as dg\nimport dvc.rwlock\n__all__ = ['a']\n_x = dg.asset\n_x._y = dg.__version__")
        == []
    )


def test_the_module_itself_has_nothing_that_nobody_uses():
    offered = {node.name for node in ast.parse(COMPAT.read_text()).body if isinstance(node, ast.FunctionDef)}
    offered = {name for name in offered if not is_private(name)} | set(compat.__all__)
    users = "\n".join(path.read_text(encoding="utf-8") for path in MODULES if path != COMPAT)
    assert {name for name in offered if not re.search(rf"\b{name}\b", users)} == set()


def test_it_was_written_for_the_versions_in_the_lock():
    lock = dict(re.findall(r"^([\w-]+)==(\d+\.\d+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    assert {name: lock[name] for name in compat.WRITTEN_FOR} == compat.WRITTEN_FOR


@pytest.fixture
def installed(monkeypatch):
    """Lets another version of a library be found."""

    def change(name, version):
        known = metadata.version

        def found(asked):
            if asked == name and version is None:
                raise metadata.PackageNotFoundError(asked)
            return version if asked == name else known(asked)

        monkeypatch.setattr(metadata, "version", found)

    return change


@pytest.mark.parametrize("name", compat.WRITTEN_FOR)
@pytest.mark.parametrize("version", ["0.9.9", "99.0.0", "{expected}9.0", "1", None])
def test_a_foreign_version_is_refused_in_one_line(installed, name, version):
    expected = compat.WRITTEN_FOR[name]
    installed(name, version and version.format(expected=expected))
    with pytest.raises(UserError) as told:
        compat.check_versions()
    said = str(told.value)
    assert said.startswith(
        f"{name}: found version {version.format(expected=expected) if version else 'none'}; expected {expected},"
    )
    assert "make .venv/.ready" in said
    assert "\n" not in said


@pytest.mark.slow
@pytest.mark.parametrize("module", ["run", "ui"])
def test_a_command_refuses_a_foreign_version_in_one_line(project, tmp_path, module):
    (tmp_path / "first" / "dvc-9.9.9.dist-info").mkdir(parents=True)
    (tmp_path / "first" / "dvc-9.9.9.dist-info" / "METADATA").write_text("Name: dvc\nVersion: 9.9.9\n")
    path = f"{tmp_path / 'first'}{os.pathsep}{REPOSITORY}"
    environment = {**os.environ, "GEOLOC_ROOT": str(project), "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-P", "-m", f"orchestration.{module}"], cwd=project, env=environment,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("geoloc: error: dvc: found version 9.9.9; expected 3.67,")


@pytest.mark.parametrize("patch", [".0", ".99", ".1rc1", ""])
def test_a_patch_release_is_accepted(installed, patch):
    installed("dvc", compat.WRITTEN_FOR["dvc"] + patch)
    compat.check_versions()


def test_migrations_read_once_are_those_that_alembic_reads(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name / "versions").mkdir(parents=True)
        (tmp_path / name / "env.py").touch()
        (tmp_path / name / "versions" / "1.py").write_text(f"revision = '{name}1'\ndown_revision = None\n")
    read = ScriptDirectory.from_config
    monkeypatch.setattr(ScriptDirectory, "from_config", read)  # put back at the end
    compat.read_migrations_once()

    def config(name):
        made = Config()
        made.set_main_option("script_location", str(tmp_path / name))
        return made

    for name in ("a", "b", "a"):
        ours, theirs = ScriptDirectory.from_config(config(name)), read(config(name))
        assert ours.get_heads() == theirs.get_heads() == [f"{name}1"]
    assert ScriptDirectory.from_config(config("a")) is ScriptDirectory.from_config(config("a"))
