"""How far features and answers have moved from the champion's: what it learned from, and what it answered before.

A two-sample test says whether a difference may be chance, and a coefficient between 0 and 1 says how large it is. Both
count: of many photos the smallest difference is sure, and of few a large one may be chance. Photos of one group look
alike, so groups are what is compared, never photos as if each stood alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoloc_core.errors import UserError
from geoloc_core.evaluation.bootstrap import Groups
from geoloc_core.files import write_json
from geoloc_core.plugins import Strict
from geoloc_core.progress import say

if TYPE_CHECKING:
    import pyarrow as pa

    from geoloc_core.params.schema import Limits
    from geoloc_core.project import Project

GROUPS = 1000
"""Groups of a training set that are compared, a photo of each: their distances are 2,000 × 2,000 numbers."""
LEAST = 20
"""Groups on either side below which nothing is said."""
DRAWS = 499
CHANCE = 0.01
"""Probability of a difference as large by chance alone, above which none is reported."""
SEED = 1979
NAMED = 3
"""Countries that are named when their shares moved."""
FILE = "features.npz"
FEATURES, ANSWERS = "features", "answers"
_MADE_BY = "made by "
"""Begins the key of the fingerprint of an encoder's features."""


@dataclass(frozen=True)
class Difference:
    """Between two samples of groups.

    Attributes:
        size: Between 0, the same distribution, and 1. An estimate of it, so a little below 0 too.
        chance: Probability of a size as large if both came from one distribution.
    """

    size: float
    chance: float


class Shift(Strict):
    """How far one thing has moved from the champion's.

    Attributes:
        kind: ``features`` or ``answers``.
        what: Which, in words.
        size: Of the difference.
        chance: Probability of one as large by chance.
        limit: The size from which on to warn.
        told: What there is to compare, or what has moved most.
    """

    kind: str
    what: str
    size: float
    chance: float
    limit: float
    told: str

    @property
    def warns(self) -> bool:
        """Whether it is larger than it may be, and no chance."""
        return self.size > self.limit and self.chance <= CHANCE

    def words(self) -> str:
        """It in a line."""
        size = f"{max(0.0, self.size):.3f}, and {self.limit:g} is allowed"
        return f"{self.what} moved by {size} (as likely by chance: {self.chance:.1%}): {self.told}"


def energy(ours: np.ndarray, theirs: np.ndarray) -> Difference:
    """The energy distance between two samples, and a permutation test of it.

    Székely and Rizzo 2013, "Energy statistics: A class of statistics based on distances": the coefficient of
    inhomogeneity H = (2 E|X − Y| − E|X − X'| − E|Y − Y'|) / 2 E|X − Y|, here without bias, of features that are
    standardised together. If every feature moves by half a standard deviation, H is about 0.06.

    Args:
        ours: (N, D), a row of each group, at least two.
        theirs: (M, D) likewise.
    """
    rows = np.concatenate([ours, theirs]).astype(np.float64)
    spread = rows.std(axis=0)
    rows = (rows - rows.mean(axis=0)) / np.where(spread > 0, spread, 1)
    squares = (rows**2).sum(axis=1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares - 2 * rows @ rows.T, 0))
    np.fill_diagonal(distances, 0)
    n, m = len(ours), len(theirs)
    luck = np.random.default_rng(SEED)
    mine = np.zeros((n + m, 1 + DRAWS))
    mine[:n] = 1
    mine[:, 1:] = luck.permuted(mine[:, 1:], axis=0)
    to_mine = distances @ mine
    within = (mine * to_mine).sum(axis=0)
    across = to_mine.sum(axis=0) - within
    others = distances.sum() - within - 2 * across
    apart = 2 * across / (n * m)
    sizes = np.divide(apart - within / (n * (n - 1)) - others / (m * (m - 1)), apart, where=apart > 0, out=apart * 0)
    return Difference(float(sizes[0]), float((1 + (sizes[1:] >= sizes[0] - 1e-12).sum()) / (1 + DRAWS)))


def jensen_shannon(ours: np.ndarray, theirs: np.ndarray) -> Any:
    """The Jensen–Shannon divergence in bits of two distributions (..., C) over the same classes: from 0 to 1.

    Lin 1991, "Divergence measures based on the Shannon entropy", equation 4.1 with equal weights.
    """
    return _entropy((ours + theirs) / 2) - (_entropy(ours) + _entropy(theirs)) / 2


def _entropy(shares: np.ndarray) -> Any:
    return -(shares * np.log2(np.where(shares > 0, shares, 1))).sum(axis=-1)


def shares(ours: np.ndarray, theirs: np.ndarray) -> Difference:
    """The divergence between the shares of classes in two samples, and a bootstrap test of it over groups.

    If both come from one distribution, groups drawn from both together differ as much.

    Args:
        ours: (N, C), how many rows of each class each group has, at least one.
        theirs: (M, C) likewise.
    """
    both, n = np.concatenate([ours, theirs]).astype(np.float64), len(ours)
    luck = np.random.default_rng(SEED)
    size = float(jensen_shannon(_shares(ours.sum(axis=0)), _shares(theirs.sum(axis=0))))
    chance = np.full(len(both), 1 / len(both))
    drawn = [luck.multinomial(count, chance, DRAWS) @ both for count in (n, len(theirs))]
    sizes = jensen_shannon(*map(_shares, drawn))
    return Difference(size, float((1 + (sizes >= size - 1e-12).sum()) / (1 + DRAWS)))


def _shares(counts: np.ndarray) -> np.ndarray:
    total = counts.sum(axis=-1, keepdims=True)
    return np.asarray(counts / np.where(total > 0, total, 1))


def one_of_each(groups: Sequence[str], ids: Sequence[str]) -> np.ndarray:
    """The positions of a row of each group, of no more than :data:`GROUPS`, ascending.

    By the digests of ids, so that what is drawn of a corpus stays the same where the corpus does.
    """
    import pandas as pd

    luck = pd.util.hash_array(np.asarray(ids, dtype=object))
    frame = pd.DataFrame({"group": Groups.of_ids(groups).codes, "luck": luck})
    first = frame.sort_values("luck", kind="stable").drop_duplicates("group")
    return np.sort(first.index.to_numpy()[:GROUPS])


def training_features(project: "Project", variant: str) -> dict[str, np.ndarray]:
    """What is kept of the features that a variant learns from: (N, D) float32 of a photo of each group, by encoder.

    Empty where it looks at the photos themselves. A mean stands for features of several tokens.

    Raises:
        UserError: The features are missing or damaged; promotion does not need them.
    """
    from geoloc_core.corpora import truth
    from geoloc_core.sets import Split
    from geoloc_core.variants import inputs

    block = project.profile.variant(variant)
    encoders = block.needs().encoders
    if not encoders:
        return {}
    known = truth.read(project, block.corpus, ["image_id", "group_id", "split"]).to_pandas()
    usable = np.array(known["split"] == Split.TRAIN)  # a copy: what pandas gives is not to be written to
    usable[inputs.missing(project, encoders, block.corpus)] = False
    rows = np.flatnonzero(usable)
    ids, groups = (known[name].to_numpy(dtype=object)[rows] for name in ("image_id", "group_id"))
    rows = rows[one_of_each(groups, ids)]
    found = {}
    for name, features in inputs.images(project, encoders, block.corpus, len(known)).items():
        taken = np.asarray(features[rows], np.float32)
        found[name] = taken.mean(axis=1) if taken.ndim == 3 else taken
    made_by = inputs.fingerprints(project, encoders, block.corpus)
    return found | {f"{_MADE_BY}{name}": np.array(value) for name, value in made_by.items()}


def write(features: dict[str, np.ndarray], folder: Path) -> Path:
    """Write what :func:`training_features` found; returns the file."""
    np.savez(folder / FILE, **features)  # type: ignore[arg-type]  # its hint takes any name for a flag
    return folder / FILE


def read(path: Path) -> dict[str, np.ndarray]:
    """What :func:`write` wrote.

    Raises:
        UserError: It is damaged.
    """
    import zipfile

    try:
        with np.load(path, allow_pickle=False) as kept:
            return {name: kept[name] for name in kept.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
        raise UserError(f"{path}: not the features of a training set ({error}); delete it") from None


def of_features(project: "Project", variant: str, kept: dict[str, np.ndarray], limits: "Limits") -> Iterator[Shift]:
    """The present features of what a variant learns from, beside those that the champion has learned from.

    Encoders whose weights are others now are passed over: their features do not compare.
    """
    corpus = project.profile.variant(variant).corpus
    try:
        now = training_features(project, variant)
    except UserError as error:
        say(f"promote: features are not compared with the champion's: {error}")
        return
    for name, theirs in kept.items():
        made_by = f"{_MADE_BY}{name}"
        if name.startswith(_MADE_BY) or name not in now or str(now[made_by]) != str(kept.get(made_by)):
            continue
        ours = now[name]
        if min(len(ours), len(theirs)) >= LEAST and ours.shape[1] == theirs.shape[1]:
            found = energy(ours, theirs)
            yield Shift(
                kind=FEATURES, what=f"features of {corpus} by {name}", size=found.size, chance=found.chance,
                limit=limits.features, told=f"a photo of each of {len(ours):,} groups, and of {len(theirs):,} then",
            )  # fmt: skip


def of_answers(ours: "pa.Table", theirs: "pa.Table", benchmark: str, limits: "Limits") -> Iterator[Shift]:
    """The countries that are answered now, beside those that the champion answered before.

    Args:
        ours: The present answers, of :func:`geoloc_core.registry.evidence.of_variant`.
        theirs: Those that are kept with the champion.
        benchmark: What was asked.
        limits: From which size on to warn.
    """
    import pandas as pd

    rows = [len(ours), len(theirs)]
    said = np.concatenate([table["country"].to_numpy(zero_copy_only=False) for table in (ours, theirs)])
    codes, names = pd.factorize(np.where(pd.isna(said), "no country", said), sort=True)
    counted = []
    for table, part in zip((ours, theirs), np.split(codes, rows[:1]), strict=True):
        groups = Groups.of_ids(table["group_id"].to_numpy(zero_copy_only=False)).codes
        counts = pd.crosstab(groups, part).reindex(columns=range(len(names)), fill_value=0)
        counted.append(counts.to_numpy())
    if min(map(len, counted)) < LEAST:
        return
    found = shares(*counted)
    now, then = (_shares(counts.sum(axis=0)) for counts in counted)
    most = np.argsort(-np.abs(now - then), kind="stable")[:NAMED]
    told = ", ".join(f"{names[at]} {then[at]:.1%} → {now[at]:.1%}" for at in most)
    yield Shift(kind=ANSWERS, what=f"answers to {benchmark}", size=found.size, chance=found.chance,
                limit=limits.answers, told=told)  # fmt: skip


def keep(project: "Project", shifts: Sequence[Shift] | None) -> None:
    """Write what was found, and its plot, to ``.state``; None where there is no champion to compare with."""
    write_json(project.state / "shift.json", [shift.model_dump() | {"warns": shift.warns} for shift in shifts or ()])
    path = project.state / "shift.png"
    if shifts:
        draw(shifts, path)
    else:
        path.unlink(missing_ok=True)


def draw(shifts: Sequence[Shift], path: Path) -> None:
    """The sizes as bars beside their limits."""
    from geoloc_core import plots

    with plots.picture(path, height=1.4 + 0.35 * len(shifts)) as axes:
        places = range(len(shifts))
        colours = ["tab:red" if shift.warns else "tab:blue" for shift in shifts]
        axes.barh(places, [max(0.0, shift.size) for shift in shifts], color=colours)
        axes.plot([shift.limit for shift in shifts], places, "k|", markersize=16, label="limit")
        axes.set_yticks(places, [plots.label(shift.what, 40) for shift in shifts])
        axes.set(title="moved since the champion (red: warns)", xlabel="size of the difference, 0 to 1", xlim=(0, None))
        axes.invert_yaxis()
        axes.legend(loc="lower right")
