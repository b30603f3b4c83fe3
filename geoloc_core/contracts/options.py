"""What every variant states in ``params.yaml``, whatever its family."""

from pydantic import Field

from geoloc_core.plugins import Strict


class Variant(Strict):
    """The part of a variant's block that all families share.

    A family's ``Options`` adds ``kind``, its own keys, and ``needs``: what it reads.
    """

    corpus: str
    """The corpus that it is trained on and validated with."""
    benchmarks: tuple[str, ...] | None = Field(None, min_length=1)
    """What it is scored on; left out, the profile's benchmarks that are not beyond its corpus' countries."""
