"""CLIP image towers of open_clip: any of its architectures, in the folder format of the Hugging Face hub.

The folder holds ``open_clip_config.json`` and ``open_clip_model.safetensors``, as published CLIP checkpoints do.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from geoloc_core.encoders.encoder import Encoder, of_network
from geoloc_core.encoders.last_block import Pool, Shape, standard
from geoloc_core.encoders.openclip import CONFIG, after_blocks, blocks_of, config_of, open_model, save_clip
from geoloc_core.encoders.options import MANY, PENULTIMATE, TorchTower
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
    pooling: Literal["projection", "class", "mean", "tokens", "penultimate"] = "projection"
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


def last_block(options: Options, weights: Path, pool: Pool) -> "tuple[Shape, dict[str, torch.Tensor]]":
    """The last block of a CLIP checkpoint folder: see :func:`geoloc_core.encoders.last_block.open_last_block`.

    Raises:
        UserError: The folder is not a CLIP checkpoint of open_clip, or its tower has no such block.
    """
    import torch
    from open_clip.transformer import QuickGELU, ResidualAttentionBlock

    model = open_model(weights)
    pooled(model.visual, options.pooling, 0, weights)  # which refuses other towers
    block = model.visual.transformer.resblocks[-1]
    plain = isinstance(block, ResidualAttentionBlock) and isinstance(block.ls_1, torch.nn.Identity)
    if not plain or not isinstance(block.mlp.gelu, QuickGELU | torch.nn.GELU):
        raise UserError(f"{weights}: the last block, a {type(block).__name__}, is not one that is trained apart here")
    shape = Shape(
        heads=block.attn.num_heads,
        activation="gelu" if isinstance(block.mlp.gelu, torch.nn.GELU) else "quick_gelu",
        eps=block.ln_1.eps,
        norm=pool == "class",
    )
    attention = (block.attn.in_proj_weight, block.attn.in_proj_bias, block.attn.out_proj)
    after = model.visual.ln_post if pool == "class" else None
    return shape, standard((block.ln_1, block.ln_2), attention, (block.mlp.c_fc, block.mlp.c_proj), after)


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

    indices = [len(tower.transformer.resblocks) - 2] if pooling == PENULTIMATE else 1
    if indices == [-1]:
        raise UserError(f"{weights}: pooling {pooling!r}: the tower has one block; expected one more")

    class Pooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tower = tower

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            found = self.tower.forward_intermediates(
                images, indices=indices, intermediates_only=True, output_fmt="NLC", output_extra_tokens=True
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
    return Pooled(), (count, width) if pooling in MANY else (width,)


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
