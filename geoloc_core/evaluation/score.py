"""The stage ``geoloc score VARIANT``: the figures of its answers. No model runs, so a new metric costs seconds."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from geoloc_core.contracts.metrics import rounded
from geoloc_core.errors import UserError
from geoloc_core.evaluation import auxiliary, metrics, scoring
from geoloc_core.evaluation.scoring import Outcomes, Truth
from geoloc_core.files import check_folder, replacing_folder, write_json
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.progress import say
from geoloc_core.project import Project
from geoloc_core.variants import answers
from geoloc_core.variants.answers import Note

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SCORES = "scores.json"


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
    tables = {name: answers.truth(project, variant, name) for name in note.benchmarks}
    met = {name: _outcomes(table, space, answers.path(project, variant, name)) for name, table in tables.items()}
    report = _report(project, note, space, tables, met)
    with replacing_folder(project.scores(variant), "scores") as aside:
        aside.mkdir()
        write_json(aside / SCORES, report)
    figures = report["benchmarks"]
    write_json(project.summary("score", variant), {name: _summary(values) for name, values in figures.items()})
    _plot(project, variant, {name: part.errors_km[part.placed] for name, part in met.items()})
    for name, values in figures.items():
        say(f"score {variant}: {name}: {values['n']:,} of {values['published']:,} published rows")


def _truth(table: pa.Table) -> Truth:
    latitudes, longitudes = (table[name].to_numpy() for name in ("true_latitude", "true_longitude"))
    # by way of pandas, which has NaN for null, every unknown class would be a known one
    classes, countries = (np.array(table[name].to_pylist(), dtype=object) for name in ("true_class", "true_country"))
    return Truth(latitudes, longitudes, classes, countries)


def _outcomes(table: pa.Table, space: LabelSpace, path: Path) -> Outcomes:
    first = answers.candidates(table, space, f"{path}: {{}}; run `geoloc answer {path.parent.name}`")[:, 0]
    return scoring.outcomes(
        table["latitude"].to_numpy(),
        table["longitude"].to_numpy(),
        table["true_rank"].fill_null(-1).to_numpy(),
        np.array(space.countries, dtype=object)[first],
        _truth(table),
    )


def _report(
    project: Project, note: Note, space: LabelSpace, tables: dict[str, pa.Table], met: dict[str, Outcomes]
) -> dict[str, Any]:
    """All figures in full precision, the baseline's beside the model's."""
    frequencies = np.array(note.frequencies)
    first = scoring.most_frequent(space, frequencies, 1).classes[0, 0]
    return {
        "variant": note.variant,
        "family": note.family,
        "encoders": note.encoders or note.members,
        "corpus": note.corpus,
        "labels": note.labels,
        "classes": len(space),
        "majority": {"id": space.ids[first], "name": space.names[first]},
        "convention": str(metrics.DEFAULT),
        "demo": note.demo,
        "sha256": {name: sha256(table) for name, table in tables.items()},
        "benchmarks": {
            name: {"n": len(table), "published": note.benchmarks[name].published}
            | _figures(project, met[name], scoring.majority(space, frequencies, _truth(table)))
            | _told(project, note.variant, name)
            for name, table in tables.items()
        },
    }


def _figures(project: Project, met: Outcomes, blind: Outcomes) -> dict[str, float | None]:
    asked = project.profile.evaluation
    ours, theirs = (scoring.score(part, asked.top_k, asked.thresholds_km) for part in (met, blind))
    return ours | {f"majority_{name}": value for name, value in theirs.items() if name != "located"}


def _told(project: Project, variant: str, benchmark: str) -> dict[str, float | None]:
    """The figures of what a variant tells beside the places; none where it tells nothing."""
    table = answers.auxiliary(project, variant, benchmark)
    return {} if table is None else auxiliary.figures(table)


def sha256(table: pa.Table) -> str:
    """What scores stand on: the same photos at the same places, whatever the label space."""
    total = hashlib.sha256()
    for name in table["image_id"]:
        total.update(f"{name}\0".encode())
    for axis in ("true_latitude", "true_longitude"):
        total.update(table[axis].to_numpy().astype("<f8").tobytes())
    return total.hexdigest()


def _summary(figures: dict[str, float | None]) -> dict[str, float]:
    return {name: rounded(name, value) for name, value in figures.items() if value is not None}


def _curve(errors_km: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most a thousand points of the cumulative distribution: kilometres and percent."""
    n = len(errors_km)
    ranks = np.linspace(0, n - 1, min(n, 1000)).round().astype(np.int64)
    return np.maximum(np.sort(errors_km)[ranks], 0.1), 100 * (ranks + 1) / n


def _plot(project: Project, variant: str, errors_km: dict[str, np.ndarray]) -> None:
    from geoloc_core.plots import picture

    with picture(project.plot("score", variant)) as axes:
        for name, errors in errors_km.items():
            if len(errors):
                axes.plot(*_curve(errors), drawstyle="steps-post", label=f"{name} (n = {len(errors):,})")
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
