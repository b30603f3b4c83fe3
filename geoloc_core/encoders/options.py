"""What every kind of tower can be told, beside its own options."""

from typing import ClassVar

from pydantic import Field

from geoloc_core.encoders.compute import Precision
from geoloc_core.plugins import Strict

PENULTIMATE = "penultimate"
"""The pooling of an encoder that gives the tokens which enter its last block."""
MANY = ("tokens", PENULTIMATE)
"""Poolings that give many vectors per photo."""


class Tower(Strict):
    """A tower, whatever computes it."""

    pictures: ClassVar[bool] = False
    """Whether it gives pictures of what photos show, rather than a feature of each photo."""
    batch: int = Field(256, gt=0)
    """Photos per forward pass; halved where memory runs out."""
    reducing_gap: float | None = Field(None, ge=1)
    """Decode a JPEG at a half, a quarter or an eighth where it stays so many times as large as what it is scaled to;
    left out, in full, as the tower's library does (:class:`~geoloc_core.encoders.preprocess.Preprocess`)."""


class TorchTower(Tower):
    """A tower that torch computes."""

    precision: Precision = "auto"
    """``auto`` is bf16 where the hardware is fast at it and the tower is not tiny; ``bf16`` is fp32 where the hardware
    has none. It is no part of the fingerprint: features in bf16 have a cosine above 0.999 with those in fp32, and what
    one machine trained another must serve."""


class Segmenter(Strict):
    """A tower that cuts photos into pictures of what they show."""

    pictures: ClassVar[bool] = True
    min_area: float = Field(0.001, ge=0, lt=1)
    """A piece that covers a smaller share of the photo is left out: 0.001 of 1024 × 768 is 28 × 28 pixels."""
    batch: int = Field(8, gt=0)
    """Photos at a time."""
