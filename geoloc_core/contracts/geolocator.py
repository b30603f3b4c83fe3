"""What every family is: something that answers with places, in a folder of its own."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from pydantic import Field

from geoloc_core.contracts.batch import Batch
from geoloc_core.contracts.clustered import Clustered
from geoloc_core.contracts.needs import Needs
from geoloc_core.contracts.prediction import Prediction
from geoloc_core.errors import UserError
from geoloc_core.files import read_bytes, read_json, write_json
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.plugins import Strict, kinds, module_of

FAMILIES = "geoloc_core.families"
CARD = "model.json"
LABELS = "labels.json"
WEIGHTS = "model.safetensors"


class Card(Strict):
    """What is said of a model beside its weights.

    Attributes:
        family: The module that opens it.
        needs: What it reads.
        fingerprints: What made the features and the pieces that it was trained on, by image encoder.
        members: Digests of the classes of the variants whose answers it was trained on, by variant.
        parameters: How many its network has, those of its parts and members too; None where that was not noted yet.
    """

    family: str
    needs: Needs
    fingerprints: dict[str, str]
    members: dict[str, str] = Field(default_factory=dict)
    parameters: int | None = None


class Geolocator(Protocol):
    """A trained model, read from a folder with ``safetensors`` weights and JSON, never pickle."""

    @property
    def labelspace(self) -> LabelSpace:
        """Its C classes."""

    def predict(self, batch: Batch, k: int = 5, truth: np.ndarray | None = None) -> Prediction:
        """The k best candidates of N units, and what it thinks of their true classes (N,) where these are given."""

    def save(self, folder: Path) -> None:
        """Write what is its own into an existing folder; its card and its classes are written around it."""


@dataclass(frozen=True)
class Trained:
    """A model and what is said of it."""

    card: Card
    model: Geolocator

    @property
    def labelspace(self) -> LabelSpace:
        """Its classes."""
        return self.model.labelspace

    def save(self, folder: Path) -> None:
        """Write everything into an existing folder."""
        self.model.save(folder)
        self.model.labelspace.save(folder / LABELS)
        write_json(folder / CARD, self.card)


def load(folder: Path, remedy: str = "") -> Trained:
    """Open a trained model of any family.

    Args:
        folder: Where it is.
        remedy: What rebuilds it; left out, its training.

    Raises:
        UserError: The folder does not hold one.
    """
    remedy = f"expected a trained model; {remedy or f'run `geoloc train {folder.name}`'}"
    card: Card = read_json(folder / CARD, remedy, Card)
    try:
        module = module_of(FAMILIES, card.family)
    except KeyError:
        raise UserError(f"{folder / CARD}: family {card.family!r} is unknown; {remedy}") from None
    if unknown := [name for name in card.needs.encoded if name not in card.fingerprints]:
        raise UserError(f"{folder / CARD}: no fingerprint of {unknown[0]}; {remedy}")
    space = LabelSpace.load(folder / LABELS, remedy)
    return Trained(card, module.load(folder, card.needs, space, remedy))


def clusters(folder: Path, remedy: str) -> Clustered | None:
    """The clusters of training photos that a saved model holds; None where its family has none.

    Raises:
        UserError: The folder does not hold a model, or its clusters are damaged.
    """
    card: Card = read_json(folder / CARD, remedy, Card)
    read = getattr(module_of(FAMILIES, card.family), "clusters", None) if card.family in kinds(FAMILIES) else None
    found: Clustered | None = read(folder, remedy) if read is not None else None
    return found


def read_tensors(folder: Path, remedy: str) -> dict[str, np.ndarray]:
    """The arrays of a model's ``model.safetensors``.

    Raises:
        UserError: It is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = folder / WEIGHTS
    try:
        tensors: dict[str, np.ndarray] = load(read_bytes(path, remedy))
    except (SafetensorError, ValueError, KeyError) as error:
        raise UserError(f"{path}: not a safetensors file: {error}; {remedy}") from None
    return tensors


def write_tensors(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    """Write what :func:`read_tensors` reads."""
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, folder / WEIGHTS)


def width_of(tensors: dict[str, np.ndarray], name: str) -> int:
    """The last dimension of a tensor; 1 where it is missing or empty, or has none: :func:`check_shapes` says so."""
    return max(1, tensors[name].shape[-1]) if name in tensors and tensors[name].ndim else 1


def check_shapes(
    folder: Path, remedy: str, tensors: dict[str, np.ndarray], expected: dict[str, tuple[int, ...]]
) -> None:
    """Refuse tensors that are missing or have another shape.

    Raises:
        UserError: With the shapes that were found.
    """
    if missing := [name for name in expected if name not in tensors]:
        raise UserError(f"{folder / WEIGHTS}: no tensor {missing[0]!r}; {remedy}")
    if wrong := [name for name, shape in expected.items() if tensors[name].shape != shape]:
        found = ", ".join(f"{name} {tensors[name].shape}, expected {expected[name]}" for name in wrong)
        raise UserError(f"{folder / WEIGHTS}: {found}; {remedy}")


def check_classes(folder: Path, remedy: str, tensors: dict[str, np.ndarray], names: Iterable[str], count: int) -> None:
    """Refuse tensors that are not int64 positions of so many classes, −1 for none.

    Raises:
        UserError: The first of them is named.
    """
    for name in names:
        if tensors[name].dtype != np.int64 or not np.isin(tensors[name], np.arange(-1, count)).all():
            raise UserError(f"{folder / WEIGHTS}: {name}: expected positions of {count} classes; {remedy}")
