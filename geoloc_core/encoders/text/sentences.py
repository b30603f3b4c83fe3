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

SCHEMA = pa.schema([pa.field("id", pa.string(), nullable=False), pa.field("text", pa.string(), nullable=False)])


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
    }
    write_json(project.summary("texts", name), figures)
    say(f"texts {name}: {len(lengths):,} of {source.path}, {empty:,} of them empty")


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
    columns = (source.text, *((source.id,) if source.id else ()))
    table = _columns(path, columns)
    sentences = [str(value if value is not None else "") for value in table[source.text]]
    ids = [str(value) for value in table[source.id]] if source.id else [str(row) for row in range(len(sentences))]
    if len(set(ids)) < len(ids):
        seen: set[str] = set()
        twice = next(name for name in ids if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise UserError(f"{path}: {source.id} {twice!r} occurs more than once; expected a unique id in each row")
    return pa.table({"id": ids, "text": sentences}, SCHEMA)


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
