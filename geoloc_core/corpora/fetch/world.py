"""Render a corpus of the demo world and write it as the real one is published.

This module decides what is rendered. The module of the corpus' source decides which files are written.
"""

import multiprocessing
import os
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from geoloc_core.blocks import blocks
from geoloc_core.corpora import world
from geoloc_core.corpora.simulated import Shot, Simulation
from geoloc_core.errors import UserError
from geoloc_core.files import check_folder, digest, keep_only_own, remove, replacing_folder
from geoloc_core.plugins import Strict, module_of
from geoloc_core.progress import say, track

if TYPE_CHECKING:
    from geoloc_core.corpora.world.shots import Piece


class Options(Strict):
    """How a corpus of the demo world is rendered."""

    kind: Literal["world"]
    path: str
    """Any file that never changes: DVC asks for one, and what is drawn depends on code and on no data."""
    photos: int = Field(ge=100, le=1_000_000)
    """How many."""
    size: int = Field(224, ge=32, le=2048)
    """Width and height in pixels."""
    countries: int | None = Field(None, ge=1)
    """Only the countries in which most photos are taken, so many; left out, all of them."""
    evenness: float = Field(0.0, ge=0, le=1)
    """From 0, as unequal as countries are on photo sites, to 1, as many places in each."""
    masks: bool = False
    """Whether to write the mask of every photo too."""
    rasters: bool = False
    """Whether to write what the world is like, such as its elevation, as rasters into the folder ``rasters``."""


def fetch(
    options: Options, *, name: str, source: Any, seed: int, out: Path, partial: Path, workers: int | None = None
) -> dict[str, Any]:
    """Render a corpus.

    Args:
        options: What to render.
        name: The corpus.
        source: The layout to write, from params.yaml.
        seed: The project's seed.
        out: The folder to make.
        partial: Where finished pieces wait, so that a killed run resumes.
        workers: Processes; one per core unless given. The result does not depend on it.

    Returns:
        Figures about the corpus.

    Raises:
        UserError: Masks are requested and the layout does not support them.
    """
    from geoloc_core.corpora.world.gazetteer import Spread
    from geoloc_core.corpora.world.people import BLOCK
    from geoloc_core.corpora.world.shots import Piece
    from geoloc_core.corpora.world.words import clues

    layout = module_of("geoloc_core.corpora.sources", source.kind)
    if options.masks and not layout.PLAN.masks:
        raise UserError(
            f"run.corpora.{name}.fetch.masks: the layout {source.kind} does not support masks; remove the key"
        )
    keep_only_own(
        partial,
        {
            "options": options.model_dump(mode="json"),
            "name": name,
            "seed": seed,
            "plan": repr(layout.PLAN),
            "generator": digest(*sorted(Path(world.__file__).parent.rglob("*.py"))),
        },
    )
    pieces = [
        Piece(
            partial / "pieces" / f"{some.start // BLOCK:06d}.msg",
            some.start,
            some.stop,
            name,
            seed,
            options.size,
            options.masks,
            layout.PLAN,
            Spread(options.countries, options.evenness),
        )
        for some in blocks(options.photos, BLOCK)
    ]
    _render_all(pieces, name, workers or os.cpu_count() or 1)
    assembled, tally = partial / "assembled", Tally()
    remove(assembled)
    assembled.mkdir()
    layout.write(Simulation(tally.of(_shots(pieces)), clues()), assembled, source)
    if options.rasters:
        from geoloc_core.corpora.world import atlas

        atlas.write(assembled / "rasters")
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(assembled, out)
    remove(partial)
    return tally.figures()


def simulate(name: str, source: Any, photos: int, size: int, seed: int, out: Path) -> dict[str, Any]:
    """Render a corpus into a folder of the user's.

    Args:
        name: The corpus: another name gives other photos.
        source: The layout to write.
        photos: How many.
        size: Width and height in pixels.
        seed: Another seed gives other photos.
        out: The folder to make; unfinished work waits beside it.

    Returns:
        Figures about the corpus.

    Raises:
        UserError: The folder is not empty.
    """
    check_folder(out)
    options = Options(kind="world", path="", photos=photos, size=size)
    partial = out.with_name(f".{out.name}.partial")
    if partial.exists() and not (partial / "request.json").is_file():
        raise UserError(f"{partial}: already exists and geoloc did not write it; choose another folder for --out")
    with replacing_folder(out) as aside:
        return fetch(options, name=name, source=source, seed=seed, out=aside, partial=partial)


def _render_all(pieces: "list[Piece]", name: str, workers: int) -> None:
    from geoloc_core.corpora.world.people import BLOCK

    todo = [piece for piece in pieces if not piece.file.exists()]
    if len(todo) < len(pieces):
        say(f"{name}: {len(pieces) - len(todo)} of {len(pieces)} pieces were rendered before")
    for _ in track(
        _run(todo, min(workers, len(todo))), f"render {name}", total=len(todo), unit=f"pieces of {BLOCK} photos"
    ):
        pass


def _run(pieces: "list[Piece]", workers: int) -> Iterator[None]:
    from concurrent.futures import ProcessPoolExecutor, as_completed

    from geoloc_core.corpora.world.shots import render_piece

    if workers < 2:
        yield from map(render_piece, pieces)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_end_with_parent) as pool:
        for done in as_completed([pool.submit(render_piece, piece) for piece in pieces]):
            yield done.result()


def _end_with_parent() -> None:
    """A worker whose parent is killed would wait for work for ever."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


def _shots(pieces: "list[Piece]") -> Iterator[Shot]:
    import msgpack

    for piece in pieces:
        with piece.file.open("rb") as stream:
            for values in msgpack.Unpacker(stream, use_list=False, max_buffer_size=2**30):
                yield Shot(*values)


class Tally:
    """Counts shots on their way into the files."""

    def __init__(self) -> None:
        self._countries: Counter[str] = Counter()
        self._kinds: Counter[str] = Counter()
        self._authors: set[str] = set()

    def of(self, shots: Iterator[Shot]) -> Iterator[Shot]:
        """The same shots."""
        for shot in shots:
            self._countries[shot.country] += 1
            self._kinds[("indoor", "natural", "urban")[shot.labels[0]]] += 1
            self._authors.add(shot.author)
            yield shot

    def figures(self) -> dict[str, Any]:
        """What was counted."""
        return {
            "photos": self._kinds.total(),
            "countries": len(self._countries),
            "authors": len(self._authors),
            "kinds": {kind: self._kinds[kind] for kind in sorted(self._kinds)},
            "most_common": dict(sorted(self._countries.most_common(10), key=lambda item: (-item[1], item[0]))),
        }
