"""Charts as data: what ``plot.html`` draws as SVG. Positions are text, in units of a drawing of :data:`SIZE`."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from geoloc_core.evaluation.details import Answered, Bin

WIDE, HIGH = 460, 260
"""Of the frame of a chart."""
SIZE = (WIDE, HIGH)
COLOURS = 6
"""Lines that are told apart by their colour; more are quiet."""
QUIET = "aside"
POINTS = 80
"""Of a curve."""
LEAST_KM, MOST_KM = 1.0, 20040.0
STEP_KM = (1, 25, 200, 750, 2500, 20000)

Scale = Callable[[float], float]
Stairs = dict[str, list[float | None]]
"""By distance, percentages step by step; None where one is not known."""


@dataclass(frozen=True)
class Curve:
    """A cumulative distribution of errors.

    Attributes:
        km: (P,) kilometres, evenly spread in logarithms.
        percent: (P,) of the photos, no farther off.
    """

    km: np.ndarray
    percent: np.ndarray


@dataclass(frozen=True)
class Line:
    """A line, its class of style, and what it is."""

    points: str
    style: str
    name: str


@dataclass(frozen=True)
class Tick:
    """A mark on an axis."""

    at: str
    text: str


@dataclass(frozen=True)
class Dot:
    """A point, the ends of its interval where it has one, and what it is."""

    x: str
    y: str
    low: str
    high: str
    said: str


@dataclass(frozen=True)
class Plot:
    """A chart.

    Attributes:
        title: What it shows.
        said: The same in a sentence, for those who do not see it.
        across: What runs from left to right.
        up: What runs upwards.
        x_ticks: Along the lower edge.
        y_ticks: Along the left edge.
        lines: From the back to the front.
        dots: In front of them.
        left: Room for the marks of the left edge.
        high: Of its frame.
    """

    title: str
    said: str
    across: str
    up: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    dots: tuple[Dot, ...] = ()
    left: int = 44
    high: int = HIGH

    @property
    def legend(self) -> tuple[Line, ...]:
        """The lines that have a colour, each style and name once."""
        found = {(line.style, line.name): line for line in self.lines if line.name and line.style != QUIET}
        return tuple(found.values())


def _text(value: float) -> str:
    return f"{value:.1f}"


def _points(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> str:
    return " ".join(f"{_text(a)},{_text(b)}" for a, b in zip(x, y, strict=True))


def _linear(low: float, high: float, length: float) -> Scale:
    return lambda value: (value - low) / (high - low) * length


def _up(high: float = 100.0) -> Scale:
    """An axis upwards from 0 to so many percent."""
    return lambda value: HIGH - value / high * HIGH


def _marks(at: Scale, high: float = 100.0) -> tuple[Tick, ...]:
    """The marks of an axis from 0 to so many percent."""
    step = 20 if high > 50 else 10 if high > 20 else 5
    return tuple(Tick(_text(at(mark)), str(mark)) for mark in range(0, int(high) + 1, step))


def _top(values: Iterable[float]) -> float:
    """The percentage at which an axis ends that has all values on it: a multiple of ten."""
    return min(100.0, 10 * math.ceil(max([10.0, *values]) / 10))


def _kilometres(value: float) -> float:
    """Where a distance stands from left to right, in logarithms."""
    span = math.log(MOST_KM / LEAST_KM)
    return math.log(min(max(value, LEAST_KM), MOST_KM) / LEAST_KM) / span * WIDE


def shares(errors_km: np.ndarray) -> Curve | None:
    """The cumulative distribution of errors (N,); None where none is known."""
    known = np.sort(errors_km[~np.isnan(errors_km)])
    if not len(known):
        return None
    km = np.unique(np.r_[np.geomspace(LEAST_KM, MOST_KM, POINTS), STEP_KM])
    return Curve(km, 100 * np.searchsorted(known, km, side="right") / len(known))


def distances(title: str, curves: Mapping[str, Curve]) -> Plot:
    """The share of photos within a distance, a line each; the first are told apart by colour."""
    up, lines = _up(), []
    for number, (name, curve) in enumerate(curves.items()):
        style = f"c{number}" if number < COLOURS else QUIET
        lines.append(Line(_points([_kilometres(x) for x in curve.km], [up(y) for y in curve.percent]), style, name))
    ticks = tuple(Tick(_text(_kilometres(km)), f"{km:,}") for km in STEP_KM)
    said = f"{title}: share of photos within a distance, for {', '.join(curves)}."
    return Plot(title, said, "error, km", "photos within, %", ticks, _marks(up), tuple(lines[::-1]))


def reliability(title: str, bins: Sequence[Bin]) -> Plot:
    """Accuracy by confidence, each bin with its 95 % interval, over the diagonal on which both are the same."""
    known = [one for one in bins if one.accuracy.value is not None]
    top = _top(value or 0.0 for one in known for value in (one.confidence, one.accuracy.value, one.accuracy.high))
    up, across = _up(top), _linear(0, top, WIDE)
    dots = []
    for one in known:
        value, low, high = one.accuracy.value or 0.0, one.accuracy.low, one.accuracy.high
        ends = (_text(up(low)), _text(up(high))) if low is not None and high is not None else ("", "")
        said = f"{value:.1f} % of {one.accuracy.n:,} right at a confidence of {one.confidence:.1f} %"
        dots.append(Dot(_text(across(one.confidence)), _text(up(value)), *ends, said))
    lines = (
        Line(_points([0, WIDE], [HIGH, 0]), "diagonal", "as sure as right"),
        Line(_points([float(dot.x) for dot in dots], [float(dot.y) for dot in dots]), "c0", "measured, 95 % interval"),
    )
    said = f"{title}: accuracy against confidence in {len(known)} bins."
    return Plot(title, said, "confidence, %", "right, %", _marks(across, top), _marks(up, top), lines, tuple(dots))


def selective(title: str, curve: Sequence[Answered]) -> Plot:
    """Accuracy where the least sure photos are left out."""
    known = [(one.coverage, one.accuracy) for one in curve if one.accuracy is not None]
    top = _top(accuracy for _, accuracy in known)
    up, across = _up(top), _linear(0, 100, WIDE)
    line = Line(_points([across(x) for x, _ in known], [up(y) for _, y in known]), "c0", "")
    said = f"{title}: accuracy against the share of photos that is answered, the surest first."
    return Plot(title, said, "answered, %", "right, %", _marks(across), _marks(up, top), (line,))


def ladder(title: str, steps: Sequence[str], published: Stairs, ours: Stairs) -> Plot:
    """What each step of an ablation adds: from top to bottom the steps, a stair for each distance.

    Args:
        title: What it shows.
        steps: Names, the first one first.
        published: The paper's.
        ours: Ours, of the same distances.
    """
    row = 34
    across = _linear(0, 100, WIDE)
    lines = []
    for number, name in enumerate(published):
        style = f"c{number % COLOURS}"
        lines += [Line(part, f"{style} dashed", f"{name}, paper") for part in _stairs(published[name], across, row)]
        lines += [Line(part, style, f"{name}, ours") for part in _stairs(ours[name], across, row)]
    marks = tuple(Tick(_text((number + 0.5) * row), step) for number, step in enumerate(steps))
    said = f"{title}: {len(steps)} steps, each for {', '.join(published)}."
    return Plot(
        title, said, "photos within, %", "", _marks(across), marks, tuple(lines), left=196, high=row * len(steps)
    )


def _stairs(values: Sequence[float | None], across: Scale, row: int) -> list[str]:
    """Stairs from top to bottom, with a gap where a step is missing."""
    parts = []
    for known, run in groupby(enumerate(values), key=lambda step: step[1] is not None):
        if known:
            steps = [(number, value) for number, value in run if value is not None]
            x = [across(value) for _, value in steps for _ in (0, 1)]
            parts.append(_points(x, [float(end * row) for number, _ in steps for end in (number, number + 1)]))
    return parts
