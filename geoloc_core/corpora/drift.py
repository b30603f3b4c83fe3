"""How far a corpus has moved from its last version: photos, refusals, sizes and countries.

Of every version that was checked and found good, a few figures are kept in ``.state``, by table: DVC deletes a stage's
outputs before it runs, and a check is no stage, so nothing that a stage writes depends on them. The last version is the
last one kept that has other figures, so asking twice gives the same answer, and a version that was good once is good
when it comes back.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from math import exp
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoloc_core.files import read_json, write_json
from geoloc_core.plugins import Strict

if TYPE_CHECKING:
    import pandas as pd

Figures = Mapping[str, Any]
"""What a version is known by, as JSON has it."""

STEPS = 20
"""Intervals between the quantiles that stand for all photo sizes."""
NOWHERE = "no country"
TOLD = 3
"""Countries that are named when their shares moved."""


class Version(Strict):
    """A version that was found good."""

    date: str
    figures: dict[str, Any]


class History(Strict):
    """What is kept of the versions of a table, the latest one last."""

    accept_next: bool
    versions: list[Version]


@dataclass(frozen=True)
class Move:
    """How far one thing moved.

    Attributes:
        what: A limit of :class:`geoloc_core.params.Drift`.
        moved: By how much, as that limit counts.
        told: From what to what.
    """

    what: str
    moved: float
    told: str


@dataclass(frozen=True)
class Comparison:
    """A version beside the last one.

    Attributes:
        since: When the last version was first checked; None where there is none.
        accepted: When this version was found good, or ``beforehand``; None where it is new.
        moves: How far each thing moved.
    """

    since: str | None
    accepted: str | None
    moves: tuple[Move, ...]


def manifest_figures(photos: "pd.DataFrame", reasons: "pd.Series") -> Figures:
    """Of a manifest.

    Args:
        photos: ``width`` and ``height``.
        reasons: Why each refused photo was.
    """
    import numpy as np

    pixels = photos["width"].to_numpy(np.int64) * photos["height"].to_numpy(np.int64)
    steps = np.quantile(pixels, np.linspace(0, 1, STEPS + 1), method="nearest") if len(pixels) else []
    return {
        "photos": len(photos),
        "refused": {str(reason): int(count) for reason, count in reasons.value_counts().sort_index().items()},
        "pixels": [max(1, int(step)) for step in steps],
    }


def label_figures(labels: "pd.DataFrame") -> Figures:
    """Of a labels table, by its ``gid_0``."""
    counts = labels["gid_0"].fillna(NOWHERE).value_counts().sort_index()
    return {"countries": {str(country): int(count) for country, count in counts.items()}}


def compare(history: Path, figures: Figures) -> Comparison:
    """Compare a version with the last one of a history.

    Raises:
        UserError: The history is damaged.
    """
    kept = _read(history)
    same, others = _parted(kept["versions"], figures)
    accepted = same["date"] if same else "beforehand" if kept["accept_next"] else None
    if not others:
        return Comparison(None, accepted, ())
    before = others[-1]
    return Comparison(before["date"], accepted, tuple(MEASURES[key](before["figures"], figures) for key in figures))


def keep(history: Path, figures: Figures) -> None:
    """Make a version the last one."""
    kept = _read(history)
    same, others = _parted(kept["versions"], figures)
    current = same or {"date": date.today().isoformat(), "figures": figures}
    _write(history, kept, {"accept_next": False, "versions": [*others, current]})


def accept_next(history: Path) -> None:
    """Accept the next version, however much it differs."""
    kept = _read(history)
    _write(history, kept, {**kept, "accept_next": True})


def _parted(versions: list[dict[str, Any]], figures: Figures) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """The version with these figures, if there is one, and the others."""
    same = [version for version in versions if version["figures"] == figures]
    return same[0] if same else None, [version for version in versions if version["figures"] != figures]


def _read(history: Path) -> dict[str, Any]:
    if not history.exists():
        return {"accept_next": False, "versions": []}
    found: History = read_json(history, "delete it, and the next version counts as the first", History)
    return found.model_dump()


def _write(history: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    if now != before:
        write_json(history, now)


def _photos(before: Figures, now: Figures) -> Move:
    """The larger number as a share of the smaller one, less one."""
    one, other = before["photos"], now["photos"]
    return Move("photos", max(one, other) / max(1, min(one, other)) - 1, f"{one:,} → {other:,} photos")


def _refused(before: Figures, now: Figures) -> Move:
    """The difference between the shares of what was seen."""
    one, other = _refused_shares(before), _refused_shares(now)
    moved = sum(other.values()) - sum(one.values())
    told = f"{sum(one.values()):.1%} → {sum(other.values()):.1%} refused"
    reason = max({**one, **other}, key=lambda name: abs(other.get(name, 0) - one.get(name, 0)), default=None)
    if reason:
        told += f", {reason} {one.get(reason, 0):.1%} → {other.get(reason, 0):.1%}"
    return Move("refused", abs(moved), told)


def _refused_shares(figures: Figures) -> dict[str, float]:
    seen = figures["photos"] + sum(figures["refused"].values())
    return {reason: count / seen for reason, count in figures["refused"].items()}


def _sizes(before: Figures, now: Figures) -> Move:
    """The mean factor between photos of the same rank by size, less one (Wasserstein distance of the logarithms)."""
    import numpy as np

    if not before["pixels"] or not now["pixels"]:
        return Move("sizes", 0.0, "no photos")
    one, other = np.array(before["pixels"]), np.array(now["pixels"])
    moved = exp(float(np.abs(np.log(other / one)).mean())) - 1
    middle = STEPS // 2
    return Move("sizes", moved, f"median {one[middle] / 1e6:.3g} → {other[middle] / 1e6:.3g} megapixels")


def _countries(before: Figures, now: Figures) -> Move:
    """Total variation distance: the share of photos that would have to change country."""
    one, other = _shares(before["countries"]), _shares(now["countries"])
    moves = {name: other.get(name, 0.0) - one.get(name, 0.0) for name in {**one, **other}}
    most = sorted(moves, key=lambda name: (-abs(moves[name]), name))[:TOLD]
    told = ", ".join(f"{name} {one.get(name, 0):.1%} → {other.get(name, 0):.1%}" for name in most)
    return Move("countries", sum(map(abs, moves.values())) / 2, told)


def _shares(counts: Mapping[str, int]) -> dict[str, float]:
    total = max(1, sum(counts.values()))
    return {name: count / total for name, count in counts.items()}


MEASURES: dict[str, Callable[[Figures, Figures], Move]] = {
    "photos": _photos,
    "refused": _refused,
    "pixels": _sizes,
    "countries": _countries,
}
"""How far a version moved, by figure."""
