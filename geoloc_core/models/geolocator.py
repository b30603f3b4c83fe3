"""What every family is: something that answers with places."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np

from geoloc_core.errors import UserError
from geoloc_core.files import read_json
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.models import FAMILIES
from geoloc_core.models.prediction import Prediction
from geoloc_core.plugins import module_of


class Geolocator(Protocol):
    """A trained model, read from a folder with ``safetensors`` weights and JSON, never pickle."""

    @property
    def labelspace(self) -> LabelSpace:
        """Its classes."""

    @property
    def encoders(self) -> list[str]:
        """Names of the encoders whose features it reads."""

    @property
    def fingerprints(self) -> dict[str, str]:
        """What made the features it was trained on, by encoder."""

    def predict_features(self, features: dict[str, np.ndarray], k: int = 5) -> Prediction:
        """The k most probable classes of N photos, from (N, D) features per encoder name."""

    def save(self, folder: Path) -> None:
        """Write it into an existing folder."""


def load(folder: Path, remedy: str = "") -> Geolocator:
    """Open a trained model of any family.

    Args:
        folder: Where it lies.
        remedy: What makes it anew; left out, its training.

    Raises:
        UserError: The folder does not hold one.
    """
    card = folder / "model.json"
    remedy = f"expected a trained model; {remedy or f'run `geoloc train {folder.name}`'}"
    family = read_json(card, remedy, dict[str, Any]).get("family")
    try:
        module = module_of(FAMILIES, family)
    except KeyError:
        raise UserError(f"{card}: family {family!r} is unknown; {remedy}") from None
    model: Geolocator = module.load(folder, remedy)
    return model
