"""CLIP image towers of transformers (Radford et al. 2021), among them StreetCLIP (Haas et al. 2023).

The folder holds ``config.json``, ``preprocessor_config.json`` and ``model.safetensors`` or ``pytorch_model.bin``.
"""

from pathlib import Path
from typing import Literal

from geoloc_core.encoders.encoder import Encoder, of_network
from geoloc_core.encoders.huggingface import clip_config, open_network, preprocess_of, same_size
from geoloc_core.encoders.options import TorchTower
from geoloc_core.encoders.published import TRANSFORMERS

FILES = TRANSFORMERS


class Options(TorchTower):
    """A CLIP tower."""

    kind: Literal["clip"]
    pooling: Literal["projection", "class", "mean", "tokens"] = "projection"
    """``projection`` is the image embedding, not normalised (GeoCLIP); ``class`` what it is projected from, after the
    last layer norm; ``mean`` and ``tokens`` are of the last hidden state, before that norm (PIGEON)."""


def load(options: Options, weights: Path) -> Encoder:
    """Open the image tower of a CLIP checkpoint folder.

    Raises:
        UserError: The folder is not a CLIP checkpoint of transformers.
    """
    config = clip_config(weights, "vision")
    preprocess = preprocess_of(weights)
    import torch
    from transformers import CLIPVisionModelWithProjection

    model = open_network(CLIPVisionModelWithProjection, weights, config=config)
    same_size(weights, preprocess, config.image_size)

    class Pooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.clip = model

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            output = self.clip.vision_model(pixel_values=images)
            match options.pooling:
                case "projection":
                    return self.clip.visual_projection(output.pooler_output)
                case "class":
                    return output.pooler_output
                case "mean":
                    return output.last_hidden_state.mean(dim=1)
                case "tokens":
                    return output.last_hidden_state

    dim = config.projection_dim if options.pooling == "projection" else config.hidden_size
    tokens = (config.image_size // config.patch_size) ** 2 + 1
    shape = (tokens, dim) if options.pooling == "tokens" else (dim,)
    return of_network(options, Pooled(), preprocess, shape)
