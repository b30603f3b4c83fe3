"""A classifier says the same before and after it is saved, and is self-contained."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc_core.contracts.batch import Batch
from geoloc_core.families.classifier import Classifier
from geoloc_core.training.heads import linear_layers, network

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
    best, classes = expected.softmax(dim=1).topk(3)
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
