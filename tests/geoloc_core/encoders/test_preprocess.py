"""A tower must see exactly the pixels that its library would have shown it."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from geoloc_core.encoders.preprocess import RESAMPLING, Preprocess, decode
from geoloc_core.encoders.resample import resample as scale
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


def by_pillow(preprocess: Preprocess, data: bytes) -> np.ndarray:
    """What Pillow alone makes of a photo, whole and then cut."""
    image = decode(data)
    width, height, left, top = preprocess.geometry(*image.size)
    image = image.resize((width, height), RESAMPLING[preprocess.resample])
    return np.asarray(image.crop((left, top, left + preprocess.size, top + preprocess.size)))


edges = st.integers(1, 300)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(edges, edges, edges, edges, st.sampled_from(list(RESAMPLING)), st.data())
def test_scaling_and_cutting_equal_pillows_bit_for_bit(width, height, wide, high, resample, data):
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    pixels = random.integers(0, 256, (height, width, 4), dtype=np.uint8)
    if data.draw(st.booleans()):
        pixels = np.where(pixels < 128, 0, 255).astype(np.uint8)  # bicubic scaling overshoots most at hard edges
    left, top = data.draw(st.integers(0, wide - 1)), data.draw(st.integers(0, high - 1))
    w, h = data.draw(st.integers(1, wide - left)), data.draw(st.integers(1, high - top))
    image = Image.fromarray(np.ascontiguousarray(pixels[:, :, :3])).resize((wide, high), RESAMPLING[resample])
    out = np.empty((h, w, 3), np.uint8)
    scale(pixels.view(np.uint32)[:, :, 0], wide, high, left, top, resample == "bicubic", out)
    np.testing.assert_array_equal(out, np.asarray(image.crop((left, top, left + w, top + h))))


@pytest.mark.parametrize("spare", [-1, 0, 1])
def test_columns_first_from_where_pillow_does(spare):
    # a photo that loses 2 × 50 rows for 50 columns, and one row less or more
    pixels = np.random.default_rng(0).integers(0, 256, (200, 120, 4), dtype=np.uint8)
    size = (70, 100 - spare)
    theirs = Image.fromarray(np.ascontiguousarray(pixels[:, :, :3])).resize(size, RESAMPLING["bicubic"])
    out = np.empty((*size[::-1], 3), np.uint8)
    scale(pixels.view(np.uint32)[:, :, 0], *size, 0, 0, True, out)
    np.testing.assert_array_equal(out, np.asarray(theirs))


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = orientation
    return found


@pytest.mark.parametrize("resample", list(RESAMPLING))
@pytest.mark.parametrize("mode", ["crop", "squash"])
@pytest.mark.parametrize(
    "save",
    [
        {"quality": 90},
        {"progressive": True},
        {"subsampling": "4:4:4"},
        {"subsampling": "4:2:2"},
        {"quality": 5, "optimize": True},
        {"restart_marker_rows": 1},
        *({"orientation": orientation} for orientation in range(10)),
    ],
    ids=str,
)
def test_every_jpeg_is_as_pillow_decodes_it(save, mode, resample):
    preprocess = Preprocess(48, mode, resample, MEAN, STD)
    turned = {"exif": exif(save["orientation"])} if "orientation" in save else save
    data = photo(131, 77, **turned)
    np.testing.assert_array_equal(preprocess.pixels(data), by_pillow(preprocess, data))


@pytest.mark.parametrize("mode", ["L", "CMYK", "1"])
@pytest.mark.parametrize("gap", [None, 1.5])
def test_a_jpeg_of_other_colours_is_as_pillow_decodes_it(mode, gap):
    stream = io.BytesIO()
    decode(photo(230, 170)).convert(mode).save(stream, "JPEG")
    preprocess = Preprocess(48, "crop", "bicubic", MEAN, STD, reducing_gap=gap)
    whole = by_pillow(preprocess, stream.getvalue())
    difference = np.abs(preprocess.pixels(stream.getvalue()).astype(int) - whole)
    assert difference.max() == 0 if gap is None else 0 < difference.mean() < 25


def test_a_cut_beyond_the_photo_is_filled_as_pillow_fills_it():
    preprocess = Preprocess(64, "crop", "bicubic", MEAN, STD, shorter_edge=48)
    np.testing.assert_array_equal(preprocess.pixels(photo(131, 77)), by_pillow(preprocess, photo(131, 77)))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 4000) | st.integers(0, 120), st.booleans(), st.binary(max_size=8))
def test_a_damaged_jpeg_is_refused_where_pillow_refuses_it(at, cut, noise):
    data = photo(90, 70, exif=exif(6))
    data = data[:at] + noise + (b"" if cut else data[at + len(noise) :])
    preprocess = Preprocess(32, "crop", "bilinear", MEAN, STD)
    try:
        expected = by_pillow(preprocess, data)
    except UserError:
        with pytest.raises(UserError, match=r"^not a readable photo: "):
            preprocess.pixels(data)
    else:
        np.testing.assert_array_equal(preprocess.pixels(data), expected)


def test_what_follows_a_photo_is_ignored():
    preprocess = Preprocess(32, "crop", "bilinear", MEAN, STD)
    np.testing.assert_array_equal(preprocess.pixels(photo(90, 70) + b"more"), preprocess.pixels(photo(90, 70)))


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("mode", ["crop", "squash"])
@pytest.mark.parametrize(("gap", "shrink"), [(2, 2), (1, 4), (0.5, 8), (3, 1), (None, 1)])
def test_a_large_jpeg_may_be_decoded_at_reduced_scale(mode, gap, shrink, orientation):
    data = photo(331, 213, exif=exif(orientation))
    preprocess = Preprocess(48, mode, "bicubic", MEAN, STD, reducing_gap=gap)
    found = preprocess.pixels(data)
    image = Image.open(io.BytesIO(data))
    image.draft(None, (331 // shrink, 213 // shrink))
    assert image.size == (-(-331 // shrink), -(-213 // shrink))
    width, height, left, top = preprocess.geometry(*((331, 213) if orientation == 1 else (213, 331)))
    image = ImageOps.exif_transpose(image).resize((width, height), RESAMPLING["bicubic"])
    np.testing.assert_array_equal(found, np.asarray(image.crop((left, top, left + 48, top + 48))))


def test_reduced_scale_is_part_of_what_features_depend_on():
    assert Preprocess(48, "crop", "bicubic", MEAN, STD, reducing_gap=3).to_json()["reducing_gap"] == 3


@pytest.mark.slow
def test_real_photos_are_as_pillow_decodes_them(shared):
    preprocess = Preprocess(224, "crop", "bicubic", MEAN, STD)
    paths = sorted(path for path in (shared / "images").rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    small = [path for path in paths if path.stat().st_size < 500_000]
    assert small
    for path in small:
        data = path.read_bytes()
        np.testing.assert_array_equal(preprocess.pixels(data), by_pillow(preprocess, data), err_msg=str(path))


def test_threads_change_nothing():
    from concurrent.futures import ThreadPoolExecutor

    photos = [photo(60 + i, 90 - i) for i in range(12)]
    preprocess = Preprocess(32, "crop", "bicubic", MEAN, STD)
    with ThreadPoolExecutor(3) as pool:
        np.testing.assert_array_equal(preprocess(photos, pool), preprocess(photos))
