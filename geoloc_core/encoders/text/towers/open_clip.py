"""The text towers of open_clip's checkpoint folders: features in the space of the image tower.

The folder is that of the image tower; the tokenizer is CLIP's, which comes with the library, unless the config names
one of transformers, whose files lie beside it then.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from geoloc_core.encoders.device import device
from geoloc_core.encoders.openclip import config_of, open_model
from geoloc_core.encoders.published import OPEN_CLIP, Wanted
from geoloc_core.encoders.text.encoder import TextEncoder
from geoloc_core.errors import UserError, in_a_line, is_of_the_machine
from geoloc_core.plugins import Strict

FILES: tuple[Wanted, ...] = (*OPEN_CLIP, (("tokenizer.json",), ()), (("tokenizer_config.json",), ()))


class Options(Strict):
    """A CLIP text tower."""

    kind: Literal["open_clip"]
    pooling: Literal["projection"] = "projection"
    """The text embedding, not normalised."""
    batch: int = Field(256, gt=0)
    """Sentences at a time."""


def load(options: Options, weights: Path) -> TextEncoder:
    """Open the text tower of a CLIP checkpoint folder.

    Raises:
        UserError: The folder is not a CLIP checkpoint of open_clip.
    """
    config = config_of(weights)
    model = open_model(weights).to(device())
    import open_clip
    import torch

    try:
        tokenizer = open_clip.get_tokenizer(f"local-dir:{weights}")
    except Exception as error:  # any: tokenizers raises plain Exception, transformers whatever a wrong value leads to
        if is_of_the_machine(error):
            raise
        raise UserError(f"{weights}: not a readable tokenizer: {in_a_line(error)}") from None
    longest = tokenizer.context_length

    def tokenize(texts: Sequence[str]) -> list[list[int]]:
        # without the zeros that fill a text up to the context's length
        return [np.trim_zeros(row, "b").tolist() for row in tokenizer(list(texts)).numpy()] if len(texts) else []

    def forward(tokens: list[list[int]]) -> np.ndarray:
        with torch.inference_mode():
            ids = torch.tensor([text + [0] * (longest - len(text)) for text in tokens], device=device())
            return model.encode_text(ids).float().cpu().numpy()

    counted = (p.numel() for name, p in model.named_parameters() if not name.startswith(("visual.", "logit_")))
    return TextEncoder(
        dim=config["model_cfg"]["embed_dim"],
        batch=options.batch,
        tokenize=tokenize,
        forward=forward,
        longest=longest,
        identity={"kind": options.kind, "pooling": options.pooling, "longest": longest},
        parameters=sum(counted),
    )
