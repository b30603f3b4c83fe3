"""What every variant states in ``params.yaml``, whatever its family."""

from typing import Annotated

from pydantic import Field, PositiveInt

from geoloc_core.plugins import Strict


class Variant(Strict):
    """The part of a variant's block that all families share.

    A family's ``Options`` adds ``kind``, its own keys, and ``needs``: what it reads.
    """

    corpus: str
    """The corpus that it is trained on and validated with."""
    countries: Annotated[tuple[str, ...], Field(min_length=1)] | PositiveInt | None = None
    """The countries whose photos it learns from, by code, or how many, the most frequent first; left out, all."""
    benchmarks: tuple[str, ...] | None = Field(None, min_length=1)
    """What it is scored on; left out, the profile's benchmarks that are not beyond its corpus' countries."""
