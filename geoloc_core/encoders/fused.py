"""Rewrites a tower so that it computes the same features faster; imported only where torch is needed anyway.

Attention becomes one product for queries, keys and values and one fused kernel, and the last block computes the class
token alone where only that is read. On the CPU every linear layer gets its weights in the order that oneDNN's kernels
read, and its activation computed on the way out; a convolution whose kernel is its stride, as that of patches, becomes
such a layer too. What a network is made of is recognised by its layers and by the source code of its library
(:mod:`geoloc_core.encoders.structure`); what is not recognised stays as it is.
"""

from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from geoloc_core.encoders import structure

QUICK = 1.702
"""QuickGELU(x) = x · sigmoid(1.702 x) = swish(1.702 x) / 1.702, and swish is what oneDNN knows."""
ACTIVATED = (("c_fc", "gelu", "c_proj"), ("fc1", "activation_fn", "fc2"), ("fc1", "act", "fc2"))
"""Names of a linear layer, the activation after it and the layer after that: in open_clip, transformers and timm."""


class Attention(nn.Module):
    """Drop-in for torch's self-attention, with the same weights.

    Args:
        attention: Torch's own; queries, keys and values are the same tokens.
        asking: How many of the first tokens are queries; None for all.
    """

    def __init__(self, attention: nn.MultiheadAttention, asking: int | None = None) -> None:
        super().__init__()
        self.heads, self.asking, width = attention.num_heads, asking, attention.embed_dim
        weight, bias = attention.in_proj_weight, attention.in_proj_bias
        if asking is None:
            self.qkv = _linear(weight, bias)
        else:
            self.q = _linear(weight[:width], None if bias is None else bias[:width])
            self.kv = _linear(weight[width:], None if bias is None else bias[width:])
        self.out = _linear(attention.out_proj.weight, attention.out_proj.bias)

    def forward(
        self, tokens: torch.Tensor, *_: Any, attn_mask: torch.Tensor | None = None, **__: Any
    ) -> tuple[torch.Tensor, None]:
        """(N, T, D) → (N, T, D), or (N, asking, D)."""
        if self.asking is None:
            q, k, v = self._split(self.qkv(tokens), 3)
        else:
            (q,) = self._split(self.q(tokens[:, : self.asking].contiguous()), 1)
            k, v = self._split(self.kv(tokens), 2)
        seen = scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
        return self.out(seen.transpose(1, 2).flatten(2)), None

    def _split(self, joined: torch.Tensor, parts: int) -> torch.Tensor:
        """(N, T, parts × D) → (parts, N, heads, T, D / heads)."""
        return joined.unflatten(2, (parts, self.heads, -1)).permute(2, 0, 3, 1, 4)


class ClassBlock(nn.Module):
    """open_clip's residual block, computed for the class token alone: (N, T, D) → (N, 1, D)."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.block: Any = block
        block.attn = Attention(block.attn, asking=1)

    def forward(self, tokens: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """(N, T, D) → (N, 1, D)."""
        block = self.block
        first = tokens[:, :1] + block.ls_1(block.attn(block.ln_1(tokens))[0])
        return first + block.ls_2(block.mlp(block.ln_2(first)))


class Packed(nn.Module):
    """A linear layer with its weights in oneDNN's own layout, and its activation fused in."""

    def __init__(self, layer: nn.Linear, activation: tuple[str, str] = ("none", ""), scale: float = 1.0) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach() * scale, None)
        self.bias = None if layer.bias is None else layer.bias.detach()
        self.activation, self.algorithm = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, in) → (…, out)."""
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, self.activation, [], self.algorithm)


class Patches(nn.Module):
    """A convolution whose kernel equals its stride, as a linear layer over patches."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.edge = convolution.weight, convolution.kernel_size[0]
        self.layer = Packed(_linear(self.weight.permute(0, 2, 3, 1).flatten(1), convolution.bias))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) → (N, D, H / edge, W / edge)."""
        edge = self.edge
        rows = images.permute(0, 2, 3, 1).unflatten(2, (-1, edge)).unflatten(1, (-1, edge))
        return self.layer(rows.transpose(2, 3).flatten(3)).permute(0, 3, 1, 2)


def _linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    layer: Any = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.detach(), requires_grad=False)
    layer.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
    return layer


def attend(network: Any) -> None:
    """Replace the self-attention of open_clip's blocks, and the last block where the class token alone is read."""
    if not structure.is_known(network):
        return
    last = _last_block(network)
    blocks: list[Any] = [m for m in network.modules() if type(m).__name__ == "ResidualAttentionBlock"]
    for block in blocks:
        if hasattr(block, "ln_1_kv") or not getattr(block.attn, "batch_first", False):
            continue  # it asks other tokens, or has them in another order
        if not structure.is_as_written(block):
            continue
        if block is last:
            network.transformer.resblocks[-1] = ClassBlock(last)
        else:
            block.attn = Attention(block.attn)


def _last_block(network: Any) -> Any:
    """The block of an open_clip tower whose class token is all that is read of it; None where more is."""
    reads_class = type(network).__name__ == "VisionTransformer" and getattr(network, "pool_type", "") == "tok"
    if not reads_class or network.attn_pool is not None or network.output_tokens:
        return None
    if not structure.is_as_written(network) or not structure.is_as_written(network.transformer):
        return None
    return network.transformer.resblocks[-1]


def can_pack() -> bool:
    """Whether torch has oneDNN's layers on this machine."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def pack(network: nn.Module) -> None:
    """Replace the linear layers, activations and patch convolutions of a network on the CPU."""
    if not structure.is_known(network):
        return
    for module in network.modules():
        for names in ACTIVATED:
            first, activation, second = (getattr(module, name, None) for name in names)
            known = _activation(activation)
            if type(first) is type(second) is nn.Linear and known and _follow(module, names):
                kind, scale = known
                first.bias = None if first.bias is None else nn.Parameter(first.bias.detach() * scale, False)
                setattr(module, names[0], Packed(first, kind, scale))
                setattr(module, names[1], nn.Identity())
                setattr(module, names[2], Packed(second, scale=1 / scale))
    _pack_rest(network)


def _follow(module: nn.Module, names: tuple[str, str, str]) -> bool:
    """Whether a module calls three of its children one after the other, with nothing between them that computes."""
    kind: type = type(module)
    order = tuple(module._modules) if kind is nn.Sequential else structure.chain(kind)
    if not set(names) <= set(order):
        return False
    between = order[order.index(names[0]) : order.index(names[2]) + 1]
    idle = [name for name in between if isinstance(getattr(module, name), nn.Identity | nn.Dropout)]
    return tuple(name for name in between if name not in idle) == names


def _pack_rest(module: nn.Module) -> None:
    if isinstance(module, nn.MultiheadAttention | nn.TransformerEncoderLayer):
        return  # torch hands their weights to kernels of its own
    kind: type = type(module)
    read = structure.read(kind)
    for name, child in module.named_children():
        if name in read:
            continue
        if type(child) is nn.Linear and not isinstance(module, nn.ModuleList | nn.ModuleDict):
            setattr(module, name, Packed(child))
        elif isinstance(child, nn.Conv2d) and _is_patches(child):
            setattr(module, name, Patches(child))
        else:
            _pack_rest(child)


def _is_patches(layer: nn.Conv2d) -> bool:
    edge = layer.kernel_size[0]
    shape = (layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups)
    return edge > 1 and shape == ((edge, edge), (edge, edge), (0, 0), (1, 1), 1)


def _activation(module: Any) -> tuple[tuple[str, str], float] | None:
    """What oneDNN calls an activation, and what its input is multiplied and its output divided by."""
    match type(module).__name__:
        case "GELU":
            return ("gelu", module.approximate), 1.0
        case "GELUActivation":
            return ("gelu", "none"), 1.0
        case "QuickGELU" | "QuickGELUActivation":
            return ("swish", ""), QUICK
    return None
