"""Views of the most populous cities of the UK, their suburbs merged into them.

``<city>+<latitude>,<longitude>/<heading>_<YYYY-MM>.jpg``, and one CSV of labels with the cities' names, coordinates and
inhabitants. The crawl itself was never published, nor how suburbs were found: here a city within ``merge_km`` of a
larger one is its suburb.
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from geoloc_core.corpora.listing import Folder, Row, listed
from geoloc_core.corpora.photo import (
    Photo,
    Reason,
    Refusal,
    Source,
    SourceOptions,
    numbers,
    place_flaw,
    said_of,
    without,
)
from geoloc_core.corpora.simulated import Plan, Simulation, csv_table, save
from geoloc_core.corpora.sources.us_grid import NUMBER, VIEW
from geoloc_core.corpora.tables import read_csv
from geoloc_core.errors import UserError
from geoloc_core.geo.sphere import haversine_km

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("city", "latitude", "longitude", "population")
PLACE = re.compile(rf"(?P<city>[^/+]{{1,99}})\+(?P<latitude>{NUMBER}),(?P<longitude>{NUMBER})", re.ASCII)
PLAN = Plan("street", (0, 90, 180), country="GB")


class Options(SourceOptions):
    """Where the folders and the labels are."""

    kind: Literal["uk_cities"]
    images: str = "images"
    """Folder of the photos."""
    labels: str = "cities.csv"
    """The table of labels."""
    cities: int = Field(150, gt=0)
    """So many of the most populous ones count; photos of others are refused."""
    merge_km: float = Field(13.4, ge=0)
    """Great-circle distance within which a city is a suburb of a larger one."""


def read(options: Options, raw: Path) -> Source:
    """Every view, grouped by place, with the attribute ``city``, the city it counts for, and ``suburb``, its own.

    Raises:
        UserError: A file or folder is missing or wrong.
    """
    import pyarrow as pa

    folder = raw / options.images
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected folders such as Leeds+53.79648,-1.54785")
    cities = merged(read_csv(raw / options.labels, COLUMNS), options)
    rows = _rows(options, folder, cities)
    schema = pa.schema([("city", pa.string()), ("suburb", pa.string())])
    return Source(without(listed(rows, Folder(folder), options.labels), options.takedown), schema)


def merged(table: "pd.DataFrame", options: Options) -> dict[str, str]:
    """The city that each of the most populous cities counts for.

    Raises:
        UserError: A city has no coordinates or inhabitants.
    """
    values = np.stack([numbers(table[name]) for name in COLUMNS[1:]], axis=1)
    wrong = ~np.isfinite(values).all(axis=1)
    if wrong.any():
        row = table.index[wrong][0]
        raise UserError(f"{options.labels} row {row}: expected numbers in {', '.join(COLUMNS[1:])}")
    order = np.lexsort((table["city"].to_numpy(), -values[:, 2]))[: options.cities]
    names, places = table["city"].to_numpy()[order].tolist(), values[order, :2]
    homes: list[int] = []
    found: dict[str, str] = {}
    for row, name in enumerate(names):
        away = haversine_km(places[row, 0], places[row, 1], places[homes, 0], places[homes, 1])
        if len(homes) and away.min() < options.merge_km:
            found.setdefault(name, names[homes[int(away.argmin())]])
        else:
            homes.append(row)
            found.setdefault(name, name)
    return found


def _rows(options: Options, folder: Path, cities: dict[str, str]) -> Iterator[Row | Refusal]:
    for path in Folder(folder).names():
        home, _, file = path.rpartition("/")
        place, view = PLACE.fullmatch(home), VIEW.fullmatch(file)
        if place is None or view is None or int(view["heading"]) >= 360:
            continue  # no row: refused as a file that nothing names
        latitude, longitude = float(place["latitude"]), float(place["longitude"])
        wrong = place_flaw(latitude, longitude)
        flaw = (Reason.BAD_COORDINATES, wrong) if wrong else None
        if place["city"] not in cities:
            flaw = (Reason.EXCLUDED, f"{place['city']} is not among the {options.cities} cities of {options.labels}")
        spot = f"{latitude},{longitude}"
        photo = Photo(
            image_id=path,
            data=b"",
            path=path,
            group_id=spot,
            place_id=spot,
            latitude=latitude,
            longitude=longitude,
            flaw=flaw,
            licence=options.licence,
            attributes={"city": cities.get(place["city"]), "suburb": place["city"]},
            **said_of(path, view["heading"], view["month"]),
        )
        yield Row(photo, (path,), options.labels)


def write(world: Simulation, folder: Path, options: Options) -> None:
    """Rendered views of places near British cities; the more views of a city, the more populous it is said to be."""
    cities: dict[str, tuple[float, float]] = {}
    views: Counter[str] = Counter()
    for shot in world.shots:
        views[shot.city] += 1
        cities.setdefault(shot.city, (shot.latitude, shot.longitude))
        place = f"{shot.city}+{shot.latitude},{shot.longitude}"
        save(folder / options.images / place / f"{shot.heading}_{shot.moment:%Y-%m}.jpg", shot.jpeg)
    with csv_table(folder / options.labels, COLUMNS) as table:
        table.writerows((name, *place, 1000 * views[name]) for name, place in cities.items())
