"""Where tensors are computed, and what that hardware can do."""

from functools import cache
from typing import TYPE_CHECKING

from geoloc_core.progress import say

if TYPE_CHECKING:
    import torch


def device() -> "torch.device":
    """The GPU where there is one, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@cache
def computes_bf16() -> bool:
    """Whether the device computes in bf16 at all, however slowly.

    On a CPU this takes oneDNN's kernels, which most processors without AVX-512 lack. They are tried out, since a limit
    set on oneDNN (``ONEDNN_MAX_CPU_ISA``) overrides what the processor reports.
    """
    import torch

    if device().type == "cuda":
        return torch.cuda.is_bf16_supported()
    if not torch.backends.mkldnn.is_available():
        return False
    ones = torch.ones(16, 16, dtype=torch.bfloat16)
    try:
        weight = torch.ops.mkldnn._reorder_linear_weight(ones, None)
        torch.ops.mkldnn._linear_pointwise(ones, weight, None, "none", [], "")
    except (RuntimeError, AttributeError):
        return False
    return True


def multiplies_bf16() -> bool:
    """Whether the device multiplies bf16 in hardware, so that it is faster than fp32."""
    import torch

    if not computes_bf16():
        return False
    if device().type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


@cache
def say_without_bf16() -> None:
    """Say, once, that bf16 was asked for and is not available."""
    kind = "GPU" if device().type == "cuda" else "processor"
    say(f"this {kind} does not support bf16; using fp32 instead")
