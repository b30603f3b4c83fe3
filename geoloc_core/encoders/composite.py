"""The ``forward`` of encoders that consist of several networks."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Forward = Callable[[np.ndarray], np.ndarray]
"""(N, size, size, 3) uint8 → (N, *shape) float32."""


@dataclass(frozen=True)
class Composite:
    """Several networks, called as one.

    Attributes:
        run: (N, size, size, 3) uint8 → (N, *shape) float32.
        networks: The ``forward`` of each.
    """

    run: Forward
    networks: tuple[Forward, ...]

    @property
    def precision(self) -> str:
        """What they compute in: ``bf16`` if any does."""
        return "bf16" if any(getattr(network, "precision", "fp32") == "bf16" for network in self.networks) else "fp32"

    def __call__(self, photos: np.ndarray) -> np.ndarray:
        """(N, size, size, 3) uint8 → (N, *shape) float32."""
        return self.run(photos)
