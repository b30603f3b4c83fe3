"""From a published corpus to a checked one: a manifest, shards, and a table of the refused photos."""

import os
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from geoloc_core import parquet
from geoloc_core.corpora import manifest
from geoloc_core.corpora.decode import Decoder, Sound
from geoloc_core.corpora.on_disk import Shelf, Spool, packed, room_on_disk, unpacked
from geoloc_core.corpora.photo import PLACE_FROM, Photo, Reason, Refusal, Said, Source, settled
from geoloc_core.corpora.twins import Claim, Twins
from geoloc_core.errors import UserError
from geoloc_core.files import check_folder, remove, replacing_folder, write_json
from geoloc_core.params import entry
from geoloc_core.pictures import quiet_pillow
from geoloc_core.plots import dot_map
from geoloc_core.plugins import module_of
from geoloc_core.progress import say, table, track
from geoloc_core.project import Project

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")
R = TypeVar("R")

BATCH_PHOTOS = 64
BATCH_BYTES = 32 * 2**20
MAX_THREADS = 16
MAX_WAITING_BYTES = 2**30
"""Bytes of photos that are read ahead, unless a single batch has more."""
Keep = Callable[[Mapping[str, Any], Mapping[str, Any], bytes, str], None]
"""Appends a photo to a corpus: its row of the manifest without its place in the shards, its attributes, bytes, path."""


@dataclass
class Tally:
    """What became of the photos of a source.

    Attributes:
        seen: All of them.
        reasons: The refused ones, by reason.
        unusable: The kept ones with an unusable value, by column or attribute: it is null there.
        examples: The first of them, by column.
        mislabelled: The kept ones of another format than their name says, by both; they are read as what they are.
    """

    seen: int = 0
    reasons: Counter[Reason] = field(default_factory=Counter)
    unusable: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    mislabelled: Counter[str] = field(default_factory=Counter)

    @property
    def refused(self) -> int:
        """Photos that were not taken."""
        return self.reasons.total()

    @property
    def kept(self) -> int:
        """Photos that were taken."""
        return self.seen - self.refused

    def doubt(self, unusable: Mapping[str, str], mislabelled: str | None) -> None:
        """Count what is unusable of a kept photo, and its format where its name says another."""
        self.unusable.update(unusable.keys())
        for column, said in unusable.items():
            self.examples.setdefault(column, said)
        if mislabelled:
            self.mislabelled[mislabelled] += 1


def ingest(project: Project, name: str) -> None:
    """The stage ``geoloc ingest CORPUS``.

    Raises:
        UserError: The raw folder is not as its source expects, or none of its photos can be used.
    """
    corpus = entry(project.profile.corpora, name, "corpus")
    rejects = project.partial("ingest", name) / "rejects.parquet"
    with replacing_folder(project.corpus(name), "photos") as aside:
        summary = ingest_folder(name, corpus, project.raw(name), aside, rejects)
        _map(aside, project.plot("ingest", name), name)
    write_json(project.summary("ingest", name), summary)


def ingest_alone(name: str, corpus: Any, raw: Path, out: Path) -> None:
    """A corpus by itself, outside the project's stages.

    Args:
        name: What the manifest calls it.
        corpus: Its block of params.yaml.
        raw: The folder in its published layout.
        out: The folder to write; an earlier result there is replaced, anything else is not touched. If no photo can be
            used, ``<out>.rejects.parquet`` beside it says why.

    Raises:
        UserError: ``out`` contains other files, or ``raw`` is not as the corpus' source expects.
    """
    check_folder(out, "photos")
    rejects = out.with_name(f"{out.name}.rejects.parquet")
    if os.path.lexists(rejects) and not manifest.is_table(rejects, manifest.REJECTS):
        raise UserError(
            f"{rejects}: already exists and geoloc did not write it; refused photos are listed there; move it away"
        )
    if (out / "manifest.parquet").is_file():
        held = manifest.read_manifest(out, ["corpus"])["corpus"].unique().to_pylist()
        if held not in ([], [name]):
            raise UserError(
                f"{out}: already contains the corpus {', '.join(held)}; expected a new folder or {name} ingested "
                "before; choose another folder"
            )
    with replacing_folder(out, "photos") as aside:
        ingest_folder(name, corpus, raw, aside, rejects)


def ingest_folder(name: str, corpus: Any, raw: Path, folder: Path, rejects: Path) -> dict[str, Any]:
    """Read a raw folder and write a corpus folder, which must not be there yet.

    Args:
        name: What the manifest calls the corpus.
        corpus: Its block of params.yaml.
        raw: The folder in its published layout.
        folder: The folder to make.
        rejects: Where the table of the refused is kept if no photo can be used; else there is none afterwards.

    Returns:
        The figures of the summary.

    Raises:
        UserError: The raw folder is not as its source expects, or none of its photos can be used.
    """
    same_place_km = None if corpus.role == "benchmark" else corpus.same_place_km
    with room_on_disk():
        source = module_of("geoloc_core.corpora.sources", corpus.source.kind).read(corpus.source, raw)
        folder.mkdir()
        tally = write(source, folder, name, corpus.max_megapixels * 1e6, corpus.licences, same_place_km)
    assert tally.seen == manifest.count(folder / "manifest.parquet") + manifest.count(folder / "rejects.parquet")
    remove(rejects)
    _tell(name, tally)
    if not tally.kept:
        where = f"check run.corpora.{name}.source in params.yaml"
        if tally.seen:
            rejects.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(folder / "rejects.parquet", rejects)
            where = f"{rejects} says why of each; {where}"
        remove(folder)
        raise UserError(
            f"{raw}: none of {tally.seen:,} photos can be used ({_listed(tally.reasons)}); "
            f"expected photos with coordinates; {where}"
        )
    return _summary(folder, tally)


def write(
    source: Source,
    folder: Path,
    corpus: str,
    max_pixels: float,
    licences: tuple[str, ...] | None = None,
    same_place_km: float | None = 1.0,
) -> Tally:
    """Check every photo of a source and write a corpus folder, in constant memory.

    Args:
        source: The photos, in the order in which they are kept.
        folder: An empty folder.
        corpus: Its name, for the manifest.
        max_pixels: A photo with more is refused.
        licences: A photo of another licence is refused; None takes any.
        same_place_km: Of photos of the very same bytes the first is taken if none is farther from it, else none is; of
            None, all are.

    Returns:
        What became of them.
    """
    tally = Tally()
    twins = None if same_place_km is None else Twins(same_place_km)
    # Counted in the end, when it is known which photos are kept.
    doubts, rows = Spool(), 0
    with ExitStack() as stack:
        keep = stack.enter_context(_keeping(folder, source.attributes))
        rejects = stack.enter_context(manifest.TableWriter(folder / "rejects.parquet", manifest.REJECTS))

        def refuse(refusal: Refusal) -> None:
            tally.reasons[refusal.reason] += 1
            rejects.add({"image_id": refusal.image_id, "reason": refusal.reason.value, "detail": refusal.detail})

        for item, verdict in track(_checked(source, max_pixels), f"ingest {corpus}", source.total, "photos"):
            tally.seen += 1
            outcome = _judge(item, verdict, licences)
            if isinstance(outcome, Refusal):
                refuse(outcome)
                continue
            assert isinstance(item, Photo)
            assert isinstance(verdict, Sound)
            if twins is None or twins.add(verdict.sha256, _claim(item, outcome)):
                unusable = _unusable(item, verdict, outcome)
                if unusable or verdict.mislabelled:
                    doubts.add(packed((rows, unusable, verdict.mislabelled)))
                rows += 1
                said = {**item.attributes, PLACE_FROM: outcome[PLACE_FROM]}
                keep({**outcome, "corpus": corpus}, said, item.data, item.path)
        dropped = []
        for row, refusal in twins.settle() if twins is not None else ():
            refuse(refusal)
            dropped += [] if row is None else [row]
    left_out = frozenset(dropped)
    for row, unusable, mislabelled in map(unpacked, doubts):
        if row not in left_out:
            tally.doubt(unusable, mislabelled)
    if dropped:
        _drop(folder, dropped)
    return tally


@contextmanager
def _keeping(folder: Path, attributes: "pa.Schema") -> Iterator[Keep]:
    """Write the manifest, the attributes and the shards of a corpus together, row by row."""
    import pyarrow as pa

    schema = pa.schema([manifest.MANIFEST.field("image_id"), *attributes])
    with ExitStack() as stack:
        rows = stack.enter_context(manifest.TableWriter(folder / "manifest.parquet", manifest.MANIFEST))
        extra = stack.enter_context(manifest.TableWriter(folder / "attributes.parquet", schema))
        shards = stack.enter_context(manifest.ShardWriter(folder))

        def keep(row: Mapping[str, Any], said: Mapping[str, Any], data: bytes, path: str) -> None:
            shard, at = shards.add(row["image_id"], data, path)
            rows.add({**row, "shard": shard, "row": at})
            extra.add({"image_id": row["image_id"], **said})

        yield keep


def _drop(folder: Path, rows: Iterable[int]) -> None:
    """Write a corpus folder again without some rows, as if they had never been kept."""
    before, dropped = folder / "before", iter(rows)
    before.mkdir()
    for name in ("manifest.parquet", "attributes.parquet", "shards"):
        (folder / name).rename(before / name)
    schema = parquet.schema(before / "attributes.parquet", "run it again").remove(0)
    unwanted = next(dropped, None)
    with _keeping(folder, schema) as keep:
        total = manifest.count(before / "manifest.parquet")
        whole = track(manifest.read_whole(before), "leave out what contradicts itself", total, "photos")
        for number, (row, extra, photo) in enumerate(whole):
            if number == unwanted:
                unwanted = next(dropped, None)
            else:
                keep(row, extra, photo["bytes"], photo["path"])
    remove(before)


def _judge(
    item: Photo | Refusal, verdict: Sound | Refusal, licences: tuple[str, ...] | None
) -> dict[str, Any] | Refusal:
    """A photo's row of the manifest, without its place in the shards; or why it is refused."""
    if isinstance(verdict, Refusal):
        return verdict
    assert isinstance(item, Photo)
    row = _row(item, verdict)
    if licences is not None and row["licence"] not in licences:
        stated = f"licence {row['licence']!r}" if row["licence"] else "no licence stated"
        return Refusal(item.image_id, Reason.LICENCE, f"{stated}; expected one of: {', '.join(licences) or 'none'}")
    place = settled(item, _said(item, verdict))
    if place.flaw:
        return Refusal(item.image_id, *place.flaw)
    return {**row, "latitude": place.latitude, "longitude": place.longitude, PLACE_FROM: place.record}


def _claim(photo: Photo, row: Mapping[str, Any]) -> Claim:
    country = photo.attributes.get("gid_0") if row["latitude"] is None else None
    return Claim(photo.image_id, row["latitude"], row["longitude"], country)


def _said(photo: Photo, sound: Sound) -> list[Said]:
    """What completes the corpus: the photo itself, then the file next to it."""
    return [said for said in (sound.said, photo.beside) if said]


def _unusable(photo: Photo, sound: Sound, row: Mapping[str, Any]) -> dict[str, str]:
    """Unusable values, by column: those of the corpus, and the photo's own where there is no other value."""
    own = {
        column: f"{photo.image_id}: {what}"
        for said in reversed(_said(photo, sound))
        for column, what in said.unusable.items()
        if row[column] is None
    }
    return {**own, **photo.unusable}


def _row(photo: Photo, sound: Sound) -> dict[str, Any]:
    said = (photo, *_said(photo, sound))
    filled = {
        key: next((value for one in said if (value := getattr(one, key)) is not None), None)
        for key in ("heading", "captured_at", "author", "licence")
    }
    return {
        **filled,
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
        for results in in_order(pool, check, _batches(source.items), 2 * threads, _bytes, MAX_WAITING_BYTES):
            yield from results


def _batches(items: Iterable[Photo | Refusal]) -> Iterator[list[Photo | Refusal]]:
    batch: list[Photo | Refusal] = []
    size = 0
    for item in items:
        batch.append(item)
        size += _bytes([item])
        if len(batch) == BATCH_PHOTOS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _bytes(batch: Iterable[Photo | Refusal]) -> int:
    return sum(len(item.data) for item in batch if isinstance(item, Photo))


def in_order(
    pool: ThreadPoolExecutor,
    work: Callable[[T], R],
    items: Iterable[T],
    ahead: int,
    weigh: Callable[[T], int],
    most: int,
) -> Iterator[R]:
    """The results of work in threads, in the order of the items.

    Never more than ``ahead`` items early, nor with items early that weigh more than ``most`` beside the last one.
    """
    waiting: deque[tuple[Future[R], int]] = deque()
    weight = 0
    for item in items:
        waiting.append((pool.submit(work, item), weigh(item)))
        weight += waiting[-1][1]
        while waiting and (len(waiting) >= ahead or weight > most):
            done, weighed = waiting.popleft()
            weight -= weighed
            yield done.result()
    while waiting:
        yield waiting.popleft()[0].result()


def _listed(reasons: Counter[Reason]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in _sorted(reasons)) or "the folder is empty"


def _sorted(reasons: Counter[Reason]) -> list[tuple[Reason, int]]:
    return sorted(reasons.items(), key=lambda entry: (-entry[1], entry[0]))


def _tell(name: str, tally: Tally) -> None:
    say(f"{name}: {tally.kept:,} kept + {tally.refused:,} refused = {tally.seen:,} seen")
    if tally.refused:
        table(("refused", "photos"), [(reason.value, f"{count:,}") for reason, count in _sorted(tally.reasons)])
    for column, count in sorted(tally.unusable.items()):
        say(
            f"{name}: {column} is unusable in {count:,} photos and was left empty, for example {tally.examples[column]}"
        )
    for label, count in sorted(tally.mislabelled.items()):
        say(f"{name}: {count:,} {'photo is' if count == 1 else 'photos are'} {label}; read by content, not by name")


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
        "mislabelled": dict(sorted(tally.mislabelled.items())),
        "groups": len(groups),
        "shards": len(shards),
        "bytes": sum(path.stat().st_size for path in shards),
        "megapixels_median": round(float(np.median(pixels, overwrite_input=True)) / 1e6, 3),
    }


def _map(folder: Path, path: Path, name: str) -> None:
    table = manifest.read_manifest(folder, ["latitude", "longitude"])
    places = table["latitude"].to_numpy(), table["longitude"].to_numpy()
    dot_map(path, f"{name}: {table.num_rows:,} photos", {name: places})
