"""CSV files that others wrote, read as text, so that each mistake can be named with its row."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from geoloc_core.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

CHUNK = 8192


def csv_chunks(path: Path, columns: tuple[str, ...], header: bool = True) -> Iterator["pd.DataFrame"]:
    """A CSV as text, in pieces; an empty cell is an empty string.

    Args:
        path: The file, UTF-8.
        columns: The columns it must have.
        header: Whether the file names its columns; else they are ``columns``, in that order.

    Yields:
        At most :data:`CHUNK` rows, indexed by the row's number as a spreadsheet shows it: the header is row 1. Of a
        table without rows one piece without any.

    Raises:
        UserError: The file is missing, is no CSV or lacks a column.
    """
    import pandas as pd

    names, start = (None, 2) if header else (list(columns), 1)
    try:
        with pd.read_csv(
            path,
            dtype=str,
            keep_default_na=False,
            encoding="utf-8-sig",
            names=names,
            index_col=False,
            chunksize=CHUNK,
        ) as reader:
            while (chunk := _next(reader)) is not None:
                _require(path, columns, chunk)
                yield chunk.set_axis(chunk.index + start).fillna("")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; expected a CSV with columns {', '.join(columns)}") from None
    except pd.errors.ParserWarning:
        raise UserError(f"{path}: the rows have more cells than the header; expected as many") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError) as error:
        why = " ".join(str(error).split())
        raise UserError(f"{path}: not a readable CSV: {why}; expected columns {', '.join(columns)}") from None


def _next(reader: Iterator["pd.DataFrame"]) -> "pd.DataFrame | None":
    import pandas as pd

    with warnings.catch_warnings():
        # Pandas would drop the cells beyond the header's, and only warn.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        return next(reader, None)


def _require(path: Path, columns: tuple[str, ...], chunk: "pd.DataFrame") -> None:
    missing = [name for name in columns if name not in chunk.columns]
    if missing:
        found = " ".join(", ".join(chunk.columns).split())
        raise UserError(f"{path}: no column {', '.join(missing)}; expected {', '.join(columns)}, got {found}")


def read_csv(path: Path, columns: tuple[str, ...], header: bool = True) -> "pd.DataFrame":
    """A CSV whole; see :func:`csv_chunks`."""
    import pandas as pd

    return pd.concat(list(csv_chunks(path, columns, header)))
