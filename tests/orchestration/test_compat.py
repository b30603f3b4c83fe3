"""Private parts of other libraries are used in one module, which knows the versions that it was written for."""

import ast
import io
import os
import re
import subprocess
import sys
from contextlib import chdir
from importlib import metadata

import dagster as dg
import pytest
import yaml
from alembic.config import Config
from alembic.script import ScriptDirectory
from dagster._core.executor import multiprocess
from dvc.dependency.param import ParamsDependency
from dvc.fs import localfs
from dvc.repo import Repo
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML
from ruamel.yaml.resolver import VersionedResolver

from geoloc_core.errors import UserError
from orchestration import compat
from tests.conftest import ROOT
from tests.orchestration.small_project import REPOSITORY, dvc, replace

LIBRARIES = {"dagster", "dagster_graphql", "dagster_shared", "dagster_webserver", "dvc", "dvc_data", "dvc_objects",
             "alembic", "mlflow"}  # fmt: skip
MODULES = sorted(path for package in ("orchestration", "geoloc_core") for path in (ROOT / package).rglob("*.py"))
COMPAT = ROOT / "orchestration" / "compat.py"


@dg.job
def waits(): ...


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


@pytest.mark.slow
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


def read_params(root):
    """What DVC reads of the parameters of every stage, by itself and by ours."""
    with chdir(root), Repo(str(root)) as repo:
        by_dvc = of_stages(repo)
        with compat.parameters_read_once(repo):
            return by_dvc, of_stages(repo)


def of_stages(repo):
    return [d.read_params() for stage in repo.index.stages for d in stage.deps if isinstance(d, ParamsDependency)]


def test_parameters_read_once_are_those_that_dvc_reads(project):
    replace(project / "params.yaml", "{lr: 0.1}", "{lr: 0.1, of: [1, {a: 2}], 5: x, none: null, empty: {}}")
    replace(project / "dvc.yaml", '"run.heads.${key}"]', '"run.heads.${key}", run.heads.linear.of, run.seed.x, gone, '
            '"run.heads.linear.of.1.a", "run.heads.linear.of.0", "run.heads.linear.5", "run.*.mp16.n", '
            'run.heads.linear.none, run.heads.linear.empty, {gone.yaml: [a]}, {other.yaml: }]')  # fmt: skip
    (project / "other.yaml").write_text("a: 1\n")
    by_dvc, by_us = read_params(project)
    assert by_us == by_dvc
    assert {"run.heads.linear.of.1.a": 2, "run.heads.linear.5": "x"}.items() <= by_us[-3].items()
    assert by_us[-2:] == [{}, {"a": 1}]


def test_parameters_are_read_again_after_the_block(project):
    with chdir(project), Repo(str(project)) as repo:
        with compat.parameters_read_once(repo):
            before = of_stages(repo)
            replace(project / "params.yaml", "lr: 0.1", "lr: 0.3")
            assert of_stages(repo) == before
        assert of_stages(repo) != before


def test_a_parameters_file_is_parsed_again_only_after_it_has_changed(project, monkeypatch):
    from dvc.utils import serialize

    parsed = []
    load = serialize.load_yaml
    monkeypatch.setattr(serialize, "LOADERS", serialize.LOADERS.copy())  # put back at the end
    serialize.LOADERS.pop(".yaml", None)
    monkeypatch.setattr(
        serialize, "load_yaml", lambda *given, **options: parsed.append(given) or load(*given, **options)
    )
    compat.parameters_parsed_once()
    file = str(project / "params.yaml")

    def read():
        return serialize.load_path(file, localfs)

    first = read()
    assert first == yaml.safe_load((project / "params.yaml").read_text())
    first["run"].clear()  # what a reader changes, no other sees
    assert read()["run"]
    assert len(parsed) == 1
    replace(project / "params.yaml", "lr: 0.1", "lr: 0.3")
    assert read()["run"] == yaml.safe_load((project / "params.yaml").read_text())["run"]
    assert len(parsed) == 2


@pytest.mark.parametrize(
    "text", ["a: on\nb: 012\n", "%YAML 1.1\n---\na: on\nb: 012\n", "%YAML 1.2\n---\na: on\nb: 0o12\n"]
)
@pytest.mark.parametrize("kind", ["safe", "rt"])
def test_values_are_read_by_the_version_that_a_file_names(text, kind, monkeypatch):
    before = VersionedResolver.__dict__["processing_version"]
    if not isinstance(before, property):  # another test has let it be found once
        before = property(before.func)
    monkeypatch.setattr(VersionedResolver, "processing_version", before)
    expected = YAML(typ=kind).load(text)
    compat.version_of_yaml_found_once()
    found, written = YAML(typ=kind).load(text), io.StringIO()
    YAML(typ=kind).dump(dict(found), written)
    assert found == expected
    assert YAML(typ=kind).load(written.getvalue()) == found


NAMES = st.text("ab1-_ *", min_size=1, max_size=2)
TREES = st.recursive(st.integers() | st.none(), lambda inner: st.lists(inner, max_size=2) | st.dictionaries(
    NAMES | st.integers(0, 1), inner, max_size=3), max_leaves=8)  # fmt: skip


@pytest.mark.slow
@given(st.dictionaries(NAMES, TREES, max_size=4), st.lists(NAMES, min_size=1, max_size=3).map(".".join))
def test_a_key_is_found_as_dvc_finds_it(held, key):
    import dpath

    def found(values):
        try:
            return values()
        except (ValueError, dpath.exceptions.InvalidGlob):
            return "several"

    def by_dvc():
        try:
            return {key: dpath.get(held, key, separator=".")}
        except KeyError:
            return {}

    assert found(lambda: compat._values(held, [key])) == found(by_dvc)


@pytest.mark.slow
def test_the_status_of_stages_is_as_dvc_tells_it(project):
    from orchestration.dvc import changed_stages

    dvc(project, "repro", "fetch@mp16", "fetch@im2gps")
    replace(project / "params.yaml", "n: 5", "n: 6")
    with chdir(project), Repo(str(project)) as repo:
        by_dvc = set(repo.status())
    assert changed_stages(project) == by_dvc
    assert "fetch@im2gps" not in by_dvc
    assert "fetch@mp16" in by_dvc
    assert yaml.safe_load((project / "dvc.lock").read_text())["stages"].keys() == {"fetch@mp16", "fetch@im2gps"}


def test_who_waits_for_a_slot_takes_it_once_it_is_free(instance, monkeypatch):
    """By priority, the others go on waiting; Dagster's own would ask again after a second, and then ever later."""
    monkeypatch.setattr(multiprocess, "InstanceConcurrencyContext", None)  # put back at the end
    compat.ask_for_freed_slots()
    run = instance.create_run_for_job(waits)
    storage = instance.event_log_storage
    storage.set_concurrency_slots("gpu", 1)
    with multiprocess.InstanceConcurrencyContext(instance, run) as claims:
        assert claims.claim("gpu", "first")
        assert not claims.claim("gpu", "second", 1)
        assert not claims.claim("gpu", "third", 2)
        claims.free_step("of no pool")
        assert not claims.claim("gpu", "third", 2)
        claims.free_step("first")
        assert not claims.claim("gpu", "second", 1)
        assert claims.claim("gpu", "third", 2)
        claims.free_step("third")
        assert claims.claim("gpu", "second", 1)
    assert [slot.step_key for slot in storage.get_concurrency_info("gpu").claimed_slots] == ["second"]
