"""The last block of a tower apart from the rest: as the tower has it, and trained as within it."""

import numpy as np
import pytest
import torch

from geoloc_core.encoders import encoder as encoders
from geoloc_core.encoders.last_block import features, network, open_last_block, shapes
from geoloc_core.encoders.towers.clip import Options as Clip
from geoloc_core.encoders.towers.open_clip import Options as OpenCLIP
from geoloc_core.encoders.towers.resnet import Options as ResNet
from geoloc_core.encoders.towers.vit import Options as ViT
from geoloc_core.encoders.trainable import open_trainable
from geoloc_core.errors import UserError
from geoloc_core.training.recipe import freeze
from tests.geoloc_core.encoders import made_checkpoints

TRANSFORMER = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 3, "head_width": 16}
TOWERS = {
    "clip": (Clip, made_checkpoints.clip(32, 8, old=False)),
    "open_clip": (OpenCLIP, made_checkpoints.open_clip(TRANSFORMER)),
    "vit": (ViT, made_checkpoints.vit(8, old=False)),
}


@pytest.fixture(scope="module", params=TOWERS)
def tower(request, tmp_path_factory):
    """The options of a kind, and a checkpoint of it."""
    options, made = TOWERS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    made.write(folder)
    return lambda pooling: options(kind=request.param, pooling=pooling, precision="fp32"), folder


def pixels(rows=6):
    return np.random.default_rng(0).integers(0, 256, (rows, 32, 32, 3), np.uint8)


@pytest.mark.parametrize("pool", ["mean", "class"])
def test_tokens_and_last_block_give_the_feature_of_the_whole_tower(tower, pool):
    options, folder = tower
    frozen = encoders.load(options("penultimate"), folder)
    tokens = frozen.forward(pixels())
    assert tokens.shape[1:] == frozen.shape == (17, tokens.shape[2])
    _, block = open_last_block(options("penultimate"), folder, pool)
    whole = encoders.load(options(pool), folder).forward(pixels())
    np.testing.assert_allclose(features(block.eval(), tokens), whole, atol=1e-5)
    np.testing.assert_allclose(features(block, tokens, at_once=1), whole, atol=1e-5)


def test_the_tokens_are_other_features_than_those_of_the_last_state(tower):
    options, folder = tower
    assert (
        encoders.load(options("penultimate"), folder).fingerprint
        != encoders.load(options("tokens"), folder).fingerprint
    )


@pytest.mark.parametrize("pool", ["mean", "class"])
def test_trained_on_tokens_it_becomes_what_it_becomes_within_the_tower(tower, pool):
    options, folder = tower
    frozen = encoders.load(options("penultimate"), folder)
    photos = frozen.preprocess.normalised(pixels())
    tokens = torch.from_numpy(frozen.forward(pixels()))
    _, block = open_last_block(options("penultimate"), folder, pool)
    whole = open_trainable(options(pool), folder)
    freeze(whole.network, whole.blocks, whole.after, "all_but_last", "freeze")
    assert sum(p.numel() for p in block.parameters()) == sum(
        p.numel() for p in whole.network.parameters() if p.requires_grad
    )
    truth = torch.tensor([0, 1, 2, 0, 1, 2])
    ends = []
    for net, x in ((block.train(), tokens), (whole.network.train(), torch.from_numpy(np.ascontiguousarray(photos)))):
        torch.manual_seed(0)
        head = torch.nn.Linear(tokens.shape[2], 3)
        learned = [p for p in (*net.parameters(), *head.parameters()) if p.requires_grad]
        optimiser = torch.optim.SGD(learned, lr=0.05, momentum=0.9)
        for _ in range(8):
            loss = torch.nn.functional.cross_entropy(head(net(x)), truth)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        ends.append((net(x).detach().numpy(), loss.item()))
    (one, first), (other, second) = ends
    np.testing.assert_allclose(one, other, atol=1e-4)
    assert first == pytest.approx(second, abs=1e-4)
    untrained = features(open_last_block(options("penultimate"), folder, pool)[1].eval(), tokens.numpy())
    assert np.abs(one - untrained).max() > 0.01, "or nothing was learned"


def test_its_tensors_have_the_shapes_that_are_said(tower):
    options, folder = tower
    shape, block = open_last_block(options("penultimate"), folder, "class")
    tensors = block.state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == shapes(
        tensors["norm.weight"].numel(), tensors["layer.linear1.bias"].numel(), shape.norm
    )
    again = network(shape, tensors, "class")
    x = torch.randn(2, 5, tensors["norm.weight"].numel())
    torch.testing.assert_close(again.eval()(x), block.eval()(x))


def test_towers_without_such_a_block_are_refused_in_a_line(tmp_path):
    with pytest.raises(UserError, match="kind resnet: no transformer whose last block is known; expected"):
        open_last_block(ResNet(kind="resnet"), tmp_path, "mean")
    made = made_checkpoints.open_clip({"image_size": 64, "timm_model_name": "test_byobnet", "timm_pool": "avg"})
    made.write(tmp_path)
    with pytest.raises(UserError, match="pooling 'penultimate': the tower, a TimmModel, has no class token"):
        encoders.load(OpenCLIP(kind="open_clip", pooling="penultimate"), tmp_path)
