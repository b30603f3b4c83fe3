"""Captions say what the published templates say, as often as published, and nothing that is not known."""

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from geoloc_core.geo.articles import PIGEON, PIGEOTTO, with_article
from geoloc_core.geo.rasters import KOPPEN_BECK, KOPPEN_RUBEL
from geoloc_core.training.captions import (
    MONTHS,
    PUBLISHED,
    Captions,
    Facts,
    Seen,
    climate_name,
    draw,
    draw_seen,
    facing,
    split_phrases,
    uniforms,
)

LOCATION = "A Street View photo close to the town of Zeist in the region of Utrecht in the Netherlands."
CLIMATE = " This location has a temperate, no dry season, warm summer climate."
SIDE = " In this location, people drive on the right side of the road."
COMPASS = " This photo is facing north."
MONTH = " The photo was taken in May."


def facts(rows: int = 1, **changed) -> Facts:
    known = {
        "codes": "NLD",
        "countries": "Netherlands",
        "regions": "Utrecht",
        "towns": "Zeist",
        "climates": "Cfb",
        "sides": "right",
        "directions": "north",
        "months": "May",
    }
    return Facts(**{name: np.full(rows, value, dtype=object) for name, value in (known | changed).items()})


def shares(template="pigeon", **given) -> Captions:
    """Every share one but for those given."""
    return Captions(template=template, **{**dict.fromkeys(PUBLISHED[template], 1.0), "drop_location": 0.0, **given})


def drawn(how: Captions, rows: int = 1, **changed) -> list[str]:
    return draw(facts(rows, **changed), how, np.arange(rows), 20, 0)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (shares(compass=0, month=0), LOCATION + CLIMATE),
        (shares(compass=0, month=0, drop_location=1), CLIMATE.strip()),
        (shares(compass=0, month=0, climate=0), LOCATION + SIDE),
        (shares(compass=0, month=0, climate=0, drop_location=1), LOCATION + SIDE),
        (shares(climate=0, driving_side=0, month=0), LOCATION + COMPASS),
        (shares(climate=0, driving_side=0, compass=0), LOCATION + MONTH),
        (
            shares(climate=0, driving_side=0, compass=0, month=0, town=0),
            "A Street View photo in the region of Utrecht in the Netherlands.",
        ),
        (
            shares(climate=0, driving_side=0, compass=0, month=0, region=0),
            "A Street View photo close to the town of Zeist in the Netherlands.",
        ),
        (
            shares(climate=0, driving_side=0, compass=0, month=0, region=0, town=0),
            "A Street View photo in the Netherlands.",
        ),
        (
            shares("pigeotto", compass=0, month=0),
            "A photo I took close to the town of Zeist in the region of Utrecht in the Netherlands." + CLIMATE,
        ),
        (
            shares("pigeotto", compass=0, month=0, climate=0),
            "A photo I took close to the town of Zeist in the region of Utrecht in the Netherlands." + SIDE,
        ),
    ],
)
def test_the_published_sentences(how, expected):
    assert drawn(how) == [expected]


def test_the_location_comes_first_and_the_others_in_every_order():
    expected = {LOCATION + "".join(order) for order in permutations((CLIMATE, COMPASS, MONTH))}
    found = Counter(drawn(shares(), 6000))
    assert set(found) == expected
    assert all(abs(count - 1000) < 4 * 29 for count in found.values())  # a standard deviation is 29


@pytest.mark.parametrize("template", ["pigeon", "pigeotto"])
def test_sentences_come_as_often_as_published(template):
    rows, how = 20_000, PUBLISHED[template]
    texts = drawn(Captions(template=template), rows)

    def share(condition) -> float:
        return sum(map(condition, texts)) / rows

    def close(found, expected):
        return abs(found - expected) < 4 * np.sqrt(0.25 / rows)

    located = 1 - how["climate"] * how["drop_location"]
    assert close(share(lambda t: " in the Netherlands." in t), located)
    assert close(share(lambda t: "town of" in t), located * how["town"])
    assert close(share(lambda t: "region of" in t), located * how["region"])
    assert close(share(lambda t: "climate" in t), how["climate"])
    assert close(share(lambda t: "drive on" in t), (1 - how["climate"]) * how["driving_side"])
    assert close(share(lambda t: "facing" in t), how["compass"])
    assert close(share(lambda t: "taken in" in t), how["month"])
    opening = {"pigeon": "A Street View photo ", "pigeotto": "A photo I took "}[template]
    assert close(share(lambda t: t.startswith(opening)), located)


share_of_captions = st.sampled_from([0.0, 0.3, 1.0])


@given(
    template=st.sampled_from(["pigeon", "pigeotto"]),
    given_shares=st.fixed_dictionaries(dict.fromkeys(PUBLISHED["pigeon"], share_of_captions)),
    missing=st.sets(st.sampled_from(["regions", "towns", "climates", "sides", "directions", "months"])),
    seed=st.integers(0, 2**40),
    epoch=st.integers(0, 100),
)
def test_nothing_is_told_twice_or_unknown(template, given_shares, missing, seed, epoch):
    told = {"regions": "Utrecht", "towns": "Zeist", "climates": "climate", "sides": "drive", "directions": "facing"}
    told["months"] = "taken in"
    known = facts(40, **dict.fromkeys(missing, None))
    for text in draw(known, Captions(template=template, **given_shares), np.arange(40), seed, epoch):
        assert all(text.count(word) <= 1 for word in (*told.values(), "Netherlands"))
        assert not any(told[name] in text for name in missing)
        assert not ("climate" in text and "drive" in text)
        assert "Netherlands" in text or "climate" in text
        assert "  " not in text
        assert text == text.strip()


def test_captions_depend_on_seed_epoch_and_row_alone():
    known, how = facts(50), Captions(template="pigeon")
    all_rows = draw(known, how, np.arange(50), 1, 3)
    some = np.array([40, 3, 7])
    assert draw(known, how, some, 1, 3) == [all_rows[row] for row in some]
    assert draw(known, how, np.arange(50), 1, 4) != all_rows
    assert draw(known, how, np.arange(50), 2, 3) != all_rows
    assert len(set(all_rows)) > 5


def test_without_a_country_there_is_no_location():
    assert drawn(shares(climate=0, driving_side=0, month=0), countries=None) == ["This photo is facing north."]
    assert drawn(shares(climate=0, driving_side=0, compass=0, month=0), countries=None) == [""]


def test_shares_left_out_are_the_published_ones_and_wrong_ones_are_named():
    assert Captions(template="pigeon").model_dump() == {"template": "pigeon", **PUBLISHED["pigeon"]}
    assert Captions(template="pigeotto", climate=0.1).climate == 0.1
    for wrong in ({"template": "pigeon", "town": 1.5}, {"template": "pigeon", "city": 1}, {"template": "dove"}, {}):
        with pytest.raises(ValidationError):
            Captions(**wrong)


def test_countries_have_an_article_where_listed():
    assert len(PIGEON) == 22
    assert len(PIGEOTTO) == 27
    names = ["United Kingdom", "United States of America", "The Gambia", "the Bahamas", "France"]
    codes = ["GBR", "USA", "GMB", "BHS", "FRA"]
    assert with_article(names, codes, PIGEON) == [
        "United Kingdom", "the United States", "the Gambia", "the Bahamas", "France",
    ]  # fmt: skip
    assert with_article(names, codes, PIGEOTTO)[0] == "the United Kingdom"


def test_climates_are_named_as_in_the_legend():
    assert climate_name("Af") == "tropical, rainforest"
    assert climate_name("BSk") == "arid, steppe, cold"
    assert climate_name("Csa") == "temperate, dry summer, hot summer"
    assert climate_name("Dwd") == "cold, dry winter, very cold winter"
    assert climate_name("EF") == "polar, frost"
    for legend in (KOPPEN_BECK, KOPPEN_RUBEL):
        names = [climate_name(code) for code in legend]
        assert len(set(names)) >= len(names) - 1  # As and Aw are both savannah


def test_an_arid_climate_has_its_own_article():
    text = drawn(shares(compass=0, month=0, drop_location=1), climates="BWh")
    assert text == ["This location has an arid, desert, hot climate."]


def test_the_camera_faces_the_nearest_direction():
    expected = {0: "north", 45: "north", 45.1: "east", 90: "east", 135: "east", 136: "south", 225: "south"}
    expected |= {226: "west", 315: "west", 316: "north", 359.9: "north", 360: "north", -90: "west", 720.5: "north"}
    expected |= {np.nan: None, np.inf: None}
    assert list(facing(np.array(list(expected)))) == list(expected.values())


def test_uniforms_are_uniform_and_unrelated():
    found = uniforms(7, 3, np.arange(50_000), 4)
    assert found.shape == (50_000, 4)
    assert found.min() >= 0
    assert found.max() < 1
    counts = np.array([np.histogram(column, 20, (0, 1))[0] for column in found.T])
    assert (abs(counts - 2500) < 5 * 50).all()
    assert abs(np.corrcoef(found.T) - np.eye(4)).max() < 0.03
    assert abs(np.corrcoef(found[:-1, 0], found[1:, 0])[0, 1]) < 0.03


def test_all_months_have_a_name():
    assert len(set(MONTHS)) == 12


def test_what_is_seen_is_told_in_part_and_always_begins_with_the_scene():
    phrases = split_phrases(["street; wood poles; yellow plate; flag"] * 400)
    texts = draw_seen(phrases, Seen(template="seen", share=0.5), np.arange(400), 20, 0)
    assert {text.split(",")[0].rstrip(".") for text in texts} == {"A photo of street"}
    assert 0.4 < np.mean([text.count(",") / 3 for text in texts]) < 0.6
    assert len(set(texts)) == 16  # every selection of three phrases, in every order
    assert texts[5:9] == draw_seen(phrases, Seen(template="seen", share=0.5), np.arange(5, 9), 20, 0)
    assert texts != draw_seen(phrases, Seen(template="seen", share=0.5), np.arange(400), 20, 1)


@pytest.mark.parametrize(
    ("text", "expected"), [("a; b", "A photo of a, b."), ("a", "A photo of a."), ("", ""), (None, "")]
)
def test_all_that_is_seen_or_nothing(text, expected):
    phrases = split_phrases([text])
    told = draw_seen(phrases, Seen(template="seen", share=1), np.array([0]), 20, 0)
    assert told == [expected]
