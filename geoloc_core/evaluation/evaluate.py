"""The stage ``geoloc evaluate``: a trained variant answers every benchmark, and the answers are scored."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from geoloc_core import parquet
from geoloc_core.corpora.manifest import count
from geoloc_core.errors import UserError
from geoloc_core.evaluation import baselines, benchmarks, metrics, scoring
from geoloc_core.evaluation.benchmarks import Benchmark
from geoloc_core.evaluation.scoring import Countries, Outcomes
from geoloc_core.files import check_folder, replacing_folder, write_json
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.models.geolocator import Geolocator
from geoloc_core.models.prediction import Prediction
from geoloc_core.progress import say, track
from geoloc_core.project import Project

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BATCH = 8192
"""Rows answered at a time."""

PREDICTIONS = pa.schema(
    [
        ("image_id", pa.string()),
        ("latitude", pa.float64()),
        ("longitude", pa.float64()),
        ("predicted_latitude", pa.float64()),
        ("predicted_longitude", pa.float64()),
        ("error_km", pa.float64()),
        ("truth", pa.string()),
        ("classes", pa.list_(pa.string())),
        ("probabilities", pa.list_(pa.float32())),
    ]
)
"""One row per scored photo: what is true, what was answered, and the k best classes."""


def evaluate(project: Project, variant: str) -> None:
    """Score a trained variant on the validation split of its corpus and on every benchmark.

    Raises:
        UserError: The variant, its model or an input is missing or does not fit.
    """
    from geoloc_core.models import geolocator

    corpus = project.profile.variant(variant).corpus
    check_folder(project.scores(variant), "scores")
    model = geolocator.load(project.model(variant))
    asked = {scoring.VALIDATION: corpus} | {name: name for name in project.profile.benchmarks}
    found = [benchmarks.read(project, name, source, model.labelspace) for name, source in asked.items()]
    inputs = {bench.name: _features(project, model, bench.corpus) for bench in found}
    found = [bench.without(_missing(project, model, bench.corpus)) for bench in found]
    train = benchmarks.train_classes(project, corpus, model.labelspace)
    with replacing_folder(project.scores(variant), "scores") as aside:
        (aside / "predictions").mkdir(parents=True)
        met = {b.name: answer_all(model, b, inputs[b.name], width(project, model), aside, variant) for b in found}
        report = _report(project, variant, model, found, met, train)
        write_json(aside / "scores.json", report)
    scores = report["benchmarks"]
    write_json(project.summary("evaluate", variant), {name: _summary(values) for name, values in scores.items()})
    _plot(project, variant, {name: part.errors_km for name, part in met.items()})
    for bench in found:
        say(f"evaluate {variant}: {bench.name}: {len(bench):,} of {bench.published:,} published rows scored")


def width(project: Project, model: Geolocator) -> int:
    """How many classes each photo is answered with."""
    return min(max([1, *project.profile.evaluation.top_k]), len(model.labelspace))


def _features(project: Project, model: Geolocator, corpus: str) -> dict[str, np.ndarray]:
    """Features (M, D) of a whole corpus by encoder, from the very encoders that the model was trained on."""
    from geoloc_core.encoders import store

    rows = count(project.truth(corpus))
    found = {}
    for encoder in model.encoders:
        folder = project.features(encoder, corpus)
        again = f"run geoloc encode {corpus} --encoder {encoder} and geoloc train again"
        found[encoder] = store.read(folder)
        if len(found[encoder]) != rows:
            raise UserError(f"{folder}: {len(found[encoder]):,} rows, the corpus has {rows:,}; {again}")
        if store.note(folder)["fingerprint"] != model.fingerprints[encoder]:
            raise UserError(f"{folder}: not made by the encoder that the model was trained on; {again}")
    return found


def _missing(project: Project, model: Geolocator, corpus: str) -> np.ndarray:
    """Rows of a corpus whose photo one of the model's encoders could not read."""
    from geoloc_core.encoders import store

    return store.missing(project.features(encoder, corpus) for encoder in model.encoders)


def answer_all(
    model: Geolocator, bench: Benchmark, features: dict[str, np.ndarray], k: int, folder: Path, variant: str
) -> Outcomes:
    """Answer a benchmark batch by batch, write the answers and return what became of every row.

    Args:
        model: The trained variant.
        bench: The N rows.
        features: Per encoder, features (M, D) of the whole corpus; may be memory-mapped.
        k: How many classes to answer with.
        folder: Gets ``predictions/<benchmark>.parquet``.
        variant: For the progress bar.
    """
    countries, ids, parts = Countries.of(model.labelspace), pa.array(model.labelspace.ids), []
    slices = [slice(start, start + BATCH) for start in range(0, len(bench), BATCH)]
    with parquet.writer(folder / "predictions" / f"{bench.name}.parquet", PREDICTIONS) as out:
        for where in track(slices, f"evaluate {variant}/{bench.name}", len(slices), "batches"):
            rows = bench.rows[where]
            answer = model.predict_features({name: values[rows] for name, values in features.items()}, k)
            parts.append(scoring.outcomes(answer, bench.truth.rows(where), countries))
            out.write_table(_table(bench, where, answer, parts[-1].errors_km, ids))
    return Outcomes.join(parts)


def _table(bench: Benchmark, where: slice, answer: Prediction, errors_km: np.ndarray, ids: pa.Array) -> pa.Table:
    n, k = answer.classes.shape
    offsets = pa.array(np.arange(0, (n + 1) * k, k, dtype=np.int32))
    columns = [
        bench.image_ids[where].combine_chunks(),
        bench.truth.latitudes[where],
        bench.truth.longitudes[where],
        answer.latitude,
        answer.longitude,
        errors_km,
        bench.units[where].combine_chunks(),
        pa.ListArray.from_arrays(offsets, ids.take(pa.array(answer.classes.ravel()))),
        pa.ListArray.from_arrays(offsets, pa.array(answer.probabilities.ravel().astype(np.float32))),
    ]
    return pa.table([pa.array(column) for column in columns], names=PREDICTIONS.names).cast(PREDICTIONS)


def _report(
    project: Project,
    variant: str,
    model: Geolocator,
    found: list[Benchmark],
    met: dict[str, Outcomes],
    train: np.ndarray,
) -> dict[str, Any]:
    """All figures in full precision, the baseline's beside the model's."""
    space, k = model.labelspace, width(project, model)
    always = baselines.most_frequent(space, train, k)
    return {
        "variant": variant,
        "family": _family(project, variant),
        "encoders": list(model.encoders),
        "corpus": project.profile.variant(variant).corpus,
        "labels": space.kind,
        "classes": len(space),
        "majority": {"id": space.ids[always.classes[0, 0]], "name": space.names[always.classes[0, 0]]},
        "convention": str(metrics.DEFAULT),
        "demo": project.profile.demo,
        "sha256": {b.name: b.sha256() for b in found},
        "benchmarks": {b.name: _figures(project, b, met[b.name], space, always, k) for b in found},
    }


def _figures(
    project: Project, bench: Benchmark, met: Outcomes, space: LabelSpace, always: Prediction, k: int
) -> dict[str, float]:
    asked = project.profile.evaluation
    blind = scoring.outcomes(baselines.repeated(always, len(bench)), bench.truth, Countries.of(space))
    ours, theirs = (scoring.score(part, k, asked.top_k, asked.thresholds_km) for part in (met, blind))
    majority = {f"majority_{name}": value for name, value in theirs.items()}
    return {"n": len(bench), "published": bench.published, **ours, **majority}


def _family(project: Project, variant: str) -> str:
    return next(family for family, names in project.profile.variants.items() if variant in names)


def _summary(figures: dict[str, float]) -> dict[str, float]:
    return {name: scoring.rounded(name, value) for name, value in figures.items()}


def _curve(errors_km: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most a thousand points of the cumulative distribution: kilometres and percent."""
    n = len(errors_km)
    ranks = np.linspace(0, n - 1, min(n, 1000)).round().astype(np.int64)
    return np.maximum(np.sort(errors_km)[ranks], 0.1), 100 * (ranks + 1) / n


def _plot(project: Project, variant: str, errors_km: dict[str, np.ndarray]) -> None:
    from geoloc_core.plots import picture

    with picture(project.plot("evaluate", variant)) as axes:
        for name, errors in errors_km.items():
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
    axes.legend(frameon=False, loc="upper left")
