"""What every image tower looks like, whichever library it comes from."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoloc_core.blocks import blocks
from geoloc_core.encoders import store
from geoloc_core.encoders.compute import on_device
from geoloc_core.encoders.memory import Halving
from geoloc_core.encoders.preprocess import Preprocess
from geoloc_core.files import verified_digest
from geoloc_core.plugins import module_of

if TYPE_CHECKING:
    import torch

TOWERS = "geoloc_core.encoders.towers"


@dataclass(frozen=True)
class Encoder:
    """A frozen tower: encoded photos in, features out.

    Attributes:
        shape: Of the feature of one photo: (D,), or (T, D) where a tower keeps its T tokens.
        batch: Photos per forward pass.
        preprocess: The tower's own preparation of photos.
        forward: (N, size, size, 3) uint8, scaled and not normalised → (N, *shape) float32.
        identity: All that the features depend on: weights, preparation, pooling.
        parameters: Of the tower; None where its format does not tell.
    """

    shape: tuple[int, ...]
    batch: int
    preprocess: Preprocess
    forward: Callable[[np.ndarray], np.ndarray]
    identity: dict[str, Any]
    parameters: int | None = None

    @property
    def fingerprint(self) -> str:
        """A digest of :attr:`identity`: equal fingerprints give equal features."""
        return store.fingerprint(self.identity)

    @property
    def precision(self) -> str:
        """What the tower computes in on this machine, such as ``bf16``."""
        return getattr(self.forward, "precision", "fp32")

    @property
    def fills(self) -> bool:
        """Whether to pad an incomplete batch: a GPU's compiled graph is made for one size."""
        return getattr(self.forward, "fills", False)

    def start(self, photos: np.ndarray) -> Callable[[], np.ndarray]:
        """Start on scaled photos, which must not change until the returned function has returned their features."""
        begin = getattr(self.forward, "start", None)
        return begin(photos) if begin else lambda: self.forward(photos)

    def __call__(self, photos: Sequence[bytes], pool: ThreadPoolExecutor | None = None) -> np.ndarray:
        """Features (N, *shape) float32 of N encoded photos."""
        parts = [self.forward(self.preprocess(photos[some], pool)) for some in blocks(len(photos), self.batch)]
        return np.concatenate(parts) if parts else np.empty((0, *self.shape), np.float32)


def of_network(options: Any, network: "torch.nn.Module", preprocess: Preprocess, shape: tuple[int, ...]) -> Encoder:
    """The tower that a network is, if nothing but its weights, ``kind`` and ``pooling`` makes it what it is.

    Args:
        options: The tower's block of ``params.yaml``, a :class:`~geoloc_core.encoders.options.TorchTower`.
        network: From normalised photos (N, 3, size, size) to features (N, *shape).
        preprocess: Of the tower.
        shape: Of one feature.
    """
    return Encoder(
        shape=shape,
        batch=options.batch,
        preprocess=preprocess,
        forward=on_device(network, preprocess, options.precision),
        identity={"kind": options.kind, "pooling": options.pooling},
        parameters=sum(p.numel() for p in network.parameters()),
    )


def load(options: Any, weights: Path, remedy: str = store.WEIGHTS_REMEDY) -> Encoder:
    """Open the tower that a block of ``params.yaml`` describes.

    Args:
        options: The block, with its ``kind``.
        weights: The folder of its weights, in its library's published format.
        remedy: What brings them anew.

    Returns:
        The tower; for a segmenter such as ``mask2former`` an :class:`~geoloc_core.encoders.instances.Instances`.

    Raises:
        UserError: The folder does not hold what the kind expects.
    """
    made_of = verified_digest(weights, remedy)
    encoder = module_of(TOWERS, options.kind).load(options, weights)
    if not isinstance(encoder, Encoder):  # a segmenter, of which nothing is to be added
        return encoder
    preprocess = replace(encoder.preprocess, reducing_gap=options.reducing_gap)
    identity = {"weights": made_of, "preprocess": preprocess.to_json(), **encoder.identity}
    return replace(encoder, preprocess=preprocess, forward=Halving(encoder.forward), identity=identity)
