"""What variants answer, on disk: a folder per variant, a table per benchmark, all that scoring reads."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from geoloc_core import parquet
from geoloc_core.contracts.facts import FACTS
from geoloc_core.contracts.geolocator import LABELS
from geoloc_core.contracts.prediction import OfTruth, Prediction
from geoloc_core.errors import UserError
from geoloc_core.files import read_json
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.params import VALIDATION
from geoloc_core.plugins import Strict

if TYPE_CHECKING:
    from geoloc_core.project import Project

__all__ = [
    "ANSWERS",
    "NOTE",
    "SCORED",
    "VALIDATION",
    "Note",
    "candidates",
    "column",
    "count",
    "note",
    "parts",
    "path",
    "prediction",
    "probabilities",
    "read",
    "space",
    "table",
]

NOTE = "answers.json"
ANSWERS = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("group_id", pa.string()),
        pa.field("true_latitude", pa.float64()),
        pa.field("true_longitude", pa.float64()),
        pa.field("true_class", pa.string()),
        pa.field("true_country", pa.string()),
        pa.field("true_subdivision", pa.string()),
        pa.field("latitude", pa.float64(), nullable=False),
        pa.field("longitude", pa.float64(), nullable=False),
        pa.field("classes", pa.list_(pa.string()), nullable=False),
        pa.field("probabilities", pa.list_(pa.float32()), nullable=False),
        pa.field("latitudes", pa.list_(pa.float64()), nullable=False),
        pa.field("longitudes", pa.list_(pa.float64()), nullable=False),
        pa.field("true_rank", pa.int32()),
        pa.field("true_probability", pa.float32()),
        pa.field("probability_before", pa.float32()),
        pa.field("true_log_density", pa.float64()),
        pa.field("radius_km", pa.float64()),
        pa.field("evidence", pa.list_(pa.struct([("id", pa.string()), ("weight", pa.float32())]))),
    ],
    metadata={"geoloc.schema": "answers", "geoloc.version": "3"},
)
"""One row per unit that was answered: its row in the manifest, what is true of it, the answer and the candidates.

``group_id`` names what a row is not independent of: its photographer or its panorama. ``true_rank`` counts from 0 among
all classes and is null where the model does not know the true class;
``probability_before`` is that of all classes that rank before the true one. ``true_log_density`` is null
where the model has no density, or the true place is not known.
"""


AUXILIARY = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        *(pa.field(name, pa.float64()) for fact in FACTS for name in (fact, f"true_{fact}")),
    ],
    metadata={"geoloc.schema": "auxiliary answers", "geoloc.version": "1"},
)
"""What is told of each unit beside the place, and what is true of it; null where it is not told or not known."""


class Note(Strict):
    """What is said of a variant's answers.

    Attributes:
        variant: Its name.
        family: Of the model.
        encoders: Image encoders that it looks at photos with: those that its network started from, those whose features
            it reads, and those that cut pieces.
        members: Variants whose answers it read.
        corpus: That it learned from.
        labels: Name of its label space.
        frequencies: How many training rows each class has, in the order of the label space.
        benchmarks: By name, the corpus and how many photos it was published with.
        demo: Whether the photos were rendered.
        trained_on: The corpora that it, its members and the encoders that were trained here have learned from.
        parameters: How many the model has; None where that was not noted.
    """

    variant: str
    family: str
    encoders: list[str]
    members: list[str]
    corpus: str
    labels: str
    frequencies: list[int]
    benchmarks: dict[str, "Asked"]
    demo: bool
    trained_on: list[str]
    parameters: int | None = None


class Asked(Strict):
    """A benchmark."""

    corpus: str
    published: int


def path(project: "Project", variant: str, benchmark: str) -> Path:
    """The table of a variant's answers to a benchmark."""
    return project.answers(variant) / f"{benchmark}.parquet"


def auxiliary_path(folder: Path, benchmark: str) -> Path:
    """The table of what a variant tells beside the places; there is none of a model that tells nothing."""
    return folder / f"{benchmark}.auxiliary.parquet"


def auxiliary_table(prediction: Prediction, rows: np.ndarray, known: dict[str, np.ndarray]) -> pa.Table:
    """What is told beside the places as rows of :data:`AUXILIARY`.

    Args:
        prediction: Of N units.
        rows: (N,) in the manifest.
        known: Facts (N,) by name, NaN where they are not known.
    """
    told = prediction.auxiliary
    columns = [pa.array(rows, pa.int64())]
    for fact in FACTS:
        for values in (told.get(fact), known.get(fact)):
            nothing = pa.nulls(len(rows), pa.float64())
            columns.append(nothing if values is None else pa.array(values, pa.float64(), from_pandas=True))
    return pa.table(columns, schema=AUXILIARY)


def auxiliary(project: "Project", variant: str, benchmark: str, columns: list[str]) -> pa.Table:
    """Columns of :data:`AUXILIARY`: what a variant tells of a benchmark beside the places.

    Raises:
        UserError: There is no table, as of a model that tells nothing, or it is damaged.
    """
    where = auxiliary_path(project.answers(variant), benchmark)
    found = parquet.read(where, _remedy(variant), columns)
    if found.schema.types != [AUXILIARY.field(name).type for name in columns]:
        raise UserError(f"{where}: not answers of this version; {_remedy(variant)}")
    return found


def _remedy(variant: str) -> str:
    return f"run `geoloc answer {variant}`"


def space(project: "Project", variant: str) -> LabelSpace:
    """The classes that a variant answers with.

    Raises:
        UserError: It has not answered yet, or the file is damaged.
    """
    return LabelSpace.load(project.answers(variant) / LABELS, _remedy(variant))


def note(project: "Project", variant: str) -> Note:
    """What is said of a variant's answers.

    Raises:
        UserError: It has not answered yet, or the file is damaged.
    """
    found: Note = read_json(project.answers(variant) / NOTE, _remedy(variant), Note)
    return found


def table(prediction: Prediction, classes: LabelSpace, rows: np.ndarray, known: dict[str, Any]) -> pa.Table:
    """Answers as rows of :data:`ANSWERS`.

    Args:
        prediction: Of N units, with what it thinks of the true classes.
        classes: The model's.
        rows: (N,) in the manifest.
        known: ``image_id`` and the columns ``true_…`` of the N rows that the truth gives.
    """
    n, k = prediction.classes.shape
    truth = prediction.truth
    assert truth is not None
    ids = pa.array(classes.ids, pa.string())
    unknown = truth.rank < 0
    evidence = prediction.evidence
    columns: dict[str, Any] = {
        "row": rows,
        **known,
        "latitude": prediction.latitude,
        "longitude": prediction.longitude,
        "classes": _lists(ids.take(pa.array(prediction.classes.ravel())), n, k),
        "probabilities": _lists(pa.array(prediction.probabilities.ravel().astype(np.float32)), n, k),
        "latitudes": _lists(pa.array(prediction.latitudes.ravel()), n, k),
        "longitudes": _lists(pa.array(prediction.longitudes.ravel()), n, k),
        "true_rank": pa.array(truth.rank, mask=unknown),
        "true_probability": pa.array(truth.probability, mask=unknown),
        "probability_before": pa.array(truth.before, mask=unknown),
        "true_log_density": pa.nulls(n, pa.float64())
        if prediction.log_density is None
        else pa.array(prediction.log_density, pa.float64(), from_pandas=True),
        "radius_km": pa.nulls(n, pa.float64()) if prediction.radius_km is None else prediction.radius_km,
        "evidence": pa.nulls(n, ANSWERS.field("evidence").type) if evidence is None else _evidence(evidence),
    }
    arrays = [_array(columns[field.name], field.type) for field in ANSWERS]
    return pa.table(arrays, schema=ANSWERS)


def _array(values: Any, kind: pa.DataType) -> Any:
    return values.cast(kind) if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, kind)


def _lists(values: pa.Array, n: int, k: int) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(np.arange(0, (n + 1) * k, k, dtype=np.int32)), values)


def _evidence(evidence: Any) -> pa.Array:
    n, count = evidence.ids.shape
    ids = pa.array(evidence.ids.ravel(), pa.string())
    weights = pa.array(evidence.weights.ravel().astype(np.float32))
    return _lists(pa.StructArray.from_arrays([ids, weights], ["id", "weight"]), n, count)


def read(project: "Project", variant: str, benchmark: str, classes: LabelSpace) -> tuple[np.ndarray, Prediction]:
    """The rows (N,) of a benchmark that a variant has answered, ascending, and its candidates.

    Raises:
        UserError: It has not answered the benchmark, or the table is damaged or of other classes.
    """
    found = _read(project, variant, benchmark, ["row", *_OF_PREDICTION])
    says = f"{path(project, variant, benchmark)}: {{}}; {_remedy(variant)}"
    return found["row"].to_numpy(), _candidates_of(found, classes, says)


def candidates(table: pa.Table, classes: LabelSpace, says: str) -> np.ndarray:
    """Classes (N, k) of the candidates of N answers.

    Args:
        table: With the column ``classes`` of :data:`ANSWERS`.
        classes: The model's.
        says: The message where they do not fit, with ``{}`` for what is wrong.

    Raises:
        UserError: Rows have different numbers of candidates, or one is no class of the model's.
    """
    ids = table["classes"].combine_chunks()
    k = len(ids[0]) if len(ids) else 1
    if not (ids.value_lengths().to_numpy() == k).all():
        raise UserError(says.format("not the same number of candidates in each row"))
    found = pc.index_in(ids.flatten(), value_set=pa.array(classes.ids, pa.string()))
    positions = found.fill_null(-1).to_numpy().astype(np.int64)
    if (positions < 0).any():
        raise UserError(says.format("not of the classes beside it"))
    return positions.reshape(-1, k)


_OF_PREDICTION = ["classes", "probabilities", "latitudes", "longitudes", "latitude", "longitude"]


def count(project: "Project", variant: str, benchmark: str) -> int:
    """How many rows of a benchmark a variant has answered.

    Raises:
        UserError: It has not answered the benchmark, or the table is damaged.
    """
    return parquet.count(_checked(project, variant, benchmark, []), _remedy(variant))


SCORED = [name for name in ANSWERS.names if name not in ("evidence", "radius_km")]
"""The columns of :data:`ANSWERS` that scoring reads."""


def parts(
    project: "Project", variant: str, benchmark: str, rows: int, columns: list[str] = SCORED
) -> Iterator[pa.Table]:
    """Columns of :data:`ANSWERS`, so many rows at a time.

    Raises:
        UserError: The variant has not answered the benchmark, or the table is damaged.
    """
    where = _checked(project, variant, benchmark, columns)
    for batch in parquet.batches(where, _remedy(variant), rows, columns):
        yield pa.table(batch).select(columns)


def column(project: "Project", variant: str, benchmark: str, name: str) -> pa.ChunkedArray:
    """One column of :data:`ANSWERS`.

    Raises:
        UserError: The variant has not answered the benchmark, or the table is damaged.
    """
    return _read(project, variant, benchmark, [name])[name]


def prediction(table: pa.Table, classes: LabelSpace, says: str) -> Prediction:
    """The answers of some rows, with what the model thinks of their true classes.

    Args:
        table: With the columns :data:`SCORED`.
        classes: The model's.
        says: The message where they do not fit, with ``{}`` for what is wrong.

    Raises:
        UserError: Rows have different numbers of candidates, or one is no class of the model's, or has no place.
    """
    rank, probability, before = (
        table[name].fill_null(fill).to_numpy()
        for name, fill in (("true_rank", -1), ("true_probability", 0.0), ("probability_before", 1.0))
    )
    density = table["true_log_density"].cast(pa.float64()).fill_null(np.nan).to_numpy()
    return replace(_candidates_of(table, classes, says), truth=OfTruth(rank, probability, before), log_density=density)


def probabilities(table: pa.Table) -> np.ndarray:
    """Probabilities (N, k) float32 of the candidates of N answers, all of as many."""
    found: np.ndarray = table["probabilities"].combine_chunks().flatten().to_numpy().reshape(len(table), -1)
    return found


def _candidates_of(table: pa.Table, classes: LabelSpace, says: str) -> Prediction:
    positions = candidates(table, classes, says)
    flat = {name: table[name].combine_chunks().flatten() for name in ("probabilities", "latitudes", "longitudes")}
    if any(len(values) != positions.size for values in flat.values()):
        raise UserError(says.format("candidates without a place"))
    shares, latitudes, longitudes = (values.to_numpy().reshape(positions.shape) for values in flat.values())
    answer = (table["latitude"].to_numpy(), table["longitude"].to_numpy())
    return Prediction(positions, shares, latitudes, longitudes, *answer)


def _read(project: "Project", variant: str, benchmark: str, columns: list[str]) -> pa.Table:
    return parquet.read(_checked(project, variant, benchmark, columns), _remedy(variant), columns)


def _checked(project: "Project", variant: str, benchmark: str, columns: list[str]) -> Path:
    """The table of answers, once it is sure that it has these columns."""
    where = path(project, variant, benchmark)
    if not where.is_file():
        raise UserError(f"{where}: no answers; {_remedy(variant)} first")
    kinds = {field.name: field.type for field in parquet.schema(where, _remedy(variant))}
    if any(kinds.get(name) != ANSWERS.field(name).type for name in columns):
        raise UserError(f"{where}: not answers of this version; {_remedy(variant)}")
    return where
