"""A tower must see exactly the pixels that its library would have shown it."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from geoloc_core.encoders.preprocess import Preprocess, decode
from geoloc_core.errors import UserError

MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)


def photo(width: int, height: int, kind: str = "JPEG", **save) -> bytes:
    pixels = np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).resize((width, height)).save(stream, kind, **save)
    return stream.getvalue()


def normalised(preprocess: Preprocess, data: bytes) -> np.ndarray:
    return preprocess.normalised(preprocess([data]))[0]


@settings(max_examples=25, deadline=None)
@given(st.integers(20, 300), st.integers(20, 300), st.sampled_from([32, 50, 64]))
def test_crop_equals_open_clip_to_the_pixel(width, height, size):
    from open_clip import image_transform

    data = photo(width, height)
    theirs = image_transform(size, is_train=False, mean=MEAN, std=STD)(decode(data)).numpy()
    ours = normalised(Preprocess(size, "crop", "bicubic", MEAN, STD), data)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize(("width", "height"), [(64, 64), (200, 90), (90, 200)])
def test_squash_equals_the_vit_processor(width, height):
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    data = photo(width, height)
    processor = ViTImageProcessorPil(size={"height": 48, "width": 48}, resample=2)
    theirs = np.asarray(processor(decode(data), return_tensors="np")["pixel_values"])[0]
    ours = normalised(Preprocess(48, "squash", "bilinear", (0.5,) * 3, (0.5,) * 3), data)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_photo_is_turned_as_its_exif_says():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    assert decode(photo(80, 40, exif=exif)).size == (40, 80)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_every_colour_mode_becomes_rgb(mode):
    stream = io.BytesIO()
    Image.new(mode, (40, 40)).save(stream, "TIFF")
    assert Preprocess(32, "crop", "bicubic", MEAN, STD)([stream.getvalue()]).shape == (1, 32, 32, 3)


@pytest.mark.parametrize("data", [b"", b"not a photo", photo(50, 50)[:200]])
def test_what_is_no_photo_is_said_in_one_line(data):
    with pytest.raises(UserError, match=r"^not a readable photo: .+$"):
        decode(data)


def test_threads_change_nothing():
    from concurrent.futures import ThreadPoolExecutor

    photos = [photo(60 + i, 90 - i) for i in range(12)]
    preprocess = Preprocess(32, "crop", "bicubic", MEAN, STD)
    with ThreadPoolExecutor(3) as pool:
        np.testing.assert_array_equal(preprocess(photos, pool), preprocess(photos))
