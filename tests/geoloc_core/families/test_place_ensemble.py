"""An ensemble of places is never worse on what it was chosen with than its best member, and votes as it is written."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc_core.contracts.batch import Answered, Batch
from geoloc_core.contracts.prediction import Prediction
from geoloc_core.errors import UserError
from geoloc_core.families import place_ensemble as place_ensembles
from geoloc_core.families.place_ensemble import Options, PlaceEnsemble, fit, same_classes
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.geo.sphere import EARTH_KM, haversine_km, unit_vectors

from .made_lessons import data, run
from .made_models import photos, place_ensemble, space

OPTIONS = Options(kind="place_ensemble", corpus="c", members=("one", "other"), labels="country", rounds=6)


def cells(latitudes, longitudes) -> LabelSpace:
    ids = [f"cell{n}" for n in range(len(latitudes))]
    return LabelSpace("geocell", ids, ids, [""] * len(ids), np.array(latitudes, float), np.array(longitudes, float))


def told(shares, latitudes, longitudes) -> Prediction:
    """An answer with candidates (N, k) whose classes are their numbers."""
    shares, latitudes, longitudes = (np.atleast_2d(np.array(v, float)) for v in (shares, latitudes, longitudes))
    classes = np.broadcast_to(np.arange(shares.shape[1]), shares.shape).copy()
    return Prediction(classes, shares, latitudes, longitudes, latitudes[:, 0], longitudes[:, 0])


def test_votes_equal_their_literal_transcription():
    model, batch = place_ensemble().model, photos(12)
    answer = model.predict(batch, 6)
    kappa = (EARTH_KM / model.width_km) ** 2
    for row in range(12):
        stand, voters = [], []
        for name, weight in zip(model.members, model.weights, strict=True):
            said = batch.answers[name]
            for at in range(said.classes.shape[1]):
                first = at == 0
                place = (
                    (said.latitude[row], said.longitude[row])
                    if first
                    else (said.latitudes[row, at], said.longitudes[row, at])
                )
                stand.append(place)
                voters.append((name, weight * said.probabilities[row, at], unit_vectors(*place)))
        votes = [
            {
                n: sum(s * np.exp(kappa * (v @ unit_vectors(*q) - 1)) for m, s, v in voters if m == n)
                for n in model.members
            }
            for q in stand
        ]
        totals = [sum(each.values()) for each in votes]
        best = int(np.argmax(totals))
        assert (answer.latitude[row], answer.longitude[row]) == pytest.approx(stand[best], abs=1e-9)
        assert (answer.latitudes[row, 0], answer.longitudes[row, 0]) == (answer.latitude[row], answer.longitude[row])
        given = dict(zip(answer.evidence.ids[row], answer.evidence.weights[row], strict=True))
        assert given == pytest.approx(votes[best], rel=1e-6)
        assert (np.diff(answer.evidence.weights[row]) <= 0).all()


def test_places_that_lie_together_win_over_a_more_probable_one_alone():
    """Across the date line, and though their classes are others."""
    one, other = told([0.5, 0.4], [10, -40], [0, 179.9]), told([0.5, 0.1], [-40, 30], [-179.9, 30])
    known = [np.array([0, 1]), np.array([-1, 2])]
    model = PlaceEnsemble(cells([10, -40, 30], [0, 180, 30]), ["one", "other"], np.array([0.5, 0.5]), 100.0, known)
    answer = model.predict(Batch({}, {"one": one, "other": other}), 3, np.array([1]))
    assert answer.latitude[0] == pytest.approx(-40)
    assert answer.longitude[0] == pytest.approx(-179.9), "the more probable one of the two"
    assert answer.classes[0].tolist() == [1, 0, 2], "a class that is not known here is the nearest one"
    assert answer.probabilities[0] == pytest.approx([0.45, 0.25, 0.05])
    assert answer.truth.rank.tolist() == [0]
    far = replace(model, width_km=0.001).predict(Batch({}, {"one": one, "other": other}), 3)
    assert far.latitude[0] == pytest.approx(10), "without reach the most probable one"


def test_classes_are_the_same_only_at_the_same_place():
    here = cells([1, 2, 3], [1, 2, 3])
    other = LabelSpace(
        "geocell", ["cell2", "cell0", "x"], ["a"] * 3, [""] * 3, np.array([3, 9.0, 1]), np.array([3, 1.0, 1])
    )
    assert same_classes(here, other).tolist() == [2, -1, -1]


@st.composite
def lessons(draw):
    """Two members that answer places around the truth, some far off, and the truth."""
    n, seed, k = draw(st.integers(8, 40)), draw(st.integers(0, 2**32)), draw(st.integers(1, 3))
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 6, n)
    known = data(np.zeros((n, 1)), targets, 6)

    def member():
        spread = np.where(rng.random((n, k)) < 0.4, 60, 3)
        latitudes = np.clip(known.latitudes[:, None] + rng.normal(size=(n, k)) * spread, -89, 89)
        longitudes = np.clip(known.longitudes[:, None] + rng.normal(size=(n, k)) * spread, -179, 179)
        shares = -np.sort(-rng.dirichlet(np.ones(k), n), axis=1)
        rows = np.flatnonzero(rng.random(n) < 0.9)
        return Answered(space(), rows, told(shares, latitudes, longitudes).rows(rows))

    return replace(known, answers={"one": member(), "other": member()})


@settings(max_examples=25)
@given(lessons())
def test_it_is_never_worse_than_its_best_member(tmp_path_factory, known):
    rows = np.intersect1d(known.validation, np.intersect1d(*(member.rows for member in known.answers.values())))
    if not len(rows):
        with pytest.raises(UserError, match="no validation photo with coordinates"):
            fit(known, OPTIONS, run(tmp_path_factory.getbasetemp()))
        return
    fitted = fit(known, OPTIONS, run(tmp_path_factory.getbasetemp()))

    def within(answer):
        km = haversine_km(answer.latitude, answer.longitude, known.latitudes[rows], known.longitudes[rows])
        return np.mean(km <= 750)

    alone = {name: of.prediction.rows(np.searchsorted(of.rows, rows)) for name, of in known.answers.items()}
    reached = within(fitted.model.predict(Batch({}, alone), 3))
    assert reached >= max(map(within, alone.values())) - 1e-12
    assert 100 * reached == pytest.approx(fitted.history[fitted.best]["validation_within"])
    assert fitted.model.weights.sum() == pytest.approx(1)
    assert fitted.figures["width_km"] == fitted.model.width_km


def answers_at(degrees_off, known) -> Answered:
    """A member that is so many degrees north of the truth of each photo."""
    n = len(known.targets)
    latitudes = (known.latitudes + np.broadcast_to(degrees_off, n))[:, None]
    return Answered(space(), np.arange(n), told(np.full((n, 1), 0.5), latitudes, known.longitudes[:, None]))


def test_of_equals_the_better_game_and_the_narrowest_vote_are_chosen(tmp_path):
    known = data(np.zeros((16, 1)), np.arange(16) % 5, 6)
    known = replace(known, answers={"one": answers_at(5, known), "other": answers_at(1, known)})
    fitted = fit(known, OPTIONS, run(tmp_path))  # 556 and 111 km: both are within 750
    assert fitted.model.weights.tolist() == [0, 1]
    assert fitted.figures["weights"] == {"one": 0, "other": 1}
    assert fitted.model.width_km == fitted.figures["width_km"] == 1e-3
    assert fitted.history[fitted.best]["validation_within"] == 100
    assert fit(known, OPTIONS.model_copy(update={"within_km": 500}), run(tmp_path)).model.weights.tolist() == [0, 1]


def test_of_too_many_validation_photos_evenly_spaced_ones_are_chosen_by(tmp_path, monkeypatch):
    known = data(np.zeros((20, 1)), np.arange(20) % 5, 6)  # the last five are for validation
    off = np.where(np.isin(np.arange(20), [15, 17, 19]), 1, 60)
    known = replace(known, answers={"one": answers_at(off, known), "other": answers_at(60, known)})
    assert fit(known, OPTIONS, run(tmp_path)).history[0]["validation_within"] == pytest.approx(60)
    monkeypatch.setattr(place_ensembles, "CHOSEN_BY", 3)
    assert fit(known, OPTIONS, run(tmp_path)).history[0]["validation_within"] == 100


def test_votes_are_counted_in_blocks(monkeypatch):
    model, batch = place_ensemble().model, photos(12)
    votes = model.votes([batch.answers[name] for name in model.members])
    whole = votes.parts(500.0)
    for block in (1, 5 * len(votes.members) ** 2):
        monkeypatch.setattr(place_ensembles, "BLOCK", block)
        np.testing.assert_allclose(votes.parts(500.0), whole, rtol=1e-12)


def test_members_that_know_different_places_are_better_together(tmp_path):
    rng = np.random.default_rng(3)
    targets = rng.integers(0, 6, 200)
    known = data(np.zeros((200, 1)), targets, 6)

    def member(sure):
        right = np.where(sure, 0.9, 0.2)[:, None]
        off = np.where(sure, 1.0, 60.0)
        latitudes = np.clip(known.latitudes + rng.normal(size=200) * off, -89, 89)[:, None]
        longitudes = np.clip(known.longitudes + rng.normal(size=200) * off, -179, 179)[:, None]
        return Answered(space(), np.arange(200), told(right, latitudes, longitudes))

    known = replace(known, answers={"one": member(targets < 3), "other": member(targets >= 3)})
    logged = []
    fitted = fit(known, OPTIONS, run(tmp_path, lambda metrics, step: logged.append(metrics)))
    assert logged == fitted.history
    assert (fitted.model.weights > 0).all()
    assert fitted.history[fitted.best]["validation_within"] > 95
    assert fitted.history[0]["validation_within"] < 80
    assert fitted.figures["trainable_parameters"] == 3
    lost = replace(known, latitudes=np.full(200, np.nan))
    with pytest.raises(UserError, match="no validation photo with coordinates"):
        fit(lost, OPTIONS, run(tmp_path))
