"""CLIP image towers of open_clip: any of its architectures, in the folder format of the Hugging Face hub.

The folder holds ``open_clip_config.json`` and ``open_clip_model.safetensors``, as published CLIP checkpoints do.
The feature is the projected image embedding (Radford et al. 2021), not normalised.
"""

from pathlib import Path
from typing import Literal

from geoloc_core.encoders.compute import on_device
from geoloc_core.encoders.encoder import Encoder
from geoloc_core.encoders.options import TorchTower
from geoloc_core.encoders.preprocess import Preprocess
from geoloc_core.errors import UserError
from geoloc_core.files import read_json

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"


class Options(TorchTower):
    """A CLIP tower."""

    kind: Literal["open_clip"]


def load(options: Options, weights: Path) -> Encoder:
    """Open the image tower of a CLIP checkpoint folder.

    Raises:
        UserError: The folder is not a CLIP checkpoint of open_clip.
    """
    for name in (CONFIG, WEIGHTS):
        if not (weights / name).is_file():
            raise UserError(f"{weights}: no {name}; expected an open_clip checkpoint folder; fetch or train it first")
    tower = open_model(weights).visual
    config = read_json(weights / CONFIG)
    preprocess = preprocess_of(config)
    return Encoder(
        shape=(config["model_cfg"]["embed_dim"],),
        batch=options.batch,
        preprocess=preprocess,
        forward=on_device(tower, preprocess),
        identity={"kind": options.kind, "pooling": "projection"},
    )


def open_model(weights: Path) -> "torch.nn.Module":  # type: ignore[name-defined] # noqa: F821
    """The whole CLIP model of a checkpoint folder, both towers, in inference mode."""
    import open_clip
    from safetensors import SafetensorError

    try:
        model = open_clip.create_model(f"local-dir:{weights}", load_weights=True)
    except (RuntimeError, ValueError, KeyError, TypeError, OSError, SafetensorError) as error:
        raise UserError(f"{weights}: not an open_clip checkpoint: {str(error).splitlines()[0]}") from None
    return model.eval()


def preprocess_of(config: dict) -> Preprocess:
    """The preparation a checkpoint's ``preprocess_cfg`` asks for; where it is silent, open_clip's own defaults."""
    from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    chosen = config.get("preprocess_cfg", {})
    size = chosen.get("size") or config["model_cfg"]["vision_cfg"]["image_size"]
    return Preprocess(
        size=size[0] if isinstance(size, list | tuple) else size,
        mode="squash" if chosen.get("resize_mode") == "squash" else "crop",
        resample=chosen.get("interpolation", "bicubic"),
        mean=tuple(chosen.get("mean", OPENAI_DATASET_MEAN)),
        std=tuple(chosen.get("std", OPENAI_DATASET_STD)),
    )
