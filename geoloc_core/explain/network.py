"""A model and its towers as one network from the pixels of a photo to the logits of its classes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from geoloc_core.contracts.batch import Tower
from geoloc_core.contracts.differentiable import Differentiable, HasGradients
from geoloc_core.encoders.preprocess import Preprocess
from geoloc_core.encoders.trainable import open_trainable, trains
from geoloc_core.pictures import encoded
from geoloc_core.serving.bundle import Bundle

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Part:
    """A tower.

    Attributes:
        name: Of the encoder; the model's own tower is called ``own``.
        options: Its block.
        network: Normalised photos (N, 3, size, size) → features (N, D), float32 on the CPU.
        preprocess: Of the tower.
    """

    name: str
    options: Any
    network: "torch.nn.Module"
    preprocess: Preprocess


@dataclass(frozen=True)
class Network:
    """All that has a gradient.

    Attributes:
        parts: The towers, in the order in which their features are joined.
        head: Joined features (N, D) → logits (N, C).
        about: What of the answer this is, in a sentence, where it is not all of it.
    """

    parts: Sequence[Part]
    head: "Callable[[torch.Tensor], torch.Tensor]"
    about: str = ""

    def inputs(self, photo: np.ndarray) -> "list[torch.Tensor]":
        """What each tower sees (1, 3, size, size) float32 of a photo (H, W, 3) uint8."""
        import torch

        data = encoded(photo)
        return [
            torch.from_numpy(np.ascontiguousarray(part.preprocess.normalised(part.preprocess([data]))))
            for part in self.parts
        ]

    def logit(self, inputs: "Sequence[torch.Tensor]", target: int) -> "torch.Tensor":
        """The logit (N,) of a class, of what each tower sees of N photos."""
        import torch

        features = [part.network(seen) for part, seen in zip(self.parts, inputs, strict=True)]
        found: torch.Tensor = self.head(torch.cat(features, dim=1))[:, target]
        return found

    def with_head(self, other: Bundle) -> "Network":
        """The same towers under the head of another model of the same family."""
        differentiable = _differentiable(other)
        assert not isinstance(differentiable, str)
        return replace(self, head=differentiable.logits)


def network_of(bundle: Bundle) -> Network | str:
    """The network of a bundle, or in a line why it has none."""
    found = _differentiable(bundle)
    if isinstance(found, str):
        return found
    towers: dict[str, Tower] = {} if found.own is None else {"own": found.own}
    towers |= {name: bundle.towers[name] for name in found.encoders}
    for name, tower in towers.items():
        if reason := trains(tower.options):
            return f"encoder {name}: {reason}"
    opened = {name: open_trainable(tower.options, tower.weights) for name, tower in towers.items()}
    parts = [
        Part(name, towers[name].options, tower.network.eval().requires_grad_(False), tower.preprocess)
        for name, tower in opened.items()
    ]
    return Network(parts, found.logits, found.about)


def _differentiable(bundle: Bundle) -> Differentiable | str:
    trained = bundle.models[bundle.variant]
    family, model = trained.card.family, trained.model
    found = model.differentiable() if isinstance(model, HasGradients) else None
    return found or f"{bundle.variant}: the family {family} has no gradient down to the photo"


def laid_out(values: np.ndarray, preprocess: Preprocess, height: int, width: int) -> np.ndarray:
    """What a tower was found to look at, as a map (height, width) float64 of the photo that it was given.

    Args:
        values: (h, w) over the tower's square input.
        preprocess: Of the tower; what its cut leaves out of the photo is 0.
        height: Of the photo, pixels.
        width: Of the photo, pixels.

    Returns:
        A density: it adds up to what ``values`` add up to, but for rounding.
    """
    from PIL import Image

    size = preprocess.size
    wide, high, left, top = preprocess.geometry(width, height)
    across, down = width / wide, height / high
    box = [round(side) for side in (left * across, top * down, (left + size) * across, (top + size) * down)]
    shape = max(1, box[2] - box[0]), max(1, box[3] - box[1])
    smooth = np.asarray(Image.fromarray(values.astype(np.float32)).resize(shape, Image.Resampling.BILINEAR))
    found = np.zeros((height, width))
    x, y = max(box[0], 0), max(box[1], 0)
    inside = smooth[y - box[1] :, x - box[0] :][: height - y, : width - x]
    found[y : y + inside.shape[0], x : x + inside.shape[1]] = inside * (values.size / smooth.size)
    return found
