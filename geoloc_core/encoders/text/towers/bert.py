"""Encoders of transformers in BERT's family, such as RoBERTa (Liu et al. 2019) and DistilBERT (Sanh et al. 2019).

The folder holds ``config.json``, ``model.safetensors`` or ``pytorch_model.bin``, and the tokenizer's files.
"""

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from geoloc_core.encoders.device import device
from geoloc_core.encoders.huggingface import config_of, open_network
from geoloc_core.encoders.published import TENSORS, TOKENIZER, Wanted
from geoloc_core.encoders.text.encoder import TextEncoder
from geoloc_core.encoders.text.tokens import mean_of, padded, tokenize_with, tokenizer_of
from geoloc_core.plugins import Strict

NETWORKS = {"bert": "BertModel", "roberta": "RobertaModel", "distilbert": "DistilBertModel"}
"""The library's class of each ``model_type``."""

FILES: tuple[Wanted, ...] = ("config.json", TENSORS, *TOKENIZER)


class Options(Strict):
    """A BERT-like text tower."""

    kind: Literal["bert"]
    pooling: Literal["class", "mean"] = "mean"
    """Of the last hidden state: its first token, or the mean of the text's tokens."""
    batch: int = Field(256, gt=0)
    """Sentences at a time."""


def load(options: Options, weights: Path) -> TextEncoder:
    """Open a checkpoint folder; a head in it, such as that of masked language, is ignored.

    Raises:
        UserError: The folder is not such a checkpoint, or its tokenizer is missing.
    """
    config = config_of(weights, *NETWORKS)
    import torch
    import transformers

    head = {} if config["model_type"] == "distilbert" else {"add_pooling_layer": False}
    model = open_network(getattr(transformers, NETWORKS[config["model_type"]]), weights, **head).to(device())
    # RoBERTa numbers its positions from the padding's number on
    offset = model.config.pad_token_id + 1 if config["model_type"] == "roberta" else 0
    tokenizer, longest = tokenizer_of(weights, model.config.max_position_embeddings - offset)

    def forward(tokens: list[list[int]]) -> np.ndarray:
        with torch.inference_mode():
            ids, mask = (tensor.to(device()) for tensor in padded(tokens, tokenizer.pad_token_id))
            states = model(input_ids=ids, attention_mask=mask).last_hidden_state
            feature = states[:, 0] if options.pooling == "class" else mean_of(states, mask)
            return feature.float().cpu().numpy()

    return TextEncoder(
        dim=model.config.hidden_size if hasattr(model.config, "hidden_size") else model.config.dim,
        batch=options.batch,
        tokenize=tokenize_with(tokenizer, longest),
        forward=forward,
        longest=longest,
        identity={"kind": options.kind, "pooling": options.pooling, "longest": longest},
        parameters=sum(p.numel() for p in model.parameters()),
    )
