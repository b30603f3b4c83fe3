"""Retrying with a smaller batch when memory runs out."""

from collections.abc import Callable
from typing import Any

import numpy as np

from geoloc_core.errors import UserError, in_a_line
from geoloc_core.progress import say

MESSAGES = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "failed to allocate",
    "alloc_failed",
    "bad_alloc",
)
"""Messages of allocators without an exception class of their own: torch's on the CPU, cuBLAS's, onnxruntime's."""


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the device or on the machine."""
    return isinstance(error, MemoryError) or (
        isinstance(error, Exception)
        and not isinstance(error, UserError)
        and any(message in str(error).lower() for message in MESSAGES)
    )


class Halving:
    """A forward that halves its batch when memory runs out, says so, and continues.

    Args:
        forward: N photos → what is found for each: (N, size, size, 3) uint8 → (N, *shape) float32, or of other types.
        join: Puts together what was found for pieces of a batch.
    """

    def __init__(self, forward: Callable[[Any], Any], join: Callable[[list[Any]], Any] = np.concatenate) -> None:
        self.forward, self._join = forward, join
        self.batch: int | None = None
        """The current batch size; None while whole batches fit."""

    @property
    def precision(self) -> str:
        """What it computes in."""
        return getattr(self.forward, "precision", "fp32")

    @property
    def fills(self) -> bool:
        """Whether to pad an incomplete batch to its full size."""
        return getattr(self.forward, "fills", False) and self.batch is None

    def __call__(self, photos: Any) -> Any:
        """What is found for N photos.

        Raises:
            UserError: Not even one photo fits.
        """
        return self.start(photos)()

    def start(self, photos: np.ndarray) -> Callable[[], np.ndarray]:
        """Start on N photos, which must not change until the returned function has returned their features."""
        begin: Any = getattr(self.forward, "start", None)
        if begin is None or self.batch:
            return lambda: self._in_pieces(photos)
        try:
            wait = begin(photos)
        except Exception as error:  # any: every allocator has its own class; what is no lack of memory is raised again
            self._halve(error, len(photos))
            return lambda: self._in_pieces(photos)
        return lambda: self._or_in_pieces(wait, photos)

    def _or_in_pieces(self, wait: Callable[[], np.ndarray], photos: np.ndarray) -> np.ndarray:
        try:
            return wait()
        except Exception as error:  # any: as above
            self._halve(error, len(photos))
            return self._in_pieces(photos)

    def _in_pieces(self, photos: Any) -> Any:
        results: list[Any] = []
        done = 0
        while done < len(photos):
            piece = photos[done : done + (self.batch or len(photos))]
            try:
                result = self.forward(piece)
            except Exception as error:  # any: as above
                self._halve(error, len(piece))
            else:
                results.append(result)
                done += len(piece)
        return results[0] if len(results) == 1 else self._join(results)

    def _halve(self, error: Exception, rows: int) -> None:
        if not ran_out(error):
            raise error
        free()
        if rows == 1:
            raise UserError(
                f"out of memory with one photo: {in_a_line(error, 200)}; choose a smaller encoder"
            ) from None
        self.batch = max(1, rows // 2)
        say(f"out of memory with a batch of {rows} photos; continuing with {self.batch}")


def free() -> None:
    """Give the memory of a GPU back that torch holds and nothing uses."""
    import sys

    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
