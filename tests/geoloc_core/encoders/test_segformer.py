"""A semantic segmenter whose pieces are pictures, and the crops that stand for them."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from geoloc_core.encoders import encoder
from geoloc_core.encoders.instances import Segment
from geoloc_core.encoders.towers import crops, segformer
from geoloc_core.errors import UserError

from . import made_segmenters as made

LABELS = ["sky", "road", "building", "vegetation", "car"]
OPTIONS = {"kind": "segformer", "min_area": 0.01, "batch": 2}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("segformer")
    made.segformer(folder, 32, labels=LABELS)
    return folder


def photo(seed: int, size=(48, 40)) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (6, 6, 3)).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).resize(size, Image.Resampling.NEAREST).save(stream, "PNG")
    return stream.getvalue()


PHOTOS = [photo(seed, size) for seed, size in enumerate([(48, 40), (48, 40), (64, 64), (40, 48), (48, 40)])]


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_pieces_cover_every_pixel_once_and_hang_together(seed, high, wide):
    random = np.random.default_rng(seed)
    classes, sure = random.integers(0, 3, (high, wide)), random.random((high, wide)).astype(np.float32)
    found = segformer.pieces(classes, sure, {0: "sky", 1: "road", 2: "car"})
    assert (sum(piece.mask.astype(int) for piece in found) == 1).all()
    for piece in found:
        own = classes[piece.mask]
        assert {(0, "sky"), (1, "road"), (2, "car")} >= {(int(own[0]), piece.label)}
        assert (own == own[0]).all()
        assert piece.score == pytest.approx(float(sure[piece.mask].mean()))
        grown = np.zeros_like(piece.mask)
        grown[1:] |= piece.mask[:-1]
        grown[:-1] |= piece.mask[1:]
        grown[:, 1:] |= piece.mask[:, :-1]
        grown[:, :-1] |= piece.mask[:, 1:]
        assert not (classes[grown & ~piece.mask] == own[0]).any()  # it ends where another class begins


def told(found):
    """What is said of every piece, its score to four digits: batches of other sizes differ in the last ones."""
    return [[{**cut, "score": round(cut["score"], 4)} for cut in cuts] for cuts in found]


def test_photos_of_any_size_are_cut_the_same_whatever_is_beside_them(weights):
    tower = encoder.load(segformer.Options(**OPTIONS), weights)
    together, alone = tower(PHOTOS), [tower([data])[0] for data in PHOTOS]
    assert told(together) == told(alone)
    for cuts in together:
        assert cuts
        for cut in cuts:
            left, top, right, bottom = cut["box"]
            assert Image.open(io.BytesIO(cut["image"])).size == (right - left, bottom - top)
            assert cut["class"] in LABELS
            assert cut["group"] == {"sky": None, "road": "ground", "building": "structures", "car": "vehicles"}.get(
                cut["class"], "vegetation"
            )
            assert 0.2 <= cut["score"] <= 1


def test_pieces_that_are_small_or_doubtful_are_left_out(weights):
    every = encoder.load(segformer.Options(**OPTIONS | {"min_area": 0.0}), weights)(PHOTOS)
    large = encoder.load(segformer.Options(**OPTIONS | {"min_area": 0.3}), weights)(PHOTOS)
    scores = sorted(cut["score"] for cuts in every for cut in cuts)
    middle = scores[len(scores) // 2]
    sure = encoder.load(segformer.Options(**OPTIONS | {"min_area": 0.0, "score": middle}), weights)(PHOTOS)
    sizes = [48 * 40, 48 * 40, 64 * 64, 40 * 48, 48 * 40]
    expected = [[c for c in cuts if c["area"] >= 0.3 * size] for cuts, size in zip(every, sizes, strict=True)]
    assert large == expected
    assert sure == [[c for c in cuts if c["score"] >= middle] for cuts in every]
    assert sum(map(len, large)) < sum(map(len, every)) > sum(map(len, sure)) > 0


@pytest.mark.slow
def test_a_checkpoint_without_a_class_of_a_group_is_refused(tmp_path):
    made.segformer(tmp_path, 32, labels=["LABEL_0", "LABEL_1"])
    with pytest.raises(UserError, match="id2label: no class of ground, structures"):
        encoder.load(segformer.Options(**OPTIONS), tmp_path)


class TestCrops:
    @pytest.fixture
    def both(self, weights):
        pieces = encoder.load(segformer.Options(**OPTIONS), weights)
        tower = encoder.load(crops.Options(kind="crops", of=OPTIONS), weights)
        return pieces, tower

    def test_they_are_as_many_and_as_large_as_the_pieces_and_of_their_groups(self, both):
        pieces, tower = (each(PHOTOS) for each in both)
        for cuts, moved in zip(pieces, tower, strict=True):
            said = [(c["class"], c["group"], c["score"]) for c in cuts]
            assert [(c["class"], c["group"], c["score"]) for c in moved] == said
            for cut, crop in zip(cuts, moved, strict=True):
                wide, high = (b - a for a, b in zip(cut["box"][:2], cut["box"][2:], strict=True))
                left, top, right, bottom = crop["box"]
                # maps are of another resolution than photos: a pixel of theirs is two of the photo's
                assert abs(right - left - wide) <= 2
                assert abs(bottom - top - high) <= 2
                assert crop["area"] == (right - left) * (bottom - top)

    def test_they_show_other_places_and_depend_on_the_photo_and_the_seed_alone(self, both, weights):
        pieces, tower = both
        first, again = tower(PHOTOS), [tower([data])[0] for data in reversed(PHOTOS)][::-1]
        assert told(first) == told(again)
        assert [c["box"] for cuts in first for c in cuts] != [c["box"] for cuts in pieces(PHOTOS) for c in cuts]
        other = encoder.load(crops.Options(kind="crops", of=OPTIONS, seed=1), weights)
        assert other.fingerprint != tower.fingerprint != pieces.fingerprint
        assert other(PHOTOS) != first

    @given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9))
    @settings(max_examples=40, deadline=None)
    def test_a_rectangle_as_large_as_the_box_lies_within_the_photo(self, seed, high, wide):
        random = np.random.default_rng(seed)
        mask = random.random((high, wide)) < 0.3
        mask[random.integers(high), random.integers(wide)] = True
        moved = crops._moved(random, Segment("car", 0.5, mask)).mask
        box = [np.ptp(np.flatnonzero(mask.any(axis=axis))) + 1 for axis in (1, 0)]
        assert moved.shape == mask.shape
        assert moved.sum() == box[0] * box[1]

    @pytest.mark.parametrize("of", [{"kind": "vit"}, {"kind": "crops", "of": OPTIONS}])
    def test_only_a_segmenter_has_pieces(self, of):
        with pytest.raises(ValidationError, match="expected a segmenter, such as segformer or mask2former"):
            crops.Options(kind="crops", of=of)
