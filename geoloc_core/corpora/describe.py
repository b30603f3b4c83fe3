"""A datasheet per corpus: what is in it, what is missing, what was refused (Gebru et al. 2021, "Datasheets").

Written from the tables of ``data/corpora`` and ``data/labels`` alone, so the same corpus has the same datasheet.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoloc_core import escape, files, plots, progress
from geoloc_core.corpora import manifest
from geoloc_core.params import entry

if TYPE_CHECKING:
    import pyarrow as pa

    from geoloc_core.project import Project

TOP = 15
"""Lines of a table that may grow long; the rest is summed."""
OPTIONAL = ("latitude", "longitude", "heading", "captured_at", "author", "licence", "source_url", "phash")
GROUPED = {"group": "group_id", "author": "author"}


@dataclass(frozen=True)
class Section:
    """One table of a datasheet.

    Attributes:
        title: What it is about.
        header: Names of the columns.
        rows: The cells as text.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """The section in Markdown."""
        rule = ("---", *("---:" for _ in self.header[1:]))
        lines = escape.markdown_table(self.header, rule, self.rows)
        return "\n".join([f"## {self.title}", "", *lines])


def describe(project: "Project", name: str) -> None:
    """Write the datasheet of a corpus, and print it.

    Raises:
        UserError: There is no such corpus, it has not been ingested, or its labels belong to another manifest.
    """
    _print(name, write_datasheet(project, name))
    progress.say(f"describe {name}: {project.datasheet(name)}")


def write_datasheet(project: "Project", name: str) -> list[Section]:
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
    found = sections(table, rejects, labels)
    sheet = project.datasheet(name)
    picture = sheet.with_suffix(".png")
    _map(table, picture, name)
    intro = [
        f"# {name}",
        "",
        f"{table.num_rows:,} photos, role: {corpus.role}, read as `{corpus.source.kind}`."
        + (" Rendered, not photographed." if project.profile.demo else ""),
        "",
        f"![Where the photos of {name} were taken]({picture.name})",
    ]
    with files.replacing(sheet) as aside:
        aside.write_text("\n".join(intro) + "\n\n" + "\n\n".join(s.markdown() for s in found) + "\n", encoding="utf-8")
    return found


def sections(table: "pa.Table", rejects: "pa.Table", labels: "pa.Table | None") -> list[Section]:
    """All tables of a datasheet.

    Args:
        table: The manifest.
        rejects: What was refused, with its reason.
        labels: The labels, once there are any.
    """
    found = [_photos(table, rejects), _missing(table), _counted("Refused", "reason", rejects["reason"])]
    if labels is not None:
        found += [_counted("Splits", "split", labels["split"]), _counted("Countries", "country", labels["name_0"])]
    return [section for section in [*found, *_of_manifest(table)] if section.rows]


def _photos(table: "pa.Table", rejects: "pa.Table") -> Section:
    import numpy as np
    import pyarrow.compute as pc

    kept, refused = table.num_rows, rejects.num_rows
    rows = [("seen", kept + refused), ("kept", kept), ("refused", refused)]
    rows += [(f"{what}s", pc.count_distinct(table[column]).as_py()) for what, column in GROUPED.items()]
    # Authors are counted and never named: a datasheet is made to be passed on.
    spreads = {f"photos per {what}": table[column].drop_null().value_counts() for what, column in GROUPED.items()}
    numbers = {what: counts.field("counts").to_numpy() for what, counts in spreads.items()}
    numbers |= {f"{what}, pixels": table[what].to_numpy() for what in ("width", "height")}
    lines = [(what, f"{count:,}") for what, count in rows]
    for what, values in numbers.items():
        if len(values):
            low, middle, high = np.percentile(values, [0, 50, 100])
            lines.append((what, f"{low:,.0f} … {middle:,.0f} … {high:,.0f}"))
    return Section("Photos", ("what", "count; least … median … most"), tuple(lines))


def _missing(table: "pa.Table") -> Section:
    shares = [(name, table[name].null_count) for name in OPTIONAL]
    rows = [(name, f"{count:,}", f"{count / max(table.num_rows, 1):.1%}") for name, count in shares if count]
    return Section("Missing values", ("column", "photos", "share"), tuple(rows))


def _of_manifest(table: "pa.Table") -> list[Section]:
    import pyarrow.compute as pc

    return [
        _counted("Licences", "licence", table["licence"]),
        _counted("Years", "year", pc.year(table["captured_at"]), by_count=False),
    ]


def _counted(title: str, what: str, values: Any, by_count: bool = True) -> Section:
    """How often each value occurs, the most frequent first, or in order; nothing where all are unknown."""
    counts = [(item["values"], item["counts"]) for item in values.drop_null().value_counts().to_pylist()]
    counts.sort(key=lambda pair: (-pair[1], pair[0]) if by_count else pair[0])
    total = sum(count for _, count in counts)
    shown = counts[:TOP] if by_count else counts
    rows = [(str(value), f"{count:,}", f"{count / total:.1%}") for value, count in shown]
    rest = total - sum(count for _, count in shown)
    if rest:
        rows.append((f"{len(counts) - len(shown):,} more", f"{rest:,}", f"{rest / total:.1%}"))
    return Section(title, (what, "photos", "share"), tuple(rows))


def _print(name: str, found: list[Section]) -> None:
    for section in found:
        progress.table(section.header, section.rows, f"{name}: {section.title}")


def _map(table: "pa.Table", path: Path, name: str) -> None:
    places = table["latitude"].to_numpy(), table["longitude"].to_numpy()
    plots.dot_map(path, f"{name}: {table.num_rows:,} photos", {name: places})
