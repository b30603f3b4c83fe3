"""A small vision transformer trained to tell classes apart (Dosovitskiy et al. 2021), here a corpus' scene labels.

It is saved in the folder format of published ViT checkpoints, and read by the same code as they are.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from geoloc_core.encoders.device import device
from geoloc_core.encoders.preprocess import Preprocess
from geoloc_core.files import write_json
from geoloc_core.plugins import Strict
from geoloc_core.project import Project
from geoloc_core.training import loop, photos
from geoloc_core.training.captions import split_phrases
from geoloc_core.training.supervised import Lesson, fit

if TYPE_CHECKING:
    import torch

HALF = (0.5, 0.5, 0.5)
"""Mean and standard deviation of Google's ViT checkpoints, and the thesis'."""


class Options(Strict):
    """Architecture and recipe."""

    kind: Literal["vit"]
    corpus: str
    """The corpus that it is trained on."""
    target: str
    """Column of ``attributes.parquet`` that holds the class, or classes with ``; `` between them."""
    several: bool = False
    """Whether a photo has several classes, as those of ImageNet-21k have, or just one."""
    image_size: int = Field(64, ge=16)
    """Width and height of a photo, in pixels."""
    patch_size: int = Field(8, gt=0)
    """Of a token, in pixels."""
    dim: int = Field(96, gt=0)
    """Width of a token."""
    layers: int = Field(3, gt=0)
    """Blocks of the transformer."""
    heads: int = Field(3, gt=0)
    """Attention heads of each."""
    epochs: int = Field(gt=0)
    """How often all training photos are seen."""
    batch: int = Field(gt=1)
    """Photos a step."""
    lr: float = Field(gt=0)
    """The greatest learning rate."""
    weight_decay: float = Field(0.05, ge=0)
    """How strongly matrices are pulled towards 0 at each step, times the rate."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.image_size % self.patch_size:
            raise ValueError(f"patch_size {self.patch_size} does not divide image_size {self.image_size}")
        if self.dim % self.heads:
            raise ValueError(f"heads {self.heads} does not divide dim {self.dim}")
        return self


def pretrain(
    project: Project, options: Options, out: Path, partial: Path, log: loop.Log
) -> tuple[list[loop.Metrics], dict[str, Any]]:
    """Train and save a ViT.

    Args:
        project: The project.
        options: Architecture and recipe.
        out: The folder to write the checkpoint to.
        partial: Where unfinished work survives a kill.
        log: Called with the metrics of every epoch.

    Returns:
        The metrics of every epoch, and figures for the summary.
    """
    import torch
    from transformers import ViTConfig, ViTForImageClassification
    from transformers.utils import logging

    logging.disable_progress_bar()

    preprocess = Preprocess(options.image_size, "squash", "bilinear", HALF, HALF)
    lesson = Lesson.of(project, options.corpus, options.batch, preprocess, partial)
    classes = _classes(photos.attribute(project, options.corpus, options.target), options.several)
    targets = torch.from_numpy(classes)
    torch.manual_seed(project.profile.seed)
    config = ViTConfig(
        image_size=options.image_size,
        patch_size=options.patch_size,
        hidden_size=options.dim,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        intermediate_size=4 * options.dim,
        num_labels=classes.shape[1],
    )
    model = ViTForImageClassification(config).to(device())

    def outcome(inputs: "torch.Tensor", rows: np.ndarray) -> "tuple[torch.Tensor, int, int]":
        logits, wanted = model(pixel_values=inputs).logits.cpu(), targets[rows]
        hits = int(wanted.gather(1, logits.argmax(1, keepdim=True)).sum())
        return _loss(logits, wanted, options.several), hits, len(rows)

    history = fit(
        project,
        lesson,
        model,
        outcome,
        options,
        partial,
        log,
        accuracy="accuracy",
        warmup=lesson.steps,
        augment="shift",
    )
    model.save_pretrained(out)
    write_json(
        out / "preprocessor_config.json",
        {
            "image_processor_type": "ViTImageProcessor",
            "do_resize": True,
            "do_rescale": True,
            "do_normalize": True,
            "size": {"height": options.image_size, "width": options.image_size},
            "resample": 2,
            "rescale_factor": 1 / 255,
            "image_mean": list(HALF),
            "image_std": list(HALF),
        },
    )
    return history, {"photos": len(lesson.rows), "classes": classes.shape[1], "parameters": model.num_parameters()}


def _classes(values: list, several: bool) -> np.ndarray:
    """Which classes each photo has: (N, C) float32 of 0 and 1, classes in their order."""
    own = split_phrases(values) if several else [(value,) for value in values]
    names = {name: column for column, name in enumerate(sorted({name for found in own for name in found}))}
    targets = np.zeros((len(own), len(names)), np.float32)
    for row, found in enumerate(own):
        targets[row, [names[name] for name in found]] = 1
    return targets


def _loss(logits: "torch.Tensor", targets: "torch.Tensor", several: bool) -> "torch.Tensor":
    """Cross entropy with the one class of each photo, or of each class by itself, summed over the classes."""
    from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

    if several:
        return binary_cross_entropy_with_logits(logits, targets, reduction="sum") / len(logits)
    return cross_entropy(logits, targets)
