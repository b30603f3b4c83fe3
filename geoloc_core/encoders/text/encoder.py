"""What every text tower looks like, whichever library it comes from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from geoloc_core.blocks import blocks
from geoloc_core.encoders import store
from geoloc_core.files import verified_digest
from geoloc_core.plugins import module_of

TOWERS = "geoloc_core.encoders.text.towers"


@dataclass(frozen=True)
class TextEncoder:
    """A frozen tower: texts in, features out.

    Attributes:
        dim: Length of a feature.
        batch: Texts per forward pass.
        tokenize: N texts → the numbers of their tokens, cut at :attr:`longest`.
        forward: Tokens of N texts → (N, dim) float32.
        longest: Tokens of a text, with those that begin and end it; what is longer is cut.
        identity: All that the features depend on: weights, tokenizer, pooling.
        parameters: Of the tower.
    """

    dim: int
    batch: int
    tokenize: Callable[[Sequence[str]], list[list[int]]]
    forward: Callable[[list[list[int]]], np.ndarray]
    longest: int
    identity: dict[str, Any]
    parameters: int

    @property
    def fingerprint(self) -> str:
        """A digest of :attr:`identity`: equal fingerprints give equal features."""
        return store.fingerprint(self.identity)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Features (N, dim) float32 of N texts."""
        return self.encode(self.tokenize(texts))

    def encode(self, tokens: list[list[int]]) -> np.ndarray:
        """Features (N, dim) float32 of N tokenized texts; those of like length share a pass, as padding costs time."""
        features = np.empty((len(tokens), self.dim), np.float32)
        order = np.argsort([len(text) for text in tokens], kind="stable")
        for some in blocks(len(order), self.batch):
            rows = order[some]
            features[rows] = self.forward([tokens[row] for row in rows])
        return features


def load(options: Any, weights: Path) -> TextEncoder:
    """Open the tower that a block of ``params.yaml`` describes.

    Args:
        options: The block, with its ``kind``.
        weights: The folder of its weights and tokenizer, in its library's published format.

    Raises:
        UserError: The folder does not hold what the kind expects.
    """
    made_of = verified_digest(weights, store.WEIGHTS_REMEDY)
    encoder: TextEncoder = module_of(TOWERS, options.kind).load(options, weights)
    return replace(encoder, identity={"weights": made_of, **encoder.identity})
