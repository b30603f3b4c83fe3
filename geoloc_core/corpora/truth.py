"""The stage ``geoloc truth CORPUS``: all that is true of a corpus and that training and evaluation read.

A table apart: answers depend on the folder of these tables, in which there are the corpora that somebody learns from or
is scored on and no others, so that a change of any other makes no answer out of date.
"""

import pyarrow as pa
import pyarrow.compute as pc

from geoloc_core import files, progress
from geoloc_core.corpora import manifest
from geoloc_core.corpora.photo import Reason
from geoloc_core.params import entry
from geoloc_core.project import Project

COLUMNS = {
    "manifest": ["image_id", "group_id", "latitude", "longitude", "place_id", "heading"],
    "labels": ["gid_0", "gid_1", "gid_2", "split"],
}
TRUTH = pa.schema(
    [
        *(manifest.MANIFEST.field(name) for name in COLUMNS["manifest"]),
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
        UserError: There is no such corpus, it has not been ingested or labelled, or its labels are of another manifest.
    """
    entry(project.profile.corpora, name, "corpus")
    photos = manifest.read_manifest(project.corpus(name), COLUMNS["manifest"])
    labels = manifest.read_labels(project.labels(name), photos["image_id"], COLUMNS["labels"])
    rejects = manifest.read_table(project.corpus(name) / "rejects.parquet", manifest.REJECTS, ["reason"])
    published = len(photos) + sum(reason not in STRAY for reason in rejects["reason"].to_pylist())
    table = pa.table([*photos.columns, *labels.columns], names=TRUTH.names)
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


def read(project: Project, name: str, columns: list[str]) -> pa.Table:
    """Columns of what is true of a corpus, row by row; :data:`PUBLISHED` is in the metadata of the schema.

    Raises:
        UserError: It has not been written, or by another version.
    """
    return manifest.read_table(project.truth(name), TRUTH, columns)
