"""StreetCLIP's protocol: zero-shot scores on countries that pre-training saw, and on those it did not.

Haas, Alberti and Skreta 2023; the PIGEON poster (Haas, Skreta and Alberti 2022) gives 52.79 % against CLIP's 41.51 %
for the unseen countries of IM2GPS3k.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from geoloc_core.encoders.zero_shot import Answers, CountryPrompts, Embed, Places, Prompts, TownPrompts, search
from geoloc_core.errors import UserError
from geoloc_core.geo import sphere
from geoloc_core.plugins import Strict
from geoloc_core.sets import Split
from geoloc_core.training.photos import Photos, augmented, order

if TYPE_CHECKING:
    import torch

THRESHOLDS_KM = (25, 200, 750, 2500)
"""StreetCLIP's."""
IMAGES = 256
"""Photos embedded at once."""


class ZeroShot(Strict):
    """How a pre-trained CLIP is asked for countries and towns."""

    country: CountryPrompts = ()
    """Prompts; left out, the location sentence of the captions."""
    town: TownPrompts = ()
    """Likewise, of towns."""
    towns: int = Field(30, gt=0)
    """Of each country, the most populous."""
    photos: int = Field(10_000, gt=0)
    """Scored at most, of the seen and of the unseen countries each."""

    def prompts(self, opening: str) -> Prompts:
        """The prompts, those left out made from how captions begin, such as ``A Street View photo``."""
        country = self.country or (f"{opening} in {{country}}.",)
        return Prompts(country, self.town or (f"{opening} close to the town of {{town}} in {{country}}.",))


def check_countries(hold_out: tuple[str, ...], countries: Collection[str], where: str) -> None:
    """Refuse to hold out a country that does not exist.

    Raises:
        UserError: It is not among the boundaries' countries; the key ``where`` is named.
    """
    absent = sorted(set(hold_out) - set(countries))
    if absent:
        raise UserError(f"{where}: {', '.join(absent)}: not a country of the boundaries; expected codes such as CHN")


def training_rows(split: np.ndarray, codes: np.ndarray, hold_out: tuple[str, ...], need_country: bool) -> np.ndarray:
    """Rows to train on (n,): those of the training split, less those of held-out countries.

    Args:
        split: (N,) as in the labels.
        codes: (N,) country of each photo, None where unknown.
        hold_out: Countries kept out, ISO 3166-1 alpha-3.
        need_country: Whether photos without a country are left out too.
    """
    kept = (split == Split.TRAIN) & ~_in(codes, hold_out)
    return np.flatnonzero(kept & _known(codes) if need_country else kept)


def scored_rows(
    split: np.ndarray, codes: np.ndarray, hold_out: tuple[str, ...], groups: np.ndarray, most: int
) -> dict[str, np.ndarray]:
    """Rows to score, of ``seen`` and ``unseen`` countries: the validation split, and all of those held out.

    Never the test split: what is scored here chooses among recipes.

    Args:
        split: (N,) as in the labels.
        codes: (N,) country of each photo, None where unknown.
        hold_out: Countries kept out.
        groups: (N,) row group of each photo: of more photos than ``most``, those of some row groups are taken.
        most: Rows of each kind.
    """
    unseen = _in(codes, hold_out)
    seen = _known(codes) & ~unseen & (split == Split.VALIDATION)
    found = {"seen": np.flatnonzero(seen), "unseen": np.flatnonzero(unseen & (split != Split.TEST))}
    return {name: np.sort(order(rows, groups, 0, 0)[:most]) for name, rows in found.items()}


def _in(codes: np.ndarray, chosen: tuple[str, ...]) -> np.ndarray:
    return np.array([code in chosen for code in codes], dtype=bool)


def _known(codes: np.ndarray) -> np.ndarray:
    return np.array([isinstance(code, str) for code in codes], dtype=bool)


def score(
    model: Any,
    embed: Embed,
    photos: Photos,
    rows: dict[str, np.ndarray],
    truth: tuple[np.ndarray, np.ndarray],
    places: Places,
    prompts: Prompts,
    device: "torch.device",
) -> dict[str, dict[str, float]]:
    """Zero-shot scores of each set of rows that is not empty.

    Args:
        model: A CLIP of open_clip.
        embed: Of its text tower.
        photos: Of the corpus.
        rows: By name of the set.
        truth: (N,) countries and (N, 2) coordinates of all photos of the corpus.
        places: The candidates.
        prompts: What is said about them.
        device: Where the model is.
    """
    model.eval()
    codes, points = truth
    return {
        name: figures(
            search(embed_photos(model, photos, own, device), embed, places, prompts), places, codes[own], points[own]
        )
        for name, own in rows.items()
        if len(own)
    }


def embed_photos(model: Any, photos: Photos, rows: np.ndarray, device: "torch.device") -> np.ndarray:
    """Unit-length embeddings (n, D) float32 of photos, without augmentation."""
    import torch
    from torch.nn.functional import normalize

    parts: list[Any] = []
    batches = np.split(rows, range(IMAGES, len(rows), IMAGES))
    with torch.inference_mode():
        for pixels in photos.read(batches):
            images = augmented(torch.from_numpy(pixels).to(device), photos.preprocess, torch.Generator(), "none")
            parts.append(normalize(model.encode_image(images).float(), dim=-1).cpu().numpy())
    return np.concatenate(parts)


def figures(answers: Answers, places: Places, codes: np.ndarray, points: np.ndarray) -> dict[str, float]:
    """Percentage of photos whose country is right, and whose town lies within some kilometres.

    Args:
        answers: Of n photos.
        places: The candidates.
        codes: (n,) true countries.
        points: (n, 2) true latitudes and longitudes; NaN where unknown.
    """
    right = places.codes[answers.countries] == codes
    located = np.isfinite(points).all(axis=1)
    km = sphere.haversine_km(answers.latitudes[located], answers.longitudes[located], *points[located].T)
    shares = {f"within_{limit}km": _percent(km <= limit) for limit in THRESHOLDS_KM} if located.any() else {}
    return {"photos": len(codes), "countries": len(set(codes)), "accuracy": _percent(right), **shares}


def _percent(hits: np.ndarray) -> float:
    return round(100 * float(np.mean(hits)), 2)
