"""Learning heads that bring photos together that were taken within some kilometres of each other.

NT-Xent (Chen et al. 2020) with places as the instances: a photo's positive is a photo of someone else at another place
within the head's band, or now and then another view of the same place. Photos of a batch that are near, and not the
positive, are no negatives either.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt

from geoloc_core.contracts.batch import Data, Metrics, Run
from geoloc_core.families.retrieval.comparison import EPS, Head, Whitening
from geoloc_core.geo import sphere
from geoloc_core.plugins import Strict
from geoloc_core.training.optimisers import AdamW, Optimiser
from geoloc_core.training.schedules import Cosine, Schedule

if TYPE_CHECKING:
    import torch

TRIES = 8
"""How often a partner is drawn for a photo before it goes without one."""
VALIDATED = 4096
"""Validation photos, and training photos that they are compared with, at most."""
EXACT = "donot_use_mm_for_euclid_dist"
"""How distances are computed: by products of matrices, near points come out kilometres off."""


class Bands(Strict):
    """Heads and how they are trained."""

    km: tuple[PositiveFloat, ...] = Field((10.0, 25.0), min_length=1)
    """A head for each: how far apart photos are that it learns to find alike, at most."""
    whitened: bool = False
    """The heads start from whitened vectors, where there is whitening; published without."""
    hidden: PositiveInt = 1024
    """Width of each head's hidden layer."""
    temperature: PositiveFloat = 0.07
    """What cosines are divided by."""
    mask_km: float = Field(50.0, ge=0)
    """Photos of a batch that are nearer than this are not told apart."""
    same_place: float = Field(0.25, ge=0, le=1)
    """How often the positive is another view of the same place, where there is one."""
    epochs: PositiveInt = 10
    """How often all training photos are seen, at most."""
    batch: int = Field(2048, gt=1)
    """Photos a step."""
    optimiser: Optimiser = AdamW(lr=1e-3, weight_decay=1e-4)
    """What changes the weights."""
    schedule: Schedule = Cosine()
    """How the learning rate changes."""


@dataclass(frozen=True)
class Near:
    """N points in boxes of space, from which partners within some kilometres are drawn.

    Attributes:
        points: (N, 3) unit vectors.
        groups: (N,) whose each is.
        reach: The chord of these kilometres, the edge of a box.
        order: (N,) the points, box by box.
        keys: (B,) of the boxes that hold any, ascending.
        starts: (B + 1,) where each begins in ``order``.
    """

    points: np.ndarray
    groups: np.ndarray
    reach: float
    order: np.ndarray
    keys: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, latitudes: np.ndarray, longitudes: np.ndarray, groups: np.ndarray, km: float) -> "Near":
        """Of points (N,) in degrees."""
        points, reach = sphere.unit_vectors(latitudes, longitudes), float(sphere.chord(km))
        boxes = _key(_box(points, reach))
        order = np.argsort(boxes, kind="stable")
        keys, starts = np.unique(boxes[order], return_index=True)
        return cls(points, groups, reach, order, keys, np.append(starts, len(order)))

    def draw(self, anchors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """For each of some points (n,), one within reach at another place and of another group; −1 where none is found.

        Each of a box's points is as likely as the others; so are all that are in reach.
        """
        around = _key(_box(self.points[anchors], self.reach)[:, None] + AROUND)
        at = np.minimum(np.searchsorted(self.keys, around), len(self.keys) - 1)
        counts = np.where(self.keys[at] == around, np.diff(self.starts)[at], 0)
        ends = counts.cumsum(axis=1)
        partners = np.full(len(anchors), -1)
        left = np.arange(len(anchors))
        for _ in range(TRIES):
            pick = (rng.random(len(left)) * ends[left, -1]).astype(np.int64)
            box = (ends[left] <= pick[:, None]).sum(axis=1)
            inside = pick - (ends[left, box] - counts[left, box])
            found = self.order[self.starts[at[left, box]] + inside]
            apart = np.linalg.norm(self.points[found] - self.points[anchors[left]], axis=1)
            good = (apart <= self.reach) & (apart > 0) & (self.groups[found] != self.groups[anchors[left]])
            partners[left[good]] = found[good]
            left = left[~good]
        return partners


AROUND = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
"""A box and those that touch it."""
SIDE = 2**21
"""Boxes along an axis, at most."""


def _box(points: np.ndarray, edge: float) -> np.ndarray:
    """Which box (N, 3) of space holds each point; none is the first or the last of its axis."""
    found: np.ndarray = np.floor((points + 1) / max(edge, 4 / SIDE)).astype(np.int64) + 1
    return found


def _key(boxes: np.ndarray) -> np.ndarray:
    found: np.ndarray = (boxes[..., 0] * SIDE + boxes[..., 1]) * SIDE + boxes[..., 2]
    return found


@dataclass(frozen=True)
class Views:
    """Photos of one place, which may stand for each other.

    Attributes:
        order: (N,) the photos, place by place.
        at: (N,) where each photo is in ``order``.
        starts: (N,) where the place of each photo begins.
        counts: (N,) how many photos its place has.
    """

    order: np.ndarray
    at: np.ndarray
    starts: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, places: np.ndarray) -> "Views":
        """Of the ids (N,) of places; None where a photo stands alone."""
        import pandas as pd

        codes, _ = pd.factorize(places)
        codes = np.where(codes < 0, codes.max(initial=0) + 1 + np.arange(len(codes)), codes)
        order = np.argsort(codes, kind="stable")
        at = np.empty(len(order), np.int64)
        at[order] = np.arange(len(order))
        _, first, back, counts = np.unique(codes[order], return_index=True, return_inverse=True, return_counts=True)
        return cls(order, at, first[back][at], counts[back][at])

    def draw(self, anchors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Another photo (n,) of the place of each; −1 where there is none."""
        counts, starts = self.counts[anchors], self.starts[anchors]
        step = 1 + (rng.random(len(anchors)) * np.maximum(counts - 1, 1)).astype(np.int64)
        other = self.order[starts + (self.at[anchors] - starts + step) % counts]
        return np.where(counts > 1, other, -1)


def loss_of(
    anchors: "torch.Tensor",
    positives: "torch.Tensor",
    points: "tuple[torch.Tensor, torch.Tensor]",
    temperature: float,
    reach: float,
) -> "torch.Tensor":
    """NT-Xent () of B pairs, each of the 2 B photos told apart from all but those within reach.

    Args:
        anchors: (B, D) of unit length.
        positives: (B, D) of unit length.
        points: Unit vectors (B, 3) of where both were taken.
        temperature: What cosines are divided by.
        reach: Chord below which photos are not told apart.
    """
    import torch
    from torch.nn.functional import cross_entropy

    both, where = torch.cat((anchors, positives)), torch.cat(points)
    count = len(anchors)
    other = torch.arange(2 * count, device=both.device).roll(count)
    near = torch.cdist(where, where, compute_mode=EXACT) < reach
    near.fill_diagonal_(True)
    near[torch.arange(2 * count, device=both.device), other] = False
    logits = (both @ both.T / temperature).masked_fill(near, -torch.inf)
    return cross_entropy(logits, other)


def network(width: int, hidden: int, heads: int, whitening: Whitening | None = None) -> Any:
    """Heads that start as the identity: features (B, D) → for each head (B, W) of unit length.

    Args:
        width: W.
        hidden: Width of the hidden layers.
        heads: How many.
        whitening: What is done to features first.
    """
    import torch
    from torch import nn
    from torch.nn.functional import gelu, normalize

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(width, eps=EPS)
            self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
            nn.init.zeros_(self.down.weight)
            nn.init.zeros_(self.down.bias)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return normalize(x + self.down(gelu(self.up(self.norm(x)), approximate="tanh")), dim=-1)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads = nn.ModuleList([Residual() for _ in range(heads)])
            self.white = nn.Module()
            if whitening is not None:
                self.white.register_buffer("mean", torch.from_numpy(whitening.mean))
                self.white.register_buffer("matrix", torch.from_numpy(whitening.matrix))

        def start(self, x: torch.Tensor) -> torch.Tensor:
            """What the heads are given (B, W), of features (B, D)."""
            x = normalize(x, dim=-1)
            if whitening is None:
                return x
            return normalize((x - self.white.get_buffer("mean")) @ self.white.get_buffer("matrix"), dim=-1)

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            x = self.start(x)
            return [head(x) for head in self.heads]

    return Net()


@dataclass(frozen=True)
class Learned:
    """What a training came to.

    Attributes:
        heads: One for each band.
        history: Metrics of every epoch.
        best: Number of the epoch kept.
        figures: For the summary.
    """

    heads: tuple[Head, ...]
    history: list[Metrics]
    best: int
    figures: dict[str, Any]


def fit(
    data: Data,
    encoder: str,
    training: np.ndarray,
    validation: np.ndarray,
    whitening: Whitening | None,
    options: Bands,
    run: Run,
) -> Learned:
    """Train the heads together; the epoch with the least validation loss is kept.

    Args:
        data: The corpus.
        encoder: Whose features are read.
        training: (n,) rows with coordinates.
        validation: (m,) rows with coordinates.
        whitening: What is done to features first.
        options: Heads and recipe.
        run: Seed, checkpoint and log.

    Raises:
        UserError: A feature or the loss is not a finite number.
    """
    import torch

    from geoloc_core.encoders.device import device
    from geoloc_core.training import heads
    from geoloc_core.training.features import Features
    from geoloc_core.training.fitting import averages, fit_network
    from geoloc_core.training.optimisers import optimiser_of
    from geoloc_core.training.schedules import schedule_of

    where, seed = device(), run.seed
    features = Features((data.images[encoder],))
    features.check(np.concatenate([training, validation]))
    groups = data.groups_of(training)
    near = [Near.of(data.latitudes[training], data.longitudes[training], groups, km) for km in options.km]
    views = None if data.places is None else Views.of(data.places[training])
    position = np.full(len(data.latitudes), -1)
    position[training] = np.arange(len(training))
    torch.manual_seed(seed)
    width = features.dim if whitening is None else whitening.matrix.shape[1]
    net = network(width, options.hidden, len(options.km), whitening).to(where)
    points = torch.from_numpy(near[0].points).float().to(where)
    reach = float(sphere.chord(options.mask_km))

    def loss(net: Any, x: "torch.Tensor", rows: "torch.Tensor") -> "torch.Tensor":
        anchors = position[rows.cpu().numpy()]
        rng = np.random.default_rng(int(torch.randint(2**62, ())))
        parts = []
        for number, band in enumerate(near):
            partners = band.draw(anchors, rng)
            if views is not None:
                same = np.where(rng.random(len(anchors)) < options.same_place, views.draw(anchors, rng), -1)
                partners = np.where(same >= 0, same, partners)
            paired = np.flatnonzero(partners >= 0)
            if not len(paired):
                parts.append(net.heads[number](x).sum() * 0)
                continue
            at, to = (torch.from_numpy(some[paired]).to(where) for some in (anchors, partners))
            others = torch.from_numpy(features.take(training[partners[paired]])).to(where).float()
            both = torch.cat((x[torch.from_numpy(paired).to(where)], others))
            one, other = net.heads[number](net.start(both)).chunk(2)
            parts.append(loss_of(one, other, (points[at], points[to]), options.temperature, reach))
        return torch.stack(parts).mean()

    compared, asked = (rows[:: max(1, -(-len(rows) // VALIDATED))] for rows in (training, validation))
    sample = features.on(compared, where)
    held_out = features.on(asked, where)
    of_sample = torch.from_numpy(sphere.unit_vectors(data.latitudes[compared], data.longitudes[compared])).to(where)
    of_all = torch.from_numpy(sphere.unit_vectors(data.latitudes, data.longitudes)).to(where)

    def validate() -> Metrics:
        [(known, _)] = sample.in_order(VALIDATED)
        against = net(known)

        def measure(x: "torch.Tensor", rows: "torch.Tensor") -> dict[str, tuple[float, int]]:
            apart = torch.cdist(of_all[rows], of_sample, compute_mode=EXACT)
            losses = []
            for km, mine, theirs in zip(options.km, net(x), against, strict=True):
                wanted = apart <= float(sphere.chord(km))
                logits = (mine @ theirs.T / options.temperature).masked_fill(~wanted & (apart < reach), -torch.inf)
                known = wanted.any(dim=1)
                right = logits.masked_fill(~wanted, -torch.inf)[known].logsumexp(dim=1)
                losses.append(logits[known].logsumexp(dim=1) - right)
            joined = torch.cat(losses)
            return {"validation_loss": (joined.mean().item(), len(joined))}

        return averages(held_out.in_order(VALIDATED), measure)

    optimiser = optimiser_of(options.optimiser, net)
    outcome = fit_network(
        net,
        loss,
        features.on(training, where),
        validate,
        optimiser,
        schedule_of(options.schedule, optimiser, options.epochs),
        options.batch,
        options.epochs,
        None,
        seed,
        run.checkpoint,
        run.depends,
        run.log,
        score=lambda metrics: -metrics["validation_loss"],
    )
    learned = tuple(
        Head({name: tensor.detach().cpu().float().numpy() for name, tensor in head.state_dict().items()})
        for head in net.heads
    )
    return Learned(learned, outcome.history, outcome.best, {**heads.counts(net), **vars(outcome.pace)})
