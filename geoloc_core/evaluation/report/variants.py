"""Everything about one variant."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geoloc_core.contracts.geolocator import LABELS, clusters
from geoloc_core.contracts.metrics import column
from geoloc_core.corpora import manifest
from geoloc_core.encoders.preprocess import decode
from geoloc_core.errors import UserError
from geoloc_core.evaluation.answered import Answered
from geoloc_core.evaluation.details import Region
from geoloc_core.evaluation.examples import Example, examples
from geoloc_core.evaluation.report import around, charts, world
from geoloc_core.evaluation.report.around import Around
from geoloc_core.evaluation.report.charts import Plot
from geoloc_core.evaluation.report.confused import Confused, confused
from geoloc_core.evaluation.report.explained import Why, explained, is_here
from geoloc_core.evaluation.report.gathered import Gathered, Known
from geoloc_core.evaluation.report.papers import anchor, figure_cell
from geoloc_core.evaluation.report.world import Map, Pin, Spot
from geoloc_core.evaluation.tables import sure
from geoloc_core.explain import overlay
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.report.table import Cell, Column, Row, Table

EACH = 2
"""Photos that are shown of the best, of the median and of the worst."""
THUMBNAIL = 150
"""Longer edge of a photo, pixels."""
ENDS = 5
"""Countries with the highest recall that are named, and as many with the lowest."""
ENOUGH = 5
"""Photos that a country needs to be one of these, where as many countries have them."""


@dataclass(frozen=True)
class Shown:
    """A photo on the page."""

    picture: str
    title: str
    said: str
    pin: Pin
    spots: tuple[Spot, ...]
    why: Why | None


@dataclass(frozen=True)
class Album:
    """Photos of a benchmark: the best, the median and the worst; none where they are not on this machine."""

    benchmark: str
    photos: tuple[Shown, ...]


@dataclass(frozen=True)
class Page:
    """Everything about one variant.

    Attributes:
        name: The variant.
        anchor: Where it is on the page.
        figure: What it comes to where variants are compared.
        best: Whether it is the best of all.
        benchmark: What its maps, continents and confusions are of.
        about: What it is, and what it learned from.
        options: Its block of params.yaml.
        scores: All figures, a column for each benchmark.
        continents: Of the benchmark.
        ends: The countries that are told best and worst.
        confused: Its wrong answers; None where there is none.
        maps: Recall and median error.
        plots: Distances and calibration.
        sets: What sets that were promised come to; None where none was.
        albums: Examples of benchmarks that have some.
        around: Of cells, how probable they are around the places of some examples; clusters of training photos.
    """

    name: str
    anchor: str
    figure: str
    best: bool
    benchmark: str
    about: Table
    options: Table
    scores: Table
    continents: Table
    ends: Table
    confused: Confused | None
    maps: tuple[Map, ...]
    plots: tuple[Plot, ...]
    sets: Table | None
    albums: tuple[Album, ...]
    around: tuple[Around, ...]

    @property
    def tables(self) -> list[Table]:
        """All tables, in the order of the page."""
        wrong = [self.confused.pairs, self.confused.matrix] if self.confused else []
        return [
            self.about,
            self.scores,
            self.options,
            self.continents,
            self.ends,
            *wrong,
            *([self.sets] if self.sets else []),
            *(_maps(album) for album in self.albums if any(photo.why for photo in album.photos)),
        ]


def page(gathered: Gathered, variant: str) -> Page:
    """Everything about a variant.

    Raises:
        UserError: Its answers, their details or its photos are damaged.
    """
    benchmark = gathered.first(variant)
    known = gathered.details[variant][benchmark]
    told = gathered.answered(variant, benchmark)
    shown = _examples(gathered, variant, told, 1)
    return Page(
        name=variant,
        anchor=anchor(variant),
        figure=_figure(gathered, variant, benchmark),
        best=variant == gathered.board.best.variant,
        benchmark=benchmark,
        about=_about(gathered, variant),
        options=_options(gathered, variant),
        scores=_scores(gathered, variant),
        continents=_continents(known, benchmark),
        ends=_ends(known, benchmark),
        confused=confused(told),
        maps=(
            world.recall(f"Recall per country, {benchmark}", known.countries),
            world.median_error(f"Median error per country, {benchmark}", known.countries),
        ),
        plots=_plots(gathered, variant, known, benchmark),
        sets=_sets(known, benchmark),
        albums=tuple(_albums(gathered, variant, benchmark)),
        around=(*_probable(gathered, variant, shown), *_clusters(gathered, variant)),
    )


def _figure(gathered: Gathered, variant: str, benchmark: str) -> str:
    metric = gathered.board.best.metric
    value, found = gathered.reports[variant].benchmarks[benchmark].get(metric), column(metric)
    return f"{found.phrase(value)} on {benchmark}" if found and value is not None else ""


def _pairs(title: str, rows: Iterator[tuple[str, Any]] | list[tuple[str, Any]], what: str = "value") -> Table:
    return Table((Column("what"), Column(what)), tuple(Row.of(name, _said(value)) for name, value in rows), title)


def _said(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _about(gathered: Gathered, variant: str) -> Table:
    report, note = gathered.reports[variant], gathered.notes[variant]
    rows: list[tuple[str, Any]] = [
        ("family", report.family),
        ("encoders", ", ".join(report.encoders) or "none"),
        ("learned from", f"{sum(note.frequencies):,} photos of {report.corpus}"),
        ("trained on, encoders included", ", ".join(note.trained_on)),
        ("answers with", f"{report.classes:,} classes of the label space {report.labels}"),
        ("most frequent class", f"{report.majority.name} ({report.majority.id})"),
        ("parameters", "not noted" if report.parameters is None else report.parameters),
    ]
    seen = {"classes", "parameters"}
    trained = [
        (name.replace("_", " "), value)
        for name, value in _flat(gathered.training(variant))
        if name not in seen and isinstance(value, int | float | str)
    ]
    return _pairs("What it is", [*rows, *trained])


def _options(gathered: Gathered, variant: str) -> Table:
    block = gathered.project.profile.variants[variant]
    given = block.model_dump(mode="json", exclude_defaults=True)
    return _pairs("Options that are not the defaults", list(_flat({"kind": block.kind} | given)))


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested mappings by dotted names; lists in a line."""
    for name, value in values.items():
        match value:
            case dict():
                yield from _flat(value, f"{before}{name}.")
            case list():
                yield f"{before}{name}", ", ".join(map(str, value))
            case _:
                yield f"{before}{name}", value


def _scores(gathered: Gathered, variant: str) -> Table:
    """A row for each metric, a column for each benchmark; the paper's figure in small print."""
    sections = {
        section.name: row
        for section in gathered.board.sections
        for row in section.rows
        if row.name == variant and not row.baseline
    }
    names = {name for row in sections.values() for name in (*row.values, *row.paper)}
    metrics = sorted(filter(None, map(column, names)), key=lambda found: found.order)
    rows = []
    for found in metrics:
        cells = []
        for row in sections.values():
            value, printed = row.values.get(found.name), row.paper.get(found.name)
            cells.append(
                Cell(
                    value,
                    interval=sure(found, row),
                    note="" if printed is None else f"paper {found.show(printed)}",
                    hint="" if printed is None else row.source,
                    shown="" if value is None else found.show(value),
                )
            )
        rows.append(Row.of(f"{found.group.removesuffix(', %')}: {found.head}", *cells))
    counted = [gathered.reports[variant].benchmarks[name]["n"] for name in sections]
    heads = (Column("metric"), *(Column.of_numbers(name) for name in sections))
    return Table(heads, (Row.of("photos", *counted), *rows), "Scores", "95 % intervals over groups of photos")


def _continents(known: Known, benchmark: str) -> Table:
    ks = sorted({k for one in known.continents for k in one.top})
    heads = (
        Column("continent"),
        Column.of_numbers("photos"),
        *(Column.of_numbers(f"country, top-{k}, %", ".1f") for k in ks),
        Column.of_numbers("mean over countries, %", ".1f"),
        Column("median error, km", align="right", format=",.0f"),
    )
    rows = [
        Row.of(
            one.name,
            one.top[min(one.top)].n,
            *(figure_cell(one.top[k]) for k in ks),
            one.macro,
            figure_cell(one.median_km, ",.0f"),
        )
        for one in known.continents
    ]
    return Table(heads, tuple(rows), "Continents", f"of {benchmark}")


def _ends(known: Known, benchmark: str) -> Table:
    """The countries that are told best, then those that are told worst."""
    k = min((k for one in known.countries for k in one.top), default=1)
    many = [one for one in known.countries if one.top[k].n >= ENOUGH]
    asked = many if len(many) >= 2 * ENDS else known.countries
    best, worst = asked[:ENDS], asked[max(ENDS, len(asked) - ENDS) :]
    heads = (
        Column("country"),
        Column.of_numbers("recall, %", ".1f"),
        Column.of_numbers("photos"),
        Column("median error, km", align="right", format=",.0f"),
    )
    least = f", of countries with {ENOUGH} photos or more" if asked is many else ""
    return Table(
        heads,
        tuple(_country(one, k) for one in (*best, *worst)),
        "Highest and lowest recall",
        f"{benchmark}{least}",
        heads[1],
    )


def _country(one: Region, k: int) -> Row:
    found = one.top[k]
    return Row.of(world.named(one.name), found.value, found.n, one.median_km.value)


def _sets(known: Known, benchmark: str) -> Table | None:
    if not known.sets:
        return None
    heads = (
        Column("sets of"),
        Column.of_numbers("held the truth, %", ".1f"),
        Column.of_numbers("promised, %", ".0f"),
        Column("median size", align="right"),
    )
    rows = [
        Row.of(
            kind,
            figure_cell(found.coverage),
            known.promised,
            f"{found.size:,.0f} classes"
            if found.size is not None
            else f"{found.radius_km:,.0f} km"
            if found.radius_km is not None
            else "more than are kept",
        )
        for kind, found in known.sets.items()
    ]
    return Table(heads, tuple(rows), "Sets that hold the truth as often as promised", f"of {benchmark}")


def _plots(gathered: Gathered, variant: str, known: Known, benchmark: str) -> tuple[Plot, ...]:
    curves = {name: gathered.curve(variant, name) for name in gathered.reports[variant].benchmarks}
    drawn = {name: curve for name, curve in curves.items() if curve is not None}
    found = [charts.distances("Photos within a distance", drawn)] if drawn else []
    if known.reliability:
        found.append(charts.reliability(f"Calibration, {benchmark}", known.reliability))
    if known.selective:
        found.append(charts.selective(f"The surest answers alone, {benchmark}", known.selective))
    return tuple(found)


def _albums(gathered: Gathered, variant: str, benchmark: str) -> Iterator[Album]:
    """The photos of each benchmark that is asked for, where the variant is scored on it."""
    wanted = gathered.project.profile.report.photos_of or (benchmark,)
    for name in wanted:
        if name in gathered.reports[variant].benchmarks:
            album = Album(name, _photos(gathered, variant, gathered.answered(variant, name)))
            yield from [album] if album.photos else []


def _photos(gathered: Gathered, variant: str, told: Answered) -> tuple[Shown, ...]:
    """Examples, where the photos are on this machine and have places; some of them explained."""
    each = _explained_of_each(gathered, variant)
    shown = _examples(gathered, variant, told, max(EACH, each))
    asked = _examples(gathered, variant, told, each) if each else []
    found = dict(zip((one.image_id for one in asked), explained(gathered.project, variant, asked), strict=True))
    return tuple(_shown(one, found.get(one.image_id)) for one in shown)


def _examples(gathered: Gathered, variant: str, told: Answered, each: int) -> list[Example]:
    """So many of the best, of the median and of the worst, where the photos are on this machine and have places."""
    corpus = gathered.notes[variant].benchmarks[told.benchmark].corpus
    if not np.isfinite(told.errors_km).any() or not manifest.shards(gathered.project.corpus(corpus)):
        return []
    return examples(gathered.project, variant, corpus, told, each)


def _explained_of_each(gathered: Gathered, variant: str) -> int:
    """How many of the best, of the median and of the worst photos of a variant are explained."""
    asked, first = gathered.project.profile.report.explained, gathered.board.sections[0]
    ranked = [row.name for row in first.rows if not row.baseline]
    among = asked.variants is None or variant in ranked[: asked.variants]
    return asked.each if among and is_here(gathered.project, variant) else 0


def _maps(album: Album) -> Table:
    """How the maps of an album's photos did in their checks, for a format without pictures."""
    heads = (
        Column("photo"),
        Column("answer"),
        Column("map"),
        *(
            Column.of_numbers(f"{curve}, {whose}", ".3f")
            for curve in ("deletion", "insertion")
            for whose in ("map", "random orders")
        ),
        Column.of_numbers("likeness under a randomised head", "+.2f"),
        Column("can be relied on"),
    )
    rows = []
    for photo in album.photos:
        if (why := photo.why) is not None:
            check = why.check
            curves = ((check.deletion, check.chance.deletions), (check.insertion, check.chance.insertions))
            areas = [area for own, drawn in curves for area in (own.area, float(np.mean([one.area for one in drawn])))]
            trusted = "yes" if why.map.trusted else "no"
            rows.append(Row.of(photo.title, photo.said, why.map.title, *areas, check.likeness, trusted))
    return Table(heads, tuple(rows), f"Maps of photos of {album.benchmark}", "areas under the curves of their checks")


def _shown(one: Example, why: Why | None) -> Shown:
    return Shown(
        overlay.address(overlay.thumbnail(np.asarray(decode(one.photo)), THUMBNAIL)),
        one.image_id,
        f"{one.why}: {one.km:,.0f} km",
        world.pin(one.place, one.answer),
        world.spots(one.candidates),
        why,
    )


def _probable(gathered: Gathered, variant: str, shown: list[Example]) -> Iterator[Around]:
    """The cells around the places of some examples."""
    cells = gathered.cells(variant) if shown else None
    if cells is not None:
        for one in shown:
            title = f"Probabilities of cells around the true place, {one.why}: {one.image_id}"
            yield around.probabilities(title, *cells, one.classes, one.candidates[:, 2], one.place, one.answer)


def _clusters(gathered: Gathered, variant: str) -> Iterator[Around]:
    """The clusters of the region with the most of them, where the model has any and is on this machine."""
    folder = gathered.project.model(variant)
    found = clusters(folder, f"run `geoloc train {variant}`") if folder.is_dir() else None
    cells = gathered.cells(variant) if found else None
    if found and cells:
        space, shapes = of_classes(folder, *cells)
        yield around.clusters("Prototype clusters of a region", space, shapes, found)


def of_classes(folder: Path, space: LabelSpace, shapes: np.ndarray) -> tuple[LabelSpace, np.ndarray]:
    """The classes (K,) of a saved model, which are some of the cells, and their polygons.

    Raises:
        UserError: Its classes are missing, damaged, or others than the cells.
    """
    own = LabelSpace.load(folder / LABELS, f"run `geoloc train {folder.name}`")
    at = space.index(own.ids)
    if (at < 0).any():
        raise UserError(f"{folder / LABELS}: of other cells than there are now; run `geoloc train {folder.name}`")
    return own, shapes[at]
