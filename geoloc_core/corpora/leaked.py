"""The photos that are scored and share something with photos that are learned from: ``geoloc leaks`` lists them.

A module apart from the stage, so that a change of how they are found makes no score stale by itself.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from geoloc_core import parquet
from geoloc_core.sets import Split, set_name

if TYPE_CHECKING:
    from geoloc_core.project import Project

NAME = "leaked.parquet"
ROWS = pa.schema([pa.field(name, pa.string(), nullable=False) for name in ("image_id", "scored", "learned")])
"""A photo that is scored, its set, and the set that is learned from and shares something with it."""


def read(project: "Project", scored: str, learned: Collection[str]) -> list[str] | None:
    """Ids of the photos of a set that share something with the training photos of corpora; None if nobody has looked.

    Args:
        project: The project.
        scored: Name of the set.
        learned: Names of the corpora.

    Raises:
        UserError: The table is damaged.
    """
    path = project.leaks / NAME
    if not path.is_file():
        return None
    table = parquet.read(path, "run `geoloc leaks`", ROWS.names)
    of = pa.array([set_name(corpus, Split.TRAIN) for corpus in learned], pa.string())
    here = pc.and_(pc.equal(table["scored"], scored), pc.is_in(table["learned"], value_set=of))
    ids: list[str] = pc.unique(table["image_id"].filter(here)).to_pylist()
    return ids
