"""Points from a CSV or Parquet file, and columns added to it."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from geoloc_core import files
from geoloc_core.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("latitude", "longitude")
LIMITS = (90.0, 180.0)


def read(path: Path) -> "pd.DataFrame":
    """A table with float ``latitude`` and ``longitude``; other columns stay as they are.

    Raises:
        UserError: The file is missing or broken, a column is missing, or a coordinate is none: its row is named, as
            a spreadsheet counts it for CSV, from 0 for Parquet.
    """
    table = _parquet(path) if path.suffix.lower() in (".parquet", ".pq") else _csv(path)
    for column, limit in zip(COLUMNS, LIMITS, strict=True):
        table[column] = _numbers(table[column], limit, f"{path}: column {column}")
    return table


def _csv(path: Path) -> "pd.DataFrame":
    from geoloc_core.corpora.tables import read_csv

    return read_csv(path, COLUMNS)


def _parquet(path: Path) -> "pd.DataFrame":
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; expected points with columns {', '.join(COLUMNS)}") from None
    except (pa.ArrowInvalid, OSError):
        raise UserError(f"{path}: not a Parquet file; expected points with columns {', '.join(COLUMNS)}") from None
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise UserError(f"{path}: no column {', '.join(missing)}; found {', '.join(table.column_names)}")
    return table.to_pandas()


def _numbers(values: "pd.Series", limit: float, where: str) -> np.ndarray:
    import pandas as pd

    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = ~(np.abs(numbers) <= limit)
    if wrong.any():
        row = int(wrong.argmax())
        raise UserError(
            f"{where}, row {values.index[row]}: {str(values.iloc[row])!r}; expected −{limit:g} … {limit:g} degrees; "
            f"mend or remove the row ({int(wrong.sum()):,} such)"
        )
    return numbers


def write(table: "pd.DataFrame", path: Path) -> None:
    """Write a table as CSV or Parquet, by the name of the file."""
    with files.replacing(path) as aside:
        if path.suffix.lower() in (".parquet", ".pq"):
            table.to_parquet(aside, index=False)
        else:
            table.to_csv(aside, index=False, lineterminator="\n")
