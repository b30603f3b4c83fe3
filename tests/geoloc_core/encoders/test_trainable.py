"""A tower that training changed is opened again by its own kind, with the features that it was left with."""

import numpy as np
import pytest
import torch
from torchvision import models

from geoloc_core.encoders import encoder
from geoloc_core.encoders.towers import clip, isn, mask2former, onnx, open_clip, resnet, seg_vit, vit
from geoloc_core.encoders.trainable import open_trainable, trains
from geoloc_core.errors import UserError
from geoloc_core.training import recipe

from . import made_checkpoints as made
from .test_preprocess import photo

PHOTOS = [photo(70, 50), photo(50, 70, "PNG")]


def write_isn(folder):
    """As GeoEstimation publishes its networks, but for the classifiers of cells."""
    torch.manual_seed(0)
    network = models.resnet18(weights=None)
    made.as_trained(network, 64)
    trunk = torch.nn.Sequential(*list(network.children())[:-2])
    torch.save(
        {"state_dict": {f"model.{name}": value for name, value in trunk.state_dict().items()}}, folder / isn.FILE
    )


TOWERS = {
    "vit": (vit.Options(kind="vit"), made.vit(8, old=False).write),
    "vit, old": (vit.Options(kind="vit", pooling="mean"), made.vit(16, old=True).write),
    "resnet": (resnet.Options(kind="resnet"), made.resnet(old=False).write),
    "resnet, max": (resnet.Options(kind="resnet", pooling="max"), made.resnet(old=True).write),
    **{
        f"clip, {pooling}": (clip.Options(kind="clip", pooling=pooling), made.clip(28, 14, old=pooling == "mean").write)
        for pooling in ("projection", "class", "mean")
    },
    **{
        f"open_clip, {pooling}": (
            open_clip.Options(kind="open_clip", pooling=pooling),
            made.open_clip(made.TRANSFORMER).write,
        )
        for pooling in ("projection", "class", "mean")
    },
    "open_clip, resnet": (open_clip.Options(kind="open_clip"), made.open_clip(made.RESIDUAL).write),
    "open_clip, timm": (open_clip.Options(kind="open_clip"), made.open_clip(made.TIMM).write),
    "isn": (isn.Options(kind="isn"), write_isn),
}


@pytest.fixture(autouse=True)
def one_thread():
    """Networks this small are slower on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=TOWERS)
def tower(request, tmp_path):
    options, write = TOWERS[request.param]
    folder = tmp_path / "published"
    folder.mkdir()
    write(folder)
    return options.model_copy(update={"precision": "fp32"}), folder


def features(opened) -> np.ndarray:
    pixels = torch.from_numpy(opened.preprocess.normalised(opened.preprocess(PHOTOS)))
    with torch.inference_mode():
        return opened.network.eval()(pixels).numpy()


@pytest.mark.slow
def test_what_is_saved_gives_the_features_that_training_left(tower, tmp_path):
    options, folder = tower
    opened = open_trainable(options, folder)
    published = encoder.load(options, folder)(PHOTOS)
    np.testing.assert_allclose(features(opened), published, rtol=1e-4, atol=1e-4)
    assert published.shape == (2, opened.dim)

    moved = [parameter for parameter in opened.network.parameters() if parameter.requires_grad]
    opened.network.train()
    pixels = torch.from_numpy(opened.preprocess.normalised(opened.preprocess(PHOTOS)))
    opened.network(pixels.to(memory_format=torch.channels_last)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in moved), "what is unused is not trained"
    with torch.no_grad():
        for parameter in moved:
            parameter -= 0.003 * parameter.grad.sign()
    opened.network.to(memory_format=torch.channels_last)
    saved = tmp_path / "saved"
    saved.mkdir()
    opened.save(saved)
    again = encoder.load(options, saved)(PHOTOS)
    np.testing.assert_allclose(features(opened), again, rtol=1e-4, atol=1e-4)
    assert np.abs(again - published).max() > 1e-3
    assert not [path for path in saved.iterdir() if path.suffix in (".bin", ".ckpt", ".pt")], "nothing is pickled"
    np.testing.assert_allclose(features(open_trainable(options, saved)), again, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_all_but_the_last_block_freeze_in_every_tower(tower):
    options, folder = tower
    opened = open_trainable(options, folder)
    if not opened.blocks:
        with pytest.raises(UserError, match="x: all_but_last; the image tower has no blocks"):
            recipe.freeze(opened.network, opened.blocks, opened.after, "all_but_last", "x")
        return
    before = [parameter for parameter in opened.network.parameters() if parameter.requires_grad]
    recipe.freeze(opened.network, opened.blocks, opened.after, "all_but_last", "x")
    moved = {id(p) for p in opened.network.parameters() if p.requires_grad}
    last = {id(p) for p in opened.blocks[-1].parameters()}
    assert last <= moved
    assert moved == (last | {id(p) for p in opened.after}) & {id(p) for p in before}
    assert not moved & {id(p) for block in opened.blocks[:-1] for p in block.parameters()}
    assert id(next(opened.network.parameters())) not in moved, "nor does what comes before"
    with pytest.raises(UserError, match=rf"x: 99; expected at most {len(opened.blocks)}, the blocks"):
        recipe.freeze(opened.network, opened.blocks, opened.after, 99, "x")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (onnx.Options(kind="onnx", output="x"), "kind onnx: not a network that is trained here; expected clip, isn, "),
        (seg_vit.Options(kind="seg_vit"), "kind seg_vit: not a network that is trained here"),
        (mask2former.Options(kind="mask2former"), "kind mask2former: not a network .* open_clip, resnet or vit"),
        (isn.Options(kind="isn", feature="routed"), "feature routed: made of several networks .* expected base"),
        (isn.Options(kind="isn", feature="scenes"), "feature scenes: .* expected base"),
        (vit.Options(kind="vit", pooling="tokens"), "pooling tokens: many vectors per photo; expected a pooling"),
    ],
)
def test_what_cannot_be_trained_is_said_in_a_line(options, reason, tmp_path):
    with pytest.raises(UserError, match=rf"^{tmp_path}: {reason}[^\n]*$"):
        open_trainable(options, tmp_path)


def test_whether_a_tower_trains_is_known_without_torch(tmp_path):
    import subprocess
    import sys

    code = (
        "import sys\nfrom geoloc_core.encoders.towers import isn, vit\n"
        "from geoloc_core.encoders.trainable import trains\n"
        "assert trains(vit.Options(kind='vit')) is None\nassert trains(isn.Options(kind='isn', feature='routed'))\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert trains(isn.Options(kind="isn")) is None


def test_a_damaged_saved_network_is_named(tmp_path):
    write_isn(tmp_path)
    opened = open_trainable(isn.Options(kind="isn"), tmp_path)
    opened.save(tmp_path)
    (tmp_path / isn.TRAINED).write_bytes((tmp_path / isn.TRAINED).read_bytes()[:1000])
    with pytest.raises(UserError, match=r"isn.safetensors: damaged, or not a file of safetensors: [^\n]+$"):
        encoder.load(isn.Options(kind="isn"), tmp_path)
