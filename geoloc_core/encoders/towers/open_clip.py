"""CLIP image towers of open_clip: any of its architectures, in the folder format of the Hugging Face hub.

The folder holds ``open_clip_config.json`` and ``open_clip_model.safetensors``, as published CLIP checkpoints do.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from geoloc_core.encoders.encoder import Encoder, of_network
from geoloc_core.encoders.openclip import CONFIG, after_blocks, blocks_of, config_of, open_model, save_clip
from geoloc_core.encoders.options import TorchTower
from geoloc_core.encoders.preprocess import Preprocess
from geoloc_core.encoders.published import OPEN_CLIP
from geoloc_core.encoders.trainable import Trainable
from geoloc_core.errors import UserError

if TYPE_CHECKING:
    import torch

FILES = OPEN_CLIP


class Options(TorchTower):
    """A CLIP tower."""

    kind: Literal["open_clip"]
    pooling: Literal["projection", "class", "mean", "tokens"] = "projection"
    """As of the kind ``clip``. Towers that are no transformers, such as RN50x16 with its attention pooling, have the
    projection alone."""


def load(options: Options, weights: Path) -> Encoder:
    """Open the image tower of a CLIP checkpoint folder.

    Raises:
        UserError: The folder is not a CLIP checkpoint of open_clip, or its tower cannot pool so.
    """
    config = config_of(weights)
    preprocess = preprocess_of(config, weights / CONFIG)
    network, shape = pooled(open_model(weights).visual, options.pooling, config["model_cfg"]["embed_dim"], weights)
    return of_network(options, network, preprocess, shape)


def trainable(options: Options, weights: Path) -> Trainable:
    """Open the image tower of a CLIP checkpoint folder for training: see :func:`load`.

    It is saved with its text tower, as open_clip wants it. What its pooling does not use stays as it is.
    """
    config = config_of(weights)
    preprocess = preprocess_of(config, weights / CONFIG)
    model = open_model(weights)
    network, (dim,) = pooled(model.visual, options.pooling, config["model_cfg"]["embed_dim"], weights)
    if options.pooling != "projection":
        model.visual.proj.requires_grad_(False)
        model.visual.ln_post.requires_grad_(options.pooling == "class")

    def save(folder: Path) -> None:
        save_clip(model, config["model_cfg"], config.get("preprocess_cfg", {}), folder)

    blocks, after = blocks_of(model.visual), after_blocks(model.visual)
    return Trainable(network.eval(), preprocess, dim, save, blocks, list(after))


def pooled(tower: Any, pooling: str, dim: int, weights: Path) -> "tuple[torch.nn.Module, tuple[int, ...]]":
    """An image tower that pools as asked, and the shape of its feature.

    Raises:
        UserError: The tower has no such tokens.
    """
    import torch
    from open_clip.transformer import VisionTransformer

    if pooling == "projection":
        return tower, (dim,)
    if not isinstance(tower, VisionTransformer) or tower.attn_pool is not None or tower.pool_type != "tok":
        raise UserError(
            f"{weights}: pooling {pooling!r}: the tower, a {type(tower).__name__}, has no class token to pool with; "
            "expected projection"
        )

    class Pooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tower = tower

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            found = self.tower.forward_intermediates(
                images, indices=1, intermediates_only=True, output_fmt="NLC", output_extra_tokens=True
            )
            tokens = torch.cat([found["image_intermediates_prefix"][0], found["image_intermediates"][0]], dim=1)
            match pooling:
                case "class":
                    return self.tower.ln_post(tokens[:, 0])
                case "mean":
                    return tokens.mean(dim=1)
                case _:
                    return tokens

    count, width = tower.positional_embedding.shape
    return Pooled(), (count, width) if pooling == "tokens" else (width,)


def preprocess_of(config: dict[str, Any], where: Path) -> Preprocess:
    """The preparation a ``preprocess_cfg`` asks for; where it is silent, open_clip's own defaults.

    Raises:
        UserError: It asks for something unsupported.
    """
    from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    chosen = config.get("preprocess_cfg", {})
    size = chosen.get("size") or config["model_cfg"].get("vision_cfg", {}).get("image_size", 224)
    high, wide = size if isinstance(size, list | tuple) else (size, size)
    mode, resample = chosen.get("resize_mode") or "shortest", chosen.get("interpolation") or "bicubic"
    for key, got, expected in (
        ("size", [high, wide], [[high, high]]),
        ("resize_mode", mode, ["shortest", "squash"]),
        ("interpolation", resample, ["bicubic", "bilinear", "random"]),
        ("mode", chosen.get("mode", "RGB"), ["RGB"]),
    ):
        if got not in expected:
            raise UserError(f"{where}: preprocess_cfg.{key}: {got!r}; expected {' or '.join(map(str, expected))}")
    return Preprocess(
        size=high,
        mode="squash" if mode == "squash" else "crop",
        resample="bilinear" if resample == "bilinear" else "bicubic",  # random is of training alone
        mean=tuple(chosen.get("mean") or OPENAI_DATASET_MEAN),
        std=tuple(chosen.get("std") or OPENAI_DATASET_STD),
    )
