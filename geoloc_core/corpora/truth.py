"""The stage ``geoloc truth CORPUS``: all that is true of a corpus and that training and evaluation read.

Of what the corpus publishes besides, these are the attributes that variants learn as their classes, such as towns.

A table apart: answers depend on the folder of these tables, in which there are the corpora that somebody learns from or
is scored on and no others, so that a change of any other makes no answer out of date.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from geoloc_core import files, progress
from geoloc_core.contracts.truth import ATTRIBUTE
from geoloc_core.corpora import manifest
from geoloc_core.corpora.photo import Reason
from geoloc_core.errors import UserError, in_a_line
from geoloc_core.params import entry
from geoloc_core.project import Project

COLUMNS = {
    "manifest": ["image_id", "group_id", "latitude", "longitude", "place_id", "heading"],
    "labels": ["gid_0", "gid_1", "gid_2", "split"],
}
TRUTH = pa.schema(
    [
        *(manifest.MANIFEST.field(name) for name in COLUMNS["manifest"]),
        pa.field("attributes", pa.map_(pa.string(), pa.string()), nullable=False),
        *(manifest.LABELS.field(name) for name in COLUMNS["labels"]),
    ],
    metadata={"geoloc.schema": "truth", "geoloc.version": manifest.VERSION},
)
"""Row-aligned with the manifest: one table per corpus under ``data/truth/``."""
PUBLISHED = b"geoloc.published"
"""Key of the table's metadata that says how many photos the corpus was published with: kept and refused ones."""
STRAY = (Reason.NO_METADATA, Reason.NOT_A_PHOTO)
"""What is refused though nobody published it: files that lie beside the corpus' own."""


def truth(project: Project, name: str) -> None:
    """Write what is true of every photo of a corpus, row-aligned with its manifest.

    A photo of which only the country was published has no coordinates, and its ``gid_0``.

    Raises:
        UserError: There is no such corpus, it has not been ingested or labelled, its labels are of another manifest, or
            it does not have an attribute that a variant learns from it.
    """
    entry(project.profile.corpora, name, "corpus")
    photos = manifest.read_manifest(project.corpus(name), COLUMNS["manifest"])
    labels = manifest.read_labels(project.labels(name), photos["image_id"], COLUMNS["labels"])
    rejects = manifest.read_table(project.corpus(name) / "rejects.parquet", manifest.REJECTS, ["reason"])
    published = len(photos) + sum(reason not in STRAY for reason in rejects["reason"].to_pylist())
    table = pa.table([*photos.columns, _attributes(project, name, len(photos)), *labels.columns], names=TRUTH.names)
    with files.replacing(project.truth(name)) as aside:
        manifest.write_table(table, aside, TRUTH.with_metadata({**TRUTH.metadata, PUBLISHED: str(published)}))
    figures = {"rows": len(photos), **_known(table), "published": published}
    files.write_json(project.summary("truth", name), figures)
    progress.say(
        f"truth {name}: of {published:,} published photos {figures['placed']:,} have coordinates, "
        f"{figures['country_only']:,} only a country"
    )


def _known(table: pa.Table) -> dict[str, int]:
    """How many photos have coordinates, and how many only a country."""
    placed = pc.and_(pc.is_valid(table["latitude"]), pc.is_valid(table["longitude"]))
    country_only = pc.and_(pc.invert(placed), pc.is_valid(table["gid_0"]))
    return {"placed": pc.sum(placed).as_py() or 0, "country_only": pc.sum(country_only).as_py() or 0}


def _attributes(project: Project, name: str, rows: int) -> pa.MapArray:
    """Of each row, the attributes that are classes, as text; a benchmark need not have them."""
    learned = project.profile.learned_labels(name)
    found = {}
    for attribute in project.profile.attributes_of(name):
        values = manifest.read_attribute(project.corpus(name), attribute)
        if values is not None:
            found[attribute] = _as_text(values, f"{project.corpus(name) / 'attributes.parquet'}: column {attribute!r}")
        elif attribute in learned:
            raise UserError(
                f"{project.corpus(name) / 'attributes.parquet'}: no column {attribute!r}, which a variant learns; "
                "expected `labels` to name one of its columns"
            )
    order = np.arange(rows * len(found)).reshape(len(found), rows).T.ravel()  # all columns of a row, then the next
    keys = pa.array(np.tile(np.array(list(found), dtype=object), rows), pa.string())
    items = pa.concat_arrays([pa.array([], pa.string()), *found.values()]).take(pa.array(order))
    return pa.MapArray.from_arrays(pa.array(np.arange(rows + 1) * len(found), pa.int32()), keys, items)


def _as_text(values: list[Any], where: str) -> pa.Array:
    try:
        return pa.array(values).cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UserError(f"{where}: {in_a_line(error)}; expected text or numbers, which can be classes") from None


def read(project: Project, name: str, columns: list[str], labels: str = "") -> pa.Table:
    """Columns of what is true of a corpus, row by row; :data:`PUBLISHED` is in the metadata of the schema.

    Args:
        project: The project.
        name: Of the corpus.
        columns: Those of :data:`TRUTH`.
        labels: A label space: if it is an attribute, it comes as the further column
            :data:`~geoloc_core.contracts.truth.ATTRIBUTE`, null where the corpus does not state it.

    Raises:
        UserError: It has not been written, or by another version.
    """
    if labels not in project.profile.attributes:
        return manifest.read_table(project.truth(name), TRUTH, columns)
    table = manifest.read_table(project.truth(name), TRUTH, [*columns, "attributes"])
    values = pc.map_lookup(table["attributes"], pa.scalar(labels), "first")
    return table.drop_columns("attributes").append_column(ATTRIBUTE, values)
