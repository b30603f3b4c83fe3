"""Towers of any ONNX network, and what every tower says of a folder that is no checkpoint."""

import json

import numpy as np
import pytest

from geoloc_core.encoders import encoder
from geoloc_core.encoders.towers import clip, onnx, open_clip, resnet, vit
from geoloc_core.errors import UserError

from .test_preprocess import photo

PHOTOS = [photo(70, 50), photo(50, 70), photo(64, 64, "PNG")]


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
        clip.Options(kind="clip"),
        resnet.Options(kind="resnet"),
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
