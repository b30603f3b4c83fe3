"""What a promotion rests on: a version's answers to the selection set, photo by photo, and how two versions compare.

A table is kept with each version, so that a candidate can be compared with a champion whose files are long gone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from geoloc_core import parquet
from geoloc_core.contracts.metrics import ERROR, Column, column, first
from geoloc_core.params.schema import Guards, GuardsElsewhere, Registry
from geoloc_core.plugins import Strict

if TYPE_CHECKING:
    import pyarrow as pa

    from geoloc_core.evaluation.scoring import Told
    from geoloc_core.project import Project

SHA256 = b"geoloc.sha256"
"""Key of a table's metadata: digest of the photos and their places."""
REMEDY = "run `geoloc promote --replace` to put the best variant in the champion's place"
COUNTRY = "country_accuracy"
CALIBRATION = "ece"
KNOWN = ("true_latitude", "true_longitude", "true_country")
"""What has to be the same of a photo before two answers to it compare."""


class Change(Strict):
    """How much better a candidate is than the champion on the photos that both answered; negative is worse.

    Attributes:
        what: The metric, or the continent.
        value: By how much, in the metric's unit.
        low: End of the 95 % interval; None where fewer than two groups count.
        high: The other end.
    """

    what: str
    value: float
    low: float | None
    high: float | None

    def words(self, unit: str) -> str:
        """The size of the change with its interval, whichever way it goes."""
        size = f"{abs(self.value):.2f} {unit}".rstrip()
        if self.low is None or self.high is None:
            return f"{size} (no interval: fewer than two groups)"
        ends = sorted((np.sign(self.value) or 1) * end for end in (self.low, self.high))
        return f"{size} (95 % interval {ends[0]:.2f} to {ends[1]:.2f})"


class Guard(Change):
    """A change that must not be for the worse by more than a bound.

    Attributes:
        benchmark: On which, beside the selection set; empty for the selection set.
        bound: In the unit of the change.
        held: False where the loss is larger than the bound and its interval excludes zero.
    """

    benchmark: str = ""
    bound: float
    held: bool


class Compared(Strict):
    """A candidate and a champion on the same photos.

    Attributes:
        photos: How many both answered.
        groups: In how many groups.
        variants: How many the candidate was chosen from: the interval of the gain is wider for it.
        gain: In the deciding metric.
        guards: By continent, and of the calibration; then of further benchmarks.
        unmeasured: Further benchmarks with guards of which the two have not answered the same photos.
    """

    photos: int
    groups: int
    variants: int
    gain: Change
    guards: list[Guard]
    unmeasured: list[str] = Field(default_factory=list)


def of_variant(project: "Project", variant: str, benchmark: str) -> "pa.Table":
    """What became of every photo of a benchmark, from a variant's answers.

    Raises:
        UserError: It has not answered, or its answers are damaged.
    """
    import pyarrow as pa

    from geoloc_core.evaluation import score
    from geoloc_core.variants import answers

    note, space = answers.note(project, variant), answers.space(project, variant)
    scored = score.read(project, note, space, benchmark)
    outcomes, places = scored.told.outcomes, np.array([*scored.told.places.ids, None], dtype=object)
    columns = {name: answers.column(project, variant, benchmark, name) for name in ("image_id", "group_id", *KNOWN)}
    columns |= {
        "country": pa.array(places[outcomes.country], pa.string()),
        "rank": pa.array(outcomes.ranks),
        "country_rank": pa.array(outcomes.country_ranks),
        "subdivision_rank": pa.array(outcomes.subdivision_ranks),
        "probability": pa.array(outcomes.probability),
        "confidence": pa.array(outcomes.confidence),
        "error_km": pa.array(outcomes.errors_km),
    }
    return pa.table(columns).replace_schema_metadata({SHA256: scored.sha256})


def write(table: "pa.Table", path: Path) -> None:
    """Write a table of :func:`of_variant`."""
    parquet.write(table, path)


def read(path: Path) -> "pa.Table":
    """A table that :func:`write` wrote.

    Raises:
        UserError: It is damaged.
    """
    return parquet.read(path, REMEDY)


def sha256(table: "pa.Table") -> str:
    """Digest of the photos and their places."""
    return str((table.schema.metadata or {}).get(SHA256, b"").decode())


def figure(table: "pa.Table", metric: str) -> tuple[float, float | None, float | None]:
    """A metric of a table and the ends of its 95 % interval."""
    from geoloc_core.evaluation import bootstrap, scoring

    sample, groups = bootstrap.sample(_column(metric), _told(table)), _groups(table)
    low, high = scoring.interval(metric, sample, groups) or (None, None)
    return sample.figure, low, high


Elsewhere = Mapping[str, tuple["pa.Table | None", "pa.Table | None"]]
"""By benchmark, the tables of a candidate and of a champion; None of one that has none."""


def compare(
    ours: "pa.Table", theirs: "pa.Table", registry: Registry, variants: int, elsewhere: Elsewhere | None = None
) -> Compared | None:
    """A candidate's answers with a champion's, on the photos that both answered.

    Args:
        ours: The candidate's table.
        theirs: The champion's.
        registry: What decides, and the guards.
        variants: How many the candidate was chosen from. The best of many looks better than it is, so the interval of
            its gain is that of all of them together (Bonferroni).
        elsewhere: On the benchmarks that further guards are of.

    Returns:
        None where they share less than half of the photos of either: the figures are then of other sets.
    """
    pair = _shared(ours, theirs)
    if pair is None:
        return None
    both = _Pair.of(pair)
    guards, unmeasured = both.guards(registry.guards), list[str]()
    for name, block in registry.guards.benchmarks.items():
        one, other = (elsewhere or {}).get(name, (None, None))
        there = None if one is None or other is None else _shared(one, other)
        if there is None:
            unmeasured.append(name)
            continue
        of = _Pair.of(there)
        lost = [] if block.metric is None else [_guard(of.change(registry.metric), block.metric)]
        guards += [guard.model_copy(update={"benchmark": name}) for guard in (*lost, *of.guards(block))]
    return Compared(
        photos=len(pair[0]),
        groups=both.groups.count,
        variants=variants,
        gain=both.change(registry.metric, variants),
        guards=guards,
        unmeasured=unmeasured,
    )


@dataclass(frozen=True)
class _Pair:
    """What became of the same rows under a candidate and a champion, and which rows belong together."""

    ours: "Told"
    theirs: "Told"
    groups: Any

    @classmethod
    def of(cls, tables: tuple["pa.Table", "pa.Table"]) -> "_Pair":
        """Of the same rows in the same order."""
        return cls(_told(tables[0]), _told(tables[1]), _groups(tables[0]))

    def guards(self, bounds: Guards | GuardsElsewhere) -> list[Guard]:
        """By continent, and of the calibration."""
        found = [] if bounds.continents is None else self.continents(bounds.continents)
        if bounds.calibration is not None:
            found.append(_guard(self.change(CALIBRATION), bounds.calibration))
        return found

    def change(self, metric: str, variants: int = 1) -> Change:
        from geoloc_core.evaluation.bootstrap import sample

        found = _column(metric)
        samples = [sample(found, told) for told in (self.ours, self.theirs)]
        return self._change(metric, samples, found.improvement(1.0), variants)

    def continents(self, bounds: float | dict[str, float]) -> list[Guard]:
        """How often the country is right, on each continent that has a bound: of these there are seven."""
        from geoloc_core.evaluation.bootstrap import Sample

        places = self.ours.places
        at = places.continent_of[self.ours.outcomes.true_country]
        guards = []
        for number, name in enumerate(places.continents):
            bound = bounds.get(name) if isinstance(bounds, dict) else bounds
            here = at == number
            samples = [
                Sample(100 * np.where(here, first(told.country_ranks, 1), np.nan)) for told in (self.ours, self.theirs)
            ]
            if here.any() and bound is not None:
                guards.append(_guard(self._change(name, samples, 1.0), bound))
        return guards

    def _change(self, what: str, samples: Sequence[Any], sign: float, variants: int = 1) -> Change:
        from geoloc_core.evaluation.bootstrap import difference

        ours, theirs = samples
        told = ours.told & theirs.told
        found = difference(
            sign * ours.draws(self.groups),
            sign * theirs.draws(self.groups),
            sign * (ours.figure - theirs.figure),
            self.groups.effective(told)[0],
            variants,
        )
        return Change(what=what, value=found.value, low=found.low, high=found.high)


def _guard(change: Change, bound: float) -> Guard:
    lost = change.value < -bound and change.high is not None and change.high < 0
    return Guard(**change.model_dump(), bound=bound, held=not lost)


def _column(metric: str) -> Column:
    found = column(metric)
    assert found is not None, metric  # params.yaml was checked
    return found


def _shared(ours: "pa.Table", theirs: "pa.Table") -> tuple["pa.Table", "pa.Table"] | None:
    """The rows of the same photos at the same places; None where these are less than half."""
    import pyarrow.compute as pc

    at = pc.index_in(ours["image_id"], value_set=theirs["image_id"].combine_chunks())
    rows = np.flatnonzero(pc.is_valid(at).to_numpy())
    mine, others = ours.take(rows), theirs.take(at.drop_null())
    same = np.ones(len(rows), bool)
    for name in KNOWN:
        equal = pc.fill_null(pc.equal(mine[name], others[name]), False).to_numpy()
        same &= equal | (_is_unknown(mine[name]) & _is_unknown(others[name]))
    kept = np.flatnonzero(same)
    if 2 * len(kept) < max(len(ours), len(theirs)) or not len(kept):
        return None
    return mine.take(kept), others.take(kept)


def _is_unknown(values: "pa.ChunkedArray") -> np.ndarray:
    import pyarrow.compute as pc

    unknown: np.ndarray = pc.is_null(values, nan_is_null=True).to_numpy()
    return unknown


def _groups(table: "pa.Table") -> Any:
    from geoloc_core.evaluation.bootstrap import Groups

    return Groups.of_ids(table["group_id"])


def _told(table: "pa.Table") -> "Told":
    """A table as metrics measure it."""
    import pandas as pd

    from geoloc_core.evaluation.scoring import Outcomes, Places, Told

    n = len(table)
    names = [table[name].to_numpy(zero_copy_only=False) for name in ("true_country", "country")]
    codes, known = pd.factorize(np.concatenate(names), sort=True)  # None is −1
    nothing = np.full(n, np.nan, np.float32)
    outcomes = Outcomes(
        ranks=table["rank"].to_numpy(),
        country_ranks=table["country_rank"].to_numpy(),
        subdivision_ranks=table["subdivision_rank"].to_numpy(),
        probability=table["probability"].to_numpy(),
        before=nothing,
        confidence=table["confidence"].to_numpy(),
        true_country=codes[:n].astype(np.int32),
        country=codes[n:].astype(np.int32),
        errors_km=table["error_km"].to_numpy(),
        geodesic_km=nothing,
        log_density=nothing,
        spread_km=nothing,
        candidate_within=np.empty((n, 0), np.int16),
        candidates=0,
    )
    none = np.empty(0, np.int32)
    return Told(outcomes, Places(tuple(known), none, (), none, ""))


def broken(guards: Sequence[Guard]) -> list[str]:
    """The guards that did not hold, in words."""
    return [_lost(guard) for guard in guards if not guard.held]


def _lost(guard: Guard) -> str:
    on, found = f"on {guard.benchmark} " if guard.benchmark else "", column(guard.what)
    unit = unit_of(guard.what)
    if guard.what == CALIBRATION:
        what = "the calibration error (ECE) rises"
    elif found is not None:
        what = f"{guard.what} worsens"
    else:
        what = f"in {guard.what} the country is right less often"
    return f"{on}{what} by {guard.words(unit)}, and {guard.bound:g} are allowed"


def unit_of(what: str) -> str:
    """The unit of a change in a metric, or on a continent."""
    found = column(what)
    if found is not None and found.group == ERROR:
        return "km"
    return "nats" if what == "nll" else "points"
