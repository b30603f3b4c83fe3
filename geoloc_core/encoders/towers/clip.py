"""CLIP image towers of transformers (Radford et al. 2021), among them StreetCLIP (Haas et al. 2023).

The folder holds ``config.json``, ``preprocessor_config.json`` and ``model.safetensors`` or ``pytorch_model.bin``.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from geoloc_core.encoders.encoder import Encoder, of_network
from geoloc_core.encoders.huggingface import clip_config, open_network, preprocess_of, same_size, saver
from geoloc_core.encoders.last_block import Pool, Shape, activation, joined, standard
from geoloc_core.encoders.options import MANY, PENULTIMATE, TorchTower
from geoloc_core.encoders.preprocess import Preprocess
from geoloc_core.encoders.published import TRANSFORMERS
from geoloc_core.encoders.trainable import Trainable

if TYPE_CHECKING:
    import torch

FILES = TRANSFORMERS


class Options(TorchTower):
    """A CLIP tower."""

    kind: Literal["clip"]
    pooling: Literal["projection", "class", "mean", "tokens", "penultimate"] = "projection"
    """``projection`` is the image embedding, not normalised (GeoCLIP); ``class`` what it is projected from, after the
    last layer norm; ``mean`` and ``tokens`` are of the last hidden state, before that norm (PIGEON); ``penultimate`` is
    the tokens that enter the last block, which a head then trains along."""


def load(options: Options, weights: Path) -> Encoder:
    """Open the image tower of a CLIP checkpoint folder.

    Raises:
        UserError: The folder is not a CLIP checkpoint of transformers.
    """
    model, network, preprocess = _open(options, weights)
    tokens = (model.config.image_size // model.config.patch_size) ** 2 + 1
    dim = _dim(options, model)
    return of_network(options, network, preprocess, (tokens, dim) if options.pooling in MANY else (dim,))


def trainable(options: Options, weights: Path) -> Trainable:
    """Open the image tower of a CLIP checkpoint folder for training: see :func:`load`.

    It is saved as the image tower alone. What its pooling does not use stays as it is.
    """
    model, network, preprocess = _open(options, weights)
    vision = model.vision_model
    model.visual_projection.requires_grad_(options.pooling == "projection")
    vision.post_layernorm.requires_grad_(options.pooling in ("projection", "class"))
    after = [*vision.post_layernorm.parameters(), *model.visual_projection.parameters()]
    return Trainable(
        network,
        preprocess,
        dim=_dim(options, model),
        save=saver(model, weights),
        blocks=list(vision.encoder.layers),
        after=after,
    )


def last_block(options: Options, weights: Path, pool: Pool) -> "tuple[Shape, dict[str, torch.Tensor]]":
    """The last block of a CLIP checkpoint folder: see :func:`geoloc_core.encoders.last_block.open_last_block`.

    Raises:
        UserError: The folder is not a CLIP checkpoint, or its activation is another.
    """
    model, _, _ = _open(options.model_copy(update={"pooling": "tokens"}), weights)
    block, config = model.vision_model.encoder.layers[-1], model.config
    shape = Shape(
        heads=config.num_attention_heads,
        activation=activation(config.hidden_act, weights),
        eps=config.layer_norm_eps,
        norm=pool == "class",
    )
    own, mlp = block.self_attn, block.mlp
    attention = (*joined(own.q_proj, own.k_proj, own.v_proj), own.out_proj)
    return shape, standard((block.layer_norm1, block.layer_norm2), attention, (mlp.fc1, mlp.fc2), _norm(model, pool))


def _norm(model: Any, pool: Pool) -> "torch.nn.Module | None":
    """What follows the last block: the class token is normalised, and the mean of all tokens is not (PIGEON)."""
    return model.vision_model.post_layernorm if pool == "class" else None


def _dim(options: Options, model: Any) -> int:
    config = model.config
    return int(config.projection_dim if options.pooling == "projection" else config.hidden_size)


def _open(options: Options, weights: Path) -> "tuple[Any, torch.nn.Module, Preprocess]":
    """The library's model, the network that pools its tokens, and the preparation of photos."""
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
                case _:
                    return output.last_hidden_state

    if options.pooling == PENULTIMATE:
        del model.vision_model.encoder.layers[-1]
    return model, Pooled().eval(), preprocess
