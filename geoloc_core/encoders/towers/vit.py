"""Vision transformers of the transformers library (Dosovitskiy et al. 2021), as the thesis uses ViT-L/16.

The folder holds ``config.json``, ``model.safetensors`` and ``preprocessor_config.json``.
"""

from pathlib import Path
from typing import Literal

from geoloc_core.encoders.compute import on_device
from geoloc_core.encoders.encoder import Encoder
from geoloc_core.encoders.options import TorchTower
from geoloc_core.encoders.preprocess import Preprocess
from geoloc_core.errors import UserError
from geoloc_core.files import read_json

FILES = ("config.json", "model.safetensors", "preprocessor_config.json")
PILLOW_BICUBIC = 3


class Options(TorchTower):
    """A ViT tower."""

    kind: Literal["vit"]
    pooling: Literal["cls", "mean"] = "cls"
    """Of the last hidden state: its class token (thesis), or the mean of all tokens."""


def load(options: Options, weights: Path) -> Encoder:
    """Open a ViT checkpoint folder; a classification head in it is ignored.

    Raises:
        UserError: The folder is not a ViT checkpoint.
    """
    for name in FILES:
        if not (weights / name).is_file():
            raise UserError(f"{weights}: no {name}; expected a transformers ViT folder; fetch or train it first")
    import torch
    from safetensors import SafetensorError
    from transformers import ViTModel
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model = ViTModel.from_pretrained(weights, add_pooling_layer=False, use_safetensors=True, local_files_only=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{weights}: not a ViT checkpoint: {str(error).splitlines()[0]}") from None

    class Pooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vit = model

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            tokens = self.vit(pixel_values=images).last_hidden_state
            return tokens[:, 0] if options.pooling == "cls" else tokens.mean(dim=1)

    preprocess = preprocess_of(read_json(weights / "preprocessor_config.json"))
    return Encoder(
        shape=(model.config.hidden_size,),
        batch=options.batch,
        preprocess=preprocess,
        forward=on_device(Pooled(), preprocess),
        identity={"kind": options.kind, "pooling": options.pooling},
    )


def preprocess_of(config: dict) -> Preprocess:
    """The preparation a ``preprocessor_config.json`` asks for."""
    size = config["size"]
    return Preprocess(
        size=size["height"] if isinstance(size, dict) else size,
        mode="squash",
        resample="bicubic" if config.get("resample", 2) == PILLOW_BICUBIC else "bilinear",
        mean=tuple(config["image_mean"]),
        std=tuple(config["image_std"]),
    )
