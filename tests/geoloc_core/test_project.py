"""What is said to make a file again is the command that wrote it."""

import shutil
from pathlib import Path

import click
import pytest
import yaml
from dvc.repo import Repo

from geoloc_core import plan
from geoloc_core.cli import geoloc
from geoloc_core.encoders import store
from geoloc_core.project import Project, maker

from ..conftest import ROOT


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["demo", "papers", "full", "catalogue"])
def test_the_maker_of_every_output_is_the_command_of_its_stage(tmp_path, profile):
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    run = yaml.safe_load((ROOT / "params.yaml").read_text())["profiles"][profile]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"run": run}))
    project = Project.open(tmp_path / "params.yaml")
    plan.write(project)
    with Repo.init(str(tmp_path), no_scm=True) as repo:
        outs = {Path(out.fs_path): stage.cmd for stage in repo.index.stages for out in stage.outs}
    made = {path: command for path, command in outs.items() if path.is_relative_to(project.data)}
    assert {path.name: command for path, command in outs.items() if path not in made} == {"code.yaml": "geoloc code"}
    assert len(made) > 40
    for path, command in made.items():
        assert project.maker(path) == command
        assert project.maker(path / "x.json") == command or path.suffix
        if not path.is_relative_to(project.data / "weights"):
            assert maker(path) == maker(path.relative_to(tmp_path)) == command
        _, *words = command.split()
        name, found, rest = geoloc.resolve_command(click.Context(geoloc), words)
        found.make_context(name, rest)


def test_what_no_stage_writes_has_no_maker(tiny_project):
    for name in ("notes.json", "mine/notes.json", "corpora/.photos.new/manifest.parquet", "features/net"):
        assert tiny_project.maker(tiny_project.data / name) is None


def test_features_outside_the_project_are_made_again_by_their_out():
    assert store.remedy(Path("data/features/clip-l14/mp16")) == "run `geoloc encode mp16 --encoder clip-l14`"
    assert store.remedy(Path("made/features")) == "run `geoloc encode … --out made/features`"
