"""Views of the UK on a grid, with a list of towns per square.

``images/<square>+<latitude>,<longitude>/<heading>_<YYYY-MM>.jpg``, laid out as the views of the US that the crawl
followed (:mod:`geoloc_core.corpora.sources.us_grid`), and ``towns/<square>.csv`` with the names and coordinates of a
square's towns. The crawl itself was never published: of its CSVs it is known that there was one per square, and that
they associate names of towns with coordinates. A place is in the town of its square that is nearest.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from geoloc_core.corpora.photo import Source, SourceOptions, locate, without
from geoloc_core.corpora.simulated import Plan, Simulation, csv_table, save
from geoloc_core.corpora.sources.us_grid import number, square, views, views_under
from geoloc_core.corpora.tables import read_csv
from geoloc_core.errors import UserError
from geoloc_core.geo.sphere import haversine_km

if TYPE_CHECKING:
    import numpy as np

SQUARE = re.compile(r"[0-9]{1,9}", re.ASCII)
COLUMNS = ("town", "latitude", "longitude")
PLAN = Plan("street", (0, 90, 180), country="GB", within=(49.8, -8.2, 60.9, 1.8))
DEGREES = 0.5
"""Side of a square of the simulated grid; the slides show squares up to 218 and do not say how large they are."""


class Options(SourceOptions):
    """Where the folders and the towns are."""

    kind: Literal["uk_grid"]
    images: str = "images"
    """Folder of the places' folders; ``.`` for the raw folder itself."""
    towns: str = "towns"
    """Folder of the CSVs."""


@dataclass(frozen=True)
class Towns:
    """The T towns of a square.

    Attributes:
        names: T of them.
        latitudes: (T,) degrees.
        longitudes: (T,) degrees.
    """

    names: list[str]
    latitudes: "np.ndarray"
    longitudes: "np.ndarray"

    def nearest(self, latitude: float, longitude: float) -> tuple[str, float]:
        """The nearest town to a point in degrees, and how many kilometres away it is."""
        away = haversine_km(latitude, longitude, self.latitudes, self.longitudes)
        return self.names[int(away.argmin())], float(away.min())


def read(options: Options, raw: Path) -> Source:
    """Every view, grouped by place.

    The attributes are the ``square``, the ``town`` and ``town_km``, the great-circle distance to it; the last two are
    unknown where the square has no list of towns.

    Raises:
        UserError: A folder is missing, none of its folders is a place's, or a list of towns is missing or wrong.
    """
    import pyarrow as pa

    folder = raw / options.towns
    lists = {path.stem: path for path in sorted(folder.glob("*.csv")) if SQUARE.fullmatch(path.stem)}
    if not lists:
        raise UserError(f"{folder}: no list of towns; expected a CSV per square, such as {folder.name}/108.csv")
    towns = {int(name): read_towns(path) for name, path in lists.items()}
    if len(towns) < len(lists):
        raise UserError(f"{folder}: two lists of one square, such as 7.csv and 007.csv; expected one each")
    inside = {f"{options.towns}/{path.name}" for path in lists.values()} if options.images == "." else set()
    files = views_under(raw / options.images, inside)
    items = views(options, raw / options.images, files, _attributes(towns))
    schema = pa.schema([("square", pa.int32()), ("town", pa.string()), ("town_km", pa.float64())])
    return Source(without(items, options.takedown), schema, len(files))


def read_towns(path: Path) -> Towns:
    """One square's towns.

    Raises:
        UserError: The file is not a CSV of :data:`COLUMNS`, has no rows, or a row has no name or place.
    """
    table = read_csv(path, COLUMNS)
    if table.empty:
        raise UserError(f"{path}: no towns; expected at least one")
    places = locate(table, "latitude", "longitude", str(path))
    flawed = places["flaw"].dropna()
    if len(flawed):
        raise UserError(flawed.iloc[0][1])
    unnamed = table.index[table["town"].str.strip() == ""]
    if len(unnamed):
        raise UserError(f"{path} row {unnamed[0]}: no name; expected the name of a town")
    return Towns(table["town"].tolist(), places["latitude"].to_numpy(), places["longitude"].to_numpy())


def _attributes(towns: dict[int, Towns]) -> Callable[[re.Match[str]], dict[str, Any]]:
    def of(place: re.Match[str]) -> dict[str, Any]:
        here = towns.get(number(place))
        point = float(place["latitude"]), float(place["longitude"])
        town, km = here.nearest(*point) if here else (None, None)
        return {"square": number(place), "town": town, "town_km": km}

    return of


def write(world: Simulation, folder: Path, options: Options) -> None:
    """Rendered views of places near British towns; a town is where its first place is."""
    towns: dict[int, dict[str, tuple[float, float]]] = {}
    for shot in world.shots:
        here = square(shot, PLAN, DEGREES)
        towns.setdefault(here, {}).setdefault(shot.city, (shot.latitude, shot.longitude))
        place = f"{here}+{shot.latitude:.6f},{shot.longitude:.6f}"
        save(folder / options.images / place / f"{shot.heading}_{shot.moment:%Y-%m}.jpg", shot.jpeg)
    for here, named in towns.items():
        with csv_table(folder / options.towns / f"{here}.csv", COLUMNS) as table:
            table.writerows((name, *place) for name, place in named.items())
