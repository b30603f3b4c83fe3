"""A model and its encoders in one folder: everything that an answer needs, photos in and places out."""

import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from geoloc_core.encoders import encoder as encoders
from geoloc_core.errors import UserError
from geoloc_core.files import read_json, replacing_folder, write_json
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.models import geolocator
from geoloc_core.models.prediction import Prediction
from geoloc_core.params import entry
from geoloc_core.pictures import MAX_MEGAPIXELS, PictureError, opened
from geoloc_core.plugins import Strict, options
from geoloc_core.project import Project

CARD = "bundle.json"
REMEDY = "run `geoloc promote --replace`"


def pack(project: Project, variant: str, folder: Path) -> None:
    """Put a trained variant and the weights of its encoders into one folder.

    Raises:
        UserError: The encoders' weights are not those the model was trained on.
    """
    model = geolocator.load(project.model(variant))
    blocks = {name: entry(project.profile.encoders, name, "encoder") for name in model.encoders}
    for name, block in blocks.items():
        found = encoders.load(block, project.weights(name)).fingerprint
        if found != model.fingerprints[name]:
            raise UserError(
                f"{project.weights(name)}: fingerprint {found}, but {variant} was trained on "
                f"{model.fingerprints[name]}; encode and train again"
            )
    with replacing_folder(folder, "bundle") as aside:
        shutil.copytree(project.model(variant), aside / "model")
        for name in blocks:
            shutil.copytree(project.weights(name), aside / "encoders" / name)
        write_json(
            aside / CARD,
            {
                "variant": variant,
                "demo": project.profile.demo,
                "encoders": {name: block.model_dump(mode="json") for name, block in blocks.items()},
            },
        )


class Card(Strict):
    """What a bundle says of itself."""

    variant: str
    demo: bool
    encoders: dict[str, options(encoders.TOWERS)]  # type: ignore[valid-type]


@dataclass(frozen=True)
class Bundle:
    """An opened bundle.

    Attributes:
        variant: The variant it holds.
        demo: Whether it learned from rendered photos.
        model: The model.
        encoders: Its encoders, by name.
    """

    variant: str
    demo: bool
    model: geolocator.Geolocator
    encoders: dict[str, encoders.Encoder]

    @property
    def labelspace(self) -> LabelSpace:
        """The model's classes."""
        return self.model.labelspace

    def predict(self, photos: Sequence[bytes], k: int = 5) -> Prediction:
        """The k most probable places of N encoded photos.

        Raises:
            UserError: One of them is not a photo, or has more than :data:`~geoloc_core.pictures.MAX_MEGAPIXELS`.
        """
        for number, photo in enumerate(photos):
            try:
                with opened(photo, MAX_MEGAPIXELS * 1e6):
                    pass
            except PictureError as error:
                raise UserError(f"photo {number}: not a readable photo: {error}") from None
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            features = {name: encoder(photos, pool) for name, encoder in self.encoders.items()}
        return self.model.predict_features(features, k)


def load(folder: Path) -> Bundle:
    """Open what :func:`pack` wrote.

    Raises:
        UserError: The folder does not hold a bundle.
    """
    card = read_json(folder / CARD, f"expected a packed model; {REMEDY}", Card)
    towers = {name: encoders.load(block, folder / "encoders" / name, REMEDY) for name, block in card.encoders.items()}
    model = geolocator.load(folder / "model", REMEDY)
    if lacking := [name for name in model.encoders if name not in towers]:
        raise UserError(f"{folder / CARD}: no encoder {lacking[0]}; {REMEDY}")
    return Bundle(card.variant, card.demo, model, towers)
