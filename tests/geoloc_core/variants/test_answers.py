"""Answers read back are the answers that were written."""

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc_core import parquet
from geoloc_core.contracts.prediction import Evidence, OfTruth, Prediction
from geoloc_core.errors import UserError
from geoloc_core.files import CHECKSUMS
from geoloc_core.variants import answers
from geoloc_core.variants.answer import answer
from tests.geoloc_core.made_answers import SPACES, profile

SPACE = SPACES["subdivision"]


def made(n, k, seed=0, evidence=0, radius=False):
    """Answers of n units, k candidates each."""
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(len(SPACE)), n)
    pieces = np.array([f"c{i}" for i in range(evidence)] * n, dtype=object).reshape(n, evidence)
    found = Prediction.of_probabilities(
        probabilities, SPACE, k, rng.integers(-1, len(SPACE), n),
        Evidence("clue", pieces, rng.random((n, evidence))) if evidence else None,
    )  # fmt: skip
    return Prediction(**{**vars(found), "radius_km": rng.random(n) * 100 if radius else None})


def known(n):
    """What is true of n rows, some of it unknown."""
    return {
        "image_id": [f"p{i}" for i in range(n)],
        "group_id": [f"g{i // 2}" for i in range(n)],
        "true_latitude": [None if i % 3 else float(i) for i in range(n)],
        "true_longitude": [None if i % 3 else float(-i) for i in range(n)],
        "true_class": [None if i % 2 else SPACE.ids[i % 4] for i in range(n)],
        "true_country": [None if i % 4 == 3 else "FRA" for i in range(n)],
        "true_subdivision": [None if i % 2 else SPACE.ids[i % 4] for i in range(n)],
    }


def written(project, variant, prediction, rows):
    """Write answers as the stage does."""
    folder = project.answers(variant)
    folder.mkdir(parents=True, exist_ok=True)
    table = answers.table(prediction, SPACE, rows, known(len(rows)))
    with parquet.writer(folder / "validation.parquet", answers.ANSWERS) as out:
        out.write_table(table)
    SPACE.save(folder / "labels.json")
    return table


@settings(max_examples=25)
@given(st.integers(1, 30), st.integers(1, 6), st.integers(0, 3), st.booleans(), st.integers(0, 99))
def test_answers_written_are_answers_read(tmp_path_factory, n, k, evidence, radius, seed):
    from geoloc_core.project import Project

    project = Project(tmp_path_factory.mktemp("answers"), profile())
    rows = np.cumsum(np.random.default_rng(seed).integers(1, 5, n))
    told = made(n, k, seed, evidence, radius)
    table = written(project, "v", told, rows)
    at, found = answers.read(project, "v", "validation", answers.space(project, "v"))
    np.testing.assert_array_equal(at, rows)
    np.testing.assert_array_equal(found.classes, told.classes)
    np.testing.assert_array_equal(found.probabilities, told.probabilities.astype(np.float32))
    for name in ("latitudes", "longitudes", "latitude", "longitude"):
        np.testing.assert_array_equal(getattr(found, name), getattr(told, name))
    scored = pa.concat_tables(answers.parts(project, "v", "validation", 7))
    assert scored.equals(table.select(scored.column_names).replace_schema_metadata(scored.schema.metadata))
    assert isinstance(told.truth, OfTruth)
    thought = answers.prediction(scored, SPACE, "{}").truth
    np.testing.assert_array_equal(thought.rank, told.truth.rank)
    np.testing.assert_array_equal(thought.before, told.truth.before)
    assert answers.column(project, "v", "validation", "group_id").to_pylist() == known(n)["group_id"]
    assert scored["true_rank"].to_pylist() == [None if rank < 0 else rank for rank in told.truth.rank]
    assert table["radius_km"].null_count == (0 if radius else n)
    if evidence:
        assert [e["id"] for e in table["evidence"][0].as_py()] == told.evidence.ids[0].tolist()
    else:
        assert table["evidence"].null_count == n


@pytest.fixture
def answered(project):
    answer(project, "by_region")
    (project.answers("by_region") / CHECKSUMS).unlink()
    return project


def change(project, column, values):
    """Write other values into a column of the answers."""
    path = answers.path(project, "by_region", "validation")
    table = parquet.read(path, "", answers.ANSWERS.names)
    field = answers.ANSWERS.field(column)
    table = table.set_column(answers.ANSWERS.get_field_index(column), field, pa.array(values(table), field.type))
    parquet.write(table.replace_schema_metadata(answers.ANSWERS.metadata), path)


def ragged(table):
    return [values[: 1 + (row > 0)] for row, values in enumerate(table["classes"].to_pylist())]


def short(table):
    return [values[:1] for values in table["latitudes"].to_pylist()]


def strange(table):
    return [["XXX", *values[1:]] for values in table["classes"].to_pylist()]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda p: change(p, "classes", ragged), "not the same number of candidates in each row"),
        (lambda p: change(p, "classes", strange), "not of the classes beside it"),
        (lambda p: change(p, "latitudes", short), "candidates without a place"),
        (lambda p: answers.path(p, "by_region", "validation").unlink(), "no answers"),
        (lambda p: answers.path(p, "by_region", "validation").write_bytes(b"PAR1"), "damaged"),
        (
            lambda p: parquet.write(pa.table({"row": [1]}), answers.path(p, "by_region", "validation")),
            "not answers of this",
        ),
    ],
    ids=["ragged", "strange", "short", "gone", "cut off", "other"],
)
def test_damaged_answers_are_one_line_that_says_what_to_run(answered, spoil, says):
    spoil(answered)
    with pytest.raises(UserError, match=says) as said:
        answers.read(answered, "by_region", "validation", SPACE)
    assert "\n" not in str(said.value)
    assert "validation.parquet" in str(said.value)
    assert "run `geoloc answer by_region`" in str(said.value)


@pytest.mark.parametrize("name", ["answers.json", "labels.json"])
@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: path.write_text("{"),
                                   lambda path: path.write_text(json.dumps({"kind": 3}))])  # fmt: skip
def test_what_stands_beside_the_answers_is_read_with_the_same_care(answered, name, spoil):
    spoil(answered.answers("by_region") / name)
    ask = answers.note if name == "answers.json" else answers.space
    with pytest.raises(UserError, match=r"run `geoloc answer by_region`") as said:
        ask(answered, "by_region")
    assert name in str(said.value)
    assert "\n" not in str(said.value)
