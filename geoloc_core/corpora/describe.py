"""A datasheet per corpus: what is in it, what is missing, what was refused (Gebru et al. 2021, "Datasheets").

Written from the tables of ``data/corpora`` and ``data/labels`` alone, so the same corpus has the same datasheet.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoloc_core import files, plots, progress
from geoloc_core.corpora import manifest
from geoloc_core.params import entry
from geoloc_core.report import render
from geoloc_core.report.table import Column, Row, Table

if TYPE_CHECKING:
    import pyarrow as pa

    from geoloc_core.project import Project

TOP = 15
"""Lines of a table that may grow long; the rest is summed."""
OPTIONAL = ("latitude", "longitude", "heading", "captured_at", "author", "licence", "source_url", "phash")
GROUPED = {"group": "group_id", "place": "place_id", "author": "author"}


def describe(project: "Project", name: str) -> None:
    """Write the datasheet of a corpus, and print it.

    Raises:
        UserError: There is no such corpus, it has not been ingested, or its labels belong to another manifest.
    """
    for table in write_datasheet(project, name):
        progress.show(replace(table, title=f"{name}: {table.title}"))
    progress.say(f"describe {name}: {project.datasheet(name)}")


def write_datasheet(project: "Project", name: str) -> list[Table]:
    """Write the datasheet of a corpus, a map beside it, and return its tables.

    Raises:
        UserError: There is no such corpus, it has not been ingested, or its labels belong to another manifest.
    """
    corpus = entry(project.profile.corpora, name, "corpus")
    folder = project.corpus(name)
    table = manifest.read_manifest(folder)
    rejects = manifest.read_table(folder / "rejects.parquet", manifest.REJECTS, ["reason"])
    path = project.labels(name)
    labels = manifest.read_labels(path, table["image_id"]) if path.exists() else None
    found = tables(table, rejects, labels)
    sheet = project.datasheet(name)
    picture = sheet.with_suffix(".png")
    _map(table, picture, name)
    text = render.document(
        "corpora/datasheet.md",
        name=name,
        photos=f"{table.num_rows:,}",
        role=corpus.role,
        kind=corpus.source.kind,
        demo=project.profile.demo,
        picture=picture.name,
        tables=found,
    )
    with files.replacing(sheet) as aside:
        aside.write_text(text, encoding="utf-8")
    return found


def tables(table: "pa.Table", rejects: "pa.Table", labels: "pa.Table | None") -> list[Table]:
    """All tables of a datasheet.

    Args:
        table: The manifest.
        rejects: What was refused, with its reason.
        labels: The labels, once there are any.
    """
    found = [_photos(table, rejects), _missing(table), _counted("Refused", "reason", rejects["reason"])]
    if labels is not None:
        found += [_counted("Splits", "split", labels["split"]), _counted("Countries", "country", labels["name_0"])]
    return [one for one in [*found, *_of_manifest(table)] if one.rows]


def _photos(table: "pa.Table", rejects: "pa.Table") -> Table:
    import numpy as np
    import pyarrow.compute as pc

    kept, refused = table.num_rows, rejects.num_rows
    rows = [("seen", kept + refused), ("kept", kept), ("refused", refused)]
    counts = [(f"{what}s", pc.count_distinct(table[column]).as_py()) for what, column in GROUPED.items()]
    rows += [(what, count) for what, count in counts if count]
    # Authors are counted and never named: a datasheet is made to be passed on.
    spreads = {f"photos per {what}": table[column].drop_null().value_counts() for what, column in GROUPED.items()}
    numbers = {what: counts.field("counts").to_numpy() for what, counts in spreads.items()}
    numbers |= {f"{what}, pixels": table[what].to_numpy() for what in ("width", "height")}
    lines = [Row.of(what, count) for what, count in rows]
    for what, values in numbers.items():
        if len(values):
            low, middle, high = np.percentile(values, [0, 50, 100])
            lines.append(Row.of(what, f"{low:,.0f} … {middle:,.0f} … {high:,.0f}"))
    return Table((Column("what"), Column.of_numbers("count; least … median … most")), tuple(lines), "Photos")


def _missing(table: "pa.Table") -> Table:
    shares = [(name, table[name].null_count) for name in OPTIONAL]
    rows = [Row.of(name, count, count / max(table.num_rows, 1)) for name, count in shares if count]
    return Table(_shares("column"), tuple(rows), "Missing values")


def _shares(what: str) -> tuple[Column, ...]:
    return (Column(what), Column.of_numbers("photos"), Column.of_numbers("share", ".1%"))


def _of_manifest(table: "pa.Table") -> list[Table]:
    import pyarrow.compute as pc

    return [
        _counted("Licences", "licence", table["licence"]),
        _counted("Years", "year", pc.year(table["captured_at"]), by_count=False),
    ]


def _counted(title: str, what: str, values: Any, by_count: bool = True) -> Table:
    """How often each value occurs, the most frequent first, or in order; nothing where all are unknown."""
    counts = [(item["values"], item["counts"]) for item in values.drop_null().value_counts().to_pylist()]
    counts.sort(key=lambda pair: (-pair[1], pair[0]) if by_count else pair[0])
    total = sum(count for _, count in counts)
    shown = counts[:TOP] if by_count else counts
    rows = [Row.of(str(value), count, count / total) for value, count in shown]
    rest = total - sum(count for _, count in shown)
    if rest:
        rows.append(Row.of(f"{len(counts) - len(shown):,} more", rest, rest / total))
    return Table(_shares(what), tuple(rows), title)


def _map(table: "pa.Table", path: Path, name: str) -> None:
    places = table["latitude"].to_numpy(), table["longitude"].to_numpy()
    plots.dot_map(path, f"{name}: {table.num_rows:,} photos", {name: places})
