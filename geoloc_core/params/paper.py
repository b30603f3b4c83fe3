"""The published row that a variant stands for: printed beside our numbers, never mixed with them."""

from typing import Annotated

from pydantic import AfterValidator, Field

from geoloc_core.contracts.metrics import column
from geoloc_core.plugins import Strict


def _metric(name: str) -> str:
    if column(name) is None:
        raise ValueError(f"{name!r}: no metric; expected a distance in km, or a metric such as accuracy or top_5")
    return name


Metric = Annotated[str, AfterValidator(_metric)]


class Paper(Strict):
    """What a paper reports: on its own validation split, and per benchmark.

    Attributes:
        source: Author, year and table.
        accuracy: Percent of the paper's validation rows whose class is right.
        mean_km: Mean error on the paper's validation rows, kilometres.
        top_5: Percent of the paper's validation rows with the right class among the first five.
        top_10: The same among the first ten.
        benchmarks: Per benchmark, the percent of photos within so many kilometres, or any metric by its name.
    """

    source: str
    accuracy: float | None = Field(None, ge=0, le=100)
    mean_km: float | None = Field(None, ge=0)
    top_5: float | None = Field(None, ge=0, le=100)
    top_10: float | None = Field(None, ge=0, le=100)
    benchmarks: dict[str, dict[int | Metric, float]] = Field(default_factory=dict)
