"""Render a corpus of the demo world and write it as the real one is published.

What is rendered stands here; which files it becomes, in the module of the corpus' source.
"""

import multiprocessing
import os
import random
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, fields
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import msgpack
import numpy as np
from PIL import Image
from pydantic import Field

from geoloc_core.corpora.simulated import Plan, Shot, Simulation
from geoloc_core.corpora.world import photo as world
from geoloc_core.corpora.world.gazetteer import cities, countries
from geoloc_core.corpora.world.people import BLOCK, near_city
from geoloc_core.corpora.world.render import render
from geoloc_core.corpora.world.rng import stable_hash, stream
from geoloc_core.corpora.world.scenes import probabilities
from geoloc_core.corpora.world.words import caption, clues
from geoloc_core.errors import UserError
from geoloc_core.files import digest, keep_only_own, remove, replacing
from geoloc_core.plugins import Strict, module_of
from geoloc_core.progress import say, track

MODULUS = 8_999_999_993
"""A prime: numbers of photos do not repeat within it."""


class Options(Strict):
    """How a corpus of the demo world is rendered."""

    kind: Literal["world"]
    path: str
    """The generator's own source: what it draws depends on it."""
    photos: int = Field(ge=100, le=1_000_000)
    size: int = Field(224, ge=32, le=2048)
    """Width and height in pixels."""
    masks: bool = False
    """Whether to write the mask of every photo too."""


@dataclass(frozen=True)
class Piece:
    """Photos that are rendered together.

    Attributes:
        file: Where they go.
        start: Number of the first.
        stop: Number after the last.
        name: The corpus.
        seed: The project's seed.
        size: Width and height in pixels.
        masks: Whether masks are rendered.
        plan: What the layout asks for.
    """

    file: Path
    start: int
    stop: int
    name: str
    seed: int
    size: int
    masks: bool
    plan: Plan


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
        UserError: Masks are asked for, and the layout has no room for them.
    """
    layout = module_of("geoloc_core.corpora.sources", source.kind)
    if options.masks and not layout.PLAN.masks:
        raise UserError(
            f"run.corpora.{name}.fetch.masks: the layout {source.kind} has no room for masks; leave the key out"
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
            partial / "pieces" / f"{start // BLOCK:06d}.msg",
            start,
            min(start + BLOCK, options.photos),
            name,
            seed,
            options.size,
            options.masks,
            layout.PLAN,
        )
        for start in range(0, options.photos, BLOCK)
    ]
    _render_all(pieces, name, workers or os.cpu_count() or 1)
    assembled, tally = partial / "assembled", Tally()
    remove(assembled)
    assembled.mkdir()
    layout.write(Simulation(tally.of(_shots(pieces)), clues()), assembled, source)
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
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: not empty; expected a new folder; name another or remove it")
    options = Options(kind="world", path="", photos=photos, size=size)
    partial = out.with_name(f".{out.name}.partial")
    with replacing(out) as aside:
        return fetch(options, name=name, source=source, seed=seed, out=aside, partial=partial)


def _render_all(pieces: list[Piece], name: str, workers: int) -> None:
    todo = [piece for piece in pieces if not piece.file.exists()]
    if len(todo) < len(pieces):
        say(f"{name}: {len(pieces) - len(todo)} of {len(pieces)} pieces were rendered before")
    for _ in track(
        _run(todo, min(workers, len(todo))), f"render {name}", total=len(todo), unit=f"pieces of {BLOCK} photos"
    ):
        pass


def _run(pieces: list[Piece], workers: int) -> Iterator[None]:
    if workers < 2:
        yield from map(_render_piece, pieces)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_end_with_parent) as pool:
        for done in as_completed([pool.submit(_render_piece, piece) for piece in pieces]):
            yield done.result()


def _end_with_parent() -> None:
    """A worker whose parent is killed would wait for work for ever."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


def _render_piece(piece: Piece) -> None:
    with replacing(piece.file) as aside, aside.open("wb") as records:
        for photo, spot, heading in views(piece.seed, piece.name, piece.start, piece.stop, piece.plan):
            drawn = render(photo, piece.size, piece.masks)
            mask = None if drawn.mask is None else _png(drawn.mask)
            shot = _shot(photo, spot, heading, drawn.jpeg(80 + photo.index % 11), mask)
            records.write(msgpack.packb([getattr(shot, field.name) for field in fields(Shot)]))


def _png(mask: np.ndarray) -> bytes:
    stream = BytesIO()
    Image.fromarray(mask.astype("uint16")).save(stream, "PNG")
    return stream.getvalue()


def views(seed: int, name: str, start: int, stop: int, plan: Plan) -> Iterator[tuple[world.Photo, int, int | None]]:
    """Photos ``start`` to ``stop`` of a corpus, each with the number of its place and its heading."""
    if not plan.headings:
        for photo in world.photos(seed, name, start, stop, plan.style):
            yield photo, photo.index, None
        return
    for index in range(start, stop):
        spot, turn = divmod(index, len(plan.headings))
        base = world.photo(seed, name, spot, "street")
        place = _place(seed, name, spot, plan) or base.place
        month = base.facts.moment.month if base.facts else None
        rng = stream(seed, f"{name} view", index)
        facts = world.facts(rng, place, "street", month)
        chances = probabilities(rng, facts.scene)
        yield (
            world.Photo(index, (seed, name), base.author, place, facts.scene, facts, chances),
            spot,
            plan.headings[turn],
        )


def _place(seed: int, name: str, spot: int, plan: Plan) -> Any:
    """A place in the plan's country; None where it has none."""
    if plan.country is None:
        return None
    south, west, north, east = plan.within
    table = cities()
    rows = [
        row
        for row, country in enumerate(table.country)
        if country == plan.country and south <= table.latitude[row] <= north and west <= table.longitude[row] <= east
    ]
    rng: random.Random = stream(seed, f"{name} place", spot)
    while True:
        place = near_city(rng, rng.choice(rows))
        if south <= place.latitude <= north and west <= place.longitude <= east:
            return place


def _shot(photo: world.Photo, spot: int, heading: int | None, jpeg: bytes, mask: bytes | None) -> Shot:
    rng = photo.stream("name")
    number = 1_000_000_000 + (photo.index * 2_654_435_761 + stable_hash(f"{photo.key}")) % MODULUS
    place, scene = photo.place, photo.scene
    return Shot(
        index=photo.index,
        spot=spot,
        author=photo.author,
        latitude=place.latitude,
        longitude=place.longitude,
        country=place.country,
        country_name=countries()[place.country].name,
        city=place.city,
        heading=heading,
        taken=_taken(photo, spot if heading is not None else None),
        labels=(scene.s3, scene.s16, scene.s365),
        probabilities=photo.probabilities,
        caption=caption(photo),
        number=number,
        secret=f"{rng.getrandbits(40):010x}",
        server=rng.randint(1, 1400),
        jpeg=jpeg,
        mask=mask,
    )


def _taken(photo: world.Photo, spot: int | None) -> str:
    """Views of one place are of one month."""
    rng = photo.stream("taken") if spot is None else stream(photo.key[0], f"{photo.key[1]} taken", spot)
    year, month, day, hour = rng.randint(2008, 2021), rng.randint(1, 12), rng.randint(1, 28), rng.randint(8, 19)
    if photo.facts:
        month, hour = photo.facts.moment.month, int(photo.facts.moment.hour)
    return f"{year}-{month:02}-{day:02}T{hour:02}:{rng.randint(0, 59):02}:{rng.randint(0, 59):02}"


def _shots(pieces: list[Piece]) -> Iterator[Shot]:
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
