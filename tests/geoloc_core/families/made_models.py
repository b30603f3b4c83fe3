"""A small model of each family, with weights as they come, and what it is asked with."""

import io
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from geoloc_core.contracts.batch import Batch, Pieces
from geoloc_core.contracts.geolocator import Card, Trained
from geoloc_core.contracts.layers import Names
from geoloc_core.contracts.prediction import Prediction
from geoloc_core.encoders import encoder as encoders
from geoloc_core.encoders.carried import Carried
from geoloc_core.encoders.last_block import Shape
from geoloc_core.encoders.last_block import network as last_network
from geoloc_core.encoders.towers.vit import Options as ViT
from geoloc_core.families import classifier as classifiers
from geoloc_core.families import contrastive_captions, feature_experts, fine_tuned, sequence_classifier
from geoloc_core.families import density as densities
from geoloc_core.families import ensemble as ensembles
from geoloc_core.families import flow_matching as flows
from geoloc_core.families import geocell_classifier as geocells
from geoloc_core.families import geoclip as geoclips
from geoloc_core.families import guidebook_attention as attentions
from geoloc_core.families import hierarchical as trees
from geoloc_core.families import place_ensemble as place_ensembles
from geoloc_core.families import protonet_refinement as refinements
from geoloc_core.families import retrieval as retrievals
from geoloc_core.families import zero_shot as zero_shots
from geoloc_core.families.flow_matching.network import network as flow_network
from geoloc_core.families.flow_matching.options import Sampling
from geoloc_core.families.geocell_classifier import LastBlock
from geoloc_core.families.retrieval import comparison, gallery, ranking
from geoloc_core.families.retrieval import options as retrieval_options
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.training.auxiliary import Scale, Tasks
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


def place_ensemble(classes=6) -> Trained:
    """Of the same members; half of the second one's classes are those that are nearest."""
    block = place_ensembles.Options(kind="place_ensemble", corpus="c", members=("one", "other"), labels="country")
    known = [np.arange(classes), np.array([*range(classes // 2), *[-1] * (classes - classes // 2)])]
    weights = np.array([0.6, 0.4])
    model = place_ensembles.PlaceEnsemble(space(classes), ["one", "other"], weights, 2000.0, known)
    return Trained(Card(family="place_ensemble", needs=block.needs(), fingerprints={}), model)


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
    tensors = {"mean": rng.normal(size=width), "std": rng.uniform(0.5, 2, width), "bias": rng.normal(size=classes)}
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


def refinement(classes=6) -> Trained:
    """It refines a classifier; the first cell has no photo, the second one, and the others two clusters of three."""
    refined = classifier(classes=classes)
    inner = classifiers.Options(kind="classifier", corpus="c", encoders=("a", "b"), labels="country")
    block = refinements.Options(kind="protonet_refinement", corpus="c", variant="cells", encoder="b", labels="country")
    rng = np.random.default_rng(8)
    clusters, photos = [0, 1, *[2] * (classes - 2)], [1, *[3] * (2 * classes - 4)]
    names = Names.of(pa.array([f"photo {n}" for n in range(sum(photos))]), np.arange(sum(photos)))
    gallery = refinements.Gallery(
        np.cumsum([0, *clusters]),
        rng.normal(size=(len(photos), 3)).astype(np.float16),
        np.cumsum([0, *photos]),
        rng.normal(size=(sum(photos), 3)).astype(np.float16),
        None,
        rng.uniform(-90, 90, sum(photos)),
        rng.uniform(-180, 180, sum(photos)),
        names.text,
        names.ends,
    )
    settings = refinements.Settings(variant="cells", encoder="b", candidates=3, temperature=1.6, max_km=5000)
    model = refinements.Refinement(settings, refined, gallery, 1.5)
    needs = block.over({"cells": inner}).needs()
    return Trained(Card(family="protonet_refinement", needs=needs, fingerprints=MARKS), model)


def density(classes=6) -> Trained:
    """Components from a few kilometres to a continent."""
    block = densities.Options(kind="density", corpus="c", encoder="b", labels="country")
    torch.manual_seed(8)
    layers = linear_layers(network(3, (5,), classes))
    kappa = np.geomspace(5.0, 1e6, classes)
    mean, std = np.array([0.5, -1, 2], "f"), np.array([2, 0.5, 3], "f")
    model = densities.Density("b", space(classes), mean, std, layers, kappa, 0.01)
    return Trained(Card(family="density", needs=block.needs(), fingerprints={"b": "2"}), model)


def hierarchical() -> Trained:
    """Six leaves of a quadtree, one of them as large as a quarter of the world."""
    ids = ["1/0/0", "2/2/0", "2/3/0", "2/2/1", "3/6/2", "3/7/3"]
    south, west, north, east = trees.boxes_of(replace(space(), ids=ids)).bounds
    known = replace(space(), ids=ids, latitudes=south / 3 + north * 2 / 3, longitudes=west / 4 + east * 3 / 4)
    block = trees.Options(kind="hierarchical", corpus="c", encoder="b", labels="country", hidden=(16, 8))
    torch.manual_seed(7)
    net = trees.network(3, (16, 8), 6, offsets=True)
    tensors = {name: torch.randn(tensor.shape).numpy() for name, tensor in net.state_dict().items()}
    tensors |= {"mean": np.ones(3, np.float32), "std": np.full(3, 2, np.float32)}
    tensors["temperature"] = np.array([1.5], np.float32)
    model = trees.Hierarchical("b", known, trees.Extents.of(known), tensors)
    return Trained(Card(family="hierarchical", needs=block.needs(), fingerprints={"b": "2"}), model)


def retrieval(classes=6) -> Trained:
    """All steps, over a classifier; the first cell has no photo, and the others four each."""
    inner = classifiers.Options(kind="classifier", corpus="c", encoders=("a", "b"), labels="country")
    options = {"kind": "retrieval", "corpus": "c", "variant": "cells", "encoder": "b", "labels": "country",
               "gate": {"mass": 0.9, "most": 4}, "neighbours": {"count": 3}, "rerank": {"candidates": 5}}  # fmt: skip
    block = retrievals.Options.model_validate(options)
    rng, count = np.random.default_rng(9), 4 * (classes - 1)
    white = comparison.Whitening.of(rng.normal(size=(20, 3)).astype(np.float32), 2)
    heads = tuple(
        comparison.Head({
            name: rng.normal(size=shape).astype(np.float32) for name, shape in comparison.head_shapes(3, 4).items()
        })
        for _ in range(2)
    )  # fmt: skip
    compared = comparison.Comparison(0.34, white, heads)
    vectors, scale = gallery.rounded(compared(rng.normal(size=(count, 3))), "int8")
    photos = gallery.Gallery(
        np.array([0, *range(0, count + 1, 4)]),
        vectors,
        scale,
        rng.normal(size=count).astype(np.float32) / 10,
        rng.uniform(-80, 80, count),
        rng.uniform(-170, 170, count),
        rng.integers(1, 5, count),
        Names.of(pa.array([f"photo {n}" for n in range(count)]), np.arange(count)),
    )
    numbers = len(ranking.NAMES)
    ranked = ranking.Ranking(rng.normal(size=numbers), rng.random(numbers) + 0.5, rng.normal(size=numbers), -1.0, 0.3)
    settings = retrieval_options.Settings.of(block)
    model = retrievals.Retrieval(settings, classifier(classes=classes), compared, photos, ranked, 1.5)
    return Trained(Card(family="retrieval", needs=block.over({"cells": inner}).needs(), fingerprints=MARKS), model)


def cells(views="all", tasks=True, block=False, classes=6) -> Trained:
    """A classifier of cells with all tasks, on features of ``b``, or on two tokens of each photo, 4 wide."""
    told = Tasks() if tasks else None
    chosen = LastBlock(last_block="b") if block else "b"
    block_of = geocells.Options(
        kind="geocell_classifier", corpus="c", encoder=chosen, labels="country", views=views, tasks=told
    )
    torch.manual_seed(6)
    shape = Shape(heads=2, activation="quick_gelu", eps=1e-5, norm=False) if block else None
    width = 4 if block else 3
    own = None if shape is None else last_network(shape, _layer(width), "mean")
    net = geocells.network((2, width) if block else (width,), classes, told, own)
    scale = Scale(list(told.quantities), np.linspace(1, 2, 6), np.linspace(0.5, 1, 6)) if told else None
    said = geocells.Said(views=views, tasks=told, block=shape, pool="mean")
    model = geocells.GeocellClassifier("b", space(classes), said, geocells.exported(net, 1.5, scale))
    return Trained(Card(family="geocell_classifier", needs=block_of.needs(), fingerprints=MARKS), model)


def _layer(width: int) -> dict[str, torch.Tensor]:
    made = torch.nn.TransformerEncoderLayer(width, 2, 8)
    return {f"layer.{name}": tensor for name, tensor in made.state_dict().items()}


def geoclip(classes=6) -> Trained:
    """Forty places, none of the last class."""
    torch.manual_seed(6)
    block = geoclips.Options(kind="geoclip", corpus="c", encoder="b", labels="country")
    rng = np.random.default_rng(6)
    latitudes, longitudes = rng.uniform(-80, 80, 40), rng.uniform(-170, 170, 40)
    embedded = rng.normal(size=(40, 4)).astype(np.float32)
    embedded /= np.linalg.norm(embedded, axis=1, keepdims=True)
    places = geoclips.Gallery.build(
        lambda lat, lon: embedded[np.searchsorted(np.sort(latitudes), lat)],
        latitudes,
        longitudes,
        np.arange(40) % (classes - 1),
        classes,
    )
    model = geoclips.GeoCLIP("b", space(classes), linear_layers(network(3, (5,), 4)), 14.0, 1.5, places)
    return Trained(Card(family="geoclip", needs=block.needs(), fingerprints={"b": "2"}), model)


def flow_matching(classes=6) -> Trained:
    """Its flow is as slow as after little training."""
    torch.manual_seed(9)
    block = flows.Options(kind="flow_matching", corpus="c", encoder="b", labels="country")
    net = flow_network(3, 8, 2, 2).requires_grad_(False)
    for parameter in net.parameters():  # as training leaves them: none is 0
        parameter.copy_(torch.randn(parameter.shape) / 4)
    rng = np.random.default_rng(9)
    mean, std = rng.normal(size=3).astype(np.float32), rng.random(3).astype(np.float32) + 0.5
    sampling = Sampling(draws=16, steps=2)
    model = flows.Flow("b", space(classes), mean, std, net, rng.dirichlet(np.ones(classes)), sampling)
    return Trained(Card(family="flow_matching", needs=block.needs(), fingerprints={"b": "2"}), model)


def zero_shot(classes=6, towns=(3, 0, 1, 2, 0, 4)) -> Trained:
    """Some countries have no town."""
    block = zero_shots.Options(kind="zero_shot", corpus="c", encoder="b", towns=4)
    rng, t = np.random.default_rng(8), sum(towns)
    vectors = rng.normal(size=(classes + t, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    starts = np.concatenate([[0], np.cumsum(towns)]).astype(np.int64)
    places = rng.uniform(-80, 80, t), rng.uniform(-170, 170, t)
    names = [f"town {n}" for n in range(t)]
    model = zero_shots.ZeroShot("b", space(classes), vectors[:classes], vectors[classes:], names, *places, starts, 20.0)
    return Trained(Card(family="zero_shot", needs=block.needs(), fingerprints={"b": "2"}), model)


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
    "protonet_refinement": refinement,
    "geocell_classifier": cells,
    "geoclip": geoclip,
    "zero_shot": zero_shot,
    "contrastive_captions": contrastive,
    "sequence_classifier": sequence,
    "retrieval": retrieval,
    "hierarchical": hierarchical,
    "density": density,
    "flow_matching": flow_matching,
    "place_ensemble": place_ensemble,
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
