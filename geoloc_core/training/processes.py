"""Processes that train together, as ``torchrun`` starts them: the first writes and speaks, the others wait for it."""

import os
import time
from pathlib import Path

from geoloc_core import progress
from geoloc_core.errors import UserError

POLL_S = 0.2


def is_first() -> bool:
    """Whether this process is the first of those that train together, or the only one."""
    return int(os.environ.get("RANK", 0)) == 0


def join() -> None:
    """Make ready to train beside others: each with a GPU of its own where there are any, and only the first speaks.

    Raises:
        UserError: There are more processes than GPUs.
    """
    import torch

    if not is_first():
        progress.console.quiet = True
    local, beside = (int(os.environ.get(name, least)) for name, least in (("LOCAL_RANK", 0), ("LOCAL_WORLD_SIZE", 1)))
    if beside > 1 and torch.cuda.is_available():
        if beside > (gpus := torch.cuda.device_count()):
            raise UserError(f"{beside} processes for {gpus} GPUs; start torchrun with --nproc-per-node {gpus}")
        torch.cuda.set_device(local)


def wait_for(path: Path) -> None:
    """Wait for a file that the first process writes; should it fail, ``torchrun`` ends the others."""
    while not path.is_file():
        time.sleep(POLL_S)
