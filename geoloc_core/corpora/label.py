"""The stage ``geoloc label CORPUS``: the administrative units and the split of every photo, and the datasheet."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from geoloc_core import files, progress
from geoloc_core.corpora import manifest
from geoloc_core.corpora.describe import write_datasheet
from geoloc_core.corpora.manifest import LABELS
from geoloc_core.corpora.splits import joined_by_place, split_by_group
from geoloc_core.errors import UserError
from geoloc_core.geo.locate import Locator
from geoloc_core.geo.units import read_units
from geoloc_core.params import entry

if TYPE_CHECKING:
    from pandas import DataFrame, Series

    from geoloc_core.project import Project

LEVELS = (0, 1, 2)
SPLITS = ("train", "validation", "benchmark")


def label(project: "Project", name: str) -> None:
    """Write the labels of a corpus, row-aligned with its manifest, and its datasheet.

    Raises:
        UserError: There is no such corpus, it has not been ingested, there are no boundaries, or it cannot be split.
    """
    corpus = entry(project.profile.corpora, name, "corpus")
    labels = project.profile.labels
    files.check_file(project.labels(name))
    columns = ["image_id", "latitude", "longitude", "group_id"]
    photos = manifest.read_manifest(project.corpus(name), columns).to_pandas()
    units = read_units(project.boundaries)
    rows = locate(photos, Locator.open(project.boundaries, labels.limit_km))
    rows = with_published(rows, photos, manifest.read_published(project.corpus(name)), units)
    if corpus.role == "benchmark":
        rows["split"] = "benchmark"
    else:
        groups = photos["group_id"]
        if labels.blocks_km is not None:
            groups = joined_by_place(groups, photos["latitude"], photos["longitude"], labels.blocks_km)
        rows["split"] = split_by_group(groups, labels.validation_share, project.profile.seed)
        _check_split(rows, photos, f"corpus {name!r}")
    path = project.labels(name)
    with files.replacing(path) as aside:
        manifest.write_table(pa.Table.from_pandas(rows, LABELS, preserve_index=False), aside, LABELS)
    summary = _summary(rows, photos, units)
    files.write_json(project.summary("label", name), summary)
    write_datasheet(project, name)
    progress.say(
        f"label {name}: {summary['located']:,} of {summary['rows']:,} photos "
        f"in {summary['countries']} countries, {summary['unlocated']:,} without a unit"
    )


def locate(photos: "DataFrame", locator: Locator) -> "DataFrame":
    """All columns of :data:`LABELS` but ``split``, for ``image_id``, ``latitude`` and ``longitude``."""
    import pandas as pd

    known = (photos["latitude"].notna() & photos["longitude"].notna()).to_numpy()
    found = locator.locate(photos["latitude"][known], photos["longitude"][known])
    table: dict[str, Any] = {"image_id": photos["image_id"]}
    for level in LEVELS:
        table[f"gid_{level}"] = _spread(found.gid(level), known, None)
        table[f"name_{level}"] = _spread(found.name(level), known, None)
    table["distance_km"] = _spread(found.distance_km, known, np.nan)
    return pd.DataFrame(table)


def with_published(
    rows: "DataFrame", photos: "DataFrame", published: "Series | None", units: "DataFrame"
) -> "DataFrame":
    """The labels, with the country that the corpus itself states for photos without coordinates.

    Args:
        rows: As :func:`locate` returns them.
        photos: The manifest, row by row.
        published: Alpha-3 codes of countries, row by row; None where the corpus states none.
        units: The boundaries' units: a country that is not among them stays unknown.
    """
    if published is None:
        return rows
    names = units[units["level"] == 0].set_index("gid")["name"]
    stated = (photos["latitude"].isna() & published.isin(names.index)).to_numpy()
    gid, name = rows["gid_0"].astype(object), rows["name_0"].astype(object)
    gid[stated] = published[stated]
    name[stated] = published[stated].map(names)
    return rows.assign(gid_0=gid, name_0=name)


def _spread(values: np.ndarray, known: np.ndarray, empty: Any) -> np.ndarray:
    full = np.full(len(known), empty, dtype=values.dtype)
    full[known] = values
    return full


def _check_split(rows: "DataFrame", photos: "DataFrame", where: str) -> None:
    sides = set(rows["split"])
    if len(rows) and sides != {"train", "validation"}:
        groups = photos["group_id"].nunique()
        raise UserError(
            f"{where}: all of its photos ({groups} groups) are in the split {sides.pop()}; expected some in "
            f"both: use more photos, another seed or labels.validation_share, or "
            f"a smaller labels.blocks_km, in params.yaml"
        )


def _summary(rows: "DataFrame", photos: "DataFrame", units: "DataFrame") -> dict[str, Any]:
    located = rows["gid_0"].notna()
    continents = rows["gid_0"].map(units[units["level"] == 0].set_index("gid")["continent"])
    splits = rows["split"].value_counts()
    return {
        "rows": len(rows),
        "located": int(located.sum()),
        "inside": int((rows["distance_km"] == 0).sum()),
        "near": int((rows["distance_km"] > 0).sum()),
        "unlocated": int((~located).sum()),
        "without_coordinates": int(photos["latitude"].isna().sum()),
        "countries": int(rows["gid_0"].nunique()),
        "subdivisions": int(rows["gid_1"].nunique()),
        "splits": {split: int(splits[split]) for split in SPLITS if split in splits},
        "continents": {str(key): int(n) for key, n in continents.value_counts().sort_index().items()},
    }
