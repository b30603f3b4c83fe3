"""The classes of a task: countries, subdivisions, geocells, and later towns."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoloc_core.errors import UserError
from geoloc_core.files import read_json, write_json

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class LabelSpace:
    """C classes, each with a place on the sphere. Saved with every model, so that a model is self-contained.

    Attributes:
        kind: What the classes are, such as ``country`` or ``geocell``.
        ids: (C,) unique ids, such as ``GID_0`` codes; a class is its position here.
        names: (C,) names for people.
        parents: (C,) id of the country that holds the class, or "" where nothing does.
        latitudes: (C,) centroids, degrees.
        longitudes: (C,) centroids, degrees.
        levels: What holds most of each class, finest first: for geocells ``subdivision``, ``country`` and
            ``continent``, each (C,) ids, "" where nothing does.
    """

    kind: str
    ids: list[str]
    names: list[str]
    parents: list[str]
    latitudes: np.ndarray
    longitudes: np.ndarray
    levels: dict[str, list[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def index(self, ids: Any) -> np.ndarray:
        """Classes (N,) int64 of N ids; −1 where an id is null or not a class."""
        import pandas as pd

        return pd.Index(self.ids).get_indexer(pd.Index(ids)).astype(np.int64)

    def save(self, path: Path) -> None:
        """Write as JSON."""
        write_json(
            path,
            {
                "kind": self.kind,
                "ids": self.ids,
                "names": self.names,
                "parents": self.parents,
                "latitudes": [round(float(v), 6) for v in self.latitudes],
                "longitudes": [round(float(v), 6) for v in self.longitudes],
                **({"levels": self.levels} if self.levels else {}),
            },
        )

    @classmethod
    def load(cls, path: Path) -> "LabelSpace":
        """Read what :meth:`save` wrote.

        Raises:
            UserError: The file is missing or damaged.
        """
        remedy = "run again what wrote it"
        try:
            raw = read_json(path)
            for key in ("latitudes", "longitudes"):
                raw[key] = np.asarray(raw[key], dtype=np.float64)
            space = cls(**raw)
            columns: tuple[Any, ...] = (
                space.names,
                space.parents,
                space.latitudes,
                space.longitudes,
                *space.levels.values(),
            )
            whole = all(len(column) == len(space) for column in columns)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); expected the classes; {remedy}") from None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            whole = False
        if not whole:
            raise UserError(f"{path}: damaged; expected the classes with their places; {remedy}")
        return space


def from_units(kind: str, units: "DataFrame", gids: Iterable[Any]) -> LabelSpace:
    """The label space of administrative units: a class per distinct id, in the order of the ids.

    Args:
        kind: What the classes are, such as ``country`` or ``subdivision``.
        units: The table of units (``boundaries.read_units``).
        gids: Ids of one level, repeated or null as they come; nulls are no class.

    Raises:
        UserError: An id is no unit: the labels were made with other boundaries.
    """
    import pandas as pd

    ids = sorted(pd.unique(pd.Series(list(gids), dtype=object).dropna()))
    table = units.drop_duplicates("gid").set_index("gid").reindex(ids)
    unknown = table["name"].isna()
    if unknown.any():
        first = unknown.idxmax()
        raise UserError(f"{kind} {first!r}: not in units.parquet; run the stages `boundaries` and `label` again")
    latitudes, longitudes = (table[axis].to_numpy(dtype=np.float64) for axis in ("latitude", "longitude"))
    return LabelSpace(kind, ids, table["name"].tolist(), table["parent"].tolist(), latitudes, longitudes)
