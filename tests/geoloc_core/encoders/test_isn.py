"""Scene networks and the scene classifier read their published files and give what torchvision gives."""

import argparse
import io
import os
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torchvision import models

from geoloc_core.encoders import encoder, scenes, torch_files
from geoloc_core.encoders.preprocess import decode
from geoloc_core.encoders.towers import isn
from geoloc_core.errors import UserError

from . import made_segmenters as made
from .test_preprocess import photo

pytestmark = pytest.mark.slow


def plain(width: int, height: int, colour: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(stream, "JPEG")
    return stream.getvalue()


PHOTOS = [photo(300, 240), photo(230, 400), plain(256, 256, "navy"), plain(500, 231, "gold"), plain(224, 300, "green")]


def prepared() -> torch.Tensor:
    """The photos as Places365's and GeoEstimation's own scripts prepare them."""
    from torchvision import transforms

    steps = [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()]
    steps.append(transforms.Normalize(scenes.MEAN, scenes.STD))
    return torch.stack([transforms.Compose(steps)(decode(data)) for data in PHOTOS])


def resnet(arch: str, seed: int, classes: int = 1000) -> torch.nn.Module:
    torch.manual_seed(seed)
    return made.shaken(models.get_model(arch, weights=None, num_classes=classes))


class Settings(dict):
    """What a training saves beside its weights."""


def save_isn(path, network, classes=7):
    """As GeoEstimation's Lightning module is saved: the trunk by position, a classifier per partitioning, settings."""
    trunk = torch.nn.Sequential(*list(network.children())[:-2])
    tensors = OrderedDict({f"model.{name}": value for name, value in trunk.state_dict().items()})
    for number in range(3):
        tensors[f"classifier.{number}.weight"] = torch.zeros(classes, network.fc.in_features)
        tensors[f"classifier.{number}.bias"] = torch.zeros(classes)
    path.parent.mkdir(parents=True, exist_ok=True)
    settings = Settings(arch="resnet50", files=[Path("cells_50_5000.csv")])
    hparams = argparse.Namespace(batch_size=128, weights=None)
    callbacks = {argparse.ArgumentParser: {"best_model_score": torch.tensor(18.4833)}}
    beside = {"epoch": 14, "callbacks": callbacks, "hyper_parameters": settings, "hparams": hparams}
    torch.save({**beside, "state_dict": tensors}, path)


def pooled(network, images) -> np.ndarray:
    network.fc = torch.nn.Identity()
    with torch.inference_mode():
        return network(images).numpy()


def save_places(folder, network):
    """As Places365 publishes it: trained on several GPUs, saved by an old torch."""
    folder.mkdir(parents=True)
    tensors = {f"module.{name}": value for name, value in network.state_dict().items() if "num_batches" not in name}
    beside = {"epoch": 90, "arch": "resnet", "best_prec1": torch.tensor(54.7)}
    torch.save({**beside, "state_dict": tensors}, folder / scenes.CLASSIFIERS[1], _use_new_zipfile_serialization=False)


def save_hierarchy(folder) -> np.ndarray:
    """A hierarchy in the published layout, in which every tenth scene has two kinds; (365, 19) flags."""
    flags = np.zeros((365, 19), int)
    for scene in range(365):
        for kind in {scene % 16, (scene if scene % 10 else scene + 5) % 16}:
            flags[scene, 3 + kind] = 1
            flags[scene, 0 if kind < 6 else 1 if kind < 10 else 2] = 1
    table = pd.DataFrame(flags)
    table.insert(0, "category", [f"'/s/scene_{scene}'" for scene in range(365)])
    heads = [["", "Level 1", *[""] * 18], ["category", *scenes.S3, *(f"kind, {kind}" for kind in range(16))]]
    text = pd.DataFrame(heads).to_csv(index=False, header=False) + table.to_csv(index=False, header=False)
    (folder / scenes.HIERARCHY).write_text(text + "\n")
    return flags


@pytest.mark.parametrize("arch", ["resnet18", pytest.param("resnet50", marks=pytest.mark.slow)])
def test_the_single_tower_is_the_pooled_last_map(tmp_path, arch):
    network = resnet(arch, 0)
    save_isn(tmp_path / isn.FILE, network)
    theirs = pooled(network, prepared())
    ours, dim = isn.tower(tmp_path / isn.FILE)
    with torch.inference_mode():
        np.testing.assert_allclose(ours(prepared()), theirs, rtol=1e-5, atol=1e-5)
    tower = encoder.load(isn.Options(kind="isn", batch=3), tmp_path)
    assert tower.shape == (dim,) == theirs.shape[1:]
    alike(tower(PHOTOS), theirs)


def alike(ours, theirs) -> None:
    """As near as a tower that may compute in bf16 has to be."""
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    assert ((ours * theirs).sum(axis=1) / lengths).min() > 0.999


def told_apart(network) -> None:
    """Give a random classifier a last layer for which the photos are of many classes."""
    torch.nn.init.normal_(network.fc.weight, std=5)
    trunk = torch.nn.Sequential(*list(network.children())[:-1], torch.nn.Flatten())
    with torch.inference_mode():
        middle = trunk(prepared()).mean(dim=0)
    network.fc.bias.data = -(network.fc.weight.data @ middle.clone())


@pytest.fixture(scope="module")
def routed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("routed")
    places = resnet("resnet18", 9, 365)
    told_apart(places)
    save_places(folder / "scene", places)
    towers = [resnet("resnet18", seed) for seed in range(3)]
    for name, network in zip(scenes.S3, towers, strict=True):
        save_isn(folder / name / isn.FILE, network)
    flags = save_hierarchy(folder / "scene")
    return folder, places, towers, flags


def test_scene_probabilities_equal_torchvisions_and_label_photos(routed):
    folder, places, _, flags = routed
    with torch.inference_mode():
        theirs = places(prepared()).softmax(1)
        np.testing.assert_allclose(scenes.classifier(folder / "scene")(prepared()), theirs, atol=1e-5)
    probabilities = encoder.load(isn.Options(feature="scenes", kind="isn"), folder)(PHOTOS)
    hierarchy = scenes.read_hierarchy(folder / "scene" / scenes.HIERARCHY)
    for shares, part in ((hierarchy.s16, flags[:, 3:]), (hierarchy.s3, flags[:, :3])):
        np.testing.assert_array_equal(probabilities @ shares, probabilities @ (part / part.sum(1, keepdims=True)))


def test_every_photo_goes_through_the_tower_of_its_scene(routed):
    folder, _, towers, _ = routed
    hierarchy = scenes.read_hierarchy(folder / "scene" / scenes.HIERARCHY)
    probabilities = encoder.load(isn.Options(feature="scenes", kind="isn"), folder)(PHOTOS)
    kinds = (probabilities @ hierarchy.s3).argmax(1)
    assert len(set(kinds)) > 1
    photos = prepared()
    theirs = np.concatenate([pooled(towers[kind], photos[row : row + 1]) for row, kind in enumerate(kinds)])
    alike(encoder.load(isn.Options(feature="routed", kind="isn"), folder)(PHOTOS), theirs)


def test_the_published_labels_are_of_this_hierarchys_order(shared):
    """Real rows: the 3 kinds are in the order of :data:`scenes.S3`, and the 16 lie in the order of the 3."""
    table = pd.concat(
        pd.read_csv(shared / "benchmarks" / f"{name}_places365.csv") for name in ("im2gps", "im2gps3k", "yfcc25600")
    )
    assert (table.S3_Label == table[[f"Prob_{name}" for name in scenes.S3]].to_numpy().argmax(1)).all()
    usual = table.groupby("S16_Label").S3_Label.agg(lambda kinds: kinds.mode()[0])
    assert usual.tolist() == [0] * 6 + [1] * 4 + [2] * 6
    assert table.S365_Label.between(0, 364).all()


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, call, *given):
        self.call, self.given = call, given

    def __reduce__(self):
        return self.call, self.given


def test_nothing_that_a_checkpoint_names_is_run(tmp_path):
    trap, path = tmp_path / "sprung", tmp_path / "x.ckpt"
    torch.save({"state_dict": {"a": torch.ones(2)}, "callbacks": Trap(open, str(trap), "w")}, path)
    assert torch_files.read_tensors(path).keys() == {"a"}
    torch.save({"state_dict": {"a": torch.ones(2)}, "callbacks": Trap(os.mkdir, str(trap))}, path)
    with pytest.raises(UserError, match="only tensors and plain values"):
        torch_files.read_tensors(path)
    assert not trap.exists()


def test_a_file_of_one_tensor(tmp_path):
    path = tmp_path / "scale.pth"
    torch.save(torch.nn.Parameter(torch.tensor(2.5)), path)
    found = torch_files.read_tensor(path, ())
    assert (found.item(), found.requires_grad) == (2.5, False)
    for other, says in ((torch.ones(2), r"a tensor \(2,\)"), ({"a": torch.ones(2)}, "a dict")):
        torch.save(other, path)
        with pytest.raises(UserError, match=rf"scale\.pth: {says}; expected a tensor \(\)"):
            torch_files.read_tensor(path, ())


def without(path, name) -> None:
    loaded = {"state_dict": torch_files.read_tensors(path)}
    del loaded["state_dict"][name]
    torch.save(loaded, path)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: path.unlink(), "no such file"),
        (lambda path: path.write_bytes(b"not weights"), "damaged, or not a torch file"),
        (lambda path: path.write_bytes(path.read_bytes()[:100_000]), "damaged, or not a torch file"),
        (lambda path: torch.save({"state_dict": {}}, path), "holds no named tensors"),
        (lambda path: torch.save({"state_dict": {"model.0.weight": torch.ones(1)}}, path), "expected a ResNet"),
        (lambda path: without(path, "model.5.0.conv1.weight"), "1 tensors missing, such as 5.0.conv1.weight"),
    ],
    ids=["missing", "no weights", "truncated", "empty", "another network", "incomplete"],
)
def test_a_wrong_checkpoint_is_said_in_one_line(tmp_path, spoil, says):
    save_isn(tmp_path / isn.FILE, resnet("resnet18", 0))
    spoil(tmp_path / isn.FILE)
    with pytest.raises(UserError, match=says) as error:
        encoder.load(isn.Options(kind="isn"), tmp_path)
    assert "\n" not in str(error.value)
    assert str(tmp_path / isn.FILE) in str(error.value)


HEADS = ",Level 1" + "," * 18 + "\ncategory" + ",kind" * 19 + "\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "export the scene hierarchy"),
        ("a,b,c,d\nb,,,\n'/a/airfield',0,0,1\n", "4 columns; expected a scene, its 3 and its 16 kinds"),
        (HEADS, "0 scenes; expected 365"),
        ("a\nb\n'/a/airfield',0,0,1\n", "row 3: 4 cells; expected 1"),
        (HEADS + "x,1,0,0,1" + ",0" * 15 + "\n", "1 scenes; expected 365"),
        (HEADS + ("x,1,0,0" + ",0" * 16 + "\n") * 365, "at least one is 1"),
        (HEADS + ("x,1_0,0,0" + ",0" * 16 + "\n") * 365, "row 3: '1_0'; expected 1 if the scene"),
        (HEADS + "\n" + ("x,1,0,nan" + ",0" * 16 + "\n") * 365, "row 4: 'nan'; expected 1 if the scene"),
        (
            (HEADS + "x,1,0,0,1").replace(",", ";"),
            "1 columns; expected a scene, its 3 and its 16 kinds, separated by commas",
        ),
    ],
)
def test_a_wrong_hierarchy_is_said_in_one_line(tmp_path, text, says):
    path = tmp_path / scenes.HIERARCHY
    if text:
        path.write_text(text)
    with pytest.raises(UserError, match=says) as error:
        scenes.read_hierarchy(path)
    assert "\n" not in str(error.value)
