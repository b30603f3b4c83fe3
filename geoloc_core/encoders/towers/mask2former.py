"""Mask2Former of the transformers library (Cheng et al. 2022): what a photo shows, piece by piece.

"Image Geolocalization with Directed Feature Identification" (Gong, Brumley 2024) trains one expert per group of such
features. The folder holds ``config.json``, ``preprocessor_config.json`` and ``model.safetensors`` or
``pytorch_model.bin``, with classes of Mapillary Vistas, Cityscapes, COCO or ADE20K. Its features are pictures
(:mod:`geoloc_core.encoders.instances`).
"""

from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal

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

FILES = TRANSFORMERS
LONGEST = 1333
"""The longer edge of a map of segments, pixels: larger photos are masked by the nearest of them, in bounded memory."""


class Options(Segmenter):
    """A segmenter. The paper states no thresholds: these are the library's."""

    kind: Literal["mask2former"]
    task: Literal["panoptic", "instance"] = "panoptic"
    """``panoptic`` finds roads, buildings and trees too; ``instance`` only what can be counted, and may overlap."""
    score: float = Field(0.5, ge=0, le=1)
    """A feature found with less confidence is left out."""
    mask: float = Field(0.5, gt=0, lt=1)
    """Probability from which a pixel belongs to a feature, where overlaps are judged (``panoptic``)."""
    overlap: float = Field(0.8, ge=0, lt=1)
    """A feature of which more confident ones leave no more than this share is left out (``panoptic``)."""


def load(options: Options, weights: Path) -> Instances:
    """Open a Mask2Former checkpoint folder.

    Raises:
        UserError: The folder is not such a checkpoint, or none of its classes belongs to a group.
    """
    model, processor = _open(weights)
    labels: dict[int, str] = model.config.id2label
    if not any(group_of(label) for label in labels.values()):
        raise UserError(
            f"{weights / CONFIG}: id2label: no class of {', '.join(GROUPS)}, such as road, building, tree or car; "
            f"got {', '.join(list(labels.values())[:3])} …"
        )
    return Instances(
        batch=options.batch,
        segment=Halving(_segmenter(model, processor, labels, options), lambda pieces: [*chain(*pieces)]),
        min_area=options.min_area,
        identity={"weights": digest(weights), **options.model_dump(exclude={"batch"})},
        parameters=sum(tensor.numel() for tensor in model.parameters()),
    )


def _open(weights: Path) -> tuple[Any, Any]:
    config_of(weights, "mask2former")
    from transformers import Mask2FormerForUniversalSegmentation

    model = open_network(Mask2FormerForUniversalSegmentation, weights)
    return model.requires_grad_(False).to(device()), open_processor(weights)


def _segmenter(
    model: Any, processor: Any, labels: dict[int, str], options: Options
) -> Callable[[Sequence[Image.Image]], list[list[Segment]]]:
    import torch

    def segment(photos: Sequence[Image.Image]) -> list[list[Segment]]:
        with torch.inference_mode():
            pixels = processor(images=list(photos), return_tensors="pt")["pixel_values"]
            found = model(pixel_values=pixels.to(device()))
            read = _instances if options.task == "instance" else _panoptic
            return [[Segment(labels[i], *rest) for i, *rest in one] for one in read(processor, found, photos, options)]

    return segment


def _panoptic(processor: Any, found: Any, photos: Sequence[Image.Image], options: Options) -> list[list[Any]]:
    """Per photo, class, score and mask of segments that do not overlap."""
    maps = processor.post_process_panoptic_segmentation(
        found,
        threshold=options.score,
        mask_threshold=options.mask,
        overlap_mask_area_threshold=options.overlap,
        label_ids_to_fuse=set(),
        target_sizes=[_map_size(*photo.size) for photo in photos],
    )
    return [
        [
            (segment["label_id"], segment["score"], (one["segmentation"] == segment["id"]).cpu().numpy())
            for segment in one["segments_info"]
        ]
        for one in maps
    ]


def _instances(processor: Any, found: Any, photos: Sequence[Image.Image], options: Options) -> list[list[Any]]:
    """Per photo, class, score and mask of segments that may overlap."""
    maps = processor.post_process_instance_segmentation(found, threshold=options.score, return_binary_maps=True)
    return [
        [
            (segment["label_id"], segment["score"], mask.cpu().numpy() > 0)
            for segment, mask in zip(one["segments_info"], one["segmentation"], strict=False)
        ]
        for one in maps
    ]


def _map_size(width: int, height: int) -> tuple[int, int]:
    """Height and width of a photo's map of segments."""
    scale = min(1.0, LONGEST / max(width, height))
    return max(1, round(height * scale)), max(1, round(width * scale))
