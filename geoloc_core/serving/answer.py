"""An answer for people and programs: a table, JSON or CSV, the same rows in each."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from geoloc_core import escape, progress
from geoloc_core.contracts.prediction import Prediction
from geoloc_core.errors import UserError
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.pictures import MAX_MEGAPIXELS, PictureError, opened, quiet_pillow, rgb

EXPECTED = "expected a JPEG, HEIC, PNG, WebP, AVIF or TIFF photo"
REMEDIES = {
    "too_large": "scale it down",
    "no_range": "save it with 8 or 16 bits",
}
COLUMNS = ("photo", "rank", "id", "name", "probability", "latitude", "longitude")


def rows(prediction: Prediction, space: LabelSpace, photos: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """One row per photo and place, best first.

    Args:
        prediction: Of N photos.
        space: The model's classes.
        photos: N names; their positions where there are none.
    """
    names = photos if photos is not None else range(len(prediction))
    return [
        {
            "photo": name,
            "rank": rank + 1,
            "id": space.ids[place],
            "name": _name(space, place),
            "probability": round(float(prediction.probabilities[row, rank]), 6),
            "latitude": round(float(prediction.latitudes[row, rank]), 5),
            "longitude": round(float(prediction.longitudes[row, rank]), 5),
        }
        for row, name in enumerate(names)
        for rank, place in enumerate(prediction.classes[row])
    ]


def evidence(
    prediction: Prediction, explain: Callable[[str, str], str], photos: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """What the answers rest on, a row per photo and piece, the weightiest first; none where the model names nothing.

    Args:
        prediction: Of N photos.
        explain: A piece for people, of its kind and id.
        photos: N names; their positions where there are none.
    """
    found = prediction.evidence
    if found is None:
        return []
    names = photos if photos is not None else range(len(prediction))
    return [
        {"photo": name, "kind": found.kind, "id": piece, "text": explain(found.kind, piece), "weight": round(weight, 6)}
        for name, ids, weights in zip(names, found.ids.tolist(), found.weights.tolist(), strict=True)
        for piece, weight in zip(ids, weights, strict=True)
    ]


def _name(space: LabelSpace, place: int) -> str:
    parent = space.parents[place]
    return f"{space.names[place]}, {parent}" if parent else space.names[place]


def as_json(table: list[dict[str, Any]], model: dict[str, Any], pieces: list[dict[str, Any]]) -> str:
    """JSON: the model, the rows, and the evidence, as they are."""
    found = {"model": model, "places": table, "evidence": pieces}
    return escape.json(json.dumps(found, indent=2, ensure_ascii=False))


def as_csv(table: list[dict[str, Any]]) -> str:
    """CSV with a header, and the names as they are.

    A spreadsheet may take one that begins with ``=`` for a formula: import the columns as text there.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue()


def read_photos(paths: Sequence[Path]) -> list[bytes]:
    """The photos at N paths, checked before any model is opened.

    Raises:
        UserError: One is missing, is a folder, or is not a photo.
    """
    photos = []
    for path in paths:
        if not path.is_file():
            raise UserError(f"{path}: no such file; expected a photo")
        try:
            photos.append(path.read_bytes())
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}; expected a readable photo") from None
        try:
            with quiet_pillow(), opened(photos[-1], MAX_MEGAPIXELS * 1e6) as image:
                rgb(image)
        except PictureError as error:
            raise UserError(f"{path}: not a readable photo: {error}; {REMEDIES.get(error.fault, EXPECTED)}") from None
    return photos


def show(table: list[dict[str, Any]], model: dict[str, Any], pieces: list[dict[str, Any]]) -> None:
    """Print the places of every photo as a table on the output stream, and what the first answers rest on."""
    from rich.table import Table

    console = progress.output()
    printed = Table(box=None, pad_edge=False, title_justify="left", header_style="bold")
    printed.add_column("photo", overflow="fold")
    printed.add_column("", justify="right")
    printed.add_column("place", overflow="fold")
    for column in ("probability", "latitude", "longitude"):
        printed.add_column(column, justify="right")
    for row in table:
        first = row["rank"] == 1
        printed.add_row(
            progress.plain(Path(str(row["photo"])).name if first else ""),
            str(row["rank"]),
            progress.plain(f"{row['name']} ({row['id']})"),
            f"{100 * row['probability']:.1f} %",
            f"{row['latitude']:.3f}",
            f"{row['longitude']:.3f}",
            style="bold" if first else "",
        )
    console.print(printed)
    console.print()
    for piece in pieces:
        where = f"{Path(str(piece['photo'])).name}: " if len({row["photo"] for row in table}) > 1 else ""
        console.print(progress.plain(f"{where}{piece['kind']} {piece['weight']:.2f}  {piece['text']}"))
    if pieces:
        console.print()
    console.print(progress.plain(f"{model['name']} version {model['version']}: {model['variant']}", "dim"))
    if model["demo"]:
        console.print("Demo model: it has seen rendered photos only. Do not trust it with real ones.", style="yellow")
