from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from geoloc_core.evaluation import metrics
from geoloc_core.evaluation.metrics import CONVENTIONS, geoguessr_score, within_km

GAME = Path(__file__).parents[4] / "shared" / "data" / "benchmarks" / "osv5m_game_select.csv"

steady = settings(deadline=None, max_examples=50)
errors = hnp.arrays(np.float64, st.integers(1, 50), elements=st.floats(0, 20015))
thresholds = st.lists(st.floats(0.1, 20000), min_size=1, max_size=8)


@steady
@given(errors, thresholds, st.sampled_from(sorted(CONVENTIONS)))
def test_farther_thresholds_hold_more(found, kms, convention):
    shares = within_km(found, sorted(kms), CONVENTIONS[convention])
    assert list(shares.values()) == sorted(shares.values())
    assert all(0 <= share <= 100 for share in shares.values())


@steady
@given(errors, thresholds, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(found, kms, random):
    shuffled = found.copy()
    random.shuffle(shuffled)
    assert within_km(found, kms) == within_km(shuffled, kms)


@steady
@given(hnp.arrays(np.float64, 5, elements=st.floats(-90, 90)), hnp.arrays(np.float64, 5, elements=st.floats(-180, 180)))
def test_the_right_place_is_no_error_under_any_convention(latitudes, longitudes):
    for convention in CONVENTIONS.values():
        found = convention.errors_km(latitudes, longitudes, latitudes, longitudes)
        np.testing.assert_allclose(found, 0, atol=1e-6)
        assert within_km(found, (1,), convention) == {1: 100.0}


def test_conventions_differ_at_the_threshold_and_in_radius():
    exact = np.array([25.0])
    assert within_km(exact, (25,), CONVENTIONS["geoloc"]) == {25: 100.0}
    assert within_km(exact, (25,), CONVENTIONS["osv5m"]) == {25: 0.0}
    quarter = {name: CONVENTIONS[name].errors_km(*np.array([[0.0], [0.0], [90.0], [0.0]])) for name in CONVENTIONS}
    assert quarter["geoloc"] == pytest.approx(np.pi / 2 * 6371)
    assert quarter["pigeon"] == pytest.approx(np.pi / 2 * 6378.137)
    assert quarter["geoclip"] == pytest.approx(10001.966, abs=1e-3)  # the WGS 84 quarter meridian
    assert geoguessr_score(np.array([100.0]), CONVENTIONS["pigeon"]) == 4676
    assert str(CONVENTIONS["geoclip"]) == "WGS 84 ellipsoid, within means ≤"


def test_of_no_rows_the_share_is_not_a_number():
    assert np.isnan(metrics.percent(np.array([], dtype=bool)))


def vincenty_sphere(lat, lon, other_lat, other_lon, radius):
    """The great-circle distance by the arc tangent, which is exact near the antipodes too."""
    a, b, d = np.radians(lat), np.radians(other_lat), np.radians(other_lon - lon)
    across = np.hypot(np.cos(b) * np.sin(d), np.cos(a) * np.sin(b) - np.sin(a) * np.cos(b) * np.cos(d))
    return radius * np.arctan2(across, np.sin(a) * np.sin(b) + np.cos(a) * np.cos(b) * np.cos(d))


def test_ten_thousand_pairs_agree_with_the_equations_written_out():
    rng = np.random.default_rng(0)
    lat, other_lat = np.degrees(np.arcsin(rng.uniform(-1, 1, (2, 10_000))))
    lon, other_lon = rng.uniform(-180, 180, (2, 10_000))
    special = np.array(
        [(90, 0, -90, 0), (90, 10, 90, -170), (0, 0, 0, 180), (12, 34, -12, -146), (0, 179.9, 0, -179.9), (5, 5, 5, 5)]
    ).T
    lat, lon, other_lat, other_lon = np.concatenate([[lat, lon, other_lat, other_lon], special], axis=1)
    for name, convention in CONVENTIONS.items():
        found = convention.errors_km(lat, lon, other_lat, other_lon)
        expected = vincenty_sphere(lat, lon, other_lat, other_lon, convention.radius_km or 6371.0)
        if convention.radius_km is None:
            assert (np.abs(found - expected) <= 0.006 * expected + 0.05).all(), "the Earth is flattened by 1 in 298"
            continue
        np.testing.assert_allclose(found, expected, atol=0.01, err_msg=name)
        points = 5000 * np.exp(-expected / 1492.7)
        shown = geoguessr_score(found, convention)
        np.testing.assert_allclose(shown, np.round(points) if convention.rounded else points, atol=1.001)
        for km in (1, 25, 200, 750, 2500):
            inside = [d <= km if convention.inclusive else d < km for d in expected]
            assert within_km(found, (km,), convention)[km] == pytest.approx(100 * sum(inside) / len(inside), abs=0.011)
    half = np.pi * 6371
    np.testing.assert_allclose(
        CONVENTIONS["geoloc"].errors_km(*special), [half, 0, half, half, 0.2 * np.pi / 180 * 6371, 0], atol=0.2
    )


@pytest.mark.skipif(not GAME.is_file(), reason="the published OSV-5M game is not beside this checkout")
def test_published_distances_and_scores_of_osv5m():
    import pandas as pd

    game = pd.read_csv(GAME)
    osv5m = CONVENTIONS["osv5m"]
    truth = game["true_lat"], game["true_lon"]
    for suffix in ("", "_base"):
        found = osv5m.errors_km(game[f"pred_lat{suffix}"], game[f"pred_lon{suffix}"], *truth)
        assert len(found) == 50
        np.testing.assert_allclose(found, game[f"distance{suffix}"], rtol=1e-6, atol=0.1)
        np.testing.assert_allclose(geoguessr_score(found, osv5m), game[f"score{suffix}"], rtol=1e-6, atol=1e-3)


def test_the_conventions_of_published_code():
    found = {name: (how.radius_km, how.inclusive, how.rounded) for name, how in CONVENTIONS.items()}
    assert found == {
        "geoloc": (6371, True, False),
        "pigeon": (6378.137, False, True),
        "osv5m": (6371, False, False),
        "plonk": (6371, False, False),
        "guidebook": (6371, True, False),
        "geoclip": (None, True, False),
        "g3": (None, False, False),
    }
    assert CONVENTIONS["geoloc"] == metrics.DEFAULT
    assert str(CONVENTIONS["osv5m"]) == "sphere of 6371 km, within means <"


def test_the_game_gives_5000_points_and_a_factor_of_e_less_every_1492_km():
    found = geoguessr_score(np.array([0, 1492.7, 2 * 1492.7]))
    np.testing.assert_allclose(found, [5000, 5000 / np.e, 5000 / np.e**2])
    assert geoguessr_score(np.array([1492.7]), CONVENTIONS["pigeon"]) == 1839


def test_shares_by_hand():
    found = within_km(np.array([0.5, 1.0, 3.0, 30.0]), (1, 25))
    assert found == {1: 50.0, 25: 75.0}
    assert within_km(np.array([0.5, 1.0, 3.0, 30.0]), (1, 25), CONVENTIONS["g3"]) == {1: 25.0, 25: 75.0}
