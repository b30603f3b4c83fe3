"""Image towers as networks that training may change, and that are saved so that their own kind opens them again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoloc_core.encoders.encoder import TOWERS
from geoloc_core.encoders.options import MANY
from geoloc_core.encoders.preprocess import Preprocess
from geoloc_core.errors import UserError
from geoloc_core.plugins import kinds, module_of

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Trainable:
    """A tower's network in float32, in inference mode and on the CPU.

    Attributes:
        network: From normalised photos (N, 3, size, size) to features (N, D).
        preprocess: The tower's own preparation of photos.
        dim: D.
        save: Writes the network as it is now into an existing folder, which the tower's ``load`` opens.
        blocks: Its blocks of layers, or stages of a ResNet, from the photo on.
        after: The parameters behind the last block; those that are neither here nor in a block come before the first.
    """

    network: "torch.nn.Module"
    preprocess: Preprocess
    dim: int
    save: Callable[[Path], None]
    blocks: "Sequence[torch.nn.Module]" = ()
    after: "Sequence[torch.nn.Parameter]" = ()


def trains(options: Any) -> str | None:
    """Why the tower of a block of ``params.yaml`` cannot be trained here; None where it can.

    Nothing is opened for it, so that parameters can be checked as they are read.
    """
    if not hasattr(module_of(TOWERS, options.kind), "trainable"):
        able = [kind for kind in kinds(TOWERS) if hasattr(module_of(TOWERS, kind), "trainable")]
        return f"kind {options.kind}: not a network that is trained here; expected {', '.join(able[:-1])} or {able[-1]}"
    if getattr(options, "feature", "base") != "base":
        return f"feature {options.feature}: made of several networks or of scenes; expected base, the one network"
    if (pooling := getattr(options, "pooling", None)) in MANY:
        return f"pooling {pooling}: many vectors per photo; expected a pooling that gives one"
    return None


def open_trainable(options: Any, weights: Path) -> Trainable:
    """Open the tower that a block of ``params.yaml`` describes, for training.

    Args:
        options: The block, with its ``kind``.
        weights: The folder of its weights, in its library's published format.

    Raises:
        UserError: It cannot be trained here, or the folder does not hold what the kind expects.
    """
    if reason := trains(options):
        raise UserError(f"{weights}: {reason}")
    opened: Trainable = module_of(TOWERS, options.kind).trainable(options, weights)
    return opened
