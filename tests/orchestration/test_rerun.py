"""What is read of a lock file to make a version again; the whole of it is in tests/test_pipeline.py."""

import pytest

from geoloc_core.errors import UserError
from geoloc_core.registry.origin import Origin
from orchestration import rerun

LOCK = """
schema: '2.0'
stages:
  encode@clip-mp16:
    cmd: geoloc encode mp16 --encoder clip
    outs: [{path: data/features/clip/mp16, md5: a}]
  encode@vit-mp16:
    cmd: geoloc encode mp16 --encoder vit
    outs: [{path: data/features/vit/mp16, md5: b}]
  train_2@linear:
    cmd: geoloc train linear
    deps: [{path: data/features/clip/mp16, md5: a}, {path: data/truth, md5: c}]
    outs: [{path: data/models/linear, md5: d}]
  train@linear_clip:
    cmd: geoloc train linear_clip
    outs: [{path: data/models/linear_clip, md5: d}]
  truth@mp16:
    cmd: geoloc truth mp16
    outs: [{path: data/truth/mp16.parquet, md5: c}]
  answer_1@linear:
    cmd: geoloc answer linear
    deps: [{path: data/models/linear, md5: d}, {path: data/features/clip, md5: a}]
    outs: [{path: data/answers/linear, md5: e}]
  score@linear:
    cmd: geoloc score linear
    deps: [{path: data/answers/linear, md5: e}]
    outs: [{path: data/scores/linear, md5: f}]
"""


@pytest.fixture
def lock(tmp_path):
    path = tmp_path / "dvc.lock"
    path.write_text(LOCK)
    return path


def test_the_stages_are_those_of_the_variant_as_they_ran(lock):
    steps = rerun._steps(lock, "linear")
    assert [steps[name].command for name in rerun.STAGES] == [f"geoloc {name} linear" for name in rerun.STAGES]
    assert steps["answer"].reads == ("data/models/linear", "data/features/clip")


def test_a_variant_that_dvc_does_not_know_is_one_clear_line(lock):
    with pytest.raises(UserError, match="linear_clip: made outside DVC, which knows no answer of it"):
        rerun._steps(lock, "linear_clip")


@pytest.mark.parametrize(("train", "model"), [(False, ["data/models/linear"]), (True, [])])
def test_what_is_read_comes_from_dvc_and_what_is_made_again_does_not(lock, train, model):
    found = Origin(variant="linear", model_sha256="d", commit="c", changed=False)
    steps = rerun._steps(lock, "linear")
    reads = {path for name, step in steps.items() if train or name != "train" for path in step.reads}
    truth = ["data/truth/mp16.parquet"] if train else []
    assert rerun._outputs(lock, found, train, reads) == ["data/features/clip/mp16", *model, *truth]


def test_a_folder_that_is_not_empty_is_not_written_to(tmp_path, capsys, monkeypatch):
    import yaml

    from tests.conftest import PHOTOS

    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"run": PHOTOS}))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    monkeypatch.setenv("GEOLOC_ROOT", str(tmp_path))
    assert rerun.main(["1", "--out", str(tmp_path / "mine")]) == rerun.USER_ERROR
    assert "already there; expected a new folder" in capsys.readouterr().err.replace("\n", " ")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
