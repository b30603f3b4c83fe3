"""Epochs that survive a kill: the run after it ends where an uninterrupted one would."""

import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoloc_core.training import checkpoints

if TYPE_CHECKING:
    import torch

SAVE_EVERY_S = 10.0
"""Seconds of training that a kill may cost: saving after every short epoch would cost more."""

Metrics = dict[str, float]
Log = Callable[[Metrics, int], None]


def run_epochs(
    parts: dict[str, Any],
    epochs: Iterable[int],
    one_epoch: Callable[[int], Metrics],
    checkpoint: Path,
    fingerprint: Any,
    log: Log,
    stop: Callable[[list[Metrics]], bool] = lambda history: False,
) -> list[Metrics]:
    """Run epochs, keep a checkpoint now and then, and go on from the last one if it is of this very training.

    Args:
        parts: What has ``state_dict`` and ``load_state_dict``: model, optimiser, schedule.
        epochs: Numbers of the epochs.
        one_epoch: Trains for one epoch and returns its metrics. Its randomness must depend on the number alone.
        checkpoint: The file to keep.
        fingerprint: All that the training depends on.
        log: Called with the metrics and the number of each epoch, those of a resumed training included.
        stop: Told the history after every epoch; True ends the training.

    Returns:
        The metrics of every epoch.
    """
    history: list[Metrics] = []
    state = checkpoints.load(checkpoint, fingerprint)
    if state:
        history = state["history"]
        for name, part in parts.items():
            part.load_state_dict(state[name])
        for number, metrics in enumerate(history):
            log(metrics, number)
    saved = time.monotonic()
    for epoch in epochs:
        if epoch < len(history):
            continue
        if history and stop(history):
            break
        history.append(one_epoch(epoch))
        log(history[-1], epoch)
        if time.monotonic() - saved >= SAVE_EVERY_S:
            states = {name: part.state_dict() for name, part in parts.items()}
            checkpoints.save(checkpoint, fingerprint, {"history": history, **states})
            saved = time.monotonic()
    return history


def set_cosine_rate(optimiser: "torch.optim.Optimizer", peak: float, step: int, steps: int, warmup: int) -> None:
    """Linear warm-up, then half a cosine down to zero (Loshchilov and Hutter 2017)."""
    rising = min(1.0, (step + 1) / max(1, warmup))
    falling = 0.5 * (1 + math.cos(math.pi * step / steps))
    for group in optimiser.param_groups:
        group["lr"] = peak * rising * falling
