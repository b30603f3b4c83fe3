"""A small model of each family, with weights as they come, and what it is asked with."""

import io
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from geoloc_core.contracts.batch import Batch, Pieces
from geoloc_core.contracts.geolocator import Card, Trained
from geoloc_core.contracts.prediction import Prediction
from geoloc_core.encoders import encoder as encoders
from geoloc_core.encoders.carried import Carried
from geoloc_core.encoders.towers.vit import Options as ViT
from geoloc_core.families import classifier as classifiers
from geoloc_core.families import contrastive_captions, feature_experts, fine_tuned, sequence_classifier
from geoloc_core.families import ensemble as ensembles
from geoloc_core.families import guidebook_attention as attentions
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.training.heads import Fitted, linear_layers, network
from tests.geoloc_core.encoders import made_segmenters

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


@cache
def _tower() -> Path:
    """The weights of a small ViT; a process makes them once."""
    folder = Path(tempfile.mkdtemp())
    torch.manual_seed(5)
    made_segmenters.vit(folder)
    return folder


def tuned(pieces=None, groups=None, classes=6) -> Trained:
    """A fine-tuned network, of photos or of pieces."""
    options = {
        "kind": "fine_tuned",
        "corpus": "c",
        "tower": "v",
        "labels": "country",
        "pieces": pieces,
        "groups": groups,
    }
    block = fine_tuned.Options.model_validate(options)
    tower = ViT(kind="vit")
    opened = Carried(tower, _tower(), encoders.load(tower, _tower()))
    width, rng = opened.encoder.shape[0], np.random.default_rng(len(groups or ()))
    tensors = {"mean": np.zeros(width), "std": np.ones(width), "bias": np.zeros(classes)}
    tensors |= {"weight": rng.normal(size=(classes, width)), "temperature": np.array([1.5])}
    tensors = {name: tensor.astype(np.float32) for name, tensor in tensors.items()}
    tensors["prior"] = np.linspace(1, 2, classes) / (1.5 * classes)
    said = fine_tuned.Network(tower=tower, groups=block.groups, vote="majority")
    model = fine_tuned.FineTuned(space(classes), pieces, [], said, opened, tensors)
    return Trained(Card(family="fine_tuned", needs=block.needs(), fingerprints={"cut": "3"} if pieces else {}), model)


def experts(classes=6) -> Trained:
    """Two experts, the second of which knows all classes but the first."""
    block = feature_experts.Options(
        kind="feature_experts", corpus="c", pieces="cut", experts=("ground", "rest"), labels="country"
    )
    parts = {"ground": tuned("cut", ("ground",)), "rest": tuned("cut", ("structures", "vehicles"))}
    known = [np.arange(classes), np.array([*range(1, classes), -1])]
    prior = np.full(classes, 1 / classes)
    model = feature_experts.FeatureExperts(space(classes), "cut", parts, known, "weighted", prior)
    return Trained(Card(family="feature_experts", needs=block.needs(), fingerprints={"cut": "3"}), model)


def contrastive(classes=6) -> Trained:
    """Captions of two classes each, but for the first class, which has one of its own too; it reads five features."""
    torch.manual_seed(6)
    block = contrastive_captions.Options(
        kind="contrastive_captions", corpus="c", encoders=("a", "b"), text_encoder="t", texts="towns", labels="country"
    )
    captions = np.array([0, *range(1, classes), *range(1, classes)])
    of_photos = np.array([0, *range(classes - 1), *range(1, classes)])
    given = contrastive_captions.Captioned(
        [f"Town {n}" for n in range(classes)],
        torch.randn(classes, 4).numpy(),
        contrastive_captions.Pairs.of(captions, of_photos),
        space(classes),
        of_photos,
        np.arange(len(of_photos)),
    )
    net = contrastive_captions.network(_statistics(), (np.zeros(4), np.ones(4)), given, 8, 0.1).eval()
    with torch.no_grad():  # as training leaves them: no gain is 1 and no shift 0
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    told = contrastive_captions.Captions(texts=given.texts)
    model = contrastive_captions.exported(net, 1.5, told, given, ["a", "b"], None)
    return Trained(Card(family="contrastive_captions", needs=block.needs(), fingerprints=MARKS), model)


def sequence(hidden=(8, 4), classes=6, views=3) -> Trained:
    """It reads five features of a view."""
    torch.manual_seed(7)
    block = sequence_classifier.Options(
        kind="sequence_classifier", corpus="c", encoders=("a", "b"), labels="country", views=views
    )
    mean, std = map(torch.from_numpy, _statistics())
    net = sequence_classifier.network(5, 6, hidden, classes, 0.5)
    fitted = Fitted(net, mean, std, [], 0, 1.5, {})
    model = sequence_classifier.exported(net, fitted, ["a", "b"], space(classes), views)
    return Trained(Card(family="sequence_classifier", needs=block.needs(), fingerprints=MARKS), model)


MADE = {
    "classifier": classifier,
    "guidebook_attention": attention,
    "ensemble": ensemble,
    "fine_tuned": tuned,
    "feature_experts": experts,
    "contrastive_captions": contrastive,
    "sequence_classifier": sequence,
}


def picture(seed: int) -> bytes:
    """A small photo of noise."""
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def cut(rows: int, seed: int = 0) -> Pieces:
    """Up to three pieces of each photo, of any group."""
    rng = np.random.default_rng(seed)
    starts = np.concatenate([[0], np.cumsum(rng.integers(0, 4, rows))])
    count = int(starts[-1])
    groups = np.array(["ground", "structures", "vehicles", None], dtype=object)[rng.integers(0, 4, count)]
    names = np.array([f"thing {n}" for n in range(count)], dtype=object)
    return Pieces(starts, names, groups, rng.random(count), rng.integers(1, 99, count), [*map(picture, range(count))])


def photos(rows: int, seed: int = 0) -> Batch:
    """Everything that any of the models reads."""
    rng = np.random.default_rng(seed)
    features = {"a": rng.normal(size=(rows, 2)).astype(np.float16), "b": rng.normal(size=(rows, 3)).astype(np.float16)}
    answers = {
        name: Prediction.of_probabilities(rng.dirichlet(np.ones(6), rows), space(), k)
        for name, k in (("one", 6), ("other", 3))
    }
    return Batch(features, answers, photos=[*map(picture, range(rows))], pieces={"cut": cut(rows, seed)})
