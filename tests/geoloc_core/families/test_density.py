"""The mixture of von Mises–Fisher distributions: literal transcriptions, and cases worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from geoloc_core.contracts.batch import Batch, Data, Run
from geoloc_core.contracts.density import HasDensity, region_of
from geoloc_core.errors import UserError
from geoloc_core.families import density as densities
from geoloc_core.families.density import (
    Density,
    Options,
    concentrations,
    fit,
    kappa_of,
    log_normaliser,
    loss_of,
    network,
)
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.geo.sphere import EARTH_KM, coordinates, evenly, haversine_km, lattice, unit_vectors

from .made_models import density


def space(latitudes, longitudes) -> LabelSpace:
    ids = [f"cell{n}" for n in range(len(latitudes))]
    return LabelSpace("geocell", ids, ids, [""] * len(ids), np.array(latitudes, float), np.array(longitudes, float))


def mixture(latitudes, longitudes, kappa, background=1e-9) -> Density:
    """A model whose features are the logarithms of its weights."""
    count = len(kappa)
    layers = [(np.eye(count, dtype="f"), np.zeros(count, "f"))]
    cells = space(latitudes, longitudes)
    return Density("b", cells, np.zeros(count, "f"), np.ones(count, "f"), layers, np.array(kappa, float), background)


def said(*weights) -> Batch:
    return Batch({"b": np.log(np.atleast_2d(np.array(weights))).astype(np.float32)})


def test_the_density_equals_its_literal_transcription_and_adds_up_to_one():
    model = density().model
    assert isinstance(model, HasDensity)
    x = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    points = lattice(120)
    lat, lon = coordinates(points)
    weights = model.weights(Batch({"b": x}))
    for row in range(4):
        wide = replace(model, kappa=np.minimum(model.kappa, 500.0))  # that the lattice can resolve
        total = np.zeros(len(points))
        for c in range(6):
            kappa, centre = wide.kappa[c], unit_vectors(wide.labelspace.latitudes[c], wide.labelspace.longitudes[c])
            peak = kappa / (2 * np.pi * (1 - np.exp(-2 * kappa)))
            total += 0.99 * weights[row, c] * peak * np.exp(kappa * (points @ centre - 1))
        total += 0.01 / (4 * np.pi)
        batch = Batch({"b": np.repeat(x[row : row + 1], len(points), axis=0)})
        found = wide.log_density(batch, lat, lon)
        np.testing.assert_allclose(found, np.log(total), rtol=1e-6, atol=1e-6)
        assert np.exp(found).mean() * 4 * np.pi == pytest.approx(1, rel=1e-3)


def test_a_region_holds_the_draws_at_its_level():
    level, area = region_of(np.array([[4.0, 0, 3, 1, 2]]), 0.5)
    assert level == [2]
    np.testing.assert_allclose(area, np.exp([-2.0, -3, -4]).sum() / 5 * EARTH_KM**2)


@pytest.mark.parametrize("kappa", [1e-6, 0.5, 30.0, 1e6])
def test_the_normaliser_is_that_of_the_sphere(kappa):
    exact = (
        np.log(kappa) - np.log(4 * np.pi) - np.log(np.sinh(kappa)) + kappa if kappa < 300 else np.log(kappa / 2 / np.pi)
    )
    assert log_normaliser(np.array(kappa)) == pytest.approx(exact, abs=1e-6)


def test_where_nothing_is_known_nothing_is_said():
    found = density().model.log_density(Batch({"b": np.zeros((2, 3))}), np.array([np.nan, 0]), np.array([0.0, 0]))
    assert np.isfinite(found).tolist() == [False, True]


def test_the_answer_is_the_highest_point_and_not_the_heaviest_component():
    """Two components next to each other are higher together, though each has less weight than the third."""
    model = mixture([10, 10, -40], [179.9, -179.9, 0], [2e4, 2e4, 2e4])
    found = model.predict(said([0.3, 0.31, 0.39]), 3)
    assert found.classes[0].tolist() == [2, 1, 0]
    assert (found.latitude[0], found.longitude[0]) == (10, -179.9), "across the antimeridian"
    assert (found.latitudes[0, 0], found.longitudes[0, 0]) == (10, -179.9)
    assert found.probabilities[0] == pytest.approx([0.39, 0.31, 0.3])


def test_the_highest_point_is_found_among_many_components():
    """Forty far apart, the first half as heavy as can be and wide; one of the last is lighter, and far sharper."""
    latitudes, longitudes = coordinates(evenly(40))
    weights = np.where(np.arange(40) < 20, 0.045, 0.005)
    for sharp in (33, 39):
        kappa = np.where(np.arange(40) == sharp, kappa_of(5), kappa_of(100))
        found = mixture(latitudes, longitudes, kappa).predict(said(weights))
        assert found.latitude[0] == latitudes[sharp]
        assert found.longitude[0] == longitudes[sharp]
    heavy = np.where(np.arange(40) == 37, 0.61, 0.01)
    same = mixture(latitudes, longitudes, np.full(40, kappa_of(100))).predict(said(heavy))
    assert (same.latitude[0], same.longitude[0]) == (latitudes[37], longitudes[37])


def test_many_places_are_looked_up_in_blocks(monkeypatch):
    model, rng = density().model, np.random.default_rng(4)
    weights, points = rng.dirichlet(np.ones(6), 7), rng.normal(size=(7, 3, 3))
    points /= np.linalg.norm(points, axis=2, keepdims=True)
    whole = model.at(weights, points)
    for block in (1, 2 * 3 * 7):  # a unit, and two units, at a time
        monkeypatch.setattr(densities, "BLOCK", block)
        np.testing.assert_allclose(model.at(weights, points), whole, rtol=1e-12)


def test_the_draws_of_a_unit_do_not_depend_on_the_others():
    model, weights = density().model, np.random.default_rng(5).dirichlet(np.ones(6), 4)
    whole = model.draw(weights)
    assert whole.shape == (4, 512, 3)
    for row in range(4):
        np.testing.assert_allclose(model.draw(weights[row : row + 1])[0], whole[row], atol=1e-9)
    assert (model.draw(weights[:1], seed=1) != whole[0]).any()


@pytest.mark.parametrize("place", [(0, 180), (90, 0), (-33, 151)])
def test_region_and_radius_of_one_component_are_a_cap(place):
    kappa = kappa_of(300.0)
    model = mixture([place[0]], [place[1]], [kappa])
    height = -np.log(1 - 0.9) / kappa  # 1 − cos of the radius that holds 90 %
    radius = EARTH_KM * np.arccos(1 - height)
    level, area = model.region(said([1.0]))
    assert model.predict(said([1.0])).radius_km[0] == pytest.approx(radius, rel=0.06)
    assert area[0] == pytest.approx(2 * np.pi * EARTH_KM**2 * height, rel=0.12)
    assert level[0] == pytest.approx(log_normaliser(np.array(kappa)) - kappa * height, abs=0.2)


def test_a_region_of_two_far_components_is_far_smaller_than_the_cap_that_holds_both():
    model = mixture([0, 0], [0, 90], [kappa_of(100)] * 2)
    _, area = model.region(said([0.5, 0.5]))
    found = model.predict(said([0.5, 0.5]))
    assert found.radius_km[0] > 9000
    assert area[0] == pytest.approx(2 * 2 * np.pi * 100**2 * np.log(10), rel=0.12), "that of two caps"


def test_draws_lie_where_the_density_says():
    model = mixture([20, -50], [30, -120], [50.0, 400.0], background=0.1)
    weights = model.weights(said([0.7, 0.3]))
    points = model.draw(weights, 20_000)[0]
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1, atol=1e-9)
    near = points @ model.components[0].T
    limit = np.cos(np.radians(20))
    exact = [0.9 * w * (1 - np.exp(-k * (1 - limit))) + 0.1 * (1 - limit) / 2 for w, k in ((0.7, 50), (0.3, 400))]
    assert (near[:, :2] >= limit).mean(axis=0) == pytest.approx(exact, abs=0.01)


def test_concentrations_are_those_that_fit_the_places():
    model = mixture([40, -10], [179.5, 20], [kappa_of(80), kappa_of(700)], background=1e-9)
    points = np.concatenate([model.draw(model.weights(said(w)), 4000)[0] for w in ([1, 1e-12], [1e-12, 1])])
    found = concentrations(points, np.repeat([0, 1], 4000), 4, 5.0)
    assert found[:2] == pytest.approx([kappa_of(80), kappa_of(700)], rel=0.05)
    assert found[2:].tolist() == [kappa_of(50)] * 2, "of classes without places"
    same = concentrations(np.repeat(points[:1], 9, axis=0), np.zeros(9, int), 1, 5.0)
    assert same[0] == pytest.approx(kappa_of(5)), "no sharper than the least"
    few = np.array([[1, 0, 0], [0, 1, 0], [0, -1, 0], [0.96, 0.28, 0], [0.96, -0.28, 0]], float)
    found = concentrations(few, np.array([0, 1, 1, 2, 2]), 3, 5.0)
    assert found[0] == pytest.approx(kappa_of(50)), "one place says nothing of how far others are"
    assert found[1] == pytest.approx(kappa_of(3000)), "on opposite sides of the Earth: no wider than the widest"
    assert found[2] == pytest.approx(0.96 * (3 - 0.9216) / 0.0784)


def test_concentrations_are_learned_between_the_widest_and_the_sharpest():
    kappa = np.array([kappa_of(5000), kappa_of(3000), kappa_of(70), kappa_of(5), kappa_of(1)])
    found = network(2, (), kappa, 5.0).kappa().detach().numpy()
    assert found == pytest.approx([kappa_of(km) for km in (3000, 3000, 70, 5, 5)], rel=1e-5)
    assert kappa_of(1) == pytest.approx(EARTH_KM**2), "a radian over the standard deviation, squared"


def test_the_loss_equals_the_density():
    rng = np.random.default_rng(2)
    model = mixture(rng.uniform(-90, 90, 5), rng.uniform(-180, 180, 5), rng.uniform(1, 5000, 5), 0.02)
    logits = rng.normal(size=(7, 5)).astype(np.float32)
    lat, lon = rng.uniform(-90, 90, 7), rng.uniform(-180, 180, 7)
    lat[0], lon[0] = model.labelspace.latitudes[2], model.labelspace.longitudes[2]
    squares = ((unit_vectors(lat, lon)[:, None] - model.components[0][:-1]) ** 2).sum(axis=2)
    tensors = (torch.from_numpy(values) for values in (logits.astype(float), model.kappa, squares))
    exact = -model.log_density(Batch({"b": logits}), lat, lon).mean()
    assert float(loss_of(*tensors, 0.02)) == pytest.approx(exact, rel=1e-6)


def lesson(n=800, seed=3) -> Data:
    """Half of the photos look like two towns at once."""
    rng = np.random.default_rng(seed)
    cells = space([50, 51, -20, 10], [179.7, -179.6, 30, 100])
    targets = rng.integers(0, 4, n)
    looks = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])[targets] * 4 + rng.normal(size=(n, 3)) / 2
    points = unit_vectors(cells.latitudes, cells.longitudes)[targets] + rng.normal(size=(n, 3)) * 0.01
    latitudes, longitudes = coordinates(points)
    return Data(
        images={"seen": looks.astype(np.float16)}, texts={}, answers={}, space=cells, targets=targets,
        training=np.arange(n // 2), validation=np.arange(n // 2, n), latitudes=latitudes, longitudes=longitudes,
    )  # fmt: skip


def taught(folder, known=None, **more):
    recipe = {"batch": 64, "epochs": 10, "optimiser": {"kind": "adamw", "lr": 0.02}}
    given = {"kind": "density", "corpus": "c", "encoder": "seen", "labels": "cells", "hidden": [8], "recipe": recipe}
    block = Options.model_validate(given | more)
    return fit(known or lesson(), block, Run(1, folder / "checkpoint.pt", [], lambda metrics, step: None))


def test_it_learns_where_photos_are_and_how_sure_that_is(tmp_path):
    known = lesson()
    found = taught(tmp_path, known)
    batch = known.batch(known.units(known.validation))
    places = known.latitudes[known.validation], known.longitudes[known.validation]
    nll = -found.model.log_density(batch, *places).mean()
    assert nll == pytest.approx(found.figures["validation_density_nll"], abs=1e-3)
    assert nll < np.log(4 * np.pi) - 4, "far better than the whole sphere"
    answer = found.model.predict(batch, 4)
    km = haversine_km(answer.latitude, answer.longitude, *places)
    assert np.median(km) < 250
    assert (km <= answer.radius_km).mean() == pytest.approx(0.9, abs=0.06), "90 % lie within the radius"
    level, _ = found.model.region(batch)
    inside = found.model.log_density(batch, *places) >= level
    assert inside.mean() == pytest.approx(0.9, abs=0.06), "and 90 % in the region"
    spread = EARTH_KM / np.sqrt(found.model.kappa)
    assert spread == pytest.approx([64] * 4, rel=0.3)
    typical = EARTH_KM / np.sqrt(np.median(found.model.kappa))
    assert found.figures["median_spread_km"] == pytest.approx(typical, abs=0.051)
    right = answer.classes[:, 0] == known.targets[known.validation]
    assert found.history[found.best]["validation_accuracy"] == pytest.approx(100 * right.mean())
    assert found.figures["trainable_parameters"] == (3 * 8 + 8) + (8 * 4 + 4) + 4


def test_it_is_the_same_each_time(tmp_path):
    one, other = (taught(tmp_path / name).model for name in ("one", "other"))
    np.testing.assert_array_equal(one.kappa, other.kappa)
    for (weight, bias), (same, too) in zip(one.layers, other.layers, strict=True):
        np.testing.assert_array_equal(weight, same)
        np.testing.assert_array_equal(bias, too)


def test_photos_without_coordinates_are_left_out_and_counted(tmp_path):
    known = lesson()
    lost = replace(known, latitudes=np.where(np.arange(800) % 2 == 0, np.nan, known.latitudes))
    assert taught(tmp_path, lost).figures["without_coordinates"] == 200
    with pytest.raises(UserError, match="none of the validation photos has coordinates"):
        taught(tmp_path, replace(known, latitudes=np.where(np.arange(800) >= 400, np.nan, known.latitudes)))


@pytest.mark.parametrize("row", [3, 500])
def test_a_feature_that_is_no_number_is_said(tmp_path, row):
    known = lesson()
    known.images["seen"][row, 1] = np.nan
    with pytest.raises(UserError, match="are not finite numbers"):
        taught(tmp_path, known)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"background": 0}, "background"),
        ({"least_km": 0}, "least_km"),
        ({"recipe": {"optimiser": {"kind": "adamw", "lr": 0.1, "rates": {"trunk": 0.1}}}}, "trunk"),
    ],
)
def test_entries_that_cannot_be_are_refused(tmp_path, more, says):
    with pytest.raises(ValidationError, match=says):
        taught(tmp_path, **more)
