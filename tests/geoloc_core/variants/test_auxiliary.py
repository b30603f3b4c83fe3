"""What models tell beside the place, from the facts of a corpus to the scores."""

from types import SimpleNamespace

import numpy as np
import pytest

from geoloc_core.contracts.facts import CLASSES, FACTS, QUANTITIES
from geoloc_core.contracts.metrics import AUXILIARY, column, names
from geoloc_core.contracts.prediction import Prediction
from geoloc_core.corpora import facts as known_facts
from geoloc_core.errors import UserError
from geoloc_core.evaluation import auxiliary
from geoloc_core.evaluation.score import score
from geoloc_core.families import geocell_classifier
from geoloc_core.families.geocell_classifier import GeocellClassifier, Said
from geoloc_core.files import read_json
from geoloc_core.geo.facts import Source, Sources
from geoloc_core.project import Project
from geoloc_core.training.auxiliary import Tasks
from geoloc_core.variants import answers
from geoloc_core.variants.answer import answer
from tests.geoloc_core.geo.test_facts import raster
from tests.geoloc_core.made_answers import SPACES, profile, save_model

VARIANT = geocell_classifier.Options(
    kind="geocell_classifier", corpus="mp16", encoder="clip", labels="subdivision", tasks=Tasks()
)


@pytest.fixture
def told(project):
    """A project with the elevation of two places, and a model that says 100 m and class 0 of every photo."""
    raster(project.root / "rasters" / "e.tif", 40.0, elsewhere=150.0)
    sources = Sources(path="rasters", elevation=Source(file="e.tif"))
    corpora = {name: SimpleNamespace(role=role) for name, role in (("mp16", "train"), ("im2gps", "benchmark"))}
    made = Project(project.root, profile(variants={"told": VARIANT}, facts=sources, corpora=corpora))
    for corpus in corpora:
        known_facts.facts(made, corpus)
    width = Tasks().width
    tensors = {"cells.weight": np.eye(4), "cells.bias": np.zeros(4), "temperature": np.ones(1)}
    tensors |= {"tasks.weight": np.zeros((width, 4)), "tasks.bias": np.zeros(width)}
    tensors = {name: tensor.astype(np.float32) for name, tensor in tensors.items()}
    tensors |= {"scale.mean": np.array([np.log(508.0), 1, 1, 1, 1, 1]), "scale.std": np.ones(6)}
    said = Said(views="all", tasks=Tasks(), block=None, pool="mean")
    model = GeocellClassifier("clip", SPACES["subdivision"], said, tensors)
    save_model(made, "told", VARIANT, model, {"clip": "f00d"})
    return made


def test_what_is_told_is_scored_where_it_is_known(told):
    answer(told, "told")
    table = answers.auxiliary(told, "told", "im2gps", ["elevation", "true_elevation"])
    np.testing.assert_allclose(table["elevation"].to_numpy(), 100)
    true = table["true_elevation"].to_numpy()
    assert 0 < np.isnan(true).sum() < len(true), "one has no coordinates"
    score(told, "told")
    figures = read_json(told.scores("told") / "scores.json", "", dict)["benchmarks"]["im2gps"]
    assert figures["elevation_mae"] == pytest.approx(np.nanmean(np.abs(100 - true)))
    assert figures["climate_accuracy"] is None
    assert set(AUXILIARY) <= figures.keys()


def test_facts_of_another_manifest_are_refused(told):
    with pytest.raises(UserError, match=r"40 rows, the corpus has 41; run `geoloc facts mp16` again"):
        known_facts.read(told, "mp16", ["elevation"], 41)
    told.facts("im2gps").unlink()
    with pytest.raises(UserError, match=r"geoloc facts im2gps"):
        answer(told, "told")


def made(told, true):
    """A table of answers with the month told and true, and an elevation."""
    n = len(told)
    plain = Prediction(*(np.zeros((n, 1)) for _ in range(4)), *(np.zeros(n) for _ in range(2)))
    of = {"month": np.array(told, float), "elevation": np.arange(n) * 10.0}
    known = {"month": np.array(true, float), "elevation": np.where(np.arange(n) == 0, np.nan, 5.0)}
    return answers.auxiliary_table(plain.with_auxiliary(of), np.arange(n), known)


def test_seasons_are_those_of_three_months_and_unknown_rows_do_not_count():
    found = {
        name: sample.figure for name, sample in auxiliary.samples(made([12, 3, 6, 8, 1], [2, 5, 9, 8, np.nan]).select)
    }
    assert found["month_accuracy"] == 25
    assert found["season_accuracy"] == 75
    assert found["elevation_mae"] == pytest.approx(np.mean([5, 15, 25, 35]))
    assert np.isnan(found["population_mae"])
    np.testing.assert_array_equal(auxiliary.season(np.arange(1.0, 13)), [0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 0])


def test_every_fact_has_a_metric_that_is_printed_and_never_decides():
    assert set(AUXILIARY) == {*(f"{name}_mae" for name in QUANTITIES), *(f"{name}_accuracy" for name in CLASSES)} | {
        "season_accuracy"
    }
    assert set(FACTS) == {*QUANTITIES, *CLASSES}
    assert not set(AUXILIARY) & set(names((1,), (25,)))
    assert column("elevation_mae").phrase(141.7) == "elevation error 142 m"
    assert column("temperature_mean_mae").show(1.372) == "1.37"
    assert column("climate_accuracy").phrase(74.1) == "74.1 % with the right climate zone"
    assert column("population_mae").falling
    assert not column("season_accuracy").falling
