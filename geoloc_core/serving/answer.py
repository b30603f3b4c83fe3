"""An answer for people and programs: a table, JSON or CSV, the same rows in each."""

import glob
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from geoloc_core import escape, progress
from geoloc_core.contracts.facts import UNITS
from geoloc_core.contracts.prediction import Prediction
from geoloc_core.errors import UserError
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.pictures import FORMATS, MAX_MEGAPIXELS, PictureError, opened, quiet_pillow, rgb
from geoloc_core.report import render
from geoloc_core.report.table import Column, Row, Table

EXPECTED = "expected a JPEG, HEIC, PNG, WebP, AVIF or TIFF photo"
REMEDIES = {
    "too_large": "scale it down",
    "no_range": "save it with 8 or 16 bits",
}
COLUMNS = ("photo", "rank", "id", "name", "probability", "latitude", "longitude", "error")


def rows(
    prediction: Prediction,
    space: LabelSpace,
    photos: Sequence[str] | None = None,
    countries: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """One row per photo and place, best first.

    Args:
        prediction: Of N photos.
        space: The model's classes.
        photos: N names; their positions where there are none.
        countries: Names of countries by code, for the places in them; a code that has none stands for itself.
    """
    names = photos if photos is not None else range(len(prediction))
    return [
        {
            "photo": name,
            "rank": rank + 1,
            "id": space.ids[place],
            "name": _name(space, place, countries or {}),
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
        if piece  # a photo may have fewer than others
    ]


def told(prediction: Prediction, photos: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """What is told beside the places, a row per photo and fact, for people; none where the model tells nothing else.

    Args:
        prediction: Of N photos.
        photos: N names; their positions where there are none.
    """
    names = photos if photos is not None else range(len(prediction))
    return [
        {"photo": name, "fact": fact, **_fact(fact, float(values[row]))}
        for row, name in enumerate(names)
        for fact, values in prediction.auxiliary.items()
    ]


def _fact(fact: str, value: float) -> dict[str, Any]:
    """The value of a fact and its unit; of a class, its name."""
    from geoloc_core.geo.rasters import KOPPEN_BECK
    from geoloc_core.training.captions import MONTHS

    match fact:
        case "climate":
            return {"value": KOPPEN_BECK[int(value)], "unit": ""}
        case "month":
            return {"value": MONTHS[int(value) - 1], "unit": ""}
    return {"value": round(value, 1), "unit": UNITS.get(fact, "")}  # type: ignore[call-overload]


def _name(space: LabelSpace, place: int, countries: Mapping[str, str]) -> str:
    parent = space.parents[place]
    return f"{space.names[place]}, {countries.get(parent, parent)}" if parent else space.names[place]


def as_json(
    table: list[dict[str, Any]],
    model: dict[str, Any],
    pieces: list[dict[str, Any]],
    facts: Sequence[dict[str, Any]] = (),
) -> str:
    """JSON: the model, the rows, the evidence, and what else is told if anything is, as they are."""
    found = {"model": model, "places": table, "evidence": pieces} | ({"facts": list(facts)} if facts else {})
    return escape.json(json.dumps(found, indent=2, ensure_ascii=False))


def as_csv(table: list[dict[str, Any]]) -> str:
    """CSV with a header, and the names as they are."""
    return render.csv(
        Table(tuple(map(Column, COLUMNS)), tuple(Row.of(*(line.get(name) for name in COLUMNS)) for line in table))
    )


def photos_at(paths: Sequence[Path]) -> list[Path]:
    """The photos that paths name: a folder stands for the photos in it and in its folders, a pattern for what it fits.

    Raises:
        UserError: A folder or a pattern names no photo.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in FORMATS and file.is_file())
        elif not path.exists() and glob.has_magic(str(path)):
            inside = [Path(name) for name in sorted(glob.glob(str(path), recursive=True)) if Path(name).is_file()]
        else:
            inside = [path]
        if not inside and path.is_dir():
            raise UserError(f"{path}: no photos in it; expected files such as .jpg, .png or .heic")
        if not inside:
            raise UserError(f"{path}: no such file; expected a photo")
        found += inside
    return list(dict.fromkeys(found))


def read_photos(paths: Sequence[Path]) -> list[bytes]:
    """The photos at N paths, checked before any model is opened.

    Raises:
        UserError: One is missing, is a folder, or is not a photo.
    """
    return [read_photo(path) for path in paths]


def read_photo(path: Path) -> bytes:
    """A photo as its file has it, once it is known that it can be decoded.

    Raises:
        UserError: It is missing, is a folder, or is not a photo.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a photo")
    try:
        photo = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; expected a readable photo") from None
    try:
        with quiet_pillow(), opened(photo, MAX_MEGAPIXELS * 1e6) as image:
            rgb(image)
    except PictureError as error:
        raise UserError(f"{path}: not a readable photo: {error}; {REMEDIES.get(error.fault, EXPECTED)}") from None
    return photo


def read_each(paths: Sequence[Path]) -> tuple[dict[Path, bytes], dict[Path, str]]:
    """The photos at paths that can be read, and of the others what is wrong."""
    photos: dict[Path, bytes] = {}
    wrong: dict[Path, str] = {}
    for path in paths:
        try:
            photos[path] = read_photo(path)
        except UserError as error:
            wrong[path] = str(error).removeprefix(f"{path}: ")
    return photos, wrong


def errors(wrong: Mapping[Path, str]) -> list[dict[str, Any]]:
    """A row for each photo that could not be read: no place, but what is wrong."""
    return [{**dict.fromkeys(COLUMNS), "photo": str(path), "error": said} for path, said in wrong.items()]


def _shown(line: dict[str, Any]) -> Row:
    if line.get("error"):
        return Row.of(Path(str(line["photo"])).name, None, line["error"], None, None, None, tone="strong")
    first = line["rank"] == 1
    photo = Path(str(line["photo"])).name if first else ""
    place = f"{line['name']} ({line['id']})"
    figures = (line[name] for name in ("probability", "latitude", "longitude"))
    return Row.of(photo, line["rank"], place, *figures, tone="strong" if first else "")


def show(
    table: list[dict[str, Any]],
    model: dict[str, Any],
    pieces: list[dict[str, Any]],
    facts: Sequence[dict[str, Any]] = (),
) -> None:
    """Print the places of every photo as a table on the output stream, and what the first answers rest on."""
    heads = (
        Column("photo"),
        Column.of_numbers("rank"),
        Column("place"),
        Column.of_numbers("probability", ".1%"),
        Column.of_numbers("latitude", ".3f"),
        Column.of_numbers("longitude", ".3f"),
    )
    console = progress.output()
    console.print(render.terminal(Table(heads, tuple(map(_shown, table)))))
    console.print()
    for piece in pieces:
        where = f"{Path(str(piece['photo'])).name}: " if len({row["photo"] for row in table}) > 1 else ""
        console.print(progress.plain(f"{where}{piece['kind']} {piece['weight']:.2f}  {piece['text']}"))
    for fact in facts:
        where = f"{Path(str(fact['photo'])).name}: " if len({row["photo"] for row in table}) > 1 else ""
        console.print(
            progress.plain(f"{where}{fact['fact'].replace('_', ' ')}  {fact['value']} {fact['unit']}".rstrip())
        )
    if pieces or facts:
        console.print()
    console.print(progress.plain(f"{model['name']} version {model['version']}: {model['variant']}", "dim"))
    if model["demo"]:
        console.print("Demo model: it has seen rendered photos only. Do not trust it with real ones.", style="yellow")
