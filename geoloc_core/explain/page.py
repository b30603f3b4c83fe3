"""Explanations as one page: a single file that needs no network."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geoloc_core.encoders.preprocess import decode
from geoloc_core.evaluation.board import BANNER
from geoloc_core.explain import neighbours as near_photos
from geoloc_core.explain import overlay
from geoloc_core.explain.explanation import LISTS, MAPS, METHODS, Explanation, Map
from geoloc_core.explain.faithfulness import Curve
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.geo.sphere import haversine_km
from geoloc_core.report import render
from geoloc_core.report.table import Cell, Column, Link, Row, Table
from geoloc_core.serving.bundle import Bundle

WIDE, HIGH = 300, 150
"""Of a chart, in units of its drawing."""
THUMBNAIL = 160
"""Longer edge of a neighbour, pixels."""


@dataclass(frozen=True)
class Line:
    """A line of a chart: its points as SVG takes them, and its class of style."""

    points: str
    style: str


@dataclass(frozen=True)
class Chart:
    """Curves over the share of a photo that was taken away or put back.

    Attributes:
        title: What was done.
        end: What is so on the right.
        band: Outline of all random orders, points as SVG takes them.
        lines: The map's curve and the mean of the random ones.
        top: The highest score, written.
        bottom: The lowest.
        said: The areas under the curves, in words.
    """

    title: str
    end: str
    band: str
    lines: tuple[Line, ...]
    top: str
    bottom: str
    said: str


@dataclass(frozen=True)
class ShownMap:
    """A map as the page shows it."""

    title: str
    picture: str
    charts: tuple[Chart, ...]
    likeness: str
    told: str
    verdict: str
    trusted: bool


@dataclass(frozen=True)
class Box:
    """A piece over the photo, in thousandths of its width and height."""

    x: int
    y: int
    width: int
    height: int
    label: str


@dataclass(frozen=True)
class Neighbour:
    """A training photo as the page shows it."""

    picture: str
    title: str
    lines: tuple[str, ...]
    source: Link | None

    @property
    def address(self) -> str | None:
        """Where it was published, if that is a page."""
        return Cell(self.source).address


@dataclass(frozen=True)
class Section:
    """All of a photo; ``uncut`` where pieces were asked for and there are none."""

    title: str
    note: str
    picture: str
    answer: str
    places: Table
    maps: tuple[ShownMap, ...]
    evidence: Table | None
    pieces: Table | None
    uncut: bool
    boxes: tuple[Box, ...]
    neighbours: tuple[Neighbour, ...]


def html(bundle: Bundle, model: str, found: Sequence[Explanation], lacking: dict[str, str]) -> str:
    """Explanations as a self-contained HTML page.

    Args:
        bundle: The model.
        model: Its name for people, such as that of a registered version.
        found: An explanation per photo.
        lacking: By method that does not apply, why.
    """
    return render.document(
        "explain/explanations.html",
        model=model,
        banner=BANNER.partition(";")[0] + "." if bundle.demo else "",
        sections=[section(one, bundle.labelspace) for one in found],
        lacking=[(METHODS[method], reason) for method, reason in lacking.items()],
        lists=LISTS,
        size=(WIDE, HIGH),
    )


def section(found: Explanation, space: LabelSpace) -> Section:
    """What the page says of a photo."""
    photo = overlay.shown(found.pixels)
    return Section(
        title=found.question.name,
        note=found.question.note,
        picture=overlay.address(photo),
        answer=_answer(found, space),
        places=_places(found),
        maps=tuple(shown_map(one, photo, found.target.place is not None) for one in found.maps),
        evidence=_evidence(found) if found.evidence else None,
        pieces=_pieces(found, space) if found.pieces else None,
        uncut=found.pieces == [],
        boxes=_boxes(found),
        neighbours=neighbours(found, THUMBNAIL),
    )


def _answer(found: Explanation, space: LabelSpace) -> str:
    """What is explained, and how far it is from the truth."""
    target = found.target
    where = f"{target.latitude:.3f}°, {target.longitude:.3f}°"
    said = where if target.place is None else f"{space.names[target.place]} ({space.ids[target.place]}), at {where}"
    if found.question.place is None:
        return f"{said}. Where it was taken is not known."
    km = float(haversine_km(target.latitude, target.longitude, *found.question.place))
    latitude, longitude = found.question.place
    return f"{said}. It was taken at {latitude:.3f}°, {longitude:.3f}°: {km:,.0f} km away."


def _places(found: Explanation) -> Table:
    heads = (
        Column("place"),
        Column.of_numbers("probability", ".1%"),
        Column.of_numbers("latitude", ".3f"),
        Column.of_numbers("longitude", ".3f"),
    )
    figures = ("probability", "latitude", "longitude")
    lines = (Row.of(f"{row['name']} ({row['id']})", *(row[name] for name in figures)) for row in found.places)
    return Table(heads, tuple(lines), "The most probable places", ordered_by=heads[1])


def _evidence(found: Explanation) -> Table:
    heads = (Column("what the answer rests on"), Column("kind"), Column.of_numbers("weight", ".3f"))
    lines = (Row.of(row["text"], row["kind"], row["weight"]) for row in found.evidence)
    return Table(heads, tuple(lines), LISTS["evidence"], ordered_by=heads[2])


def _pieces(found: Explanation, space: LabelSpace) -> Table:
    heads = (
        Column("piece"),
        Column("votes for"),
        Column.of_numbers("probability", ".1%"),
        Column.of_numbers("of the photo", ".1%"),
        Column.of_numbers("score", ".2f"),
    )
    pixels = found.size[0] * found.size[1]
    lines = (
        Row.of(
            f"{number} {piece.label} ({piece.group})",
            f"{space.names[piece.place]} ({space.ids[piece.place]})",
            piece.probability,
            piece.area / pixels,
            piece.score,
            tone="strong" if piece.place == found.target.place else "",
        )
        for number, piece in enumerate(found.pieces or (), start=1)
    )
    return Table(heads, tuple(lines), LISTS["pieces"], "in bold what votes for the answer", ordered_by=heads[3])


def _boxes(found: Explanation) -> tuple[Box, ...]:
    width, height = found.size
    return tuple(
        Box(
            round(1000 * left / width),
            round(1000 * top / height),
            round(1000 * (right - left) / width),
            round(1000 * (bottom - top) / height),
            str(number),
        )
        for number, (left, top, right, bottom) in enumerate((piece.box for piece in found.pieces or ()), start=1)
    )


def neighbours(found: Explanation, longest: int) -> tuple[Neighbour, ...]:
    """The nearest training photos, the longer edge of each so many pixels; none where they were not asked for."""
    return tuple(_neighbour(found, one, longest) for one in found.neighbours or ())


def _neighbour(found: Explanation, one: near_photos.Neighbour, longest: int) -> Neighbour:
    far = float(haversine_km(one.latitude, one.longitude, found.target.latitude, found.target.longitude))
    lines = [f"cosine {one.likeness:.3f}"]
    if math.isfinite(far):
        lines += [f"{far:,.0f} km from the answer", f"{one.latitude:.3f}°, {one.longitude:.3f}°"]
    lines += [f"by {one.author or 'unknown'}", f"licence: {one.licence or 'not stated'}"]
    picture = overlay.thumbnail(np.asarray(decode(one.photo)), longest)
    source = Link("source", one.source_url) if one.source_url else None
    return Neighbour(overlay.address(picture), one.image_id, tuple(lines), source)


def shown_map(one: Map, photo: np.ndarray, probability: bool) -> ShownMap:
    """A map over a photo (H, W, 3), with its checks.

    Args:
        one: The map.
        photo: As large as it is shown.
        probability: Whether the score is a probability.
    """
    check = one.check
    chance = check.chance
    return ShownMap(
        title=MAPS[one.method],
        picture=overlay.address(overlay.heated(photo, one.values)),
        charts=(
            _chart("Deletion", "all taken away", check.deletion, chance.deletions, probability),
            _chart("Insertion", "all put back", check.insertion, chance.insertions, probability),
        ),
        likeness="no head to randomise" if check.likeness is None else f"{check.likeness:+.2f}",
        told=one.told,
        verdict=check.verdict,
        trusted=not check.doubts,
    )


def _chart(title: str, end: str, curve: Curve, others: Sequence[Curve], probability: bool) -> Chart:
    scores = np.array([other.scores for other in others])
    every = np.concatenate([curve.scores, scores.ravel(), [0.0]])
    low, high = float(every.min()), float(every.max())
    high = high if high > low else low + 1

    def points(shares: np.ndarray, values: np.ndarray) -> str:
        y = HIGH - (values - low) / (high - low) * HIGH
        return " ".join(f"{x * WIDE:.1f},{at:.1f}" for x, at in zip(shares, y, strict=True))

    shares = curve.shares
    band = points(np.r_[shares, shares[::-1]], np.r_[scores.max(axis=0), scores.min(axis=0)[::-1]])
    areas = [other.area for other in others]
    written = "{:.1%}".format if probability else "{:.2f}".format
    said = (
        f"Area {written(curve.area)}; {len(areas)} random orders {written(float(np.mean(areas)))} on average, "
        f"{written(min(areas))} to {written(max(areas))}."
    )
    lines = Line(points(shares, scores.mean(axis=0)), "chance"), Line(points(shares, curve.scores), "map")
    return Chart(title, end, band, lines, written(high), written(low), said)
