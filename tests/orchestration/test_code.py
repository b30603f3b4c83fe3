"""The digests of the stages' code are worked out when something that they depend on has changed, and then only."""

import hashlib
import shutil
import sys

import pytest
import yaml

import geoloc_core
from geoloc_core.errors import UserError
from orchestration import code
from orchestration.dvc import locked_outputs
from tests.conftest import PHOTOS
from tests.orchestration.small_project import replace

GRAPH = """
stages:
  code:
    cmd: geoloc code
    always_changed: true
    outs: [{code.yaml: {cache: false}}]
"""


@pytest.fixture
def real(project):
    """A project with the digests alone, of a few stages."""
    (project / "dvc.yaml").write_text(GRAPH)
    (project / "params.yaml").write_text(yaml.safe_dump({"run": PHOTOS}))
    return project


@pytest.fixture
def ran(monkeypatch):
    """How often the command ran."""
    seen = []
    run = code._run_plan
    monkeypatch.setattr(code, "_run_plan", lambda root: (seen.append(root), run(root)))
    return seen


@pytest.mark.slow
def test_the_command_runs_again_only_after_a_change(real, ran):
    code.refresh_code(real)
    first = (real / "code.yaml").read_text()
    assert set(yaml.safe_load(first)) > {"fetch", "train"}
    code.refresh_code(real)
    assert len(ran) == 1
    replace(real / "params.yaml", "seed: 20", "seed: 21")
    code.refresh_code(real)
    assert len(ran) == 2
    (real / "code.yaml").write_text("{}")
    code.refresh_code(real)
    assert ((real / "code.yaml").read_text(), len(ran)) == (first, 3)
    (real / "code.yaml").unlink()
    code.refresh_code(real)
    assert ((real / "code.yaml").read_text(), len(ran)) == (first, 4)
    (real / ".state" / "code.json").write_text("{")
    code.refresh_code(real)
    assert len(ran) == 5
    md5 = hashlib.md5((real / "code.yaml").read_bytes()).hexdigest()
    assert locked_outputs(real)["code"]["code.yaml"] == md5
    assert yaml.safe_load((real / "plan.yaml").read_text())["plan"]["truth"] == {"photos": {"attributes": []}}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"read": 1}'])
def test_a_note_that_cannot_be_read_is_none(tmp_path, text):
    (tmp_path / "code.json").write_text(text)
    assert code._noted(tmp_path / "code.json") is None


@pytest.mark.slow
def test_wrong_parameters_are_said_each_time_and_noted_never(real, ran):
    replace(real / "params.yaml", "seed: 20", "sead: 20")
    for _ in range(2):
        with pytest.raises(UserError, match=r"params\.yaml"):
            code.refresh_code(real)
    (real / "params.yaml").unlink()
    with pytest.raises(UserError, match=r"params\.yaml"):
        code.refresh_code(real)
    assert len(ran) == 3
    assert not (real / ".state" / "code.json").exists()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package, in a folder of libraries."""
    (tmp_path / "lib" / "package" / "sub").mkdir(parents=True)
    for name in ("__init__.py", "sub/a.py", "sub/b.py"):
        (tmp_path / "lib" / "package" / name).write_text(f"# {name}")
    (tmp_path / "lib" / "torch-2.11.0.dist-info").mkdir()
    (tmp_path / "params.yaml").write_text("run: {}\n")
    monkeypatch.setattr(geoloc_core, "__file__", str(tmp_path / "lib" / "package" / "__init__.py"))
    monkeypatch.setattr(sys, "path", [str(tmp_path / "lib"), str(tmp_path / "none"), str(tmp_path / "params.yaml")])
    return tmp_path


CHANGES = {
    "a source": lambda root: (root / "lib/package/sub/a.py").write_text("# sub/A.py"),
    "a new source": lambda root: (root / "lib/package/c.py").touch(),
    "a source less": lambda root: (root / "lib/package/sub/b.py").unlink(),
    "another name": lambda root: (root / "lib/package/sub/b.py").rename(root / "lib/package/sub/c.py"),
    "the parameters": lambda root: (root / "params.yaml").write_text("run: []\n"),
    "no parameters": lambda root: (root / "params.yaml").unlink(),
    "a library": lambda root: (root / "lib/torch-2.11.0.dist-info").rename(root / "lib/torch-2.12.0.dist-info"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_the_digests_depend_on_is_looked_at(package, change):
    before = code._digest(code._read_by_code(package))
    assert code._digest(code._read_by_code(package)) == before
    change(package)
    assert code._digest(code._read_by_code(package)) != before


def test_what_they_do_not_depend_on_is_not(package):
    before = code._digest(code._read_by_code(package))
    shutil.copytree(package / "lib" / "package", package / "elsewhere")
    (package / "lib" / "package" / "__pycache__").mkdir()
    (package / "lib" / "package" / "__pycache__" / "a.pyc").touch()
    (package / "dvc.yaml").touch()
    assert code._digest(code._read_by_code(package)) == before


def test_a_graph_without_digests_needs_none(project, ran):
    code.refresh_code(project)
    assert ran == []
