"""Render a corpus of the demo world and write it as the real one is published.

MP-16 (a source with ``shards``): ``mp16_places365.csv``; ``mp16_urls.csv`` without a header line, as the readers of
the published list name its two columns themselves; ``shard_<n>.msg`` with 4,096 msgpack records of ``image`` (a JPEG
file) and ``id``. IM2GPS and IM2GPS3k (a source with ``images``): the same metadata columns and a folder of flat files
named ``<photo>_<secret>_<n>_<author>.jpg``. Beside them ``captions.csv``, as titles of photos are no part of the
published files, and for corpora in shards ``clues.csv``, what a guidebook would say about each country.
"""

import csv
import multiprocessing
import os
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgpack
from PIL import Image
from pydantic import Field

from geoloc_core.corpora.world import photo as world
from geoloc_core.corpora.world.people import BLOCK
from geoloc_core.corpora.world.render import render
from geoloc_core.corpora.world.rng import stable_hash
from geoloc_core.corpora.world.words import caption, clues
from geoloc_core.files import digest, read_json, remove, replacing, write_json
from geoloc_core.plugins import Strict
from geoloc_core.progress import say, track

SHARD = 4096
"""Records of a published shard."""
COLUMNS = (
    "IMG_ID",
    "AUTHOR",
    "LAT",
    "LON",
    "S3_Label",
    "S16_Label",
    "S365_Label",
    "Prob_indoor",
    "Prob_natural",
    "Prob_urban",
)


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
        folder: Where they go.
        start: Number of the first.
        stop: Number after the last.
        name: The corpus.
        seed: The project's seed.
        size: Width and height in pixels.
        flat: Whether files are published as a folder of photos, not as shards.
        masks: Whether masks are written.
    """

    folder: Path
    start: int
    stop: int
    name: str
    seed: int
    size: int
    flat: bool
    masks: bool


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
    """
    flat = not getattr(source, "shards", None)
    _keep_only_own(
        partial,
        {
            "options": options.model_dump(mode="json"),
            "name": name,
            "seed": seed,
            "flat": flat,
            "generator": digest(*sorted(Path(world.__file__).parent.rglob("*.py"))),
        },
    )
    pieces = [
        Piece(
            partial / "pieces" / f"{start // BLOCK:06d}",
            start,
            min(start + BLOCK, options.photos),
            name,
            seed,
            options.size,
            flat,
            options.masks,
        )
        for start in range(0, options.photos, BLOCK)
    ]
    _render_all(pieces, name, workers or os.cpu_count() or 1)
    assembled = partial / "assembled"
    assembled.mkdir(exist_ok=True)
    if flat:
        _gather_files(pieces, assembled / (getattr(source, "images", None) or "images"), "images")
    else:
        _gather_shards(pieces, assembled, source.shards)
        _write_csv(
            assembled / "clues.csv", ("clue_id", "country", "topic", "text"), (tuple(row.values()) for row in clues())
        )
    if options.masks:
        _gather_files(pieces, assembled / "masks", "masks")
    figures = _write_tables(pieces, assembled, source)
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(assembled, out)
    remove(partial)
    return figures


def _keep_only_own(partial: Path, key: dict[str, Any]) -> None:
    """Drop what another request left behind."""
    note = partial / "request.json"
    if note.exists() and read_json(note) == key:
        return
    remove(partial)
    write_json(note, key)


def _render_all(pieces: list[Piece], name: str, workers: int) -> None:
    todo = [piece for piece in pieces if not piece.folder.exists()]
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
    rows = []
    with replacing(piece.folder) as aside:
        (aside / "images").mkdir(parents=True)
        (aside / "masks").mkdir()
        with (aside / "records.msg").open("wb") as records:
            for photo in world.photos(piece.seed, piece.name, piece.start, piece.stop):
                drawn = render(photo, piece.size, piece.masks)
                image_id, url = _names(photo, piece.flat)
                data = drawn.jpeg(80 + photo.index % 11)
                if piece.flat:
                    (aside / "images" / image_id).write_bytes(data)
                else:
                    records.write(msgpack.packb({"image": data, "id": image_id}))
                if drawn.mask is not None:
                    mask = Image.fromarray(drawn.mask.astype("uint16"))
                    mask.save(aside / "masks" / f"{Path(image_id).stem}.png")
                rows.append(_row(photo, image_id, url))
        write_json(aside / "rows.json", rows)


def _names(photo: world.Photo, flat: bool) -> tuple[str, str]:
    """The photo's name as the corpus is published, and a made-up address."""
    rng = photo.stream("name")
    number = 1_000_000_000 + (photo.index * 2_654_435_761 + stable_hash(f"{photo.key}")) % 8_999_999_993
    secret, server = f"{rng.getrandbits(40):010x}", rng.randint(1, 1400)
    url = f"https://photos.example/{server}/{number}_{secret}.jpg"
    if flat:
        return f"{number}_{secret}_{server}_{photo.author}.jpg", url
    bucket = f"{stable_hash(str(number)):08x}"
    return f"{bucket[:2]}/{bucket[2:4]}/{number}.jpg", url


def _row(photo: world.Photo, image_id: str, url: str) -> dict[str, Any]:
    place, scene = photo.place, photo.scene
    values = (
        image_id,
        photo.author,
        place.latitude,
        place.longitude,
        scene.s3,
        scene.s16,
        scene.s365,
        *photo.probabilities,
    )
    return {"metadata": values, "url": url, "caption": caption(photo), "country": place.country}


def _gather_files(pieces: list[Piece], folder: Path, kind: str) -> None:
    folder.mkdir(exist_ok=True)
    for piece in pieces:
        for file in sorted((piece.folder / kind).iterdir()):
            file.rename(folder / file.name)


def _gather_shards(pieces: list[Piece], folder: Path, pattern: str) -> None:
    """Join pieces to shards; a piece's records go only when their shard is whole, so that a kill loses nothing."""
    each = SHARD // BLOCK
    for number in range((len(pieces) + each - 1) // each):
        parts = [piece.folder / "records.msg" for piece in pieces[number * each : (number + 1) * each]]
        shard = folder / pattern.replace("*", str(number))
        if not shard.exists():
            with replacing(shard) as aside, aside.open("wb") as target:
                for part in parts:
                    with part.open("rb") as stream:
                        shutil.copyfileobj(stream, target)
        for part in parts:
            part.unlink(missing_ok=True)


def _write_csv(path: Path, header: tuple[str, ...] | None, rows: Iterator[tuple[Any, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        if header:
            writer.writerow(header)
        writer.writerows(rows)


def _rows(pieces: list[Piece]) -> Iterator[dict[str, Any]]:
    for piece in pieces:
        yield from read_json(piece.folder / "rows.json")


def _write_tables(pieces: list[Piece], folder: Path, source: Any) -> dict[str, Any]:
    _write_csv(folder / source.metadata, COLUMNS, (tuple(row["metadata"]) for row in _rows(pieces)))
    _write_csv(
        folder / "captions.csv", ("IMG_ID", "caption"), ((row["metadata"][0], row["caption"]) for row in _rows(pieces))
    )
    if getattr(source, "urls", None):
        _write_csv(folder / source.urls, None, ((row["metadata"][0], row["url"]) for row in _rows(pieces)))
    countries: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    authors = set()
    for row in _rows(pieces):
        countries[row["country"]] += 1
        kinds[("indoor", "natural", "urban")[row["metadata"][4]]] += 1
        authors.add(row["metadata"][1])
    return {
        "photos": sum(kinds.values()),
        "countries": len(countries),
        "authors": len(authors),
        "kinds": {kind: kinds[kind] for kind in sorted(kinds)},
        "most_common": dict(sorted(countries.most_common(10), key=lambda item: (-item[1], item[0]))),
    }
