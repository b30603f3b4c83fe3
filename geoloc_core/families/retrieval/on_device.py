"""The search among the photos of some cells in PyTorch, for a GPU: what the compiled loops do, cell by cell at once.

A score and the photo that has it are one integer, so that of equal scores the earlier photo counts.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    from geoloc_core.families.retrieval.gallery import Gallery

NONE = -(2**63)
"""Less than every score: no photo."""
LAST = 2**32 - 1
TURNED = 2**31 - 1
BLOCK = 2**26
"""Similarities at a time."""


def packed(scores: "torch.Tensor", photos: "torch.Tensor") -> "torch.Tensor":
    """Scores float32 and photos int64, below 2³², as integers in the order of the scores."""
    import torch

    bits = scores.view(torch.int32)
    ordered = bits ^ ((bits >> 31) & TURNED)  # as integers, negative floats are in falling order
    return (ordered.long() << 32) | (LAST - photos)


def unpacked(keys: "torch.Tensor") -> tuple[np.ndarray, np.ndarray]:
    """The scores float32 and photos of :func:`packed`; −∞ and −1 of none."""
    import torch

    ordered = (keys >> 32).int()
    scores = (ordered ^ ((ordered >> 31) & TURNED)).view(torch.float32)
    none = keys == NONE
    photos = (LAST - (keys & LAST)).masked_fill(none, -1)
    return scores.masked_fill(none, -torch.inf).cpu().numpy(), photos.cpu().numpy()


def search(
    gallery: "Gallery",
    vectors: "torch.Tensor | None",
    where: "torch.device",
    queries: np.ndarray,
    asked: Iterable[tuple[int, np.ndarray, np.ndarray]],
    offsets: np.ndarray,
    own: np.ndarray,
    length: int,
    gain: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What :class:`~geoloc_core.families.retrieval.gallery.Found` holds, in its order.

    Args:
        gallery: M photos.
        vectors: (M, D) of them on the device; None where they do not fit there, and are brought cell by cell.
        where: The device.
        queries: (N, D) float32.
        asked: Cells with the units that ask for each (Q,), and which of its cells (Q,) this is for each.
        offsets: (N, K) float32 that is added to the score of all photos of a cell.
        own: (N,) int64 whose each unit is; 0 where unknown.
        length: T, how many of the best are listed.
        gain: What similarities are multiplied by.
    """
    import torch

    def on(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(where)

    asking, mine, raised = on(queries), on(own), on(offsets).double()
    scale, bias, theirs = on(gallery.scale).double(), on(gallery.bias).double(), on(gallery.groups)
    best = torch.full(offsets.shape, NONE, device=where)
    top = torch.full((len(queries), length), NONE, device=where)
    columns = torch.zeros_like(top)
    for cell, units, places in asked:
        rows, which = on(units), on(places)
        first, last = int(gallery.cells[cell]), int(gallery.cells[cell + 1])
        step = max(1, BLOCK // len(units))
        for start in range(first, last, step):
            part = slice(start, min(start + step, last))
            block = on(np.array(gallery.vectors[part])) if vectors is None else vectors[part]
            similar = asking[rows] @ block.float().T
            scores = (gain * similar * scale[part] + bias[part] + raised[rows, which][:, None]).float()
            strange = (mine[rows] == 0)[:, None] | (mine[rows][:, None] != theirs[part])
            keys = packed(scores, torch.arange(part.start, part.stop, device=where)).masked_fill(~strange, NONE)
            best[rows, which] = torch.maximum(best[rows, which], keys.max(dim=1).values)
            found = keys.topk(min(length, keys.shape[1]), dim=1).values
            joined = torch.cat((top[rows], found), dim=1)
            of_each = torch.cat((columns[rows], which[:, None].expand_as(found)), dim=1)
            top[rows], order = joined.topk(length, dim=1)
            columns[rows] = of_each.gather(1, order)
    columns.masked_fill_(top == NONE, 0)
    return (*unpacked(best), *unpacked(top), columns.cpu().numpy())
