"""Weights come pinned and in one folder format, or with one clear line."""

import pytest
import yaml

from geoloc_core.encoders import checkpoints, encoder
from geoloc_core.errors import UserError
from geoloc_core.project import Project

from ...conftest import PHOTOS


def project_with(tmp_path, kind: dict, checkpoint: dict) -> Project:
    profile = {**PHOTOS, "encoders": {"net": kind}, "checkpoints": {"net": checkpoint}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"run": profile}))
    return Project.open(tmp_path / "params.yaml")


CLIP, VIT = {"kind": "open_clip"}, {"kind": "vit"}


@pytest.mark.parametrize(
    ("kind", "checkpoint", "says"),
    [
        (VIT, {"hub": "google/vit", "revision": "main"}, "'main' may move; expected a commit"),
        (VIT, {"model": "ViT-B-32", "tag": "openai"}, "expected hub and revision"),
        (VIT, {"file": "nowhere"}, "no such file or folder"),
        (CLIP, {"model": "ViT-B-32", "tag": "no_such_tag"}, "ViT-B-32 with no_such_tag"),
    ],
)
def test_what_cannot_be_had_is_said_in_one_line(tmp_path, kind, checkpoint, says):
    project = project_with(tmp_path, kind, checkpoint)
    with pytest.raises(UserError, match=says) as error:
        checkpoints.download(project, "net")
    assert "checkpoints.net" in str(error.value)
    assert "\n" not in str(error.value)
    assert not project.weights("net").exists()


def test_a_commit_of_the_hub_is_asked_for_and_its_absence_explained(tmp_path):
    project = project_with(tmp_path, VIT, {"hub": "google/vit", "revision": "0" * 40})
    with pytest.raises(UserError, match=r"config\.json of google/vit@0000"):
        checkpoints.download(project, "net")


@pytest.mark.slow
def test_a_local_file_of_any_architecture_becomes_a_checkpoint_folder(tmp_path):
    import numpy as np
    import open_clip as library
    import torch

    from .test_towers import PHOTOS as PICTURES

    torch.manual_seed(0)
    model, _, transform = library.create_model_and_transforms("RN50-quickgelu")
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    exactly = {**CLIP, "precision": "fp32"}
    project = project_with(tmp_path, exactly, {"model": "RN50-quickgelu", "file": "weights.pt"})
    checkpoints.download(project, "net")
    tower = encoder.load(project.profile.encoders["net"], project.weights("net"))
    from geoloc_core.encoders.preprocess import decode

    with torch.inference_mode():
        theirs = model.eval().encode_image(torch.stack([transform(decode(p)) for p in PICTURES]))
    np.testing.assert_allclose(tower(PICTURES), theirs.numpy(), atol=1e-4)
