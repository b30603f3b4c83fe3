"""Candidates and champions compared: kept answers give the scores' own figures, and intervals hold what they say."""

import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoloc_core.contracts.metrics import column
from geoloc_core.errors import UserError
from geoloc_core.evaluation.score import score
from geoloc_core.files import read_json
from geoloc_core.params import Registry
from geoloc_core.params.schema import Guards
from geoloc_core.registry import evidence
from geoloc_core.registry.decision import weigh
from geoloc_core.variants.answer import answer
from tests.geoloc_core.made_answers import make_project, save_models


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Two variants that were scored."""
    made = make_project(tmp_path_factory.mktemp("evidence"))
    save_models(made)
    for variant in ("by_country", "by_region"):
        answer(made, variant)
        score(made, variant)
    return made


@pytest.mark.parametrize("variant", ["by_country", "by_region"])
@pytest.mark.parametrize("benchmark", ["im2gps", "validation"])
def test_kept_answers_give_the_figures_and_intervals_of_the_scores(project, variant, benchmark, tmp_path):
    evidence.write(evidence.of_variant(project, variant, benchmark), tmp_path / "kept.parquet")
    kept = evidence.read(tmp_path / "kept.parquet")
    report = read_json(project.scores(variant) / "scores.json")
    assert evidence.sha256(kept) == report["sha256"][benchmark]
    known = 0
    for name, value in report["benchmarks"][benchmark].items():
        if column(name) is None or value is None:
            continue
        figure, low, high = evidence.figure(kept, name)
        ends = report["intervals"][benchmark][name]
        assert figure == pytest.approx(value, abs=1e-9), name
        assert (low, high) == pytest.approx((ends["low"], ends["high"]), abs=1e-4), name
        known += 1
    assert known > 15


def test_damaged_answers_say_what_to_do(project, tmp_path):
    path = tmp_path / "kept.parquet"
    evidence.write(evidence.of_variant(project, "by_country", "im2gps"), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"damaged.*geoloc promote --replace"):
        evidence.read(path)


COUNTRIES = ("FRA", "KEN", "PER", None)


def table(right, groups=None, countries=None, confidence=0.5, ids=None, north=0.0):
    """Kept answers: (N,) which are right, the group of each and its true country."""
    n = len(right)
    true = np.resize(np.array(countries if countries is not None else ["FRA"], dtype=object), n)
    wrong = np.where(true == "BRA", "FRA", "BRA").astype(object)
    columns = {
        "image_id": [str(i) for i in (ids if ids is not None else range(n))],
        "group_id": [str(g) for g in (groups if groups is not None else range(n))],
        "true_latitude": np.arange(n) + north,
        "true_longitude": np.zeros(n),
        "true_country": pa.array(true, pa.string()),
        "country": pa.array(np.where(right, true, wrong), pa.string()),
        "rank": np.where(right, 0, 1).astype(np.int32),
        "country_rank": np.where(right, 0, 1).astype(np.int32),
        "subdivision_rank": np.full(n, -2, np.int32),
        "probability": np.full(n, 0.5, np.float32),
        "confidence": np.broadcast_to(np.float32(confidence), n),
        "error_km": np.where(right, 1.0, 5000.0),
    }
    return pa.table(columns)


def rule(metric="within_750km", **more):
    return Registry(model="m", benchmark="validation", metric=metric, **more)


def test_a_paired_gain_by_hand():
    """Four groups of ten; the candidate is right once more in each of three and never less."""
    theirs = np.tile(np.arange(10) < 5, 4)
    ours = np.tile(np.arange(10) < 6, 4)
    ours[30:] = theirs[30:]
    found = evidence.compare(table(ours, np.arange(40) // 10), table(theirs, np.arange(40) // 10), rule(), 1)
    assert (found.photos, found.groups, found.gain.value) == (40, 4, 7.5)
    # of four gains 10, 10, 10 and 0, the mean's standard error is 2.5, and t of three degrees of freedom 3.18
    assert (found.gain.low, found.gain.high) == pytest.approx((7.5 - 3.182 * 2.5, 7.5 + 3.182 * 2.5), abs=0.4)


@pytest.mark.parametrize(("metric", "sign"), [("within_750km", 1), ("median_km", 1), ("mean_km", 1), ("accuracy", 1)])
def test_a_gain_is_positive_whichever_way_the_metric_goes(metric, sign):
    good, bad = np.arange(100) < 80, np.arange(100) < 20
    found = evidence.compare(table(good), table(bad), rule(metric), 1)
    assert found.gain.value * sign > 0
    assert weigh(found, rule(metric))[0]
    assert not weigh(evidence.compare(table(bad), table(good), rule(metric), 1), rule(metric))[0]


@pytest.mark.slow
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_rows_does_not_matter_and_swapping_turns_the_gain(seed):
    rng = np.random.default_rng(seed)
    groups, countries = rng.integers(0, 12, 60), np.array(COUNTRIES, dtype=object)[rng.integers(0, 4, 60)]
    ours, theirs = (table(rng.random(60) < 0.5, groups, countries) for _ in range(2))
    mixed = theirs.take(rng.permutation(60))
    one, other = evidence.compare(ours, theirs, rule(), 1), evidence.compare(ours, mixed, rule(), 1)
    assert one == other
    turned = evidence.compare(theirs, ours, rule(), 1)
    assert turned.gain.value == pytest.approx(-one.gain.value)
    assert (turned.gain.low, turned.gain.high) == pytest.approx((-one.gain.high, -one.gain.low), abs=1e-6)
    assert [guard.what for guard in one.guards] == [
        *sorted({{"FRA": "Europe", "KEN": "Africa", "PER": "South America"}[c] for c in countries if c}),
        "ece",
    ]


@given(st.integers(0, 30), st.integers(0, 30))
def test_photos_compare_by_id_and_place(new, moved):
    """Of forty, some are new and some have another place now."""
    theirs = table(np.ones(40, bool))
    ours = table(np.zeros(40, bool), ids=[*range(40 - new), *(f"new {i}" for i in range(new))])
    places = ours["true_latitude"].to_numpy().copy()
    places[:moved] += 0.5
    ours = ours.set_column(2, "true_latitude", pa.array(places))
    same = max(0, 40 - new - moved)
    found = evidence.compare(ours, theirs, rule(), 1)
    assert (None if found is None else found.photos) == (same if same >= 20 else None)


def test_a_photo_without_a_place_is_the_same_photo():
    ours, theirs = table(np.ones(4, bool)), table(np.zeros(4, bool))
    nowhere = pa.array([np.nan] * 4)
    ours, theirs = (t.set_column(2, "true_latitude", nowhere) for t in (ours, theirs))
    assert evidence.compare(ours, theirs, rule(), 1).photos == 4


def test_one_group_tells_nothing():
    found = evidence.compare(table(np.ones(9, bool), [0] * 9), table(np.zeros(9, bool), [0] * 9), rule(), 1)
    assert (found.gain.value, found.gain.low) == (100, None)
    better, why = weigh(found, rule())
    assert not better
    assert "no interval" in why


def test_a_guard_needs_a_loss_beyond_the_bound_and_beyond_chance():
    africa = np.resize(["FRA", "KEN"], 400)
    theirs = np.ones(400, bool)

    def lost(n):
        return ~((africa == "KEN") & (np.arange(400) < 2 * n))

    for count, held in ((8, True), (40, False)):  # 4 and 20 % of Africa's
        found = evidence.compare(table(lost(count), countries=africa), table(theirs, countries=africa), rule(), 1)
        guard = next(guard for guard in found.guards if guard.what == "Africa")
        assert (guard.value, guard.held) == (-count / 2, held)
    by_group = np.arange(400) // 100  # the same loss in one group of four is no evidence
    found = evidence.compare(table(lost(40), by_group, africa), table(theirs, by_group, africa), rule(), 1)
    guard = next(guard for guard in found.guards if guard.what == "Africa")
    assert guard.value == -20
    assert guard.high > 0
    assert guard.held


def test_guards_are_those_that_are_asked_for():
    tables = table(np.ones(40, bool)), table(np.ones(40, bool))
    asked = rule(guards=Guards(continents=None))
    assert [guard.what for guard in evidence.compare(*tables, asked, 1).guards] == ["ece"]
    asked = rule(guards=Guards(continents=1, calibration=None))
    assert [(guard.what, guard.bound) for guard in evidence.compare(*tables, asked, 1).guards] == [("Europe", 1)]


def test_each_continent_may_have_a_bound_of_its_own():
    where = np.resize(["FRA", "KEN"], 400)
    lost = table(np.arange(400) >= 40, countries=where), table(np.ones(400, bool), countries=where)
    asked = rule(guards=Guards(continents={"Africa": 12, "Asia": 0}, calibration=None))
    assert [(one.what, one.bound, one.held) for one in evidence.compare(*lost, asked, 1).guards] == [
        ("Africa", 12, True)
    ]
    asked = rule(guards=Guards(continents={"Africa": 8, "Europe": 12}, calibration=None))
    found = evidence.compare(*lost, asked, 1).guards
    assert [(one.what, one.value, one.held) for one in found] == [("Africa", -10, False), ("Europe", -10, True)]


def test_further_benchmarks_have_guards():
    better = table(np.arange(400) < 300), table(np.arange(400) < 200)
    worse = table(np.arange(400) < 300, ids=range(1000, 1400)), table(np.arange(400) < 340, ids=range(1000, 1400))
    of = {"metric": 8, "continents": {"Europe": 12}, "calibration": None}
    asked = rule(guards=Guards.model_validate({"continents": None, "calibration": None, "benchmarks": {"far": of}}))
    found = evidence.compare(*better, asked, 1, {"far": worse})
    assert [(one.benchmark, one.what, one.value, one.bound, one.held) for one in found.guards] == [
        ("far", "within_750km", -10, 8, False), ("far", "Europe", -10, 12, True)
    ]  # fmt: skip
    sure, why = weigh(found, asked)
    assert not sure
    assert re.search(r", but on far within_750km worsens by 10\.00 points \(95 % .*\), and 8 are allowed$", why)
    assert weigh(evidence.compare(*better, asked, 1, {"far": worse[::-1]}), asked)[0]
    for known in ({}, {"far": (None, worse[1])}, {"far": (worse[0], None)}, {"far": (worse[0], better[0])}):
        found = evidence.compare(*better, asked, 1, known)
        assert (found.guards, found.unmeasured) == ([], ["far"])
        sure, why = weigh(found, asked)
        assert not sure
        assert "both have not answered the same photos of far, which registry.guards name" in why
    off = {"metric": None, "calibration": 1}
    asked = rule(guards=Guards.model_validate({"continents": None, "calibration": None, "benchmarks": {"far": off}}))
    assert [one.what for one in evidence.compare(*better, asked, 1, {"far": worse}).guards] == ["ece"]


@pytest.mark.slow
def test_the_best_of_equals_is_seldom_crowned():
    """Ten variants no better than the champion, the best of them chosen: 5 times in 100 a gain is sure by chance."""
    rng, crowned, careless = np.random.default_rng(4), 0, 0
    trials, variants = 200, 10
    for _ in range(trials):
        difficulty = rng.random(40).repeat(5)  # rows of a group are alike
        groups = np.arange(200) // 5
        known = [rng.random(200) < difficulty for _ in range(variants + 1)]
        best = max(known[1:], key=lambda right: right.sum())
        asked = rule(guards=Guards(continents=None, calibration=None))
        one = table(best, groups), table(known[0], groups)
        crowned += weigh(evidence.compare(*one, asked, variants), asked)[0]
        careless += weigh(evidence.compare(*one, asked, 1), asked)[0]
    assert crowned <= 0.05 * trials + 3 * np.sqrt(0.05 * 0.95 * trials)
    assert careless > 2 * crowned, "without the correction it is crowned too often"


def test_why_names_what_decided():
    sure = evidence.Compared(
        photos=1000,
        groups=200,
        variants=3,
        gain=evidence.Change(what="median_km", value=120.0, low=10.0, high=230.0),
        guards=[evidence.Guard(what="ece", value=-9.0, low=-12.0, high=-6.0, bound=5, held=False)],
    )
    asked = rule("median_km")
    assert weigh(sure, asked) == (
        False,
        "median_km on validation improves by 120.00 km (95 % interval 10.00 to 230.00) on 1,000 photos in 200 groups, "
        "but the calibration error (ECE) rises by 9.00 points (95 % interval 6.00 to 12.00), and 5 are allowed",
    )
    assert weigh(sure.model_copy(update={"guards": []}), asked)[0]
    worse = sure.model_copy(update={"gain": sure.gain.model_copy(update={"value": -5.0, "low": -9.0, "high": 4.0})})
    assert weigh(worse, asked)[1].startswith("median_km on validation worsens by 5.00 km (95 % interval -4.00 to 9.00)")
