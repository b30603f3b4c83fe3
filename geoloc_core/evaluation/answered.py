"""What a variant answers to a benchmark, as columns: how far answers are off, and which countries they are in."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from geoloc_core.geo.sphere import haversine_km

if TYPE_CHECKING:
    from geoloc_core.project import Project

NONE = -1
"""The last of the countries, which is none: where an answer is no class."""


@dataclass(frozen=True)
class Answered:
    """N answers.

    Attributes:
        benchmark: To what.
        rows: (N,) in the manifest of its corpus.
        ids: (N,) of the photos.
        true: (N,) latitudes and (N,) longitudes of the photos, degrees; NaN where unknown.
        answer: (N,) latitudes and (N,) longitudes of the answers.
        true_country: (N,) code; None where unknown.
        country: (N,) code of the answer's country; "" where it is in none.
    """

    benchmark: str
    rows: np.ndarray
    ids: np.ndarray
    true: tuple[np.ndarray, np.ndarray]
    answer: tuple[np.ndarray, np.ndarray]
    true_country: np.ndarray
    country: np.ndarray

    @cached_property
    def errors_km(self) -> np.ndarray:
        """(N,) on the sphere; NaN where the photo has no coordinates."""
        found: np.ndarray = haversine_km(*self.answer, *self.true)
        return found


def read(project: "Project", variant: str, benchmark: str) -> Answered:
    """What a variant answers to a benchmark.

    Raises:
        UserError: It has not answered it, or the answers are damaged.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from geoloc_core.variants import answers

    def numbers(name: str) -> np.ndarray:
        found: np.ndarray = answers.column(project, variant, benchmark, name).to_numpy()
        return found.astype(np.float64)

    space = answers.space(project, variant)
    classes = answers.column(project, variant, benchmark, "classes")
    first = pc.index_in(pc.list_element(classes, 0), value_set=pa.array(space.ids, pa.string())).fill_null(NONE)
    countries = np.array([*space.countries, ""], dtype=object)
    return Answered(
        benchmark=benchmark,
        rows=answers.column(project, variant, benchmark, "row").to_numpy(),
        ids=answers.column(project, variant, benchmark, "image_id").to_numpy(zero_copy_only=False),
        true=(numbers("true_latitude"), numbers("true_longitude")),
        answer=(numbers("latitude"), numbers("longitude")),
        true_country=answers.column(project, variant, benchmark, "true_country").to_numpy(zero_copy_only=False),
        country=countries[first.to_numpy()],
    )
