"""A small model of each family, with weights as they come, and what it is asked with."""

import numpy as np
import torch

from geoloc_core.contracts.batch import Batch
from geoloc_core.contracts.geolocator import Card, Trained
from geoloc_core.contracts.prediction import Prediction
from geoloc_core.families import classifier as classifiers
from geoloc_core.families import ensemble as ensembles
from geoloc_core.families import guidebook_attention as attentions
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.training.heads import linear_layers, network

MARKS = {"a": "1", "b": "2"}


def space(classes=6) -> LabelSpace:
    """Countries from south-west to north-east."""
    return LabelSpace(
        "country",
        [f"C{i:02d}" for i in range(classes)],
        [f"Country {i}" for i in range(classes)],
        [""] * classes,
        np.linspace(-80, 80, classes),
        np.linspace(-170, 170, classes),
    )


def _statistics() -> tuple[np.ndarray, np.ndarray]:
    return torch.randn(5).numpy(), torch.rand(5).numpy() + 0.5


def classifier(hidden=(8, 4), classes=6) -> Trained:
    torch.manual_seed(3)
    block = classifiers.Options(kind="classifier", corpus="c", encoders=("a", "b"), labels="country")
    layers = linear_layers(network(5, hidden, classes))
    model = classifiers.Classifier(["a", "b"], space(classes), *_statistics(), layers, 1.5)
    return Trained(Card(family="classifier", needs=block.needs(), fingerprints=MARKS), model)


def attention(clues=7, classes=6, weighting="sigmoid_relu", fusion="concat", hidden=()) -> Trained:
    """It reads five features, and attends by the last three of them."""
    torch.manual_seed(4)
    block = attentions.Options(
        kind="guidebook_attention", corpus="c", encoders=("a", "b"), attends=("b",), text_encoder="t", texts="clues",
        labels="country", weighting=weighting, fusion=fusion, hidden=hidden,
    )  # fmt: skip
    net = attentions.network(2, 3, torch.randn(clues, 3), classes, weighting, fusion, hidden)
    with torch.no_grad():  # as training leaves them: no mean is 0 and no spread 1
        for name, tensor in net.state_dict().items():
            if "num_batches" not in name:
                tensor.copy_(torch.rand(tensor.shape) + 0.5 if name.endswith("var") else torch.randn(tensor.shape))
    ids, texts = ([f"{word}{n}" for n in range(clues)] for word in ("id", "clue "))
    told = attentions.Clues(ids=ids, texts=texts, weighting=weighting, fusion=fusion)
    model = attentions.exported(net, 1.5, told, ["a", "b"], space(classes))
    return Trained(Card(family="guidebook_attention", needs=block.needs(), fingerprints=MARKS), model)


def ensemble(classes=6) -> Trained:
    """Its second member knows all classes but the first, and one that is none of its own."""
    block = ensembles.Options(kind="ensemble", corpus="c", members=("one", "other"), labels="country")
    known = [np.arange(classes), np.array([*range(1, classes), -1])]
    model = ensembles.Ensemble(space(classes), ["one", "other"], np.array([0.6, 0.4]), known)
    return Trained(Card(family="ensemble", needs=block.needs(), fingerprints={}), model)


MADE = {"classifier": classifier, "guidebook_attention": attention, "ensemble": ensemble}


def photos(rows: int, seed: int = 0) -> Batch:
    """Everything that any of the models reads."""
    rng = np.random.default_rng(seed)
    features = {"a": rng.normal(size=(rows, 2)).astype(np.float16), "b": rng.normal(size=(rows, 3)).astype(np.float16)}
    answers = {
        name: Prediction.of_probabilities(rng.dirichlet(np.ones(6), rows), space(), k)
        for name, k in (("one", 6), ("other", 3))
    }
    return Batch(features, answers)
