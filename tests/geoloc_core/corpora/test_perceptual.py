import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_photos import REAL, needs_real
from PIL import Image, ImageOps

from geoloc_core.corpora.decode import Decoder, Sound
from geoloc_core.corpora.perceptual import phash, small, upright
from geoloc_core.corpora.photo import Photo
from geoloc_core.pictures import quiet_pillow


def hashed(picture: Image.Image, kind: str = "JPEG", **options: object) -> int | None:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    with quiet_pillow():
        found = Decoder(1e9).check(Photo("x", stream.getvalue(), "x", "g"))
    assert isinstance(found, Sound)
    return found.phash


def busy(seed: int, size: tuple[int, int]) -> Image.Image:
    """A picture with something to see at every scale that is hashed."""
    noise = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)
    return Image.fromarray(noise).resize(size)


def bits(a: int | None, b: int | None) -> int:
    assert a is not None
    assert b is not None
    return (a ^ b).bit_count()


@pytest.mark.parametrize("seed", range(5))
def test_a_copy_scaled_or_compressed_again_is_near_and_another_photo_is_not(seed):
    whole = busy(seed, (600, 400))
    first = hashed(whole, quality=90)
    assert bits(first, hashed(whole, quality=25)) <= 4
    assert bits(first, hashed(whole.resize((300, 200)), quality=80)) <= 4
    assert bits(first, hashed(whole, "PNG")) <= 4
    assert bits(first, hashed(busy(seed + 100, (600, 400)))) > 12


@pytest.mark.parametrize("shade", [0, 128, 255])
def test_a_flat_picture_has_no_hash(shade):
    assert hashed(Image.new("RGB", (300, 200), (shade,) * 3)) is None


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_hashed_as_it_is_seen(orientation):
    stored = busy(3, (320, 320))
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = stored.copy()
    turned.getexif()[0x0112] = orientation
    seen = hashed(ImageOps.exif_transpose(turned), "PNG")
    assert hashed(stored, "PNG", exif=exif) == seen
    assert bits(hashed(stored, exif=exif, quality=95), seen) <= 6
    assert (hashed(stored, "PNG") == seen) == (orientation == 1)
    grey = small(stored)
    turned = Image.fromarray(grey.astype(np.uint8))
    turned.getexif()[0x0112] = orientation
    assert (upright(grey, orientation) == np.asarray(ImageOps.exif_transpose(turned))).all()


@settings(max_examples=50)
@given(st.integers(0, 10**6), st.integers(1, 50))
def test_brightness_does_not_matter(seed, brighter):
    grey = np.random.default_rng(seed).integers(0, 200, (32, 32))
    assert phash(grey) == phash(grey + brighter)


@pytest.mark.slow
@needs_real
def test_real_photographs_are_told_apart():
    paths = sorted((REAL / "images").rglob("*.jpg"))
    hashes = [h for h in map(hashed, map(Image.open, paths)) if h is not None]
    distances = [bits(a, b) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert len(hashes) > 80
    assert sum(d <= 4 for d in distances) <= 1
    smaller = [(hashed(p), hashed(p.resize((p.width // 2, p.height // 2)), quality=75)) for p in map(Image.open, paths)]
    near = [bits(a, b) <= 4 for a, b in smaller if a is not None and b is not None]
    assert np.mean(near) > 0.8
