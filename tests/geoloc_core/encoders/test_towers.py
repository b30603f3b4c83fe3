"""Random checkpoints, saved in the published formats, give the features that their own library gives."""

import json

import numpy as np
import pytest

from geoloc_core.encoders import encoder
from geoloc_core.encoders.towers import onnx, open_clip, vit
from geoloc_core.errors import UserError

from .test_preprocess import photo

PHOTOS = [photo(70, 50), photo(50, 70), photo(64, 64, "PNG")]


@pytest.fixture
def clip_folder(tmp_path):
    from open_clip.model import CLIP

    from geoloc_core.encoders.checkpoints import save_clip

    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
    }
    save_clip(CLIP(**config), config, {"size": 32, "mean": [0.5] * 3, "std": [0.25] * 3}, tmp_path)
    return tmp_path


def test_open_clip_tower_equals_the_library(clip_folder):
    import open_clip as library
    import torch

    model, transform = library.create_model_from_pretrained(f"local-dir:{clip_folder}")
    from geoloc_core.encoders.preprocess import decode

    with torch.inference_mode():
        theirs = model.eval().encode_image(torch.stack([transform(decode(p)) for p in PHOTOS])).numpy()
    tower = encoder.load(open_clip.Options(kind="open_clip", batch=2), clip_folder)
    assert tower.shape == (16,)
    np.testing.assert_allclose(tower(PHOTOS), theirs, atol=1e-5)


@pytest.fixture
def vit_folder(tmp_path):
    from transformers import ViTConfig, ViTForImageClassification
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    config = ViTConfig(
        image_size=32, patch_size=8, hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48
    )
    ViTForImageClassification(config).save_pretrained(tmp_path)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_vit_tower_equals_the_library(vit_folder, pooling):
    import torch
    from transformers import ViTModel
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    from geoloc_core.encoders.preprocess import decode

    model = ViTModel.from_pretrained(vit_folder, add_pooling_layer=False).eval()
    processor = ViTImageProcessorPil.from_pretrained(vit_folder)
    inputs = processor([decode(p) for p in PHOTOS], return_tensors="pt")
    with torch.inference_mode():
        tokens = model(**inputs).last_hidden_state
    theirs = tokens[:, 0] if pooling == "cls" else tokens.mean(1)
    tower = encoder.load(vit.Options(kind="vit", pooling=pooling), vit_folder)
    np.testing.assert_allclose(tower(PHOTOS), theirs.numpy(), atol=1e-5)


def network(path, shape, channels_axis):
    """An ONNX network whose feature is the mean of every colour."""
    from onnx import TensorProto, helper, save

    axes = [axis for axis in (1, 2, 3) if axis != channels_axis]
    node = helper.make_node("ReduceMean", ["image", "axes"], ["colour"], keepdims=0)
    graph = helper.make_graph(
        [node],
        "colours",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("colour", TensorProto.FLOAT, [shape[0], 3])],
        [helper.make_tensor("axes", TensorProto.INT64, [2], axes)],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


@pytest.mark.parametrize(
    ("shape", "channels_axis"),
    [(["N", 3, 16, 16], 1), (["N", 16, 16, 3], 3), ([2, 3, 16, 16], 1)],
    ids=["channels first", "channels last", "fixed batch of 2"],
)
def test_onnx_tower_reads_every_layout(tmp_path, shape, channels_axis):
    network(tmp_path / "model.onnx", shape, channels_axis)
    tower = encoder.load(onnx.Options(kind="onnx", output="colour", size=16), tmp_path)
    expected = tower.preprocess.normalised(tower.preprocess(PHOTOS)).mean(axis=(2, 3))
    np.testing.assert_allclose(tower(PHOTOS), expected, atol=1e-5)


def test_onnx_names_the_outputs_there_are(tmp_path):
    network(tmp_path / "model.onnx", ["N", 3, 16, 16], 1)
    with pytest.raises(UserError, match="no output 'embedding'; expected one of: colour"):
        encoder.load(onnx.Options(kind="onnx", output="embedding", size=16), tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        onnx.Options(kind="onnx", output="x"),
        vit.Options(kind="vit"),
        open_clip.Options(kind="open_clip"),
    ],
    ids=lambda options: options.kind,
)
def test_a_missing_or_broken_checkpoint_is_said_in_one_line(tmp_path, options):
    with pytest.raises(UserError, match=r"no .*(onnx|json)"):
        encoder.load(options, tmp_path)
    for name in ("model.onnx", "model.safetensors", "open_clip_model.safetensors"):
        (tmp_path / name).write_bytes(b"broken")
    for name in ("config.json", "preprocessor_config.json", "open_clip_config.json"):
        (tmp_path / name).write_text(json.dumps({}))
    with pytest.raises(UserError, match=r"^[^\n]+$"):
        encoder.load(options, tmp_path)


def test_the_fingerprint_follows_the_weights_and_the_pooling(vit_folder):
    one = encoder.load(vit.Options(kind="vit"), vit_folder).fingerprint
    assert encoder.load(vit.Options(kind="vit", batch=7), vit_folder).fingerprint == one
    assert encoder.load(vit.Options(kind="vit", pooling="mean"), vit_folder).fingerprint != one
    config = json.loads((vit_folder / "preprocessor_config.json").read_text())
    (vit_folder / "preprocessor_config.json").write_text(json.dumps({**config, "image_mean": [0.4, 0.5, 0.5]}))
    assert encoder.load(vit.Options(kind="vit"), vit_folder).fingerprint != one
