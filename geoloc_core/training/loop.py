"""Epochs that survive a kill: a resumed run ends exactly where an uninterrupted one would."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geoloc_core.progress import say
from geoloc_core.training import checkpoints

SAVE_EVERY_S = 10.0
"""Seconds of training that a kill may cost: saving after every short epoch would cost more."""
SAVING_SHARE = 0.05
"""Of the time, that saving may take: the state of a large model is slow to write."""

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
    """Run short epochs: :func:`run_steps` with epochs of one step.

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

    def one_step(epoch: int, first: int) -> Iterator[Metrics]:
        if first == 0:
            yield one_epoch(epoch)

    return run_steps(parts, epochs, one_step, checkpoint, fingerprint, log, stop)


def run_steps(
    parts: dict[str, Any],
    epochs: Iterable[int],
    steps_of: Callable[[int, int], Iterator[Metrics]],
    checkpoint: Path,
    fingerprint: Any,
    log: Log,
    stop: Callable[[list[Metrics]], bool] = lambda history: False,
    save_steps: int | None = None,
    finish: Callable[[int], Metrics] = lambda epoch: {},
    saves: bool = True,
) -> list[Metrics]:
    """Run epochs, keep a checkpoint now and then, and go on from the last one if it is of this very training.

    Args:
        parts: See :func:`run_epochs`.
        epochs: See :func:`run_epochs`.
        steps_of: Given the number of an epoch and of its first step, trains the steps from there to the epoch's end
            and yields the metrics of each, numbers or tensors (). The randomness of a step must depend on the two
            numbers alone.
        checkpoint: See :func:`run_epochs`.
        fingerprint: See :func:`run_epochs`.
        log: See :func:`run_epochs`.
        stop: See :func:`run_epochs`.
        save_steps: Save after so many steps of an epoch, and after every epoch; left out, save by the clock.
        finish: Called with the number of an epoch after its last step; returns further metrics.
        saves: Whether this process writes the checkpoint; of several that train together, one does.

    Returns:
        The metrics of every epoch: of each the mean over its steps, and what :obj:`finish` returned.
    """
    saver = _Saver(checkpoint, fingerprint, parts, save_steps, saves)
    history, so_far = saver.resume()
    for number, metrics in enumerate(history):
        log(metrics, number)
    for epoch in epochs:
        if epoch < len(history):
            continue
        if history and stop(history):
            break
        for metrics in steps_of(epoch, so_far.steps):
            so_far.add(metrics)
            saver.after_step(history, so_far)
        history.append(so_far.mean() | finish(epoch))
        so_far = _SoFar()
        log(history[-1], epoch)
        saver.after_epoch(history)
    return history


@dataclass
class _SoFar:
    """Sums of the metrics of the steps of an epoch under way."""

    steps: int = 0
    sums: Metrics = field(default_factory=dict)

    def add(self, metrics: Metrics) -> None:
        self.steps += 1
        self.sums = {name: self.sums.get(name, 0.0) + value for name, value in metrics.items()}

    def mean(self) -> Metrics:
        return {name: float(value) / self.steps for name, value in self.sums.items()}


@dataclass
class _Saver:
    """Decides when the state of a training is written, and reads it back."""

    checkpoint: Path
    fingerprint: Any
    parts: dict[str, Any]
    save_steps: int | None
    saves: bool = True
    saved: float = field(default_factory=time.monotonic)
    cost: float = 0.0

    def resume(self) -> tuple[list[Metrics], _SoFar]:
        """The history and the epoch under way of a training that was stopped; empty for a new one."""
        state = checkpoints.load(self.checkpoint, self.fingerprint)
        if not state:
            return [], _SoFar()
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        so_far = _SoFar(state["steps"], state["sums"])
        say(f"resuming after epoch {len(state['history'])}, step {so_far.steps} of the next")
        return state["history"], so_far

    def after_step(self, history: list[Metrics], so_far: _SoFar) -> None:
        due = so_far.steps % self.save_steps == 0 if self.save_steps else self._late()
        if due:
            self._save(history, so_far)

    def after_epoch(self, history: list[Metrics]) -> None:
        if self.save_steps or self._late():
            self._save(history, _SoFar())

    def _late(self) -> bool:
        return time.monotonic() - self.saved >= max(SAVE_EVERY_S, self.cost / SAVING_SHARE)

    def _save(self, history: list[Metrics], so_far: _SoFar) -> None:
        if not self.saves:
            return
        began = time.monotonic()
        states = {name: part.state_dict() for name, part in self.parts.items()}
        sums = {name: float(value) for name, value in so_far.sums.items()}
        state = {"history": history, "steps": so_far.steps, "sums": sums, **states}
        checkpoints.save(self.checkpoint, self.fingerprint, state)
        self.saved = time.monotonic()
        self.cost = self.saved - began
