"""How much memory a process holds, as Linux tells it: ``python tests/benchmarks/memory.py ingest mp16 …``.

``resource.getrusage`` is of no use for that: its peak is also that of the process that started this one.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STATUS = Path("/proc/self/status")


def peak() -> int:
    """The most that this process has held so far, with the pages of mapped files: bytes."""
    return _told("VmHWM")


def anonymous() -> int:
    """What this process holds now that is its own, without the pages of mapped files: bytes."""
    return _told("RssAnon")


@contextmanager
def watched(every: float = 0.01) -> Iterator[list[int]]:
    """The most of :func:`anonymous` while the block runs, looked at every so many seconds: the one item of a list."""
    most, over = [anonymous()], threading.Event()

    def watch() -> None:
        while not over.wait(every):
            most[0] = max(most[0], anonymous())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        over.set()
        thread.join()


def _told(name: str) -> int:
    with STATUS.open() as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024


if __name__ == "__main__":
    from geoloc_core.cli import geoloc

    geoloc(sys.argv[1:], standalone_mode=False)
    print(peak())
