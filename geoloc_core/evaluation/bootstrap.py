"""How sure a figure is: 95 % intervals, paired differences and tests, by resampling groups of rows.

Rows are not independent: the photos of one photographer, or the views of one panorama, are right and wrong together.
So whole groups are drawn with replacement (the cluster bootstrap: Davison and Hinkley 1997, "Bootstrap Methods and
their Application", section 3.8), and a draw is no more than a weight per group. Of many groups, some are dealt at
random to one pool and drawn as one, as sums of independent groups are themselves independent: the work no longer grows
with the groups. The weights depend on the number of pools alone, so that the draws of two models on the same rows are
of the same rows, and their difference is paired.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from geoloc_core.contracts.metrics import Column, Measured, Statistic

Ids: TypeAlias = Sequence[str | None] | np.ndarray | pa.ChunkedArray
"""(N,) of groups; None where a row has none."""
DRAWS = 2000
POOLS = 4096
"""Groups that are drawn apart, at most."""
LEVEL = 0.95
SEED = 1979


def coded(ids: Ids) -> tuple[np.ndarray, pa.Array]:
    """Ids (N,) as positions (N,) int32 among those that differ, in no order; −1 where there is none.

    In parts that are dictionaries already, no row has a string of its own.
    """
    if not isinstance(ids, pa.ChunkedArray):
        ids = pa.chunked_array([pa.array(ids, pa.string(), from_pandas=True)])
    if not len(ids):
        return np.empty(0, np.int32), pa.array([], pa.string())
    parts = (ids if pa.types.is_dictionary(ids.type) else ids.dictionary_encode()).unify_dictionaries().chunks
    return np.concatenate([part.indices.fill_null(-1).to_numpy() for part in parts]), parts[0].dictionary


@dataclass(frozen=True)
class Groups:
    """Which rows belong together.

    Attributes:
        codes: (N,) int32, the group of each row, from 0; rows are in one order for all models.
    """

    codes: np.ndarray

    @classmethod
    def of_ids(cls, ids: Ids) -> "Groups":
        """Groups by their ids (N,), whatever order the rows are in; a row without one is alone."""
        codes, known = coded(ids)
        place = np.empty(len(known), np.int32)
        place[pc.sort_indices(known).to_numpy()] = np.arange(len(known), dtype=np.int32)
        alone = np.flatnonzero(codes < 0)
        found = np.append(place, np.int32(0))[codes]
        found[alone] = len(known) + np.arange(len(alone))
        return cls(found)

    @cached_property
    def count(self) -> int:
        """How many groups there are."""
        return int(self.codes.max()) + 1 if len(self.codes) else 0

    @cached_property
    def pools(self) -> np.ndarray:
        """(N,) int32, the pool of each row's group."""
        if self.count <= POOLS:
            return self.codes
        dealt = (np.random.default_rng(SEED).permutation(self.count) % POOLS).astype(np.int32)
        return dealt[self.codes]

    @cached_property
    def weights(self) -> np.ndarray:
        """(DRAWS, pools) float32: how often each pool was drawn."""
        pools = min(self.count, POOLS)
        random = np.random.default_rng(SEED)
        found = np.empty((DRAWS, pools), np.float32)
        for draw in found:
            draw[:] = np.bincount(random.integers(pools, size=pools, dtype=np.int64), minlength=pools)
        return found

    def take(self, rows: np.ndarray) -> "Groups":
        """The groups of some rows alone."""
        codes = self.codes[rows]
        present = np.bincount(codes) > 0
        return Groups((np.cumsum(present, dtype=np.int32) - 1)[codes])

    def sums(self, values: np.ndarray, strata: np.ndarray | None = None, size: int = 1) -> np.ndarray:
        """(pools, size) of values (N,), by pool and by stratum (N,), each less than ``size``."""
        at = self.pools if strata is None else self.pools * np.int64(size) + strata
        pools = min(self.count, POOLS)
        return np.bincount(at, values, minlength=pools * size).reshape(pools, size)

    def effective(self, told: np.ndarray) -> tuple[int, float]:
        """How many groups have a row (N,) that counts, and how many of equal size would be worth as much (Kish)."""
        sizes = np.bincount(self.codes[told])
        sizes = sizes[sizes > 0]
        return len(sizes), float(sizes.sum() ** 2 / (sizes**2).sum()) if len(sizes) else 0.0

    def largest(self) -> int:
        """Rows of the largest group."""
        return int(np.bincount(self.codes).max()) if len(self.codes) else 0


@dataclass(frozen=True)
class Sample:
    """A metric's values of N rows, and what is made of them.

    Attributes:
        values: (N,) NaN where it cannot be told.
        statistic: What is made of them.
        strata: (N,) numbers from 0, −1 where a row is in none; None where the statistic goes by none.
    """

    values: np.ndarray
    statistic: Statistic = "mean"
    strata: np.ndarray | None = None

    @cached_property
    def told(self) -> np.ndarray:
        """(N,) whether a row counts."""
        told = ~np.isnan(self.values)
        return told if self.strata is None else told & (self.strata >= 0)

    @cached_property
    def figure(self) -> float:
        """The metric; not a number where no row counts."""
        if not self.told.any():
            return float("nan")
        values = self.values[self.told]
        if self.statistic == "mean":
            return float(values.mean())
        if self.statistic == "median":
            return float(np.median(values))
        sums, counts = self._by_stratum
        present = counts > 0
        if self.statistic == "macro":
            return float((sums[present] / counts[present]).mean())
        return float(np.abs(sums).sum() / counts.sum())

    @cached_property
    def _by_stratum(self) -> tuple[np.ndarray, np.ndarray]:
        assert self.strata is not None
        at = self.strata[self.told].astype(np.int64)
        return np.bincount(at, self.values[self.told]), np.bincount(at)

    def draws(self, groups: Groups) -> np.ndarray:
        """(DRAWS,) the figure of each draw, float64; NaN where a draw has no row that counts.

        The median of a draw is read off the sample's own quantiles, where the draw's share of rows below the median
        says (Woodruff 1952, "Confidence intervals for medians and other position measures"). Those of what goes by
        strata are moved so that their mean is the figure: a stratum's draws lie farther from zero than it does.
        """
        if not self.told.any():
            return np.full(DRAWS, np.nan)
        with np.errstate(invalid="ignore", divide="ignore"):
            found = self._draws(groups)
        known = found[~np.isnan(found)]
        return found + (self.figure - known.mean()) if self.strata is not None and len(known) else found

    def _draws(self, groups: Groups) -> np.ndarray:
        told = self.told
        if self.statistic in ("macro", "gap"):
            return self._stratified(groups)
        if self.statistic == "mean":
            return self.figure + _ratio(groups, np.where(told, self.values - self.figure, 0), told)
        ordered = np.sort(self.values[told])
        below = np.where(told, self.values <= self.figure, 0.0)
        share = below.sum() / len(ordered)
        moved = _ratio(groups, np.where(told, below - share, 0), told)
        known = ~np.isnan(moved)
        found = np.full(DRAWS, np.nan)
        found[known] = np.quantile(ordered, np.clip(0.5 - moved[known], 0, 1))
        return found

    def _stratified(self, groups: Groups) -> np.ndarray:
        assert self.strata is not None
        size = int(self.strata.max()) + 1
        strata = np.where(self.told, self.strata, 0).astype(np.int64)
        sums = groups.weights @ groups.sums(np.where(self.told, self.values, 0), strata, size).astype(np.float32)
        counts = groups.weights @ groups.sums(self.told.astype(float), strata, size).astype(np.float32)
        if self.statistic == "gap":
            return (np.abs(sums).sum(axis=1) / counts.sum(axis=1)).astype(np.float64)
        present = counts > 0
        means = np.divide(sums, counts, out=np.zeros_like(sums), where=present)
        return (means.sum(axis=1) / present.sum(axis=1)).astype(np.float64)

    def widening(self, groups: Groups) -> float | None:
        """How many times as wide as of independent rows the interval is, to first order; None where neither has any.

        The ratio of the standard errors of the figure's linear part, by groups and by rows (the square root of the
        design effect, Kish 1965).
        """
        part = self._influence()
        alone = float((part**2).sum())
        together = float((np.bincount(groups.codes, part) ** 2).sum())
        return float(np.sqrt(together / alone)) if alone > 0 else None

    def _influence(self) -> np.ndarray:
        """(N,) what each row adds to the figure, to first order and up to one factor; 0 where it does not count."""
        part = np.zeros(len(self.values))
        told = self.told
        if not told.any():
            return part
        values = self.values[told]
        if self.statistic == "mean":
            part[told] = values - self.figure
        elif self.statistic == "median":
            below = values <= self.figure
            part[told] = below - below.mean()
        else:
            assert self.strata is not None
            at = self.strata[told].astype(np.int64)
            sums, counts = self._by_stratum
            if self.statistic == "macro":
                means = np.divide(sums, counts, out=np.zeros(len(sums)), where=counts > 0)
                part[told] = (values - means[at]) / counts[at]
            else:
                part[told] = np.sign(sums)[at] * values - self.figure
        return part


def sample(found: Column, met: Measured) -> Sample:
    """What a metric measures of rows."""
    strata = None if found.strata is None else found.strata(met)
    return Sample(found.values(met), found.statistic, strata)


def _ratio(groups: Groups, values: np.ndarray, told: np.ndarray) -> np.ndarray:
    """(DRAWS,) weighted mean in each draw of values (N,) of the rows that count."""
    parts = np.concatenate([groups.sums(values), groups.sums(told.astype(float))], axis=1).astype(np.float32)
    drawn = (groups.weights @ parts).astype(np.float64)
    return np.asarray(drawn[:, 0] / drawn[:, 1])


def interval(
    draws: np.ndarray, groups: Groups, told: np.ndarray, percentage: bool = False
) -> tuple[float, float] | None:
    """The 95 % interval of a figure; None where fewer than two groups count.

    Percentiles of the draws, a little further out where groups are few, as t lies outside the normal distribution
    (Hesterberg 2015, "What teachers should know about the bootstrap"). Where all rows are alike, as when nothing is
    right, no draw differs and the interval is the exact one of a share (Clopper and Pearson 1934), over as many rows as
    the groups are worth.

    Args:
        draws: (DRAWS,) of the figure.
        groups: Of the N rows.
        told: (N,) which rows count.
        percentage: Whether it is a share of rows, from 0 to 100. No other metric is below 0.
    """
    from scipy import special  # not scipy.stats, which takes a second to import

    count, worth = groups.effective(told)
    known = draws[~np.isnan(draws)]
    if count < 2 or not len(known):
        return None
    if percentage and np.ptp(known) < 1e-9 and known[0] in (0, 100):
        reach = 100 * (1 - ((1 - LEVEL) / 2) ** (1 / worth))
        return (0.0, reach) if known[0] == 0 else (100 - reach, 100.0)
    out = float(special.ndtr(-np.sqrt(count / (count - 1)) * special.stdtrit(count - 1, (1 + LEVEL) / 2)))
    below, above = np.quantile(known, [out, 1 - out])
    below, above = np.clip([below, above], 0, 100 if percentage else None)
    return float(below), float(above)


@dataclass(frozen=True)
class Difference:
    """How much one figure exceeds another on the same rows.

    Attributes:
        value: By how much.
        low: End of the 95 % interval; None where fewer than two groups count.
        high: The other end.
        p: Probability of a difference as large if there were none; None where nobody can tell.
    """

    value: float
    low: float | None
    high: float | None
    p: float | None


def difference(one: np.ndarray, other: np.ndarray, value: float, count: int, compared: int = 1) -> Difference:
    """A paired difference, with its interval and a two-sided t test with a degree of freedom less than groups.

    Args:
        one: (DRAWS,) of a figure.
        other: (DRAWS,) of the other, of the same draws.
        value: The difference of the figures.
        count: How many groups were drawn.
        compared: How many such intervals are to hold the truth together, 95 times in 100 (Bonferroni).
    """
    from scipy import special  # not scipy.stats, which takes a second to import

    apart = one - other
    apart = apart[~np.isnan(apart)]
    if count < 2 or not len(apart):
        return Difference(value, None, None, None)
    error = float(apart.std(ddof=1)) * np.sqrt(count / (count - 1))
    reach = float(special.stdtrit(count - 1, 1 - (1 - LEVEL) / 2 / compared)) * error
    if error < 1e-9:  # the same in every draw
        # in a test by signs, no other ones would give as much but the opposite of all
        return Difference(value, value, value, 1.0 if abs(value) < 1e-9 else 2.0 ** (1 - count))
    p = float(2 * special.stdtr(count - 1, -abs(value) / error))
    return Difference(value, value - reach, value + reach, p)


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """P-values, corrected for how many were compared (Holm 1979).

    The probability that any of those below a level is below it by chance is at most the level. What nobody can tell
    stays None, and counts as no comparison.
    """
    known = {at: p for at, p in enumerate(ps) if p is not None}
    found: list[float | None] = [None] * len(ps)
    least = 0.0
    for place, at in enumerate(sorted(known, key=lambda at: known[at])):
        least = max(least, min(1.0, (len(known) - place) * known[at]))
        found[at] = least
    return found
