"""Large arrays of a model in a safetensors file that is mapped into memory: only what is used is read.

The library's own reader and writer copy every array, which 10 GB of embeddings do not allow.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from geoloc_core.errors import UserError
from geoloc_core.plugins import Strict, ValidationError

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4"}
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
    names = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
    ordered = sorted(arrays.items(), key=lambda item: -item[1].itemsize)
    entries, end = {}, 0
    for name, array in ordered:
        start, end = end, end + array.nbytes
        entries[name] = {"dtype": names[array.dtype], "shape": list(array.shape), "data_offsets": [start, end]}
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % LENGTH)
    with path.open("wb") as stream:
        stream.write(len(header).to_bytes(LENGTH, "little") + header)
        for _, array in ordered:
            np.ascontiguousarray(array).tofile(stream)


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
