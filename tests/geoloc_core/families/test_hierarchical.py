"""A quadtree learned level by level, and offsets in its leaves: transcriptions, and cases worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from geoloc_core.contracts.batch import Batch, Data, Run
from geoloc_core.contracts.geolocator import load
from geoloc_core.errors import UserError
from geoloc_core.families.hierarchical import (
    REACH,
    Extents,
    Options,
    ancestors,
    boxes_of,
    fit,
    loss_of,
    network,
)
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.geo.sphere import haversine_km

from .made_models import hierarchical

IDS = ["1/0/0", "2/2/0", "2/3/0", "2/2/1", "3/6/2", "3/7/3"]
"""The south-west quarter, three sixteenths of the south-east, and two small boxes of its last sixteenth."""


def space(ids=IDS, latitudes=None, longitudes=None) -> LabelSpace:
    known = LabelSpace("geocell", list(ids), list(ids), [""] * len(ids), np.zeros(len(ids)), np.zeros(len(ids)))
    south, west, north, east = boxes_of(known).bounds
    lat = (south + north) / 2 if latitudes is None else np.asarray(latitudes, float)
    return replace(known, latitudes=lat, longitudes=(west + east) / 2 if longitudes is None else np.asarray(longitudes))


def test_boxes_of_coarser_levels_hold_their_leaves():
    first, second = ancestors(boxes_of(space()))
    assert len(set(first[1:].tolist())) == 1, "all but the first leaf lie in the south-east quarter"
    assert first[0] != first[1]
    assert second[4] == second[5], "the small ones are of one sixteenth"
    assert len(set(second.tolist())) == 5, "a leaf of a quarter is a box of its own"
    assert ancestors(boxes_of(space(["0/0/0"]))) == []


def test_a_mean_off_the_middle_is_zero_and_the_edges_are_one_on_either_side():
    extents = Extents.of(space(["2/3/3"], [80.0], [170.0]))  # 45…90° north, 90…180° east
    points = np.array([[80, 170], [90, 180], [45, 90], [85, 150]], float).T
    shares = extents.shares(np.zeros(4, int), *points)
    np.testing.assert_allclose(shares, [[0, 0], [1, 1], [-1, -1], [0.5, -0.25]], atol=1e-12)
    back = extents.places(np.zeros(4, int), shares)
    np.testing.assert_allclose(back, points, atol=1e-9)
    over = extents.places(np.zeros(1, int), np.full((1, 2), 1.2))
    assert (over[0][0], over[1][0]) == (90, pytest.approx(-178)), "past 180° east, and no farther than the pole"
    beyond = extents.shares(np.zeros(1, int), np.array([44.0]), np.array([-175.0]))
    assert beyond.tolist() == [[-1, 1]], "a point outside counts as at the edge, the short way round"


def test_a_mean_at_the_edge_leaves_no_way_there():
    extents = Extents.of(space(["1/0/0"], [-90.0], [0.0]))  # the quarter from 90° south and 180° west to 0, 0
    shares = extents.shares(np.zeros(2, int), np.array([-90.0, -45.0]), np.array([0.0, -90.0]))
    np.testing.assert_allclose(shares, [[0, 0], [0.5, -0.5]])
    back = extents.places(np.zeros(1, int), np.array([[-1.2, -1.2]]))
    assert (back[0][0], back[1][0]) == (-90, pytest.approx(144)), "no farther than the pole, and past 180° west"


@pytest.mark.parametrize("hidden", [(), (8,), (16, 8)])
@pytest.mark.parametrize("offsets", [False, True])
def test_with_and_without_offsets_it_opens_as_it_was_saved(tmp_path, hidden, offsets):
    made = hierarchical()
    torch.manual_seed(1)
    tensors = {name: torch.randn(of.shape).numpy() for name, of in network(3, hidden, 6, offsets).state_dict().items()}
    tensors |= {name: made.model.tensors[name] for name in ("mean", "std", "temperature")}
    made = replace(made, model=replace(made.model, tensors=tensors))
    made.save(tmp_path)
    batch = Batch({"b": np.random.default_rng(3).normal(size=(5, 3)).astype(np.float32)})
    found, loaded = (of.model.predict(batch, 6) for of in (made, load(tmp_path)))
    np.testing.assert_array_equal(loaded.classes, found.classes)
    np.testing.assert_array_equal(loaded.latitudes, found.latitudes)
    means = made.labelspace.latitudes[found.classes]
    assert np.array_equal(found.latitudes, means) != offsets, "the mean of its photos, where no offset was learned"
    x = torch.from_numpy(batch.images["b"])
    shares = made.model.differentiable().logits(x).softmax(dim=1).gather(1, torch.from_numpy(found.classes))
    np.testing.assert_allclose(shares, found.probabilities, rtol=1e-4)


def test_classes_that_are_no_boxes_are_refused(tmp_path):
    made = hierarchical()
    made.save(tmp_path)
    for wrong in ("x", "1/2", "1/2/x"):
        replace(made.labelspace, ids=["1/0/0", "2/2/0", "2/3/0", "2/2/1", "3/6/2", wrong]).save(
            tmp_path / "labels.json"
        )
        with pytest.raises(UserError, match="expected level/column/row"):
            load(tmp_path)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_any_point_of_a_box_comes_back(seed):
    rng = np.random.default_rng(seed)
    level = rng.integers(0, 8, 20)
    ids = [f"{z}/{rng.integers(0, 2**z)}/{rng.integers(0, 2**z)}" for z in level]
    south, west, north, east = boxes_of(space(ids)).bounds
    inside = [south + rng.random(20) * (north - south), west + rng.random(20) * (east - west)]
    points = [south + rng.random(20) * (north - south), west + rng.random(20) * (east - west)]
    extents, cells = Extents.of(space(ids, *inside)), np.arange(20)
    far = np.abs(points[1] - inside[1]) < 180  # in the box that is the world, the short way is another
    back = extents.places(cells, extents.shares(cells, *points))
    np.testing.assert_allclose(back[0], points[0], atol=1e-6)
    np.testing.assert_allclose(back[1][far], points[1][far], atol=1e-6)


def test_the_loss_equals_its_literal_transcription():
    rng = np.random.default_rng(1)
    logits, offsets = rng.normal(size=(5, 6)), rng.normal(size=(5, 6, 2))
    cells, shares = rng.integers(0, 6, 5), rng.uniform(-1, 1, (5, 2))
    leaves = [tuple(map(int, name.split("/"))) for name in IDS]
    total = 0.0
    for b in range(5):
        p = np.exp(logits[b]) / np.exp(logits[b]).sum()
        total -= np.log(p[cells[b]])
        for level in (1, 2):
            holds = [(z, x, y) if z <= level else (level, x >> z - level, y >> z - level) for z, x, y in leaves]
            total -= 0.7 * np.log(sum(p[c] for c in range(6) if holds[c] == holds[cells[b]]))
        apart = 1.2 * np.tanh(offsets[b, cells[b]]) - shares[b]
        total += 0.3 * (apart**2).mean()
    levels = [torch.from_numpy(found) for found in ancestors(boxes_of(space()))]
    given = torch.from_numpy(logits), torch.from_numpy(offsets), (torch.from_numpy(cells), torch.from_numpy(shares))
    assert float(loss_of(*given, levels, (0.7, 0.3))) == pytest.approx(total / 5)
    sunk = torch.tensor([[0.0, -200, -200, -200, -200, -200]]), None, (torch.tensor([1]), torch.zeros(1, 2))
    least = -np.log(1e-12)  # what a box counts as whose probability has sunk to zero
    assert float(loss_of(*sunk, levels, (1.0, 1.0))) == pytest.approx(200 + 2 * least, rel=1e-5)
    leaf = float(torch.nn.functional.cross_entropy(given[0], given[2][0]))
    assert float(loss_of(given[0], None, given[2], levels, (0.0, 0.3))) == pytest.approx(leaf)
    without = float(loss_of(given[0], None, given[2], levels, (0.7, 0.3)))
    assert float(loss_of(*given, levels, (0.7, 0.0))) == pytest.approx(without), "an offset that weighs nothing"
    assert without > leaf


def test_it_answers_in_numpy_as_the_network_does():
    model = hierarchical().model
    net = network(3, (16, 8), 6, offsets=True)
    own = {name: torch.from_numpy(model.tensors[name]) for name in net.state_dict()}
    net.load_state_dict(own)
    x = np.random.default_rng(2).normal(size=(9, 3)).astype(np.float32)
    logits, offsets = (found.detach().numpy() for found in net((torch.from_numpy(x) - 1) / 2))
    found = model.predict(Batch({"b": x}), 6)
    p = np.exp(logits / 1.5) / np.exp(logits / 1.5).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.probabilities, -np.sort(-p, axis=1), rtol=1e-4)
    for row in range(9):
        for rank, cell in enumerate(found.classes[row]):
            place = model.extents.places(np.array([cell]), REACH * np.tanh(offsets[row, [cell]].astype(float)))
            got = found.latitudes[row, rank], found.longitudes[row, rank]
            np.testing.assert_allclose(got, [axis[0] for axis in place], atol=1e-3)
    np.testing.assert_array_equal(found.latitude, found.latitudes[:, 0])


def lesson(seed=3, n=600) -> Data:
    """Where a photo is can be read off its features, but for the box: two numbers say where in it."""
    rng = np.random.default_rng(seed)
    cells = space(["3/4/4", "3/5/4", "3/4/5", "3/1/2"])
    targets, within = rng.integers(0, 4, n), rng.uniform(-1, 1, (n, 2))
    latitudes, longitudes = Extents.of(cells).places(targets, within)
    seen = np.concatenate([np.eye(4)[targets] * 3, within, rng.normal(size=(n, 2)) / 5], axis=1)
    return Data(
        images={"seen": seen.astype(np.float16)}, texts={}, answers={}, space=cells, targets=targets,
        training=np.arange(400), validation=np.arange(400, n), latitudes=latitudes, longitudes=longitudes,
    )  # fmt: skip


def options(**more) -> Options:
    recipe = {"batch": 64, "epochs": 12, "optimiser": {"kind": "adam", "lr": 0.01}}
    given = {
        "kind": "hierarchical",
        "corpus": "c",
        "encoder": "seen",
        "labels": "tree",
        "hidden": [16],
        "recipe": recipe,
    }
    return Options.model_validate(given | more)


def taught(folder, known=None, **more):
    return fit(known or lesson(), options(**more), Run(1, folder / "checkpoint.pt", [], lambda metrics, step: None))


def test_offsets_bring_answers_nearer_than_the_means_of_leaves(tmp_path):
    known, medians = lesson(), {}
    for name, weight in (("offset", 1.0), ("mean", 0.0)):
        found = taught(tmp_path / name, offset=weight)
        answer = found.model.predict(known.batch(known.units(known.validation)), 3)
        km = haversine_km(
            answer.latitude, answer.longitude, *(v[known.validation] for v in (known.latitudes, known.longitudes))
        )
        medians[name] = np.median(km)
        assert found.history[found.best]["validation_accuracy"] > 95
    assert medians["offset"] < medians["mean"] * 0.7
    assert found.figures["levels"] == 3
    assert "offsets.weight" not in found.model.tensors


def test_it_is_the_same_each_time(tmp_path):
    one, other = (taught(tmp_path / name).model for name in ("one", "other"))
    for name, tensor in one.tensors.items():
        np.testing.assert_array_equal(tensor, other.tensors[name])


def test_what_cannot_be_learned_is_said(tmp_path):
    known = lesson()
    lost = replace(known, latitudes=np.where(np.arange(600) == 7, np.nan, known.latitudes))
    with pytest.raises(UserError, match="1 training photos have no coordinates"):
        taught(tmp_path, lost)
    with pytest.raises(UserError, match="not the cells of a quadtree"):
        taught(tmp_path, replace(known, space=replace(known.space, ids=["a", "b", "c", "d"])))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"hidden": [10]}, "10: expected 8 or more, a multiple of 4"),
        ({"hidden": [4]}, "4: expected 8 or more"),
        ({"coarse": -1}, "coarse"),
        ({"recipe": {"optimiser": {"kind": "adam", "lr": 0.1, "rates": {"attention": 0.1}}}}, "attention"),
        ({"recipe": {"weights": {"kind": "inverse_frequency"}}}, "weighs all photos alike"),
    ],
)
def test_entries_that_cannot_be_are_refused(more, says):
    with pytest.raises(ValidationError, match=says):
        options(**more)
