"""The stage ``geoloc facts CORPUS``: what rasters say about the places of its photos, and when they were taken."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from geoloc_core import files, progress
from geoloc_core.contracts.facts import FACTS
from geoloc_core.corpora import manifest
from geoloc_core.errors import UserError
from geoloc_core.params import entry
from geoloc_core.project import Project

TABLE = pa.schema(
    [pa.field(name, pa.float64()) for name in FACTS],
    metadata={"geoloc.schema": "facts", "geoloc.version": manifest.VERSION},
)
"""Row-aligned with the manifest; null where nothing is known. See :mod:`geoloc_core.contracts.facts`."""


def facts(project: Project, name: str) -> None:
    """Write what is known of the place and the moment of every photo of a corpus.

    Raises:
        UserError: There is no such corpus or it has not been ingested, the profile names no rasters, or one is wrong.
    """
    entry(project.profile.corpora, name, "corpus")
    sources = project.profile.facts
    if sources is None:
        raise UserError("facts: the profile in use has none; expected the rasters that facts are read from")
    photos = manifest.read_manifest(project.corpus(name), ["latitude", "longitude", "captured_at"]).to_pandas()
    latitudes, longitudes = (photos[axis].to_numpy(np.float64) for axis in ("latitude", "longitude"))
    found = sources.sample(project.root, latitudes, longitudes, photos["captured_at"].dt.month.to_numpy(np.float64))
    columns = [pa.array(found[fact], pa.float64(), from_pandas=True) for fact in FACTS]
    with files.replacing(project.facts(name)) as aside:
        manifest.write_table(pa.table(columns, names=list(FACTS)), aside, TABLE)
    known = {fact: int(np.isfinite(found[fact]).sum()) for fact in FACTS}
    files.write_json(project.summary("facts", name), {"rows": len(photos), "known": known})
    progress.say(f"facts {name}: {', '.join(f'{fact} of {count:,}' for fact, count in known.items() if count)} photos")


def read(project: Project, name: str, wanted: Sequence[str], rows: int) -> dict[str, np.ndarray]:
    """Facts (N,) float64 of a corpus of N rows, by name; NaN where nothing is known.

    Raises:
        UserError: They have not been gathered, or are of another manifest.
    """
    table = manifest.read_table(project.facts(name), TABLE, list(dict.fromkeys(wanted)))
    if len(table) != rows:
        raise UserError(
            f"{project.facts(name)}: {len(table):,} rows, the corpus has {rows:,}; run `geoloc facts {name}` again"
        )
    return {fact: table[fact].to_numpy() for fact in wanted}
