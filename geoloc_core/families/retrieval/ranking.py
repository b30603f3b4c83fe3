"""Re-ranking of the best candidates by logistic regression: is this one near, judged by how the others lie around it?

NeuroGuessr 2's seventeen numbers of a candidate, as far as they are published: where it left one open, it is defined in
:func:`numbers`.
"""

from dataclasses import dataclass

import numpy as np

from geoloc_core.blocks import blocks
from geoloc_core.families.retrieval.comparison import unit
from geoloc_core.families.retrieval.gallery import Found, Gallery
from geoloc_core.geo import sphere

WITHIN_KM = (10.0, 25.0, 50.0)
NAMES = (
    "score", "own_cosine", "log_rank", "margin", "weight_10km", "weight_25km", "weight_50km", "diffusion",
    "mean_cosine", "top_3_cosine", "entropy", "valid", "log_probability",
    "score_x_weight", "own_x_weight", "diffusion_x_weight", "score_x_entropy",
)  # fmt: skip
SHARP = 0.05
"""What scores are divided by to become weights, and cosines to become affinities."""
SPREAD = 0.5
"""The share of a candidate's weight that diffusion passes on."""
FOLDS = 5
BLOCK = 2**22
"""Numbers in float32 at a time."""


@dataclass(frozen=True)
class Ranking:
    """A fitted logistic regression.

    Attributes:
        mean: (F,) of each number.
        std: (F,) that each is divided by.
        weights: (F,) of the standardised numbers.
        bias: Of the logit.
        spread: Standard deviation of the scores, by which these are divided.
    """

    mean: np.ndarray
    std: np.ndarray
    weights: np.ndarray
    bias: float
    spread: float

    @classmethod
    def nothing(cls) -> "Ranking":
        """One that has seen nothing, and changes no order."""
        return cls(np.zeros(len(NAMES)), np.ones(len(NAMES)), np.zeros(len(NAMES)), 0.0, 1.0)

    def logits(self, values: np.ndarray) -> np.ndarray:
        """(…,) of numbers (…, F)."""
        found: np.ndarray = (values - self.mean) / self.std @ self.weights + self.bias
        return found

    @classmethod
    def fit(cls, values: np.ndarray, near: np.ndarray, spread: float) -> "Ranking":
        """Of numbers (n, F), and whether each candidate (n,) is near; where all are alike, nothing is learned."""
        from sklearn.linear_model import LogisticRegression

        mean, std = values.mean(axis=0), values.std(axis=0)
        std = np.where(std > 0, std, 1)
        if not 0 < near.sum() < len(near):
            return cls(mean, std, np.zeros(values.shape[1]), 0.0, spread)
        found = LogisticRegression(max_iter=1000).fit((values - mean) / std, near)
        return cls(mean, std, found.coef_[0], found.intercept_.item(), spread)


def numbers(
    gallery: Gallery, queries: np.ndarray, found: Found, logs: np.ndarray, first: tuple[float, int]
) -> np.ndarray:
    """Seventeen numbers (N, T, F) float64 of each candidate, zero where there is none.

    The score; the cosine of the first of the parts that are compared; the logarithm of the rank; by how much it is
    behind the first; the weight, a softmax over the scores, of the candidates within 10, 25 and 50 km of it; what it
    has after that weight has spread along the candidates' likeness; its mean cosine to the others and to the three most
    alike; the entropy of the weights; how many candidates there are; the logarithm of its cell's probability; and four
    products.

    Args:
        gallery: Where the candidates are from.
        queries: (N, D) float32.
        found: Of the N units.
        logs: (N, K) logarithms of the probabilities of their cells.
        first: The share of the first part in similarities, and how many numbers it has.
    """
    parts = []
    for rows in blocks(max(len(queries), 1), BLOCK, found.candidates.shape[1] * queries.shape[1]):
        lists = found.top[rows], found.candidates[rows], found.columns[rows]
        parts.append(_numbers(gallery, queries[rows], *lists, logs[rows], first))
    return np.concatenate(parts)


def shares(scores: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Weights (N, T) of candidates by their scores: a softmax over those that there are, else zero."""
    known = np.where(valid, scores, 0)
    highest = np.where(valid, known, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
    raised = np.where(valid, np.exp((known - np.where(np.isfinite(highest), highest, 0)) / SHARP), 0)
    found: np.ndarray = raised / np.maximum(raised.sum(axis=1, keepdims=True), 1)
    return found


def _numbers(
    gallery: Gallery,
    queries: np.ndarray,
    top: np.ndarray,
    candidates: np.ndarray,
    columns: np.ndarray,
    logs: np.ndarray,
    first: tuple[float, int],
) -> np.ndarray:
    n, t = top.shape
    valid = candidates >= 0
    vectors = gallery.take(candidates)
    share, width = first
    own = np.einsum("nd,ntd->nt", queries[:, :width], vectors[..., :width]).astype(np.float64) / share
    score = np.where(valid, top, 0).astype(np.float64)
    weights = shares(score, valid)
    points = sphere.unit_vectors(gallery.latitudes[candidates], gallery.longitudes[candidates])
    cosines = np.einsum("nid,njd->nij", points, points)
    near = [(cosines >= np.cos(km / sphere.EARTH_KM)) @ weights[..., None] for km in WITHIN_KM]
    flat = unit(vectors.reshape(n * t, -1)).reshape(vectors.shape)
    alike = (flat @ flat.transpose(0, 2, 1)).astype(np.float64)
    pairs = valid[:, :, None] & valid[:, None] & ~np.eye(t, dtype=bool)
    affinity = np.where(pairs, np.exp(alike / SHARP), 0)
    passed = affinity / np.maximum(affinity.sum(axis=2, keepdims=True), np.finfo(float).tiny)
    spread = np.linalg.solve(np.eye(t) - SPREAD * passed.transpose(0, 2, 1), (1 - SPREAD) * weights[..., None])[..., 0]
    others = np.maximum(pairs.sum(axis=2), 1)
    ordered = -np.sort(np.where(pairs, -alike, np.inf), axis=2)[:, :, :3]
    seen = np.isfinite(ordered)
    top_3 = np.where(seen, ordered, 0).sum(axis=2) / np.maximum(seen.sum(axis=2), 1)
    entropy = -(weights * np.log(np.maximum(weights, np.finfo(float).tiny))).sum(axis=1)
    w_10, w_25, w_50 = (values[..., 0] for values in near)
    values = [
        score,
        own,
        np.broadcast_to(np.log1p(np.arange(t)), (n, t)),
        score - score[:, :1],
        w_10,
        w_25,
        w_50,
        spread,
        np.where(pairs, alike, 0).sum(axis=2) / others,
        top_3,
        np.broadcast_to(entropy[:, None], (n, t)),
        np.broadcast_to(valid.sum(axis=1)[:, None], (n, t)),
        np.take_along_axis(logs, columns, axis=1),
        score * w_25,
        own * w_25,
        spread * w_25,
        score * entropy[:, None],
    ]
    return np.where(valid[..., None], np.stack(values, axis=-1), 0)


def fit(values: np.ndarray, valid: np.ndarray, near: np.ndarray, groups: np.ndarray) -> tuple[Ranking, np.ndarray]:
    """A ranking, and the logits (N, T) that each unit is given by one that was fitted without its fold of whole groups.

    Args:
        values: (N, T, F).
        valid: (N, T) which candidates there are.
        near: (N, T) whether each is near its unit.
        groups: (N,) of the units.
    """
    from sklearn.model_selection import GroupKFold

    scores = values[..., 0][valid]
    spread = float(scores.std()) or 1.0
    ranking = Ranking.fit(values[valid], near[valid], spread)
    logits = ranking.logits(values)
    folds = min(FOLDS, len(np.unique(groups)))
    if folds > 1:
        for taught, held in GroupKFold(folds).split(groups, groups=groups):
            fold = Ranking.fit(values[taught][valid[taught]], near[taught][valid[taught]], spread)
            logits[held] = fold.logits(values[held])
    return ranking, logits


def rerank(found: Found, logits: np.ndarray, spread: float, weight: float) -> Found:
    """Candidates in the order of score / spread + weight · logit, and cells by their best candidate.

    A cell without a candidate counts as if its best photo had the least logit of the unit's candidates.

    Args:
        found: Of N units.
        logits: (N, T) of the candidates.
        spread: What scores are divided by.
        weight: Of the logits.
    """
    valid = found.candidates >= 0
    final = np.where(valid, found.top / spread + weight * logits, -np.inf)
    order = np.argsort(-final, kind="stable")
    top, candidates, columns = (
        np.take_along_axis(values, order, axis=1) for values in (final, found.candidates, found.columns)
    )
    least = np.where(valid.any(axis=1), np.where(valid, logits, np.inf).min(axis=1), 0)
    scores, photos = found.scores / spread + weight * least[:, None], found.photos.copy()
    rows = np.repeat(np.arange(len(top))[:, None], top.shape[1], axis=1)
    named = (candidates >= 0)[:, ::-1]  # from the worst to the best, which is written last
    at = rows[:, ::-1][named], columns[:, ::-1][named]
    scores[at], photos[at] = top[:, ::-1][named], candidates[:, ::-1][named]
    return Found(scores, photos, top, candidates, columns)
