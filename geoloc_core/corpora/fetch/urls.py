"""A corpus that is published as a list of addresses: its photos are downloaded one by one.

``path`` is a folder with the published metadata of a ``places365`` source with ``urls`` and ``shards``: MP-16's
``mp16_places365.csv`` and ``mp16_urls.csv``. What arrives is the same tables, the photos as they came in shards as
MP-16 publishes them, and ``gone.csv``, which says of every address without a photo why; ingest refuses those photos
with that reason.
"""

import shutil
import time
from collections import Counter
from collections.abc import Iterator
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from geoloc_core import tables
from geoloc_core.corpora.again import AGAIN
from geoloc_core.corpora.answers import Address
from geoloc_core.corpora.downloads import Limits, download
from geoloc_core.corpora.journal import SHARD, Parts
from geoloc_core.errors import UserError
from geoloc_core.files import digest, keep_only_own, link_or_copy, remove, replacing, write_json
from geoloc_core.plugins import Strict
from geoloc_core.progress import say, track
from geoloc_core.web import TRANSIENT, Gone

if TYPE_CHECKING:
    import numpy as np

KEY = "IMG_ID"
LIST_COLUMNS = (KEY, "url")
DAY_S = 86_400
MAY_COME_BACK = TRANSIENT | {Gone.NOT_FOUND, Gone.REMOVED}
"""Reasons after which there may be a photo some day: hosts come back, and so do accounts."""
GONE_COLUMNS = (*LIST_COLUMNS, "reason", "detail")


class Options(Strict):
    """Which photos to bring, and how hard to ask."""

    kind: Literal["urls"]
    path: Path
    """The folder with the published tables; relative to the project."""
    sample: int | None = Field(None, ge=1)
    """How many photos to download, drawn by the seed; a larger sample contains the smaller one. All if left out."""
    limits: Limits = Limits()
    """Connections, tries and pauses; see :class:`geoloc_core.corpora.downloads.Limits`."""
    look_again_days: float | None = Field(30, gt=0, le=10_000)
    """Days after which addresses are asked again that had no photo but may have one now: those not found or removed,
    and those of hosts that did not answer. Null for never. What was brought is kept until then."""
    max_failed_share: float = Field(0.01, ge=0, le=1)
    """Temporary errors, as a share of all addresses, up to which the corpus counts as fetched."""


def fetch(options: Options, *, name: str, source: Any, seed: int, out: Path, partial: Path) -> dict[str, Any]:
    """Download the photos of a list of addresses; a run that was stopped continues where it stopped.

    Args:
        options: Which photos to bring.
        name: The corpus.
        source: The layout, from params.yaml: ``metadata``, ``urls`` and ``shards``.
        seed: The project's seed.
        out: The folder to make.
        partial: What an interrupted run had brought.

    Returns:
        Photos brought and gone, the latter by reason, and bytes.

    Raises:
        UserError: The tables are missing or wrong, or too many addresses failed with temporary errors.
    """
    if not getattr(source, "urls", None) or not getattr(source, "shards", None):
        key = f"run.corpora.{name}"
        raise UserError(
            f"{key}.source: expected `urls`, the list of addresses, and `shards`, the files that {key}.fetch writes"
        )
    urls = options.path / source.urls
    _need(options.path / source.metadata, name)
    published = [table for table in (source.metadata, source.captions) if table and (options.path / table).exists()]
    for table in published:
        # What is wrong with a header is said before the photos are brought.
        tables.read_csv(options.path / table, (KEY,))
    chosen = choose(urls, options.sample, seed)
    keep_only_own(partial, {"urls": digest(urls), "sample": options.sample, "seed": seed, "shard": SHARD})
    with Parts(partial / "parts", SHARD) as parts:
        if options.look_again_days:
            before = time.time() - DAY_S * options.look_again_days
            again = parts.reopen(addresses(urls, chosen), MAY_COME_BACK, before)
            if again:
                say(f"{name}: {again:,} addresses that were gone {options.look_again_days:g} days ago are asked again")
        if parts.sealed():
            say(f"{name}: {len(parts.sealed()):,} of {-(-len(chosen) // SHARD):,} shards were downloaded before")
        asked = track(addresses(urls, chosen), f"fetch {name}", len(chosen), "addresses")
        counts = download(parts.missing(asked), parts.settle, options.limits)
    _judge(urls, counts, len(chosen), options.max_failed_share, name)
    parts.seal_rest(addresses(urls, chosen))
    made = partial / "assembled"
    _assemble(parts, made, source)
    sampled = chosen if options.sample else None
    for table in published:
        _copy_rows(options.path / table, _room(made / table), urls, sampled)
    _write_addresses(addresses(urls, chosen), _room(made / source.urls))
    summary = _summary(len(chosen), parts, made, source.shards)
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(made, out)
    _note_next_look(parts, partial, options.look_again_days)
    return summary


def _note_next_look(parts: Parts, partial: Path, days: float | None) -> None:
    """Note when to look again, if ever; with no such note, nothing of the crawl is kept."""
    waiting = parts.waiting(MAY_COME_BACK) if days else {}
    if not days or not waiting:
        (partial / AGAIN).unlink(missing_ok=True)
        return
    asked = min(at for at, _ in waiting.values())
    write_json(partial / AGAIN, {"at": asked + DAY_S * days, "addresses": sum(count for _, count in waiting.values())})


def _judge(urls: Path, counts: Counter[str], total: int, share: float, name: str) -> None:
    failed = sum(counts[reason] for reason in TRANSIENT)
    if failed > share * total:
        said = ", ".join(f"{reason} {counts[reason]:,}" for reason in sorted(TRANSIENT) if counts[reason])
        raise UserError(
            f"{urls}: {failed:,} of {total:,} addresses failed with errors that may be temporary ({said}); the others "
            f"are kept: run the command again later, or raise run.corpora.{name}.fetch.max_failed_share"
        )


def choose(urls: Path, sample: int | None, seed: int) -> "np.ndarray":
    """The rows of a list of addresses that are brought: the first of each id, and of these a sample.

    Args:
        urls: CSV of id and address, with or without a header.
        sample: How many at most; all where None.
        seed: Of the draw. An id's luck depends on it and on the id alone.

    Returns:
        (N,) positions among the rows, ascending.

    Raises:
        UserError: The file is missing, is not such a list, or is empty.
    """
    import numpy as np

    luck = np.fromiter((_luck(key, seed) for key, _ in rows(urls)), np.uint64)
    if not len(luck):
        raise UserError(f"{urls}: no addresses; expected rows of an id and an address with http:// or https://")
    # 64 bits: among five million ids, two share their luck once in a million lists.
    _, first = np.unique(luck, return_index=True)
    return np.sort(first[:sample])


def _luck(key: str, seed: int) -> int:
    return int.from_bytes(blake2b(f"{seed} {key}".encode("utf-8", "surrogateescape"), digest_size=8).digest())


def rows(urls: Path) -> Iterator[tuple[str, str]]:
    """The ids and addresses of a list, as they stand, without its header.

    Raises:
        UserError: The file is missing, or a row is not an id and an address.
    """
    first = True
    for part in tables.read_csv(urls, LIST_COLUMNS, header=False).parts:
        cells = (column.to_pylist() for column in part.batch.columns)
        for number, key, url in zip(part.numbers, *cells, strict=True):
            if not key.strip():
                raise UserError(f"{urls}: row {number}: no id beside {url[:80]!r}; expected an id and an address")
            if not first or "://" in url:
                yield key, url.strip()
            first = False


def addresses(urls: Path, chosen: "np.ndarray") -> Iterator[Address]:
    """The chosen rows of a list, their places counted from 0."""
    place, wanted = 0, iter(chosen.tolist())
    row = next(wanted, None)
    for position, (key, url) in enumerate(rows(urls)):
        if position == row:
            yield Address(key, url, place)
            place, row = place + 1, next(wanted, None)


def _need(table: Path, name: str) -> None:
    if not table.is_file():
        raise UserError(f"run.corpora.{name}.fetch.path: {table}: no such file; expected the published table")


def _assemble(parts: Parts, folder: Path, source: Any) -> None:
    """The shards under their published names, by links where the disk has them, and one list of what is gone."""
    remove(folder)
    folder.mkdir(parents=True)
    gone = chain([GONE_COLUMNS], parts.all_gone())
    with _room(folder / (source.gone or "gone.csv")).open("w", encoding="utf-8", newline="") as stream:
        tables.CsvWriter(stream).writerows(gone)
    for number in parts.sealed():
        if parts.shard(number).stat().st_size:
            link_or_copy(parts.shard(number), _room(folder / source.shards.replace("*", str(number))))


def _room(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _copy_rows(table: Path, target: Path, urls: Path, chosen: "np.ndarray | None") -> None:
    """A table as published, or of a sample its rows: a photo that was not drawn is not missing."""
    import pyarrow as pa

    if chosen is None:
        shutil.copyfile(table, target)
        return
    drawn = {address.key for address in addresses(urls, chosen)}
    source = tables.read_csv(table, (KEY,))
    at = source.names.index(tables.columns_of(table, source.names, (KEY,))[KEY])
    with replacing(target) as aside, aside.open("w", encoding="utf-8", newline="") as stream:
        writer = tables.CsvWriter(stream)
        writer.writerow(source.names)
        for part in source.parts:
            kept = part.batch.filter(pa.array([key in drawn for key in part.batch.column(at).to_pylist()], pa.bool_()))
            writer.writerows(zip(*(column.to_pylist() for column in kept.columns), strict=True))


def _write_addresses(chosen: Iterator[Address], target: Path) -> None:
    with target.open("w", encoding="utf-8", newline="") as stream:
        tables.CsvWriter(stream).writerows((address.key, address.url) for address in chosen)


def _summary(total: int, parts: Parts, folder: Path, shards: str) -> dict[str, Any]:
    reasons = parts.summary()
    files = sorted(folder.glob(shards))
    return {
        "addresses": total,
        "photos": total - reasons.total(),
        "gone": reasons.total(),
        "gone_by_reason": dict(sorted(reasons.items())),
        "shards": len(files),
        "bytes": sum(path.stat().st_size for path in files),
    }
