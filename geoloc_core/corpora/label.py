"""The stage ``geoloc label CORPUS``: the administrative units and the split of every photo, and the datasheet."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from geoloc_core import files, progress
from geoloc_core.corpora import manifest
from geoloc_core.corpora.countries import alpha3
from geoloc_core.corpora.describe import write_datasheet
from geoloc_core.corpora.manifest import LABELS
from geoloc_core.corpora.splits import joined_by_place, split_by_group
from geoloc_core.errors import UserError
from geoloc_core.geo.locate import Locator
from geoloc_core.geo.units import read_units
from geoloc_core.params import entry
from geoloc_core.sets import Split, splits_of

if TYPE_CHECKING:
    from pandas import DataFrame, Series

    from geoloc_core.project import Project

LEVELS = (0, 1, 2)
TOLD = 10
"""Countries without a unit that are named."""


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
    published = manifest.read_published(project.corpus(name))
    rows = with_published(rows, photos, published, units)
    share = labels.test_share_of(name)
    splits = splits_of(corpus.role, share)
    if splits == (Split.BENCHMARK,):
        rows["split"] = Split.BENCHMARK.value
    else:
        groups = photos["group_id"]
        if labels.blocks_km is not None:
            groups = joined_by_place(groups, photos["latitude"], photos["longitude"], labels.blocks_km)
        rows["split"] = split_by_group(groups, labels.validation_share, share, project.profile.seed)
        _check_split(rows, photos, splits, f"corpus {name!r}")
    path = project.labels(name)
    with files.replacing(path) as aside:
        manifest.write_table(pa.Table.from_pandas(rows, LABELS, preserve_index=False), aside, LABELS)
    unknown = unknown_countries(rows, photos, published)
    summary = _summary(rows, photos, units) | {"unknown_countries": unknown}
    files.write_json(project.summary("label", name), summary)
    write_datasheet(project, name)
    progress.say(
        f"label {name}: {summary['located']:,} of {summary['rows']:,} photos "
        f"in {summary['countries']} countries, {summary['unlocated']:,} without a unit"
    )
    if unknown:
        listed = ", ".join(f"{code} {count:,}" for code, count in list(unknown.items())[:TOLD])
        more = f" and {len(unknown) - TOLD} more" if len(unknown) > TOLD else ""
        progress.say(f"label {name}: photos of countries that the boundaries lack have no unit: {listed}{more}")


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
        units: The boundaries' units: a country that is not among them stays unknown (:func:`unknown_countries`).
    """
    if published is None:
        return rows
    countries = units[units["level"] == 0]
    names = countries.set_index("gid")["name"]
    codes = published.map(_gids(countries))
    stated = (photos["latitude"].isna() & codes.notna()).to_numpy()
    gid, name = rows["gid_0"].astype(object), rows["name_0"].astype(object)
    gid[stated] = codes[stated]
    name[stated] = codes[stated].map(names)
    return rows.assign(gid_0=gid, name_0=name)


def _gids(countries: "DataFrame") -> dict[str, str]:
    """What the boundaries call each country, by alpha-3 code: as a rule the same, but GADM's Kosovo is XKO."""
    by_alpha2 = dict(zip(countries["iso_3166"], countries["gid"], strict=True))
    by_alpha3 = {three: by_alpha2[two] for two, three in alpha3().items() if two in by_alpha2}
    return by_alpha3 | {gid: gid for gid in countries["gid"]}


def unknown_countries(rows: "DataFrame", photos: "DataFrame", published: "Series | None") -> dict[str, int]:
    """How many photos have nothing but a country that the boundaries lack, by its code, the most frequent first.

    Args:
        rows: As :func:`with_published` returns them.
        photos: The manifest, row by row.
        published: Alpha-3 codes of countries, row by row; None where the corpus states none.
    """
    if published is None:
        return {}
    counts = published[(photos["latitude"].isna() & rows["gid_0"].isna()).to_numpy()].value_counts()
    return {str(code): int(count) for code, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))}


def _spread(values: np.ndarray, known: np.ndarray, empty: Any) -> np.ndarray:
    full = np.full(len(known), empty, dtype=values.dtype)
    full[known] = values
    return full


def _check_split(rows: "DataFrame", photos: "DataFrame", splits: tuple[Split, ...], where: str) -> None:
    absent = [split for split in splits if split not in set(rows["split"])]
    if len(rows) and absent:
        groups = photos["group_id"].nunique()
        raise UserError(
            f"{where}: none of its photos ({groups} groups) falls to {' or '.join(absent)}; expected some in each of "
            f"{', '.join(splits)}: use more photos, another seed or share of labels, or a smaller labels.blocks_km, "
            f"in params.yaml"
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
        "country_only": int((located & photos["latitude"].isna()).sum()),
        "countries": int(rows["gid_0"].nunique()),
        "subdivisions": int(rows["gid_1"].nunique()),
        "splits": {split: int(splits[split]) for split in Split if split in splits},
        "continents": {str(key): int(n) for key, n in continents.value_counts().sort_index().items()},
    }
