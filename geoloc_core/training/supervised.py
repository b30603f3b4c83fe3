"""Training of small networks from scratch on a corpus' photos, each with a target: what pre-training has in common."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoloc_core.encoders.device import device
from geoloc_core.encoders.preprocess import Preprocess
from geoloc_core.project import Project
from geoloc_core.training import loop, photos, recipe, seeds

if TYPE_CHECKING:
    import torch

Outcome = Callable[["torch.Tensor", np.ndarray], "tuple[torch.Tensor, int, int]"]
"""Of normalised photos (B, 3, size, size) and their rows (B,): the loss (), and how many of how many were right."""


@dataclass(frozen=True)
class Lesson:
    """The training photos of a corpus.

    Attributes:
        rows: (n,) rows to learn from.
        images: All photos of the corpus.
        made_of: All that they depend on.
        steps: Batches of an epoch.
    """

    rows: np.ndarray
    images: photos.Photos
    made_of: str
    steps: int

    @classmethod
    def of(cls, project: Project, corpus: str, batch: int, preprocess: Preprocess, partial: Path) -> "Lesson":
        """Open them.

        Raises:
            UserError: The corpus is not ready, or has fewer photos than a batch.
        """
        rows = photos.training_rows(project, corpus)
        steps = photos.batches_per_epoch(rows, batch, corpus)
        images, made_of = photos.scaled(project, corpus, preprocess, partial)
        return cls(rows, images, made_of, steps)


def fit(
    project: Project,
    lesson: Lesson,
    model: "torch.nn.Module",
    outcome: Outcome,
    options: Any,
    partial: Path,
    log: loop.Log,
    *,
    accuracy: str,
    warmup: int,
    augment: photos.Augmentation,
) -> list[loop.Metrics]:
    """Train a network by AdamW; its rate rises linearly, and then falls by half a cosine.

    Args:
        project: Gives the seed.
        lesson: What is learned from.
        model: On the device.
        outcome: See :data:`Outcome`.
        options: With ``epochs``, ``batch``, ``lr`` and ``weight_decay``.
        partial: Where unfinished work survives a kill.
        log: Called with the metrics of every epoch.
        accuracy: What the share of what was right is called.
        warmup: Steps in which the rate rises.
        augment: What is done to photos.

    Returns:
        The metrics of every epoch.
    """
    import torch

    seed, batch = project.profile.seed, options.batch
    optimiser = torch.optim.AdamW(model.parameters(), options.lr, weight_decay=options.weight_decay)

    def one_epoch(epoch: int) -> loop.Metrics:
        model.train()
        torch.manual_seed(seeds.of_epoch(seed, epoch))
        generator = torch.Generator().manual_seed(seeds.of_epoch(seed, epoch))
        total, right, seen = 0.0, 0, 0
        batches = list(photos.batches(photos.order(lesson.rows, lesson.images.groups, seed, epoch), batch))
        for step, (rows, pixels) in enumerate(zip(batches, lesson.images.read(batches), strict=True)):
            done = epoch * lesson.steps + step
            recipe.set_rate(optimiser, recipe.rate("cosine", options.lr, done, options.epochs * lesson.steps, warmup))
            shown = torch.from_numpy(pixels).to(device())
            loss, hits, of = outcome(photos.augmented(shown, lesson.images.preprocess, generator, augment), rows)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total, right, seen = total + loss.item(), right + hits, seen + of
        return {"loss": total / lesson.steps, accuracy: right / seen}

    return loop.run_epochs(
        {"model": model, "optimiser": optimiser},
        range(options.epochs),
        one_epoch,
        partial / "checkpoint.pt",
        [options.model_dump(), seed, project.profile.threads, lesson.made_of],
        log,
    )
