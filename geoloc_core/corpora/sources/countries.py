"""A folder per country, as *Geolocation – Geoguessr Images (50k)* is published: countries alone, no coordinates."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from geoloc_core.corpora.countries import iso3
from geoloc_core.corpora.decode import not_a_photo
from geoloc_core.corpora.on_disk import files_on
from geoloc_core.corpora.photo import Photo, Reason, Refusal, Source, SourceOptions, load, printable, without
from geoloc_core.corpora.simulated import Plan, Simulation, save
from geoloc_core.errors import UserError
from geoloc_core.progress import say

PLAN = Plan("street", (0,))


class Options(SourceOptions):
    """Where the folders are."""

    kind: Literal["countries"]
    images: str = "compressed_dataset"
    """Folder of the countries' folders; ``.`` for the raw folder itself."""
    names: dict[str, str] = Field(default_factory=dict)
    """Alpha-3 codes of folders that are not named after a country."""


def read(options: Options, raw: Path) -> Source:
    """The photos of all folders that name a country; those of the others are refused, with the folder's name.

    The attribute ``gid_0`` is the country's code in ISO 3166-1 alpha-3, which the labels take over.

    Raises:
        UserError: The folder is missing, or none of its folders names a country.
    """
    import pyarrow as pa

    root = raw / options.images
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; expected one with a folder of photos per country")
    files = files_on(root)
    folders = sorted({path.split("/")[0] for path in files if "/" in path})
    codes = {name: options.names.get(name) or iso3(name) for name in folders}
    unknown = [printable(name) for name, code in codes.items() if code is None]
    if len(unknown) == len(codes):
        shown = ", ".join(unknown[:5]) or "it has no folders"
        raise UserError(f"{root}: no folder is named after a country ({shown}); expected folders such as France")
    if unknown:
        say(f"{root.name}: not names of countries: {', '.join(unknown)}; add them to source.names in params.yaml")
    items = _items(options, root, files, codes)
    return Source(
        without(items, options.takedown), pa.schema([("country", pa.string()), ("gid_0", pa.string())]), len(files)
    )


def _items(
    options: Options, root: Path, files: Iterable[str], codes: dict[str, str | None]
) -> Iterator[Photo | Refusal]:
    for path in files:
        name, folder = printable(path), path.split("/")[0]
        wrong = not_a_photo(path)
        code = codes.get(folder) if "/" in path else None
        if wrong:
            yield Refusal(name, Reason.NOT_A_PHOTO, wrong)
        elif code is None:
            where = (
                f"folder {printable(folder)!r} is not named after a country of ISO 3166"
                if "/" in path
                else "not in a folder"
            )
            yield Refusal(name, Reason.NO_METADATA, where)
        else:
            data = load(root, path)
            if isinstance(data, bytes):
                yield Photo(
                    image_id=name,
                    data=data,
                    path=name,
                    group_id=name,
                    licence=options.licence,
                    attributes={"country": printable(folder), "gid_0": code},
                    placeless=True,
                )
            else:
                yield Refusal(name, *data)


def write(world: Simulation, folder: Path, options: Options) -> None:
    """Rendered views from roads in a folder per country."""
    for shot in world.shots:
        save(folder / options.images / shot.country_name / f"canvas_{shot.number}.jpg", shot.jpeg)
