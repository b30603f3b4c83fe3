"""A photo is from the country whose caption is most like it, and from a town of that country."""

import numpy as np
import pandas as pd
import pytest

from geoloc_core.encoders.zero_shot import Places, Prompts, search
from geoloc_core.geo.articles import PIGEON

COUNTRIES = pd.DataFrame(
    {
        "name": ["France", "Netherlands", "Nowhere"],
        "iso_3166": ["FR", "NL", "XX"],
        "latitude": [46.0, 52.0, -10.0],
        "longitude": [2.0, 5.0, 20.0],
    },
    index=["FRA", "NLD", "XXX"],
)
PROMPTS = Prompts(("A photo in {country}.",), ("A photo in {town}, {country}.",))


@pytest.fixture(scope="module")
def places():
    return Places.of(COUNTRIES, PIGEON, 5)


def embedder(axes: dict[str, int], dim: int = 8, noise: float = 0.0):
    """Texts that name a word lie along its axis; all others along the last."""

    def embed(texts):
        found = np.zeros((len(texts), dim), np.float32)
        for row, text in enumerate(texts):
            for word, axis in axes.items():
                found[row, axis] += word in text
            found[row, -1] += 0.1
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    return embed


def test_each_country_has_its_largest_towns(places):
    assert places.names == ["France", "the Netherlands", "Nowhere"]
    assert list(places.towns[0].names[:2]) == ["Paris", "Marseille"]
    assert list(map(len, places.towns)) == [5, 5, 0]


def test_the_country_comes_first_and_then_a_town_of_it(places):
    embed = embedder({"France": 0, "Netherlands": 1, "Nowhere": 2, "Marseille": 3, "Rotterdam": 4})
    # the second photo is most like Marseille of all, but more like the Netherlands than like France
    images = np.array(
        [[1, 0, 0, 0.5, 0, 0, 0, 0], [0.3, 0.5, 0, 2, 0.3, 0, 0, 0], [0, 0, 1, 0, 0, 0, 0, 0]], np.float32
    )
    found = search(images, embed, places, PROMPTS)
    assert list(places.codes[found.countries]) == ["FRA", "NLD", "XXX"]
    assert list(found.towns) == ["Marseille", "Rotterdam", ""]
    assert found.latitudes == pytest.approx([43.3, 51.92, -10], abs=0.05)
    assert found.longitudes == pytest.approx([5.38, 4.48, 20], abs=0.05)


def test_several_wordings_are_averaged(places):
    def embed(texts):
        # one wording is sure of France, the other two lean to the Netherlands
        lean = {"one": {"France": 3.0, "Netherlands": 0.0}, "two": {"France": 0.0, "Netherlands": 2.0}}
        rows = [
            [next((v for k, v in lean.get(text.split()[0], {}).items() if k in text), 0.0), 1.0, 0.0] for text in texts
        ]
        found = np.array(rows, np.float32)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    photo = np.array([[1, 0, 0]], np.float32)
    towns = ("one {town} {country}",)

    def country(*prompts):
        return places.codes[search(photo, embed, places, Prompts(prompts, towns)).countries[0]]

    assert country("one {country}") == "FRA"
    assert country("two {country}") == "NLD"
    assert country("one {country}", "two {country}") == "FRA"
    assert country("one {country}", "two {country}", "two {country}") == "NLD"


def test_places_and_answers_need_no_photo(places):
    found = search(np.zeros((0, 8), np.float32), embedder({}), places, PROMPTS)
    assert found.countries.shape == found.towns.shape == found.latitudes.shape == (0,)
