"""Random crops in place of pieces: as many, as large, and of the same groups, but anywhere in the photo.

What another segmenter finds is worth if experts do worse on these ("Image Geolocalization with Directed Feature
Identification", Gong, Brumley 2024, asks it). The folder is that of the other segmenter.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from geoloc_core.encoders.instances import Instances, Segment, large_enough
from geoloc_core.encoders.options import Segmenter
from geoloc_core.encoders.published import TOWERS
from geoloc_core.encoders.towers import segformer
from geoloc_core.plugins import module_of, options

FILES = segformer.FILES


class Options(Segmenter):
    """Whose pieces the crops stand for."""

    kind: Literal["crops"]
    of: options(TOWERS)  # type: ignore[valid-type]
    """The segmenter, as it is listed under ``encoders``; its ``min_area`` and ``batch`` are the ones that count."""
    seed: int = Field(0, ge=0)
    """Of where the crops lie."""

    @model_validator(mode="after")
    def _cuts(self) -> Self:
        if not self.of.pictures or self.of.kind == self.kind:
            raise ValueError(f"of: {self.of.kind!r}; expected a segmenter, such as segformer or mask2former")
        return self


def load(options: Options, weights: Path) -> Instances:
    """Open the other segmenter's checkpoint folder.

    Raises:
        UserError: As the other segmenter's.
    """
    other: Instances = module_of(TOWERS, options.of.kind).load(options.of, weights)
    return replace(
        other,
        segment=_elsewhere(other.segment, other.min_area, options.seed),
        min_area=0.0,
        identity={"kind": options.kind, "seed": options.seed, "of": other.identity},
    )


def _elsewhere(
    segment: Callable[[Sequence[Image.Image]], list[list[Segment]]], min_area: float, seed: int
) -> Callable[[Sequence[Image.Image]], list[list[Segment]]]:
    def crops(photos: Sequence[Image.Image]) -> list[list[Segment]]:
        return [
            [_moved(random, piece) for piece in found if large_enough(piece, photo.size, min_area)]
            for photo, found in zip(photos, segment(photos), strict=True)
            for random in [_random(photo, seed)]
        ]

    return crops


def _random(photo: Image.Image, seed: int) -> Any:
    """A generator that depends on the photo's pixels alone, whatever else is cut."""
    pixels = hashlib.sha256(photo.tobytes()).digest()
    return np.random.default_rng([seed, *pixels[:8]])


def _moved(random: Any, piece: Segment) -> Segment:
    """A rectangle as large as a piece's box, anywhere in the photo."""
    rows, columns = np.flatnonzero(piece.mask.any(axis=1)), np.flatnonzero(piece.mask.any(axis=0))
    high, wide = rows[-1] + 1 - rows[0], columns[-1] + 1 - columns[0]
    top = random.integers(piece.mask.shape[0] - high + 1)
    left = random.integers(piece.mask.shape[1] - wide + 1)
    mask = np.zeros_like(piece.mask)
    mask[top : top + high, left : left + wide] = True
    return piece._replace(mask=mask)
