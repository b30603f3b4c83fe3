"""Tokenizers of transformers, from the checkpoint's own files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoloc_core.errors import UserError, in_a_line, is_of_the_machine

if TYPE_CHECKING:
    import torch

FILES = ("tokenizer.json", "vocab.json", "vocab.txt")
"""Each of these holds the vocabulary."""


def tokenizer_of(folder: Path, positions: int) -> tuple[Any, int]:
    """The tokenizer of a checkpoint folder, and how many tokens a text may have.

    Args:
        folder: The checkpoint.
        positions: Tokens that the network can take.

    Raises:
        UserError: The folder has no readable tokenizer.
    """
    if not any((folder / name).is_file() for name in FILES):
        raise UserError(f"{folder}: no {' or '.join(FILES)}; expected the checkpoint's tokenizer; download it too")
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # any: tokenizers raises plain Exception, transformers whatever a wrong value leads to
        if is_of_the_machine(error):
            raise
        raise UserError(f"{folder}: not a readable tokenizer: {in_a_line(error)}") from None
    return tokenizer, min(positions, tokenizer.model_max_length)


def tokenize_with(tokenizer: Any, longest: int) -> Callable[[Sequence[str]], list[list[int]]]:
    """A function from texts to the numbers of their tokens, cut at ``longest``."""

    def tokenize(texts: Sequence[str]) -> list[list[int]]:
        if not len(texts):
            return []
        ids: list[list[int]] = tokenizer(list(texts), truncation=True, max_length=longest)["input_ids"]
        return ids

    return tokenize


def padded(tokens: list[list[int]], filler: int) -> "tuple[torch.Tensor, torch.Tensor]":
    """Texts of several lengths as one tensor (N, T) int64, and its mask (N, T): 1 where a token is of the text."""
    import torch

    longest = max(map(len, tokens))
    ids = torch.tensor([text + [filler] * (longest - len(text)) for text in tokens])
    mask = torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in tokens])
    return ids, mask


def mean_of(states: "torch.Tensor", mask: "torch.Tensor") -> "torch.Tensor":
    """The mean (N, D) of the tokens (N, T, D) that the mask (N, T) leaves."""
    kept = mask.unsqueeze(-1).to(states.dtype)
    return (states * kept).sum(dim=1) / kept.sum(dim=1)
