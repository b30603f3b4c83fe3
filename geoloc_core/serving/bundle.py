"""A model, its encoders and its members in one folder: everything that an answer needs, photos in and places out."""

import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from geoloc_core.contracts import geolocator
from geoloc_core.contracts.batch import Batch, Pieces, Tower, Units
from geoloc_core.contracts.geolocator import LABELS, Trained
from geoloc_core.contracts.prediction import Prediction
from geoloc_core.encoders import encoder as encoders
from geoloc_core.encoders.instances import Instances
from geoloc_core.errors import UserError
from geoloc_core.files import digest, read_json, replacing_folder, write_json
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.params import entry
from geoloc_core.pictures import MAX_MEGAPIXELS, PictureError, opened
from geoloc_core.plugins import Strict, options
from geoloc_core.project import Project

CARD = "bundle.json"
REMEDY = "run `geoloc promote --replace`"


def pack(project: Project, variant: str, folder: Path) -> None:
    """Put a trained variant, the variants it reads and the weights of their encoders into one folder.

    Raises:
        UserError: See :func:`of_project`.
    """
    opened = of_project(project, variant)
    with replacing_folder(folder, "bundle") as aside:
        for name in opened.models:
            shutil.copytree(project.model(name), aside / "models" / name)
        for name in opened.encoders:
            shutil.copytree(project.weights(name), aside / "encoders" / name)
        write_json(
            aside / CARD,
            {
                "variant": variant,
                "demo": opened.demo,
                "candidates": opened.candidates,
                "members": [name for name in opened.models if name != variant],
                "encoders": {name: tower.options for name, tower in opened.towers.items()},
            },
        )


def of_project(project: Project, variant: str) -> "Bundle":
    """A trained variant, the variants it reads and their encoders, opened where the project keeps them.

    Raises:
        UserError: The encoders' weights are not those that a model was trained on.
    """
    models = _with_members(project, variant)
    used = dict.fromkeys(name for model in models.values() for name in model.card.needs.encoded)
    towers = {name: Tower(entry(project.profile.encoders, name, "encoder"), project.weights(name)) for name in used}
    opened: dict[str, encoders.Encoder | Instances]
    opened = {name: encoders.load(tower.options, tower.weights) for name, tower in towers.items()}
    for name, encoder in opened.items():
        found = encoder.fingerprint
        for trained, model in models.items():
            if found != (wanted := model.card.fingerprints.get(name, found)):
                raise UserError(
                    f"{project.weights(name)}: fingerprint {found}, but {trained} was trained on {wanted}; "
                    "encode and train again"
                )
    for trained, model in models.items():
        for member, classes in model.card.members.items():
            if digest(project.model(member) / LABELS) != classes:
                raise UserError(
                    f"{project.model(member)}: of other classes than {trained} learned from; "
                    f"run `geoloc answer {member}` and `geoloc train {trained}` again"
                )
    return Bundle(variant, project.profile.demo, project.profile.evaluation.candidates, models, opened, towers)


def _with_members(project: Project, variant: str) -> dict[str, Trained]:
    """A model and, before it, all that it reads."""
    model = geolocator.load(project.model(variant))
    found: dict[str, Trained] = {}
    for member in model.card.needs.members:
        found |= _with_members(project, member)
    return found | {variant: model}


class Card(Strict):
    """What a bundle says of itself."""

    variant: str
    demo: bool
    candidates: int = Field(gt=0)
    members: list[str]
    encoders: dict[str, options(encoders.TOWERS)]  # type: ignore[valid-type]


@dataclass(frozen=True)
class Bundle:
    """An opened bundle.

    Attributes:
        variant: The variant it holds.
        demo: Whether it learned from rendered photos.
        candidates: Of each answer that another model reads, as when it was trained.
        models: The variant's model last, and those that it reads before it, by name.
        encoders: Their encoders, by name.
        towers: What these were opened from, by name.
    """

    variant: str
    demo: bool
    candidates: int
    models: dict[str, Trained]
    encoders: dict[str, encoders.Encoder | Instances]
    towers: dict[str, Tower] = field(default_factory=dict)

    @property
    def labelspace(self) -> LabelSpace:
        """The model's classes."""
        return self.models[self.variant].labelspace

    def predict(
        self,
        photos: Sequence[bytes],
        k: int = 5,
        units: Units | None = None,
        truth: np.ndarray | None = None,
    ) -> Prediction:
        """The k most probable places of N encoded photos, or of N places.

        Args:
            photos: Of all units.
            k: How many.
            units: N places, each of one or more of the photos; left out, each photo is a place of its own.
            truth: (N,) classes whose probability is to be told, whatever the model names; left out, none.

        Raises:
            UserError: Several views are of one place and a model answers photos alone; one of them is not a photo, or
                has more than :data:`~geoloc_core.pictures.MAX_MEGAPIXELS`.
        """
        units = Units.of_photos(np.arange(len(photos))) if units is None else units
        if len(units) < len(units.rows):
            self._check_places()
        for number, photo in enumerate(photos):
            try:
                with opened(photo, MAX_MEGAPIXELS * 1e6):
                    pass
            except PictureError as error:
                raise UserError(f"photo {number}: not a readable photo: {error}") from None
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            # in half precision, as features are kept that models learn from and answer
            made = {name: encoder(photos, pool) for name, encoder in self.encoders.items()}
        features, pieces = {}, {}
        for name, found in made.items():
            if isinstance(found, np.ndarray):
                features[name] = found.astype(np.float16)[units.rows]
            else:
                pieces[name] = pieces_of(found).of(units.rows)
        of_units = [photos[at] for at in units.rows]
        answers: dict[str, Prediction] = {}
        for name, trained in self.models.items():
            needs = trained.card.needs
            batch = Batch(
                images={encoder: features[encoder] for encoder in needs.encoders},
                answers={member: answers[member] for member in needs.members},
                photos=of_units if needs.photos else None,
                pieces={segmenter: pieces[segmenter] for segmenter in needs.segmenters},
                starts=None if needs.unit == "photo" else units.starts,
            )
            asked = (k, truth) if name == self.variant else (self.candidates, None)
            answers[name] = trained.model.predict(batch, *asked)
        return answers[self.variant]

    def _check_places(self) -> None:
        for name, trained in self.models.items():
            if trained.card.needs.unit == "photo":
                raise UserError(
                    f"{name} answers one photo at a time; ask about each alone (without --place or place_id), or "
                    "promote a variant that reads places"
                )

    def explain(self, kind: str, name: str) -> str:
        """A piece of evidence for people, such as the text of a clue."""
        model = self.models[self.variant].model
        return model.explain(kind, name) if hasattr(model, "explain") else name


def pieces_of(found: list[list[dict[str, Any]] | UserError]) -> Pieces:
    """What a segmenter cut from each photo; a photo that it cannot read has none."""
    rows = [[] if isinstance(of_photo, UserError) else of_photo for of_photo in found]
    flat = [row for of_photo in rows for row in of_photo]
    starts = np.concatenate([[0], np.cumsum([len(of_photo) for of_photo in rows])]).astype(np.int64)
    classes, groups = (np.array([row[name] for row in flat], dtype=object) for name in ("class", "group"))
    scores, areas = (np.array([row[name] for row in flat], kind) for name, kind in (("score", "f4"), ("area", "i4")))
    return Pieces(starts, classes, groups, scores, areas, [row["image"] for row in flat])


def load(folder: Path) -> Bundle:
    """Open what :func:`pack` wrote.

    Raises:
        UserError: The folder does not hold a bundle.
    """
    card = read_json(folder / CARD, f"expected a packed model; {REMEDY}", Card)
    towers = {name: Tower(block, folder / "encoders" / name) for name, block in card.encoders.items()}
    opened: dict[str, encoders.Encoder | Instances]
    opened = {name: encoders.load(tower.options, tower.weights, REMEDY) for name, tower in towers.items()}
    models = {name: geolocator.load(folder / "models" / name, REMEDY) for name in (*card.members, card.variant)}
    for name, trained in models.items():
        needs = trained.card.needs
        if lacking := [encoder for encoder in needs.encoded if encoder not in towers]:
            raise UserError(f"{folder / CARD}: no encoder {lacking[0]}; {REMEDY}")
        if lacking := [member for member in needs.members if member not in card.members or member == name]:
            raise UserError(f"{folder / CARD}: no member {lacking[0]}; {REMEDY}")
    return Bundle(card.variant, card.demo, card.candidates, models, opened, towers)
