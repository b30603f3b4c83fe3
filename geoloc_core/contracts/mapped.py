"""Large arrays of a model in a safetensors file that is mapped into memory: only what is used is read.

The library's own reader and writer copy every array, which 10 GB of embeddings do not allow.
"""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from geoloc_core.errors import UserError
from geoloc_core.plugins import Strict, ValidationError

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I8": "<i1", "U8": "<u1"}
"""The format's names of the types of numbers that are kept so."""
LENGTH = 8
"""Bytes that hold the length of the header; the header is a multiple of as many, so that all numbers are aligned."""


class Entry(Strict):
    """What the header says of an array."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays one after the other, those of the widest numbers first.

    Args:
        path: A file ``*.safetensors``.
        arrays: By name, of the types in :data:`DTYPES`.
    """
    ordered = dict(sorted(arrays.items(), key=lambda item: -item[1].itemsize))
    with path.open("wb") as stream:
        stream.write(_header({name: (array.dtype, array.shape) for name, array in ordered.items()}))
        for array in ordered.values():
            np.ascontiguousarray(array).tofile(stream)


def write_rows(path: Path, name: str, dtype: np.dtype, shape: tuple[int, ...], blocks: Iterable[np.ndarray]) -> None:
    """Write one array whose rows come block by block, in order.

    Args:
        path: A file ``*.safetensors``.
        name: Of the array.
        dtype: Of the array, one of :data:`DTYPES`.
        shape: Of the whole array.
        blocks: Its rows.
    """
    with path.open("wb") as stream:
        stream.write(_header({name: (dtype, shape)}))
        for block in blocks:
            np.ascontiguousarray(block, dtype).tofile(stream)


def _header(arrays: Mapping[str, tuple[np.dtype, tuple[int, ...]]]) -> bytes:
    """The head of a file of arrays that follow each other, with its length."""
    names = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
    entries, end = {}, 0
    for name, (dtype, shape) in arrays.items():
        start, end = end, end + math.prod(shape) * dtype.itemsize
        entries[name] = {"dtype": names[dtype], "shape": list(shape), "data_offsets": [start, end]}
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % LENGTH)
    return len(header).to_bytes(LENGTH, "little") + header


def read(path: Path, remedy: str) -> dict[str, np.ndarray]:
    """The arrays of a file, by name, mapped into memory.

    Raises:
        UserError: It is missing, cut off, or no such file.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; {remedy}")
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(LENGTH), "little")
        header = stream.read(length) if LENGTH + length <= size else b""
    try:
        entries = {name: Entry.model_validate(entry) for name, entry in json.loads(header).items()}
    except (ValueError, AttributeError, RecursionError, ValidationError):
        raise UserError(f"{path}: damaged, or not a safetensors file; {remedy}") from None
    first = LENGTH + length
    if size != first + max((entry.data_offsets[1] for entry in entries.values()), default=0):
        raise UserError(f"{path}: cut off, or longer than its header says; {remedy}")
    return {name: _mapped(path, first, name, entry, remedy) for name, entry in entries.items()}


def _mapped(path: Path, first: int, name: str, entry: Entry, remedy: str) -> np.ndarray:
    start, end = entry.data_offsets
    dtype = np.dtype(DTYPES.get(entry.dtype, "V1"))
    count = math.prod(entry.shape)
    if entry.dtype not in DTYPES or min(entry.shape, default=0) < 0 or end - start != count * dtype.itemsize:
        raise UserError(f"{path}: {name}: {entry.dtype} {entry.shape} in {end - start} bytes; {remedy}")
    if not count:
        return np.empty(entry.shape, dtype)
    return np.memmap(path, dtype, "r", first + start, entry.shape)
