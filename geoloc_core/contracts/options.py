"""What every variant states in ``params.yaml``, whatever its family."""

from typing import Annotated, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

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
    seeds: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] | None = None
    """Of all that is random in its training, which is done once with each; left out, the profile's alone."""

    @model_validator(mode="after")
    def _each_seed_once(self) -> Self:
        if self.seeds and len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: one is there twice")
        return self

    def seed_or(self, default: int) -> int:
        """The first of its seeds, or another where it names none."""
        return self.seeds[0] if self.seeds else default
