"""A classifier says the same before and after it is saved, and is self-contained."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc_core.contracts.batch import Batch
from geoloc_core.families.classifier import Classifier, Options, fit
from geoloc_core.training.calibration import expected_calibration_error, fit_temperature, halves
from geoloc_core.training.heads import Recipe, counts, linear_layers, network
from geoloc_core.training.optimisers import SGD
from geoloc_core.training.schedules import Constant
from geoloc_core.training.weights import EffectiveNumber, InverseFrequency

from .made_lessons import data, run
from .made_models import classifier, photos


@pytest.mark.parametrize("hidden", [(), (8,), (8, 4)])
def test_it_answers_like_the_network_it_was_trained_as(hidden):
    torch.manual_seed(1)
    net = network(5, hidden, 6)
    model = replace(classifier(hidden).model, layers=linear_layers(net))
    joined = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
    with torch.inference_mode():
        expected = net((torch.from_numpy(joined) - torch.from_numpy(model.mean)) / torch.from_numpy(model.std))
    np.testing.assert_allclose(model.logits(joined), expected.numpy(), atol=1e-5)
    answer = model.predict(Batch({"a": joined[:, :2], "b": joined[:, 2:]}), 3)
    best, classes = (expected / 1.5).softmax(dim=1).topk(3)
    np.testing.assert_array_equal(answer.classes, classes.numpy())
    np.testing.assert_allclose(answer.probabilities, best.numpy(), atol=1e-5)


@settings(max_examples=20)
@given(st.integers(1, 30), st.integers(1, 9))
def test_answers_are_ranked_probabilities_of_places(rows, k):
    model = classifier().model
    answer = model.predict(photos(rows), k)
    assert answer.classes.shape == (rows, min(k, 6))
    assert (np.diff(answer.probabilities, axis=1) <= 0).all()
    assert (answer.probabilities.sum(axis=1) <= 1 + 1e-5).all()
    np.testing.assert_array_equal(answer.latitude, model.labelspace.latitudes[answer.classes[:, 0]])
    np.testing.assert_array_equal(answer.longitude, model.labelspace.longitudes[answer.classes[:, 0]])


def test_the_order_of_encoders_is_the_models_not_the_callers():
    model: Classifier = classifier().model
    given_order = photos(4)
    other_order = Batch(dict(reversed(given_order.images.items())))
    np.testing.assert_array_equal(model.predict(given_order).probabilities, model.predict(other_order).probabilities)


def options(normalise="standardise", hidden=(), **recipe):
    """A short training at a constant rate."""
    chosen = Recipe(**{"batch": 32, "epochs": 12, "schedule": Constant(), **recipe})
    return Options(kind="classifier", corpus="c", encoders=("a",), labels="country", normalise=normalise,
                   hidden=hidden, recipe=chosen)  # fmt: skip


def around(classes=4, n=400, seed=0, spread=0.5, shares=None):
    """Photos around a place of their country's in feature space, far from its origin."""
    rng = np.random.default_rng(seed)
    targets = rng.choice(classes, n, p=shares)
    features = 30 + 5 * (rng.normal(size=(classes, 6))[targets] + rng.normal(0, spread, (n, 6)))
    return data(features, targets, classes)


@pytest.mark.parametrize("hidden", [(), (8,)])
@pytest.mark.parametrize("normalise", ["standardise", "batch_norm", "none"])
def test_it_answers_what_it_was_validated_with(tmp_path, normalise, hidden):
    given = around()
    fitted = fit(given, options(normalise, hidden, optimiser=SGD(lr=0.01)), run(tmp_path))
    held = given.validation
    answer = fitted.model.predict(Batch({"a": given.images["a"][held]}), 4)
    right = 100 * np.mean(answer.classes[:, 0] == given.targets[held])
    assert right == pytest.approx(fitted.history[fitted.best]["validation_accuracy"])


def test_it_answers_with_the_mean_and_spread_of_training_photos(tmp_path):
    given = around()
    model = fit(given, options(), run(tmp_path)).model
    rows = given.images["a"][given.training].astype(np.float64)
    np.testing.assert_allclose(model.mean, rows.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(model.std, rows.std(axis=0, ddof=1), rtol=1e-5)


def recall(fitted, given, of):
    held = given.validation[given.targets[given.validation] == of]
    return np.mean(fitted.model.predict(Batch({"a": given.images["a"][held]})).classes[:, 0] == of)


@pytest.mark.parametrize("weights", [InverseFrequency(), EffectiveNumber()])
def test_class_weights_find_more_of_a_rare_class(tmp_path, weights):
    given = around(3, 2000, spread=1.5, shares=[0.48, 0.48, 0.04])
    alike, weighed = (
        fit(given, options(weights=chosen, epochs=6), run(tmp_path / str(number)))
        for number, chosen in enumerate((None, weights))
    )
    assert recall(weighed, given, 2) > recall(alike, given, 2) + 0.2


def test_its_size(tmp_path):
    """The formula: of the layers, and two numbers for each feature that is normalised by batches."""
    given = around(4, 60)
    layers = 6 * 8 + 8 + 8 * 4 + 4
    for normalise, more in (("standardise", 0), ("batch_norm", 2 * 6)):
        figures = fit(given, options(normalise, (8,), epochs=1), run(tmp_path / normalise)).figures
        assert figures["trainable_parameters"] == figures["parameters"] == layers + more
        assert figures["seconds_per_epoch"] > 0
        assert figures["photos_per_second"] > 0


@pytest.mark.parametrize(
    ("inputs", "classes", "normalised", "millions"),
    [
        (2048 + 768, 249, True, 24.2 - 23.5),  # G³'s CLIP + ISN, beside the ISN itself
        (768, 249, False, 0.2),  # ICONIP's StreetCLIP
    ],
)
def test_published_sizes(inputs, classes, normalised, millions):
    with torch.device("meta"):
        found = counts(network(inputs, (), classes, normalised))
    assert round(found["trainable_parameters"] / 1e6, 1) == pytest.approx(millions)


def test_the_temperature_is_fitted_kept_and_divides(tmp_path):
    given = around(spread=1.2)
    given = replace(given, groups=np.arange(len(given.targets)) // 5)
    fitted = fit(given, options(epochs=40, stop_patience=None), run(tmp_path))
    model, figures = fitted.model, fitted.figures
    assert model.temperature == figures["temperature"] != 1
    held = given.validation
    logits = model.logits(given.images["a"][held])
    assert model.temperature == pytest.approx(fit_temperature(logits, given.targets[held]), rel=1e-3)
    right, first = given.targets[held], halves(held // 5, 5)
    of_others = [fit_temperature(logits[part], right[part]) for part in (~first, first)]
    crossed = logits / np.where(first, *of_others)[:, None]
    for name, divided in (("ece_before", logits), ("ece_after", crossed)):
        assert figures[name] == pytest.approx(expected_calibration_error(divided, right), abs=1e-4)
    answer = model.predict(Batch({"a": given.images["a"][held]}), 4)
    odds = np.log(answer.probabilities[:, 0] / answer.probabilities[:, 1])
    ranked = -np.sort(-logits, axis=1)
    np.testing.assert_allclose(odds, (ranked[:, 0] - ranked[:, 1]) / model.temperature, rtol=1e-3)


def test_another_seed_is_another_training(tmp_path):
    given = around(4, 60)
    one, same, other = (
        fit(given, options(epochs=2), run(tmp_path / str(number), seed=seed)).history
        for number, seed in enumerate([7, 7, 1])
    )
    assert one == same != other
