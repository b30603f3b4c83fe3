"""Each family computes the papers' equations: answers and losses against float64 NumPy, written down line by line."""

import numpy as np
import pytest
import torch

from geoloc_core.families import classifier, guidebook_attention
from geoloc_core.training import losses, photo_classifier
from geoloc_core.training.heads import network
from geoloc_core.training.optimisers import SGD
from geoloc_core.training.schedules import Constant
from geoloc_core.training.weights import EffectiveNumber, InverseFrequency

from .made_lessons import clues, data, run
from .made_models import attention, photos, space

EPS = 1e-5
COUNTS = (1, 5, 26)
"""Training photos of each class."""


def normalised(x, mean=None, variance=None):
    """By the batch's own mean and (biased) variance where none are given."""
    mean = x.mean(axis=0) if mean is None else mean
    variance = ((x - x.mean(axis=0)) ** 2).mean(axis=0) if variance is None else variance
    return (x - mean) / np.sqrt(variance + EPS)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def weigh(z, weighting):
    if weighting == "softmax":
        return np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    return sigmoid(np.where(z > 0, z, 0))


def dense(x, state, first, last):
    """Layers of a Sequential, ReLU between them."""
    for number in range(first, last + 1, 2):
        x = x @ state[f"{number}.weight"].T + state[f"{number}.bias"]
        x = np.maximum(x, 0) if number < last else x
    return x


def cross_entropy(logits, truth, weights):
    total, share = 0.0, 0.0
    for row, true in zip(logits, truth, strict=True):
        p = np.exp(row[true]) / np.exp(row).sum()
        total += weights[true] * -np.log(p)
        share += weights[true]
    return total / share


def guidance(z, relevant, positive):
    total = 0.0
    for score, about in zip(z.flatten(), relevant.flatten(), strict=True):
        total -= positive * about * np.log(sigmoid(score)) + (1 - about) * np.log(1 - sigmoid(score))
    return total / z.size


def doubles(net, start=""):
    state = net.state_dict().items()
    return {name.removeprefix(start): tensor.double().numpy() for name, tensor in state if name.startswith(start)}


def of_g3(state, image, clip, weighting, fusion, trained=False):
    """Scores z and logits of Luo et al. 2022; by the batch's statistics while training, the running ones after."""

    def norm(x, name):
        known = () if trained else (state[f"{name}.running_mean"], state[f"{name}.running_var"])
        return normalised(x, *known) * state[f"{name}.weight"] + state[f"{name}.bias"]

    z = norm(clip, "attention.0") @ state["attention.1.weight"].T + state["attention.1.bias"]
    text = weigh(z, weighting) @ state["clues"]
    joined = [image, text, clip] if fusion == "concat" else [image, text + clip]
    layers = {name.removeprefix("classifier."): value for name, value in state.items()}
    last = max(int(name.split(".")[0]) for name in layers if name.split(".")[0].isdigit())
    return z, dense(norm(np.concatenate(joined, axis=1), "classifier.0"), layers, 1, last)


def shaken(net):
    """With statistics and gains that are none of the first ones."""
    for name, tensor in net.state_dict().items():
        if "num_batches" not in name and name != "clues":
            values = torch.rand(tensor.shape, dtype=tensor.dtype) + 0.5
            tensor.copy_(values if name.endswith("var") else values - 1)
    return net


CASES = [("sigmoid_relu", "concat", ()), ("softmax", "concat", (5,)), ("sigmoid_relu", "add", (5,))]


@pytest.mark.parametrize(("weighting", "fusion", "hidden"), CASES)
@pytest.mark.parametrize("training", [True, False])
def test_the_network_of_g3(weighting, fusion, hidden, training):
    torch.manual_seed(0)
    net = guidebook_attention.network(2, 3, torch.randn(7, 3), 4, weighting, fusion, hidden).double()
    shaken(net).train(training)
    state = doubles(net)
    image, clip = torch.randn(9, 2, dtype=torch.double), torch.randn(9, 3, dtype=torch.double)
    z, logits = of_g3(state, image.numpy(), clip.numpy(), weighting, fusion, training)
    found_logits, found_z = net(image, clip)
    np.testing.assert_allclose(found_z.detach(), z, rtol=1e-6)
    np.testing.assert_allclose(found_logits.detach(), logits, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("weighting", "fusion", "hidden"), CASES)
def test_its_model_answers_in_numpy_what_it_learned_in_torch(weighting, fusion, hidden):
    torch.manual_seed(0)
    net = shaken(guidebook_attention.network(2, 3, torch.randn(7, 3), 6, weighting, fusion, hidden))
    told = attention(7, weighting=weighting, fusion=fusion).model.clues
    model = guidebook_attention.exported(net, 2.0, told, ["a", "b"], space())
    batch = photos(20)
    image, clip = (batch.images[name].astype(np.float64) for name in ("a", "b"))
    z, logits = of_g3(doubles(net), image, clip, weighting, fusion)
    scores, found = model.attend(np.concatenate([batch.images["a"], batch.images["b"]], axis=1))
    np.testing.assert_allclose(scores, z, atol=1e-5)
    np.testing.assert_allclose(found, logits, atol=1e-5)
    probabilities = np.exp(logits / 2) / np.exp(logits / 2).sum(axis=1, keepdims=True)
    answer = model.predict(batch, 6)
    expected = np.take_along_axis(probabilities, answer.classes, axis=1)
    np.testing.assert_allclose(answer.probabilities, expected, atol=1e-6)


def test_losses():
    rng = np.random.default_rng(0)
    logits, truth, weights = rng.normal(size=(9, 4)), rng.integers(0, 4, 9), rng.random(4)
    found = losses.of_class(*map(torch.from_numpy, (logits, truth, weights)))
    assert found.item() == pytest.approx(cross_entropy(logits, truth, weights), rel=1e-9)
    scores, relevant = rng.normal(size=(9, 7)), (rng.random((9, 7)) < 0.3).astype(float)
    for positive in (1.0, 50.0):
        found = losses.of_attention(torch.from_numpy(scores), torch.from_numpy(relevant), positive)
        assert found.item() == pytest.approx(guidance(scores, relevant, positive), rel=1e-9)


def test_the_loss_of_photos_is_weighted_and_adds_up_over_the_parts_of_a_batch():
    """Σ w_y · −log p_y / b: it is divided by the photos, not by their weights."""
    rng = np.random.default_rng(0)
    logits, truth, weights = rng.normal(size=(9, 4)), rng.integers(0, 4, 9), rng.random(4)
    expected = cross_entropy(logits, truth, weights) * weights[truth].sum() / 9
    whole, classes, of_classes = map(torch.from_numpy, (logits, truth, weights))
    assert photo_classifier.of_class(whole, classes, of_classes).item() == pytest.approx(expected, rel=1e-9)
    parts = zip(whole.split(4), classes.split(4), strict=True)
    found = sum(photo_classifier.of_class(*part, of_classes).item() * len(part[0]) / 9 for part in parts)
    assert found == pytest.approx(expected, rel=1e-9)


def rare(seed=0):
    """Photos of classes with few and many photos; the last eight are for validation."""
    rng = np.random.default_rng(seed)
    targets = np.concatenate([rng.permutation(np.repeat([0, 1, 2], COUNTS)), rng.integers(0, 3, 8)])
    features = rng.normal(1, 2, (40, 4)).astype(np.float16)
    about = [(space(3).ids[number % 3],) for number in range(6)]
    return data(features, targets, 3, clues(rng.normal(size=(6, 5)), about), validation_share=0.2)


STEP = {"epochs": 1, "batch": 32, "optimiser": SGD(lr=0.1), "schedule": Constant()}
"""One step on all training photos: the loss that is told is that of the first weights."""
WEIGHTS = [
    (None, [1, 1, 1]),
    (InverseFrequency(), [1 / n for n in COUNTS]),
    (InverseFrequency(power=0.5), [n**-0.5 for n in COUNTS]),
    (EffectiveNumber(beta=0.9), [0.1 / (1 - 0.9**n) for n in COUNTS]),
]


@pytest.mark.parametrize(("weights", "of_classes"), WEIGHTS)
def test_a_classifier_is_trained_by_weighted_cross_entropy(tmp_path, weights, of_classes):
    given = rare()
    options = classifier.Options(
        kind="classifier",
        corpus="c",
        encoders=("a",),
        labels="country",
        hidden=(5,),
        recipe={**STEP, "weights": weights},
    )
    told = classifier.fit(given, options, run(tmp_path)).history[0]["loss"]
    torch.manual_seed(5)
    state = doubles(network(4, (5,), 3))
    x = given.images["a"].astype(np.float64)[given.training]
    logits = dense((x - x.mean(axis=0)) / x.std(axis=0, ddof=1), state, 0, 2)
    assert told == pytest.approx(cross_entropy(logits, given.targets[given.training], of_classes), rel=1e-6)


@pytest.mark.parametrize(("weights", "of_classes"), WEIGHTS[:2])
@pytest.mark.parametrize("weighting", ["sigmoid_relu", "softmax"])
@pytest.mark.parametrize(("share", "positive"), [(0.75, 50.0), (0.75, 2.0), (0.3, 50.0), (0.0, 50.0)])
def test_guided_attention_is_trained_by_both_losses(tmp_path, weights, of_classes, weighting, share, positive):
    given = rare()
    options = guidebook_attention.Options(
        kind="guidebook_attention", corpus="c", encoders=("a",), text_encoder="t", texts="clues", labels="country",
        weighting=weighting, guidance=share, positive_weight=positive, recipe={**STEP, "weights": weights},
    )  # fmt: skip
    told = guidebook_attention.fit(given, options, run(tmp_path)).history[0]["loss"]
    torch.manual_seed(5)
    text = torch.from_numpy(given.texts["t", "clues"].features)
    state = doubles(guidebook_attention.network(0, 4, text, 3))
    x, truth = given.images["a"].astype(np.float64)[given.training], given.targets[given.training]
    z, logits = of_g3(state, x[:, :0], x, weighting, "concat", trained=True)
    relevant = (np.arange(6) % 3 == truth[:, None]).astype(float)
    expected = (1 - share) * cross_entropy(logits, truth, of_classes) + share * guidance(z, relevant, positive)
    assert told == pytest.approx(expected, rel=1e-6)
