"""From points to administrative units: the unit that holds a point, or the nearest one within a limit."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from geoloc_core import files
from geoloc_core.blocks import blocks
from geoloc_core.errors import UserError
from geoloc_core.geo import sphere
from geoloc_core.plugins import Strict
from geoloc_core.threads import workers

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

    from geoloc_core.geo.borders import Borders
    from geoloc_core.geo.index import Index

Arrays = TypeVar("Arrays", bound=Any)

LEVELS = (0, 1, 2)
NAMES = {0: "COUNTRY", 1: "NAME_1", 2: "NAME_2"}
"""The column that names a unit, per level."""
FOLDER = "index"
"""The folder of the index within a boundaries folder."""
TABLE = "units.json"
REMEDY = "run `geoloc boundaries` again, or name another --index"
VERSION = 1
BLOCK = 1 << 16
"""Points that a thread works on at once."""


@dataclass(frozen=True)
class Units:
    """The U finest units.

    Attributes:
        gids: (U, 3) their ids at each level; None below their own.
        names: (U, 3) names for people, likewise.
    """

    gids: np.ndarray
    names: np.ndarray


@dataclass(frozen=True)
class Located:
    """The units of N points.

    Attributes:
        unit: (N,) int32 rows of ``units``, −1 where there is no unit within the limit.
        distance_km: (N,) great-circle distance to the unit: 0 inside, NaN without a unit.
        units: What the rows mean.
    """

    unit: np.ndarray
    distance_km: np.ndarray
    units: Units

    def __len__(self) -> int:
        return len(self.unit)

    def gid(self, level: int) -> np.ndarray:
        """Ids (N,) at a level: None where there is no unit, or its country has no such level."""
        return self._of(self.units.gids[:, level])

    def name(self, level: int) -> np.ndarray:
        """Names (N,) at a level, None likewise."""
        return self._of(self.units.names[:, level])

    @property
    def gid_0(self) -> np.ndarray:
        """Ids (N,) of countries."""
        return self.gid(0)

    @property
    def gid_1(self) -> np.ndarray:
        """Ids (N,) of first-level units."""
        return self.gid(1)

    @property
    def gid_2(self) -> np.ndarray:
        """Ids (N,) of second-level units."""
        return self.gid(2)

    def _of(self, values: np.ndarray) -> np.ndarray:
        # The last one, which −1 takes, is no unit.
        return np.array([*values, None], dtype=object)[self.unit]


@dataclass(frozen=True)
class Locator:
    """Finds the units of points. The finest unit decides and brings its parents, so the levels always agree.

    Attributes:
        index: Which unit holds a point.
        borders: Which unit is nearest.
        units: The finest units: no unit here is divided further.
        limit_km: Maximum distance from a point to its unit.
    """

    index: "Index"
    borders: "Borders"
    units: Units
    limit_km: float

    @classmethod
    def build(cls, shapes: np.ndarray, units: Units, limit_km: float = 100.0) -> "Locator":
        """Index polygons (U,) in degrees."""
        from geoloc_core.geo.borders import Borders
        from geoloc_core.geo.index import Index
        from geoloc_core.geo.rings import Rings

        rings = Rings.of(shapes)
        return cls(Index.build(rings), Borders.of(rings), units, limit_km)

    @classmethod
    def of_levels(cls, levels: "Mapping[int, GeoDataFrame]", limit_km: float = 100.0) -> "Locator":
        """Index the finest units of the levels of a boundaries folder."""
        return cls.build(*finest(levels), limit_km)

    @classmethod
    def open(cls, folder: Path, limit_km: float = 100.0) -> "Locator":
        """The locator of a boundaries folder.

        Raises:
            UserError: The folder has no index, or one of another version.
        """
        return cls.load(folder / FOLDER, limit_km)

    def save(self, folder: Path, source: str = "") -> None:
        """Write the index to a new folder: the same bytes for the same units.

        Args:
            folder: Where to.
            source: What it was made of, for :func:`source_of`.
        """
        folder.mkdir()
        for part in (self.index, self.borders):
            for field in fields(part):
                np.save(folder / f"{field.name}.npy", getattr(part, field.name))
        table = {"version": VERSION, "source": source}
        files.write_json(
            folder / TABLE, {**table, "gids": self.units.gids.tolist(), "names": self.units.names.tolist()}
        )

    @classmethod
    def load(cls, folder: Path, limit_km: float = 100.0) -> "Locator":
        """Map what :meth:`save` wrote into memory.

        Raises:
            UserError: It is missing, broken or of another version.
        """
        from geoloc_core.geo.borders import Borders
        from geoloc_core.geo.index import Index

        table = _table(folder)
        if table.version != VERSION:
            raise UserError(f"{folder}: not an index of version {VERSION}; {REMEDY}")
        if len(table.gids) != len(table.names):
            raise UserError(f"{folder / TABLE}: {len(table.gids)} gids, {len(table.names)} names; {REMEDY}")
        units = Units(*(np.array(rows, dtype=object).reshape(-1, len(LEVELS)) for rows in (table.gids, table.names)))
        return cls(_mapped(Index, folder), _mapped(Borders, folder), units, limit_km)

    def locate(self, latitudes: ArrayLike, longitudes: ArrayLike) -> Located:
        """The units of N points.

        Args:
            latitudes: (N,) degrees.
            longitudes: (N,) degrees, −180 … 180.

        Returns:
            Their units. A point on a border, or in units that overlap, is in the first of them.

        Raises:
            UserError: A coordinate is not a number or out of range; its row is named.
        """
        lat, lon = (np.ascontiguousarray(values) for values in sphere.check(latitudes, longitudes))
        unit, distance = np.empty(len(lat), dtype=np.int32), np.empty(len(lat))

        def work(rows: slice) -> None:
            unit[rows], distance[rows] = self._locate(lat[rows], lon[rows])

        parts = list(blocks(len(lat), BLOCK))
        threads = min(workers(), len(parts))
        if threads > 1:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(work, parts))
        else:
            for part in parts:
                work(part)
        return Located(unit, distance, self.units)

    def _locate(self, latitudes: np.ndarray, longitudes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Units (N,) and kilometres (N,) of points that are sure to be coordinates."""
        unit = self.index.find(latitudes, longitudes)
        distance = np.where(unit >= 0, 0.0, np.nan)
        outside = np.flatnonzero(unit < 0)
        if len(outside) and self.limit_km > 0:
            unit[outside], distance[outside] = self.borders.nearest(
                latitudes[outside], longitudes[outside], self.limit_km
            )
        return unit, distance


def finest(levels: "Mapping[int, GeoDataFrame]") -> tuple[np.ndarray, Units]:
    """The polygons of the units that are not divided further, and what they are."""
    names: dict[str, str] = {}
    shapes, gids = [], []
    for level, frame in sorted(levels.items()):
        own = frame[f"GID_{level}"]
        names |= dict(zip(own, frame[NAMES[level]].fillna(own), strict=True))
        divided = levels[level + 1][f"GID_{level}"] if level + 1 in levels else []
        units = frame[~own.isin(divided)]
        columns = [units[f"GID_{n}"] if n <= level else np.full(len(units), None) for n in LEVELS]
        shapes.append(units.geometry.to_numpy())
        gids.append(np.stack([np.asarray(column, dtype=object) for column in columns], axis=1))
    table = np.concatenate(gids)
    table[table != table] = None  # pandas' missing values
    flat = [names.get(gid) for gid in table.ravel()]
    return np.concatenate(shapes), Units(table, np.array(flat, dtype=object).reshape(table.shape))


def source_of(folder: Path) -> str:
    """What the index in a folder says it was made of; empty where there is none."""
    try:
        return _table(folder).source
    except UserError:
        return ""


Row = tuple[str | None, str | None, str | None]


class Table(Strict):
    """The units of an index, and what it was made of."""

    version: int
    source: str = ""
    gids: list[Row]
    names: list[Row]


def _table(folder: Path) -> Table:
    table: Table = files.read_json(folder / TABLE, f"expected an index of the units' shapes; {REMEDY}", Table)
    return table


def _mapped(kind: type[Arrays], folder: Path) -> Arrays:
    """A record of arrays whose files are read as far as they are used."""
    arrays = {}
    for field in fields(kind):
        arrays[field.name] = np.asarray(files.read_array(folder / f"{field.name}.npy", REMEDY))
    return kind(**arrays)
