"""Flow matching on the sphere: literal transcriptions in float64, flows with a closed form, and what it learns."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from geoloc_core.contracts.batch import Batch, Run
from geoloc_core.contracts.density import HasDensity
from geoloc_core.errors import UserError
from geoloc_core.families.flow_matching import Options, fit, flow
from geoloc_core.families.flow_matching import model as models
from geoloc_core.families.flow_matching.learning import loss_of
from geoloc_core.families.flow_matching.model import central
from geoloc_core.families.flow_matching.network import FASTEST, network
from geoloc_core.geo.sphere import EARTH_KM, coordinates, evenly, haversine_km, lattice, unit_vectors

from .made_models import flow_matching, photos
from .test_density import lesson

EDGES = unit_vectors([90, -90, 0, 0, 89.9999], [0, 0, 180, -180, 12])


def points(count: int, seed: int = 0) -> np.ndarray:
    """Points (count, 3) anywhere, the poles and the date line among them."""
    found = np.random.default_rng(seed).normal(size=(count, 3))
    found[: len(EDGES)] = EDGES[:count]
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def t(values) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values))


def log_map(x, y):
    """log_x(y), as in a textbook."""
    angle = np.arccos(np.clip(x @ y, -1, 1))
    return angle / np.sin(angle) * (y - np.cos(angle) * x)


def exp_map(x, v):
    """exp_x(v), as in a textbook."""
    length = np.linalg.norm(v)
    return np.cos(length) * x + np.sin(length) * v / length


def test_ways_are_geodesics_and_velocities_their_derivatives():
    noise, places = points(60, 1)[6:], points(60, 2)[6:]
    share = np.random.default_rng(3).uniform(0.01, 0.99, len(noise))
    found, velocities = flow.geodesic(t(noise), t(places), t(share))
    step = 1e-6
    for row in range(len(noise)):
        x0, x1, kappa = noise[row], places[row], share[row]

        def at(kappa, x0=x0, x1=x1):
            return exp_map(x1, (1 - kappa) * log_map(x1, x0))

        np.testing.assert_allclose(found[row], at(kappa), atol=1e-9)
        np.testing.assert_allclose(velocities[row], (at(kappa + step) - at(kappa - step)) / (2 * step), atol=1e-7)
        towards = log_map(at(kappa), x1) / (1 - kappa)
        np.testing.assert_allclose(velocities[row], towards, atol=1e-7)


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_ways_between_antipodes_and_from_a_place_to_itself_are_numbers(precision, share):
    places = t(points(20)).to(precision)
    shares = torch.full((20,), share, dtype=precision)
    for noise, length in ((-places, np.pi), (places, 0)):
        found, velocities = flow.geodesic(noise, places, shares)
        np.testing.assert_allclose(found.norm(dim=-1), 1, atol=1e-6)
        np.testing.assert_allclose(velocities.norm(dim=-1), length, atol=1e-5)
        np.testing.assert_allclose((found * velocities).sum(-1), 0, atol=1e-6)
        np.testing.assert_allclose((found * places).sum(-1), np.cos((1 - share) * length), atol=1e-6)


def test_time_is_spent_near_places_and_its_pace_is_the_derivative():
    s = np.linspace(0, 1, 41)
    way = flow.way(t(s)).numpy()
    assert way[0] == pytest.approx(0, abs=1e-12)
    assert way[-1] == pytest.approx(1, abs=1e-12)
    logistic = [1 / (1 + np.exp(-(-7 + 10 * (1 - each)))) for each in s]
    np.testing.assert_allclose(way, [(logistic[0] - each) / (logistic[0] - logistic[-1]) for each in logistic])
    numeric = (flow.way(t(s + 1e-6)) - flow.way(t(s - 1e-6))) / 2e-6
    np.testing.assert_allclose(flow.pace(t(s)), numeric, rtol=1e-6)


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=3))
def test_tangents_are_perpendicular_everywhere(values):
    x = np.array(values)
    x = x / np.linalg.norm(x) if np.linalg.norm(x) > 1e-3 else np.array([0.0, 0.0, -1.0])
    one, other = (part.numpy() for part in flow.tangents(t(x)))
    np.testing.assert_allclose(np.stack([x, one, other]) @ np.stack([x, one, other]).T, np.eye(3), atol=1e-12)


@pytest.mark.slow
def test_divergences_are_those_with_a_closed_form():
    a, x = t([0.3, -2.0, 0.7]), t(points(30))
    _, uphill = flow.divergence(lambda p: flow.project(p, a.expand_as(p)), x)
    np.testing.assert_allclose(uphill, -2 * (x @ a), atol=1e-12)
    _, turning = flow.divergence(lambda p: torch.linalg.cross(a.expand_as(p), p), x)
    np.testing.assert_allclose(turning, 0, atol=1e-12)


def test_followed_points_and_their_spread_are_those_with_a_closed_form():
    """Along v = a − (a·x) x with |a| = 1, z = a·x follows z' = 1 − z², and the divergence is −2 z."""
    a, x = t([0.0, 0.6, 0.8]), t(points(30, 4))
    z = x @ a
    x, z = x[z.abs() < 0.99], z[z.abs() < 0.99]
    for begin, end in ((0.0, 0.8), (0.8, 0.0)):
        found, spread = flow.follow(lambda p, s: flow.project(p, a.expand_as(p)), x, begin, end, 40, spread=True)
        began = torch.atanh(z)
        np.testing.assert_allclose(found @ a, torch.tanh(began + end - begin), atol=1e-6)
        exact = -2 * torch.log(torch.cosh(began + end - begin) / torch.cosh(began))
        np.testing.assert_allclose(spread, exact, atol=1e-6)
        np.testing.assert_allclose(found.norm(dim=-1), 1, atol=1e-12)


def test_the_network_equals_its_literal_transcription():
    torch.manual_seed(0)
    net = network(5, 8, 2, 3).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    known = {name: tensor.numpy() for name, tensor in net.state_dict().items()}

    def dense(name, x):
        return known[f"{name}.weight"] @ x + known[f"{name}.bias"]

    def silu(x):
        return x / (1 + np.exp(-x))

    def normed(x):
        return (x - x.mean()) / np.sqrt(x.var() + 1e-5)

    x, s, seen = points(7), np.linspace(0, 1, 7), np.random.default_rng(1).normal(size=(7, 5))
    found = net(t(x), t(s), net.told(t(seen))).detach().numpy()
    for row in range(7):
        angles = s[row] * np.exp(np.linspace(0, np.log(FASTEST), 4))
        time = dense("time.2", silu(dense("time.0", np.concatenate([np.cos(angles), np.sin(angles)]))))
        told = silu(dense("features", seen[row]) + time)
        h = dense("points", x[row])
        for block in ("blocks.0", "blocks.1"):
            shift, scale, gate = np.split(dense(f"{block}.modulation", told), 3)
            h = h + gate * dense(f"{block}.fall", silu(dense(f"{block}.rise", normed(h) * (1 + scale) + shift)))
        shift, scale = np.split(dense("modulation", told), 2)
        v = dense("out", normed(h) * (1 + scale) + shift)
        np.testing.assert_allclose(found[row], v - (v @ x[row]) * x[row], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dropped", [0.0, 1.0])
def test_the_loss_equals_its_literal_transcription(dropped):
    net, x, places = flow_matching().model.net, torch.randn(6, 3), points(6, 5).astype("f")
    torch.manual_seed(9)
    with torch.no_grad():
        found = float(loss_of(net, x, t(places), 4, dropped))
    torch.manual_seed(9)
    noise, times = torch.randn(6, 4, 3).double().numpy(), torch.rand(6, 4).double().numpy()
    total = 0.0
    for row in range(6):
        told = net.nothing if dropped else net.told(x[row])
        for number in range(4):
            x0 = noise[row, number] / np.linalg.norm(noise[row, number])
            x1 = places[row] / np.linalg.norm(places[row])
            kappa = float(flow.way(t(times[row, number])))
            at = exp_map(x1, (1 - kappa) * log_map(x1, x0))
            given = t(at).float(), t(times[row, number]).float(), told
            total += np.sum((net(*given).detach().numpy() - log_map(at, x1) / (1 - kappa)) ** 2)
    assert found == pytest.approx(total / 24, rel=1e-3)


def test_the_answer_is_the_draw_that_scores_best():
    draws = unit_vectors([[0, 0.1, 0, 80, -80]], [[179.9, -179.9, 180, 0, 0]])
    assert coordinates(central(draws)[0]) == pytest.approx((0, 180)), "the middle of three, across the date line"


def taught(folder, known, **more):
    """A small flow."""
    recipe = {"batch": 50, "noises": 32, "epochs": 8, "optimiser": {"kind": "adamw", "lr": 0.01}}
    small = {"width": 32, "depth": 1, "expansion": 2, "recipe": recipe, "sampling": {"draws": 64, "steps": 6}}
    given = {"kind": "flow_matching", "corpus": "c", "encoder": "seen", "labels": "cells"}
    block = Options.model_validate(given | small | more)
    return fit(known, block, Run(1, folder / "checkpoint.pt", [], lambda metrics, step: None))


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A flow of photos of towns that lie far apart, each 600 km wide, and what it learned from."""
    known = lesson()
    rng = np.random.default_rng(5)
    wide = unit_vectors(known.latitudes, known.longitudes) + rng.normal(size=(800, 3)) * 0.1
    latitudes, longitudes = coordinates(wide)
    known = replace(known, latitudes=latitudes, longitudes=longitudes)
    return taught(tmp_path_factory.mktemp("flow"), known), known


@pytest.mark.slow
def test_it_learns_where_photos_are(learned):
    found, known = learned
    rows = known.validation
    batch, places = known.batch(known.units(rows)), (known.latitudes[rows], known.longitudes[rows])
    assert isinstance(found.model, HasDensity)
    nll = -found.model.log_density(batch, *places).mean()
    assert nll == pytest.approx(found.figures["validation_density_nll"], abs=1e-4)
    assert nll < np.log(4 * np.pi) - 2, "far better than the whole sphere"
    rows = rows[:60]
    batch, places = known.batch(known.units(rows)), (known.latitudes[rows], known.longitudes[rows])
    answer = found.model.predict(batch, 4, known.targets[rows])
    km = haversine_km(answer.latitude, answer.longitude, *places)
    assert np.median(km) < 1000, "half the photos are 730 km from where their town is"
    assert (km <= answer.radius_km).mean() > 0.85, "90 % or more: after so little training it is wider than it need be"
    level, area = found.model.region(batch)
    inside = found.model.log_density(batch, *places) >= level
    assert inside.mean() > 0.85
    exact = 2 * np.pi * EARTH_KM**2 * 0.01 * np.log(10)  # of a normal distribution with 0.1 rad
    assert 0.8 * exact < np.median(area) < 3 * exact
    right = known.targets[rows] == answer.classes[:, 0]
    assert right.mean() > 0.6, "two of the four look alike"
    np.testing.assert_allclose(answer.probabilities.sum(axis=1), 1, atol=1e-6)
    assert (answer.latitudes[:, 0] == answer.latitude).all()


def test_the_epoch_with_the_lowest_loss_is_kept_and_the_classes_are_counted(learned):
    """The loss of validation photos is by the letter: of all of them, and of the same noise after each epoch."""
    found, known = learned
    losses = [epoch["validation_loss"] for epoch in found.history]
    assert found.best == int(np.argmin(losses)) > 0
    model, rows = found.model, known.validation
    x = (known.images["seen"][rows].astype(np.float32) - model.mean) / model.std
    torch.manual_seed(1)
    with torch.no_grad():
        places = t(unit_vectors(known.latitudes[rows], known.longitudes[rows])).float()
        loss = loss_of(model.net, t(x), places, 32, 0.0)
    assert float(loss) == pytest.approx(min(losses), rel=1e-4)
    counts = np.bincount(known.targets[known.training], minlength=len(known.space)) + 1
    np.testing.assert_allclose(model.frequencies, counts / counts.sum())


def test_an_epoch_in_which_nothing_is_learned_changes_no_figure(tmp_path):
    recipe = {"batch": 100, "noises": 2, "epochs": 3, "optimiser": {"kind": "sgd", "lr": 1e-30}}
    history = taught(tmp_path, lesson(), recipe=recipe).history
    assert len({epoch["validation_loss"] for epoch in history}) == 1
    assert len({epoch["loss"] for epoch in history}) == 3, "training draws other noise each time"


@pytest.mark.parametrize("guidance", [0.0, 0.5])
def test_draws_follow_the_field_and_more_of_it_where_guided(guidance):
    """Classifier-free guidance: v + g (v − v of nothing)."""
    model, batch = flow_matching().model, photos(5)
    x = (batch.images["b"].astype(np.float32) - model.mean) / model.std
    noise = t(evenly(20)).float().expand(5, -1, -1)

    def field(points, s):
        told, blind = (model.net(points, s.reshape(1, 1), of) for of in (model.net.told(t(x))[:, None],
                                                                         model.net.nothing))  # fmt: skip
        return flow.pace(s) * ((1 + guidance) * told - guidance * blind)

    with torch.no_grad():
        expected, _ = flow.follow(field, noise, 0.0, 1.0, model.sampling.steps)
    np.testing.assert_allclose(model.draw(batch, 20, guidance), expected, atol=1e-5)


def test_answers_by_hand():
    """Of the draws alone: the shares of the classes' places, the draw with the best score, the cap around it."""
    made = flow_matching().model
    model = replace(made, sampling=made.sampling.model_copy(update={"background": 0.1, "guidance": 0.7}))
    batch, space = photos(6), made.labelspace
    answer = model.predict(batch, 6)
    led, plain = model.draw(batch, 16, 0.7), model.draw(batch, 16)
    for row in range(6):
        latitudes, longitudes = coordinates(led[row])
        apart = haversine_km(latitudes[:, None], longitudes[:, None], space.latitudes, space.longitudes)
        shares = np.bincount(apart.argmin(axis=1), minlength=6) / 16
        expected = 0.9 * shares + 0.1 * model.frequencies
        np.testing.assert_allclose(answer.probabilities[row], np.sort(expected)[::-1], rtol=1e-5)
        np.testing.assert_allclose(expected[answer.classes[row]], answer.probabilities[row], rtol=1e-5)
        between = haversine_km(latitudes[:, None], longitudes[:, None], latitudes, longitudes)
        best = np.exp(-between / 1492.7).sum(axis=1).argmax()
        place = answer.latitude[row], answer.longitude[row]
        np.testing.assert_allclose(place, (latitudes[best], longitudes[best]), atol=1e-6)
        around = haversine_km(*place, *coordinates(plain[row]))
        assert answer.radius_km[row] == pytest.approx(np.quantile(around, 0.9), rel=1e-4)


def test_photos_are_answered_alike_however_many_at_a_time(monkeypatch):
    model, batch, spots = flow_matching().model, photos(3), np.repeat(evenly(9)[None], 3, axis=0)
    draws, density, centres = model.draw(batch, 16), model.at(batch, spots), central(model.draw(batch, 16))
    for block in (1, 1000):
        monkeypatch.setattr(models, "BLOCK", block)
        np.testing.assert_allclose(model.draw(batch, 16), draws, atol=1e-6)
        np.testing.assert_allclose(model.at(batch, spots), density, atol=1e-5)
        np.testing.assert_array_equal(central(draws), centres)
    assert model.at(Batch({"b": np.empty((0, 3), "f")}), spots[:0]).shape == (0, 9)


@pytest.mark.slow
def test_the_density_adds_up_to_one_and_says_where_draws_lie(learned):
    found, known = learned
    model = replace(found.model, sampling=found.model.sampling.model_copy(update={"steps": 10}))
    batch = known.batch(known.units(known.validation[:2]))
    spots = lattice(450)
    density = np.exp(model.at(batch, np.repeat(spots[None], 2, axis=0))) * 4 * np.pi
    np.testing.assert_allclose(density.mean(axis=1), 1, rtol=0.03)
    draws = model.draw(batch, 1000)
    np.testing.assert_allclose(np.linalg.norm(draws, axis=2), 1, atol=1e-6)
    for row in range(2):
        centre = central(draws[row : row + 1, ::8])[0]
        for degrees in (15, 40, 90):
            cap = np.cos(np.radians(degrees))
            exact = (density[row] * (spots @ centre >= cap)).mean()
            assert (draws[row] @ centre >= cap).mean() == pytest.approx(exact, abs=0.04)


def test_poles_and_antipodes_have_a_density_and_what_is_not_known_has_none(learned):
    found, known = learned
    batch = known.batch(known.units(known.validation[:5]))
    latitudes, longitudes = np.array([90, -90, 0, -51, np.nan]), np.array([0, 0, 180, 0.4, 0.0])
    density = found.model.log_density(batch, latitudes, longitudes)
    assert np.isfinite(density).tolist() == [True] * 4 + [False]
    floor = np.log(found.model.sampling.background / (4 * np.pi))
    assert (density[:4] >= floor).all()
    nobody = found.model.log_density(batch, np.full(5, np.nan), np.zeros(5))
    assert np.isnan(nobody).all()


def test_guidance_draws_places_closer_together(learned):
    found, known = learned
    batch = known.batch(known.units(known.validation[:50]))

    def spread(guidance):
        draws = found.model.draw(batch, 64, guidance)
        return np.linalg.norm(draws.mean(axis=1), axis=1).mean()

    assert spread(1.0) > spread(0.0)
    led = replace(found.model, sampling=found.model.sampling.model_copy(update={"guidance": 1.0}))
    one, other = led.predict(batch), found.model.predict(batch)
    assert (one.latitude != other.latitude).any()
    assert np.median(one.radius_km / other.radius_km) == pytest.approx(1, abs=0.3), "that of the flow as it is"


def test_noise_is_the_same_for_all_and_draws_are_the_same_each_time(learned):
    model, known = learned[0].model, learned[1]
    batch = known.batch(known.units(known.validation[:7]))
    draws = model.draw(batch, 20)
    np.testing.assert_array_equal(draws, model.draw(batch, 20))
    np.testing.assert_allclose(model.draw(batch.rows(np.array([3])), 20)[0], draws[3], atol=1e-5)
    still = replace(model, net=network(3, 32, 1, 2))
    np.testing.assert_allclose(still.draw(batch, 20)[0], evenly(20), atol=1e-6), "an untrained one moves nothing"
    np.testing.assert_allclose(still.log_density(batch, np.zeros(7), np.zeros(7)), -np.log(4 * np.pi), atol=1e-6)
    assert model.draw(Batch({"seen": np.empty((0, 3), "f")}), 5).shape == (0, 5, 3)


@pytest.mark.slow
def test_it_is_trained_the_same_each_time_and_without_photos_that_have_no_place(tmp_path):
    known = lesson()
    recipe = {"recipe": {"batch": 100, "epochs": 1, "optimiser": {"kind": "adamw", "lr": 0.01}}}
    lost = replace(known, latitudes=np.where(np.arange(800) % 2 == 0, np.nan, known.latitudes))
    one, other = (taught(tmp_path / name, lost, **recipe) for name in ("one", "other"))
    assert one.figures["without_coordinates"] == 200
    assert one.history == other.history
    for name, tensor in one.model.net.state_dict().items():
        assert torch.equal(tensor, other.model.net.state_dict()[name])
    with pytest.raises(UserError, match="none of the validation photos has coordinates"):
        taught(tmp_path, replace(known, latitudes=np.where(np.arange(800) >= 400, np.nan, known.latitudes)))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"width": 7}, "width"),
        ({"sampling": {"draws": 1}}, "draws"),
        ({"sampling": {"guidance": -1}}, "guidance"),
        ({"recipe": {"optimiser": {"kind": "adamw", "lr": 0.1, "rates": {"trunk": 0.1}}}}, "trunk"),
    ],
)
def test_entries_that_cannot_be_are_refused(tmp_path, more, says):
    with pytest.raises(ValidationError, match=says):
        taught(tmp_path, lesson(), **more)
