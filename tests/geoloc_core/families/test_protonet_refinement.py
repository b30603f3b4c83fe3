"""Refinement by prototypes, against a literal transcription and cases worked out by hand."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from geoloc_core.contracts.batch import Answered, Batch, Data, Run
from geoloc_core.contracts.geolocator import Card, Trained, load
from geoloc_core.contracts.needs import Answers, ImageFeatures, Model, Needs, Photos, Tokens
from geoloc_core.contracts.prediction import Prediction
from geoloc_core.errors import UserError
from geoloc_core.families import classifier, ensemble, fine_tuned, geocell_classifier
from geoloc_core.families import protonet_refinement as refinements
from geoloc_core.families.protonet_refinement import Options, Refinement, fit
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.geo.sphere import haversine_km

from .made_models import refinement

EARTH_KM = 6371.0


def space(latitudes, longitudes) -> LabelSpace:
    ids = [f"cell{n}" for n in range(len(latitudes))]
    return LabelSpace("geocell", ids, ids, [""] * len(ids), np.array(latitudes, float), np.array(longitudes, float))


@dataclass(frozen=True)
class Says:
    """A model of cells whose features are its probabilities, be they of photos or of places."""

    labelspace: LabelSpace

    def predict(self, batch, k=5, truth=None):
        rows = slice(None) if batch.starts is None else batch.starts[:-1]
        said = batch.images["said"][rows].astype(np.float32)
        found = Prediction.of_probabilities(said, self.labelspace, k, truth)
        return found if batch.starts is None else replace(found, auxiliary={"month": said[:, 0]})

    def save(self, folder):
        """It has nothing of its own."""


def options(**more) -> Options:
    given = {"kind": "protonet_refinement", "corpus": "c", "variant": "cells", "encoder": "seen", "labels": "cells"}
    return Options.model_validate(given | more)


def data(cells: LabelSpace, seen, targets, latitudes, longitudes, said=None, **more) -> Data:
    """All photos train; the last one is for validation too, which only calibrates."""
    seen, n = np.asarray(seen, np.float16), len(targets)
    said = np.full((n, len(cells)), 1 / len(cells), np.float16) if said is None else np.asarray(said, np.float16)
    card = Card(family="classifier", needs=Needs(inputs=(), labels="cells"), fingerprints={})
    return Data(
        images={"seen": seen, "said": said},
        texts={},
        answers={},
        space=cells,
        targets=np.asarray(targets),
        training=np.arange(n),
        validation=np.array([n - 1]),
        latitudes=np.asarray(latitudes, float),
        longitudes=np.asarray(longitudes, float),
        models={"cells": Trained(card, Says(cells))},
        ids=pa.chunked_array([pa.array([f"é{row}" for row in range(n)])]),
        **more,
    )


def fitted(known: Data, **more) -> Refinement:
    """Without calibration, so that the scores are as published."""
    model = fit(known, options(**more), Run(1, None, [], lambda metrics, step: None)).model
    return replace(model, calibration=1.0)


def ask(model: Refinement, seen, said, k=5, truth=None) -> Prediction:
    batch = Batch({"seen": np.atleast_2d(seen).astype(np.float16), "said": np.atleast_2d(said)})
    return model.predict(batch, k, truth)


def transcribed(gallery, places, e, p, candidates, temperature, max_km):
    """METHODS: per top-K cell the best prototype by −‖e − p‖; w = softmax(−dist / T); score = p(cell) · w; argmax; the
    nearest photo within the chosen cluster; kept as it was beyond the greatest move. Of one photo, in float64.
    """
    first = np.argsort(-p, kind="stable")
    top = first[:candidates]
    clusters, distances = [], []
    for cell in top:
        own = range(gallery.cells[cell], gallery.cells[cell + 1])
        apart = [np.sqrt(((e - gallery.prototypes[at].astype(np.float64)) ** 2).sum()) for at in own]
        clusters.append(own[int(np.argmin(apart))] if apart else None)
        distances.append(min(apart) if apart else None)
    farthest = max((d for d in distances if d is not None), default=None)
    if farthest is None:
        return first[0], places[first[0]], None, p[first]
    w = np.exp([-(farthest if d is None else d) / temperature for d in distances])
    w /= w.sum()
    scores = p[top] * w
    order = np.argsort(-scores, kind="stable")
    best = order[0]
    point, photo = places[top[best]], None
    if clusters[best] is not None:
        own = range(gallery.starts[clusters[best]], gallery.starts[clusters[best] + 1])
        features = [gallery.photos(at, at + 1)[0].astype(np.float64) for at in own]
        photo = own[int(np.argmin([((e - f) ** 2).sum() for f in features]))]
        point = gallery.latitudes[photo], gallery.longitudes[photo]
    a, b = (np.radians(values) for values in (places[first[0]], point))
    h = np.sin((b[0] - a[0]) / 2) ** 2 + np.cos(a[0]) * np.cos(b[0]) * np.sin((b[1] - a[1]) / 2) ** 2
    if 2 * EARTH_KM * np.arcsin(min(1, np.sqrt(h))) > max_km:
        return first[0], places[first[0]], None, p[first]
    shares = p[top].sum() * scores[order] / scores.sum()
    return top[best], point, photo, np.concatenate([shares, p[first[candidates:]]])


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    cells=st.integers(1, 8),
    candidates=st.integers(1, 10),
    max_km=st.sampled_from([0, 800, 100_000]),
)
def test_it_equals_the_literal_transcription(seed, cells, candidates, max_km):
    rng = np.random.default_rng(seed)
    n = 60
    known = space(rng.uniform(-89, 89, cells), rng.uniform(-180, 180, cells))
    targets = rng.integers(0, max(1, cells - 1), n)  # so that the last of several cells has no photo
    latitudes = np.clip(known.latitudes[targets] + rng.normal(0, 2, n), -90, 90)
    longitudes = (known.longitudes[targets] + rng.normal(0, 2, n) + 180) % 360 - 180
    seen = rng.normal(size=(n, 5)) + targets[:, None] / 2
    model = fitted(data(known, seen, targets, latitudes, longitudes), candidates=candidates, max_km=max_km)
    asked, said = rng.normal(size=(30, 5)).astype(np.float16), rng.dirichlet(np.ones(cells), 30).astype(np.float32)
    truth = rng.integers(-1, cells, 30)
    found = ask(model, asked, said, cells, truth)
    places = np.stack([known.latitudes, known.longitudes], axis=1)
    for row in range(30):
        cell, point, photo, shares = transcribed(
            model.gallery, places, asked[row].astype(np.float64), said[row].astype(np.float64), candidates, 1.6, max_km
        )
        assert found.classes[row, 0] == cell
        assert (found.latitude[row], found.longitude[row]) == tuple(point)
        assert (found.latitudes[row, 0], found.longitudes[row, 0]) == tuple(point)
        assert found.evidence.ids[row, 0] == ("" if photo is None else model.gallery.ids(np.array([photo]))[0])
        np.testing.assert_allclose(found.probabilities[row], shares, rtol=2e-5)
        assert sorted(found.classes[row]) == list(range(cells)), "every cell is named once"
        if truth[row] < 0:
            assert (found.truth.rank[row], found.truth.probability[row], found.truth.before[row]) == (-1, 0, 1)
        else:
            rank = found.classes[row].tolist().index(truth[row])
            assert found.truth.rank[row] == rank
            assert found.truth.probability[row] == pytest.approx(shares[rank], rel=2e-5)
            assert found.truth.before[row] == pytest.approx(shares[:rank].sum(), rel=2e-5, abs=1e-6)


# Two cells: in Kenya one photo far from all and two dense towns with three photos each, in Peru three photos.
TOWNS = space([0.0, -10.0], [37.0, -75.0])
LATITUDES = [1.1, 0.0, 0.001, 0.002, 2.0, 2.001, 2.002, -10.0, -10.001, -10.002]
LONGITUDES = [41.0, 37.0, 37.0, 37.0, 37.0, 37.0, 37.0, -75.0, -75.0, -75.0]
SEEN = [[99, 99], [0, 0], [0, 1], [0, 2], [8, 0], [8, 1], [8, 2], [20, 0], [20, 1], [20, 2]]


def towns(**more) -> Refinement:
    return fitted(data(TOWNS, SEEN, [0] * 7 + [1] * 3, LATITUDES, LONGITUDES), **more)


def test_a_prototype_is_the_mean_of_a_cluster_and_noise_is_none():
    known = data(TOWNS, SEEN, [0] * 7 + [1] * 3, LATITUDES, LONGITUDES)
    figures = fit(known, options(), Run(1, None, [], lambda metrics, step: None)).figures
    gallery = towns().gallery
    assert gallery.prototypes.tolist() == [[8, 1], [0, 1], [20, 1]]
    assert (gallery.cells.tolist(), gallery.starts.tolist()) == ([0, 2, 3], [0, 3, 6, 9])
    assert gallery.ids(np.arange(9)).tolist() == ["é4", "é5", "é6", "é1", "é2", "é3", "é7", "é8", "é9"]
    assert {name: figures[name] for name in ("prototypes", "photos", "noise", "cells_without_photos")} == {
        "prototypes": 3, "photos": 9, "noise": 1, "cells_without_photos": 0,
    }  # fmt: skip


def test_the_nearest_photo_of_the_nearest_cluster_is_the_answer_and_never_the_farthest():
    found = ask(towns(), [7.5, 1.8], [0.9, 0.1])
    assert (found.latitude[0], found.longitude[0]) == (2.002, 37.0), "the farthest of the cluster is at 2.0"
    assert (found.evidence.kind, found.evidence.ids.tolist()) == ("neighbour", [["é6"]])
    # distances √(0.5² + 0.8²) and √(12.5² + 0.8²), over 1.6
    near = np.exp(-np.hypot([0.5, 12.5], 0.8) / 1.6)
    assert found.evidence.weights[0, 0] == pytest.approx(near[0] / near.sum(), rel=1e-3)
    assert found.probabilities[0] == pytest.approx(np.array([0.9, 0.1]) * near / (near @ [0.9, 0.1]), rel=1e-3)


def test_looks_move_the_guess_to_another_cell_unless_that_is_too_far():
    looks = [20, 2]
    moved = ask(towns(max_km=100_000), looks, [0.9, 0.1], truth=np.array([1]))
    assert (moved.classes[0].tolist(), moved.latitude[0], moved.longitude[0]) == ([1, 0], -10.002, -75.0)
    assert (moved.truth.rank[0], moved.truth.before[0]) == (0, 0)
    kept = ask(towns(max_km=1000), looks, [0.9, 0.1], truth=np.array([1]))
    assert (kept.classes[0].tolist(), kept.latitude[0], kept.longitude[0]) == ([0, 1], 0.0, 37.0), "its own place"
    assert kept.probabilities[0] == pytest.approx([0.9, 0.1]), "and its own probabilities"
    assert (kept.truth.rank[0], kept.truth.before[0]) == (1, pytest.approx(0.9))
    assert (kept.evidence.ids.tolist(), kept.evidence.weights.tolist()) == ([[""]], [[0]])


def test_a_move_of_just_the_greatest_distance_is_made():
    far = float(haversine_km(0.0, 37.0, 2.002, 37.0))
    for limit, latitude in ((far, 2.002), (np.nextafter(far, 0), 0.0)):
        assert ask(towns(max_km=limit), [8, 2], [1.0, 0.0]).latitude[0] == latitude


def test_a_cell_without_photos_weighs_as_the_farthest_and_keeps_its_place():
    cells = space([0.0, -10.0, 1.0], [37.0, -75.0, 38.0])
    model = fitted(data(cells, SEEN, [0] * 7 + [1] * 3, LATITUDES, LONGITUDES), max_km=100_000)
    found = ask(model, [0, 1], [0.2, 0.1, 0.7], 3)
    near = np.exp(-np.array([0, 20, 20]) / 1.6)
    expected = np.array([0.2, 0.1, 0.7]) * near
    order = np.argsort(-expected)
    assert found.classes[0].tolist() == order.tolist() == [0, 2, 1]
    assert found.probabilities[0] == pytest.approx((expected / expected.sum())[order], rel=1e-4)
    assert (found.latitudes[0, 1], found.longitudes[0, 1]) == (1.0, 38.0)
    chosen = ask(fitted(data(cells, SEEN, [0] * 7 + [1] * 3, LATITUDES, LONGITUDES), temperature=1e3), [0, 1],
                 [0.2, 0.1, 0.7])  # fmt: skip
    assert (chosen.latitude[0], chosen.evidence.ids.tolist()) == (1.0, [[""]]), "there is no photo to name"


def test_where_no_candidate_has_photos_nothing_changes():
    cells = space([0.0, -10.0, 1.0], [37.0, -75.0, 38.0])
    model = fitted(data(cells, SEEN, [0] * 7 + [1] * 3, LATITUDES, LONGITUDES), candidates=1)
    found = ask(model, [0, 1], [0.2, 0.1, 0.7], 3)
    assert found.classes[0].tolist() == [2, 0, 1]
    assert found.probabilities[0] == pytest.approx([0.7, 0.2, 0.1])


def test_equal_scores_keep_the_order_of_the_cells_and_equal_photos_that_of_the_corpus():
    cells = space([5.0, 6.0], [7.0, 8.0])
    model = fitted(data(cells, [[1, 1]] * 4, [0, 0, 1, 1], [5, 5.1, 6, 6.1], [7, 7, 8, 8]))
    found = ask(model, [1, 1], [0.5, 0.5])
    assert (found.classes[0].tolist(), found.evidence.ids[0, 0]) == ([0, 1], "é0")
    assert found.probabilities[0].tolist() == [0.5, 0.5]


@pytest.mark.parametrize("where", ["antimeridian", "pole"])
def test_clusters_and_moves_go_across_the_antimeridian_and_the_poles(where):
    """Three photos within a kilometre are one cluster, and the move to them is short."""
    if where == "antimeridian":
        latitudes, longitudes, middle = [10.0, 10.001, 10.002], [179.999, -179.999, 180.0], (10.0, -179.9)
    else:
        latitudes, longitudes, middle = [89.999, 89.999, 89.999], [0.0, 120.0, -120.0], (89.9, 60.0)
    cells = space([middle[0]], [middle[1]])
    far = [middle[0] - 20] * 3
    known = data(
        cells, [[0, 0]] * 3 + [[9, 9]] * 3, [0] * 6, [*latitudes, far[0], far[1] + 0.001, far[2] + 0.002],
        [*longitudes, 0.0, 0.0, 0.0],
    )  # fmt: skip
    model = fitted(known, max_km=50)
    assert model.gallery.prototypes.tolist() == [[0, 0], [9, 9]]
    found = ask(model, [0, 0], [1.0])
    assert (found.latitude[0], found.longitude[0]) == (latitudes[0], longitudes[0])


def test_one_cell_and_more_candidates_than_cells():
    cells = space([0.0], [37.0])
    model = fitted(data(cells, SEEN[:7], [0] * 7, LATITUDES[:7], LONGITUDES[:7]), candidates=40)
    found = ask(model, [0, 2], [1.0], 3)
    assert (found.classes.tolist(), found.probabilities.tolist(), found.latitude.tolist()) == ([[0]], [[1.0]], [0.002])


def test_photos_without_coordinates_are_no_prototypes():
    model = fitted(data(TOWNS, SEEN, [0] * 7 + [1] * 3, [*LATITUDES[:9], np.nan], LONGITUDES))
    assert "é9" not in model.gallery.ids(np.arange(len(model.gallery)))
    assert np.isfinite(model.gallery.latitudes).all()


def test_the_views_of_a_place_count_as_their_mean():
    """Two views of each place; asked about a place, the mean of its views is compared."""
    places = np.repeat([f"p{n}" for n in range(6)], 2).astype(object)
    seen = np.repeat([[0, 0], [0, 1], [0, 2], [8, 0], [8, 1], [8, 2]], 2, axis=0) + np.tile([[3, 0], [-3, 0]], (6, 1))
    known = data(
        TOWNS, seen, [0] * 12, np.repeat(LATITUDES[1:7], 2), np.repeat(LONGITUDES[1:7], 2),
        places=places, headings=np.tile([0.0, 180.0], 6),
    )  # fmt: skip
    model = fitted(known)
    assert model.gallery.prototypes.tolist() == [[0, 1], [8, 1]]
    assert model.gallery.ids(np.arange(6)).tolist() == ["é0", "é2", "é4", "é6", "é8", "é10"]
    views, said = np.array([[5, 2], [11, 2], [0, 0]], np.float16), np.tile([1.0, 0.0], (3, 1))
    found = model.predict(Batch({"seen": views, "said": said}, starts=np.array([0, 2, 3])))
    assert found.latitude.tolist() == [2.002, 0.0]
    assert found.auxiliary["month"].tolist() == [1, 1], "what else the model of cells says stays said"


def test_calibration_changes_no_order_and_makes_overconfident_scores_modest():
    rng = np.random.default_rng(3)
    targets = rng.integers(0, 2, 400)
    seen = rng.normal(size=(400, 2)) * 4  # which says nothing, but pushes the scores apart
    latitudes, longitudes = TOWNS.latitudes[targets], TOWNS.longitudes[targets]
    known = data(TOWNS, seen, targets, latitudes + rng.normal(0, 1, 400), longitudes + rng.normal(0, 1, 400))
    known = replace(known, training=np.arange(200), validation=np.arange(200, 400))
    model = fit(known, options(temperature=0.2, max_km=1e5), Run(1, None, [], lambda metrics, step: None)).model
    assert model.calibration > 2
    plain = replace(model, calibration=1.0)
    asked, said = seen[200:], np.full((200, 2), 0.5, np.float32)
    one, other = ask(model, asked, said), ask(plain, asked, said)
    np.testing.assert_array_equal(one.classes, other.classes)
    assert (one.probabilities[:, 0] <= other.probabilities[:, 0]).all()
    assert one.probabilities.sum(axis=1) == pytest.approx(1)


@dataclass(frozen=True)
class Repeats(Says):
    """A model of cells that says what another variant answers."""

    def predict(self, batch, k=5, truth=None):
        return batch.answers["member"]


def test_only_photos_that_members_have_answered_are_validated_on():
    known = data(TOWNS, SEEN, [0] * 7 + [1] * 3, LATITUDES, LONGITUDES)
    rows = np.array([7, 8])  # of the three in Peru, and the member is right about both
    answers = Prediction.of_probabilities(np.array([[0.2, 0.8]] * 2, np.float32), TOWNS, 2)
    trained = replace(known.models["cells"], model=Repeats(TOWNS))
    known = replace(
        known,
        validation=np.arange(7, 10),
        answers={"member": Answered(TOWNS, rows, answers)},
        models={"cells": trained},
    )
    figures = fit(known, options(), Run(1, None, [], lambda metrics, step: None)).figures
    assert (figures["within_25km_before"], figures["within_25km_after"]) == (100, 100)


def test_of_too_many_validation_photos_every_so_many_are_looked_at_from_the_first_on(monkeypatch):
    monkeypatch.setattr(refinements, "VALIDATED", 2)
    looked = []

    class Noting(Says):
        def predict(self, batch, k=5, truth=None):
            looked.extend(batch.images["seen"][:, 0].tolist())
            return super().predict(batch, k, truth)

    seen = np.arange(10)[:, None] * [1, 2]
    known = data(TOWNS, seen, [0] * 7 + [1] * 3, LATITUDES, LONGITUDES)
    trained = replace(known.models["cells"], model=Noting(TOWNS))
    known = replace(known, validation=np.array([1, 4, 7, 9]), models={"cells": trained})
    fit(known, options(), Run(1, None, [], lambda metrics, step: None))
    assert set(looked) == {1, 7}


@pytest.mark.parametrize("rows", [[1, 2, 3], [7, 8, 9]])
def test_photos_of_any_cell_calibrate_the_first_one_too(rows):
    known = data(TOWNS, SEEN, [0] * 7 + [1] * 3, LATITUDES, LONGITUDES)
    figures = fit(
        replace(known, validation=np.array(rows)), options(), Run(1, None, [], lambda metrics, step: None)
    ).figures
    assert figures["temperature"] < 0.5, "it is always right, and may be surer"


def test_validation_photos_of_unknown_cells_do_not_calibrate():
    """Neither those of none, nor those of a class of the corpus that the model does not know."""
    rng = np.random.default_rng(4)
    targets = rng.integers(0, 2, 120)
    latitudes, longitudes = TOWNS.latitudes[targets], TOWNS.longitudes[targets]
    known = data(TOWNS, rng.normal(size=(120, 2)) + targets[:, None] / 2, targets, latitudes, longitudes)
    known = replace(known, training=np.arange(60), validation=np.arange(60, 90))

    def temperature(known):
        return fit(known, options(), Run(1, None, [], lambda metrics, step: None)).figures["temperature"]

    strange = replace(
        known,
        space=space([*TOWNS.latitudes, 50.0], [*TOWNS.longitudes, 50.0]),
        targets=np.where(np.arange(120) < 90, targets, np.where(np.arange(120) < 105, -1, 2)),
    )
    assert 0.1 < temperature(known) < 10
    assert temperature(replace(strange, validation=np.arange(60, 120))) == temperature(known)
    nowhere = replace(known, targets=np.where(np.arange(120) < 90, targets, -1))
    assert temperature(replace(nowhere, validation=np.arange(60, 120))) == temperature(known)
    assert temperature(replace(known, validation=np.arange(60, 120))) != temperature(known)


def test_figures_by_hand(monkeypatch):
    """Of four validation photos: right to a kilometre, 111 km off, moved there from another town, and nowhere."""
    cells = space([*TOWNS.latitudes, 60.0], [*TOWNS.longitudes, 60.0])
    seen, targets = [*SEEN, [0, 1], [8, 1], [8, 1], [0, 0]], [0] * 7 + [1] * 3 + [0] * 4
    latitudes, longitudes = [*LATITUDES, 0.005, 1.0, 2.003, np.nan], [*LONGITUDES, *[37.0] * 4]
    said = np.tile([0.7, 0.2, 0.1], (14, 1))
    known = data(cells, seen, targets, latitudes, longitudes, said)
    known = replace(known, training=np.arange(10), validation=np.arange(10, 14))
    whole = fit(known, options(), Run(1, None, [], lambda metrics, step: None))
    figures = whole.figures
    before, after = ([figures[f"within_{km}km_{when}"] for km in (1, 25, 200)] for when in ("before", "after"))
    assert before == [33.33, 33.33, 66.67], "0.6, 111 and 223 km from the middle of the cell"
    assert after == [66.67, 66.67, 100], "0.4, 111 and 0.2 km from the nearest photos"
    assert {name: figures[name] for name in ("prototypes", "photos", "noise", "cells_without_photos")} == {
        "prototypes": 3, "photos": 9, "noise": 1, "cells_without_photos": 1,
    }  # fmt: skip
    assert (figures["parameters"], figures["trainable_parameters"]) == (3 * 2, 0), "the prototypes"
    monkeypatch.setattr(refinements, "ROWS", 3)
    assert fit(known, options(), Run(1, None, [], lambda metrics, step: None)).figures == figures
    nobody = fit(replace(known, validation=np.arange(0)), options(), Run(1, None, [], lambda metrics, step: None))
    assert nobody.model.calibration == 1
    assert not any(name.startswith("within") for name in nobody.figures)


def test_it_is_the_same_each_time(tmp_path):
    rng = np.random.default_rng(1)
    n = 300
    known = data(TOWNS, rng.normal(size=(n, 4)), rng.integers(0, 2, n), rng.uniform(-5, 5, n), rng.uniform(0, 9, n))
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        fit(known, options(), Run(1, None, [], lambda metrics, step: None)).model.save(tmp_path / name)
    for path in sorted(path for path in (tmp_path / "one").glob("*") if path.is_file()):
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes(), path.name


def test_groups_larger_than_a_block_are_searched_to_the_end(monkeypatch):
    rng = np.random.default_rng(2)
    vectors, asked = rng.normal(size=(50, 4)).astype(np.float16), rng.normal(size=(20, 4)).astype(np.float32)
    monkeypatch.setattr(refinements, "BLOCK", 28)  # seven rows
    rows, groups, starts = np.arange(20), rng.integers(0, 3, 20), np.array([0, 30, 30, 50])
    found = refinements.nearest(asked, rows, groups, starts, lambda a, b: vectors[a:b])
    for row in range(20):
        own = np.arange(*starts[groups[row] : groups[row] + 2])
        apart = ((vectors[own].astype(np.float64) - asked[row]) ** 2).sum(axis=1)
        assert found[row] == (own[apart.argmin()] if len(own) else -1)


def test_of_equals_in_two_blocks_the_first_is_nearest(monkeypatch):
    vectors = np.array([[3, 0], [1, 0], [1, 0], [1, 0]], np.float16)
    monkeypatch.setattr(refinements, "BLOCK", 4)  # two rows
    first, asked = np.zeros(1, np.int64), np.ones((1, 2), np.float32)
    found = refinements.nearest(asked, first, first, np.array([0, 4]), lambda a, b: vectors[a:b])
    assert found.tolist() == [1]


def test_scores_and_what_is_saved_are_made_in_blocks(monkeypatch, tmp_path):
    rng, model = np.random.default_rng(5), refinement()
    features, cells = rng.normal(size=(20, 3)).astype(np.float32), np.stack([rng.permutation(6)[:3] for _ in range(20)])
    probabilities = rng.dirichlet(np.ones(3), 20)
    whole = model.model.score(features, cells, probabilities)
    monkeypatch.setattr(refinements, "BLOCK", 2 * 3 * 3)  # two units, or six photos
    for values, same in zip(model.model.score(features, cells, probabilities), whole, strict=True):
        np.testing.assert_allclose(values, same, rtol=1e-6)
    model.save(tmp_path)
    loaded = load(tmp_path).model.gallery
    assert len(loaded) == 25
    np.testing.assert_array_equal(loaded.photos(0, 25), model.model.gallery.photos(0, 25))
    assert loaded.ids(np.array([0, 24])).tolist() == ["photo 0", "photo 24"]


@pytest.mark.parametrize("name", ["cells", "starts", "ends"])
@pytest.mark.parametrize("wrong", ["first", "falling"])
def test_positions_that_cannot_be_are_refused(tmp_path, name, wrong):
    refinement().save(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    at, step = (0, 1) if wrong == "first" else (3, -tensors[name][3])
    tensors[name][at] += step  # all others ascend as before
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=f"{name}: expected ascending positions from 0"):
        load(tmp_path)


@pytest.mark.parametrize("key", ["variant", "encoder"])
def test_the_card_of_another_model_is_refused(tmp_path, key):
    refinement().save(tmp_path)
    card = json.loads((tmp_path / refinements.CARD).read_text())
    (tmp_path / refinements.CARD).write_text(json.dumps(card | {key: "other"}))
    with pytest.raises(UserError, match=r"refines .* expected .* by one of"):
        load(tmp_path)


def test_a_greatest_distance_below_zero_is_refused(tmp_path):
    refinement().save(tmp_path)
    card = json.loads((tmp_path / refinements.CARD).read_text())
    assert card["max_km"] > 0
    (tmp_path / refinements.CARD).write_text(json.dumps(card | {"max_km": -1}))
    with pytest.raises(UserError, match=r"max_km: .*greater than or equal to 0"):
        load(tmp_path)


CELLS = classifier.Options(kind="classifier", corpus="c", encoders=("said",), labels="cells")


@pytest.mark.parametrize(
    ("refined", "reads"),
    [
        (CELLS, (ImageFeatures(encoder="said"), ImageFeatures(encoder="seen"))),
        (CELLS.model_copy(update={"encoders": ("seen",)}), (ImageFeatures(encoder="seen"),)),
        (
            fine_tuned.Options(kind="fine_tuned", corpus="c", tower="vit", labels="cells"),
            (Photos(), ImageFeatures(encoder="seen")),
        ),
        (
            ensemble.Options(kind="ensemble", corpus="c", members=("a", "b"), labels="cells"),
            (Answers(variant="a"), Answers(variant="b"), ImageFeatures(encoder="seen")),
        ),
        (
            geocell_classifier.Options(
                kind="geocell_classifier", corpus="c", encoder={"last_block": "t"}, labels="cells",
                tasks={"facts": ["climate"]},
            ),
            (Tokens(encoder="t", weights=False), ImageFeatures(encoder="seen")),
        ),
        (
            geocell_classifier.Options(
                kind="geocell_classifier", corpus="c", encoder={"last_block": "t", "live": True}, labels="cells"
            ),
            (Photos(), ImageFeatures(encoder="seen")),
        ),
    ],
)  # fmt: skip
def test_it_reads_what_the_variant_under_it_answers_from(refined, reads):
    needs = options().over({"cells": refined}).needs()
    assert needs == Needs(inputs=(Model(variant="cells"), *reads), labels="cells", unit=refined.needs().unit)
    assert not needs.towers, "only a training reads weights"
    assert not needs.facts, "nor does it learn what the other has learned"
