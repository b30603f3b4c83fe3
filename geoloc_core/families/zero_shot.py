"""A CLIP that was never trained on these photos: the country whose caption is most like the photo, then a town of it.

Country captions alone are what the PIGEON poster compares CLIP and StreetCLIP by (Haas, Skreta and Alberti 2022, Table
3). Country, then its 30 largest towns, is StreetCLIP's *hierarchical linear probing* (Haas, Alberti and Skreta 2023).
All captions are embedded once, where training photos tell which countries there are; nothing else is learned but a
temperature.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field, NonNegativeInt, StringConstraints

from geoloc_core.blocks import blocks
from geoloc_core.contracts.batch import Batch, Data, Fitted, Run, counted
from geoloc_core.contracts.differentiable import Differentiable
from geoloc_core.contracts.geolocator import WEIGHTS, check_shapes, read_tensors, width_of, write_tensors
from geoloc_core.contracts.needs import ImageFeatures, Needs, TextTower
from geoloc_core.contracts.options import Variant
from geoloc_core.contracts.prediction import Evidence, Prediction, softmax
from geoloc_core.encoders.zero_shot import (
    CountryPrompts,
    Places,
    Prompts,
    TownPrompts,
    embed_countries,
    embed_towns,
    of_unit_length,
)
from geoloc_core.errors import UserError
from geoloc_core.files import read_json, write_json
from geoloc_core.geo.articles import PIGEON
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.plugins import Strict

if TYPE_CHECKING:
    from geoloc_core.params import Profile

SCALE = np.float32(100)
"""That cosines are multiplied by before the temperature: CLIP's own."""
TOWNS = "towns.json"
NAMED = 3
"""Towns that an answer names."""
NONE = np.float32(-1e9)
"""Score of what is no town, where a country has fewer than others."""
ROWS = 1024
"""Rows that are compared with all captions at a time."""
CALIBRATED = 10_000
"""Validation rows that the temperature is fitted on, at most, evenly spread."""


class Options(Variant):
    """A variant of this family."""

    kind: Literal["zero_shot"]
    encoder: str
    """A CLIP, under ``encoders`` and under ``text_encoders``: photos and captions are compared in its joint space."""
    labels: Literal["country"] = "country"
    """The label space that it learns."""
    towns: NonNegativeInt = 0
    """The most populous towns of each country that are tried after it; 0 answers with the country's own place."""
    country: Annotated[CountryPrompts, Field(min_length=1)] = ("A Street View photo in {country}.",)
    """Captions; the embeddings of several are averaged (Radford et al. 2021, section 3.1.4)."""
    town: Annotated[TownPrompts, Field(min_length=1)] = (
        "A Street View photo close to the town of {town} in {country}.",
    )
    unseen: tuple[Annotated[str, StringConstraints(pattern=r"^[A-Z0-9]{3}$")], ...] = ()
    """Countries that published weights have not seen; left out, those of ``hold_out`` where they were trained here."""

    def needs(self) -> Needs:
        """A vector per photo, and what embeds captions in the same space."""
        return Needs(inputs=(ImageFeatures(encoder=self.encoder), TextTower(encoder=self.encoder)), labels=self.labels)

    def flaws(self, profile: "Profile") -> list[str]:
        """Features that are not of the joint space."""
        towers = {"encoders": profile.encoders, "text_encoders": profile.text_encoders}
        return [
            f"encoder: {self.encoder!r} has pooling: {found} under {name}; expected projection, the joint space"
            for name, known in towers.items()
            if (found := getattr(known.get(self.encoder), "pooling", "projection")) != "projection"
        ]


class Names(Strict):
    """What JSON has beside the numbers."""

    towns: list[str]


@dataclass(frozen=True)
class ZeroShot:
    """Captions of countries and towns, embedded.

    Attributes:
        encoder: Name of the encoder whose features it reads.
        labelspace: Its C countries.
        countries: (C, D) float32 of unit length.
        towns: (T, D) float32 of unit length, country by country; T may be 0.
        names: (T,) names of the towns.
        latitudes: (T,) degrees.
        longitudes: (T,) degrees.
        starts: (C + 1,) int64 where the towns of each country begin, and where the last ones end.
        temperature: What logits are divided by.
    """

    encoder: str
    labelspace: LabelSpace
    countries: np.ndarray
    towns: np.ndarray
    names: list[str]
    latitudes: np.ndarray
    longitudes: np.ndarray
    starts: np.ndarray
    temperature: float = 1.0

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Scores (N, C) of the countries, before the temperature."""
        found: np.ndarray = SCALE * of_unit_length(features) @ self.countries.T
        return found

    def predict(self, batch: Batch, k: int = 5, truth: np.ndarray | None = None) -> Prediction:
        """The k most probable countries, each at its most similar town; the evidence is the towns of the first."""
        features = batch.images[self.encoder]
        parts = []
        for rows in blocks(max(len(features), 1), ROWS):
            probabilities = softmax(self.logits(features[rows]) / np.float32(self.temperature))
            known = None if truth is None else truth[rows]
            found = Prediction.of_probabilities(probabilities, self.labelspace, k, known)
            parts.append(self._in_towns(features[rows], found) if len(self.names) else found)
        return Prediction.join(parts)

    def _in_towns(self, features: np.ndarray, found: Prediction) -> Prediction:
        """The same candidates (N, k), each at a town where its country has some."""
        counts = np.diff(self.starts)
        slots = np.arange(counts.max())
        at = np.minimum(self.starts[:-1, None] + slots, len(self.names) - 1)[found.classes]
        there = slots < counts[found.classes][..., None]
        cosines = of_unit_length(features) @ self.towns.T
        of_slots = np.take_along_axis(cosines[:, None], at, axis=2)
        of_slots = np.where(there, of_slots, np.float32(-np.inf))
        best = np.take_along_axis(at, of_slots.argmax(axis=2)[..., None], axis=2)[..., 0]
        latitudes = np.where(there[..., 0], self.latitudes[best], found.latitudes)
        longitudes = np.where(there[..., 0], self.longitudes[best], found.longitudes)
        return replace(
            found,
            latitudes=latitudes,
            longitudes=longitudes,
            latitude=latitudes[:, 0],
            longitude=longitudes[:, 0],
            evidence=self._evidence(of_slots[:, 0], at[:, 0]),
        )

    def _evidence(self, cosines: np.ndarray, towns: np.ndarray) -> Evidence:
        """The most similar of the towns (N, M) of each photo's country; a cosine of −inf is none."""
        order = np.argsort(-cosines, axis=1, kind="stable")[:, :NAMED]
        there = np.isfinite(np.take_along_axis(cosines, order, axis=1))
        logits = np.where(np.isfinite(cosines), SCALE * cosines / np.float32(self.temperature), NONE)
        weights = np.take_along_axis(softmax(logits), order, axis=1)
        names = np.array(self.names, dtype=object)[np.take_along_axis(towns, order, axis=1)]
        return Evidence("town", np.where(there, names, ""), np.where(there, weights, np.float32(0)))

    def differentiable(self) -> Differentiable:
        """The countries in PyTorch."""
        import torch

        countries, scale = torch.from_numpy(self.countries), float(SCALE) / self.temperature

        def logits(x: torch.Tensor) -> torch.Tensor:
            return scale * torch.nn.functional.normalize(x, dim=1) @ countries.T

        return Differentiable([self.encoder], None, logits)

    def save(self, folder: Path) -> None:
        """Write embeddings and names into an existing folder."""
        places = {"towns": self.towns, "latitudes": self.latitudes, "longitudes": self.longitudes}
        temperature = np.array([self.temperature], np.float32)
        write_tensors(
            folder, {"countries": self.countries, **places, "starts": self.starts, "temperature": temperature}
        )
        write_json(folder / TOWNS, Names(towns=self.names))


def fit(data: Data, options: Options, run: Run) -> Fitted:
    """Embed the captions, and fit the temperature on validation photos.

    Raises:
        UserError: Photos and captions are not of one space, or a feature is not a finite number.
    """
    import torch

    from geoloc_core.encoders.text import encoder as texts
    from geoloc_core.training.calibration import calibrate
    from geoloc_core.training.features import Features

    given = data.text_towers[options.encoder]
    tower = texts.load(given.options, given.weights)
    images = data.images[options.encoder]
    if images.shape[1] != tower.dim:
        raise UserError(
            f"encoder {options.encoder!r}: photos have {images.shape[1]} features and captions {tower.dim}; "
            "expected the joint space of one CLIP: choose pooling: projection"
        )
    Features((images,)).check(data.validation)
    prompts = Prompts(options.country, options.town)
    places = Places.of_space(data.space, PIGEON, options.towns)
    model = _embedded(options.encoder, data.space, places, lambda said: of_unit_length(tower(said)), prompts)
    rows = data.validation[:: max(1, -(-len(data.validation) // CALIBRATED))]
    logits, right = model.logits(images[rows]), data.targets[rows]
    answered = torch.from_numpy(logits), torch.from_numpy(right), data.groups_of(rows)
    calibration = calibrate([answered], len(rows), run.seed)
    hits = logits.argmax(axis=1) == right
    figures: dict[str, Any] = counted(0, [model.countries.size, model.towns.size])
    figures |= {"validation_accuracy": _percent(hits), **vars(calibration), "towns": len(model.names)}
    figures |= _seen(hits, right, data.space.index(list(options.unseen or given.unseen)))
    return Fitted(replace(model, temperature=calibration.temperature), figures=figures)


def _embedded(encoder: str, space: LabelSpace, places: Places, embed: Any, prompts: Prompts) -> ZeroShot:
    """The model of some places, with a temperature of 1."""
    countries = embed_countries(places, embed, prompts)
    found = [embed_towns(places, c, embed, prompts) for c, towns in enumerate(places.towns) if len(towns)]
    towns = np.concatenate([np.empty((0, countries.shape[1]), np.float32), *found])
    names = [str(name) for of in places.towns for name in of.names]
    latitudes = np.concatenate([np.empty(0), *(of.latitudes for of in places.towns)])
    longitudes = np.concatenate([np.empty(0), *(of.longitudes for of in places.towns)])
    starts = np.concatenate([[0], np.cumsum([len(of) for of in places.towns])]).astype(np.int64)
    return ZeroShot(encoder, space, countries, towns, names, latitudes, longitudes, starts)


def _seen(hits: np.ndarray, truth: np.ndarray, unseen: np.ndarray) -> dict[str, float]:
    """Accuracy on countries that pre-training saw and on those that it did not; nothing where these are unknown.

    Args:
        hits: (N,) whether each answer is right.
        truth: (N,) true classes, −1 where unknown: these photos are in neither.
        unseen: Classes.
    """
    found: dict[str, float] = {}
    if not (unseen >= 0).any():
        return found
    new = np.isin(truth, unseen) & (truth >= 0)
    for name, which in (("seen", ~new & (truth >= 0)), ("unseen", new)):
        found[f"{name}_photos"] = int(which.sum())
        if which.any():
            found[f"{name}_accuracy"] = _percent(hits[which])
    return found


def _percent(hits: np.ndarray) -> float:
    return round(100 * float(np.mean(hits)), 2)


def load(folder: Path, needs: Needs, space: LabelSpace, remedy: str) -> ZeroShot:
    """Read what :meth:`ZeroShot.save` wrote.

    Raises:
        UserError: Embeddings or names are missing, damaged, or do not fit each other or the countries.
    """
    tensors = read_tensors(folder, remedy)
    names = read_json(folder / TOWNS, remedy, Names).towns
    c, t = len(space), len(names)
    d = width_of(tensors, "countries")
    expected: dict[str, tuple[int, ...]] = {"countries": (c, d), "towns": (t, d), "latitudes": (t,), "longitudes": (t,)}
    check_shapes(folder, remedy, tensors, expected | {"starts": (c + 1,), "temperature": (1,)})
    starts = tensors["starts"]
    if starts.dtype != np.int64 or starts[0] != 0 or starts[-1] != t or (np.diff(starts) < 0).any():
        raise UserError(f"{folder / WEIGHTS}: starts: expected where the towns of each country begin; {remedy}")
    [encoder] = needs.encoders
    return ZeroShot(
        encoder,
        space,
        tensors["countries"],
        tensors["towns"],
        names,
        tensors["latitudes"],
        tensors["longitudes"],
        starts,
        tensors["temperature"].item(),
    )
