"""A small SegFormer (Xie et al. 2021) trained on the masks that a corpus publishes beside its photos.

It is saved in the folder format of published segmenters, with ADE20K's first colours as its ``palette.csv``.
"""

from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import Field, PositiveInt, model_validator

from geoloc_core.encoders import palette
from geoloc_core.encoders.device import device
from geoloc_core.encoders.preprocess import Preprocess
from geoloc_core.errors import UserError
from geoloc_core.plugins import Strict
from geoloc_core.project import Project
from geoloc_core.training import loop, photos
from geoloc_core.training.supervised import Lesson, fit

if TYPE_CHECKING:
    import torch

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, as published SegFormers have them."""


class Options(Strict):
    """Masks, architecture and recipe."""

    kind: Literal["segformer"]
    corpus: str
    """The corpus that it is trained on."""
    masks: str = "mask"
    """Column of ``attributes.parquet`` that holds a mask of each photo, a PNG."""
    classes: tuple[str, ...] = Field(min_length=2, max_length=150)
    """Names of the classes; a pixel of class number c and instance i is ``per`` × c + i, as in Cityscapes."""
    per: int = Field(1000, gt=0)
    """What a class' number is multiplied by in a mask."""
    image_size: int = Field(96, ge=32, multiple_of=32)
    """Width and height of a photo, in pixels."""
    dims: tuple[PositiveInt, ...] = (16, 32, 64, 96)
    """Of the four stages."""
    decoder_dim: int = Field(64, gt=0)
    """Width of the decoder."""
    epochs: int = Field(gt=0)
    """How often all training photos are seen."""
    batch: int = Field(gt=1)
    """Photos a step."""
    lr: float = Field(gt=0)
    """The greatest learning rate."""
    weight_decay: float = Field(0.01, ge=0)
    """How strongly matrices are pulled towards 0 at each step, times the rate."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.dims) != 4:
            raise ValueError(f"dims: {len(self.dims)} numbers; expected four, one of each stage")
        return self


def pretrain(
    project: Project, options: Options, out: Path, partial: Path, log: loop.Log
) -> tuple[list[loop.Metrics], dict[str, Any]]:
    """Train and save a SegFormer.

    Args:
        project: The project.
        options: Masks, architecture and recipe.
        out: The folder to write the checkpoint to.
        partial: Where unfinished work survives a kill.
        log: Called with the metrics of every epoch.

    Returns:
        The metrics of every epoch, and figures for the summary.

    Raises:
        UserError: The corpus publishes no masks, or one cannot be read or has other classes.
    """
    import torch

    preprocess = Preprocess(options.image_size, "squash", "bilinear", MEAN, STD)
    lesson = Lesson.of(project, options.corpus, options.batch, preprocess, partial)
    masks = torch.from_numpy(_masks(project, options))
    model = _network(options, project.profile.seed).to(device())
    weights = _weights(masks[lesson.rows], len(options.classes)).to(device())

    def outcome(inputs: "torch.Tensor", rows: np.ndarray) -> "tuple[torch.Tensor, int, int]":
        logits, wanted = _logits(model, inputs), masks[rows].to(device())
        loss = torch.nn.functional.cross_entropy(logits, wanted.long(), weights)
        return loss, int((logits.argmax(1) == wanted).sum()), wanted.numel()

    warmup = max(1, lesson.steps // 2)
    history = fit(
        project, lesson, model, outcome, options, partial, log, accuracy="pixel_accuracy", warmup=warmup, augment="none"
    )
    _save(model, options, out)
    return history, {"photos": len(lesson.rows), "classes": len(options.classes), "parameters": model.num_parameters()}


def _network(options: Options, seed: int) -> Any:
    import torch
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    torch.manual_seed(seed)
    config = SegformerConfig(
        hidden_sizes=list(options.dims),
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 1, 2, 4],
        decoder_hidden_size=options.decoder_dim,
        num_labels=len(options.classes),
        id2label=dict(enumerate(options.classes)),
        label2id={name: number for number, name in enumerate(options.classes)},
    )
    return SegformerForSemanticSegmentation(config)


def _logits(model: Any, inputs: "torch.Tensor") -> "torch.Tensor":
    """Logits (N, C, size, size), brought to the size of the input as the library's loss does."""
    from torch.nn.functional import interpolate

    return interpolate(model(pixel_values=inputs).logits, size=inputs.shape[-2:], mode="bilinear", align_corners=False)


def _weights(masks: "torch.Tensor", classes: int) -> "torch.Tensor":
    """Weight (C,) of each class in the loss: rare ones count more, by the square root of how rare they are."""
    import torch

    counts = torch.bincount(masks.flatten().long(), minlength=classes).double()
    weights = torch.where(counts > 0, (counts.sum() / counts.clamp(min=1)).sqrt(), 0.0)
    return (weights / weights[counts > 0].mean()).float()


def _masks(project: Project, options: Options) -> np.ndarray:
    """Classes (N, size, size) uint8 of the pixels of all photos, each by the nearest pixel of its mask."""
    from PIL import Image

    folder, size = project.corpus(options.corpus), options.image_size
    encoded = photos.attribute(project, options.corpus, options.masks)
    found = np.zeros((len(encoded), size, size), np.uint8)

    def read(row: int) -> None:
        if not isinstance(encoded[row], bytes):
            raise UserError(f"{folder}: row {row}: no mask in column {options.masks}; fetch a corpus with masks: true")
        try:
            with Image.open(BytesIO(encoded[row])) as image:
                classes = np.asarray(image).astype(np.int64) // options.per
        except (OSError, ValueError) as error:
            raise UserError(f"{folder}: row {row}: not a mask: {error}; ingest it again") from None
        if classes.ndim != 2 or classes.max() >= len(options.classes) or classes.min() < 0:
            raise UserError(
                f"{folder}: row {row}: its mask has class {classes.max()}; expected 0 to {len(options.classes) - 1}, "
                "the classes of params.yaml"
            )
        at = (np.arange(size) + 0.5) / size
        down, across = ((at * edge).astype(np.int64) for edge in classes.shape)
        found[row] = classes[down[:, None], across]

    with ThreadPoolExecutor() as pool:
        list(pool.map(read, range(len(encoded))))
    return found


def _save(model: Any, options: Options, out: Path) -> None:
    from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil

    model.save_pretrained(out)
    edge = {"height": options.image_size, "width": options.image_size}
    SegformerImageProcessorPil(size=edge, image_mean=list(MEAN), image_std=list(STD)).save_pretrained(out)
    colours = palette.ade20k()[: len(options.classes)]
    (out / palette.FILE).write_text("".join(f"{','.join(map(str, colour))}\n" for colour in colours.tolist()))
