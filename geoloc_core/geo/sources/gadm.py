"""GADM 4.1 (gadm.org): the world's ``gadm_410-levels.gpkg``, or files of single countries.

Free for academic and other non-commercial use; never redistributed: what is downloaded stays in ``.state/``.

The files are taken as they are, and their oddities with them: "NA" and "?" are not names; a level that a country does
not have comes as empty ids; disputed areas are countries of their own (``Z01`` … ``Z09``) named after their claimant,
so their code is added to the name; the JSON files of single countries have lost the spaces in names
(``UnitedKingdom``), which come back where that is certain.
"""

import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from geoloc_core import progress
from geoloc_core.errors import UserError
from geoloc_core.files import replacing
from geoloc_core.geo import names, vectors
from geoloc_core.pins import Sha256
from geoloc_core.plugins import Strict

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

APPROXIMATE = False
URL = "https://geodata.ucdavis.edu/gadm/gadm4.1/gadm_410-levels.zip"
OPTIONAL = {0: [], 1: ["ISO_1", "VARNAME_1"], 2: ["VARNAME_2"]}
NAMES = {0: ["COUNTRY"], 1: ["COUNTRY", "NAME_1"], 2: ["COUNTRY", "NAME_1", "NAME_2"]}
OUT = {0: vectors.COLUMNS[0], 1: [*vectors.COLUMNS[1], "ISO_1"], 2: vectors.COLUMNS[2]}
EMPTY = ("NA", "?", "")
OF_A_COUNTRY = re.compile(r"_([012])\.(json|geojson)(\.zip)?$")
"""The end of the name of a country's JSON file, which says its level."""
LICENCE = (
    "GADM is free for academic and other non-commercial use, and must not be redistributed (gadm.org/license.html)"
)


class Options(Strict):
    """Where the files are or come from, and that their licence was read."""

    kind: Literal["gadm"]
    path: Path | tuple[Path, ...] | None = None
    """``gadm_410-levels.gpkg``; a country's GeoPackage or ``gadm41_XXX_N.json``, several of them, or a folder of them.

    Relative to the project. Left out, the world's file is downloaded.
    """
    url: str = URL
    """What is downloaded if there is no ``path``: a zip archive with the GeoPackage."""
    size: int | None = Field(None, gt=0)
    """Bytes of the download, where known."""
    sha256: Sha256 | None = None
    """Checksum of the download; without one, that of the first download is printed. Required for files of your own."""
    accept_licence: bool = False
    """Confirms that the use is academic or otherwise non-commercial, and that nothing is redistributed."""


def read(options: Options, root: Path) -> "dict[int, GeoDataFrame]":
    """Countries and up to two levels of subdivisions.

    Raises:
        UserError: The licence was not accepted, or a file is missing, broken or not the expected one.
    """
    if not options.accept_licence:
        raise UserError(
            f"boundaries.accept_licence: false; {LICENCE}: set it to true if that is your use, or use natural_earth"
        )
    frames: dict[int, list[GeoDataFrame]] = {}
    paths = files(options, root) or [_fetch(options, root / ".state" / "downloads")]
    for path, level, layer in _layers(paths):
        frames.setdefault(level, []).append(_read(path, level, layer))
    lost = [level for level in range(max(frames)) if level not in frames]
    if lost:
        raise UserError(
            f"boundaries.path: no file of level {lost[0]}; expected gadm41_XXX_{lost[0]}.json next to the others"
        )
    return _marked({level: _joined(frames[level], level) for level in sorted(frames)})


def files(options: Options, root: Path) -> list[Path]:
    """The files that ``path`` names, in a stable order; none where they are downloaded.

    Raises:
        UserError: A folder has no such file.
    """
    if options.path is None:
        return []
    given = options.path if isinstance(options.path, tuple) else (options.path,)
    found: list[Path] = []
    for path in (root / part for part in given):
        inside = (
            [p for p in path.iterdir() if p.suffix == ".gpkg" or OF_A_COUNTRY.search(p.name)]
            if path.is_dir()
            else [path]
        )
        if not inside:
            raise UserError(f"{path}: no GADM file; expected gadm_410-levels.gpkg or gadm41_XXX_0.json and so on")
        found += sorted(inside)
    return found


def _fetch(options: Options, folder: Path) -> Path:
    """The GeoPackage of the published archive, downloaded once."""
    from geoloc_core.download import download

    progress.say(f"boundaries: {LICENCE}; accepted in the parameters")
    archive = folder / options.url.rsplit("/", 1)[-1]
    digest = download(options.url, archive, options.size, options.sha256)
    if options.sha256 is None:
        progress.say(f"boundaries: {archive.name} has sha256 {digest}; put it in boundaries.sha256 to pin it")
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [name for name in opened.namelist() if name.endswith(".gpkg")]
            if len(members) != 1:
                raise UserError(f"{archive}: contains {len(members)} GeoPackages; expected one")
            target = folder / digest[:12] / Path(members[0]).name
            if not target.exists():
                with replacing(target) as aside, opened.open(members[0]) as packed, aside.open("wb") as out:
                    shutil.copyfileobj(packed, out, 1 << 20)
    except (zipfile.BadZipFile, zlib.error):
        raise UserError(
            f"{archive}: not a zip archive; expected the one from {options.url}: delete it and run again"
        ) from None
    return target


def _layers(paths: list[Path]) -> Iterator[tuple[Path, int, str | None]]:
    """The layers of levels 0 to 2 of the files: path, level and name of each."""
    for path in paths:
        level = OF_A_COUNTRY.search(path.name)
        if level:
            yield path, int(level[1]), None
            continue
        found = vectors.layers(path)
        # A country's file says ADM_ADM_0 where the world's says ADM_0.
        prefix = "ADM_ADM_" if "ADM_ADM_0" in found else "ADM_"
        yield path, 0, f"{prefix}0"
        yield from ((path, n, f"{prefix}{n}") for n in (1, 2) if f"{prefix}{n}" in found)


def _read(path: Path, level: int, layer: str | None) -> "GeoDataFrame":
    frame = vectors.read(path, vectors.COLUMNS[level], layer, OPTIONAL[level])
    text = [*vectors.COLUMNS[level], *OPTIONAL[level]]
    frame[text] = frame[text].replace(dict.fromkeys(EMPTY))
    # GADM fills levels that a country does not have with empty ids: the level above stands for them.
    frame = frame[frame[f"GID_{level}"].notna()]
    if path.suffix != ".gpkg" and names.stripped(frame[NAMES[level]].to_numpy().ravel()):
        frame = _spaced(frame, level)
    return frame[[*OUT[level], "geometry"]]


def _spaced(frame: "GeoDataFrame", level: int) -> "GeoDataFrame":
    """The same rows, the spaces back in their names."""
    import pandas as pd

    known = names.known_names(frame["GID_0"])
    variants = [v for n in OPTIONAL[level] if n.startswith("VARNAME") for v in "|".join(frame[n].dropna()).split("|")]
    spaced = frame.copy()
    for gid, rows in frame.groupby("GID_0", sort=False).groups.items():
        for column in NAMES[level]:
            restored = names.restore(frame.loc[rows, column].tolist(), [*variants, *known.get(str(gid), [])])
            spaced.loc[rows, column] = pd.Series(restored, index=rows, dtype=object)
    return spaced


def _joined(frames: "list[GeoDataFrame]", level: int) -> "GeoDataFrame":
    import pandas as pd

    return vectors.dissolve(pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0], f"GID_{level}")


def _marked(levels: "dict[int, GeoDataFrame]") -> "dict[int, GeoDataFrame]":
    """The same units, disputed areas told apart from the country whose name they bear, at every level alike."""
    if 0 not in levels:
        return levels
    disputed = levels[0][levels[0]["GID_0"].str.fullmatch(r"Z\d\d")]
    marks = {gid: f"{name or gid} ({gid})" for gid, name in zip(disputed["GID_0"], disputed["COUNTRY"], strict=True)}
    return {n: f.assign(COUNTRY=f["GID_0"].map(marks).fillna(f["COUNTRY"])) for n, f in levels.items()}
