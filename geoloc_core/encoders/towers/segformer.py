"""A semantic segmenter of the transformers library (SegFormer; Xie et al. 2021), and the pieces that its classes form.

It tells the class of every pixel; what hangs together and is of one class is a piece. Pieces are pictures, as those of
``mask2former`` are (:mod:`geoloc_core.encoders.instances`). The folder holds ``config.json``,
``preprocessor_config.json`` and ``model.safetensors`` or ``pytorch_model.bin``.
"""

from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from geoloc_core.encoders.device import device
from geoloc_core.encoders.groups import GROUPS, group_of
from geoloc_core.encoders.huggingface import CONFIG, config_of, open_network, open_processor
from geoloc_core.encoders.instances import Instances, Segment
from geoloc_core.encoders.memory import Halving
from geoloc_core.encoders.options import Segmenter
from geoloc_core.encoders.published import TRANSFORMERS
from geoloc_core.errors import UserError
from geoloc_core.files import digest

FILES = (*TRANSFORMERS, (("palette.csv",), ()))


class Options(Segmenter):
    """A segmenter, and which of its pieces count."""

    kind: Literal["segformer"]
    score: float = Field(0.0, ge=0, le=1)
    """A piece whose pixels are of its class with less confidence, on average, is left out."""


def load(options: Options, weights: Path) -> Instances:
    """Open a SegFormer checkpoint folder.

    Raises:
        UserError: The folder is not such a checkpoint, or none of its classes belongs to a group.
    """
    config_of(weights, "segformer")
    from transformers import SegformerForSemanticSegmentation

    model = open_network(SegformerForSemanticSegmentation, weights).requires_grad_(False).to(device())
    labels: dict[int, str] = model.config.id2label
    if not any(group_of(label) for label in labels.values()):
        raise UserError(
            f"{weights / CONFIG}: id2label: no class of {', '.join(GROUPS)}, such as road, building, tree or car; "
            f"got {', '.join(list(labels.values())[:3])} …"
        )
    segment = _segmenter(model, open_processor(weights), labels, options)
    return Instances(
        batch=options.batch,
        segment=Halving(segment, lambda pieces: [*chain(*pieces)]),
        min_area=options.min_area,
        identity={"weights": digest(weights), **options.model_dump(exclude={"batch"})},
        parameters=sum(tensor.numel() for tensor in model.parameters()),
    )


def _segmenter(
    model: Any, processor: Any, labels: dict[int, str], options: Options
) -> Callable[[Sequence[Image.Image]], list[list[Segment]]]:
    import torch
    from torch.nn.functional import interpolate

    def segment(photos: Sequence[Image.Image]) -> list[list[Segment]]:
        with torch.inference_mode():
            pixels = processor(images=list(photos), return_tensors="pt")["pixel_values"].to(device())
            logits = model(pixel_values=pixels).logits.float()
            full = interpolate(logits, size=pixels.shape[-2:], mode="bilinear", align_corners=False)
            sure, classes = full.softmax(dim=1).max(dim=1)
        maps = zip(classes.cpu().numpy(), sure.cpu().numpy(), strict=True)
        return [[piece for piece in pieces(*one, labels) if piece.score >= options.score] for one in maps]

    return segment


def pieces(classes: np.ndarray, sure: np.ndarray, labels: dict[int, str]) -> list[Segment]:
    """What hangs together and is of one class, corners not counting, in the order of the classes and from the top.

    Args:
        classes: (h, w) class of each pixel.
        sure: (h, w) confidence in it, 0 to 1.
        labels: Names of the classes.
    """
    from scipy.ndimage import label

    found = []
    for kind in np.unique(classes).tolist():
        numbered, count = label(classes == kind)
        for number in range(1, count + 1):
            mask = numbered == number
            found.append(Segment(labels[kind], float(sure[mask].mean()), mask))
    return found
