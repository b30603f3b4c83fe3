"""Tables that others wrote, and CSVs of ours: the one place that judges the encoding, header and numbers of tables.

A CSV is UTF-8, with a header and commas. Its rows have the numbers that a spreadsheet shows: the first line is row 1,
a blank line is a row, a cell with line breaks does not make several. A row whose cells are all empty is blank too.
"""

import csv
import io
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np

from geoloc_core.errors import UserError, in_a_line

if TYPE_CHECKING:
    import pyarrow as pa

MAX_COLUMNS = 5_000
"""Tables of points or photos have fewer. Each column takes memory, whatever it contains."""
HEAD_BYTES = 1 << 20
"""The header is within the first bytes, this many."""
HEAD_ROWS = 20
"""How far down a header that is not in the first row is looked for, to say where it is."""
LINE = 1 << 16
"""Characters of a line that are looked at for it: a cell that Python's reader takes has no more than twice as many."""
SHOWN = 20
"""Names of columns that a message lists."""
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
MARKS = {b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
"""How text in other encodings begins."""
NUMBER = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
"""A plain decimal number, as a regular expression."""
PLAIN = re.compile(NUMBER, re.ASCII)
COMMA = re.compile(r"\s*[+-]?[0-9]+,[0-9]+\s*", re.ASCII)
SEXAGESIMAL = re.compile(r"""[0-9]\s*[°º'′"″NSEWnsew]|[NSEWnsew]\s*[0-9]""", re.ASCII)


class CsvWriter:
    """Writes rows as CSV, each ended by a newline, so that any reader reads the cells as they are.

    Python before 3.13 quotes no carriage return, though its own reader takes one for the end of a line: a row that has
    one is quoted whole.

    Args:
        stream: A text stream without translation of newlines.
    """

    def __init__(self, stream: TextIO) -> None:
        self._plain = csv.writer(stream, lineterminator="\n")
        self._quoting = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL)

    def writerow(self, row: Iterable[object]) -> None:
        """Write one row."""
        cells = list(row)
        has_return = any(isinstance(cell, str) and "\r" in cell for cell in cells)
        (self._quoting if has_return else self._plain).writerow(cells)

    def writerows(self, rows: Iterable[Iterable[object]]) -> None:
        """Write many rows."""
        for row in rows:
            self.writerow(row)


@dataclass(frozen=True)
class Part:
    """Rows of a table.

    Attributes:
        numbers: (N,) their numbers.
        batch: N rows.
    """

    numbers: "Sequence[int] | np.ndarray"
    batch: "pa.RecordBatch"


@dataclass(frozen=True)
class Csv:
    """A CSV that is read once, in parts.

    Attributes:
        names: Its columns, spaces around them taken off; one without a name is called ``unnamed_`` and its place.
        parts: Its rows, all cells text; an empty cell is an empty text.
    """

    names: list[str]
    parts: Iterator[Part]


def read_csv(path: Path, wanted: Sequence[str], header: bool = True, megabytes: int = 1) -> Csv:
    """Read the header of a CSV, and its rows as they are asked for.

    Args:
        path: The file.
        wanted: The columns it must have, if any.
        header: Whether it names its columns; else they are ``wanted``, in that order.
        megabytes: How much of it is read at once; no row may be longer.

    Raises:
        UserError: The file is missing or not such a CSV. Later rows are judged while the parts are read.
    """
    expected = f"expected a CSV with columns {', '.join(wanted)}" if wanted else "expected a CSV"
    try:
        head = _head(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {expected}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {expected}") from None
    if not header:
        if not head.text.strip():
            raise UserError(f"{path}: empty; {expected}")
        _check_commas(path, head, len(wanted))
        return Csv(list(wanted), _parts(path, list(wanted), 1, head.start, megabytes))
    row, cells, start = _header(path, head, expected)
    names = [name.strip() or f"unnamed_{place}" for place, name in enumerate(cells, 1)]
    if _missing(names, wanted):
        _say_what_it_is(path, head, row, wanted)
    check_names(path, names)
    columns_of(path, names, wanted)
    return Csv(names, _parts(path, names, row + 1, start, megabytes))


def check_names(path: Path, names: Sequence[str]) -> None:
    """Refuse a table's header that is too wide or names a column twice.

    Raises:
        UserError: It does.
    """
    _check_width(path, names)
    met: set[str] = set()
    for name in names:
        if name in met:
            raise UserError(
                f"{path}: {names.count(name)} columns named {name}; expected one: rename or remove the others"
            )
        met.add(name)


def _check_width(path: Path, names: Sequence[str]) -> None:
    if len(names) > MAX_COLUMNS:
        raise UserError(
            f"{path}: {len(names):,} columns; at most {MAX_COLUMNS:,} are read: leave out those that are not needed"
        )


def columns_of(path: Path, names: Sequence[str], wanted: Iterable[str]) -> dict[str, str]:
    """A table's own names of the columns it must have: the same, or else the only one that differs in case or spaces.

    Raises:
        UserError: One is missing, or several differ in case alone.
    """
    wanted = list(wanted)
    missing = _missing(names, wanted)
    if missing:
        more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
        found = " ".join(", ".join(names[:SHOWN]).split()) + more
        raise UserError(f"{path}: no column {', '.join(missing)}; expected {', '.join(wanted)}, got {found}")
    found_as = {name: _alike(names, name) for name in wanted}
    for name, own in found_as.items():
        if len(own) > 1:
            raise UserError(f"{path}: columns {', '.join(own)}; expected one {name}: rename the others")
    return {name: own[0] for name, own in found_as.items()}


def _missing(names: Sequence[str], wanted: Iterable[str]) -> list[str]:
    return [name for name in wanted if not _alike(names, name)]


def _alike(names: Sequence[str], name: str) -> list[str]:
    return [name] if name in names else [own for own in names if own.strip().casefold() == name.casefold()]


def numbers(text: "pa.Array") -> np.ndarray:
    """Text (N,) as float64 (N,), exactly; NaN where it is not a plain decimal number, spaces around it aside."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        if pc.any(pc.starts_with(text, "+-")).as_py():
            raise pa.ArrowInvalid("Arrow takes it for a number below zero")
        # What else this takes for a number is a plain one, an infinite one or none.
        cast = text.cast(pa.float64())
    except pa.ArrowInvalid:
        bare = pc.utf8_trim_whitespace(text)
        cast = pc.if_else(pc.match_substring_regex(bare, f"^{NUMBER}$"), bare, None).cast(pa.float64())
    values = cast.to_numpy(zero_copy_only=False)
    finite = np.isfinite(values)
    return values if finite.all() else np.where(finite, values, np.nan)


def number(text: str) -> float:
    """Text as :func:`numbers` reads it; NaN where it is none."""
    bare = text.strip()
    value = float(bare) if PLAIN.fullmatch(bare) else math.nan
    return value if math.isfinite(value) else math.nan


def advice(text: str) -> str:
    """How to write a number of degrees instead, where it can be guessed what was meant; else nothing."""
    if COMMA.fullmatch(text):
        return "; use a decimal point instead of a comma"
    if SEXAGESIMAL.search(text):
        return "; use decimal degrees, negative for south and west"
    return ""


@dataclass(frozen=True)
class _Head:
    """The beginning of a file.

    Attributes:
        text: Its text; bytes that are not UTF-8 are surrogates.
        start: Bytes before the text.
        whole: Whether it is the whole file.
    """

    text: str
    start: int
    whole: bool


def _head(path: Path) -> _Head:
    with path.open("rb") as stream:
        data = stream.read(HEAD_BYTES)
        whole = not stream.read(1)
    for mark, encoding in MARKS.items():
        if data.startswith(mark):
            raise _in_another(path, encoding)
    nuls = data[:HEAD_BYTES].count(0)
    if nuls > len(data) / 4:
        raise _in_another(path, "UTF-16")
    if nuls and 0 in data[: data.find(b"\n") + 1 or None]:
        raise UserError(f"{path}: not a text file, it contains zero bytes; expected a CSV")
    start = 3 if data.startswith(b"\xef\xbb\xbf") else 0
    return _Head(data[start:].decode("utf-8", "surrogateescape"), start, whole)


def _in_another(path: Path, encoding: str) -> UserError:
    return UserError(
        f"{path}: its encoding is {encoding}; expected UTF-8: save it as 'CSV UTF-8', "
        f"or convert it: iconv -f {encoding} -t UTF-8"
    )


def _not_utf8(path: Path, row: str, cells: Iterable[str]) -> UserError:
    cell = next((cell for cell in cells if not _is_utf8(cell)), "")
    shown = cell.encode("utf-8", "surrogateescape").decode("cp1252", "replace")[:40]
    return UserError(
        f"{path}: {row} is not UTF-8, but perhaps Windows-1252 or Latin-1 ({shown!r}); expected UTF-8: "
        "save it as 'CSV UTF-8', or convert it: iconv -f WINDOWS-1252 -t UTF-8"
    )


def _is_utf8(text: str) -> bool:
    return not any("\udc80" <= letter <= "\udcff" for letter in text)


def _header(path: Path, head: _Head, expected: str) -> tuple[int, list[str], int]:
    """The first row that is not blank: its number, its cells, and the byte behind it."""
    end = 0

    def lines() -> Iterator[str]:
        nonlocal end
        for line in io.StringIO(head.text, newline=""):
            end += len(line)
            yield line

    nothing: tuple[int, list[str]] = 1, []
    try:
        filled = (found for found in enumerate(csv.reader(lines()), 1) if any(map(str.strip, found[1])))
        row, cells = next(filled, nothing)
    except csv.Error:  # a cell too long for a name
        row, cells = nothing
        end = len(head.text)
    if end == len(head.text) and not head.whole:
        raise UserError(f"{path}: its header is longer than {HEAD_BYTES >> 20} MB; {expected}, {MAX_COLUMNS:,} at most")
    if not cells:
        raise UserError(f"{path}: empty; {expected}")
    if not all(map(_is_utf8, cells)):
        raise _not_utf8(path, f"row {row}", cells)
    _check_width(path, cells)
    return row, cells, head.start + len(head.text[:end].encode("utf-8", "surrogateescape"))


def _say_what_it_is(path: Path, head: _Head, row: int, wanted: Sequence[str]) -> None:
    """Find out whether a file without the wanted columns has them in another form.

    Raises:
        UserError: It has.
    """
    lines = [line[:LINE] for line, _ in zip(io.StringIO(head.text, newline=""), range(HEAD_ROWS), strict=False)]
    header: tuple[int, str] | None = None
    for number, line in enumerate(lines[row - 1 :], row):
        for delimiter in DELIMITERS:
            cells = next(csv.reader([line], delimiter=delimiter), [])
            if not _missing(cells, wanted):
                header = header or (number, delimiter)
    first = lines[row - 1]
    if header is None and "," not in first:
        # What it names are others, but they would be none at all with commas.
        header = next(((row, delimiter) for delimiter in DELIMITERS if delimiter in first), None)
    if header:
        raise UserError(
            f"{path}: row {header[0]} looks like its header, {DELIMITERS[header[1]]} between the columns; expected it "
            "as the first row, commas between the columns and points in numbers: save the table in that form"
        )


def _check_commas(path: Path, head: _Head, width: int) -> None:
    """Refuse a file without a header if its first row is complete but has another separator."""
    row, first = next(found for found in enumerate(io.StringIO(head.text, newline=""), 1) if found[1].strip())
    cells = {delimiter: next(csv.reader([first[:LINE]], delimiter=delimiter), []) for delimiter in DELIMITERS}
    if len(cells[","]) != width:
        for delimiter, name in DELIMITERS.items():
            if len(cells[delimiter]) == width:
                raise UserError(
                    f"{path}: row {row}: {name} between the columns; expected commas: save the table in that form"
                )


def _parts(path: Path, names: list[str], first: int, start: int, megabytes: int) -> Iterator[Part]:
    """The rows from a byte on, where the row of that number begins."""
    import pyarrow as pa
    from pyarrow import csv as arrow

    number, last = first, None
    try:
        with pa.OSFile(os.fsencode(path)) as file:
            file.seek(start)
            if start == file.size():
                return
            with arrow.open_csv(
                file,
                arrow.ReadOptions(column_names=names, block_size=megabytes << 20),
                # A blank line comes as a row of empty cells, so that rows can be counted.
                arrow.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
                arrow.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False),
            ) as batches:
                for batch in batches:
                    last = batch if batch.num_rows else last
                    yield _filled(range(number, number + batch.num_rows), batch)
                    number += batch.num_rows
    except (pa.ArrowInvalid, OSError) as error:
        raise _broken(path, len(names), error) from None
    if last is not None and _is_open(path, last.column(len(names) - 1)[-1].as_py()):
        raise _unclosed(path, "the last row")


def _filled(rows: range, batch: "pa.RecordBatch") -> Part:
    """The rows that are not blank."""
    import pyarrow.compute as pc

    blank = pc.equal(batch.column(0), "")
    if not pc.any(blank).as_py():
        return Part(rows, batch)
    for column in batch.columns[1:]:
        blank = pc.and_(blank, pc.equal(column, ""))
    kept = pc.invert(blank)
    return Part(np.asarray(rows)[kept.to_numpy(zero_copy_only=False)], batch.filter(kept))


def _is_open(path: Path, cell: str) -> bool:
    """Whether the last cell of a file ends with the file, and not with its quote."""
    if "\n" not in cell and "\r" not in cell:
        return False
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - 64))
        return not stream.read().rstrip().endswith(b'"')


def _broken(path: Path, width: int, error: Exception) -> UserError:
    """What is wrong with the rows of a CSV."""
    uneven = re.search(r"Expected \d+ columns, got (\d+)", str(error))
    if uneven:
        row, cells = _first(path, lambda cells: bool(cells) and len(cells) != width)
        if cells and _is_open(path, cells[-1]):
            return _unclosed(path, row)
        has = f"{uneven[1]} cell{'s' * (uneven[1] != '1')}"
        return UserError(f"{path}: {row}: {has}; expected {width}, and quotes around a cell with a comma")
    if "invalid UTF8" in str(error):
        return _not_utf8(path, *_first(path, lambda cells: not all(map(_is_utf8, cells))))
    if "straddling" in str(error):
        return UserError(f"{path}: a row is too long to be read; expected quotes that are closed")
    return UserError(f"{path}: not a CSV that can be read: {in_a_line(error)}")


def _unclosed(path: Path, row: str) -> UserError:
    return UserError(f"{path}: {row}: a quote is opened and never closed; expected one at the end of its cell")


def _first(path: Path, wrong: Callable[[list[str]], bool]) -> tuple[str, list[str]]:
    """The first row of a CSV that is wrong."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        try:
            return next((f"row {row}", cells) for row, cells in enumerate(csv.reader(stream), 1) if wrong(cells))
        except (csv.Error, StopIteration):
            return "a row", []
