"""A classifier says the same before and after it is saved, and is self-contained."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc_core.errors import UserError
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.models import geolocator
from geoloc_core.models.classifier import Classifier
from geoloc_core.training.heads import linear_layers, network


def classifier(hidden=(8, 4), classes=6) -> Classifier:
    torch.manual_seed(3)
    space = LabelSpace(
        "country",
        [f"C{i:02d}" for i in range(classes)],
        [f"Country {i}" for i in range(classes)],
        [""] * classes,
        np.linspace(-80, 80, classes),
        np.linspace(-170, 170, classes),
    )
    mean, std = torch.randn(5).numpy(), torch.rand(5).numpy() + 0.5
    layers = linear_layers(network(5, hidden, classes))
    return Classifier("hybrid", ["a", "b"], {"a": "1", "b": "2"}, space, mean, std, layers)


@pytest.mark.parametrize("hidden", [(), (8,), (8, 4)])
def test_it_answers_like_the_network_it_was_trained_as(hidden):
    torch.manual_seed(1)
    net = network(5, hidden, 6)
    model = replace(classifier(hidden), layers=linear_layers(net))
    joined = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
    with torch.inference_mode():
        expected = net((torch.from_numpy(joined) - torch.from_numpy(model.mean)) / torch.from_numpy(model.std))
    np.testing.assert_allclose(model.logits(joined), expected.numpy(), atol=1e-5)
    answer = model.predict_features({"a": joined[:, :2], "b": joined[:, 2:]}, 3)
    best, classes = expected.softmax(dim=1).topk(3)
    np.testing.assert_array_equal(answer.classes, classes.numpy())
    np.testing.assert_allclose(answer.probabilities, best.numpy(), atol=1e-5)


def features(rows: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(rows)
    return {"a": rng.normal(size=(rows, 2)).astype(np.float16), "b": rng.normal(size=(rows, 3)).astype(np.float16)}


@pytest.mark.parametrize("hidden", [(), (8,), (8, 4)])
def test_saved_and_loaded_it_answers_the_same(tmp_path, hidden):
    model = classifier(hidden)
    model.save(tmp_path)
    loaded = geolocator.load(tmp_path)
    one, two = model.predict_features(features(20)), loaded.predict_features(features(20))
    np.testing.assert_array_equal(one.classes, two.classes)
    np.testing.assert_array_equal(one.probabilities, two.probabilities)
    np.testing.assert_allclose(one.latitudes, two.latitudes, atol=1e-6)
    assert loaded.encoders == ["a", "b"]
    assert loaded.fingerprints == {"a": "1", "b": "2"}
    assert not list(tmp_path.glob("*.p*k*l")), "nothing is pickled"


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 30), st.integers(1, 9))
def test_answers_are_ranked_probabilities_of_places(rows, k):
    model = classifier()
    answer = model.predict_features(features(rows), k)
    assert answer.classes.shape == (rows, min(k, 6))
    assert (np.diff(answer.probabilities, axis=1) <= 0).all()
    assert (answer.probabilities.sum(axis=1) <= 1 + 1e-5).all()
    np.testing.assert_array_equal(answer.latitude, model.labelspace.latitudes[answer.classes[:, 0]])
    np.testing.assert_array_equal(answer.longitude, model.labelspace.longitudes[answer.classes[:, 0]])


def test_the_order_of_encoders_is_the_models_not_the_callers():
    model = classifier()
    given_order = features(4)
    other_order = dict(reversed(given_order.items()))
    np.testing.assert_array_equal(
        model.predict_features(given_order).probabilities, model.predict_features(other_order).probabilities
    )


def test_a_folder_that_is_no_model_is_said_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"model\.json: no such file; expected a trained model"):
        geolocator.load(tmp_path)
    classifier().save(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(UserError, match="not a safetensors file"):
        geolocator.load(tmp_path)
