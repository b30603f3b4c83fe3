"""Processes that train together, as ``torchrun`` starts them: the first writes and speaks, the others wait for it."""

import os
import time
from pathlib import Path

POLL_S = 0.2


def is_first() -> bool:
    """Whether this process is the first of those that train together, or the only one."""
    return int(os.environ.get("RANK", 0)) == 0


def wait_for(path: Path) -> None:
    """Wait for a file that the first process writes; should it fail, ``torchrun`` ends the others."""
    while not path.is_file():
        time.sleep(POLL_S)
