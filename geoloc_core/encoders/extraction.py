"""From shards of photos to features, resumable by shard, as one may take an hour."""

import functools
import math
import os
import platform
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from geoloc_core import engines
from geoloc_core.corpora import manifest
from geoloc_core.encoders import instances, store
from geoloc_core.encoders.compute import buffers
from geoloc_core.encoders.encoder import Encoder, load
from geoloc_core.encoders.instances import Instances
from geoloc_core.errors import UserError
from geoloc_core.files import (
    check_folder,
    digest,
    new_array,
    read_json,
    remove,
    replacing,
    replacing_folder,
    write_json,
)
from geoloc_core.params import entry
from geoloc_core.pictures import quiet_pillow
from geoloc_core.progress import say, track
from geoloc_core.project import Project

AHEAD = 2
"""Batches that are decoded while one is computed."""
MOST_BYTES = 2**39
"""Of the features of a corpus, at most (512 GiB): the tokens of 400,000 photos by a ViT-L/14@336 are 473 GB."""
NAMED = 10
"""Photos that could not be read and are named on the terminal; the note has all of them."""


def encode(project: Project, corpus: str, encoder: str) -> None:
    """Extract the features of one corpus with one encoder: the stage ``geoloc encode CORPUS --encoder ENCODER``.

    Raises:
        UserError: The encoder has no weights yet, or the corpus has not been ingested.
    """
    options = entry(project.profile.encoders, encoder, "encoder")
    entry(project.profile.corpora, corpus, "corpus")
    folder = project.corpus(corpus)
    rows = len(manifest.read_manifest(folder, ["row"]))
    shards = manifest.shards(folder)
    held = sum(map(manifest.count, shards))
    if held != rows:
        raise UserError(f"{folder}: the shards hold {held} photos, the manifest {rows}; ingest it again")
    out = project.features(encoder, corpus)
    check_folder(out, "features")
    tower = load(options, project.weights(encoder))
    if isinstance(tower, Encoder):
        check_room(tower, rows, out, f"encoders.{encoder}")
    # unfinished work is of these photos, of this tower and of its numbers, or it is of no use
    photos_are = digest(folder / "manifest.parquet")[:16]
    parts = project.partial("encode", f"{encoder}-{corpus}-{tower.fingerprint}-{photos_are}-{tower.precision}")
    parts.mkdir(parents=True, exist_ok=True)
    what = f"encode {corpus} with {encoder}"
    made_by = {"encoder": encoder, "corpus": corpus, "fingerprint": tower.fingerprint, **tower.identity}
    made_by["precision"] = tower.precision
    done = instances.is_done if isinstance(tower, Instances) else is_done
    left = [shard for shard in shards if not done(shard, parts)]
    job = engines.Job(
        project,
        functools.partial(_extract, tower, parts),
        functools.partial(_reopened, project, encoder, tower.fingerprint, tower.precision, parts),
        ordered=False,
    )
    with quiet_pillow():
        for _ in track(job.results(left), what, sum(map(manifest.count, left)), "photos", int):
            pass
    missing = _missing(shards, parts)
    if rows and len(missing) == rows:
        raise UserError(f"{folder}: none of the {rows:,} photos could be read: {missing[0]['reason']}; ingest it again")
    with replacing_folder(out, "features") as aside:
        aside.mkdir()
        if isinstance(tower, Instances):
            instances.write(aside, [instances.part(parts, shard) for shard in shards], made_by, missing)
            figures = instances.figures(aside, rows)
            made = f"{figures['rows']:,} features of {rows:,} photos"
        else:
            store.write(aside, [_part(parts, shard) for shard in shards], tower.shape, made_by, missing)
            figures = store.figures(aside)
            made = f"{rows:,} × {' × '.join(map(str, tower.shape))} features"
    found = {"fingerprint": tower.fingerprint, "missing": len(missing), **figures}
    write_json(project.summary("encode", f"{encoder}-{corpus}"), found)
    remove(parts)
    _say_missing(what, missing)
    say(f"{what}: {made} in {tower.precision}, encoder {tower.fingerprint}")


def check_room(tower: Encoder, rows: int, out: Path, where: str) -> None:
    """Refuse to begin where features would take more than :data:`MOST_BYTES`, or twice them more than the disk has.

    Args:
        tower: The encoder.
        rows: Photos.
        out: The folder to write; parts of it, one per shard, lie on the same disk first.
        where: The encoder's key in ``params.yaml``.

    Raises:
        UserError: They would.
    """
    need = rows * math.prod(tower.shape) * 2
    there = next(folder for folder in (out, *out.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if need <= MOST_BYTES and (2 * need <= free or len(tower.shape) == 1):
        return
    limit = f"at most {MOST_BYTES / 1e9:,.0f} GB are kept" if need > MOST_BYTES else f"{free / 1e9:,.0f} GB are free"
    remedy = "train the last block on photos instead: `live: true` beside `last_block`"
    each = " × ".join(map(str, tower.shape))
    raise UserError(
        f"{where}: {rows:,} photos of {each} numbers take {need / 1e9:,.0f} GB, and as much again while they are made; "
        f"{limit}; {remedy}"
    )


def _extract(tower: Encoder | Instances, parts: Path, shards: Sequence[Path]) -> Iterator[int]:
    """Make the parts of some shards: see :func:`extract`."""
    if isinstance(tower, Instances):
        return instances.extract(tower, shards, parts)
    return extract(tower, shards, parts)


def _reopened(project: Project, encoder: str, fingerprint: str, precision: str, parts: Path) -> engines.Work[Path, int]:
    """Work on shards in another process.

    Raises:
        UserError: The tower is not the same there.
    """
    tower = load(entry(project.profile.encoders, encoder, "encoder"), project.weights(encoder))
    if (tower.fingerprint, tower.precision) != (fingerprint, precision):
        raise UserError(
            f"encoders.{encoder}: {tower.fingerprint} in {tower.precision} on {platform.node()}, but {fingerprint} in "
            f"{precision} where the stage was started; use machines of one kind, or `precision: fp32` for all"
        )
    return functools.partial(_extract_apart, tower, parts)


def _extract_apart(tower: Encoder | Instances, parts: Path, shards: Sequence[Path]) -> Iterator[int]:
    """Make each part in a folder of its own first: a worker that was given up for dead may still write the same."""
    for shard in shards:
        with quiet_pillow(), TemporaryDirectory(dir=parts) as own:
            yield from _extract(tower, Path(own), [shard])
            for made in sorted(Path(own).iterdir()):  # what is said of a shard's photos before its features
                made.replace(parts / made.name)


def _part(partial: Path, shard: Path) -> Path:
    return partial / f"{shard.stem}.npy"


def is_done(shard: Path, partial: Path) -> bool:
    """Whether a shard's features lie in the folder of parts, all of them."""
    return store.whole(_part(partial, shard), manifest.count(shard))


def extract(tower: Encoder, shards: Sequence[Path], partial: Path) -> Iterator[int]:
    """Encode every shard that has no part yet, into a part of its own: ``<shard>.npy`` (rows, *shape) float16.

    A photo that cannot be read gets a row of NaN and an entry in ``<shard>.json``. Batches end with their shard, so
    that a part depends on its shard and the tower alone, whoever makes it and whatever was made before.

    Args:
        tower: The encoder.
        shards: Files of photos; several workers can share a folder of parts, each with shards of its own.
        partial: The folder of parts.

    Yields:
        How many photos have been encoded since the last time.
    """
    free = deque(buffers(AHEAD + 2, (tower.batch, tower.preprocess.size, tower.preprocess.size, 3)))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for shard in shards:
            if not is_done(shard, partial):
                yield from _encode_shard(tower, shard, partial, free, pool)


@dataclass
class _Batch:
    """Photos on their way: decoded into a buffer, then computed.

    Attributes:
        start: Row of the first one in its shard.
        buffer: (batch, size, size, 3) uint8.
        decoding: Per photo, what becomes None, or why it could not be read.
    """

    start: int
    buffer: np.ndarray
    decoding: list[Future]
    features: Callable[[], np.ndarray] | None = None


def _encode_shard(
    tower: Encoder, shard: Path, partial: Path, free: deque[np.ndarray], pool: ThreadPoolExecutor
) -> Iterator[int]:
    flaws: dict[int, str] = {}
    photos = chain.from_iterable(manifest.read_photos(shard))
    part, rows = _part(partial, shard), manifest.count(shard)
    with replacing(part) as aside:
        array = new_array(aside, np.float16, (rows, *tower.shape))
        for batch in _computed(tower, photos, free, pool):
            stop = batch.start + len(batch.decoding)
            assert batch.features is not None
            array[batch.start : stop] = batch.features()[: len(batch.decoding)]
            for row, reading in enumerate(batch.decoding, batch.start):
                if reading.result():
                    flaws[row], array[row] = reading.result(), np.nan
            free.append(batch.buffer)
            yield len(batch.decoding)
        array.flush()
        del array
        write_json(store.flaws(partial, shard), {str(row): reason for row, reason in flaws.items()})


def _computed(
    tower: Encoder, photos: Iterator[bytes], free: deque[np.ndarray], pool: ThreadPoolExecutor
) -> Iterator[_Batch]:
    """Batches in order, each begun before the one before it is read, and some decoded ahead of it."""
    decoding: deque[_Batch] = deque()
    running: deque[_Batch] = deque()
    row = 0
    while True:
        while len(decoding) < AHEAD and (group := list(islice(photos, tower.batch))):
            decoding.append(_decode(tower, group, row, free.popleft(), pool))
            row += len(group)
        if decoding:
            running.append(_begin(tower, decoding.popleft()))
        if len(running) > 1 or not decoding:
            if not running:
                return
            yield running.popleft()


def _decode(tower: Encoder, photos: list[bytes], start: int, buffer: np.ndarray, pool: ThreadPoolExecutor) -> _Batch:
    def read(photo: bytes, out: np.ndarray) -> str | None:
        try:
            tower.preprocess.write(photo, out)
        except UserError as error:
            out[:] = 0
            return str(error)
        return None

    return _Batch(start, buffer, [pool.submit(read, photo, out) for photo, out in zip(photos, buffer, strict=False)])


def _begin(tower: Encoder, batch: _Batch) -> _Batch:
    for reading in batch.decoding:
        reading.result()
    # a GPU runs what was made for one batch size; what fills up the last batch is not read
    filled = len(batch.buffer) if tower.fills else len(batch.decoding)
    batch.features = tower.start(batch.buffer[:filled])
    return batch


def _missing(shards: Sequence[Path], partial: Path) -> list[dict[str, Any]]:
    """Every photo that could not be read: its row in the corpus, its id and the reason."""
    found, start = [], 0
    for shard in shards:
        at = store.flaws(partial, shard)
        flaws = read_json(at, f"remove {partial} and run the same command again", dict[int, str])
        if flaws:
            ids = manifest.read_ids(shard)
            found += [{"row": start + row, "image_id": ids[row], "reason": reason} for row, reason in flaws.items()]
        start += manifest.count(shard)
    return found


def _say_missing(what: str, missing: list[dict[str, Any]]) -> None:
    if missing:
        named = ", ".join(photo["image_id"] for photo in missing[:NAMED])
        more = f" and {len(missing) - NAMED:,} more" if len(missing) > NAMED else ""
        say(f"{what}: {len(missing):,} photos could not be read and have no features: {named}{more}")
