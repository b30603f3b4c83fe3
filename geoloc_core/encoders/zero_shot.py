"""Where a photo was taken, by the caption that CLIP finds most similar: no training on places.

Countries first, then the largest towns of the country that was found (*hierarchical linear probing*; Haas, Alberti and
Skreta 2023, StreetCLIP). The two lists stay nested: a product of softmaxes over lists of different length favours
countries with few towns.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import AfterValidator

from geoloc_core.blocks import blocks
from geoloc_core.geo.articles import with_article
from geoloc_core.geo.towns import Towns

if TYPE_CHECKING:
    import torch
    from pandas import DataFrame

    from geoloc_core.geo.labelspace import LabelSpace

Embed = Callable[[Sequence[str]], np.ndarray]
"""M texts → (M, D) float32 of unit length."""
TEXTS = 256
"""Texts embedded at once."""
KOSOVO = {"XKO": "XK"}
"""What GADM calls Kosovo, which has no code of ISO 3166-1, and what GeoNames does."""


def _says(*names: str) -> Callable[[tuple[str, ...]], tuple[str, ...]]:
    """Validates prompts: each names just the fields it must."""

    def check(prompts: tuple[str, ...]) -> tuple[str, ...]:
        for prompt in prompts:
            try:
                wrong = prompt.format(**dict.fromkeys(names, "")) == prompt
            except (KeyError, IndexError, ValueError):
                wrong = True
            if wrong or not all(f"{{{name}}}" in prompt for name in names):
                raise ValueError(f"{prompt!r}; expected a text with {' and '.join(f'{{{n}}}' for n in names)} alone")
        return prompts

    return check


CountryPrompts = Annotated[tuple[str, ...], AfterValidator(_says("country"))]
TownPrompts = Annotated[tuple[str, ...], AfterValidator(_says("town", "country"))]


@dataclass(frozen=True)
class Places:
    """C countries that a photo may be from.

    Attributes:
        codes: (C,) ISO 3166-1 alpha-3.
        names: (C,) as a sentence has them.
        latitudes: (C,) degrees, of the centroids.
        longitudes: (C,) degrees.
        towns: (C,) each country's largest towns; none where GeoNames has none.
    """

    codes: np.ndarray
    names: list[str]
    latitudes: np.ndarray
    longitudes: np.ndarray
    towns: list[Towns]

    @classmethod
    def of(cls, countries: "DataFrame", listed: Collection[str], per_country: int = 30) -> "Places":
        """Every country, with its most populous towns.

        Args:
            countries: The boundaries' units of level 0, by ``gid``.
            listed: Codes of the countries whose names have an article.
            per_country: Towns per country: 30 in the published use of StreetCLIP.
        """
        codes = countries.index.to_numpy(object)
        names = with_article(countries["name"], codes, listed)
        latitudes, longitudes = (countries[column].to_numpy(np.float64) for column in ("latitude", "longitude"))
        return cls(codes, names, latitudes, longitudes, _largest(countries["iso_3166"], per_country))

    @classmethod
    def of_space(cls, space: "LabelSpace", listed: Collection[str], per_country: int = 30) -> "Places":
        """The countries of a label space, likewise."""
        from geoloc_core.corpora.countries import alpha3

        two = {three: code for code, three in alpha3().items()} | KOSOVO
        names = with_article(space.names, space.ids, listed)
        towns = _largest((two.get(code, "") for code in space.ids), per_country)
        return cls(np.array(space.ids, dtype=object), names, space.latitudes, space.longitudes, towns)


def _largest(codes: Iterable[str], count: int) -> list[Towns]:
    """The most populous towns of each country, by its ISO 3166-1 alpha-2 code."""
    towns = Towns.load()
    return [towns.of_country(code).first(count) for code in codes]


@dataclass(frozen=True)
class Prompts:
    """Captions to try; several of a kind are averaged (Radford et al. 2021, section 3.1.4).

    Attributes:
        country: Texts with ``{country}``.
        town: Texts with ``{town}`` and ``{country}``.
    """

    country: tuple[str, ...]
    town: tuple[str, ...]


@dataclass(frozen=True)
class Answers:
    """Where N photos were taken.

    Attributes:
        countries: (N,) positions among the places.
        towns: (N,) names; empty where the country has no town.
        latitudes: (N,) degrees, of the town or of the country's centroid.
        longitudes: (N,) degrees.
    """

    countries: np.ndarray
    towns: np.ndarray
    latitudes: np.ndarray
    longitudes: np.ndarray


def search(images: np.ndarray, embed: Embed, places: Places, prompts: Prompts) -> Answers:
    """The country whose caption is most similar to each photo, then the most similar of its towns.

    Args:
        images: (N, D) float32 of unit length.
        embed: Embeds texts in the same space.
        places: The candidates.
        prompts: What is said about them.
    """
    countries = (images @ embed_countries(places, embed, prompts).T).argmax(axis=1)
    towns = np.full(len(images), "", dtype=object)
    latitudes, longitudes = places.latitudes[countries], places.longitudes[countries]
    for country in np.unique(countries):
        own, rows = places.towns[country], np.flatnonzero(countries == country)
        if len(own):
            at = (images[rows] @ embed_towns(places, country, embed, prompts).T).argmax(axis=1)
            towns[rows], latitudes[rows], longitudes[rows] = own.names[at], own.latitudes[at], own.longitudes[at]
    return Answers(countries, towns, latitudes, longitudes)


def embed_countries(places: Places, embed: Embed, prompts: Prompts) -> np.ndarray:
    """Embeddings (C, D) of unit length of what is said about each country."""
    return _ensemble(embed, [[p.format(country=name) for p in prompts.country] for name in places.names])


def embed_towns(places: Places, country: int, embed: Embed, prompts: Prompts) -> np.ndarray:
    """Embeddings (T, D) of unit length of what is said about each town of a country that has some."""
    name = places.names[country]
    return _ensemble(
        embed, [[p.format(town=town, country=name) for p in prompts.town] for town in places.towns[country].names]
    )


def _ensemble(embed: Embed, texts: list[list[str]]) -> np.ndarray:
    """(M, D) of unit length: the mean over the wordings of each of M places."""
    embedded = embed([text for wordings in texts for text in wordings])
    mean = embedded.reshape(len(texts), len(texts[0]), -1).mean(axis=1)
    return of_unit_length(mean)


def of_unit_length(features: np.ndarray) -> np.ndarray:
    """Features (N, D) float32 brought to length 1."""
    x = np.asarray(features, np.float32)
    unit: np.ndarray = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.float32(1e-12))
    return unit


def text_embedder(model: Any, tokenise: Any, device: "torch.device") -> Embed:
    """The text embedding of an open_clip model."""
    import torch
    from torch.nn.functional import normalize

    def embed(texts: Sequence[str]) -> np.ndarray:
        parts = [tokenise(list(texts[some])).to(device) for some in blocks(len(texts), TEXTS)]
        with torch.inference_mode():
            return torch.cat([normalize(model.encode_text(part).float(), dim=-1) for part in parts]).cpu().numpy()

    return embed
