"""What is where, as a picture, through the same ViT as ``vit`` (thesis; TransLocator, Pramanick et al. 2022).

A segmenter of ADE20K names the class of every pixel, each class gets its colour, and the coloured map is what the ViT
sees. The folder holds ``vit``, as the tower ``vit`` reads it, and ``segmenter``: either CSAIL's HRNetV2
(:mod:`geoloc_core.encoders.hrnet`) or any semantic or universal segmenter of the transformers library. Its
``palette.csv``, where there is one, replaces ADE20K's colours.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from geoloc_core.encoders import hrnet, palette
from geoloc_core.encoders.composite import Composite
from geoloc_core.encoders.compute import Precision, on_device
from geoloc_core.encoders.encoder import Encoder
from geoloc_core.encoders.huggingface import CONFIG, REMEDY, RESAMPLE, open_network, open_processor
from geoloc_core.encoders.options import TorchTower
from geoloc_core.encoders.preprocess import Preprocess
from geoloc_core.encoders.published import Wanted
from geoloc_core.encoders.scenes import MEAN, STD
from geoloc_core.encoders.towers import vit
from geoloc_core.errors import UserError
from geoloc_core.files import read_json

if TYPE_CHECKING:
    import torch

PARTS: dict[str, tuple[Wanted, ...]] = {
    "segmenter": (
        (
            ("config.json", "preprocessor_config.json", "model.safetensors"),
            ("config.json", "preprocessor_config.json", "pytorch_model.bin"),
            ("encoder_epoch_30.pth", "decoder_epoch_30.pth"),
        ),
        (("palette.csv",), ()),
    ),
    "vit": vit.FILES,
}
UNIVERSAL = ("mask2former", "maskformer")
"""Kinds of network that find pieces, of which classes are made; others tell the class of every pixel."""
SIZE = 512
"""Of the input where a segmenter takes any, pixels: CSAIL's was trained on photos of 300 to 600."""


class Options(TorchTower):
    """A segmenter and a ViT."""

    kind: Literal["seg_vit"]
    pooling: Literal["class", "mean", "tokens"] = "class"
    """Of the ViT, as in ``vit``."""
    size: int | None = Field(None, gt=0, multiple_of=hrnet.STRIDE)
    """Height and width of the segmenter's input; left out, what its own preparation says, else 512."""
    mode: Literal["squash", "crop"] = "squash"
    """Whether the segmenter sees the whole photo squashed, as ViTs do, or the square in its middle."""
    batch: int = Field(32, gt=0)

    @property
    def parts(self) -> tuple[str, ...]:
        """The folders of its networks."""
        return "segmenter", "vit"


def load(options: Options, weights: Path) -> Encoder:
    """Open a folder of a segmenter and a ViT.

    Raises:
        UserError: Either is missing or damaged, or the segmenter's classes have no colours.
    """
    eyes = vit.load(vit.Options(kind="vit", pooling=options.pooling, precision=options.precision), weights / "vit")
    folder = weights / "segmenter"
    opened = _csail if (folder / hrnet.ENCODER).is_file() else _transformers
    network, preprocess, classes = opened(folder, options)
    colours = palette.read(folder, classes)
    # a class is right or wrong: the segmenter has bf16 only where it is asked for
    exact: Precision = "fp32" if options.precision == "auto" else options.precision
    segment = on_device(_nearest(network, eyes.preprocess.size), preprocess, exact)

    def forward(photos: np.ndarray) -> np.ndarray:
        return eyes.forward(colours[segment(photos).astype(np.intp)])

    return Encoder(
        shape=eyes.shape,
        batch=options.batch,
        preprocess=preprocess,
        forward=Composite(forward, (segment, eyes.forward)),
        identity={"kind": options.kind, "pooling": options.pooling, "palette": palette.digest(colours)},
        parameters=sum(tensor.numel() for tensor in network.parameters()) + (eyes.parameters or 0),
    )


def _csail(folder: Path, options: Options) -> "tuple[torch.nn.Module, Preprocess, int]":
    """From normalised photos (N, 3, S, S) to classes (N, S, S), how photos are prepared, how many classes there are."""
    import torch
    from torch.nn.functional import interpolate

    segmenter, classes = hrnet.load(folder)

    class Classes(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.segmenter = segmenter

        def forward(self, photos: torch.Tensor) -> torch.Tensor:
            logits = self.segmenter(photos).float()
            # photo by photo: the logits of one at full size are 150 times the photo
            return torch.stack(
                [
                    interpolate(one[None], size=photos.shape[-2:], mode="bilinear", align_corners=False)[0].argmax(0)
                    for one in logits
                ]
            )

    preprocess = Preprocess(options.size or SIZE, options.mode, "bilinear", MEAN, STD)
    return Classes(), preprocess, classes


def _transformers(folder: Path, options: Options) -> "tuple[torch.nn.Module, Preprocess, int]":
    """The same of a folder of transformers."""
    import torch
    from transformers import AutoModelForSemanticSegmentation, AutoModelForUniversalSegmentation

    if not (folder / CONFIG).is_file():
        csail = f"CSAIL's {hrnet.ENCODER} and {hrnet.DECODER}"
        raise UserError(f"{folder}: no {CONFIG}; expected a transformers segmenter, or {csail}")
    processor = open_processor(folder)
    universal = read_json(folder / CONFIG, REMEDY, dict[str, Any]).get("model_type") in UNIVERSAL
    model = open_network(AutoModelForUniversalSegmentation if universal else AutoModelForSemanticSegmentation, folder)

    class Classes(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.segmenter = model

        def forward(self, photos: torch.Tensor) -> torch.Tensor:
            sizes = [tuple(photos.shape[-2:])] * len(photos)
            found = self.segmenter(pixel_values=photos)
            return torch.stack(processor.post_process_semantic_segmentation(found, target_sizes=sizes))

    return Classes(), _prepared(folder, processor, options), model.config.num_labels


def _prepared(folder: Path, processor: Any, options: Options) -> Preprocess:
    """The preparation a segmenter's own processor does, in the square that batches are.

    Raises:
        UserError: It asks for something unsupported.
    """
    asked = f"resample {processor.resample}, mean {processor.image_mean}, std {processor.image_std}"
    flipped = getattr(processor, "do_flip_channel_order", False)
    if processor.resample is None or int(processor.resample) not in RESAMPLE or not processor.do_normalize or flipped:
        raise UserError(f"{folder}: prepares photos with {asked}; expected RGB, bilinear or bicubic, and normalised")
    return Preprocess(
        size=options.size or getattr(processor.size, "height", None) or SIZE,
        mode=options.mode,
        resample=RESAMPLE[int(processor.resample)],
        mean=tuple(processor.image_mean),
        std=tuple(processor.image_std),
    )


def _nearest(network: "torch.nn.Module", size: int) -> "torch.nn.Module":
    """The classes that a network finds, in the middle of each of ``size`` × ``size`` equal parts."""
    import torch

    class Scaled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, photos: torch.Tensor) -> torch.Tensor:
            classes = self.network(photos).float()[:, None]
            return torch.nn.functional.interpolate(classes, size=(size, size), mode="nearest-exact")[:, 0]

    return Scaled()
