"""Fetching a corpus in its published layout; a module per ``kind``.

Each has ``Options`` with a ``path``, which the pipeline watches, and
``fetch(options, *, name, source, seed, out, partial) -> dict``: writes the folder ``out``, keeps unfinished
work in ``partial``, or finished work to go on from (:mod:`geoloc_core.corpora.again`), and returns the figures of its
summary.
"""

import os
from collections import Counter
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoloc_core import plots
from geoloc_core.corpora.again import AGAIN
from geoloc_core.errors import UserError
from geoloc_core.files import remove, replacing_folder, write_json
from geoloc_core.params import entry
from geoloc_core.plugins import module_of
from geoloc_core.project import Project

if TYPE_CHECKING:
    from PIL.Image import Image

COLUMNS, ROWS, SIDE, TITLE = 4, 2, 128, 24
"""The contact sheet: pictures across and down, the pixels of one, and those above all for the title."""
MAX_PIXELS = 50e6
"""Larger photos are not on the sheet."""
TYPES = 20
"""Of files, that are drawn: the most frequent."""


def fetch(project: Project, name: str) -> None:
    """The stage ``geoloc fetch CORPUS``.

    Raises:
        UserError: There is no such corpus, its files cannot be fetched, or there is no space for them.
    """
    corpus = entry(project.profile.corpora, name, "corpus")
    raw = project.raw(name)
    if os.path.lexists(raw) and not raw.is_dir():
        # Said before a crawl, not after it.
        raise UserError(f"{raw}: not a folder; expected the folder of the corpus' files, or nothing; move it away")
    module = module_of("geoloc_core.corpora.fetch", corpus.fetch.kind)
    options = corpus.fetch
    if isinstance(options.path, Path):
        options = options.model_copy(update={"path": project.root / options.path})
    partial, note = project.partial("fetch", name), project.summary("fetch", name)
    with replacing_folder(raw, own=note.is_file()) as out:
        summary = module.fetch(
            options, name=name, source=corpus.source, seed=project.profile.seed, out=out, partial=partial
        )
        draw(out, corpus.source, project.plot("fetch", name), name)
        write_json(note, summary)  # says whose the folder is, and so is there before it
    if not (partial / AGAIN).exists():
        remove(partial)


def draw(raw: Path, source: Any, path: Path, name: str) -> None:
    """The first photos as a contact sheet; the files by type where there are no photos to show."""
    photos = first_photos(raw, source, COLUMNS * ROWS)
    if not photos:
        return _draw_types(raw, path, name)
    from PIL import Image, ImageDraw

    sheet = Image.new("RGB", (COLUMNS * SIDE, ROWS * SIDE + TITLE), "white")
    plots.write(ImageDraw.Draw(sheet), (2, 4), f"{name}: the first photos", 13)
    for place, photo in enumerate(photos):
        sheet.paste(photo, (place % COLUMNS * SIDE, place // COLUMNS * SIDE + TITLE))
    plots.save(sheet, path)
    return None


def first_photos(raw: Path, source: Any, count: int) -> list["Image"]:
    """The first photos that decode, as squares of :data:`SIDE` pixels; those before the source finds fault."""
    from PIL import ImageOps

    from geoloc_core import pictures
    from geoloc_core.corpora.on_disk import room_on_disk
    from geoloc_core.corpora.photo import Photo

    module, found = module_of("geoloc_core.corpora.sources", source.kind), []
    # What is wrong with the raw folder, and be it in its last row, ingest says better.
    with pictures.quiet_pillow(), suppress(UserError), room_on_disk():
        for item in islice(module.read(source, raw).items, 50 * count):
            if isinstance(item, Photo):
                with suppress(pictures.PictureError), pictures.opened(item.data, MAX_PIXELS, _small) as image:
                    pictures.draft(image, *_small(image))
                    found.append(ImageOps.fit(pictures.upright(image), (SIDE, SIDE)))
            if len(found) == count:
                break
    return found


def _small(_: Any) -> tuple[int, int]:
    return SIDE, SIDE


def _draw_types(raw: Path, path: Path, name: str) -> None:
    from geoloc_core.corpora.fetch.files import by_suffix

    counts = Counter({suffix: entry["files"] for suffix, entry in by_suffix(raw).items()})
    shown = dict(sorted(counts.most_common(TYPES)))
    with plots.picture(path) as axes:
        axes.barh([plots.label(suffix) for suffix in shown], list(shown.values()))
        axes.set(title=f"{name}: files by type", xlabel="files")
        axes.invert_yaxis()
