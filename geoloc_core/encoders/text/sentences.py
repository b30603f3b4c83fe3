"""Sentences to encode: clues of a guidebook, captions of a corpus, or a column of any table."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from geoloc_core import parquet, tables
from geoloc_core.errors import UserError, in_a_line
from geoloc_core.files import replacing, write_json
from geoloc_core.params import Texts, entry
from geoloc_core.progress import say
from geoloc_core.project import Project

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("countries", pa.list_(pa.string()), nullable=False),
    ]
)
"""``countries`` that a sentence is about, as ISO 3166-1 alpha-3 codes; empty where nothing is known."""


def texts(project: Project, name: str) -> None:
    """Gather sentences as ``id`` and ``text``: the stage ``geoloc texts NAME``.

    Raises:
        UserError: The table is missing, lacks a column, or its ids are not unique.
    """
    source = entry(project.profile.texts, name, "texts")
    table = gathered(source, project.root / source.path)
    path = project.texts(name)
    with replacing(path) as aside:
        parquet.write(table, aside)
    lengths = [len(text) for text in table["text"].to_pylist()]
    empty = sum(not length for length in lengths)
    figures = {
        "rows": len(lengths),
        "empty": empty,
        "distinct": len(table["text"].unique()),
        "mean_characters": round(sum(lengths) / max(1, len(lengths)), 1),
        "about_a_country": sum(bool(named) for named in table["countries"].to_pylist()),
    }
    write_json(project.summary("texts", name), figures)
    say(f"texts {name}: {len(lengths):,} of {source.path}, {empty:,} of them empty")


def read(project: Project, name: str) -> pa.Table:
    """Sentences as :func:`texts` wrote them.

    Raises:
        UserError: There are none yet, or the table is damaged or of another version.
    """
    remedy = f"run `geoloc texts {name}`"
    table = parquet.read(project.texts(name), remedy, SCHEMA.names)
    if table.schema.types != SCHEMA.types:
        raise UserError(f"{project.texts(name)}: not sentences of this version; {remedy}")
    return table


def gathered(source: Texts, path: Path) -> pa.Table:
    """One row per row of the table, in order; a missing sentence becomes an empty one.

    Args:
        source: Which columns.
        path: The table.

    Returns:
        Rows of :data:`SCHEMA`.

    Raises:
        UserError: The table is missing, lacks a column, or its ids are not unique.
    """
    columns = (source.text, *filter(None, (source.id, source.country)))
    found = _columns(path, columns)
    sentences = [str(value if value is not None else "") for value in found[source.text]]
    ids = [str(value) for value in found[source.id]] if source.id else [str(row) for row in range(len(sentences))]
    if len(set(ids)) < len(ids):
        seen: set[str] = set()
        twice = next(name for name in ids if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise UserError(f"{path}: {source.id} {twice!r} occurs more than once; expected a unique id in each row")
    about = found[source.country] if source.country else [None] * len(sentences)
    countries = [_countries(value, f"{path}: row {row + 1}: {source.country}") for row, value in enumerate(about)]
    return pa.table({"id": ids, "text": sentences, "countries": countries}, SCHEMA)


def _countries(value: Any, where: str) -> list[str]:
    """Alpha-3 codes of the countries that a cell names: codes or names, or a list of them or of places in them."""
    match value:
        case None | float():
            return []
        case str():
            named: list[str] = [part.strip() for part in value.split(";") if part.strip()]
            return sorted({_code(name, where) for name in named})
        case dict():
            return _countries(value.get("Country"), where)
        case list() | tuple():
            return sorted({code for inner in value for code in _countries(inner, where)})
    raise UserError(f"{where}: {value!r}; expected the name or the ISO 3166-1 code of a country")


def _code(name: str, where: str) -> str:
    from geoloc_core.corpora.countries import alpha3, iso3

    known = alpha3()
    found = known.get(name) or (name if name in known.values() else iso3(name))
    if found is None:
        raise UserError(f"{where}: {name!r}; expected the name or the ISO 3166-1 code of a country")
    return found


def _columns(path: Path, names: tuple[str, ...]) -> dict[str, list[Any]]:
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a table with {', '.join(names)}; run the earlier stages first")
    if path.suffix.lower() == ".csv":
        from geoloc_core.corpora.tables import read_csv

        table = read_csv(path, names)
        return {name: table[name].tolist() for name in names}
    if path.suffix.lower() == ".parquet":
        return _of_parquet(path, names)
    if path.suffix.lower() == ".json":
        return _of_json(path, names)
    raise UserError(f"{path}: expected a .csv, a .parquet or a .json")


def _of_parquet(path: Path, names: tuple[str, ...]) -> dict[str, list[Any]]:
    remedy = "mend it or run the stage that writes it"
    known = parquet.schema(path, remedy).names
    tables.check_names(path, known)
    own = tables.columns_of(path, known, names)
    table = parquet.read(path, remedy, list(own.values()))
    return {name: table[own[name]].to_pylist() for name in names}


def _of_json(path: Path, names: tuple[str, ...]) -> dict[str, list[Any]]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable JSON: {in_a_line(error)}") from None
    if not isinstance(rows, list):
        raise UserError(f"{path}: a {type(rows).__name__}; expected a list of objects with {', '.join(names)}")
    for number, row in enumerate(rows):
        for name in names:
            if not isinstance(row, dict) or name not in row:
                raise UserError(f"{path}: entry {number} has no {name!r}; every entry needs it")
    return {name: [row[name] for row in rows] for name in names}
