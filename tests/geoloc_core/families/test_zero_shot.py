"""Zero-shot: captions of countries and of their towns, embedded once."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.numpy import load_file, save_file

from geoloc_core.contracts.batch import Batch, TextTower
from geoloc_core.encoders.text import encoder as texts
from geoloc_core.encoders.zero_shot import Places, Prompts, search
from geoloc_core.errors import UserError
from geoloc_core.families import zero_shot as zero_shots
from geoloc_core.families.zero_shot import NAMED, SCALE, Options, ZeroShot, fit, load
from geoloc_core.geo.articles import PIGEON
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.training.calibration import fit_temperature

from . import made_lessons
from .made_models import photos, space, zero_shot

CODES = ["FRA", "NLD", "XKO", "ZZZ"]
COUNTRIES = LabelSpace(
    "country", CODES, ["France", "Netherlands", "Kosovo", "Nowhere"], [""] * 4,
    np.array([46.0, 52.0, 42.6, -10.0]), np.array([2.0, 5.0, 20.9, 20.0]),
)  # fmt: skip
DIM = 128
PLAIN = ("A", "In", "Street", "View")


def embed(said):
    """Texts are alike that share words, names above all; not of unit length."""

    def direction(word):
        weight = 4 if word[0].isupper() and word not in PLAIN else 1
        return weight * np.random.default_rng(list(word.encode())).normal(size=DIM)

    return np.array([sum(map(direction, text.replace(".", "").split())) for text in said], np.float32)


@pytest.fixture
def tower(monkeypatch):
    """The text tower of an encoder, in place of a CLIP's."""
    made = texts.TextEncoder(DIM, 8, list, embed, 77, {}, 0)
    monkeypatch.setattr(texts, "load", lambda options, weights: made)
    return made


def options(**changed):
    return Options.model_validate({"kind": "zero_shot", "corpus": "c", "encoder": "a"} | changed)


def lesson(tmp_path, unseen=(), rows=40):
    """Photos that look like what is said about Marseille, Rotterdam, Pristina, and Nowhere."""
    said = embed([
        "A Street View photo close to the town of Marseille in France.",
        "A Street View photo close to the town of Rotterdam in the Netherlands.",
        "A Street View photo close to the town of Pristina in Kosovo.",
        "A Street View photo in Nowhere.",
    ])  # fmt: skip
    targets = np.arange(rows) % 4
    noise = np.random.default_rng(0).normal(0, 0.3, (rows, DIM))
    given = made_lessons.data(said[targets] + noise, targets, 4)
    towers = {"a": TextTower(None, tmp_path, unseen)}
    return replace(given, space=COUNTRIES, text_towers=towers)


def test_the_country_comes_first_and_then_a_town_of_it(tmp_path, tower):
    given = lesson(tmp_path)
    fitted = fit(given, options(towns=5), made_lessons.run(tmp_path))
    model, rows = fitted.model, given.validation
    answer = model.predict(Batch({"a": given.images["a"][rows]}), 3, given.targets[rows])
    assert (answer.classes[:, 0] == given.targets[rows]).all()
    assert fitted.figures["validation_accuracy"] == 100
    first = {CODES[c]: (name, lat, lon) for c, name, lat, lon in zip(
        answer.classes[:, 0], answer.evidence.ids[:, 0], answer.latitude, answer.longitude, strict=True
    )}  # fmt: skip
    assert first["FRA"] == ("Marseille", pytest.approx(43.3, abs=0.05), pytest.approx(5.38, abs=0.05))
    assert first["NLD"] == ("Rotterdam", pytest.approx(51.92, abs=0.05), pytest.approx(4.48, abs=0.05))
    assert first["XKO"][0] == "Pristina", "GeoNames calls Kosovo otherwise"
    assert first["ZZZ"] == ("", -10, 20), "a country without towns is answered with its own place"
    assert fitted.figures["towns"] == len(model.names) == 15


def test_it_answers_as_the_search_of_pre_training_does(tmp_path, tower):
    given = lesson(tmp_path)
    block = options(towns=4, country=["A photo in {country}.", "{country}, a country."], town=["In {town}, {country}."])
    model = fit(given, block, made_lessons.run(tmp_path)).model
    images = np.random.default_rng(1).normal(size=(60, DIM)).astype(np.float16)

    def unit(said):
        found = embed(said)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    plain = images.astype(np.float32) / np.linalg.norm(images.astype(np.float32), axis=1, keepdims=True)
    found = search(plain, unit, Places.of_space(COUNTRIES, PIGEON, 4), Prompts(block.country, block.town))
    answer = model.predict(Batch({"a": images}))
    np.testing.assert_array_equal(answer.classes[:, 0], found.countries)
    np.testing.assert_array_equal(answer.latitude, found.latitudes)
    np.testing.assert_array_equal(answer.longitude, found.longitudes)
    np.testing.assert_array_equal(answer.evidence.ids[:, 0], found.towns)


def test_countries_alone_are_answered_with_their_places(tmp_path, tower):
    given = lesson(tmp_path)
    model = fit(given, options(), made_lessons.run(tmp_path)).model
    answer = model.predict(Batch({"a": given.images["a"]}), 9)
    assert answer.classes.shape == (40, 4)
    np.testing.assert_array_equal(answer.latitudes, COUNTRIES.latitudes[answer.classes])
    assert answer.evidence is None
    assert not model.names


def test_answers_by_hand():
    """Each candidate is at the most similar town of its country; its evidence are those of the first."""
    model = zero_shot().model
    batch = photos(25)
    answer = model.predict(batch, 6)
    x = batch.images["b"].astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    for row in range(25):
        logits = 100 * model.countries.astype(np.float64) @ x[row] / model.temperature
        p = np.exp(logits - logits.max())
        order = np.argsort(-p)
        assert answer.classes[row].tolist() == order.tolist()
        np.testing.assert_allclose(answer.probabilities[row], (p / p.sum())[order], rtol=1e-4)
        for rank, c in enumerate(order):
            towns = range(model.starts[c], model.starts[c + 1])
            place = (model.labelspace.latitudes[c], model.labelspace.longitudes[c])
            ranked = sorted(towns, key=lambda t: -(model.towns[t].astype(np.float64) @ x[row]))
            if ranked:
                place = (model.latitudes[ranked[0]], model.longitudes[ranked[0]])
            assert (answer.latitudes[row, rank], answer.longitudes[row, rank]) == place
            if rank == 0:
                names = [model.names[t] for t in ranked[:NAMED]]
                assert answer.evidence.ids[row].tolist() == names + [""] * (NAMED - len(names))
                scores = np.exp(100 * model.towns[ranked].astype(np.float64) @ x[row] / model.temperature)
                expected = (scores / scores.sum())[:NAMED] if ranked else []
                np.testing.assert_allclose(answer.evidence.weights[row, : len(names)], expected, rtol=1e-3)
                assert (answer.evidence.weights[row, len(names) :] == 0).all()
    assert model.predict(Batch({"b": batch.images["b"][:0]}), 6).classes.shape == (0, 6)


def test_photos_are_answered_alike_however_many_at_a_time(monkeypatch):
    model, batch, truth = zero_shot().model, photos(25), np.arange(25) % 6
    whole = model.predict(batch, 6, truth)
    monkeypatch.setattr(zero_shots, "ROWS", 10)
    found = model.predict(batch, 6, truth)
    np.testing.assert_array_equal(found.classes, whole.classes)
    np.testing.assert_allclose(found.latitude, whole.latitude)
    np.testing.assert_array_equal(found.truth.rank, whole.truth.rank)
    np.testing.assert_array_equal(found.evidence.ids, whole.evidence.ids)


def test_of_towns_that_look_the_same_the_largest_is_taken():
    model = zero_shot(2, (40, 0)).model
    alike = replace(model, towns=np.repeat(model.towns[:1], 40, axis=0))
    answer = alike.predict(photos(9), 2)
    there = answer.classes == 0
    assert (answer.latitudes[there] == model.latitudes[0]).all()
    assert answer.evidence.ids[there[:, 0]].tolist() == [["town 0", "town 1", "town 2"]] * int(there[:, 0].sum())
    assert there[:, 0].any()


def test_of_many_validation_photos_some_evenly_spread_are_measured(tmp_path, tower, monkeypatch):
    given = lesson(tmp_path)  # of 10 for validation every third
    given.images["a"][30:] = -given.images["a"][30:]
    given.images["a"][[30, 33, 36]] *= -1
    monkeypatch.setattr(zero_shots, "CALIBRATED", 4)
    figures = fit(given, options(towns=2), made_lessons.run(tmp_path)).figures
    assert figures["validation_accuracy"] == 75, "three of the rows 30, 33, 36 and 39"
    parameters = DIM * (4 + figures["towns"])
    assert (figures["trainable_parameters"], figures["parameters"]) == (0, parameters)


def test_the_temperature_is_fitted_on_validation_photos(tmp_path, tower):
    given = lesson(tmp_path)
    given.images["a"][:] += np.random.default_rng(2).normal(0, 6, given.images["a"].shape)
    fitted = fit(given, options(), made_lessons.run(tmp_path))
    model, rows = fitted.model, given.validation
    logits = model.logits(given.images["a"][rows])
    assert model.temperature == pytest.approx(fit_temperature(logits, given.targets[rows]), rel=1e-4) != 1
    assert fitted.figures["validation_accuracy"] == pytest.approx(
        100 * np.mean(logits.argmax(axis=1) == given.targets[rows]), abs=0.01
    )
    cosines = logits / SCALE
    assert (np.abs(cosines) <= 1 + 1e-6).all(), "photos of any length"


@pytest.mark.slow
def test_countries_seen_and_unseen_in_pre_training_are_told_apart(tmp_path, tower):
    run = made_lessons.run(tmp_path)
    assert not [name for name in fit(lesson(tmp_path), options(), run).figures if "seen" in name]
    given = lesson(tmp_path, unseen=("NLD", "PER"))
    given.targets[given.validation] = np.where(given.targets[given.validation] == 1, 1, 0)  # most are wrong now
    figures = fit(given, options(), run).figures
    rows = given.targets[given.validation]
    assert (figures["seen_photos"], figures["unseen_photos"]) == ((rows == 0).sum(), (rows == 1).sum())
    assert figures["unseen_accuracy"] == 100 > figures["seen_accuracy"]
    assert fit(given, options(unseen=["FRA"]), run).figures["seen_accuracy"] == 100, "what is stated counts"
    assert fit(given, options(unseen=["ZZZ"]), run).figures["unseen_photos"] == 0


def test_one_country_is_always_right(tmp_path, tower):
    given = replace(lesson(tmp_path), space=COUNTRIES.take(np.array([1])))
    given.targets[:] = 0
    model = fit(given, options(towns=3), made_lessons.run(tmp_path)).model
    assert model.temperature == 1
    assert model.predict(Batch({"a": given.images["a"]})).probabilities.tolist() == [[1.0]] * 40


def test_photos_and_captions_of_two_spaces_are_refused(tmp_path, tower):
    given = lesson(tmp_path)
    narrow = replace(given, images={"a": given.images["a"][:, :20]})
    with pytest.raises(UserError, match=r"'a': photos have 20 features and captions 128; .*pooling: projection"):
        fit(narrow, options(), made_lessons.run(tmp_path))


def test_features_that_are_no_numbers_are_refused(tmp_path, tower):
    given = lesson(tmp_path)
    given.images["a"][33, 5] = np.nan
    with pytest.raises(UserError, match="not finite numbers, the first those of row 33"):
        fit(given, options(), made_lessons.run(tmp_path))


def test_other_features_than_the_joint_space_are_refused_with_the_parameters():
    tower = SimpleNamespace
    profile = tower(encoders={"a": tower(pooling="mean")}, text_encoders={"a": tower(pooling="class")})
    found = options().flaws(profile)
    assert ["'a' has pooling: mean under encoders" in found[0], "class under text_encoders" in found[1]] == [True] * 2
    assert not options(encoder="b").flaws(profile), "what is not there is said elsewhere"


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"country": ["A photo in {town}."]}, "expected a text with {country} alone"),
        ({"country": []}, "country"),
        ({"town": ["A photo of {town}."]}, "expected a text with {town} and {country} alone"),
        ({"labels": "subdivision"}, "labels"),
        ({"towns": -1}, "towns"),
        ({"unseen": ["China"]}, "unseen"),
        ({"recipe": {}}, "recipe"),
    ],
)
def test_wrong_entries_are_refused(changed, says):
    with pytest.raises(ValidationError, match=says):
        options(**changed)


@pytest.mark.parametrize(
    "change",
    [lambda s: s + 1, lambda s: s[::-1], lambda s: s.astype(np.float32), lambda s: np.r_[s[0], s[-1], s[2:]]],
    ids=["late", "turned", "no positions", "one too far"],
)
def test_towns_that_begin_nowhere_are_refused(tmp_path, change):
    trained = zero_shot()
    trained.save(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    save_file({**tensors, "starts": np.ascontiguousarray(change(tensors["starts"]))}, path)
    with pytest.raises(UserError, match="starts: expected where the towns of each country begin; again"):
        load(tmp_path, trained.card.needs, space(), "again")


def test_a_model_without_towns_is_the_same_after_a_reload(tmp_path, tower):
    given = lesson(tmp_path)
    model: ZeroShot = fit(given, options(), made_lessons.run(tmp_path)).model
    model.save(tmp_path)
    loaded = load(tmp_path, options().needs(), COUNTRIES, "again")
    for name in ("countries", "towns", "starts"):
        np.testing.assert_array_equal(getattr(model, name), getattr(loaded, name))
    assert loaded.temperature == pytest.approx(model.temperature)
