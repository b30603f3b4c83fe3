"""G³, geolocation via guidebook grounding: panoramas cut in four, and the clues of a guidebook.

Under ``dataset/``: ``<split>/<split>.csv`` names the views ``<pano_id>_<k>.png``, with LAT and LON where known;
``<split>/images/`` has the views or ``<split>/panos/<pano_id>.jpg`` what they are cut from. ``guidebook.json`` lists
the clues, ``pseudo_labels/countries.json`` says by their positions which ones a view shows, ``s2_cells/countries.csv``
and ``loss_weight/countries.json`` have the classes and their weights. Panoramas are published as ids only.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from geoloc_core import pictures
from geoloc_core.corpora.countries import iso3, names
from geoloc_core.corpora.listing import Files, Folder, Row, listed, unnamed
from geoloc_core.corpora.on_disk import Shelf
from geoloc_core.corpora.panorama import perspective
from geoloc_core.corpora.photo import (
    Flaw,
    Photo,
    Reason,
    Refusal,
    Source,
    SourceOptions,
    locate,
    numbers,
    without,
)
from geoloc_core.corpora.simulated import Plan, Simulation, csv_table, png, save
from geoloc_core.corpora.sources.streetview import pano_id
from geoloc_core.corpora.tables import csv_chunks, read_csv
from geoloc_core.errors import UserError
from geoloc_core.files import read_json
from geoloc_core.pictures import MAX_MEGAPIXELS, PictureError

SPLITS = ("train", "val", "test")
YAWS = (45, 135, 225, 315)
PITCH, HFOV, SIZE = -15, 90, (1024, 768)
"""How the authors cut their panoramas: degrees, and pixels across and down."""
LIMIT = 2**31
"""Whole numbers of attributes are below."""
PLAN = Plan("street", YAWS)


class Options(SourceOptions):
    """Where the data set is."""

    kind: Literal["g3_guidebook"]
    root: str = "dataset"
    """Folder of the data set."""


class Named(BaseModel):
    """A place that a clue names."""

    Country: Any


class Clue(BaseModel):
    """A clue of the guidebook, of which the places alone are read."""

    geoparsed: list[Named]


Position = Annotated[int, Field(strict=True, lt=LIMIT)]
Weight = Annotated[float, Field(strict=True, allow_inf_nan=False)]


@dataclass(frozen=True)
class Guidebook:
    """What is known of the views beside where they were taken.

    Attributes:
        clues: Positions in the guidebook of what each view shows.
        countries: The only country that each clue names; None where it names none or many.
        classes: Class of each country.
        weights: Weight of each class in the loss.
    """

    clues: dict[str, list[int]]
    countries: list[str | None]
    classes: dict[str, int]
    weights: list[float]

    def country(self, view: str) -> str | None:
        """The country of a view: that of the first of its clues which names exactly one."""
        found = (self.countries[clue] for clue in self.clues.get(view, []) if clue < len(self.countries))
        return next((name for name in found if name), None)


def read(options: Options, raw: Path) -> Source:
    """Training, validation and test views in this order, grouped by panorama.

    A view without coordinates has the country of its clues.

    Raises:
        UserError: A file is missing or wrong.
    """
    import pyarrow as pa

    root = raw / options.root
    tables = {split: root / split / f"{split}.csv" for split in SPLITS if (root / split).is_dir()}
    if not tables:
        raise UserError(f"{root}: no folder train, val or test; expected the data set's splits")
    book = _guidebook(root)
    items = (item for split, path in tables.items() for item in _split(options, root, split, path, book))
    schema = pa.schema(
        [
            ("published_split", pa.string()),
            ("pano_id", pa.string()),
            ("yaw", pa.int32()),
            ("clues", pa.list_(pa.int32())),
            ("country", pa.string()),
            ("gid_0", pa.string()),
            ("class_label", pa.int32()),
            ("loss_weight", pa.float64()),
        ]
    )
    return Source(without(_once(items), options.takedown), schema)


def _once(items: Iterator[Photo | Refusal]) -> Iterator[Photo | Refusal]:
    met = Shelf()
    for item in items:
        if isinstance(item, Photo) and met.first(item.image_id) is not None:
            yield Refusal(item.image_id, Reason.DUPLICATE, "IMG_ID occurred before, in this split or another")
        else:
            yield item


def _guidebook(root: Path) -> Guidebook:
    book = _published(root / "guidebook.json", list[Clue], "[{geoparsed: [{Country: …}]}]") or []
    shape = dict[str, list[list[Position]] | None]
    labels = _published(root / "pseudo_labels/countries.json", shape, "{IMG_ID: [[position of a clue, …]]}") or {}
    weights = _published(root / "loss_weight/countries.json", list[list[Weight]], "[[weight, …]]") or [[]]
    return Guidebook(
        {view: [clue for clue in parts[0] if clue >= 0] for view, parts in labels.items() if parts},
        [_only(clue) for clue in book],
        _classes(root / "s2_cells/countries.csv"),
        weights[0],
    )


def _classes(path: Path) -> dict[str, int]:
    """The class of each country; none where the table is not there."""
    if not path.exists():
        return {}
    table = read_csv(path, ("class_label", "country"))
    values = numbers(table["class_label"])
    wrong = values.isna() | values.mod(1).ne(0) | values.abs().ge(LIMIT)
    if wrong.any():
        row = wrong.idxmax()
        raise UserError(
            f"{path}: row {row}, column class_label: expected a whole number, got {table.at[row, 'class_label']!r}"
        )
    return dict(zip(table["country"], values.astype(int).tolist(), strict=True))


def _published(path: Path, shape: Any, shown: str) -> Any:
    """What a file holds; None where it is not there, as only the views are needed."""
    return read_json(path, f"expected {shown}; fetch it again", shape) if path.exists() else None


def _only(clue: Clue) -> str | None:
    """The country that a clue names, if it is one alone."""
    countries = {str(place.Country) for place in clue.geoparsed}
    return countries.pop() if len(countries) == 1 else None


def _split(options: Options, root: Path, split: str, path: Path, book: Guidebook) -> Iterator[Photo | Refusal]:
    views, panoramas = Folder(root / split / "images"), Folder(root / split / "panos")
    uncut = Files(panoramas.names())
    yield from listed(_rows(options, split, path, book, Files(views.names()), uncut, panoramas), views, path.name)
    yield from unnamed(uncut, path.name)


def _rows(
    options: Options, split: str, path: Path, book: Guidebook, views: Files, uncut: Files, panoramas: Folder
) -> Iterator[Row | Photo | Refusal]:
    """Each row, or its view as it is cut from a panorama where there is no file of it."""
    cutter, found = Cutter(panoramas), Shelf()
    for number, name, place in _places(path):
        where = f"{path.name} row {number}"
        pano, _, turn = name.rpartition("_")
        turn = turn.partition(".")[0]
        if not pano or turn not in ("0", "1", "2", "3"):
            yield Refusal(name.strip() or where, Reason.BAD_ROW, f"{where}: not named <pano_id>_<0…3>.png")
            continue
        photo = _photo(options, split, name, pano, int(turn), place, book)
        panorama = f"{pano}.jpg"
        if uncut.take([panorama]) is not None:
            found.first(panorama)
        if panorama not in found or views.holds([name]):
            absent = Reason.MISSING, f"in {where}, but there is neither the view nor its panorama"
            yield Row(photo, (name,), where, absent=absent)
            continue
        data = cutter.cut(panorama, int(turn))
        yield replace(photo, data=data) if isinstance(data, bytes) else Refusal(name, *data)


def _places(path: Path) -> Iterator[tuple[int, str, dict[Any, Any]]]:
    for table in csv_chunks(path, ("IMG_ID",)):
        placed = {"LAT", "LON"} <= set(table.columns)
        places = locate(table, "LAT", "LON", path.name).to_dict("records") if placed else [{}] * len(table)
        yield from zip(table.index, table["IMG_ID"], places, strict=True)


def _photo(
    options: Options, split: str, name: str, pano: str, turn: int, place: dict[Any, Any], book: Guidebook
) -> Photo:
    country = book.country(name)
    label = book.classes.get(country) if country else None
    unplaced = not place or (place["flaw"] is not None and place["flaw"][0] is Reason.NO_COORDINATES)
    gid = iso3(country) if country else None
    return Photo(
        image_id=name,
        data=b"",
        path=name,
        group_id=pano,
        place_id=pano,
        latitude=None if unplaced else place["latitude"],
        longitude=None if unplaced else place["longitude"],
        flaw=None if unplaced else place["flaw"],
        licence=options.licence,
        attributes={
            "published_split": split,
            "pano_id": pano,
            "yaw": YAWS[turn],
            "clues": book.clues.get(name, []),
            "country": country,
            "gid_0": gid,
            "class_label": label,
            "loss_weight": book.weights[label] if label is not None and 0 <= label < len(book.weights) else None,
        },
        # What has neither coordinates nor a country that a clue names is of no use.
        placeless=unplaced and gid is not None,
    )


class Cutter:
    """Cuts views out of panoramas; the last panorama is kept, as its four views follow each other."""

    def __init__(self, panoramas: Folder) -> None:
        self._panoramas, self._name = panoramas, ""
        self._panorama: Any = None

    def cut(self, name: str, turn: int) -> bytes | Flaw:
        """View ``turn``, 0 to 3, of a panorama as a PNG; or why there is none."""
        from PIL import Image

        if name != self._name:
            self._name, self._panorama = name, self._open(name)
        if isinstance(self._panorama, tuple):
            return self._panorama
        stream = BytesIO()
        Image.fromarray(perspective(self._panorama, YAWS[turn], PITCH, HFOV, *SIZE)).save(stream, "PNG")
        return stream.getvalue()

    def _open(self, name: str) -> Any:
        import numpy as np

        data = self._panoramas.load(name)
        if not isinstance(data, bytes):
            return data
        try:
            with pictures.opened(data, MAX_MEGAPIXELS * 1e6) as image:
                return np.asarray(pictures.rgb(image))
        except PictureError as error:
            return Reason(error.fault), f"panorama {name}: {error}"


def write(world: Simulation, folder: Path, options: Options) -> None:
    """Rendered views as cuts of panoramas; of five places three are for training, one each to validate and test."""
    root = folder / options.root
    book = [
        {"CLUE_ID": clue["clue_id"], "text": clue["text"], "geoparsed": [{"Country": names()[clue["country"]]}]}
        for clue in world.clues
    ]
    by_country: dict[str, list[int]] = {}
    for number, clue in enumerate(world.clues):
        by_country.setdefault(clue["country"], []).append(number)
    known = sorted(names()[code] for code in by_country)
    rows: dict[str, list[tuple[Any, ...]]] = {split: [] for split in SPLITS}
    labels = {}
    for shot in world.shots:
        split = ("train", "train", "train", "val", "test")[shot.spot % 5]
        view = f"{pano_id(shot.author, shot.spot)}_{YAWS.index(shot.heading or 0)}.png"
        rows[split].append((view, shot.latitude, shot.longitude))
        labels[view] = [by_country.get(shot.country, [])[:3]]
        save(root / split / "images" / view, png(shot.jpeg))
    for split, views in rows.items():
        with csv_table(root / split / f"{split}.csv", ("IMG_ID", "LAT", "LON")) as table:
            table.writerows(views)
    with csv_table(root / "s2_cells/countries.csv", ("class_label", "hex_id", "country")) as table:
        table.writerows((number, "", name) for number, name in enumerate(known))
    for path, value in (
        ("guidebook.json", book),
        ("pseudo_labels/countries.json", labels),
        ("loss_weight/countries.json", [[1.0] * len(known)]),
    ):
        save(root / path, json.dumps(value, ensure_ascii=False).encode())
