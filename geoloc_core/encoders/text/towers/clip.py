"""The text towers of transformers' CLIP checkpoints, StreetCLIP's too: features in the space of the image tower.

The folder holds ``config.json``, ``model.safetensors`` or ``pytorch_model.bin``, and the tokenizer's files.
"""

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from geoloc_core.encoders.device import device
from geoloc_core.encoders.huggingface import clip_config, open_network
from geoloc_core.encoders.published import TENSORS, TOKENIZER, Wanted
from geoloc_core.encoders.text.encoder import TextEncoder
from geoloc_core.encoders.text.tokens import mean_of, padded, tokenize_with, tokenizer_of
from geoloc_core.plugins import Strict

FILES: tuple[Wanted, ...] = ("config.json", TENSORS, *TOKENIZER)


class Options(Strict):
    """A CLIP text tower."""

    kind: Literal["clip"]
    pooling: Literal["projection", "class", "mean"] = "projection"
    """``projection`` is the text embedding, not normalised; ``class`` the token that ends the text, which it is
    projected from; ``mean`` that of the text's tokens."""
    batch: int = Field(256, gt=0)
    """Sentences at a time."""


def load(options: Options, weights: Path) -> TextEncoder:
    """Open the text tower of a CLIP checkpoint folder.

    Raises:
        UserError: The folder is not a CLIP checkpoint of transformers, or its tokenizer is missing.
    """
    config = clip_config(weights, "text")
    import torch
    from transformers import CLIPTextModelWithProjection

    model = open_network(CLIPTextModelWithProjection, weights, config=config).to(device())
    tokenizer, longest = tokenizer_of(weights, config.max_position_embeddings)

    def forward(tokens: list[list[int]]) -> np.ndarray:
        with torch.inference_mode():
            ids, mask = (tensor.to(device()) for tensor in padded(tokens, tokenizer.pad_token_id))
            output = model.text_model(input_ids=ids, attention_mask=mask)
            match options.pooling:
                case "projection":
                    feature = model.text_projection(output.pooler_output)
                case "class":
                    feature = output.pooler_output
                case "mean":
                    feature = mean_of(output.last_hidden_state, mask)
            return feature.float().cpu().numpy()

    return TextEncoder(
        dim=config.projection_dim if options.pooling == "projection" else config.hidden_size,
        batch=options.batch,
        tokenize=tokenize_with(tokenizer, longest),
        forward=forward,
        longest=longest,
        identity={"kind": options.kind, "pooling": options.pooling, "longest": longest},
        parameters=sum(p.numel() for p in model.parameters()),
    )
