"""Attention × gradient, propagated from block to block.

Chefer, Gur and Wolf 2021, "Generic attention-model explainability for interpreting bi-modal and encoder-decoder
transformers", equations 5 and 6 for self-attention: Ā = E_h[(∇A ⊙ A)⁺] and R ← R + Ā R, from R = I.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from geoloc_core.explain.network import Network, Part, laid_out

if TYPE_CHECKING:
    import torch

KINDS = ("vit", "clip", "open_clip")
"""Of towers whose attention is known; all their poolings read the class token, or with ``mean`` all tokens alike."""


def is_known(part: Part) -> bool:
    """Whether a tower is a vision transformer of ViT or CLIP whose attention can be read."""
    if part.options.kind not in KINDS:
        return False
    tower: Any = getattr(part.network, "tower", part.network)
    if part.options.kind != "open_clip":
        return True
    return type(tower).__name__ == "VisionTransformer" and tower.attn_pool is None and tower.pool_type == "tok"


def lacking(network: Network) -> str | None:
    """Why a model has no map of attention; None where one of its towers has."""
    if any(map(is_known, network.parts)):
        return None
    names = ", ".join(part.name for part in network.parts)
    return f"encoder {names}: no vision transformer of ViT or CLIP"


def left_out(network: Network) -> str:
    """What a map of attention says nothing of, in a sentence; empty where it is about all towers."""
    known, others = ([part.name for part in network.parts if is_known(part) is which] for which in (True, False))
    return f"Of {', '.join(known)} alone: {', '.join(others)} has no attention to show." if others else ""


def attention_map(network: Network, photo: np.ndarray, target: int) -> np.ndarray:
    """What the attention of the towers carries to a class, as a map (H, W) float64 of a photo (H, W, 3) uint8.

    Args:
        network: Of which :func:`lacking` says nothing; towers whose attention is not known add nothing.
        photo: The photo.
        target: The class.
    """
    import torch

    inputs = [seen.requires_grad_(True) for seen in network.inputs(photo)]  # or nothing would have a gradient
    known = [part for part in network.parts if is_known(part)]
    with _recorded([part.network for part in known]) as recorded:
        logit = network.logit(inputs, target).sum()
        flat = [weights for of_tower in recorded for weights in of_tower]
        gradients = iter(torch.autograd.grad(logit, flat, allow_unused=True))
    total = np.zeros(photo.shape[:2])
    for part, of_tower in zip(known, recorded, strict=True):
        # the last blocks of a tower that pools an earlier one have no part in the answer
        paired = [(weights, slope) for weights in of_tower if (slope := next(gradients)) is not None]
        found = relevance([w.detach() for w, _ in paired], [slope for _, slope in paired])[0].double().numpy()
        tokens = found.mean(axis=0) if part.options.pooling == "mean" else found[0]
        edge = int(np.sqrt(len(tokens) - 1))
        total += laid_out(tokens[1:].reshape(edge, edge), part.preprocess, *photo.shape[:2])
    return total


def relevance(attention: "Sequence[torch.Tensor]", gradients: "Sequence[torch.Tensor]") -> "torch.Tensor":
    """How much each token (N, T, T) rests on each other one after all blocks.

    Args:
        attention: Of each block, from the photo on, its weights A (N, heads, T, T).
        gradients: Of a class with respect to each of these.
    """
    import torch

    first = attention[0]
    total = torch.eye(first.shape[-1], dtype=first.dtype).expand(len(first), -1, -1)
    for weights, slope in zip(attention, gradients, strict=True):
        mean = (slope * weights).clamp(min=0).mean(dim=1)
        total = total + mean @ total
    return total


@contextmanager
def _recorded(networks: "Sequence[torch.nn.Module]") -> "Iterator[list[list[torch.Tensor]]]":
    """The attention weights (N, heads, T, T) of each network, block by block, as they are computed in the block.

    Libraries compute attention in one fused kernel that keeps no weights; here it is done in steps.
    """
    from transformers import PreTrainedModel

    found: list[list[torch.Tensor]] = [[] for _ in networks]
    undo: list[Any] = []
    try:
        for network, weights in zip(networks, found, strict=True):
            undo += [_eager(module) for module in network.modules() if isinstance(module, PreTrainedModel)]
            for module in network.modules():
                if type(module).__name__ == "ResidualAttentionBlock":
                    undo.append(_stepwise(module, weights))
                elif type(module).__name__ in ("ViTAttention", "CLIPAttention"):
                    handle = module.register_forward_hook(lambda _m, _i, output, kept=weights: kept.append(output[1]))
                    undo.append(handle.remove)
        yield found
    finally:
        for back in reversed(undo):
            back()


def _eager(model: Any) -> Any:
    """Let a model of transformers compute its attention in steps; returns what undoes it."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    return lambda: model.set_attn_implementation(before)


def _stepwise(block: Any, kept: "list[torch.Tensor]") -> Any:
    """Let a block of open_clip compute its attention in steps and keep its weights; returns what undoes it."""
    import torch

    fused = block.attn

    class Stepwise(torch.nn.Module):
        def forward(self, tokens: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, None]:
            x = tokens if fused.batch_first else tokens.transpose(0, 1)
            joined = torch.nn.functional.linear(x, fused.in_proj_weight, fused.in_proj_bias)
            q, k, v = joined.unflatten(2, (3, fused.num_heads, -1)).permute(2, 0, 3, 1, 4)
            weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(dim=-1)
            kept.append(weights)
            seen = fused.out_proj((weights @ v).transpose(1, 2).flatten(2))
            return seen if fused.batch_first else seen.transpose(0, 1), None

    block.attn = Stepwise()

    def back() -> None:
        block.attn = fused

    return back
