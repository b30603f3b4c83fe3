"""G³ with its image network trained along: the model that answers is the network that was trained."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from geoloc_core.contracts.batch import Batch, Data, Run, Sentences, Tower
from geoloc_core.contracts.geolocator import Card, Trained, load
from geoloc_core.corpora import manifest
from geoloc_core.corpora.stored import Stored
from geoloc_core.encoders.towers.vit import Options as ViT
from geoloc_core.errors import UserError
from geoloc_core.families import contrastive_captions, fine_tuned, guidebook_attention
from geoloc_core.training import calibration
from tests.geoloc_core.encoders import made_segmenters

from .made_models import space
from .test_fine_tuned import png

FAST = {
    "optimiser": {"kind": "adamw", "lr": 0.01},
    "epochs": 15,
    "batch": 16,
    "augment": "none",
    "precision": "fp32",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Data:
    """80 photos whose brightness tells two pairs of classes apart, and whose feature tells the classes of each pair."""
    folder = tmp_path_factory.mktemp("along")
    made_segmenters.vit(folder / "tower")
    rng = np.random.default_rng(2)
    classes = np.arange(80) % 4
    with manifest.ShardWriter(folder / "c") as writer:
        for number, at in enumerate(classes):
            shade = 40 + 150 * (at // 2) + int(rng.integers(0, 20))
            writer.add(f"p{number}", png((shade, shade, shade)), f"{number}.png")
    features = rng.normal(size=(80, 6)).astype(np.float16)
    features[:, 0] += 4 * (classes % 2)
    clues = Sentences(
        ["a", "b", "c"], ["A", "B", "C"], [("C00",), ("C01", "C02"), ()], rng.normal(size=(3, 5)).astype("f4")
    )
    return Data(
        {"clip": features, "more": features[:, 1:3]}, {("words", "clues"): clues}, {}, space(4), classes,
        np.arange(64), np.arange(64, 80), np.full(80, np.nan), np.full(80, np.nan), photos=Stored.all_of(folder / "c"),
        towers={"v": Tower(ViT(kind="vit"), folder / "tower")},
    )  # fmt: skip


GUIDED = {
    "kind": "guidebook_attention",
    "corpus": "c",
    "encoders": ["clip", "more"],
    "attends": ["clip"],
    "tower": "v",
    "text_encoder": "words",
    "texts": "clues",
    "labels": "country",
}


TUNED = {
    "kind": "fine_tuned",
    "corpus": "c",
    "tower": "v",
    "encoders": ["clip"],
    "normalise": "batch_norm",
    "labels": "country",
    "recipe": FAST,
}


def fitted(family, block, data, folder, **recipe):
    folder.mkdir()
    options = family.Options.model_validate(block)
    found = family.fit(data, options, Run(3, folder / "checkpoint.pt", ["x"], lambda metrics, epoch: None))
    model = folder / "model"
    model.mkdir()
    needs = options.needs()
    card = Card(family=block["kind"], needs=needs, fingerprints=dict.fromkeys(needs.encoded, "1"))
    Trained(card, found.model).save(model)
    return options, found, load(model).model


def asked(data) -> Batch:
    return Batch(images=data.images, photos=data.photos.read())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "block"),
    [
        (guidebook_attention, {**GUIDED, "network": FAST}),
        (guidebook_attention, {**GUIDED, "network": FAST, "attends": ["clip", "more"]}),
        (guidebook_attention, {**GUIDED, "network": FAST, "weighting": "softmax", "guidance": 0}),
        (fine_tuned, TUNED),
    ],
)
def test_photo_and_feature_together_tell_all_classes_apart(data, tmp_path, family, block):
    _, found, model = fitted(family, block, data, tmp_path / "run")
    assert found.history[found.best]["validation_accuracy"] > 70, (
        "neither the photo nor the feature alone tells more than half"
    )
    answer = found.model.predict(asked(data), 4, data.targets)
    assert (answer.truth.rank[64:] == 0).mean() * 100 == pytest.approx(
        found.history[found.best]["validation_accuracy"], abs=7
    ), "the model that answers is the network of the best epoch"
    loaded = model.predict(asked(data), 4, data.targets)
    np.testing.assert_allclose(loaded.probabilities, answer.probabilities, rtol=1e-4, atol=1e-6)
    assert found.figures["trainable_parameters"] == found.figures["parameters"]
    assert calibration.LOWEST <= model.tensors["temperature"][0] <= calibration.HIGHEST


def test_features_that_are_not_numbers_are_counted_and_refused(data, tmp_path):
    spoilt = data.images["clip"].copy()
    spoilt[[3, 70], 1] = np.nan
    with pytest.raises(UserError, match=r"^2 photos have features that are not numbers; encode the corpus again$"):
        fitted(fine_tuned, TUNED, replace(data, images={**data.images, "clip": spoilt}), tmp_path / "run")


@pytest.mark.slow
def test_the_answer_is_the_forward_pass_of_the_network_that_was_trained(data, tmp_path, monkeypatch):
    """In float64 and by the letter: z = W · BN(clip) + b, a = sigmoid(relu(z)), BN([image, text, clip]), linear."""
    kept = []
    made = guidebook_attention.network
    monkeypatch.setattr(guidebook_attention, "network", lambda *a: kept.append(made(*a)) or kept[-1])
    _, _, model = fitted(guidebook_attention, {**GUIDED, "network": FAST}, data, tmp_path / "run")
    net, rows = kept[0].eval(), np.arange(64, 80)
    batch = asked(data).rows(rows)
    pixels = model.tower.encoder.preprocess(batch.photos)
    x = torch.from_numpy(np.ascontiguousarray(model.tower.encoder.preprocess.normalised(pixels)))
    clip, more = (torch.from_numpy(data.images[name][rows].astype(np.float32)) for name in ("clip", "more"))
    with torch.inference_mode():
        logits, scores = net(x, clip, more)
    features = np.concatenate([model.tower.features(batch.photos), more.numpy(), clip.numpy()], axis=1)
    ours = model.attend(features)
    np.testing.assert_allclose(ours[0], scores.numpy(), atol=1e-4)
    np.testing.assert_allclose(ours[1], logits.numpy(), atol=1e-3)
    state = {name: value.double().numpy() for name, value in net.state_dict().items()}

    def norm(values, of):
        mean, variance = state[f"{of}.running_mean"], state[f"{of}.running_var"]
        return (values - mean) / np.sqrt(variance + 1e-5) * state[f"{of}.weight"] + state[f"{of}.bias"]

    z = norm(clip.double().numpy(), "attention.0") @ state["attention.1.weight"].T + state["attention.1.bias"]
    text = 1 / (1 + np.exp(-np.maximum(z, 0))) @ state["clues"]
    image = model.tower.features(batch.photos).astype(np.float64)
    joined = norm(np.concatenate([image, more.double().numpy(), text, clip.double().numpy()], axis=1), "classifier.0")
    expected = joined @ state["classifier.1.weight"].T + state["classifier.1.bias"]
    np.testing.assert_allclose(ours[1], expected, atol=1e-3)


PLAIN = {"kind": "fine_tuned", "corpus": "c", "tower": "v", "labels": "country"}
CAPTIONED = {**PLAIN, "kind": "contrastive_captions", "text_encoder": "words", "texts": "towns", "width": 8}


@pytest.mark.parametrize(
    ("family", "block", "recipe"),
    [
        (guidebook_attention, GUIDED, "network"),
        (contrastive_captions, CAPTIONED, "network"),
        (fine_tuned, PLAIN, "recipe"),
    ],
)
def test_a_seed_decides_and_frozen_parts_stay(data, tmp_path, family, block, recipe):
    """One epoch of a single step: what is told of it is told of the first weights."""
    towns = Sentences([*map(str, range(80))], [f"Town {of}" for of in data.targets], [()] * 80,
                      np.eye(5, dtype=np.float32)[data.targets])  # fmt: skip
    given = replace(data, texts={**data.texts, ("words", "towns"): towns})
    told = {}
    for name, seed, freeze in (("one", 3, 0), ("same", 3, 0), ("other", 4, 0), ("ice", 3, "all_but_last")):
        chosen = family.Options.model_validate({**block, recipe: {**FAST, "epochs": 1, "batch": 80, "freeze": freeze}})
        (tmp_path / name).mkdir()
        run = Run(seed, tmp_path / name / "checkpoint.pt", ["x"], lambda metrics, epoch: None)
        told[name] = family.fit(given, chosen, run)
    losses = {name: found.history[0]["loss"] for name, found in told.items()}
    assert losses["one"] == losses["same"] != losses["other"]
    sizes = {name: found.figures["trainable_parameters"] for name, found in told.items()}
    assert sizes["ice"] < sizes["one"] == told["ice"].figures["parameters"]
