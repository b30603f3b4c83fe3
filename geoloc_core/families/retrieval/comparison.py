"""What of two photos is compared: the encoder's own vectors, whitened or not, and what learned heads make of them.

All parts are of unit length. They are laid side by side, each times the root of its share, so that one product of two
such vectors is the blend of their cosines.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

TINY = np.float32(1e-12)
LEAST = 1e-6
"""The share of the greatest variance below which a direction is none."""
GELU = np.float32(np.sqrt(2 / np.pi))
EPS = 1e-5
"""Of layer normalisation."""


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (N, D) at length 1; zeros stay zeros."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: np.ndarray = vectors / np.maximum(length, TINY)
    return found


@dataclass(frozen=True)
class Whitening:
    """PCA whitening.

    Attributes:
        mean: (D,) float32.
        matrix: (D, W) float32: the directions, each over the root of its variance.
    """

    mean: np.ndarray
    matrix: np.ndarray

    @classmethod
    def of(cls, vectors: np.ndarray, dims: int | None) -> "Whitening":
        """Of some vectors (n, D) float32, n > 0; the directions with the greatest variance, at most so many."""
        mean = vectors.mean(axis=0, dtype=np.float64)
        apart = vectors - mean.astype(np.float32)
        variances, directions = np.linalg.eigh((apart.T @ apart).astype(np.float64) / max(1, len(vectors) - 1))
        kept = np.flatnonzero(variances > LEAST * max(variances[-1], float(TINY)))[::-1][:dims]
        kept = kept if len(kept) else np.array([len(variances) - 1])
        matrix = directions[:, kept] / np.sqrt(np.maximum(variances[kept], float(TINY)))
        return cls(mean.astype(np.float32), matrix.astype(np.float32))

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """(N, D) → (N, W)."""
        found: np.ndarray = (vectors - self.mean) @ self.matrix
        return found


@dataclass(frozen=True)
class Head:
    """x + W₂ GELU(W₁ LN x), for photos that are alike where they are within some kilometres of each other.

    Attributes:
        tensors: ``norm.weight`` and ``norm.bias`` (D,), ``up.weight`` (H, D), ``up.bias`` (H,), ``down.weight`` (D, H)
            and ``down.bias`` (D,), float32.
    """

    tensors: dict[str, np.ndarray]

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """(N, D) → (N, D), of any length."""
        t = self.tensors
        centred = vectors - vectors.mean(axis=1, keepdims=True)
        spread = np.sqrt((centred**2).mean(axis=1, keepdims=True) + np.float32(EPS))
        x = (centred / spread * t["norm.weight"] + t["norm.bias"]) @ t["up.weight"].T + t["up.bias"]
        x = x * np.float32(0.5) * (1 + np.tanh(GELU * (x + np.float32(0.044715) * x**3)))
        found: np.ndarray = vectors + x @ t["down.weight"].T + t["down.bias"]
        return found


def head_shapes(width: int, hidden: int) -> dict[str, tuple[int, ...]]:
    """The shapes of a head's tensors."""
    return {
        "norm.weight": (width,),
        "norm.bias": (width,),
        "up.weight": (hidden, width),
        "up.bias": (hidden,),
        "down.weight": (width, hidden),
        "down.bias": (width,),
    }


@dataclass(frozen=True)
class Comparison:
    """How features become vectors to be compared.

    Attributes:
        own: The share of the encoder's own vectors in the blend; without heads it is 1.
        whitening: What is done to them first; None for nothing.
        heads: Learned heads, which share the rest alike.
        whitened: Whether the heads start from whitened vectors.
    """

    own: float
    whitening: Whitening | None
    heads: tuple[Head, ...]
    whitened: bool = False

    def parts(self, features: np.ndarray) -> Iterator[tuple[float, np.ndarray]]:
        """The share and the vectors (N, d) float32 of unit length of each part that has a share, of features (N, D)."""
        plain = unit(np.asarray(features, np.float32))
        white = plain if self.whitening is None else unit(self.whitening(plain))
        if self.own > 0:
            yield self.own, white
        for head in self.heads:
            yield (1 - self.own) / len(self.heads), unit(head(white if self.whitened else plain))

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Vectors (N, D') float32 whose products are similarities, of features (N, D)."""
        return np.concatenate([np.float32(np.sqrt(share)) * part for share, part in self.parts(features)], axis=1)

    def width(self, dim: int) -> int:
        """D' of features of so many numbers."""
        white = dim if self.whitening is None else self.whitening.matrix.shape[1]
        return white * (self.own > 0) + (white if self.whitened else dim) * len(self.heads)

    def first(self, width: int) -> tuple[float, int]:
        """The share of the first part of vectors of so many numbers, and how many are its own."""
        if self.own > 0 and self.whitening is not None:
            return self.own, self.whitening.matrix.shape[1]
        count = len(self.heads) + (self.own > 0)
        return self.own if self.own > 0 else 1 / count, width // count
