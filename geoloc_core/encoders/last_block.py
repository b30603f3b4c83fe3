"""The last block of a vision transformer, apart from the rest: from the tokens that enter it to the photo's feature.

It is trained together with a head while all before it stays frozen (PIGEON, Haas et al. 2024, section 3.3), so that the
frozen part runs once: an encoder with ``pooling: penultimate`` gives the tokens. The block has the names and shapes of
``torch.nn.TransformerEncoderLayer``, whichever library the tower comes from.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from geoloc_core.blocks import blocks
from geoloc_core.corpora.stored import Stored
from geoloc_core.encoders.carried import Carried
from geoloc_core.encoders.encoder import TOWERS
from geoloc_core.errors import UserError
from geoloc_core.plugins import Strict, kinds, module_of

if TYPE_CHECKING:
    import torch

Pool = Literal["mean", "class"]
"""The mean of all tokens, or the class token alone, which comes first."""


class Shape(Strict):
    """What is said of a block beside its weights.

    Attributes:
        heads: Of its attention.
        activation: Between the two layers behind attention.
        eps: Of its norms.
        norm: Whether a norm follows it before the tokens are pooled.
    """

    heads: int
    activation: Literal["gelu", "quick_gelu"]
    eps: float
    norm: bool


def open_last_block(options: Any, weights: Path, pool: Pool) -> "tuple[Shape, torch.nn.Module]":
    """The last block of the tower that a block of ``params.yaml`` describes, with the tower's weights.

    Args:
        options: The encoder's, with ``pooling: penultimate``.
        weights: The folder of its weights.
        pool: How its tokens become one feature.

    Raises:
        UserError: The tower has no such block.
    """
    module = module_of(TOWERS, options.kind)
    if not hasattr(module, "last_block"):
        able = [kind for kind in kinds(TOWERS) if hasattr(module_of(TOWERS, kind), "last_block")]
        raise UserError(f"{weights}: kind {options.kind}: no transformer whose last block is known; expected {able}")
    shape, tensors = module.last_block(options, weights, pool)
    return shape, network(shape, tensors, pool)


def network(shape: Shape, tensors: "Mapping[str, torch.Tensor]", pool: Pool) -> "torch.nn.Module":
    """Tokens (N, T, D) that enter the block → features (N, D).

    Args:
        shape: Of the block.
        tensors: By name, as :func:`standard` gives them.
        pool: How tokens become a feature.
    """
    import torch
    from torch import nn

    width, inner = tensors["layer.norm1.weight"].numel(), tensors["layer.linear1.bias"].numel()
    act: Any = torch.nn.functional.gelu if shape.activation == "gelu" else quick_gelu

    class LastBlock(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.TransformerEncoderLayer(
                width, shape.heads, inner, dropout=0.0, activation=act, layer_norm_eps=shape.eps, batch_first=True,
                norm_first=True,
            )  # fmt: skip
            self.norm = nn.LayerNorm(width, eps=shape.eps) if shape.norm else nn.Identity()

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            found = self.norm(self.layer(tokens))
            pooled: torch.Tensor = found[:, 0] if pool == "class" else found.mean(dim=1)
            return pooled

    made = LastBlock()
    made.load_state_dict(dict(tensors))
    return made


def activation(name: str, weights: Path) -> Literal["gelu", "quick_gelu"]:
    """The activation of a published config.

    Raises:
        UserError: It is another.
    """
    if name not in ("gelu", "quick_gelu"):
        raise UserError(f"{weights}: hidden_act {name!r}; expected gelu or quick_gelu in a block that is trained apart")
    return "gelu" if name == "gelu" else "quick_gelu"


def quick_gelu(x: "torch.Tensor") -> "torch.Tensor":
    """X · σ(1.702 x), which OpenAI's CLIP computes in place of GELU."""
    return x * (1.702 * x).sigmoid()


def standard(
    norms: "tuple[torch.nn.Module, torch.nn.Module]",
    attention: "tuple[torch.Tensor, torch.Tensor, torch.nn.Module]",
    layers: "tuple[torch.nn.Module, torch.nn.Module]",
    after: "torch.nn.Module | None",
) -> "dict[str, torch.Tensor]":
    """A block's weights by the names of :func:`network`.

    Args:
        norms: Before attention, and before the two layers.
        attention: Weight (3 D, D) and bias (3 D,) of query, key and value, and the layer behind them.
        layers: The two behind attention.
        after: The norm behind the block.
    """
    weight, bias, out = attention
    parts = {
        "norm1": norms[0],
        "norm2": norms[1],
        "self_attn.out_proj": out,
        "linear1": layers[0],
        "linear2": layers[1],
    }
    found = {f"layer.{name}.{key}": tensor for name, part in parts.items() for key, tensor in part.state_dict().items()}
    found |= {"layer.self_attn.in_proj_weight": weight, "layer.self_attn.in_proj_bias": bias}
    found |= {f"norm.{key}": tensor for key, tensor in after.state_dict().items()} if after is not None else {}
    return {name: tensor.detach().float().clone() for name, tensor in found.items()}


def joined(query: Any, key: Any, value: Any) -> "tuple[torch.Tensor, torch.Tensor]":
    """Weight and bias of three linear layers as one."""
    import torch

    zeros = torch.zeros(query.weight.shape[0])
    biases = [zeros if part.bias is None else part.bias for part in (query, key, value)]
    return torch.cat([part.weight for part in (query, key, value)]), torch.cat(biases)


def shapes(width: int, inner: int, norm: bool) -> dict[str, tuple[int, ...]]:
    """The shapes of a block's tensors, by name.

    Args:
        width: D.
        inner: Between the two layers behind attention.
        norm: Whether a norm follows it.
    """
    found: dict[str, tuple[int, ...]] = {
        "layer.self_attn.in_proj_weight": (3 * width, width),
        "layer.self_attn.in_proj_bias": (3 * width,),
        "layer.self_attn.out_proj.weight": (width, width),
        "layer.self_attn.out_proj.bias": (width,),
        "layer.linear1.weight": (inner, width),
        "layer.linear1.bias": (inner,),
        "layer.linear2.weight": (width, inner),
        "layer.linear2.bias": (width,),
    }
    norms = ["layer.norm1", "layer.norm2", *(["norm"] if norm else [])]
    return found | {f"{name}.{key}": (width,) for name in norms for key in ("weight", "bias")}


@dataclass(frozen=True)
class LiveTokens:
    """The tokens (N, T · D) float16 of N photos, made when they are asked for, as they would be kept.

    Attributes:
        tower: A tower with ``pooling: penultimate``.
        photos: N of them.
    """

    tower: Carried
    photos: Stored

    @property
    def shape(self) -> tuple[int, int]:
        """(N, T · D)."""
        return len(self.photos), math.prod(self.tower.encoder.shape)

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Tokens of some photos (n,), which may be named twice.

        Raises:
            UserError: A shard of photos is missing or damaged.
        """
        each, at = np.unique(rows, return_inverse=True)
        found = self.tower.features(self.photos.take(each).read()).astype(np.float16)
        return found.reshape(len(each), -1)[at]


def features(block: "torch.nn.Module", tokens: np.ndarray, at_once: int = 1 << 24) -> np.ndarray:
    """Features (N, D) float32 of tokens (N, T, D), so many numbers of them at a time."""
    import torch

    found = np.empty((len(tokens), tokens.shape[2]), np.float32)
    with torch.inference_mode():
        for rows in blocks(len(tokens), at_once, math.prod(tokens.shape[1:])):
            found[rows] = block(torch.from_numpy(np.asarray(tokens[rows], np.float32))).numpy()
    return found
