"""From a corpus as published to one that can be trusted: manifest and shards, the refused beside them."""

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from geoloc_core.corpora import manifest
from geoloc_core.corpora.decode import Decoder, Sound, quiet_pillow
from geoloc_core.corpora.on_disk import Shelf, room_on_disk
from geoloc_core.corpora.photo import Photo, Reason, Refusal, Source
from geoloc_core.errors import UserError
from geoloc_core.files import replacing, write_json
from geoloc_core.params import entry
from geoloc_core.plots import dot_map
from geoloc_core.plugins import module_of
from geoloc_core.progress import say, table, track
from geoloc_core.project import Project

T = TypeVar("T")
R = TypeVar("R")

BATCH_PHOTOS = 64
BATCH_BYTES = 32 * 2**20
MAX_THREADS = 16


@dataclass
class Tally:
    """What became of the photos of a source.

    Attributes:
        seen: All of them.
        reasons: The refused ones, by reason.
        unusable: Of the kept ones, those of which something unusable was said, by column; it is null there.
        examples: The first of them, by column.
    """

    seen: int = 0
    reasons: Counter[Reason] = field(default_factory=Counter)
    unusable: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    @property
    def refused(self) -> int:
        """Photos that were not taken."""
        return self.reasons.total()

    @property
    def kept(self) -> int:
        """Photos that were taken."""
        return self.seen - self.refused

    def doubt(self, unusable: Mapping[str, str]) -> None:
        """Count what is unusable of a kept photo."""
        self.unusable.update(unusable.keys())
        for column, said in unusable.items():
            self.examples.setdefault(column, said)


def ingest(project: Project, name: str) -> None:
    """The stage ``geoloc ingest CORPUS``.

    Raises:
        UserError: The raw folder is not as its source expects, or none of its photos can be used.
    """
    corpus = entry(project.profile.corpora, name, "corpus")
    with replacing(project.corpus(name)) as aside:
        summary = ingest_folder(name, corpus, project.raw(name), aside)
        _map(aside, project.plot("ingest", name), name)
    write_json(project.summary("ingest", name), summary)


def ingest_alone(name: str, corpus: Any, raw: Path, out: Path) -> None:
    """A corpus by itself, outside the project's stages.

    Args:
        name: What the manifest calls it.
        corpus: Its block of params.yaml.
        raw: The folder in its published layout.
        out: The folder to write; an earlier result there is replaced, anything else is left alone.

    Raises:
        UserError: ``out`` holds something else, or ``raw`` is not as the corpus' source expects.
    """
    if not _is_own(out, name):
        raise UserError(
            f"{out}: there is something else; expected a new folder or {name} ingested before; name another"
        )
    with replacing(out) as aside:
        ingest_folder(name, corpus, raw, aside)


def _is_own(out: Path, name: str) -> bool:
    """Whether a folder may be replaced: there is none, or nothing in it but what ingest wrote there for a corpus."""
    if not out.is_dir():
        return not (out.exists() or out.is_symlink())
    found = {path.name for path in out.iterdir()}
    if not found:
        return True
    if not found <= {"manifest.parquet", "attributes.parquet", "rejects.parquet", "shards"}:
        return False
    try:
        held = manifest.read_manifest(out, ["corpus"])["corpus"].unique().to_pylist()
    except UserError:
        return False
    return held in ([], [name])


def ingest_folder(name: str, corpus: Any, raw: Path, folder: Path) -> dict[str, Any]:
    """Read a raw folder and write a corpus folder, which must not be there yet.

    Returns:
        The figures of the summary.

    Raises:
        UserError: The raw folder is not as its source expects, or none of its photos can be used.
    """
    with room_on_disk():
        source = module_of("geoloc_core.corpora.sources", corpus.source.kind).read(corpus.source, raw)
        folder.mkdir()
        tally = write(source, folder, name, corpus.max_megapixels * 1e6, corpus.licences)
    assert tally.seen == manifest.count(folder / "manifest.parquet") + manifest.count(folder / "rejects.parquet")
    _tell(name, tally)
    if not tally.kept:
        raise UserError(
            f"{raw}: none of {tally.seen:,} photos can be used ({_listed(tally.reasons)}); "
            f"expected photos with coordinates; check run.corpora.{name}.source in params.yaml"
        )
    return _summary(folder, tally)


def write(
    source: Source, folder: Path, corpus: str, max_pixels: float, licences: tuple[str, ...] | None = None
) -> Tally:
    """Check every photo of a source and write a corpus folder, in constant memory.

    Args:
        source: The photos, in the order in which they are kept.
        folder: An empty folder.
        corpus: Its name, for the manifest.
        max_pixels: A photo with more is refused.
        licences: A photo of another licence is refused; None takes any.

    Returns:
        What became of them.
    """
    import pyarrow as pa

    attributes = pa.schema([manifest.MANIFEST.field("image_id"), *source.attributes])
    tally, known = Tally(), Shelf()
    with ExitStack() as stack:
        rows = stack.enter_context(manifest.TableWriter(folder / "manifest.parquet", manifest.MANIFEST))
        extra = stack.enter_context(manifest.TableWriter(folder / "attributes.parquet", attributes))
        rejects = stack.enter_context(manifest.TableWriter(folder / "rejects.parquet", manifest.REJECTS))
        shards = manifest.ShardWriter(folder)
        stack.callback(shards.close)
        for item, verdict in track(_checked(source, max_pixels), f"ingest {corpus}", source.total, "photos"):
            tally.seen += 1
            outcome = _judge(item, verdict, known, licences)
            if isinstance(outcome, Refusal):
                tally.reasons[outcome.reason] += 1
                rejects.add({"image_id": outcome.image_id, "reason": outcome.reason.value, "detail": outcome.detail})
                continue
            assert isinstance(item, Photo)
            assert isinstance(verdict, Sound)
            tally.doubt(item.unusable)
            shard, row = shards.add(item.image_id, item.data, item.path)
            rows.add({**outcome, "corpus": corpus, "shard": shard, "row": row})
            extra.add({"image_id": item.image_id, **item.attributes})
    return tally


def _judge(
    item: Photo | Refusal, verdict: Sound | Refusal, known: Shelf, licences: tuple[str, ...] | None
) -> dict[str, Any] | Refusal:
    """A photo's row of the manifest, without its place in the shards; or why it is refused."""
    if isinstance(verdict, Refusal):
        return verdict
    assert isinstance(item, Photo)
    row = _row(item, verdict)
    if licences is not None and row["licence"] not in licences:
        stated = f"licence {row['licence']!r}" if row["licence"] else "no licence stated"
        return Refusal(item.image_id, Reason.LICENCE, f"{stated}; taken are {', '.join(licences) or 'none'}")
    flaw = item.flaw
    if flaw is None and row["latitude"] is None and not item.placeless:
        unknown = (Reason.NO_COORDINATES, "nothing says where it was taken")
        flaw = (verdict.exif and verdict.exif.flaw) or unknown
    if flaw:
        return Refusal(item.image_id, *flaw)
    first = known.first(verdict.sha256.hex(), item.image_id.encode())
    if first is not None:
        return Refusal(item.image_id, Reason.DUPLICATE, f"the same bytes as {first.decode()}")
    return row


def _row(photo: Photo, sound: Sound) -> dict[str, Any]:
    said = sound.exif
    fallback = {
        key: getattr(said, key) if said and getattr(photo, key) is None else getattr(photo, key)
        for key in ("latitude", "longitude", "heading", "captured_at", "author", "licence")
    }
    return {
        **fallback,
        "image_id": photo.image_id,
        "group_id": photo.group_id,
        "source_url": photo.source_url,
        "width": sound.width,
        "height": sound.height,
        "sha256": sound.sha256.hex(),
        "phash": sound.phash,
    }


def _checked(source: Source, max_pixels: float) -> Iterator[tuple[Photo | Refusal, Sound | Refusal]]:
    """Each item with its verdict, in the source's order; threads, since Pillow lets go of the interpreter."""
    decoder = Decoder(max_pixels)

    def check(batch: list[Photo | Refusal]) -> list[tuple[Photo | Refusal, Sound | Refusal]]:
        return [(item, item if isinstance(item, Refusal) else decoder.check(item)) for item in batch]

    # One more than cores: the cores stay busy while a thread waits for the interpreter.
    threads = min((os.cpu_count() or 1) + 1, MAX_THREADS)
    with quiet_pillow(), ThreadPoolExecutor(threads) as pool:
        for results in in_order(pool, check, _batches(source.items), 2 * threads):
            yield from results


def _batches(items: Iterable[Photo | Refusal]) -> Iterator[list[Photo | Refusal]]:
    batch: list[Photo | Refusal] = []
    size = 0
    for item in items:
        batch.append(item)
        size += len(item.data) if isinstance(item, Photo) else 0
        if len(batch) == BATCH_PHOTOS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def in_order(pool: ThreadPoolExecutor, work: Callable[[T], R], items: Iterable[T], ahead: int) -> Iterator[R]:
    """The results of work in threads, in the order of the items, never more than ``ahead`` items early."""
    waiting: deque[Future[R]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _listed(reasons: Counter[Reason]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in _sorted(reasons)) or "the folder is empty"


def _sorted(reasons: Counter[Reason]) -> list[tuple[Reason, int]]:
    return sorted(reasons.items(), key=lambda entry: (-entry[1], entry[0]))


def _tell(name: str, tally: Tally) -> None:
    say(f"{name}: {tally.kept:,} kept + {tally.refused:,} refused = {tally.seen:,} seen")
    if tally.refused:
        table(("refused", "photos"), [(reason.value, f"{count:,}") for reason, count in _sorted(tally.reasons)])
    for column, count in sorted(tally.unusable.items()):
        say(f"{name}: {column} of {count:,} photos cannot be used and is left out, such as {tally.examples[column]}")


def _summary(folder: Path, tally: Tally) -> dict[str, Any]:
    import numpy as np

    # 8 bytes a photo, as a median needs them all.
    pixels, start = np.empty(tally.kept, np.int64), 0
    groups = Shelf()
    for batch in manifest.read_batches(folder, ["group_id", "width", "height"]):
        for group in batch["group_id"].unique().to_pylist():
            groups.first(group)
        stop = start + batch.num_rows
        np.multiply(batch["width"], batch["height"], out=pixels[start:stop], dtype=np.int64)
        start = stop
    shards = manifest.shards(folder)
    return {
        "seen": tally.seen,
        "kept": tally.kept,
        "refused": tally.refused,
        "reasons": {reason.value: count for reason, count in sorted(tally.reasons.items())},
        "unusable": dict(sorted(tally.unusable.items())),
        "groups": len(groups),
        "shards": len(shards),
        "bytes": sum(path.stat().st_size for path in shards),
        "megapixels_median": round(float(np.median(pixels, overwrite_input=True)) / 1e6, 3),
    }


def _map(folder: Path, path: Path, name: str) -> None:
    table = manifest.read_manifest(folder, ["latitude", "longitude"])
    places = table["latitude"].to_numpy(), table["longitude"].to_numpy()
    dot_map(path, f"{name}: {table.num_rows:,} photos", {name: places})
