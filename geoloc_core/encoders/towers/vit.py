"""Vision transformers of the transformers library (Dosovitskiy et al. 2021), as the thesis uses ViT-L/16.

The folder holds ``config.json``, ``preprocessor_config.json`` and ``model.safetensors`` or ``pytorch_model.bin``.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from geoloc_core.encoders.encoder import Encoder, of_network
from geoloc_core.encoders.huggingface import config_of, open_network, preprocess_of, same_size, saver
from geoloc_core.encoders.last_block import Pool, Shape, activation, joined, standard
from geoloc_core.encoders.options import MANY, PENULTIMATE, TorchTower
from geoloc_core.encoders.preprocess import Preprocess
from geoloc_core.encoders.published import TRANSFORMERS
from geoloc_core.encoders.trainable import Trainable

if TYPE_CHECKING:
    import torch

FILES = TRANSFORMERS


class Options(TorchTower):
    """A ViT tower."""

    kind: Literal["vit"]
    pooling: Literal["class", "mean", "tokens", "penultimate"] = "class"
    """Of the last hidden state: its class token (thesis), the mean of all tokens, or all of them; ``penultimate`` is
    the tokens that enter the last block, which a head then trains along."""


def load(options: Options, weights: Path) -> Encoder:
    """Open a ViT checkpoint folder; a classification head in it is ignored.

    Raises:
        UserError: The folder is not a ViT checkpoint.
    """
    model, network, preprocess = _open(options, weights)
    dim = model.config.hidden_size
    tokens = (model.config.image_size // model.config.patch_size) ** 2 + 1
    return of_network(options, network, preprocess, (tokens, dim) if options.pooling in MANY else (dim,))


def trainable(options: Options, weights: Path) -> Trainable:
    """Open a ViT checkpoint folder for training: see :func:`load`."""
    model, network, preprocess = _open(options, weights)
    return Trainable(
        network,
        preprocess,
        dim=model.config.hidden_size,
        save=saver(model, weights),
        blocks=list(model.layers),
        after=list(model.layernorm.parameters()),
    )


def last_block(options: Options, weights: Path, pool: Pool) -> "tuple[Shape, dict[str, torch.Tensor]]":
    """The last block of a ViT checkpoint folder: see :func:`geoloc_core.encoders.last_block.open_last_block`.

    Raises:
        UserError: The folder is not a ViT checkpoint, or its activation is another.
    """
    model, _, _ = _open(options.model_copy(update={"pooling": "tokens"}), weights)
    block, config = model.layers[-1], model.config
    shape = Shape(
        heads=config.num_attention_heads,
        activation=activation(config.hidden_act, weights),
        eps=config.layer_norm_eps,
        norm=True,
    )
    own, mlp = block.attention, block.mlp
    attention = (*joined(own.q_proj, own.k_proj, own.v_proj), own.o_proj)
    return shape, standard(
        (block.layernorm_before, block.layernorm_after), attention, (mlp.fc1, mlp.fc2), model.layernorm
    )


def _open(options: Options, weights: Path) -> "tuple[Any, torch.nn.Module, Preprocess]":
    """The library's model, the network that pools its tokens, and the preparation of photos."""
    config_of(weights, "vit")
    preprocess = preprocess_of(weights)
    import torch
    from transformers import ViTModel

    model = open_network(ViTModel, weights, add_pooling_layer=False)
    same_size(weights, preprocess, model.config.image_size)

    class Pooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vit = model

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            tokens = self.vit(pixel_values=images).last_hidden_state
            match options.pooling:
                case "class":
                    return tokens[:, 0]
                case "mean":
                    return tokens.mean(dim=1)
                case _:
                    return tokens

    if options.pooling == PENULTIMATE:
        del model.layers[-1]
        model.layernorm = torch.nn.Identity()
    return model, Pooled().eval(), preprocess
