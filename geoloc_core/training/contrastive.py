"""CLIP's symmetric contrastive loss (Radford et al. 2021), on batches larger than the memory holds at once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from geoloc_core.errors import UserError

if TYPE_CHECKING:
    import torch

Autocast = Callable[[], Any]
"""Opens the context that forward passes run in."""


@dataclass(frozen=True)
class Outcome:
    """What one batch said.

    Attributes:
        loss: The mean of both directions.
        hits: Photos whose own caption is the nearest of those they were compared with.
    """

    loss: float
    hits: int


def loss_of(images: "torch.Tensor", texts: "torch.Tensor", scale: "torch.Tensor") -> "torch.Tensor":
    """The mean cross entropy of finding the caption of a photo, and the photo of a caption.

    Args:
        images: (B, D) of unit length.
        texts: (B, D) of unit length, row by row those of the photos.
        scale: Multiplies the cosines.
    """
    import torch
    from torch.nn.functional import cross_entropy

    logits = scale * images @ texts.T
    own = torch.arange(len(images), device=images.device)
    return (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2


def backward(
    model: Any,
    pixels: "torch.Tensor",
    tokens: "torch.Tensor",
    micro: int,
    compare_all: bool,
    autocast: Autocast,
) -> Outcome:
    """Add the gradients of one batch to those of the model.

    With ``compare_all`` this is gradient caching (Gao et al. 2021, section 3): embed all micro-batches without a
    graph, take the gradients of the whole batch's loss with respect to the embeddings, and run the micro-batches once
    more to carry them to the weights. The gradients are those of the whole batch, the memory is that of one
    micro-batch. Without, it is plain accumulation: a photo is compared with the captions of its own micro-batch alone,
    as in the trainer that StreetCLIP and PIGEON used.

    Args:
        model: A CLIP of open_clip.
        pixels: (B, 3, size, size), normalised.
        tokens: (B, context).
        micro: Photos at once; the last micro-batch may be smaller.
        compare_all: Whether the loss is that of the whole batch.
        autocast: See :data:`Autocast`.
    """
    parts = list(zip(pixels.split(micro), tokens.split(micro), strict=True))
    if len(parts) == 1 or not compare_all:
        outcomes = [_plain(model, *part, len(part[0]) / len(pixels), autocast) for part in parts]
        return Outcome(sum(o.loss for o in outcomes), sum(o.hits for o in outcomes))
    return _cached(model, parts, autocast)


def check_micro_batches(model: Any, where: str) -> None:
    """Refuse micro-batches for a model whose forward pass depends on the rest of its batch.

    Raises:
        UserError: It has batch normalisation.
    """
    from torch.nn.modules.batchnorm import _BatchNorm

    if any(isinstance(module, _BatchNorm) for module in model.modules()):
        raise UserError(
            f"{where}: the tower uses batch normalisation, whose statistics would come from micro-batches; "
            "leave micro_batch out, or choose a tower without it"
        )


def _plain(model: Any, pixels: "torch.Tensor", tokens: "torch.Tensor", weight: float, autocast: Autocast) -> Outcome:
    images, texts = _embed(model, pixels, tokens, autocast)
    loss = weight * loss_of(images, texts, model.logit_scale.exp())
    loss.backward()
    return Outcome(loss.item(), _hits(images, texts))


def _cached(model: Any, parts: "list[tuple[torch.Tensor, torch.Tensor]]", autocast: Autocast) -> Outcome:
    import torch

    with torch.no_grad():
        states, embedded = [], []
        for part in parts:
            states.append(_random_state(part[0].device))
            embedded.append(_embed(model, *part, autocast))
    images, texts = (torch.cat(side).requires_grad_() for side in zip(*embedded, strict=True))
    loss = loss_of(images, texts, model.logit_scale.exp())
    loss.backward()
    assert images.grad is not None
    assert texts.grad is not None
    sizes = [len(part[0]) for part in parts]
    wanted = zip(images.grad.split(sizes), texts.grad.split(sizes), strict=True)
    for part, state, gradients in zip(parts, states, wanted, strict=True):
        _restore(state, part[0].device)  # the same units must drop out as in the first pass
        again = _embed(model, *part, autocast)
        trained = [(side, wanted) for side, wanted in zip(again, gradients, strict=True) if side.requires_grad]
        if trained:
            torch.autograd.backward([side for side, _ in trained], [wanted for _, wanted in trained])
    return Outcome(loss.item(), _hits(images, texts))


def _embed(
    model: Any, pixels: "torch.Tensor", tokens: "torch.Tensor", autocast: Autocast
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Embeddings (n, D) of unit length, float32: the loss is too fine for half precision."""
    from torch.nn.functional import normalize

    with autocast():
        images, texts = model.encode_image(pixels), model.encode_text(tokens)
    return normalize(images.float(), dim=-1), normalize(texts.float(), dim=-1)


def _hits(images: "torch.Tensor", texts: "torch.Tensor") -> int:
    import torch

    with torch.no_grad():
        return int(((images @ texts.T).argmax(1) == torch.arange(len(images), device=images.device)).sum())


def _random_state(device: "torch.device") -> "tuple[torch.Tensor, torch.Tensor | None]":
    import torch

    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _restore(state: "tuple[torch.Tensor, torch.Tensor | None]", device: "torch.device") -> None:
    import torch

    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
