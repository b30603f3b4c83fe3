"""Photos cut into the segments they show: one picture per segment, with its class, group, score, box and area.

``data/features/<encoder>/<corpus>/`` then holds no array but ``shards/00000.parquet`` …, :data:`INSTANCES`, one per
shard of photos and in the same order, and ``features.json``, the note of what made them. Features are joined with
labels by ``image_id``; their pictures are read like photos (:mod:`geoloc_core.corpora.manifest`).
"""

import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from PIL import Image

from geoloc_core import parquet, pictures
from geoloc_core.blocks import blocks
from geoloc_core.corpora import manifest
from geoloc_core.encoders import store
from geoloc_core.encoders.groups import GROUPS, group_of
from geoloc_core.encoders.preprocess import decode
from geoloc_core.errors import UserError
from geoloc_core.files import replacing, write_json
from geoloc_core.pictures import PIXELS_AT_ONCE, PictureError

WINDOW = 32
"""Photos in memory at a time, decoded."""
QUALITY = 95
"""Of the pictures, JPEG, colours at full resolution: a lossless copy would be five times as large."""


def _field(name: str, kind: pa.DataType, meaning: str, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"meaning": meaning})


_HUGGINGFACE = {
    "image_id": {"dtype": "string", "_type": "Value"},
    "image": {"_type": "Image"},
    "class": {"dtype": "string", "_type": "Value"},
    "group": {"dtype": "string", "_type": "Value"},
    "score": {"dtype": "float32", "_type": "Value"},
    "box": {"feature": {"dtype": "int32", "_type": "Value"}, "length": 4, "_type": "Sequence"},
    "area": {"dtype": "int32", "_type": "Value"},
}
"""How the ``datasets`` library reads the columns."""

INSTANCES = pa.schema(
    [
        _field("image_id", pa.string(), "the photo's, as in the manifest"),
        # never null, but nullable for the reason that the photos' shards are
        _field("image", manifest.SHARD.field("image").type, "the feature's picture, encoded", nullable=True),
        _field("class", pa.string(), "as the segmenter names it"),
        _field("group", pa.string(), "ground, structures, vegetation or vehicles; null for the rest", nullable=True),
        _field("score", pa.float32(), "the segmenter's confidence, 0 to 1"),
        _field("box", pa.list_(pa.int32(), 4), "left, top, right and bottom in the upright photo, pixels"),
        _field("area", pa.int32(), "pixels of the upright photo that the feature covers"),
    ],
    metadata={
        "geoloc.schema": "instances",
        "geoloc.version": b"1",
        "huggingface": json.dumps({"info": {"features": _HUGGINGFACE}}),
    },
)
"""One row per feature; ``image_id`` is the photo's, and ``image`` shows the feature's box, black beside the feature."""


class Segment(NamedTuple):
    """A feature found in a photo.

    Attributes:
        label: Its class.
        score: The segmenter's confidence, 0 to 1.
        mask: (h, w) bool over the whole photo, of any resolution.
    """

    label: str
    score: float
    mask: np.ndarray


@dataclass(frozen=True)
class Instances:
    """A frozen segmenter: photos in, pictures of their features out, where an :class:`.Encoder` gives an array.

    Attributes:
        batch: Photos per forward pass.
        segment: Upright photos of one size → the segments of each.
        min_area: Share of the photo below which a feature is left out.
        identity: All that the features depend on.
        parameters: Of the segmenter.
        precision: What it computes in.
    """

    batch: int
    segment: Callable[[Sequence[Image.Image]], list[list[Segment]]]
    min_area: float
    identity: dict[str, Any]
    parameters: int | None = None
    precision: str = "fp32"

    @property
    def fingerprint(self) -> str:
        """A digest of :attr:`identity`: equal fingerprints give equal features."""
        return store.fingerprint(self.identity)

    def __call__(
        self, photos: Sequence[bytes], pool: ThreadPoolExecutor | None = None
    ) -> list[list[dict[str, Any]] | UserError]:
        """The features of N encoded photos: rows of :data:`INSTANCES` with the picture alone, and without its id.

        In the place of a photo that cannot be decoded stands the reason.
        """
        found = (self._cut_photos(some, pool) for some in _portions(photos))
        return [features for portion in found for features in portion]

    def _cut_photos(
        self, photos: Sequence[bytes], pool: ThreadPoolExecutor | None
    ) -> list[list[dict[str, Any]] | UserError]:
        each = pool.map if pool else map
        images = list(each(_decoded, photos))
        features: list[list[dict[str, Any]] | UserError] = [
            image if isinstance(image, UserError) else [] for image in images
        ]
        for rows, upright in _packed(images, self.batch):
            for row, found in zip(rows, each(self._cut_all, upright, self.segment(upright)), strict=True):
                features[row] = found
        return features

    def _cut_all(self, image: Image.Image, segments: list[Segment]) -> list[dict[str, Any]]:
        return [cut for segment in segments if (cut := _cut(image, segment, self.min_area))]


def _decoded(photo: bytes) -> Image.Image | UserError:
    try:
        return decode(photo)
    except UserError as error:
        return error


def _portions(photos: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """The photos in their order, no more of them at a time than fit in memory when they are decoded."""
    start, held = 0, 0
    for row, photo in enumerate(photos):
        try:
            with pictures.opened(photo) as image:
                pixels = image.width * image.height
        except PictureError:
            pixels = 0
        if row > start and held + pixels > PIXELS_AT_ONCE:
            yield photos[start:row]
            start, held = row, 0
        held += pixels
    yield photos[start:]


def _packed(images: list[Image.Image | UserError], batch: int) -> Iterator[tuple[Sequence[int], Sequence[Image.Image]]]:
    """Rows and photos of one size, at most ``batch`` at a time: a segmenter takes photos of any one size."""
    by_size: dict[tuple[int, int], list[tuple[int, Image.Image]]] = {}
    for row, image in enumerate(images):
        if not isinstance(image, UserError):
            by_size.setdefault(image.size, []).append((row, image))
    for of_one_size in by_size.values():
        for some in blocks(len(of_one_size), batch):
            rows, upright = zip(*of_one_size[some], strict=True)
            yield rows, upright


def _cut(image: Image.Image, segment: Segment, min_area: float) -> dict[str, Any] | None:
    """A feature's picture and what is said of it; None where it is too small."""
    mask = _at_size(segment.mask, *image.size)
    area = int(mask.sum())
    if not large_enough(segment, image.size, min_area):
        return None
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = [int(side) for side in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)]
    left, top, right, bottom = box
    pixels = np.asarray(image.crop((left, top, right, bottom))) * mask[top:bottom, left:right, None]
    return {
        "image": _jpeg(pixels),
        "class": segment.label,
        "group": group_of(segment.label),
        "score": segment.score,
        "box": box,
        "area": area,
    }


def large_enough(segment: Segment, size: tuple[int, int], min_area: float) -> bool:
    """Whether a segment covers any of a photo of ``size``, width and height in pixels, and ``min_area`` of it."""
    area = int(_at_size(segment.mask, *size).sum())
    return area > 0 and area >= min_area * size[0] * size[1]


def _at_size(mask: np.ndarray, width: int, height: int) -> np.ndarray:
    """A mask at the size of its photo, (height, width) bool, by the nearest pixel."""
    rows, columns = (
        np.arange(length) * short // length for length, short in zip((height, width), mask.shape, strict=True)
    )
    return mask[rows[:, None], columns]


def _jpeg(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=QUALITY, subsampling="4:4:4")
    return stream.getvalue()


def part(partial: Path, shard: Path) -> Path:
    """Where the features of a shard wait until those of all are there."""
    return partial / shard.name


def is_done(shard: Path, partial: Path) -> bool:
    """Whether a shard's features lie in the folder of parts, and what there is to say of its photos."""
    try:
        return manifest.count(part(partial, shard)) >= 0 and store.flaws(partial, shard).is_file()
    except UserError:  # not there, or damaged: it is made anew
        return False


def extract(tower: Instances, shards: Sequence[Path], partial: Path) -> Iterator[int]:
    """Cut the photos of every shard that has no part yet into their features, in a part of its own.

    A photo that cannot be decoded has no features and an entry in :func:`~geoloc_core.encoders.store.flaws`.

    Args:
        tower: The segmenter.
        shards: Files of photos.
        partial: The folder of parts.

    Yields:
        How many photos have been cut since the last time.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for shard in shards:
            if not is_done(shard, partial):
                yield from write_part(tower, shard, partial, pool)


def write_part(tower: Instances, shard: Path, partial: Path, pool: ThreadPoolExecutor) -> Iterator[int]:
    """Cut the photos of one shard, and write their features in one piece."""
    pending: list[dict[str, Any]] = []
    flaws: dict[str, str] = {}
    ids = enumerate(manifest.read_ids(shard))
    with (
        replacing(part(partial, shard)) as aside,
        parquet.writer(aside, INSTANCES, compression="none", use_dictionary=False) as file,
    ):
        for photos in manifest.read_photos(shard, WINDOW):
            for (row, image_id), found in zip(islice(ids, len(photos)), tower(photos, pool), strict=True):
                if isinstance(found, UserError):
                    flaws[str(row)] = str(found)
                else:
                    pending += [_named(image_id, number, cut) for number, cut in enumerate(found)]
            while len(pending) >= manifest.ROW_GROUP:
                file.write_table(pa.Table.from_pylist(pending[: manifest.ROW_GROUP], INSTANCES))
                del pending[: manifest.ROW_GROUP]
            yield len(photos)
        if pending:
            file.write_table(pa.Table.from_pylist(pending, INSTANCES))
        write_json(store.flaws(partial, shard), flaws)


def write(folder: Path, parts: list[Path], note: dict[str, Any], missing: Sequence[dict[str, Any]]) -> None:
    """Put the parts of a corpus together.

    Args:
        folder: Where to write; must exist.
        parts: One per shard, in shard order.
        note: What made the features.
        missing: Of each photo that could not be read its ``row``, ``image_id`` and the ``reason``; it has no features.
    """
    (folder / "shards").mkdir()
    for part in parts:
        shutil.copyfile(part, folder / "shards" / part.name)
    layout = {"rows": sum(map(manifest.count, parts)), "pictures": True, "missing": list(missing)}
    write_json(folder / store.NOTE, {**note, **layout})


def _named(image_id: str, number: int, row: dict[str, Any]) -> dict[str, Any]:
    return {"image_id": image_id, **row, "image": {"bytes": row["image"], "path": f"{image_id}-{number}.jpg"}}


def shards(folder: Path) -> list[Path]:
    """The shards of features of a corpus, in order.

    Raises:
        UserError: There are none yet, or they are an array.
    """
    if not store.note(folder).get("pictures"):
        raise UserError(f"{folder}: holds one array rather than pictures; name an encoder that cuts photos up")
    return manifest.shards(folder)


def read(folder: Path) -> pa.Table:
    """What is said of all features of a corpus: :data:`INSTANCES` but for the pictures.

    Raises:
        UserError: There are none yet, or they were made by another version.
    """
    names, again = [name for name in INSTANCES.names if name != "image"], f"{store.remedy(folder)} again"
    for shard in shards(folder):
        if not parquet.schema(shard, again).equals(INSTANCES):
            raise UserError(f"{shard}: not features of version 1; {again}")
    tables = [parquet.read(shard, again, names) for shard in shards(folder)]
    return pa.concat_tables(tables) if tables else INSTANCES.empty_table().select(names)


def figures(folder: Path, photos: int) -> dict[str, Any]:
    """What the summary of a corpus says: how many features there are, of which groups and classes."""
    table = read(folder)
    groups = Counter(table["group"].to_pylist())
    return {
        "rows": table.num_rows,
        "photos": photos,
        "photos_without": photos - len(table["image_id"].unique()),
        "groups": {group: groups[group] for group in GROUPS} | {"none": groups[None]},
        "classes": dict(Counter(table["class"].to_pylist()).most_common(20)),
    }
