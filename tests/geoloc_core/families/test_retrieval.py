"""Retrieval behind cells: each step against a literal transcription in float64, and cases worked out by hand."""

import json
import math
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.numpy import load_file, save_file

from geoloc_core.contracts.batch import Batch, Data, Run
from geoloc_core.contracts.geolocator import Card, Trained, load
from geoloc_core.contracts.groups import hashed
from geoloc_core.contracts.layers import Names
from geoloc_core.contracts.needs import Needs
from geoloc_core.contracts.prediction import Prediction
from geoloc_core.errors import UserError
from geoloc_core.families.retrieval import Options, Retrieval, bands, fit, learning, on_device, ranking
from geoloc_core.families.retrieval import gallery as galleries
from geoloc_core.families.retrieval.comparison import Comparison, Head, Whitening
from geoloc_core.families.retrieval.gallery import Found, Gallery, rounded, search
from geoloc_core.families.retrieval.learning import usual
from geoloc_core.families.retrieval.model import mean_place
from geoloc_core.families.retrieval.options import CSLS, Settings
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.geo.sphere import chord, haversine_km, unit_vectors

from . import made_models

PLAIN = {"readout": None, "bands": None, "whitening": None, "csls": None, "rerank": None, "precision": "float32"}
"""Neighbours behind a gate, and nothing else."""


def space(latitudes, longitudes) -> LabelSpace:
    ids = [f"cell{n}" for n in range(len(latitudes))]
    return LabelSpace("geocell", ids, ids, [""] * len(ids), np.array(latitudes, float), np.array(longitudes, float))


@dataclass(frozen=True)
class Says:
    """A model of cells whose features are its probabilities, be they of photos or of places."""

    labelspace: LabelSpace

    def predict(self, batch, k=5, truth=None):
        rows = slice(None) if batch.starts is None else batch.starts[:-1]
        return Prediction.of_probabilities(batch.images["said"][rows].astype(np.float32), self.labelspace, k, truth)

    def save(self, folder):
        """It has nothing of its own."""


def options(**more) -> Options:
    given = {"kind": "retrieval", "corpus": "c", "variant": "cells", "encoder": "seen", "labels": "cells"}
    steps = {"readout": None} if more.get("neighbours", ...) is None else PLAIN
    return Options.model_validate(given | steps | more)


def under(cells: LabelSpace) -> Trained:
    return Trained(Card(family="classifier", needs=Needs(inputs=(), labels="cells"), fingerprints={}), Says(cells))


def data(cells, seen, targets, latitudes, longitudes, said=None, held_out=1, **more) -> Data:
    """All photos train but the last ones, which are for validation."""
    seen, n = np.asarray(seen, np.float16), len(targets)
    said = np.full((n, len(cells)), 1 / len(cells), np.float16) if said is None else np.asarray(said, np.float16)
    return Data(
        images={"seen": seen, "said": said},
        texts={},
        answers={},
        space=cells,
        targets=np.asarray(targets),
        training=np.arange(n - held_out),
        validation=np.arange(n - held_out, n),
        latitudes=np.asarray(latitudes, float),
        longitudes=np.asarray(longitudes, float),
        models={"cells": under(cells)},
        ids=pa.chunked_array([pa.array([f"é{row}" for row in range(n)])]),
        **{"groups": np.arange(1, n + 1), **more},
    )


def fitted(known: Data, folder, **more):
    return fit(known, options(**more), Run(1, folder / "checkpoint.pt", [], lambda metrics, step: None))


def model_of(known: Data, folder, **more) -> Retrieval:
    """Without calibration, so that probabilities are those of the scores over 0.05."""
    return replace(fitted(known, folder, **more).model, calibration=1.0)


def ask(model: Retrieval, seen, said, k=5, truth=None, groups=None) -> Prediction:
    batch = Batch({"seen": np.atleast_2d(seen).astype(np.float16), "said": np.atleast_2d(said)}, groups=groups)
    return model.predict(batch, k, truth)


def normalised(vector):
    return vector / max(np.sqrt((vector**2).sum()), 1e-12)


def transcribed(model: Retrieval, cells: LabelSpace, feature, said, own, mass, most):
    """One photo, loop by loop: the cells in order with their shares, the photo and the place of the answer."""
    gallery, prior = model.gallery, model.settings.prior
    order = sorted(range(len(said)), key=lambda cell: (-said[cell], cell))
    held, gate = 0.0, []
    for cell in order[:most]:
        if held >= mass:
            break
        gate.append(cell)
        held += said[cell]
    scores, photos = {}, {}
    for cell in gate:
        for at in range(gallery.cells[cell], gallery.cells[cell + 1]):
            if own and gallery.groups[at] == own:
                continue
            vector = gallery.vectors[at].astype(np.float64) * gallery.scale[at]
            score = model.settings.gain * float(normalised(feature) @ vector) + gallery.bias[at]
            score += prior * np.log(max(said[cell], 1e-30))
            if cell not in scores or score > scores[cell] + 1e-9:
                scores[cell], photos[cell] = score, at
    least = min(scores.values(), default=0.0)
    logits = np.array([scores.get(cell, least) / 0.05 for cell in gate])
    shares = np.exp(logits - logits.max())
    shares *= held / shares.sum()
    first = min(scores, key=lambda cell: (-scores[cell], photos[cell]), default=None)
    ranked = sorted(range(len(gate)), key=lambda at: (-logits[at], gate[at] != first))
    rest = [cell for cell in order if cell not in gate]
    classes = [gate[at] for at in ranked] + rest
    best = photos.get(gate[ranked[0]])
    place = (cells.latitudes[order[0]], cells.longitudes[order[0]])
    if best is not None:
        place = gallery.latitudes[best], gallery.longitudes[best]
    return classes, np.concatenate([shares[ranked], np.array([said[cell] for cell in rest])]), best, place


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 7),
    mass=st.sampled_from([0.3, 0.8, 1.0]),
    most=st.sampled_from([1, 3, 50]),
    csls=st.booleans(),
)
def test_it_equals_the_literal_transcription(seed, count, mass, most, csls, tmp_path_factory):
    rng, n = np.random.default_rng(seed), 60
    cells = space(rng.uniform(-89, 89, count), rng.uniform(-180, 180, count))
    targets = rng.integers(0, max(1, count - 1), n)  # so that the last of several cells has no photo
    groups = hashed(pa.array([f"author {number}" for number in rng.integers(0, 5, n)]))
    known = data(cells, rng.normal(size=(n, 6)), targets, rng.uniform(-90, 90, n), rng.uniform(-180, 180, n),
                 groups=groups)  # fmt: skip
    more = {"gate": {"mass": mass, "most": most}, "csls": {"neighbours": 3, "sample": 20} if csls else None}
    model = model_of(known, tmp_path_factory.mktemp("made"), **more)
    asked, said = rng.normal(size=(20, 6)).astype(np.float16), rng.dirichlet(np.ones(count), 20).astype(np.float32)
    truth, own = rng.integers(-1, count, 20), np.where(rng.random(20) < 0.5, groups[rng.integers(0, n, 20)], 0)
    found = ask(model, asked, said, count, truth, own)
    for row in range(20):
        classes, shares, best, place = transcribed(
            model, cells, asked[row].astype(np.float64), said[row].astype(np.float64), own[row], mass, most
        )
        assert found.classes[row, 0] == classes[0]
        assert sorted(found.classes[row]) == list(range(count))
        assert (found.latitude[row], found.longitude[row]) == place
        assert (found.latitudes[row, 0], found.longitudes[row, 0]) == place
        assert found.evidence.ids[row, 0] == ("" if best is None else model.gallery.names[np.array([best])][0])
        np.testing.assert_allclose(found.probabilities[row], shares, rtol=2e-4, atol=1e-7)
        if truth[row] < 0:
            assert (found.truth.rank[row], found.truth.probability[row], found.truth.before[row]) == (-1, 0, 1)
        else:
            at = found.classes[row].tolist().index(truth[row])
            assert found.truth.rank[row] == at
            assert found.truth.before[row] == pytest.approx(shares[:at].sum(), rel=2e-4, abs=1e-6)


# Two cells: three photos in Kenya, two in Peru.
TOWNS = space([0.0, -10.0], [37.0, -75.0])
SEEN = [[1, 0], [0.9, 0.1], [0, 1], [-1, 0.1], [-1, 0], [1, 0]]
LATITUDES, LONGITUDES = [0.1, 0.2, 0.3, -10.1, -10.2, 0.1], [37.1, 37.2, 37.3, -75.1, -75.2, 37.1]
TARGETS = [0, 0, 0, 1, 1, 0]


def towns(folder, **more) -> Retrieval:
    return model_of(data(TOWNS, SEEN, TARGETS, LATITUDES, LONGITUDES), folder, **more)


def test_the_photo_that_looks_most_alike_is_the_answer_and_evidence_says_how_alike(tmp_path):
    found = ask(towns(tmp_path), [0, 2], [0.9, 0.1])
    assert (found.latitude[0], found.longitude[0]) == (0.3, 37.3)
    assert found.evidence.kind == "neighbour"
    assert found.evidence.ids[0].tolist()[:2] == ["é2", "é1"]
    cosines = [1, 0.1 / np.hypot(0.9, 0.1), 0.1 / np.hypot(1, 0.1)]
    assert found.evidence.weights[0, [0, 1]] == pytest.approx(cosines[:2], abs=1e-3)
    assert found.evidence.ids[0].tolist()[5:] == [""] * 5, "there are no more photos than five"


def test_the_cells_probability_counts_by_its_logarithm(tmp_path):
    """Peru's photo is more alike by 0.0995; ln(0.9 / 0.1) · prior outweighs that from a prior of 0.0453 on."""
    looks = [-0.1, 1]  # cosines: Kenya 1 / √1.01, Peru 0.2 / 1.01
    assert ask(towns(tmp_path, prior=0), looks, [0.1, 0.9]).latitude[0] == 0.3
    apart = 1 / np.sqrt(1.01) - 0.2 / 1.01
    limit = apart / np.log(9)
    assert ask(towns(tmp_path, prior=limit * 0.99), looks, [0.1, 0.9]).latitude[0] == 0.3
    assert ask(towns(tmp_path, prior=limit * 1.01), looks, [0.1, 0.9]).latitude[0] == -10.1


def test_the_gate_is_the_fewest_cells_that_hold_the_mass(tmp_path):
    cells = space([0.0, 10.0, 20.0, 30.0], [0.0] * 4)
    known = data(cells, np.eye(4)[[0, 1, 2, 3, 0]], [0, 1, 2, 3, 0], [0, 10, 20, 30, 0], [0.0] * 5)
    said = np.array([[0.5, 0.25, 0.125, 0.125]], np.float32)
    for gate, latitude in (
        ({"mass": 0.5}, 0), ({"mass": 0.51}, 10), ({"mass": 0.75}, 10), ({"mass": 0.76}, 20),
        ({"mass": 1.0}, 30), ({"mass": 1.0, "most": 2}, 10), (None, 30),
    ):  # fmt: skip
        model = model_of(known, tmp_path, gate=gate, prior=0)
        assert ask(model, [0.1, 0.2, 0.3, 0.4], said).latitude[0] == latitude, gate


def test_a_photographers_own_photos_are_never_found(tmp_path):
    authors = hashed(pa.array(["ann", "ann", "bob", "cy", "cy", "dan"]))
    known = data(TOWNS, SEEN, TARGETS, LATITUDES, LONGITUDES, groups=authors)
    model = model_of(known, tmp_path, prior=0)
    looks, said = [[1, 0]] * 4, [[0.9, 0.1]] * 4
    found = ask(model, looks, said, groups=hashed(pa.array(["ann", "bob", None, "eve"])))
    assert found.latitude.tolist() == [0.3, 0.1, 0.1, 0.1]
    assert "é0" not in found.evidence.ids[0]
    assert "é1" not in found.evidence.ids[0]
    assert ask(model, looks, said).latitude.tolist() == [0.1] * 4, "where nothing is known, all count"


def test_a_number_for_an_author_is_the_same_in_every_column():
    one = hashed(pa.chunked_array([pa.array(["a", None]), pa.array(["b", "a"])]))
    other = hashed(pa.array(["b", "x", "a"], pa.large_string()))
    assert one.dtype == np.int64
    assert one[0] == one[3] == other[2]
    assert one[2] == other[0]
    assert one[1] == 0
    assert len({*one.tolist(), *other.tolist()}) == 4


def test_a_cell_of_nothing_but_ones_own_photos_keeps_its_place(tmp_path):
    authors = hashed(pa.array(["ann"] * 3 + ["cy"] * 2 + ["dan"]))
    known = data(TOWNS, SEEN, TARGETS, LATITUDES, LONGITUDES, groups=authors)
    found = ask(model_of(known, tmp_path, gate={"mass": 0.8}), [1, 0], [0.9, 0.1], groups=authors[:1])
    assert (found.latitude[0], found.evidence.ids[0, 0], found.classes[0].tolist()) == (0.0, "", [0, 1])
    assert found.probabilities[0] == pytest.approx([0.9, 0.1])


def test_one_cell_more_candidates_than_cells_and_ties(tmp_path):
    cells = space([5.0], [7.0])
    known = data(cells, [[1, 1]] * 4, [0] * 4, [5, 5.1, 5.2, 5.3], [7.0] * 4)
    found = ask(model_of(known, tmp_path, gate={"most": 99}), [2, 2], [1.0], 9)
    assert (found.classes.tolist(), found.probabilities.tolist(), found.latitude[0]) == ([[0]], [[1.0]], 5.0)
    assert found.evidence.ids[0].tolist()[:3] == ["é0", "é1", "é2"], "the first of equals, in the order of the corpus"
    cells = space([5.0, 6.0], [7.0, 8.0])
    known = data(cells, [[1, 1]] * 5, [1, 1, 0, 0, 0], [6, 6.1, 5, 5.1, 5], [8, 8, 7, 7, 7])
    found = ask(model_of(known, tmp_path, prior=0), [1, 1], [0.4, 0.6])
    assert found.classes[0].tolist() == [0, 1], "the cell of the best photo, whatever the model thought of it"
    assert (found.latitude[0], found.evidence.ids[0, 0]) == (5.0, "é2")


def test_without_snap_the_answer_is_the_mean_of_the_near_ones_by_weight(tmp_path):
    cells = space([0.0], [0.0])
    seen = [[1, 0], [1, 0], [1, 0.5], [1, 0], [1, 0]]
    known = data(cells, seen, [0] * 5, [10, 10, 10, -60, 0], [179, -179, 170, 0, 0])
    found = ask(model_of(known, tmp_path, snap=False, neighbours={"count": 2}), [1, 0], [1.0])
    expected = mean_place(*(np.array([v]) for v in ([10, 10], [179, -179], [1, 1])), 1000)
    assert found.longitude[0] == pytest.approx(-180, abs=1e-6) or found.longitude[0] == pytest.approx(180, abs=1e-6)
    assert found.latitude[0] == pytest.approx(expected[0][0], abs=1e-6)
    far = ask(model_of(known, tmp_path, snap=False, neighbours={"count": 4, "within_km": 300}), [1, 0], [1.0])
    assert far.latitude[0] == pytest.approx(found.latitude[0], abs=1e-6), "neither −60° nor 170° is near the best"


@pytest.mark.parametrize("snap", [False, True])
def test_a_candidate_keeps_its_place_where_the_order_changes(tmp_path, snap):
    cells = space([5.0, 6.0], [7.0, 8.0])
    known = data(cells, [[1, 0], [0, 1], [1, 1]], [0, 1, 1], [5.5, 6.5, 6], [7.5, 8.5, 8])
    found = ask(model_of(known, tmp_path, prior=0, snap=snap, gate={"mass": 0.99}), [0, 1], [0.6, 0.4])
    moved = 0.5 if snap else 0
    assert found.classes[0].tolist() == [1, 0]
    assert (found.latitudes[0, 1], found.longitudes[0, 1]) == (5 + moved, 7 + moved)


def test_the_readout_is_the_mean_of_near_cells_by_sharpened_probability():
    p = np.array([[0.5, 0.3, 0.2]])
    latitudes, longitudes = np.array([[0.0, 0.0, 0.0]]), np.array([[179.0, -179.0, 100.0]])
    lat, lon = mean_place(latitudes, longitudes, p**2, 1000)
    x = 0.25 * unit_vectors(0, 179) + 0.09 * unit_vectors(0, -179)
    assert (lat[0], lon[0]) == (pytest.approx(0), pytest.approx(np.degrees(np.arctan2(x[1], x[0]))))
    assert 179 < lon[0] < 180
    assert [v[0] for v in mean_place(latitudes, longitudes, p**2, 0)] == [0, 179], "none but the first itself"
    nothing = mean_place(latitudes, longitudes, np.zeros((1, 3)), 1000)
    assert [v[0] for v in nothing] == [0, 179], "without a weight it is the first"
    some = mean_place(np.zeros((2, 2)), np.array([[0.0, 180.0], [0.0, 90.0]]), np.ones((2, 2)), 1e5)
    np.testing.assert_allclose(some[1], [0, 45], atol=1e-9, err_msg="the first two cancel out")
    pole = mean_place(np.array([[89.0, 89.0]]), np.array([[0.0, 180.0]]), np.ones((1, 2)), 1000)
    assert pole[0][0] == pytest.approx(90)


def test_the_mean_of_one_place_is_that_place_to_the_last_digit():
    rng = np.random.default_rng(0)
    latitudes, longitudes = rng.uniform(-90, 90, (200, 2)), rng.uniform(-180, 180, (200, 2))
    found = mean_place(latitudes, longitudes, np.ones((200, 2)), 0)
    np.testing.assert_array_equal(found, (latitudes[:, 0], longitudes[:, 0]))


def test_the_readout_looks_at_the_best_cells_and_sharpens_their_probabilities(tmp_path):
    cells = space([0.0, 0.0, 0.0], [10.0, 30.0, 80.0])
    known = data(cells, np.eye(3), [0, 1, 2], [0.0] * 3, [10.0, 30.0, 80.0])
    for readout, weights in (
        ({"cells": 2, "temperature": 0.5, "within_km": 1e5}, [0.5**2, 0.3**2, 0]),
        ({"cells": 3, "temperature": 2, "within_km": 1e5}, [0.5**0.5, 0.3**0.5, 0.2**0.5]),
        ({"cells": 3, "temperature": 1, "within_km": 3000}, [0.5, 0.3, 0]),  # 20° are 2,224 km
        ({"cells": 1}, [1, 0, 0]),
    ):
        found = ask(model_of(known, tmp_path, neighbours=None, readout=readout), [1, 0, 0], [0.5, 0.3, 0.2])
        x = weights @ unit_vectors(cells.latitudes, cells.longitudes)
        assert found.longitude[0] == pytest.approx(np.degrees(np.arctan2(x[1], x[0]))), readout
        assert found.latitude[0] == pytest.approx(0)


def test_each_step_that_is_left_out_is_absent(tmp_path):
    known = data(TOWNS, SEEN, TARGETS, LATITUDES, LONGITUDES)
    said = np.array([[0.7, 0.3], [0.2, 0.8]], np.float32)
    looks = [[1, 0.2], [0, 1]]
    nothing = model_of(known, tmp_path, neighbours=None)
    plain = Says(TOWNS).predict(Batch({"said": said}), 2)
    found = ask(nothing, looks, said, 2)
    for name in ("classes", "probabilities", "latitudes", "longitudes", "latitude", "longitude"):
        np.testing.assert_array_equal(getattr(found, name), getattr(plain, name))
    assert found.evidence is None
    read = ask(model_of(known, tmp_path, neighbours=None, readout={"within_km": 1e5}), looks, said, 2)
    assert (read.latitude != plain.latitude).all()
    model = model_of(known, tmp_path)
    assert (model.ranking, model.comparison.whitening, model.comparison.heads) == (None, None, ())
    assert not model.gallery.bias.any()
    assert model.settings.gain == 1
    np.testing.assert_allclose(model.gallery.vectors[0], [1, 0], atol=1e-6)
    every = fitted(known, tmp_path, whitening={}, csls={}, rerank={}, bands={"epochs": 1, "hidden": 4, "batch": 4})
    assert (len(every.model.comparison.heads), every.model.gallery.vectors.shape[1]) == (2, 6)
    assert every.model.gallery.bias.any()
    assert every.model.ranking is not None


def test_heads_alone_are_compared_without_a_blend_and_start_as_the_identity():
    net = bands.network(5, 7, 2)
    x = torch.randn(9, 5)
    for found in net(x):
        np.testing.assert_allclose(found.detach(), torch.nn.functional.normalize(x), rtol=1e-5)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter)
    heads = tuple(
        Head({name: tensor.detach().numpy() for name, tensor in head.state_dict().items()}) for head in net.heads
    )
    made = Comparison(0.0, None, heads)
    wanted = np.concatenate([part.detach().numpy() for part in net(x)], axis=1) / np.sqrt(2)
    np.testing.assert_allclose(made(x.numpy()), wanted, rtol=1e-4, atol=1e-5)
    assert made.width(5) == 10
    assert made.first(10) == (0.5, 5)
    blended = Comparison(0.4, None, heads)
    assert blended(x.numpy()).shape == (9, blended.width(5)) == (9, 15)
    assert blended.first(15) == (0.4, 5), "the encoder's own vectors come first"
    assert Comparison(1.0, None, ()).first(5) == (1.0, 5)


def test_the_product_of_two_vectors_is_the_blend_of_their_cosines():
    rng = np.random.default_rng(1)
    net = bands.network(4, 6, 2)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter)
    heads = tuple(Head({k: t.detach().numpy() for k, t in head.state_dict().items()}) for head in net.heads)
    white = Whitening.of(rng.normal(size=(50, 4)).astype(np.float32), 2)
    for whitened in (False, True):
        if whitened:
            net = bands.network(2, 6, 1, white)
            heads = tuple(Head({k: t.detach().numpy() for k, t in head.state_dict().items()}) for head in net.heads)
        made = Comparison(0.34, white, heads, whitened)
        x = rng.normal(size=(2, 4)).astype(np.float32)
        plain = np.stack([normalised(row) for row in x.astype(np.float64)])
        own = [normalised((row - white.mean) @ white.matrix) for row in plain]
        total = 0.34 * own[0] @ own[1]
        for head in heads:
            one, other = (normalised(row) for row in head(np.stack(own if whitened else plain).astype(np.float32)))
            total += 0.66 / len(heads) * (one @ other)
        vectors = made(x)
        assert vectors[0] @ vectors[1] == pytest.approx(total, rel=1e-4, abs=1e-5)
        assert vectors.shape[1] == made.width(4)
        assert made.first(made.width(4)) == (0.34, 2)


def test_whitened_vectors_vary_alike_in_all_directions_and_in_no_more_than_there_are():
    rng = np.random.default_rng(2)
    x = (rng.normal(size=(4000, 3)) @ rng.normal(size=(3, 5)) + 4).astype(np.float32)
    made = Whitening.of(x, None)
    assert made.matrix.shape == (5, 3), "two of the five directions do not vary"
    np.testing.assert_allclose(np.cov(made(x).T), np.eye(3), atol=5e-3)
    first = Whitening.of(x, 1).matrix[:, 0]
    np.testing.assert_allclose(first, made.matrix[:, 0], rtol=1e-5)
    spread = np.array([(x @ made.matrix[:, k] / np.linalg.norm(made.matrix[:, k])).std() for k in range(3)])
    assert (np.diff(spread) < 0).all(), "that with the greatest variance first"
    assert np.isfinite(Whitening.of(x[:1], None)(x[:1])).all()


def gallery_of(vectors, groups=None, precision="float32", latitudes=None, cells=None) -> Gallery:
    n = len(vectors)
    held, scale = rounded(np.asarray(vectors, np.float32), precision)
    return Gallery(
        np.array([0, n]) if cells is None else np.asarray(cells),
        held,
        scale,
        np.zeros(n, np.float32),
        np.zeros(n) if latitudes is None else np.asarray(latitudes, float),
        np.zeros(n),
        np.arange(1, n + 1) if groups is None else np.asarray(groups),
        Names.of(pa.array([str(at) for at in range(n)]), np.arange(n)),
    )


def test_the_usual_similarity_is_the_mean_to_the_most_alike_of_other_groups_in_the_sample():
    rng = np.random.default_rng(3)
    vectors, groups = rng.normal(size=(31, 4)), rng.integers(0, 4, 31)
    found = usual(gallery_of(vectors, groups), CSLS(neighbours=3, sample=10))
    sample = range(0, 31, 4)  # eight, as every third one would be eleven
    for row in range(31):
        near = sorted((float(vectors[row] @ vectors[at]) for at in sample if groups[at] != groups[row]), reverse=True)
        assert found[row] == pytest.approx(np.mean(near[:3]), rel=1e-4)
    assert usual(gallery_of(vectors, np.ones(31)), CSLS()).tolist() == [0] * 31


def test_int8_loses_next_to_nothing():
    rng = np.random.default_rng(4)
    vectors = rng.normal(size=(3000, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = vectors[:400] + rng.normal(size=(400, 64)).astype(np.float32) / 12
    asked = (np.zeros((400, 1), np.int64), np.ones(400, np.int64), np.zeros((400, 1), np.float32), None, 5, 1.0)
    exact, half, small = (
        search(gallery_of(vectors, precision=p), queries, *asked) for p in ("float32", "float16", "int8")
    )
    assert (exact.candidates[:, 0] == np.arange(400)).mean() > 0.9
    assert (half.candidates[:, 0] == exact.candidates[:, 0]).mean() > 0.995
    assert (small.candidates[:, 0] == exact.candidates[:, 0]).mean() > 0.99
    error = np.abs(gallery_of(vectors, precision="int8").take(np.arange(3000)) - vectors)
    assert (error.max(axis=1) <= np.abs(vectors).max(axis=1) / 127 / 2 + 1e-7).all(), "half a step at most"
    assert not rounded(np.zeros((1, 3), np.float32), "int8")[0].any()


def in_torch(gallery, queries, cells, counts, offsets, own, length, gain) -> Found:
    """The search as on a GPU, with vectors that are there already."""
    where = torch.device("cpu")
    asked = galleries._by_cell(cells, counts)
    vectors = galleries._brought(gallery.vectors, where)
    np.testing.assert_array_equal(vectors.numpy(), gallery.vectors)
    return Found(*on_device.search(gallery, vectors, where, queries, asked, offsets, own, length, gain))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), length=st.integers(1, 9), way=st.sampled_from([search, in_torch]))
def test_the_search_lists_the_best_of_all_cells_in_order(seed, length, way):
    rng = np.random.default_rng(seed)
    cells, vectors = np.array([0, 5, 5, 20, 31]), rng.integers(-3, 4, size=(31, 2)).astype(float)
    groups = rng.integers(1, 4, 31)
    gallery = replace(gallery_of(vectors, groups, cells=cells), bias=rng.integers(0, 2, 31).astype(np.float32))
    asked, counts = np.stack([rng.permutation(4)[:3] for _ in range(6)]), rng.integers(1, 4, 6)
    offsets, own = rng.integers(0, 2, (6, 3)).astype(np.float32), rng.integers(0, 4, 6)
    queries = rng.integers(-2, 3, (6, 2)).astype(np.float32)
    found = way(gallery, queries, asked, counts, offsets, own, length, 2.0)
    for row in range(6):
        all_of = []
        for column in range(counts[row]):
            cell, best = asked[row, column], []
            for at in range(cells[cell], cells[cell + 1]):
                if own[row] == 0 or groups[at] != own[row]:
                    score = 2 * queries[row] @ vectors[at] + gallery.bias[at] + offsets[row, column]
                    best.append((-score, at))
                    all_of.append((-score, at, column))
            assert found.photos[row, column] == (min(best)[1] if best else -1)
            assert found.scores[row, column] == (-min(best)[0] if best else -np.inf)
        assert (found.photos[row, counts[row] :] == -1).all()
        listed = sorted(all_of)[:length]
        assert found.candidates[row].tolist() == [at for _, at, _ in listed] + [-1] * (length - len(listed))
        assert found.columns[row, : len(listed)].tolist() == [column for *_, column in listed]
        assert found.top[row, : len(listed)].tolist() == [-score for score, *_ in listed]


def test_threads_and_a_gpu_find_the_same(monkeypatch):
    """What a GPU would do is done here on the CPU, once with vectors brought cell by cell and in blocks."""
    rng = np.random.default_rng(6)
    gallery = gallery_of(rng.normal(size=(500, 16)), rng.integers(1, 40, 500), "int8", cells=[0, 100, 320, 500])
    n = 2 * galleries.FEW + 1
    queries = rng.normal(size=(n, 16)).astype(np.float32)
    cells, counts = np.stack([rng.permutation(3) for _ in range(n)]), rng.integers(1, 4, n)
    asked = cells, counts, rng.normal(size=(n, 3)).astype(np.float32), rng.integers(0, 40, n), 7, 1.5
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    one = search(gallery, queries, *asked)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    two = search(gallery, queries, *asked)
    monkeypatch.setattr(galleries, "MANY", 0)
    monkeypatch.setattr(galleries, "_gpu", lambda: torch.device("cpu"))
    monkeypatch.setattr(galleries.Gallery, "on", lambda self, where: None)
    monkeypatch.setattr(on_device, "BLOCK", 5000)
    other = search(gallery, queries, *asked)
    assert (one.candidates >= 0).all()
    for found in (two, other):
        for name in ("photos", "candidates", "columns"):
            np.testing.assert_array_equal(getattr(found, name), getattr(one, name))
        for name in ("scores", "top"):
            np.testing.assert_allclose(getattr(found, name), getattr(one, name), rtol=1e-4)


def test_large_cells_are_read_in_blocks(monkeypatch):
    rng = np.random.default_rng(5)
    vectors, queries = rng.normal(size=(300, 4)), rng.normal(size=(7, 4)).astype(np.float32)
    asked = (np.zeros((7, 1), np.int64), np.ones(7, np.int64), np.zeros((7, 1), np.float32), None, 4, 1.0)
    whole = search(gallery_of(vectors), queries, *asked)
    monkeypatch.setattr(galleries, "BLOCK", 50)
    parts = search(gallery_of(vectors), queries, *asked)
    np.testing.assert_array_equal(whole.candidates, parts.candidates)
    ids = galleries.Gallery.similar(gallery_of(vectors), queries, whole.candidates)
    np.testing.assert_allclose(ids, whole.top, rtol=1e-5)


def numbers_by_hand(gallery, query, top, candidates, logs, share, width):
    """The seventeen numbers of each candidate of one unit."""
    known = [at for at in candidates if at >= 0]
    t = len(known)
    score = [float(s) for s in top[:t]]
    w = np.exp([(s - max(score)) / 0.05 for s in score])
    w = w / w.sum()
    vectors = [gallery.vectors[at].astype(np.float64) for at in known]
    km = [[float(haversine_km(gallery.latitudes[a], gallery.longitudes[a], gallery.latitudes[b], gallery.longitudes[b]))
           for b in known] for a in known]  # fmt: skip
    alike = [[float(normalised(a) @ normalised(b)) for b in vectors] for a in vectors]
    passed = np.zeros((t, t))
    for i in range(t):
        row = [0.0 if i == j else np.exp((alike[i][j] - 1) / 0.05) for j in range(t)]
        passed[i] = np.array(row) / sum(row) if sum(row) else 0
    spread = w.copy()
    for _ in range(200):  # the fixed point
        spread = 0.5 * passed.T @ spread + 0.5 * w
    entropy = -sum(v * np.log(v) for v in w if v > 0)
    rows = []
    for i in range(t):
        near = [sum(w[j] for j in range(t) if km[i][j] <= limit) for limit in (10, 25, 50)]
        others = [alike[i][j] for j in range(t) if j != i] or [0.0]
        own = float(query[:width].astype(np.float64) @ vectors[i][:width]) / share
        best = sorted(others, reverse=True)[:3]
        rows.append([
            score[i], own, np.log(1 + i), score[i] - score[0], *near, spread[i], np.mean(others), np.mean(best),
            entropy, t, logs[i], score[i] * near[1], own * near[1], spread[i] * near[1], score[i] * entropy,
        ])  # fmt: skip
    return np.array(rows)


def test_the_seventeen_numbers_equal_their_literal_transcription(monkeypatch):
    rng = np.random.default_rng(6)
    latitudes = 10 + rng.normal(size=40) * 0.2
    gallery = gallery_of(rng.normal(size=(40, 5)), latitudes=latitudes, cells=[0, 20, 40])
    queries = rng.normal(size=(6, 5)).astype(np.float32)
    asked, counts = np.tile([1, 0], (6, 1)), np.array([2, 2, 2, 1, 1, 2])
    logs = np.log(rng.dirichlet([1, 1], 6))
    own = np.zeros(6, np.int64)
    found = search(gallery, queries, asked, counts, np.zeros((6, 2), np.float32), own, 30, 1.0)
    monkeypatch.setattr(ranking, "BLOCK", 2 * 30 * 5)
    values = ranking.numbers(gallery, queries, found, logs, (0.5, 2))
    assert values.shape == (6, 30, len(ranking.NAMES)) == (6, 30, 17)
    for row in range(6):
        of_candidates = logs[row, found.columns[row]]
        wanted = numbers_by_hand(gallery, queries[row], found.top[row], found.candidates[row], of_candidates, 0.5, 2)
        np.testing.assert_allclose(values[row, : len(wanted)], wanted, rtol=2e-5, atol=1e-6)
        assert not values[row, len(wanted) :].any()
    nobody = Found(*(np.full((1, 2), fill) for fill in (-np.inf, -1, -np.inf, -1, 0)))
    assert not ranking.numbers(gallery, queries[:1], nobody, np.zeros((1, 2)), (1.0, 5)).any()


def test_reranked_candidates_and_cells_are_in_the_order_of_score_and_logit():
    found = Found(
        scores=np.array([[5.0, 4.0, 1.0, -np.inf]], np.float32),
        photos=np.array([[10, 20, 30, -1]]),
        top=np.array([[5.0, 4.5, 4.0, -np.inf]], np.float32),
        candidates=np.array([[10, 11, 20, -1]]),
        columns=np.array([[0, 0, 1, 0]]),
    )
    after = ranking.rerank(found, np.array([[0.0, 0.5, 2.0, 99.0]]), 2.0, 2.0)
    assert after.candidates[0].tolist() == [20, 11, 10, -1]
    assert after.top[0].tolist() == [4 / 2 + 4, 4.5 / 2 + 1, 5 / 2, -np.inf]
    assert after.columns[0, :3].tolist() == [1, 0, 0]
    assert after.photos[0].tolist() == [11, 20, 30, -1]
    assert after.scores[0].tolist() == [3.25, 6.0, 0.5, -np.inf], "a cell without a candidate has the least logit, 0"
    assert found.photos[0].tolist() == [10, 20, 30, -1], "what was found stays"
    nobody = Found(
        *(np.full((1, width), fill) for width, fill in ((4, -np.inf), (4, -1), (4, -np.inf), (4, -1), (4, 0)))
    )
    both = Found(*(np.concatenate([getattr(one, name) for one in (found, nobody)]) for name in vars(found)))
    joined = ranking.rerank(both, np.array([[0.0, 0.5, 2.0, 99.0]] * 2), 2.0, 2.0)
    for name in vars(found):
        np.testing.assert_array_equal(getattr(joined, name)[0], getattr(after, name)[0])
        np.testing.assert_array_equal(getattr(joined, name)[1], getattr(nobody, name)[0], err_msg="one without a photo")


def test_a_unit_is_judged_by_a_ranking_that_saw_none_of_its_group():
    rng = np.random.default_rng(7)
    values, near = rng.normal(size=(40, 6, 17)), rng.random((40, 6)) < 0.4
    groups, valid = np.repeat(np.arange(10), 4), np.ones((40, 6), bool)
    whole, logits = ranking.fit(values, valid, near, groups)
    likely = 1 / (1 + np.exp(-whole.logits(values)))
    assert likely.mean() == pytest.approx(near.mean(), abs=1e-4), "so many are near as are said to be"
    turned = near.copy()
    turned[groups == 3] ^= True
    other, after = ranking.fit(values, valid, turned, groups)
    np.testing.assert_allclose(after[groups == 3], logits[groups == 3])
    assert np.abs(after - logits)[groups != 3].max() > 1e-3
    assert np.abs(other.weights - whole.weights).max() > 1e-3, "while what is kept is fitted to all"
    for alike in (np.zeros_like(near), np.ones_like(near)):
        same, _ = ranking.fit(values, valid, alike, groups)
        assert not same.logits(values).any(), "where none is near, or all are, nothing is learned"
    alone, itself = ranking.fit(values, valid, near, np.ones(40, int))
    np.testing.assert_array_equal(
        itself, alone.logits(values), err_msg="of one group: there is none that saw none of it"
    )
    valid[::2, 3:] = False
    some, _ = ranking.fit(values, valid, near, groups)
    assert some.spread == pytest.approx(values[valid][:, 0].std()), "of the scores of the candidates that there are"
    np.testing.assert_allclose(some.mean, values[valid].mean(axis=0))
    np.testing.assert_allclose(some.std, values[valid].std(axis=0))
    values[..., 5] = 7
    assert ranking.fit(values, valid, near, groups)[0].std[5] == 1, "what never varies is not divided by nothing"


def test_groups_are_judged_in_five_parts():
    rng = np.random.default_rng(8)
    values, near = rng.normal(size=(40, 6, 17)), rng.random((40, 6)) < 0.4
    groups, valid = np.repeat(np.arange(10), 4), np.ones((40, 6), bool)
    _, logits = ranking.fit(values, valid, near, groups)
    for group in range(10):
        turned = near ^ (groups == group)[:, None]
        _, after = ranking.fit(values, valid, turned, groups)
        same = np.isclose(after, logits, rtol=0, atol=1e-6).all(axis=1)
        assert len(set(groups[same])) == 2, "a part is two of ten groups; all others have seen the one that changed"


@pytest.mark.parametrize("km", [50, 0])
def test_ntxent_equals_its_literal_transcription(km):
    rng = np.random.default_rng(8)
    a, b = (rng.normal(size=(5, 3)) for _ in range(2))
    a, b = (np.stack([normalised(row) for row in x]) for x in (a, b))
    places = [unit_vectors(rng.normal(0, 0.4, 5), 180 + rng.normal(0, 0.4, 5)) for _ in range(2)]
    places[0][1] = places[0][0]  # two at the same place, which none but a reach of 0 tells apart
    reach, tau = float(chord(km)), 0.2
    both, where = np.concatenate([a, b]), np.concatenate(places)
    total = 0.0
    for i in range(10):
        positive = (i + 5) % 10
        terms = [
            np.exp(both[i] @ both[j] / tau)
            for j in range(10)
            if j != i and (j == positive or np.linalg.norm(where[i] - where[j]) >= reach)
        ]
        total -= np.log(np.exp(both[i] @ both[positive] / tau) / sum(terms))
    masked = sum(np.linalg.norm(where[i] - where[j]) < reach for i in range(10) for j in range(i))
    assert masked > 5 if km else masked == 0
    found = bands.loss_of(*map(torch.from_numpy, (a, b)), tuple(map(torch.from_numpy, places)), tau, reach)
    assert float(found) == pytest.approx(total / 10)


@pytest.mark.parametrize(("latitude", "longitude"), [(0, 180), (90, 0), (47, 8)])
def test_partners_are_near_elsewhere_and_of_someone_else(latitude, longitude):
    rng = np.random.default_rng(9)
    lat = np.clip(latitude - np.abs(rng.normal(0, 0.3, 200)), -90, 90)
    lon = (longitude + rng.normal(0, 0.3, 200) * (100 if latitude == 90 else 1) + 180) % 360 - 180
    lat[50:60], lon[50:60] = lat[50], lon[50]  # the same place
    groups = rng.integers(0, 20, 200)
    near = bands.Near.of(lat, lon, groups, 25.0)
    drawn = np.stack([near.draw(np.arange(200), rng) for _ in range(300)])
    km = haversine_km(lat[:, None], lon[:, None], lat, lon)
    allowed = (km <= 25) & (np.linalg.norm(near.points[:, None] - near.points, axis=2) > 0)
    allowed &= groups[:, None] != groups
    for row in range(200):
        found = set(drawn[:, row].tolist()) - {-1}
        wanted = set(np.flatnonzero(allowed[row]).tolist())
        assert found <= wanted
        assert len(wanted) > 30 or found == wanted, "each of them is drawn now and then"
    assert (drawn >= 0).any(axis=0).sum() == allowed.any(axis=1).sum()


def test_views_of_a_place_stand_for_each_other():
    places = np.array(["p", None, "q", "p", None, "p"], object)
    views, rng = bands.Views.of(places), np.random.default_rng(1)
    drawn = np.stack([views.draw(np.arange(6), rng) for _ in range(60)])
    assert [sorted(set(column.tolist())) for column in drawn.T] == [[3, 5], [-1], [-1], [0, 5], [-1], [0, 3]]
    of_two_sizes = bands.Views.of(np.array(["p", "p", "q", "q", "q"], object))
    drawn = np.stack([of_two_sizes.draw(np.arange(5), rng) for _ in range(60)])
    assert [sorted(set(column.tolist())) for column in drawn.T] == [[1], [0], [3, 4], [2, 4], [2, 3]]


TAUGHT = {"epochs": 8, "hidden": 16, "batch": 128, "whitened": True, "optimiser": {"kind": "adamw", "lr": 0.003}}


def planted(n=900, dim=12, seed=10, towns_of_cell=6) -> Data:
    """Cells of many towns: how a photo looks tells the town, and the model of cells only the cell."""
    rng = np.random.default_rng(seed)
    cells = space(np.linspace(-60, 60, 8), np.linspace(-150, 150, 8))
    town = rng.integers(0, 8 * towns_of_cell, n)
    targets = town // towns_of_cell
    north, east = rng.normal(0, 2, (2, 8 * towns_of_cell))
    looks = rng.normal(size=(8 * towns_of_cell, dim))
    seen = looks[town] + rng.normal(size=(n, dim)) * 0.6
    loud = rng.normal(size=(n, 2)) * 4  # what says nothing
    seen = np.concatenate([seen, loud], axis=1)
    said = np.full((n, 8), 0.4 / 7)
    said[np.arange(n), targets] = 0.6
    latitudes = cells.latitudes[targets] + north[town] + rng.normal(0, 0.02, n)
    longitudes = cells.longitudes[targets] + east[town] + rng.normal(0, 0.02, n)
    return data(cells, seen, targets, latitudes, longitudes, said, held_out=n // 3,
                groups=rng.integers(1, 200, n))  # fmt: skip


def within(model: Retrieval, known: Data, km=25):
    batch = known.batch(known.units(known.validation))
    found = model.predict(batch, 3)
    apart = haversine_km(found.latitude, found.longitude, known.latitudes[known.validation],
                         known.longitudes[known.validation])  # fmt: skip
    return float((apart <= km).mean())


@pytest.mark.slow
def test_photos_find_the_town_where_cells_cannot_and_each_step_helps(tmp_path):
    known = planted()
    shares = {
        name: within(fitted(known, tmp_path / name, **more).model, known)
        for name, more in {
            "cells": {"neighbours": None},
            "nearest": {},
            "whitened": {"whitening": {}},
            "heads": {"whitening": {}, "bands": TAUGHT},
        }.items()
    }
    assert shares["cells"] < 0.2
    assert shares["nearest"] < shares["whitened"] - 0.1, "the loud feature is made quiet"
    assert shares["whitened"] > 0.5
    assert shares["heads"] >= shares["whitened"] - 0.02
    reranked = fitted(known, tmp_path / "reranked", whitening={}, rerank={"candidates": 20})
    assert reranked.figures["within_25km_reranked"] >= reranked.figures["within_25km_nearest"]
    assert reranked.figures["ceiling_25km_gallery"] >= reranked.figures["ceiling_25km_gate"] > 90
    assert reranked.figures["within_25km_cells"] < 20


def alone(places=None, **more) -> Data:
    """Photos of one photographer, and validation photos of others beside them: no photo has a partner elsewhere."""
    known = planted(120)
    groups = np.where(np.arange(120) < 80, 1, known.groups + 1)
    return replace(known, groups=groups, places=places, headings=None if places is None else np.zeros(120), **more)


STILL = {"epochs": 2, "hidden": 4, "batch": 16, "km": [300, 25], "mask_km": 400, "temperature": 0.2,
         "optimiser": {"kind": "adamw", "lr": 0.01, "weight_decay": 0.0}}  # fmt: skip


@pytest.mark.parametrize(("most", "trained", "asked"), [(4096, 1, 1), (30, 3, 2)])
def test_without_partners_heads_stay_as_they_are_and_the_validation_loss_is_as_written(
    tmp_path, monkeypatch, most, trained, asked
):
    """Of more than so many photos every so many-th is asked, and compared with."""
    monkeypatch.setattr(bands, "VALIDATED", most)
    known = alone()
    found = fitted(known, tmp_path, bands=STILL)
    for head in found.model.comparison.heads:
        assert not head.tensors["down.weight"].any()
        assert not head.tensors["down.bias"].any()
    x = np.stack([normalised(row.astype(np.float64)) for row in known.images["seen"]])
    km = haversine_km(known.latitudes[:, None], known.longitudes[:, None], known.latitudes, known.longitudes)
    losses = []
    for limit in STILL["km"]:
        for row in known.validation[::asked]:
            compared = known.training[::trained]
            near = [at for at in compared if km[row, at] <= limit]
            others = [at for at in compared if km[row, at] > limit and km[row, at] >= 400]
            if near:
                kept = sum(np.exp(x[row] @ x[at] / 0.2) for at in near)
                losses.append(-np.log(kept / (kept + sum(np.exp(x[row] @ x[at] / 0.2) for at in others))))
    assert len(known.validation[::asked]) / 2 < len(losses) < 2 * len(known.validation[::asked])
    assert [epoch["validation_loss"] for epoch in found.history] == pytest.approx([np.mean(losses)] * 2, rel=1e-4)


def test_photos_a_few_metres_apart_are_within_a_tenth_of_a_kilometre(tmp_path):
    """Distances from products of matrices in float32 would come out some kilometres off."""
    known = alone()
    latitudes, longitudes = known.latitudes.copy(), known.longitudes.copy()
    latitudes[80:], longitudes[80:] = latitudes[:40] + 1e-4, longitudes[:40]  # each beside a training photo
    found = fitted(replace(known, latitudes=latitudes, longitudes=longitudes), tmp_path, bands=STILL | {"km": [0.1]})
    assert all(math.isfinite(epoch["validation_loss"]) for epoch in found.history)
    x = np.stack([normalised(row.astype(np.float64)) for row in known.images["seen"]])
    km = haversine_km(latitudes[80:, None], longitudes[80:, None], latitudes[:80], longitudes[:80])
    shown = np.exp(x[80:] @ x[:80].T / 0.2)
    losses = np.log((shown * ((km <= 0.1) | (km >= 400))).sum(axis=1) / (shown * (km <= 0.1)).sum(axis=1))
    assert [epoch["validation_loss"] for epoch in found.history] == pytest.approx([losses.mean()] * 2, rel=1e-4)


def test_views_of_a_place_are_partners_as_often_as_is_said(tmp_path):
    places = np.array([f"p{row // 2}" for row in range(120)], object)
    taught, still = (
        fitted(alone(places), tmp_path / str(share), bands=STILL | {"same_place": share}).model for share in (1, 0)
    )
    assert all(head.tensors["down.weight"].any() for head in taught.comparison.heads)
    assert not any(head.tensors["down.weight"].any() for head in still.comparison.heads)


def test_a_gallery_holds_the_photos_of_cells_that_the_model_knows(tmp_path):
    """The corpus has a class more, which comes first; a photo of that, of none and one of nowhere are left out."""
    wider = space([50.0, 0.0, -10.0, 70.0], [50.0, 37.0, -75.0, 70.0])
    wider = replace(wider, ids=["other", "cell0", "cell1", "cell2"])
    cells = space([0.0, -10.0, 70.0], [37.0, -75.0, 70.0])
    known = data(
        cells, np.eye(7), [2, 0, 1, -1, 1, 2, 1], [-10, 50, 1, 2, np.nan, -11, 0], [-75, 50, 37, 38, 39, -76, 0]
    )
    found = fitted(replace(known, space=wider), tmp_path)
    gallery = found.model.gallery
    assert gallery.cells.tolist() == [0, 1, 3, 3]
    assert gallery.names[np.arange(3)].tolist() == ["é2", "é0", "é5"]
    assert (gallery.latitudes.tolist(), gallery.longitudes.tolist()) == ([1, -10, -11], [37, -75, -76])
    assert gallery.groups.tolist() == [3, 1, 6]
    np.testing.assert_allclose(gallery.vectors, np.eye(7)[[2, 0, 5]], atol=1e-3)
    assert (found.figures["gallery"], found.figures["cells_without_photos"]) == (3, 1)
    assert (found.figures["parameters"], found.figures["trainable_parameters"]) == (0, 0)


def test_without_a_validation_photo_nothing_is_ranked_or_calibrated(tmp_path):
    known = replace(data(TOWNS, SEEN, TARGETS, LATITUDES, LONGITUDES), validation=np.arange(0))
    plain, ranked = (fitted(known, tmp_path, rerank=rerank).model for rerank in (None, {}))
    assert (plain.ranking, plain.calibration, ranked.calibration) == (None, 1, 1)
    one, other = (ask(model, [0.5, 1], [0.9, 0.1]) for model in (plain, ranked))
    assert one.evidence.ids.tolist() == other.evidence.ids.tolist()
    assert "temperature" not in fitted(known, tmp_path, rerank={}).figures


def test_blocks_of_photos_change_nothing(tmp_path, monkeypatch):
    known, more = planted(150), {"whitening": {}, "csls": {"neighbours": 3, "sample": 40}, "rerank": {"candidates": 9}}
    whole = fitted(known, tmp_path / "whole", **more)
    monkeypatch.setattr(learning, "ROWS", 7)
    parts = fitted(known, tmp_path / "parts", **more)
    for name in ("vectors", "scale", "bias"):
        np.testing.assert_allclose(
            getattr(parts.model.gallery, name), getattr(whole.model.gallery, name), rtol=1e-5, atol=1e-6
        )
    np.testing.assert_allclose(parts.model.ranking.weights, whole.model.ranking.weights, rtol=1e-3, atol=1e-4)
    assert parts.figures == pytest.approx(whole.figures, rel=1e-3)


def test_of_too_many_photos_every_so_many_are_looked_at(tmp_path, monkeypatch):
    """Directions are those of every other training photo, and every third validation photo is answered."""
    known = data(space([0.0], [0.0]), np.eye(9), [0] * 9, [0, 0, 0, 0, 5, 5, 5, 0, 5], [0.0] * 9, held_out=5)
    monkeypatch.setattr(learning, "VALIDATED", 2)
    assert fitted(known, tmp_path).figures["within_25km_cells"] == 50, "of the first and the fourth"
    monkeypatch.setattr(learning, "WHITENED", 2)
    white = fitted(known, tmp_path, whitening={}).model.comparison.whitening
    np.testing.assert_allclose(white.mean, (np.eye(9)[0] + np.eye(9)[2]) / 2, atol=1e-6)


def test_training_brings_what_is_near_together(tmp_path):
    found = fitted(planted(), tmp_path, blend=None, bands={**TAUGHT, "km": [25], "whitened": False})
    losses = [epoch["validation_loss"] for epoch in found.history]
    assert losses[found.best] < losses[0] - 0.1
    assert found.figures["trainable_parameters"] == 2 * 14 + 2 * 14 * 16 + 16 + 14


def test_ceilings_by_hand(tmp_path):
    """The first validation photo has a photo within 25 km in the second cell alone; the other has none."""
    cells = space([0.0, 10.0], [0.0, 0.0])
    known = data(cells, np.eye(2)[[0, 1, 0, 0]], [0, 1, 1, 1], [0, 10, 10.1, 50], [0.0] * 4,
                 said=[[1, 0], [0, 1], [0.9, 0.1], [0.9, 0.1]], held_out=2)  # fmt: skip
    narrow = fitted(known, tmp_path, gate={"mass": 0.5}).figures
    assert (narrow["ceiling_25km_gallery"], narrow["ceiling_25km_gate"], narrow["gate_cells"]) == (50, 0, 1)
    wide = fitted(known, tmp_path, gate={"mass": 0.95}).figures
    assert (wide["ceiling_25km_gallery"], wide["ceiling_25km_gate"], wide["gate_cells"]) == (50, 50, 2)


def test_figures_by_hand(tmp_path):
    """The model says the Gulf of Guinea twice; the first photo is 0.1° from one that looks alike, the other 50° off."""
    cells = space([0.0, 10.0], [0.0, 0.0])
    known = data(cells, np.eye(2)[[0, 1, 1, 0]], [0, 1, 1, 1], [0, 10, 10.1, 50], [0.0] * 4,
                 said=[[1, 0], [0, 1], [0.6, 0.4], [0.6, 0.4]], held_out=2)  # fmt: skip
    figures = fitted(known, tmp_path, readout={"cells": 2, "temperature": 1}).figures
    degree = float(haversine_km(0, 0, 1, 0))
    assert [figures[f"within_{km}km_cells"] for km in (1, 25, 200, 750)] == [0, 0, 0, 0]
    assert [figures[f"within_{km}km_nearest"] for km in (1, 25, 200, 750)] == [0, 50, 50, 50]
    assert [figures[f"within_{km}km_readout"] for km in (1, 25, 200, 750)] == [0, 0, 0, 0]
    assert figures["median_km_cells"] == pytest.approx((10.1 + 50) / 2 * degree, abs=0.05)
    assert figures["median_km_nearest"] == pytest.approx((0.1 + 50) / 2 * degree, abs=0.05)


def test_calibration_changes_no_order(tmp_path):
    known = planted(600)
    model = fitted(known, tmp_path).model
    assert model.calibration != 1
    batch = known.batch(known.units(known.validation))
    one, other = model.predict(batch, 8), replace(model, calibration=1.0).predict(batch, 8)
    np.testing.assert_array_equal(one.classes, other.classes)
    np.testing.assert_allclose(one.probabilities.sum(axis=1), 1, rtol=1e-3)
    assert (np.diff(one.probabilities[:, :2]) <= 1e-6).all()

    def surprise(calibration):
        told = replace(model, calibration=calibration).predict(batch, 8, known.targets[known.validation])
        return -np.log(told.truth.probability).mean()

    best = surprise(model.calibration)
    assert best < min(surprise(0.7 * model.calibration), surprise(1.4 * model.calibration))


def test_it_is_the_same_each_time(tmp_path):
    known = planted(300)
    more = {"whitening": {}, "csls": {}, "rerank": {}, "bands": {"epochs": 2, "hidden": 4}, "precision": "int8"}
    for name in ("one", "other"):
        folder = tmp_path / name
        folder.mkdir()
        fitted(known, tmp_path / f"made {name}", **more).model.save(folder)
    for path in (tmp_path / "one").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "other" / path.relative_to(tmp_path / "one")).read_bytes(), path


def test_the_photos_of_a_place_count_as_their_mean(tmp_path):
    places = np.array(["p", "p", "q", "q", "r"], object)
    seen = [[3, 1], [-3, 1], [1, 3], [1, -3], [1, 0]]
    known = data(space([0.0], [0.0]), seen, [0] * 5, [1, 1, 2, 2, 0], [0.0] * 5, places=places, headings=np.zeros(5))
    model = model_of(known, tmp_path)
    np.testing.assert_allclose(model.gallery.vectors, [[0, 1], [1, 0]], atol=1e-3)
    assert model.gallery.names[np.arange(2)].tolist() == ["é0", "é2"]
    batch = Batch({"seen": np.array([[9, 1], [-9, 1]], np.float16), "said": np.ones((1, 1))}, starts=np.array([0, 2]))
    assert replace(model, under=under(space([0.0], [0.0]))).predict(batch).latitude.tolist() == [1]


@pytest.mark.parametrize(
    ("name", "at", "value", "says"),
    [
        ("cells", 0, 1, "cells: expected ascending positions from 0"),
        ("cells", 3, 0, "cells: expected ascending positions from 0"),
        ("ends", 0, 1, "ends: expected ascending positions from 0"),
        ("ends", 3, 0, "ends: expected ascending positions from 0"),
    ],
)
def test_positions_that_cannot_be_are_refused(tmp_path, name, at, value, says):
    made_models.retrieval().save(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors[name][at] = value  # all others ascend as before
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=says):
        load(tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda held: {"vectors": held["vectors"].astype(np.int64)},
            "vectors int64 .*expected float32, float16 or int8",
        ),
        (lambda held: {"vectors": held["vectors"][:, 0]}, r"vectors int8 \(20,\), expected"),
        (lambda held: {"vectors": held["vectors"][:, 1:]}, "vectors of 7, expected 8"),
        (lambda held: {"vectors": held["vectors"][1:]}, "expected 20 each"),
        (lambda held: {"scale": held["scale"][1:]}, "expected 20 each"),
        (lambda held: {"bias": held["bias"][1:]}, "expected 20 each"),
        (lambda held: {"bias": held["bias"][:, None]}, "expected 20 each"),
        (lambda held: {name: held[name][:, None] for name in ("scale", "bias")}, "expected 20 each"),
    ],
)
def test_vectors_that_do_not_fit_are_refused(tmp_path, change, says):
    made_models.retrieval().save(tmp_path)
    held = load_file(tmp_path / galleries.VECTORS)
    save_file(
        {name: np.ascontiguousarray(v) for name, v in (held | change(held)).items()}, tmp_path / galleries.VECTORS
    )
    with pytest.raises(UserError, match=says):
        load(tmp_path)


@pytest.mark.parametrize("key", ["variant", "encoder"])
def test_the_card_of_another_model_is_refused(tmp_path, key):
    made_models.retrieval().save(tmp_path)
    card = json.loads((tmp_path / "retrieval.json").read_text())
    (tmp_path / "retrieval.json").write_text(json.dumps(card | {key: "another"}))
    with pytest.raises(UserError, match=r"another.*; expected .* by one of "):
        load(tmp_path)


def test_no_photo_in_any_cell_is_said(tmp_path):
    known = data(TOWNS, SEEN, TARGETS, [np.nan] * 6, LONGITUDES)
    with pytest.raises(UserError, match="none of the training photos lies in a cell"):
        fitted(known, tmp_path)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"gate": {"mass": 0}}, "mass"),
        ({"gate": {"mass": 1.5}}, "mass"),
        ({"precision": "int4"}, "precision"),
        ({"rerank": {"candidates": 1}}, "candidates"),
        ({"bands": {"km": []}}, "km"),
        ({"neighbours": None, "gate": {}}, "gate: nothing is retrieved without neighbours"),
        ({"blend": {"own": 0.5}}, "blend: without bands there are no heads"),
        ({"bands": {}, "blend": None, "whitening": {}}, "whitening: without blend"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_entries_that_cannot_be_are_refused(more, says):
    with pytest.raises(ValidationError, match=says):
        options(**more)


def test_defaults_are_the_published_recipe():
    block = Options(kind="retrieval", corpus="c", variant="cells", encoder="e", labels="cells")
    kept = Settings.of(block)
    assert (kept.prior, kept.own, kept.whitened, kept.heads, kept.csls, kept.gain) == (0.05, 0.34, True, 2, True, 2)
    assert (block.bands.km, block.bands.temperature, block.rerank.candidates) == ((10, 25), 0.07, 100)
    assert (kept.gate.mass, kept.gate.most, kept.readout.within_km) == (0.95, 400, 1000)


@pytest.mark.parametrize(
    ("more", "kept"),
    [
        ({}, (1, False, 0, False)),
        ({"whitening": {}}, (1, True, 0, False)),
        ({"bands": {}, "blend": None}, (0, False, 2, False)),
        ({"bands": {"km": [1, 2, 3]}, "blend": {"own": 0.5}, "whitening": {}}, (0.5, True, 3, False)),
        ({"bands": {"whitened": True}, "whitening": {}}, (0.34, True, 2, True)),
        ({"bands": {"whitened": True}}, (0.34, False, 2, False)),
    ],
)
def test_what_is_compared_follows_from_the_steps(more, kept):
    found = Settings.of(options(**more))
    assert (found.own, found.whitened, found.heads, found.heads_whitened) == kept


def test_as_many_photos_are_listed_as_are_named_or_ranked():
    for neighbours, rerank, length in ((3, None, 3), (3, 7, 7), (9, 7, 9)):
        ranked = None if rerank is None else {"candidates": rerank}
        assert Settings.of(options(neighbours={"count": neighbours}, rerank=ranked)).length == length
