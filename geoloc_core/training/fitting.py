"""The loop that trains a network on features, whatever the network and its loss are."""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from geoloc_core.errors import UserError
from geoloc_core.progress import track
from geoloc_core.training import loop, seeds
from geoloc_core.training.features import RUN, WINDOW, Batches
from geoloc_core.training.optimisers import rates_now
from geoloc_core.training.stopping import Score, best_epoch, is_over

if TYPE_CHECKING:
    import torch

Loss = Callable[["torch.nn.Module", "torch.Tensor", "torch.Tensor"], "torch.Tensor"]
"""The mean loss () of a batch: of the network, its standardised features (B, …, D) and its rows (B, …)."""
Measure = Callable[["torch.Tensor", "torch.Tensor"], dict[str, tuple[float, int]]]
"""Of a batch's features and rows, figures by name: each a mean, and over how many."""


@dataclass(frozen=True)
class Pace:
    """How fast a training was: the medians of its epochs, None where a resumed one had none left to do.

    Attributes:
        seconds_per_epoch: With validation.
        photos_per_second: Of training alone.
    """

    seconds_per_epoch: float | None = None
    photos_per_second: float | None = None

    @classmethod
    def of(cls, seconds: list[float], rates: list[float]) -> "Pace":
        """Of the seconds and the photos per second of each epoch."""
        return cls(median(seconds), median(rates)) if seconds else cls()


@dataclass(frozen=True)
class Outcome:
    """What a training came to; its network holds the weights of the best epoch.

    Attributes:
        history: Metrics of every epoch.
        best: Number of the epoch kept.
        pace: How fast it was, which is no part of what it came to.
    """

    history: list[loop.Metrics]
    best: int
    pace: Pace = field(default=Pace(), compare=False)


def fit_network(
    net: "torch.nn.Module",
    loss: Loss,
    training: Batches,
    validate: Callable[[], loop.Metrics],
    optimiser: "torch.optim.Optimizer",
    schedule: "torch.optim.lr_scheduler.LRScheduler | None",
    batch: int,
    epochs: int,
    stop_patience: int | None,
    seed: int,
    checkpoint: Path,
    fingerprint: Any,
    log: loop.Log,
    score: Score = lambda metrics: metrics["validation_accuracy"],
) -> Outcome:
    """Train epoch by epoch, stop early, and leave the network with the weights of the best epoch.

    A run after a kill ends with the same weights, to the last bit.

    Args:
        net: On the device of the batches; its ``state_dict`` is all that changes with training.
        loss: See :data:`Loss`; what it reads of a row, it looks up by the row's number.
        training: What is learned from.
        validate: Metrics of the network as it is, in evaluation mode; see :func:`averages`.
        optimiser: Of the network's parameters.
        schedule: Stepped after each epoch, one that waits for a plateau with ``validation_loss``; None for a constant
            rate.
        batch: Units of a step.
        epochs: At most.
        stop_patience: Epochs without a better score before training ends; None to train them all.
        seed: Of the order of rows, and of what is random within an epoch.
        checkpoint: The file that survives a kill.
        fingerprint: All that the training depends on.
        log: Called with the metrics of every epoch, and with the photos per second of those trained in this run.
        score: What decides which epoch is best.

    Raises:
        UserError: The loss is no longer a number.
    """
    import torch

    keeper = Keeper(net)
    seconds: dict[int, float] = {}  # not in the history, which is the same in every run
    speeds: dict[int, float] = {}

    def one_epoch(epoch: int) -> loop.Metrics:
        began = time.perf_counter()
        torch.manual_seed(seeds.of_epoch(seed, epoch))
        net.train()
        total = torch.zeros((), device=training.device)
        batches = training.shuffled(batch, seeds.of_epoch(seed, epoch))
        for x, rows in track(batches, f"epoch {epoch + 1}", len(training), "rows", lambda batch: len(batch[1])):
            value = loss(net, x, rows)
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            total += value.detach() * len(rows)
        if not math.isfinite(mean := total.item() / len(training)):
            raise UserError(
                f"epoch {epoch + 1}: the training loss is {mean}, expected a number; choose a lower learning rate"
            )
        speeds[epoch] = training.rows.size / (time.perf_counter() - began)
        net.eval()
        with torch.inference_mode():
            validated = validate()
        rates = rates_now(optimiser)
        if isinstance(schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
            schedule.step(validated["validation_loss"])
        elif schedule is not None:
            schedule.step()
        keeper.see(score(validated))
        seconds[epoch] = time.perf_counter() - began
        return {"loss": mean, **validated, **rates}

    def tell(metrics: loop.Metrics, epoch: int) -> None:
        log(metrics | ({"photos_per_second": speeds[epoch]} if epoch in speeds else {}), epoch)

    def stop(history: list[loop.Metrics]) -> bool:
        return is_over(history, score, stop_patience)

    parts = {"net": net, "optimiser": optimiser, "best": keeper}
    if schedule is not None:
        parts["schedule"] = schedule
    depends = [fingerprint, WINDOW, RUN]  # the order of rows depends on the two
    history = loop.run_epochs(parts, range(epochs), one_epoch, checkpoint, depends, tell, stop)
    net.load_state_dict(keeper.weights)
    net.eval()
    pace = Pace.of(list(seconds.values()), list(speeds.values()))
    return Outcome(history, best_epoch(history, score), pace)


def averages(batches: "Iterable[tuple[torch.Tensor, torch.Tensor]]", measure: Measure) -> loop.Metrics:
    """Figures over all batches, from those of each; a figure that is over nothing at all is NaN.

    Args:
        batches: Features and rows.
        measure: See :data:`Measure`; the mean over nothing does not count.
    """
    return averaged(measure(x, rows) for x, rows in batches)


def averaged(found: Iterable[dict[str, tuple[float, int]]]) -> loop.Metrics:
    """Figures over all batches, from what was measured of each: see :func:`averages`."""
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    for figures in found:
        for name, (mean, count) in figures.items():
            sums[name] = sums.get(name, 0.0) + (mean * count if count else 0.0)
            counts[name] = counts.get(name, 0) + count
    return {name: sums[name] / counts[name] if counts[name] else math.nan for name in sums}


class Keeper:
    """Keeps the weights of the epoch with the best score, through a kill too."""

    def __init__(self, net: "torch.nn.Module") -> None:
        self.net = net
        self.score = -math.inf
        self.weights = self._copy()

    def _copy(self) -> dict[str, "torch.Tensor"]:
        return {name: tensor.detach().cpu().clone() for name, tensor in self.net.state_dict().items()}

    def see(self, score: float) -> None:
        """Keep the weights as they are now if the score is better than all before."""
        if score > self.score:
            self.score, self.weights = score, self._copy()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return {"score": self.score, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave."""
        self.score, self.weights = state["score"], state["weights"]
