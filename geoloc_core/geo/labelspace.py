"""The classes of a task: countries, subdivisions, geocells, and what corpora state, such as towns or grid squares."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from geoloc_core.errors import UserError
from geoloc_core.files import read_json, write_json
from geoloc_core.geo.sphere import coordinates, unit_vectors
from geoloc_core.plugins import Strict

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

    @property
    def countries(self) -> list[str]:
        """(C,) id of the country of each class, "" where it is in none."""
        return self.ids if self.kind == "country" else self.parents

    def take(self, classes: np.ndarray) -> "LabelSpace":
        """Some of the classes, in the order given."""

        def some(values: list[str]) -> list[str]:
            return [values[at] for at in classes]

        levels = {name: some(values) for name, values in self.levels.items()}
        lists = (some(self.ids), some(self.names), some(self.parents))
        return LabelSpace(self.kind, *lists, self.latitudes[classes], self.longitudes[classes], levels)

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
    def load(cls, path: Path, remedy: str = "make it again") -> "LabelSpace":
        """Read what :meth:`save` wrote.

        Args:
            path: The file.
            remedy: What rebuilds it, for messages.

        Raises:
            UserError: It is missing or damaged.
        """
        raw = read_json(path, remedy, Saved)
        columns = (raw.names, raw.parents, raw.latitudes, raw.longitudes, *raw.levels.values())
        if not raw.ids or any(len(column) != len(raw.ids) for column in columns) or len(set(raw.ids)) < len(raw.ids):
            raise UserError(
                f"{path}: its lists do not match its {len(raw.ids)} ids, which have to be distinct; {remedy}"
            )
        latitudes, longitudes = (np.array(values, np.float64) for values in (raw.latitudes, raw.longitudes))
        return cls(raw.kind, raw.ids, raw.names, raw.parents, latitudes, longitudes, raw.levels)


class Saved(Strict):
    """A label space as JSON has it."""

    kind: str
    ids: list[str]
    names: list[str]
    parents: list[str]
    latitudes: list[Annotated[float, Field(ge=-90, le=90)]]
    longitudes: list[Annotated[float, Field(ge=-180, le=180)]]
    levels: dict[str, list[str]] = Field(default_factory=dict)


def from_units(kind: str, units: "DataFrame", gids: Iterable[Any]) -> LabelSpace:
    """The label space of administrative units: a class per distinct id, in the order of the ids.

    Args:
        kind: What the classes are, such as ``country`` or ``subdivision``.
        units: The table of units (``units.read_units``).
        gids: Ids of one level, may be repeated or null; null is not a class.

    Raises:
        UserError: An id is not a unit: the labels were made with other boundaries.
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


def from_photos(
    kind: str, classes: np.ndarray, latitudes: np.ndarray, longitudes: np.ndarray, countries: np.ndarray
) -> LabelSpace:
    """The label space of classes that their photos alone say something of, such as towns or the squares of a grid.

    A class is where its photos are on average, on the sphere, and in the country of most of them; of as many, the first
    by code.

    Args:
        kind: What the classes are, such as ``city``: in front of those that are called by a number alone.
        classes: (N,) ids, as objects.
        latitudes: (N,) degrees, NaN where unknown.
        longitudes: (N,) degrees, NaN where unknown.
        countries: (N,) ids of countries, as objects; None where unknown.

    Raises:
        UserError: No photo of a class has coordinates.
    """
    import pandas as pd

    known = pd.DataFrame({"id": classes, "country": countries})
    known[["x", "y", "z"]] = unit_vectors(latitudes, longitudes)
    means = known.groupby("id", sort=True)[["x", "y", "z"]].mean()
    ids = means.index.tolist()
    if (lost := means["x"].isna()).any():
        raise UserError(
            f"{kind} {lost.idxmax()!r}: no training photo of it has coordinates; expected some, which say where it is"
        )
    counts = known.dropna(subset="country").groupby(["id", "country"], as_index=False).size()
    most = counts.sort_values(["size", "country"], ascending=[False, True]).drop_duplicates("id").set_index("id")
    parents = most["country"].reindex(ids).fillna("").tolist()
    names = [f"{kind} {name}" if name.isdecimal() else name for name in ids]
    return LabelSpace(kind, ids, names, parents, *coordinates(means.to_numpy()))
