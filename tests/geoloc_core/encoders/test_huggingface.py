"""What a checkpoint's own processor does to a photo is done to the pixel, or refused in one line."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from geoloc_core.encoders.huggingface import preprocess_of
from geoloc_core.encoders.preprocess import decode
from geoloc_core.errors import UserError

from .test_preprocess import photo

COLOURS = {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}
CLIP = {"image_processor_type": "CLIPImageProcessor", "do_center_crop": True, "resample": 3, **COLOURS}
VIT = {"image_processor_type": "ViTImageProcessor", **COLOURS}
CONVNEXT = {"feature_extractor_type": "ConvNextFeatureExtractor", "resample": 3, **COLOURS}
ASKED = [
    {**CLIP, "size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}},
    {**CLIP, "size": 32, "crop_size": 32},
    {**CLIP, "size": {"shortest_edge": 37}, "crop_size": {"height": 32, "width": 32}},
    {**CLIP, "size": {"height": 32, "width": 32}, "do_center_crop": False},
    {**CLIP, "size": {"shortest_edge": 33}, "crop_size": 33, "do_normalize": False},
    {**CLIP, "size": {"shortest_edge": 33}, "crop_size": 32, "do_rescale": False},
    {**VIT, "size": {"height": 32, "width": 32}, "resample": 2},
    {**VIT, "size": 32, "resample": 3},
    {**VIT, "size": 32, "rescale_factor": 1 / 127.5, "image_mean": [1, 1, 1], "image_std": [1, 1, 1]},
    {"feature_extractor_type": "ViTFeatureExtractor", "size": 30},
    {**CONVNEXT, "size": 32, "crop_pct": 0.875},
    {**CONVNEXT, "size": {"shortest_edge": 40}, "crop_pct": 0.95},
    {**CONVNEXT, "size": 33},
]
"""As published today, in older forms, and with what is rare."""


def processor(config: dict):
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    name = str(config.get("image_processor_type") or config.get("feature_extractor_type"))
    return {"C": CLIPImageProcessorPil, "V": ViTImageProcessorPil, "X": ConvNextImageProcessorPil}[
        "X" if name.startswith("ConvNext") else name[0]
    ]


def both(config: dict, data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """What the library's own class makes of a photo with a config, and what is made of it here."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "preprocessor_config.json"
        path.write_text(json.dumps(config))
        theirs = processor(config).from_pretrained(folder)(decode(data), return_tensors="np")["pixel_values"][0]
        preprocess = preprocess_of(Path(folder))
    return np.asarray(theirs), preprocess.normalised(preprocess([data]))[0]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(ASKED), st.integers(20, 200), st.integers(20, 200))
@example(ASKED[0], 57, 32)  # half a pixel beside the cut
@example(ASKED[10], 47, 36)
def test_a_photo_is_prepared_as_by_the_library(config, width, height):
    theirs, ours = both(config, photo(width, height))
    assert theirs.shape == ours.shape
    scale = max(1.0, float(np.abs(theirs).max()) / 8)  # of raw pixels, which are as large as 255 / 0.26
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * scale)


def test_a_large_convnext_warps():
    theirs, ours = both({**CONVNEXT, "size": 384, "crop_pct": 0.875}, photo(50, 40))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({**CLIP, "size": 32, "crop_size": 32, "do_resize": False}, "do_resize is false"),
        ({**CLIP, "size": 32, "crop_size": 32, "resample": 0}, r"resample 0; expected 2 \(bilinear\) or 3"),
        ({**CLIP, "size": 32, "crop_size": 32, "do_pad": True}, "do_pad is true"),
        ({**CLIP, "size": 32, "crop_size": 40}, "crop_size 40 is larger than the resized photo"),
        ({**CLIP, "size": 32, "do_center_crop": False}, "expected size as shortest_edge with do_center_crop"),
        ({**VIT, "size": {"height": 32, "width": 48}}, "32 × 48 pixels; expected a square"),
        ({**VIT, "size": {"shortest_edge": 32, "longest_edge": 64}}, "longest_edge"),
        ({**CLIP, "size": "large", "crop_size": 32}, "large"),
        ({**CONVNEXT, "size": 32, "crop_pct": 0}, "zero"),
        ({**VIT, "size": 32, "image_mean": [0.5]}, "unpack"),
        (
            {**VIT, "image_processor_type": "SamImageProcessor"},
            "SamImageProcessor is not supported; expected the image",
        ),
        ({"size": 32}, "None is not supported"),
    ],
)
def test_what_a_config_asks_and_cannot_be_done_is_refused(tmp_path, config, says):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=says) as error:
        preprocess_of(tmp_path)
    assert str(error.value).startswith(str(tmp_path / "preprocessor_config.json"))
    assert "\n" not in str(error.value)
