"""GeoguessrLSTM's views of the contiguous US: a folder per place, named by its square of a grid and its coordinates.

``<square>+<latitude>,<longitude>/<heading>_<YYYY-MM>.jpg``, or as they were before they were combined,
``<square>/<latitude>,<longitude>/<heading>_<YYYY-MM>.jpg``. The lists of training and test places are NumPy arrays
of the folders' names.
"""

import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from geoloc_core.corpora.decode import not_a_photo
from geoloc_core.corpora.on_disk import Shelf, files_on
from geoloc_core.corpora.photo import (
    Photo,
    Reason,
    Refusal,
    Source,
    SourceOptions,
    load,
    place_flaw,
    printable,
    said_of,
    without,
)
from geoloc_core.corpora.simulated import Plan, Shot, Simulation, save
from geoloc_core.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

NUMBER = r"-?[0-9]{1,3}(?:\.[0-9]{1,20})?"
PLACE = re.compile(rf"(?P<square>[0-9]{{1,9}})[+/](?P<latitude>{NUMBER}),(?P<longitude>{NUMBER})", re.ASCII)
VIEW = re.compile(r"(?P<heading>[0-9]{1,3})_(?P<month>[0-9]{4}-(?:0[1-9]|1[0-2]))\.[A-Za-z]+", re.ASCII)
PLAN = Plan("street", (0, 90, 180), country="US", within=(25.0, -124.7, 49.3, -67.0))
DEGREES = 1.6
"""Side of a square of the simulated grid; the published one is a list of polygons."""


class Options(SourceOptions):
    """Where the folders and lists are."""

    kind: Literal["us_grid"]
    images: str = "dataCombined"
    """Folder of the places' folders; ``.`` for the raw folder itself."""
    train: str | None = "trainFiles.npy"
    """Array of the training places' folder names, read if it is there."""
    test: str | None = "testFiles.npy"
    """Array of the test places' folder names, read if it is there."""


def read(options: Options, raw: Path) -> Source:
    """Every view, grouped by place.

    The attributes are the ``square`` and the ``published_split``, train or test, where a list names the place.

    Raises:
        UserError: The folder is missing, none of its folders is named like a place, or a list is not an array of text.
    """
    lists = {options.train, options.test}
    sides = dict.fromkeys(_list(raw, options.train), "train")
    sides |= dict.fromkeys(_list(raw, options.test), "test")

    def attributes(place: re.Match[str]) -> dict[str, Any]:
        key = f"{place['square']}+{place['latitude']},{place['longitude']}"
        return {"square": number(place), "published_split": sides.get(key)}

    files = views_under(raw / options.images, lists)
    items = views(options, raw / options.images, files, attributes)
    return Source(without(items, options.takedown), _schema(), len(files))


def views_under(root: Path, others: Collection[str | None]) -> Shelf:
    """Every file but the known others below a folder of places' folders.

    Raises:
        UserError: The folder is missing, or none of its folders is a place's.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; expected folders such as 0+40.529828,-124.268035")
    files = files_on(root, others)
    if not any(PLACE.fullmatch(path.rpartition("/")[0]) for path in files):
        shown = printable(next(iter(files))) if len(files) else "it is empty"
        raise UserError(
            f"{root}: no folder is named like a place ({shown}); expected names such as 0+40.529828,-124.268035"
        )
    return files


def number(place: re.Match[str]) -> int:
    """The square that a folder's name states."""
    return min(int(place["square"]), 2**31 - 1)


def _schema() -> "pa.Schema":
    import pyarrow as pa

    return pa.schema([("square", pa.int32()), ("published_split", pa.string())])


def _list(raw: Path, name: str | None) -> list[str]:
    import numpy as np

    path = raw / str(name)
    if name is None or not path.exists():
        return []
    try:
        # Never unpickled: a list that someone published could run anything.
        names = np.load(path, allow_pickle=False)
    except Exception as error:  # NumPy parses the header as Python and raises whatever that leads to, addresses too
        raise UserError(f"{path}: not a NumPy array of text ({type(error).__name__}); expected one") from None
    if not isinstance(names, np.ndarray) or names.dtype.kind != "U":
        raise UserError(f"{path}: not an array of text; expected the names of places' folders")
    return [text.rstrip("/").rpartition("/")[2] for text in names.ravel().tolist()]


def views(
    options: SourceOptions, root: Path, files: Iterable[str], attributes: Callable[[re.Match[str]], dict[str, Any]]
) -> Iterator[Photo | Refusal]:
    """Each file as a view of its place, or why it is none.

    Args:
        options: Those of the corpus.
        root: Folder of the places' folders.
        files: Paths relative to it.
        attributes: What the corpus says of a place, given the match of :data:`PLACE`.
    """
    for path in files:
        name = printable(path)
        folder, _, file = path.rpartition("/")
        place, view = PLACE.fullmatch(folder), VIEW.fullmatch(file)
        wrong = not_a_photo(path)
        if wrong:
            yield Refusal(name, Reason.NOT_A_PHOTO, wrong)
        elif place is None:
            yield Refusal(name, Reason.NO_METADATA, "the folder is not named <square>+<latitude>,<longitude>")
        elif view is None or int(view["heading"]) >= 360:
            yield Refusal(name, Reason.NO_METADATA, "the file is not named <heading>_<YYYY-MM>.jpg")
        else:
            data = load(root, path)
            if isinstance(data, bytes):
                yield _photo(options, name, data, place, view, attributes(place))
            else:
                yield Refusal(name, *data)


def _photo(
    options: SourceOptions, name: str, data: bytes, place: re.Match[str], view: re.Match[str], said: dict[str, Any]
) -> Photo:
    latitude, longitude = float(place["latitude"]), float(place["longitude"])
    wrong = place_flaw(latitude, longitude)
    return Photo(
        image_id=name,
        data=data,
        path=name,
        group_id=f"{place['latitude']},{place['longitude']}",
        latitude=latitude,
        longitude=longitude,
        flaw=(Reason.BAD_COORDINATES, wrong) if wrong else None,
        licence=options.licence,
        attributes=said,
        **said_of(name, view["heading"], view["month"]),
    )


def write(world: Simulation, folder: Path, options: Options) -> None:
    """Rendered views of places in the contiguous US; every fifth place is on the list of test places."""
    import numpy as np

    sides: tuple[dict[str, None], dict[str, None]] = ({}, {})
    for shot in world.shots:
        place = f"{square(shot, PLAN, DEGREES)}+{shot.latitude:.6f},{shot.longitude:.6f}"
        sides[shot.spot % 5 == 4][place] = None
        save(folder / options.images / place / f"{shot.heading}_{shot.moment:%Y-%m}.jpg", shot.jpeg)
    for name, places in zip((options.train, options.test), sides, strict=True):
        if name:
            _save_list(folder / name, np.array(list(places), dtype=np.str_))


def _save_list(path: Path, names: "np.ndarray") -> None:
    import numpy as np

    with path.open("wb") as stream:
        np.save(stream, names, allow_pickle=False)


def square(shot: Shot, plan: Plan, degrees: float) -> int:
    """The number of a shot's square, from the southwest, in rows of squares of so many degrees."""
    south, west, _, east = plan.within
    row, column = (int(away / degrees) for away in (shot.latitude - south, shot.longitude - west))
    return row * math.ceil((east - west) / degrees) + column
