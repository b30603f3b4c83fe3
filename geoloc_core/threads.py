"""How many threads a stage computes with.

It is part of what pre-training makes, since gradients are summed in another order and end in other digits; the features
of a tower and the training of heads were the same bit by bit with 1, 2, 3 and 8.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

VARIABLE = "OMP_NUM_THREADS"


def limit(threads: int | None) -> None:
    """Compute with so many threads in this process, whatever library does it; None leaves each its own default.

    Torch reads the variable when it is imported; NumPy's library has been loaded by then and is told directly.
    """
    if threads is None:
        return
    from threadpoolctl import threadpool_limits

    os.environ[VARIABLE] = str(threads)
    threadpool_limits(threads)


def limited() -> int:
    """The number of threads in force, or 0 where none is stated."""
    stated = os.environ.get(VARIABLE, "")
    return int(stated) if stated.isascii() and stated.isdigit() else 0


def workers() -> int:
    """How many threads work side by side: those in force, else one for each of the machine's cores."""
    return limited() or os.cpu_count() or 1


def side_by_side(work: Callable[[Any], None], parts: Iterable[Any]) -> None:
    """Work on the parts on all threads that there may be, NumPy with one in each: most parts are too small for more."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, "blas"), ThreadPoolExecutor(workers()) as pool:
        list(pool.map(work, parts))
