"""HRNetV2 with a C1 decoder, the segmenter of ADE20K that the thesis and TransLocator use.

Sun et al. 2019, trained by MIT CSAIL (Zhou et al. 2018); the folder holds ``encoder_epoch_30.pth`` and
``decoder_epoch_30.pth`` as published. Widths and depths are read off the tensors, so that every HRNetV2 fits.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoloc_core.encoders.torch_files import fill, read_tensors
from geoloc_core.errors import UserError

if TYPE_CHECKING:
    import torch

ENCODER, DECODER = "encoder_epoch_30.pth", "decoder_epoch_30.pth"
STRIDE = 32
"""The sides of a photo must be multiples of it, or the branches do not fit together."""
SYNCHRONISED = ("._tmp_running_", "._running_iter")
"""What batch normalisation over several GPUs leaves in a checkpoint and inference does not need."""


def load(folder: Path) -> "tuple[torch.nn.Module, int]":
    """Open a published checkpoint.

    Returns:
        From normalised photos (N, 3, H, W) to logits of classes (N, C, H / 4, W / 4), and C.

    Raises:
        UserError: A file is missing, damaged or for another network.
    """
    import torch
    from timm.models.hrnet import HighResolutionNet
    from torch.nn.functional import interpolate

    weights, head = read_tensors(folder / ENCODER), read_tensors(folder / DECODER)
    try:
        branches = HighResolutionNet(_layout(weights), head="")
        (hidden, channels), classes = head["cbr.0.weight"].shape[:2], len(head["conv_last.weight"])
        decoder = _decoder(channels, hidden, classes)
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        raise UserError(f"{folder}: not an HRNetV2 with a C1 decoder ({error}); expected CSAIL's checkpoint") from None
    for module in branches.modules():
        if isinstance(module, torch.nn.Upsample):  # the library's own networks were trained with the nearest
            module.mode, module.align_corners = "bilinear", False
    fill(branches, weights, folder / ENCODER, SYNCHRONISED)
    fill(decoder, head, folder / DECODER, SYNCHRONISED)

    class Segmenter(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branches, self.decoder = branches, decoder

        def forward(self, photos: torch.Tensor) -> torch.Tensor:
            finest, *coarser = self.branches.forward_features(photos)
            size = finest.shape[-2:]
            scaled = [interpolate(x, size=size, mode="bilinear", align_corners=False) for x in coarser]
            return self.decoder(torch.cat([finest, *scaled], dim=1))

    return Segmenter().eval(), classes


def _layout(weights: "dict[str, torch.Tensor]") -> dict[str, Any]:
    """The library's description of the network that the tensors belong to."""
    layout: dict[str, Any] = {
        "stem_width": len(weights["conv1.weight"]),
        "stage1": _stage("BOTTLENECK", 1, [_count(weights, "layer1.")], [len(weights["layer1.0.conv1.weight"])]),
    }
    for number in (2, 3, 4):
        name = f"stage{number}."
        branches = range(_count(weights, f"{name}0.branches."))
        widths = [len(weights[f"{name}0.branches.{branch}.0.conv1.weight"]) for branch in branches]
        depths = [_count(weights, f"{name}0.branches.{branch}.") for branch in branches]
        layout[f"stage{number}"] = _stage("BASIC", _count(weights, name), depths, widths)
    return layout


def _stage(block: str, modules: int, depths: list[int], widths: list[int]) -> dict[str, Any]:
    return {
        "num_modules": modules,
        "num_branches": len(widths),
        "block_type": block,
        "num_blocks": tuple(depths),
        "num_channels": tuple(widths),
        "fuse_method": "SUM",
    }


def _count(weights: "dict[str, torch.Tensor]", prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in weights if name.startswith(prefix)})


def _decoder(channels: int, hidden: int, classes: int) -> "torch.nn.Module":
    from torch import nn

    decoder = nn.Sequential()
    norm = nn.Sequential(nn.Conv2d(channels, hidden, 3, padding=1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU())
    decoder.add_module("cbr", norm)
    decoder.add_module("conv_last", nn.Conv2d(hidden, classes, 1))
    return decoder
