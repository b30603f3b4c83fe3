import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc_core.geo import smoothing as module
from geoloc_core.geo import sphere
from geoloc_core.geo.smoothing import smoothing

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


def plain(cells, points, true=None, tau_km=75.0, radius_km=module.EQUATORIAL_KM):
    """The definition, in float64 over the whole matrix."""
    there = sphere.haversine_km(points[0][:, None], points[1][:, None], *cells, radius_km=radius_km)
    reference = there.min(axis=1) if true is None else there[np.arange(len(there)), true]
    return np.exp(-(there - reference[:, None]) / tau_km)


def places(count, seed, spread=90.0):
    random = np.random.default_rng(seed)
    return np.degrees(np.arcsin(random.uniform(-1, 1, count))) * spread / 90, random.uniform(
        -180, 180, count
    ) * spread / 90


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("tau_km", [1.0, 65.0, 75.0, 2000.0])
@pytest.mark.parametrize("spread", [90.0, 1.0])
def test_targets_are_those_of_the_definition(device, tau_km, spread):
    cells, points = places(700, 1, spread), places(150, 2, spread)
    found = smoothing(*cells, device=device, tau_km=tau_km).targets(*points)
    assert found.dtype == torch.float32
    assert found.device.type == device
    assert found.cpu().numpy() == pytest.approx(plain(cells, points, tau_km=tau_km), abs=1e-5)


def test_the_true_cell_may_be_the_reference():
    cells, points = places(50, 3, 5), places(40, 4, 5)
    true = np.arange(40)
    found = smoothing(*cells, reference="true", tau_km=500).targets(*points, true)
    assert found[np.arange(40), true].numpy() == pytest.approx(1)
    assert found.numpy() == pytest.approx(plain(cells, points, true, 500), rel=1e-5, abs=1e-5)
    assert found.max() > 1.5


def test_the_radius_is_a_parameter():
    cells, points = places(50, 3, 3), places(40, 4, 3)
    found = smoothing(*cells, radius_km=6371.0).targets(*points).numpy()
    assert found == pytest.approx(plain(cells, points, radius_km=6371.0), abs=1e-5)
    assert np.abs(found - plain(cells, points)).max() > 1e-4


def test_normalised_targets_are_probabilities():
    cells, points = places(300, 5, 9), places(30, 6, 9)
    found = smoothing(*cells, normalise=True).targets(*points)
    assert found.sum(1).numpy() == pytest.approx(1, abs=1e-6)
    raw = plain(cells, points)
    assert found.numpy() == pytest.approx(raw / raw.sum(axis=1, keepdims=True), abs=1e-5)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-90, 90), st.floats(-180, 180)), min_size=1, max_size=9), st.floats(0.1, 5000))
def test_the_nearest_cell_has_target_one_wherever_it_is(cells, tau_km):
    latitudes, longitudes = np.array(cells).T
    points = np.array([[90, 180], [-90, 0], [0, -180], [0.0, 180], [latitudes[0], longitudes[0]]]).T
    found = smoothing(latitudes, longitudes, tau_km=tau_km).targets(*points).numpy()
    assert found.max(axis=1) == pytest.approx(1)
    # A float64 dot product tells centimetres, which only a small τ feels.
    assert found == pytest.approx(plain((latitudes, longitudes), points, tau_km=tau_km), abs=1e-5 + 5e-4 / tau_km)


def test_points_are_worked_through_in_parts(monkeypatch):
    cells, points = places(64, 7, 9), places(33, 8, 9)
    whole = smoothing(*cells).targets(*points)
    monkeypatch.setitem(module.AT_ONCE, "cpu", 300)
    assert torch.equal(smoothing(*cells).targets(*points), whole)
    assert smoothing(*cells).targets([], []).shape == (0, 64)


def test_no_second_matrix_is_held():
    cells, points = places(12_893, 9), places(1024, 10)
    made = smoothing(*cells)
    with torch.profiler.profile(profile_memory=True) as profile:
        made.targets(*points)
    matrix = 12_893 * 1024 * 4
    allocated = [event.self_cpu_memory_usage for event in profile.events()]
    assert sum(size > matrix // 2 for size in allocated) == 1


def test_places_that_are_none_are_refused():
    made = smoothing([0.0], [0.0], reference="true")
    with pytest.raises(ValueError, match="not a number"):
        made.targets([np.nan], [0.0], [0])
    for true in (None, [-1], [1], [0, 0]):
        with pytest.raises(ValueError, match=r"expected 1 classes of 0 … 0"):
            made.targets([0.0], [0.0], true)
