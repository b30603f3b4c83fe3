"""The pieces that a photo was cut into, where they lie, and what each votes for."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from geoloc_core.contracts.batch import Pieces
from geoloc_core.encoders.instances import Instances
from geoloc_core.errors import UserError
from geoloc_core.serving.bundle import Bundle, pieces_of


@runtime_checkable
class VotesByPieces(Protocol):
    """A model whose answer is a vote of pieces."""

    @property
    def segmenter(self) -> str | None:
        """Name of what cuts them; None where this model is shown whole photos."""

    @property
    def groups(self) -> "set[str] | list[str]":
        """Groups of pieces that have a vote."""

    def of_pieces(self, pieces: Pieces) -> np.ndarray:
        """Probabilities (P, C) of pieces that have a vote."""


@dataclass(frozen=True)
class Piece:
    """A piece and its vote.

    Attributes:
        box: Left, top, right and bottom in the upright photo, pixels.
        group: Such as ``vegetation``.
        label: Its class, as the segmenter names it.
        score: The segmenter's confidence, 0 to 1.
        area: Pixels of the photo.
        place: The class that it votes for.
        probability: That it gives to it.
    """

    box: tuple[int, int, int, int]
    group: str
    label: str
    score: float
    area: int
    place: int
    probability: float


def lacking(bundle: Bundle) -> str | None:
    """Why a model has no votes of pieces; None where it has."""
    trained = bundle.models[bundle.variant]
    if isinstance(trained.model, VotesByPieces) and trained.model.segmenter is not None:
        return None
    return f"{bundle.variant}: the family {trained.card.family} is shown no pieces here"


def votes(bundle: Bundle, photo: bytes) -> list[Piece]:
    """The pieces of a photo that have a vote, the largest first; none where it was cut into none.

    Args:
        bundle: A model of which :func:`lacking` says nothing.
        photo: Encoded.
    """
    model = bundle.models[bundle.variant].model
    assert isinstance(model, VotesByPieces)
    assert model.segmenter is not None
    segmenter = bundle.encoders[model.segmenter]
    assert isinstance(segmenter, Instances)
    [cut] = segmenter([photo])
    if isinstance(cut, UserError):
        raise cut
    rows = [row for row in cut if row["group"] in model.groups]
    if not rows:
        return []
    probabilities = model.of_pieces(pieces_of([rows]))
    found = [
        Piece(
            tuple(row["box"]), row["group"], row["class"], row["score"], row["area"], int(best), float(of_piece[best])
        )
        for row, of_piece, best in zip(rows, probabilities, probabilities.argmax(axis=1), strict=True)
    ]
    return sorted(found, key=lambda piece: -piece.area)
