"""Held-out countries are kept out, and scored apart."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geoloc_core.encoders.zero_shot import Answers, Places
from geoloc_core.errors import UserError
from geoloc_core.training import held_out
from geoloc_core.training.photos import Photos

from . import trained_networks as small
from .networks import transformer

CODES = ["FRA", "JPN", "NLD", None]
SPLITS = ["train", "validation", "test"]
rows = st.lists(st.tuples(st.sampled_from(CODES), st.sampled_from(SPLITS)), min_size=1, max_size=60)


@given(rows=rows, hold_out=st.sets(st.sampled_from(CODES[:3])), need_country=st.booleans(), most=st.integers(1, 80))
def test_every_photo_is_trained_on_or_scored_and_never_both(rows, hold_out, need_country, most):
    codes, split = (np.array(column, dtype=object) for column in zip(*rows, strict=True))
    chosen = tuple(sorted(hold_out & set(codes)))
    training = held_out.training_rows(split, codes, chosen, need_country)
    assert set(split[training]) <= {"train"}
    assert not set(codes[training]) & set(chosen)
    if need_country:
        assert None not in codes[training]
    everyone = held_out.scored_rows(split, codes, chosen, np.arange(len(codes)) // 7, 1000)
    assert not set(training) & {*everyone["seen"], *everyone["unseen"]}
    test = set(np.flatnonzero(split == "test"))
    assert set(everyone["unseen"]) == {row for row, code in enumerate(codes) if code in chosen} - test
    assert not {*training, *everyone["seen"], *everyone["unseen"]} & test
    without_country = {row for row, code in enumerate(codes) if code is None}
    assert {*training, *everyone["seen"], *everyone["unseen"]} >= set(range(len(codes))) - without_country - test
    some = held_out.scored_rows(split, codes, chosen, np.arange(len(codes)) // 7, most)
    for name, found in some.items():
        assert len(found) == min(most, len(everyone[name]))
        assert set(found) <= set(everyone[name])
        assert len(set(found)) == len(found)


def test_a_country_that_there_is_not_cannot_be_held_out():
    held_out.check_countries(("FRA",), ["FRA", "NLD"], "x.hold_out")
    with pytest.raises(UserError, match=r"x\.hold_out: FRO, XXX: not a country of the boundaries"):
        held_out.check_countries(("XXX", "FRA", "FRO"), ["FRA", "NLD"], "x.hold_out")


def test_figures_are_worked_out_by_hand():
    places = Places(np.array(["FRA", "NLD"], dtype=object), ["France", "the Netherlands"], np.zeros(2), np.zeros(2), [])
    answers = Answers(
        np.array([0, 1, 1, 0]),
        np.full(4, "", object),
        np.array([48.85, 52.0, 52.0, 0.0]),
        np.array([2.35, 5.0, 5.0, 0.0]),
    )
    truth = np.array(["FRA", "NLD", "FRA", "FRA"], dtype=object)
    points = np.array([[48.85, 2.35], [52.0, 6.0], [48.85, 2.35], [np.nan, np.nan]])
    assert held_out.figures(answers, places, truth, points) == {
        "photos": 4,
        "countries": 2,
        "accuracy": 75.0,
        # 0 km, 68 km and 398 km; the last has no place
        "within_25km": 33.33,
        "within_200km": 66.67,
        "within_750km": 100.0,
        "within_2500km": 100.0,
    }
    without = held_out.figures(answers, places, truth, np.full((4, 2), np.nan))
    assert without == {"photos": 4, "countries": 2, "accuracy": 75.0}


@pytest.mark.parametrize(
    "wrong",
    [
        {"country": ["here"]},
        {"country": ["{town}"]},
        {"town": ["in {town}"]},
        {"country": ["{"]},
        {"town": ["{} {country}"]},
    ],
)
def test_prompts_must_name_what_is_asked_for(wrong):
    with pytest.raises(ValueError, match="expected a text with"):
        held_out.ZeroShot(**wrong)


def test_prompts_left_out_follow_the_captions():
    found = held_out.ZeroShot().prompts("A Street View photo")
    assert found.country == ("A Street View photo in {country}.",)
    assert found.town == ("A Street View photo close to the town of {town} in {country}.",)
    own = held_out.ZeroShot(country=("here: {country}",)).prompts("A photo")
    assert own.country == ("here: {country}",)


def test_photos_are_embedded_in_the_order_asked_for_at_unit_length_however_many_at_once(tmp_path, monkeypatch):
    small.corpus(tmp_path / "colours")
    photos: Photos = small.pictures(tmp_path / "colours")
    rows, model, cpu = np.array([40, 3, 5, 5, 0]), transformer().eval(), torch.device("cpu")
    whole = held_out.embed_photos(model, photos, rows, cpu)
    prepared = (torch.from_numpy(photos.array[rows]).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    with torch.no_grad():
        expected = torch.nn.functional.normalize(model.encode_image(prepared), dim=-1)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(whole, expected, atol=1e-5)
    monkeypatch.setattr(held_out, "IMAGES", 2)
    np.testing.assert_allclose(held_out.embed_photos(model, photos, rows, cpu), whole, atol=1e-6)
