"""The stage ``geoloc score VARIANT``: the figures of its answers. No model runs, so a new metric costs seconds."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from geoloc_core import parquet
from geoloc_core.contracts.metrics import column, rounded
from geoloc_core.corpora import leaked
from geoloc_core.errors import UserError
from geoloc_core.evaluation import auxiliary, bootstrap, conformal, metrics, scoring
from geoloc_core.evaluation.bootstrap import Groups, Sample
from geoloc_core.evaluation.details import Restated, conventions, details
from geoloc_core.evaluation.scoring import Places, Told, Truth
from geoloc_core.files import check_folder, replacing_folder, write_json
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.progress import say
from geoloc_core.project import Project
from geoloc_core.sets import Split, set_name
from geoloc_core.variants import answers
from geoloc_core.variants.answers import Note

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SCORES = "scores.json"
DETAILS = "details.json"
RESTATED = "conventions.json"
DRAWS = "draws"
"""Folder of the bootstrap's draws, a table per benchmark: what two variants are compared by."""
ROWS = 2**14
"""Answers that are read at a time: what is kept of each row is a few numbers."""


@dataclass(frozen=True)
class Scored:
    """One benchmark, as far as a variant has answered it.

    Attributes:
        name: Of the benchmark.
        told: What became of its N rows.
        blind: What always answering the most frequent classes would come to.
        groups: What belongs together.
        learned: (N,) whether what is promised of others is learned from a row: from half of validation.
        sha256: Of the photos and their places.
    """

    name: str
    told: Told
    blind: Told
    groups: Groups
    learned: np.ndarray
    sha256: str

    def __len__(self) -> int:
        return len(self.learned)


def score(project: Project, variant: str) -> None:
    """Score the answers of a variant to everything it was asked.

    Raises:
        UserError: The variant has not answered, or its answers are damaged.
    """
    check_folder(project.scores(variant), "scores")
    note, space = answers.note(project, variant), answers.space(project, variant)
    if len(note.frequencies) != len(space):
        raise UserError(
            f"{project.answers(variant)}: {len(note.frequencies)} frequencies for {len(space)} classes; "
            f"run `geoloc answer {variant}`"
        )
    report = _head(note, space)
    found: dict[str, dict[str, Any]] = {}
    restated: dict[str, Restated] = {}
    curves, promise = {}, None
    with replacing_folder(project.scores(variant), "scores") as aside:
        (aside / DRAWS).mkdir(parents=True)
        for name in note.benchmarks:  # validation comes first: what is promised of the others is learned from it
            part = read(project, note, space, name)
            if name == Split.VALIDATION:
                learned = np.flatnonzero(part.learned)
                promise = conformal.learn(_rows(part.told, learned), part.groups.take(learned))
            figures, draws = _figures(project, part, note)
            _write_draws(aside / DRAWS / f"{name}.parquet", draws)
            for key, value in figures.items():
                report[key][name] = value
            report["sha256"][name] = part.sha256
            report["clean"][name] = _clean(project, note, part)
            found[name] = _details(project, part, note, promise)
            restated[name] = _restated(project, part)
            curves[name] = _curve(part.told.outcomes.errors_km[part.told.outcomes.placed])
            del part  # before the next one is read
        write_json(aside / SCORES, report)
        write_json(aside / DETAILS, found)
        write_json(aside / RESTATED, restated)
    figures = report["benchmarks"]
    write_json(project.summary("score", variant), {name: _summary(values) for name, values in figures.items()})
    _plot(project, variant, curves, {name: values["located"] for name, values in figures.items()})
    for name, values in figures.items():
        say(f"score {variant}: {name}: {values['n']:,} of {values['published']:,} published rows")


def _head(note: Note, space: LabelSpace) -> dict[str, Any]:
    first = scoring.most_frequent(space, np.array(note.frequencies), 1).classes[0, 0]
    return {
        "variant": note.variant,
        "family": note.family,
        "encoders": note.encoders or note.members,
        "corpus": note.corpus,
        "labels": note.labels,
        "classes": len(space),
        "parameters": note.parameters,
        "majority": {"id": space.ids[first], "name": space.names[first]},
        "convention": str(metrics.DEFAULT),
        "demo": note.demo,
        **{part: {} for part in ("sha256", "benchmarks", "groups", "intervals", "over_majority", "clean")},
    }


def read(project: Project, note: Note, space: LabelSpace, name: str) -> Scored:
    """What became of the rows of a benchmark, read some at a time.

    Raises:
        UserError: The answers are damaged or of other classes.
    """
    path = answers.path(project, note.variant, name)
    says = f"{path}: {{}}; run `geoloc answer {note.variant}`"
    columns = partial(_columns, project, note.variant, name)
    frequencies = np.array(note.frequencies)
    true = {country for part in columns("true_country") for country in pc.unique(part).to_pylist()}
    places = Places.of(space, [country for country in true if country is not None])
    asked = project.profile.evaluation.thresholds_km
    count = answers.count(project, note.variant, name)
    met, blind = scoring.Gathered(count), scoring.Gathered(count)
    for table in answers.parts(project, note.variant, name, ROWS):
        known = _truth(table)
        prediction = answers.prediction(table, space, says)
        most = scoring.majority(space, frequencies, known, prediction.classes.shape[1])
        met.add(scoring.outcomes(prediction, places, known, asked))
        blind.add(scoring.outcomes(most, places, known, ()))  # of its candidates, no distance is reported
    if not len(met):
        raise UserError(says.format("no answers"))
    told, most_frequent = (Told(gathered.whole(), places) for gathered in (met, blind))
    ids = pa.chunked_array([part.dictionary_encode() for column in columns("group_id") for part in column.chunks])
    learned = conformal.half(ids) if name == Split.VALIDATION else np.zeros(len(ids), bool)
    return Scored(name, told, most_frequent, Groups.of_ids(ids), learned, _sha256(columns))


def _columns(project: Project, variant: str, benchmark: str, name: str) -> Iterator[pa.ChunkedArray]:
    """One column of a variant's answers, some rows at a time."""
    for table in answers.parts(project, variant, benchmark, ROWS, [name]):
        yield table[name]


def _truth(table: pa.Table) -> Truth:
    latitudes, longitudes = (table[name].to_numpy() for name in ("true_latitude", "true_longitude"))
    # by way of pandas, which has NaN for null, every unknown class would be a known one
    classes, countries, subdivisions = (
        np.array(table[f"true_{name}"].to_pylist(), dtype=object) for name in ("class", "country", "subdivision")
    )
    return Truth(latitudes, longitudes, classes, countries, subdivisions)


def _rows(told: Told, rows: np.ndarray) -> Told:
    return Told(told.outcomes.take(rows), told.places, told.convention)


def _samples(project: Project, told: Told) -> Iterator[tuple[str, Sample]]:
    asked = project.profile.evaluation
    return scoring.samples(told, asked.top_k, asked.thresholds_km)


def _beside(project: Project, variant: str, name: str) -> Iterator[tuple[str, Sample]]:
    """What is measured of all that a model tells beside the place, which may be nothing."""
    if answers.auxiliary_path(project.answers(variant), name).is_file():
        yield from auxiliary.samples(partial(answers.auxiliary, project, variant, name))


def _figures(project: Project, part: Scored, note: Note) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """All figures in full precision, the baseline's beside the model's, how sure they are, and the draws of each.

    The values of one metric are held at a time, and the baseline's of the same.
    """
    asked = project.profile.evaluation
    counts = {
        "n": len(part),
        "published": note.benchmarks[part.name].published,
        "located": int(part.told.outcomes.placed.sum()),
    }
    baseline = {found.name: found for found in scoring.columns(part.blind, asked.top_k, asked.thresholds_km)}
    values: dict[str, float | None] = {}
    blind: dict[str, float | None] = {}
    draws: dict[str, np.ndarray] = {}
    intervals: dict[str, dict[str, float | None] | None] = {}
    gains: dict[str, dict[str, Any] | None] = {}
    for name, sample in chain(_samples(project, part.told), _beside(project, note.variant, part.name)):
        values[name], intervals[name], gains[name] = scoring.figure(sample), None, None
        theirs = bootstrap.sample(baseline[name], part.blind) if name in baseline else None
        if theirs is not None:
            blind[f"majority_{name}"] = scoring.figure(theirs)
        if not sample.told.any():
            continue
        draws[name] = sample.draws(part.groups)
        ends = scoring.interval(name, sample, part.groups, draws[name])
        if ends:
            intervals[name] = {"low": ends[0], "high": ends[1], "widening": sample.widening(part.groups)}
        if theirs is not None:
            gains[name] = _gain(name, sample, theirs, draws[name], part.groups)
    figures = {
        "benchmarks": counts | values | blind,
        "groups": {"count": part.groups.count, "largest": part.groups.largest()},
        "intervals": intervals,
        "over_majority": gains,
    }
    return figures, draws


def _gain(name: str, ours: Sample, theirs: Sample, draws: np.ndarray, groups: Groups) -> dict[str, Any] | None:
    """How much better than the baseline, on the same rows: positive is better, whichever way the metric goes."""
    found = column(name)
    if found is None or np.isnan(theirs.figure):
        return None
    sign = found.improvement(1.0)
    apart = bootstrap.difference(
        sign * draws, sign * theirs.draws(groups), sign * (ours.figure - theirs.figure), groups.effective(ours.told)[0]
    )
    return vars(apart)


def _write_draws(path: Path, draws: dict[str, np.ndarray]) -> None:
    parquet.write(pa.table({name: pa.array(values.astype(np.float32)) for name, values in draws.items()}), path)


def read_draws(project: Project, variant: str, benchmark: str, metric: str) -> np.ndarray:
    """The bootstrap's draws (DRAWS,) of a figure; those of variants on the same rows are of the same rows.

    Raises:
        UserError: They are missing or damaged.
    """
    path = project.scores(variant) / DRAWS / f"{benchmark}.parquet"
    found: np.ndarray = parquet.read(path, f"run `geoloc score {variant}`", [metric])[metric].to_numpy()
    return found.astype(np.float64)


def _clean(project: Project, note: Note, part: Scored) -> dict[str, Any] | None:
    """The figures of the rows that share nothing with what the model has learned from; None where nobody has looked."""
    corpus = note.benchmarks[part.name].corpus
    scored = corpus if part.name == corpus else set_name(corpus, part.name)
    shared = leaked.read(project, scored, note.trained_on)
    if shared is None:
        return None
    known = pa.array(shared, pa.string())
    ids = _columns(project, note.variant, part.name, "image_id")
    kept = np.flatnonzero(np.concatenate([~pc.is_in(some, value_set=known).to_numpy() for some in ids]))
    if len(kept) == len(part):
        return {"n": len(kept), "leaked": 0, "figures": {}, "intervals": {}}
    told, groups = _rows(part.told, kept), part.groups.take(kept)
    figures: dict[str, float | None] = {}
    intervals: dict[str, list[float] | None] = {}
    for name, sample in _samples(project, told):
        ends = scoring.interval(name, sample, groups) if sample.told.any() else None
        figures[name], intervals[name] = scoring.figure(sample), list(ends) if ends else None
    return {"n": len(kept), "leaked": len(part) - len(kept), "figures": figures, "intervals": intervals}


def _details(project: Project, part: Scored, note: Note, promise: conformal.Promise | None) -> dict[str, Any]:
    asked = project.profile.evaluation
    found = details(part.told, part.groups, asked.top_k, asked.thresholds_km)
    sets: dict[str, conformal.Covered] = {}
    rest = np.flatnonzero(~part.learned)
    if promise is not None and len(rest):
        shares = answers.parts(project, note.variant, part.name, ROWS, ["probabilities"])
        sizes = np.concatenate([conformal.sizes(promise, answers.probabilities(table)) for table in shares])
        sets = conformal.covered(promise, _rows(part.told, rest), part.groups.take(rest), sizes[rest])
    return {**dict(found), "promised": 100 * conformal.COVERAGE, "sets": sets}


def _restated(project: Project, part: Scored) -> Restated:
    asked = project.profile.evaluation.thresholds_km
    tables = {"ours": part.told, "majority": part.blind}
    return Restated(**{name: conventions(told, part.groups, asked) for name, told in tables.items()})


def _sha256(columns: Callable[[str], Iterable[pa.ChunkedArray]]) -> str:
    """What scores stand on: the same photos at the same places, whatever the label space."""
    total = hashlib.sha256()
    for ids in columns("image_id"):
        total.update("".join(f"{name}\0" for name in ids.to_pylist()).encode())
    for axis in ("true_latitude", "true_longitude"):
        for values in columns(axis):
            total.update(values.to_numpy().astype("<f8").tobytes())
    return total.hexdigest()


def _summary(figures: dict[str, float | None]) -> dict[str, float]:
    return {name: rounded(name, value) for name, value in figures.items() if value is not None}


def _curve(errors_km: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most a thousand points of the cumulative distribution: kilometres and percent."""
    n = len(errors_km)
    ranks = np.linspace(0, n - 1, min(n, 1000)).round().astype(np.int64)
    return np.maximum(np.sort(errors_km)[ranks], 0.1), 100 * (ranks + 1) / n


def _plot(
    project: Project, variant: str, curves: dict[str, tuple[np.ndarray, np.ndarray]], counts: dict[str, int]
) -> None:
    from geoloc_core.plots import picture

    with picture(project.plot("score", variant)) as axes:
        for name, curve in curves.items():
            if counts[name]:
                axes.plot(*curve, drawstyle="steps-post", label=f"{name} (n = {counts[name]:,})")
        _dress(axes, project.profile.evaluation.thresholds_km)
        shown = "rendered photos, no result on real ones" if project.profile.demo else "photos within a distance"
        axes.set(title=f"{variant}: {shown}")


def _dress(axes: "Axes", thresholds_km: tuple[float, ...]) -> None:
    axes.set(
        xscale="log",
        xlim=(min([1.0, *thresholds_km]), 20040),
        ylim=(0, 100),
        xlabel="error, km",
        ylabel="photos within, %",
    )
    axes.set_xticks(list(thresholds_km), [f"{km:,g}" for km in thresholds_km])
    axes.minorticks_off()
    if axes.lines:
        axes.legend(frameon=False, loc="upper left")
