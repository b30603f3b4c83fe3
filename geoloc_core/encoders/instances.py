"""Photos cut into what they show: one picture per feature, with its class, group, score, box and area.

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
from itertools import islice, repeat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from geoloc_core.corpora import manifest
from geoloc_core.encoders import store
from geoloc_core.encoders.encoder import fingerprint
from geoloc_core.encoders.groups import GROUPS, group_of
from geoloc_core.encoders.memory import ran_out
from geoloc_core.encoders.preprocess import decode
from geoloc_core.errors import UserError
from geoloc_core.files import replacing, write_json
from geoloc_core.progress import say

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
        return fingerprint(self.identity)

    def __call__(self, photos: Sequence[bytes], pool: ThreadPoolExecutor | None = None) -> list[list[dict[str, Any]]]:
        """The features of N encoded photos: rows of :data:`INSTANCES` with the picture alone, and without its id.

        A photo that cannot be decoded has none.
        """
        each = pool.map if pool else map
        images = list(each(_decoded, photos))
        features: list[list[dict[str, Any]]] = [[] for _ in photos]
        for chosen in _packed(images, self.batch):
            upright = [image for row in chosen if (image := images[row])]
            for row, found in zip(chosen, each(self._cut_all, upright, self._segmented(upright)), strict=True):
                features[row] = found
        return features

    def _segmented(self, photos: Sequence[Image.Image]) -> list[list[Segment]]:
        """The segments of each photo, in as many pieces as memory asks for."""
        try:
            return self.segment(photos)
        except (MemoryError, RuntimeError) as error:
            if not ran_out(error):
                raise
        if len(photos) == 1:
            raise UserError(f"out of memory with one photo of {photos[0].width} × {photos[0].height} pixels")
        size, half = f"{photos[0].width} × {photos[0].height} pixels", len(photos) // 2
        say(f"out of memory with {len(photos)} photos of {size}; going on with half")
        return [*self._segmented(photos[:half]), *self._segmented(photos[half:])]

    def _cut_all(self, image: Image.Image, segments: list[Segment]) -> list[dict[str, Any]]:
        return [cut for segment in segments if (cut := _cut(image, segment, self.min_area))]


def _decoded(photo: bytes) -> Image.Image | None:
    try:
        return decode(photo)
    except UserError:
        return None


def _packed(images: list[Image.Image | None], batch: int) -> Iterator[list[int]]:
    """Rows of photos of one size, at most ``batch`` at a time: a segmenter takes photos of any one size."""
    by_size: dict[tuple[int, int], list[int]] = {}
    for row, image in enumerate(images):
        if image:
            by_size.setdefault(image.size, []).append(row)
    for rows in by_size.values():
        yield from (rows[start : start + batch] for start in range(0, len(rows), batch))


def _cut(image: Image.Image, segment: Segment, min_area: float) -> dict[str, Any] | None:
    """A feature's picture and what is said of it; None where it is too small."""
    mask = _at_size(segment.mask, *image.size)
    area = int(mask.sum())
    if area == 0 or area < min_area * mask.size:
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


def extract(
    tower: Instances, photos: Sequence[Path], partial: Path, out: Path, made_by: dict[str, Any]
) -> Iterator[None]:
    """Cut all photos of a corpus into their features; shards that are done already are not done again.

    Args:
        tower: The segmenter.
        photos: The shards of the corpus.
        partial: Where finished shards wait, so that a killed run resumes.
        out: The folder to make.
        made_by: What the note says.

    Yields:
        Nothing, once per photo that is done.
    """
    parts = [partial / shard.name for shard in photos]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for shard, part in zip(photos, parts, strict=True):
            if not part.is_file():
                yield from write_part(tower, shard, part, pool)
    with replacing(out) as aside:
        (aside / "shards").mkdir(parents=True)
        for part in parts:
            shutil.copyfile(part, aside / "shards" / part.name)
        layout = {"rows": sum(map(manifest.count, parts)), "pictures": True}
        write_json(aside / store.NOTE, {**made_by, **layout})


def write_part(tower: Instances, shard: Path, part: Path, pool: ThreadPoolExecutor | None = None) -> Iterator[None]:
    """Cut the photos of one shard, and write their features in one piece.

    Yields:
        Nothing, once per photo that is done.
    """
    pending: list[dict[str, Any]] = []
    ids = iter(pq.read_table(shard, columns=["image_id"])["image_id"].to_pylist())
    with replacing(part) as aside, pq.ParquetWriter(aside, INSTANCES, compression="none", use_dictionary=False) as file:
        for photos in manifest.read_photos(shard, WINDOW):
            for image_id, found in zip(islice(ids, len(photos)), tower(photos, pool), strict=True):
                pending += [_named(image_id, number, row) for number, row in enumerate(found)]
            while len(pending) >= manifest.ROW_GROUP:
                file.write_table(pa.Table.from_pylist(pending[: manifest.ROW_GROUP], INSTANCES))
                del pending[: manifest.ROW_GROUP]
            yield from repeat(None, len(photos))
        if pending:
            file.write_table(pa.Table.from_pylist(pending, INSTANCES))


def _named(image_id: str, number: int, row: dict[str, Any]) -> dict[str, Any]:
    return {"image_id": image_id, **row, "image": {"bytes": row["image"], "path": f"{image_id}-{number}.jpg"}}


def shards(folder: Path) -> list[Path]:
    """The shards of features of a corpus, in order.

    Raises:
        UserError: There are none yet, or they are an array.
    """
    if not store.note(folder).get("pictures"):
        raise UserError(f"{folder}: holds an array, no pictures of features; name an encoder of kind mask2former")
    return manifest.shards(folder)


def read(folder: Path) -> pa.Table:
    """What is said of all features of a corpus: :data:`INSTANCES` but for the pictures.

    Raises:
        UserError: There are none yet, or they were made by another version.
    """
    names = [name for name in INSTANCES.names if name != "image"]
    for shard in shards(folder):
        if not pq.read_schema(shard).equals(INSTANCES):
            raise UserError(f"{shard}: not features of version 1; run `geoloc encode` again")
    tables = [pq.read_table(shard, columns=names) for shard in shards(folder)]
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
