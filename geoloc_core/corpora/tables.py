"""CSV files that others wrote, read as text, so that each mistake can be named with its row."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from geoloc_core.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


def read_csv(path: Path, columns: tuple[str, ...], header: bool = True) -> "pd.DataFrame":
    """A CSV as text; an empty cell is an empty string.

    Args:
        path: The file, UTF-8.
        columns: The columns it must have.
        header: Whether the file names its columns; else they are ``columns``, in that order.

    Returns:
        The table, indexed by the row's number as a spreadsheet shows it: the header is row 1.

    Raises:
        UserError: The file is missing, is no CSV or lacks a column.
    """
    import pandas as pd

    names = None if header else list(columns)
    try:
        with warnings.catch_warnings():
            # Pandas would drop the cells beyond the header's, and only warn.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                path, dtype=str, keep_default_na=False, encoding="utf-8-sig", names=names, index_col=False
            )
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; expected a CSV with columns {', '.join(columns)}") from None
    except pd.errors.ParserWarning:
        raise UserError(f"{path}: the rows have more cells than the header; expected as many") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path}: not a readable CSV: {' '.join(str(error).split())}") from None
    missing = [name for name in columns if name not in table.columns]
    if missing:
        found = " ".join(", ".join(table.columns).split())
        raise UserError(f"{path}: no column {', '.join(missing)}; expected {', '.join(columns)}, got {found}")
    table.index = pd.RangeIndex(2 if header else 1, len(table) + (2 if header else 1))
    return table.fillna("")
