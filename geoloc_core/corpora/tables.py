"""CSV files that others wrote, as data frames of text, so that each mistake can be named with its row."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from geoloc_core import tables
from geoloc_core.blocks import blocks

if TYPE_CHECKING:
    import pandas as pd

CHUNK = 8192
KEY = "image_id"
"""What names a photo beside whatever its corpus publishes of it."""


def csv_chunks(
    path: Path, columns: tuple[str, ...], header: bool = True, taken: Collection[str] = ()
) -> Iterator["pd.DataFrame"]:
    """A CSV as text, in pieces; an empty cell is an empty string.

    Args:
        path: The file, UTF-8.
        columns: The columns it must have, called so whatever their case there.
        header: Whether the file names its columns; else they are ``columns``, in that order.
        taken: Names that a further column cannot keep, beside :data:`KEY`: it is called ``table_`` and its name.

    Yields:
        At most :data:`CHUNK` rows, indexed by the row's number as a spreadsheet shows it: the header is row 1. A table
        without rows yields one empty piece.

    Raises:
        UserError: The file is missing, is not a CSV or lacks a column.
    """
    import pandas as pd

    table = tables.read_csv(path, columns, header)
    names = _named(table.names, tables.columns_of(path, table.names, columns), {KEY, *taken})
    empty = True
    for part in table.parts:
        for rows in blocks(part.batch.num_rows, CHUNK):
            piece = part.batch[rows].to_pandas().set_axis(names, axis=1)
            yield piece.set_axis(pd.Index(part.numbers[rows]))
            empty = False
    if empty:
        yield pd.DataFrame({name: pd.Series(dtype=str) for name in names})


def _named(names: list[str], known: dict[str, str], taken: Collection[str]) -> list[str]:
    """What columns are called here."""
    ours = {own: name for name, own in known.items()}
    found = [ours.get(name, name) for name in names]
    used = {*found, *taken}
    for place, name in enumerate(found):
        if names[place] not in ours and name in taken:
            while name in used:
                name = f"table_{name}"
            used.add(name)
            found[place] = name
    return found


def read_csv(path: Path, columns: tuple[str, ...], header: bool = True) -> "pd.DataFrame":
    """A CSV whole; see :func:`csv_chunks`."""
    import pandas as pd

    return pd.concat(list(csv_chunks(path, columns, header)))
