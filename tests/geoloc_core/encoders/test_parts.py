"""An encoder of several networks has a checkpoint for each, and a folder for each in its weights."""

import pytest
import yaml

from geoloc_core.encoders import checkpoints, encoder
from geoloc_core.encoders.towers import seg_vit
from geoloc_core.errors import UserError
from geoloc_core.params import About, NamedEncoder
from geoloc_core.project import Project

from ...conftest import PHOTOS
from . import made_segmenters as made
from .test_preprocess import photo


def project_with(tmp_path, options: dict, checkpoint: dict) -> Project:
    profile = {**PHOTOS, "encoders": {"net": options}, "checkpoints": {"net": checkpoint}, "variants": {}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"run": profile}))
    return Project.open(tmp_path / "params.yaml")


def download(project: Project) -> None:
    checkpoints.download(project, "net", NamedEncoder.of("run", project.profile, "net"))


@pytest.mark.parametrize("form", ["parts", "folder"])
def test_parts_come_from_anywhere_and_work_together(tmp_path, form):
    made.segformer(tmp_path / "given" / "segmenter")
    made.vit(tmp_path / "given" / "vit")
    (tmp_path / "given" / "vit" / "README.md").write_text("not needed")
    parts = {"segmenter": {"file": "given/segmenter"}, "vit": {"file": str(tmp_path / "given" / "vit")}}
    source = {"parts": parts} if form == "parts" else {"file": "given"}
    project = project_with(tmp_path, {"kind": "seg_vit"}, source)
    download(project)
    weights = project.weights("net")
    assert sorted(path.name for path in (weights / "vit").iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    tower = encoder.load(project.profile.encoders["net"], weights)
    assert tower([photo(70, 50)]).shape == (1, 24)


def test_parts_of_ones_own_are_opened_where_they_lie(tmp_path):
    made.segformer(tmp_path / "given" / "segmenter")
    made.vit(tmp_path / "given" / "vit")
    options = seg_vit.Options(kind="seg_vit")
    with checkpoints.of_your_own(NamedEncoder("run", options, None, None, About()), tmp_path / "given") as opened:
        theirs = encoder.load(options, tmp_path / "given")
        assert encoder.load(options, opened).fingerprint == theirs.fingerprint


def test_a_checkpoint_of_lightning_may_have_any_name(tmp_path):
    (tmp_path / "isn_epoch=014-val_loss=18.4833.ckpt").write_bytes(b"weights")
    project = project_with(tmp_path, {"kind": "isn"}, {"file": "isn_epoch=014-val_loss=18.4833.ckpt"})
    download(project)
    assert (project.weights("net") / "isn.ckpt").read_bytes() == b"weights"


SEG = {"kind": "seg_vit"}
NOWHERE, BRANCH = {"file": "nowhere"}, {"hub": "a/scenes", "revision": "main"}


@pytest.mark.parametrize(
    ("options", "checkpoint", "says"),
    [
        (
            SEG,
            {"parts": {"segmenter": NOWHERE, "vit": NOWHERE}},
            r"net\.parts\.segmenter\.file: .*no such file or folder",
        ),
        (
            SEG,
            {"parts": {"segmenter": NOWHERE, "eyes": NOWHERE}},
            r"net\.parts: eyes, segmenter; expected segmenter, vit",
        ),
        (
            SEG,
            {"hub": "some/segmenter", "revision": "0" * 40},
            r"expected `parts`, a checkpoint each for segmenter, vit",
        ),
        (SEG, {"file": "nowhere"}, r"nowhere/segmenter: no such file or folder"),
        ({"kind": "vit"}, {"parts": {"vit": NOWHERE}}, r"net\.parts: vit; expected no parts"),
        (
            {"kind": "isn", "feature": "scenes"},
            {"parts": {"scene": BRANCH}},
            r"net\.parts\.scene\.revision: 'main' may",
        ),
        ({"kind": "isn", "feature": "routed"}, {"parts": {"scene": BRANCH}}, r"expected scene, indoor, natural, urban"),
    ],
)
def test_wrong_parts_are_said_in_one_line(tmp_path, options, checkpoint, says):
    project = project_with(tmp_path, options, checkpoint)
    with pytest.raises(UserError, match=says) as error:
        download(project)
    assert "\n" not in str(error.value)
    assert not project.weights("net").exists()
