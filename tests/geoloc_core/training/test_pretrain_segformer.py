"""A segmenter is trained on the masks that a corpus publishes, and is then read as published ones are."""

import io
import itertools
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image
from pydantic import ValidationError
from torch.optim.optimizer import register_optimizer_step_pre_hook

from geoloc_core.encoders import checkpoints, encoder
from geoloc_core.encoders.preprocess import Preprocess
from geoloc_core.errors import UserError
from geoloc_core.params import NamedEncoder
from geoloc_core.project import Project
from geoloc_core.training import loop, supervised
from geoloc_core.training.pretrain import segformer, vit

from ..encoders import made_segmenters as made
from .corpus import make_project

CLASSES = ["sky", "road", "car"]
TRAINED = {"kind": "segformer", "corpus": "photos", "classes": CLASSES, "image_size": 32, "epochs": 2, "batch": 8}
TRAINED |= {"lr": 0.01, "dims": [8, 8, 8, 8], "decoder_dim": 16}


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint16)).save(stream, "PNG")
    return stream.getvalue()


def project_with(root, masks=None, **towers) -> Project:
    """The plain corpus, its photos half sky and half road unless ``masks`` says otherwise, and what else is trained."""
    project = make_project(root, 60)
    file = project.corpus("photos") / "attributes.parquet"
    table = pq.read_table(file)
    mask = np.full((40, 48), 1000)
    mask[20:] = 2003
    mask[:20] = 7
    found = masks if masks is not None else [png(np.where(mask == 2003, 1003, mask))] * len(table)
    seen = ["street; flag", "street", "house; flag"] * (len(table) // 3)
    columns = {"mask": pa.array(found, pa.binary()), "seen": pa.array(seen)}
    for name, column in columns.items():
        table = table.append_column(name, column)
    pq.write_table(table, file)
    raw = yaml.safe_load((root / "params.yaml").read_text())
    raw["run"]["pretrain"] = {name: block["pretrain"] for name, block in towers.items() if "pretrain" in block}
    raw["run"]["encoders"] |= {name: block["encoder"] for name, block in towers.items()}
    raw["run"]["checkpoints"] |= {name: block["made"] for name, block in towers.items() if "made" in block}
    (root / "params.yaml").write_text(yaml.safe_dump(raw))
    return Project.open(root / "params.yaml")


PIECES = {"pretrain": TRAINED, "encoder": {"kind": "segformer", "min_area": 0.0}}


def train(project: Project, name: str = "pieces", log=lambda *_: None):
    options, folder = project.profile.pretrain[name], project.weights(name)
    folder.mkdir(parents=True, exist_ok=True)
    module = {"segformer": segformer, "vit": vit}[options.kind]
    return module.pretrain(project, options, folder, project.partial("pretrain", name), log)


@pytest.mark.slow
def test_what_is_learned_cuts_photos_and_becomes_part_of_others(tmp_path):
    project = project_with(
        tmp_path,
        pieces={**PIECES, "pretrain": {**TRAINED, "epochs": 12}},
        crops={"encoder": {"kind": "crops", "of": PIECES["encoder"]}, "made": {"trained": "pieces"}},
        both={
            "encoder": {"kind": "seg_vit"},
            "made": {"parts": {"segmenter": {"trained": "pieces"}, "vit": {"file": "given/vit"}}},
        },
    )
    history, figures = train(project)
    assert history[-1]["loss"] < history[0]["loss"]
    assert history[-1]["pixel_accuracy"] > 0.9
    assert figures["photos"] == 48
    assert figures["classes"] == 3
    made.vit(tmp_path / "given" / "vit")
    with Image.open(io.BytesIO(b"".join(_photo(project)))) as image:
        size = image.size
    for name in ("crops", "both"):
        checkpoints.download(project, name, NamedEncoder.of("run", project.profile, name))
    towers = {
        name: encoder.load(project.profile.encoders[name], project.weights(name))
        for name in ("pieces", "crops", "both")
    }
    cuts, crops = (towers[name](_photo(project))[0] for name in ("pieces", "crops"))
    assert {cut["class"] for cut in cuts} == {"sky", "road"}
    assert sum(cut["area"] for cut in cuts) == size[0] * size[1]
    assert [crop["class"] for crop in crops] == [cut["class"] for cut in cuts]
    assert towers["both"](_photo(project)).shape == (1, 24)


@pytest.mark.slow
def test_stopped_after_an_epoch_and_begun_again_it_ends_the_same(tmp_path, monkeypatch, capsys):
    """What drops out in an epoch does not depend on what was drawn before it."""
    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0.0)
    monkeypatch.setattr(loop, "SAVING_SHARE", math.inf)

    def stop(metrics, epoch):
        raise KeyboardInterrupt

    through, _ = train(project_with(tmp_path / "through", pieces=PIECES))
    stopped = project_with(tmp_path / "stopped", pieces=PIECES)
    with pytest.raises(KeyboardInterrupt):
        train(stopped, log=stop)
    torch.manual_seed(99)
    assert train(stopped)[0] == through
    assert "resuming after" in capsys.readouterr().err


def _photo(project: Project) -> list[bytes]:
    from geoloc_core.corpora import manifest

    return next(manifest.read_photos(manifest.shards(project.corpus("photos"))[0]))[:1]


@pytest.mark.parametrize(
    ("masks", "says"),
    [
        ([None] * 60, "row 0: no mask in column mask; fetch a corpus with masks: true"),
        ([b"no picture"] * 60, "row 0: not a mask"),
        ([png(np.full((4, 4), 9000))] * 60, "row 0: its mask has class 9; expected 0 to 2, the classes of params.yaml"),
    ],
)
def test_masks_that_are_none_are_named(tmp_path, masks, says):
    with pytest.raises(UserError, match=says):
        train(project_with(tmp_path, masks, pieces=PIECES))


def test_a_mask_is_read_at_the_size_of_the_photos_by_its_nearest_pixel(tmp_path):
    mask = np.kron(np.array([[0, 1001], [2005, 1002]]), np.ones((20, 24), int))
    project = project_with(tmp_path, [png(mask)] * 60, pieces=PIECES)
    found = segformer._masks(project, project.profile.pretrain["pieces"])
    assert found.shape == (60, 32, 32)
    assert (found[3] == np.kron([[0, 1], [2, 1]], np.ones((16, 16)))).all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"dims": [8, 8]}, "expected four, one of each stage"),
        ({"classes": ["sky"]}, "at least 2"),
        ({"image_size": 40}, "32"),
    ],
)
def test_what_cannot_be_is_refused(change, says):
    with pytest.raises(ValidationError, match=says):
        segformer.Options.model_validate(TRAINED | {"lr": 0.1} | change)


def test_weights_of_an_encoder_that_was_not_trained_are_asked_for(tmp_path):
    crops = {"encoder": {"kind": "crops", "of": PIECES["encoder"]}, "made": {"trained": "pieces"}}
    project = project_with(tmp_path, pieces=PIECES, crops=crops)
    with pytest.raises(UserError, match="run `geoloc pretrain pieces` first"):
        checkpoints.download(project, "crops", NamedEncoder.of("run", project.profile, "crops"))
    with pytest.raises(UserError, match=r"checkpoints.crops: trained: 'piece'; expected one of .*: pieces"):
        project_with(tmp_path / "b", pieces=PIECES, crops={**crops, "made": {"trained": "piece"}})


TINY_VIT = {"kind": "vit", "corpus": "photos", "image_size": 32, "patch_size": 16, "dim": 12, "layers": 1, "heads": 1}
TINY_VIT |= {"epochs": 1, "batch": 8, "lr": 0.001}


@pytest.mark.parametrize(("several", "classes"), [(True, 3), (False, 3)])
def test_a_vit_learns_one_class_or_several_of_a_photo(tmp_path, several, classes):
    block = {**TINY_VIT, "target": "seen", "several": several}
    project = project_with(tmp_path, eyes={"pretrain": block, "encoder": {"kind": "vit"}})
    history, figures = train(project, "eyes")
    assert figures["classes"] == classes
    assert 0 <= history[0]["accuracy"] <= 1
    values = ["street; flag", "street", "house; flag"]
    expected = [[1, 0, 1], [0, 0, 1], [1, 1, 0]] if several else [[0, 0, 1], [0, 1, 0], [1, 0, 0]]
    assert vit._classes(values, several).tolist() == expected


def test_loss_and_accuracy_of_an_epoch_are_those_of_its_batches(tmp_path):
    block = {**TINY_VIT, "target": "seen", "several": False, "epochs": 2}
    project = project_with(tmp_path, eyes={"pretrain": block, "encoder": {"kind": "vit"}})
    options, partial = project.profile.pretrain["eyes"], project.partial("pretrain", "eyes")
    net, numbers = torch.nn.Linear(1, 1), itertools.count(1)

    def outcome(pictures, rows):
        number = next(numbers)
        return net.weight.sum() * 0 + number, number % 2, len(rows)

    lesson = supervised.Lesson.of(
        project, "photos", 8, Preprocess(32, "squash", "bilinear", (0.5,) * 3, (0.5,) * 3), partial
    )
    history = supervised.fit(project, lesson, net, outcome, options, partial, lambda *_: None,
                             accuracy="right", warmup=0, augment="none")  # fmt: skip
    assert history == [{"loss": 3.5, "right": 3 / 48}, {"loss": 9.5, "right": 3 / 48}]


def test_the_rate_rises_for_an_epoch_and_falls_to_the_last_step(tmp_path):
    block = {**TINY_VIT, "target": "seen", "several": False, "epochs": 3}
    project = project_with(tmp_path, eyes={"pretrain": block, "encoder": {"kind": "vit"}})
    rates = []
    watch = register_optimizer_step_pre_hook(lambda optimiser, *_: rates.append(optimiser.param_groups[0]["lr"]))
    try:
        train(project, "eyes")
    finally:
        watch.remove()
    rising = [(step + 1) / 6 for step in range(6)]  # 48 photos, 8 at a time
    falling = [(1 + math.cos(math.pi * step / 12)) / 2 for step in range(12)]
    np.testing.assert_allclose(rates, [0.001 * share for share in rising + falling], rtol=1e-9)
