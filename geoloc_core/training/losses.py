"""Losses that families share."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def of_class(logits: "torch.Tensor", truth: "torch.Tensor", weights: "torch.Tensor") -> "torch.Tensor":
    """Class-weighted cross entropy, Σ w_y · −log p_y / Σ w_y over the batch.

    Args:
        logits: (B, C).
        truth: (B,) int64 classes.
        weights: (C,) of the classes.
    """
    from torch.nn.functional import cross_entropy

    return cross_entropy(logits, truth, weights)


def of_attention(scores: "torch.Tensor", relevant: "torch.Tensor", positive_weight: float) -> "torch.Tensor":
    """Binary cross entropy of each clue's score, its mean over photos and clues (Luo et al. 2022, section 4).

    Args:
        scores: (B, M) before any squashing.
        relevant: (B, M) of 1 where a clue is about the photo's class, and 0.
        positive_weight: Of what is relevant.
    """
    from torch.nn.functional import binary_cross_entropy_with_logits

    return binary_cross_entropy_with_logits(scores, relevant, pos_weight=scores.new_tensor(positive_weight))
