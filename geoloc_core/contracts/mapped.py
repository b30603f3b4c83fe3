"""One large float16 array in a file of its own: written block by block, opened without being read.

The file is a ``safetensors`` file with one tensor; the library's own writer would hold a second copy in memory.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from geoloc_core.errors import UserError

HALF = np.dtype("<f2")
ALIGN = 8


def write_mapped(path: Path, name: str, shape: tuple[int, ...], blocks: Iterable[np.ndarray]) -> None:
    """Write an array whose rows come block by block.

    Args:
        path: The file.
        name: Of the array.
        shape: Of the whole array.
        blocks: Its rows, in order.
    """
    size = int(np.prod(shape, dtype=np.int64)) * HALF.itemsize
    head = json.dumps({name: {"dtype": "F16", "shape": list(shape), "data_offsets": [0, size]}}).encode()
    head += b" " * (-len(head) % ALIGN)
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for block in blocks:
            file.write(np.ascontiguousarray(block, HALF).data)


def open_mapped(path: Path, name: str, remedy: str) -> np.ndarray:
    """What :func:`write_mapped` wrote, memory-mapped and read-only.

    Raises:
        UserError: The file is missing, damaged, or does not hold the array.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:  # which checks that the file is whole
            found = list(file.keys())
        with path.open("rb") as raw:
            length = int.from_bytes(raw.read(8), "little")
            said = json.loads(raw.read(length))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {remedy}") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a safetensors file: {error}; {remedy}") from None
    if name not in found or said[name]["dtype"] != "F16":
        raise UserError(f"{path}: no float16 tensor {name!r}; {remedy}")
    shape, start = tuple(said[name]["shape"]), 8 + length + said[name]["data_offsets"][0]
    return np.memmap(path, HALF, "r", start, shape) if np.prod(shape) else np.empty(shape, HALF)
