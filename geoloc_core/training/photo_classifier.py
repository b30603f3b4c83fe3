"""Training of classifiers that look at photos themselves, beside features that they are given."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from geoloc_core.blocks import blocks
from geoloc_core.contracts.batch import Run
from geoloc_core.corpora.stored import Stored
from geoloc_core.encoders.device import device
from geoloc_core.encoders.preprocess import Preprocess
from geoloc_core.errors import UserError
from geoloc_core.training import loop
from geoloc_core.training.calibration import calibrate
from geoloc_core.training.heads import UNKNOWN, measured
from geoloc_core.training.networks import fit_network_on_photos
from geoloc_core.training.photos import Photos
from geoloc_core.training.processes import is_first
from geoloc_core.training.recipe import NetworkRecipe, optimise

if TYPE_CHECKING:
    import torch

LossOf = Callable[["torch.nn.Module", "torch.Tensor", "list[torch.Tensor]", "torch.Tensor"], "torch.Tensor"]
"""Of a network, normalised photos (b, 3, size, size), their given features, (b, D) each, and their classes (b,): the
loss () divided by b, whatever the classes weigh, since a batch may be worked on in parts."""
LogitsOf = Callable[["torch.nn.Module", "torch.Tensor", "list[torch.Tensor]"], "torch.Tensor"]
"""Of a network, normalised photos and their given features: logits (b, C)."""
ROWS = 128
"""Photos looked at in one go for calibration."""


@dataclass(frozen=True)
class Fitted:
    """What a training came to; the network has the weights of the best epoch.

    Attributes:
        history: Metrics of every epoch.
        best: Number of the epoch kept.
        temperature: What the logits are to be divided by.
        figures: For the summary: parameters, speed and calibration.
    """

    history: list[loop.Metrics]
    best: int
    temperature: float
    figures: dict[str, Any]


def of_class(logits: "torch.Tensor", truth: "torch.Tensor", weights: "torch.Tensor") -> "torch.Tensor":
    """Class-weighted cross entropy, Σ w_y · −log p_y / b.

    Its weights are one on average over all rows, so that there it is :func:`geoloc_core.training.losses.of_class`; and
    those of the parts of a batch add up.
    """
    from torch.nn.functional import cross_entropy

    return cross_entropy(logits, truth, weights, reduction="sum") / len(truth)


def fit(
    net: "torch.nn.Module",
    loss_of: LossOf,
    logits_of: LogitsOf,
    preprocess: Preprocess,
    pictures: Stored,
    features: Sequence[np.ndarray],
    targets: np.ndarray,
    groups: np.ndarray,
    training: np.ndarray,
    validation: np.ndarray,
    recipe: NetworkRecipe,
    run: Run,
) -> Fitted | None:
    """Train a network, keep its best epoch, and fit its temperature to the validation pictures.

    A process that trained along with the first one gets None: nothing is left for it to do.

    Args:
        net: The network, freshly made.
        loss_of: See :data:`LossOf`.
        logits_of: See :data:`LogitsOf`.
        preprocess: Of the network.
        pictures: N pictures.
        features: Features (N, D) of the pictures, each beside the others; of frozen encoders.
        targets: (N,) int64 classes; −1 where there is none.
        groups: (N,) int64 the group of each picture, which calibration does not split.
        training: (n,) positions to learn from, each with a class.
        validation: (m,) positions to choose by.
        recipe: The numbers.
        run: Seed, checkpoint, log.

    Raises:
        UserError: A given feature or the loss is not a number, no class of a validation picture is learned, or see
            :func:`geoloc_core.training.networks.fit_network_on_photos`.
    """
    import torch

    if (targets[validation] == UNKNOWN).all():
        raise UserError(
            f"none of the {len(validation):,} validation pictures is of a class that has training pictures; "
            "more photos are needed"
        )
    if wrong := sum(int((~np.isfinite(part)).any(axis=1).sum()) for part in features):
        raise UserError(f"{wrong:,} photos have features that are not numbers; encode the corpus again")
    at = device()
    held = [torch.from_numpy(np.asarray(part, np.float16)).to(at) for part in features]
    wanted = torch.from_numpy(targets).to(at)

    def given(rows: "torch.Tensor") -> "list[torch.Tensor]":
        return [part[rows].float() for part in held]

    def loss(net: "torch.nn.Module", x: "torch.Tensor", rows: "torch.Tensor") -> "torch.Tensor":
        return loss_of(net, x, given(rows), wanted[rows])

    def measure(x: "torch.Tensor", rows: "torch.Tensor") -> dict[str, tuple[float, int]]:
        return measured(logits_of(net, x, given(rows)).float(), wanted[rows])

    cache = run.checkpoint.parent / "scaled.npy"
    scaled = Photos.of(pictures.folder, pictures.shards, pictures.rows, preprocess, cache, recipe.cache_gb)
    outcome = fit_network_on_photos(
        net,
        scaled,
        loss,
        training,
        measure,
        validation,
        lambda net, per_epoch: optimise(recipe, net, per_epoch),
        recipe,
        run.seed,
        run.checkpoint,
        run.depends,
        run.log,
    )
    if not is_first():
        return None

    def answered() -> "Iterator[tuple[torch.Tensor, torch.Tensor, np.ndarray]]":
        batches = [validation[some] for some in blocks(len(validation), ROWS)]
        for rows, pixels in zip(batches, scaled.read(batches), strict=True):
            x = torch.from_numpy(np.ascontiguousarray(preprocess.normalised(pixels))).to(at)
            where = torch.from_numpy(rows.astype(np.int64)).to(at)
            yield logits_of(net, x, given(where)), wanted[where], groups[rows]

    with torch.inference_mode():
        calibration = calibrate(answered(), len(validation), run.seed)
    figures = {**outcome.figures, **vars(calibration)}
    return Fitted(outcome.history, outcome.best, calibration.temperature, figures)
