"""How a network is moved: optimiser, schedule, what stays frozen, and the precision of the arithmetic."""

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from geoloc_core.encoders.compute import Precision
from geoloc_core.encoders.device import computes_bf16, device, say_without_bf16
from geoloc_core.encoders.openclip import after_blocks, blocks_of
from geoloc_core.errors import UserError
from geoloc_core.plugins import Strict
from geoloc_core.training.optimisers import AdamW, Optimiser, optimiser_of
from geoloc_core.training.photos import Augmentation
from geoloc_core.training.schedules import Constant, Cosine, MultiStep, share
from geoloc_core.training.weights import ClassWeights

if TYPE_CHECKING:
    import torch

Schedule = Literal["cosine", "linear"]
ALL_BUT_LAST = "all_but_last"
Blocks = Annotated[int, Field(ge=0)] | Literal["all_but_last"]
Share = Annotated[float, Field(ge=0, lt=1)]


class NetworkRecipe(Strict):
    """How a whole network is trained on photos."""

    batch: PositiveInt = 128
    """Photos of a step, on all GPUs together."""
    micro_batch: PositiveInt | None = None
    """Photos in memory at once, of each process; left out, its whole share. Halved where memory runs out."""
    epochs: PositiveInt = 15
    """How often all training photos are seen, at most."""
    stop_patience: PositiveInt | None = None
    """Epochs without a better score before training ends; left out, all are trained."""

    optimiser: Optimiser = AdamW(lr=1e-4, weight_decay=0.05)
    """Its ``rates`` are those of parts that have one of their own, such as the ``trunk``."""
    schedule: MultiStep | Cosine | Constant = Field(Cosine(), discriminator="kind")
    """Of the learning rates, stepped after every step."""
    warmup: Share = 0.0
    """Share of the steps in which the learning rates rise."""
    clip_norm: float | None = Field(None, gt=0)
    """Norm of all gradients together, above which they are scaled down."""

    freeze: Blocks = 0
    """Blocks of the trunk that stay as they are, from the first on: layers of a transformer, stages of a ResNet."""
    augment: Augmentation = "wide_crop"
    """What is done to a training photo each time: shifted, or cut out and resized."""
    flip: bool = False
    """Mirror every second photo, as G3 does; the side of the road is then no clue."""
    weights: ClassWeights | None = None
    """Of classes in the loss; null weighs all photos alike."""
    precision: Precision = "auto"
    """Numbers of the network: `auto` is bf16 on a GPU that has it."""
    compile: bool = False
    """Compile the network on a GPU: it takes minutes, and pays for itself in a long training."""
    cache_gb: float = Field(20.0, ge=0)
    """Decoded photos up to this size are kept on disk; more are read from the shards in every epoch."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.micro_batch and self.micro_batch > self.batch:
            raise ValueError(f"micro_batch {self.micro_batch} is larger than batch {self.batch}")
        return self

    def rate_at(self, step: int, per_epoch: int) -> float:
        """What share of its peak a learning rate has at a step of the training, of so many steps an epoch."""
        warmup = round(self.warmup * self.epochs * per_epoch)
        risen = (step + 1) / warmup if step < warmup else 1.0
        return risen * share(self.schedule, step / per_epoch, self.epochs)


def optimise(
    recipe: NetworkRecipe, net: "torch.nn.Module", per_epoch: int
) -> "tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]":
    """The optimiser of what is not frozen, and its schedule, which is stepped after every step.

    Args:
        recipe: What they are.
        net: The network; the names in the optimiser's ``rates`` are those of its parts.
        per_epoch: Steps of an epoch.

    Raises:
        UserError: The network has no part of such a name, or nothing of it is left to train.
    """
    from torch.optim.lr_scheduler import LambdaLR

    parts = [name for name, _ in net.named_children()]
    if unknown := recipe.optimiser.rates.keys() - parts:
        raise UserError(
            f"optimiser.rates: {min(unknown)}: not a part of the network; expected one of {', '.join(parts)}"
        )
    if not any(parameter.requires_grad for parameter in net.parameters()):
        raise UserError(f"freeze: {recipe.freeze}: leaves nothing of the network to train; freeze fewer blocks")
    optimiser = optimiser_of(recipe.optimiser, net)
    return optimiser, LambdaLR(optimiser, lambda step: recipe.rate_at(step, per_epoch))


def adamw(
    model: "torch.nn.Module", lr: float, betas: tuple[float, float], eps: float, weight_decay: float
) -> "torch.optim.AdamW":
    """AdamW on what is not frozen; biases, gains of norms and the logit scale do not decay (as in open_clip).

    PIGEON's trainer (that of transformers) lets the logit scale decay too, at 1e-3 of a rate of 1e-6.
    """
    import torch

    moved = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in moved if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in moved if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr, betas=betas, eps=eps)


def rate(schedule: Schedule, peak: float, step: int, steps: int, warmup: int) -> float:
    """The learning rate of one step: linear warm-up to the peak, then down to zero.

    Args:
        schedule: ``cosine`` falls by half a cosine (Loshchilov and Hutter 2017; CLIP), ``linear`` in a straight line
            (PIGEON).
        peak: The highest rate, that of the last step of the warm-up.
        step: From 0.
        steps: Of the whole training.
        warmup: Steps of the warm-up; the first is not wasted at a rate of zero.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return peak * (0.5 * (1 + math.cos(math.pi * done)) if schedule == "cosine" else 1 - done)


def set_rate(optimiser: "torch.optim.Optimizer", lr: float) -> None:
    """Give all groups of an optimiser one learning rate."""
    for group in optimiser.param_groups:
        group["lr"] = lr


def freeze_text(model: Any) -> None:
    """Keep all of a CLIP's text tower as it is."""
    for name, parameter in model.named_parameters():
        if not name.startswith("visual.") and name not in ("logit_scale", "logit_bias"):
            parameter.requires_grad_(False)


def freeze_blocks(model: Any, blocks: Blocks, where: str) -> None:
    """Keep the first blocks of a CLIP's image tower as they are, and what comes before them; see :func:`freeze`."""
    visual = model.visual
    freeze(visual, blocks_of(visual), list(after_blocks(visual)), blocks, where)


def freeze(
    network: "torch.nn.Module",
    of: "Sequence[torch.nn.Module]",
    after: "Iterable[torch.nn.Parameter]",
    blocks: Blocks,
    where: str,
) -> None:
    """Keep the first blocks of a network as they are, and what comes before them.

    Args:
        network: The network.
        of: Its blocks, from the photo on.
        after: Its parameters behind the last block.
        blocks: How many, or ``all_but_last``: PIGEON's fine-tuning.
        where: The parameter, for the message.

    Raises:
        UserError: The network is not known to consist of blocks, or has fewer.
    """
    if blocks == 0:
        return
    if not of:
        raise UserError(f"{where}: {blocks}; the image tower has no blocks that are known here; expected 0")
    count = len(of) - 1 if blocks == ALL_BUT_LAST else int(blocks)
    if count > len(of):
        raise UserError(f"{where}: {count}; expected at most {len(of)}, the blocks of the image tower")
    kept = {id(p) for block in of[count:] for p in block.parameters()} | {id(p) for p in after}
    for parameter in network.parameters():
        if id(parameter) not in kept:
            parameter.requires_grad_(False)


def autocast(wanted: bool) -> "Callable[[], AbstractContextManager[None]]":
    """A context of bfloat16 arithmetic, if it is wanted and the device has it; weights and sums stay float32."""
    import torch

    if not wanted:
        return nullcontext
    if not computes_bf16():
        say_without_bf16()
        return nullcontext
    return lambda: torch.autocast(device().type, torch.bfloat16)
