"""A photo is answered with the class of the nearest caption, by the equations of CLIP and of the projection head."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from geoloc_core.contracts.batch import Batch, Data, Sentences, Tower
from geoloc_core.contracts.geolocator import Card, Trained, load
from geoloc_core.corpora import manifest
from geoloc_core.corpora.stored import Stored
from geoloc_core.encoders.towers.vit import Options as ViT
from geoloc_core.errors import UserError
from geoloc_core.families.contrastive_captions import (
    ALONG,
    Captioned,
    Options,
    Pairs,
    Recipe,
    fit,
    network,
    projection_head,
)
from geoloc_core.training import loop
from geoloc_core.training.optimisers import SGD, AdamW
from geoloc_core.training.schedules import Constant, Plateau
from tests.geoloc_core.encoders import made_segmenters

from .made_lessons import data, run
from .made_models import contrastive, photos
from .test_fine_tuned import png

BLOCK = {"kind": "contrastive_captions", "corpus": "c", "text_encoder": "t", "texts": "towns", "labels": "country"}
FAST = {"epochs": 40, "batch": 32, "stop_patience": None, "optimiser": AdamW(lr=0.005)}


def options(recipe=None, **changed) -> Options:
    return Options.model_validate({**BLOCK, "encoders": ("a",), "width": 32, "recipe": {**FAST, **(recipe or {})},
                                   **changed})  # fmt: skip


def captioned(given: Data, texts: list[str], dim=5) -> Data:
    """With a caption for each photo: the same words have the same feature."""
    known = {text: np.random.default_rng(len(text) + sum(map(ord, text))).normal(size=dim) for text in set(texts)}
    features = np.array([known[text] for text in texts]).astype(np.float16).astype(np.float32)
    ids = [str(row) for row in range(len(texts))]
    return replace(given, texts={("t", "towns"): Sentences(ids, texts, [()] * len(texts), features)})


def lesson(n=120, classes=4, dim=24, shown=3.0, towns=2, seed=0) -> Data:
    """Photos that show the town that they were taken in; each class has several."""
    rng = np.random.default_rng(seed)
    town = rng.integers(0, classes * towns, n)
    features = rng.normal(size=(n, dim)) + shown * rng.normal(size=(classes * towns, dim))[town]
    return captioned(data(features, town // towns, classes), [f"Town {number}" for number in town])


def gelu(x):
    return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


def head_by_the_letter(x, state):
    """Linear, GELU, linear, the residual, layer normalisation."""
    p = x @ state["projection.weight"].T + state["projection.bias"]
    y = p + gelu(p) @ state["mixing.weight"].T + state["mixing.bias"]
    centred = y - y.mean(axis=1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
    return normal * state["norm.weight"] + state["norm.bias"]


def unit(x):
    return x / np.sqrt((x**2).sum(axis=1, keepdims=True))


def clip_loss(images, texts, scale):
    """Radford et al. 2021, figure 3: the mean of both cross entropies of scaled cosines."""
    logits = scale * images @ texts.T
    total = 0.0
    for found in (logits, logits.T):
        for row in range(len(found)):
            total -= math.log(np.exp(found[row, row]) / np.exp(found[row]).sum())
    return total / (2 * len(logits))


def doubles(net, start=""):
    state = net.state_dict().items()
    return {name.removeprefix(start): tensor.double().numpy() for name, tensor in state if name.startswith(start)}


def test_the_projection_head():
    torch.manual_seed(0)
    head = projection_head(6, 4, 0.5).double().eval()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    x = np.random.default_rng(0).normal(size=(9, 6))
    np.testing.assert_allclose(head(torch.from_numpy(x)).detach(), head_by_the_letter(x, doubles(head)), rtol=1e-9)
    dropped = head.train()(torch.from_numpy(x)).detach().numpy()
    assert not np.allclose(dropped, head_by_the_letter(x, doubles(head)))


def test_it_is_trained_by_the_loss_of_clip(tmp_path):
    """One step on all training photos: the loss that is told is that of the first weights, by the letter."""
    given = lesson(40)
    step = {"epochs": 1, "batch": 64, "optimiser": SGD(lr=0.1), "schedule": Constant()}
    told = fit(given, options(step, dropout=0.0), run(tmp_path)).history[0]["loss"]
    torch.manual_seed(5)
    net = network((np.zeros(24), np.ones(24)), (np.zeros(5), np.ones(5)), Captioned.of(given, options()), 32, 0.0)
    sides = []
    for side, features in (("image", given.images["a"]), ("text", given.texts["t", "towns"].features)):
        x = features.astype(np.float64)[given.training]
        x = (x - x.mean(axis=0)) / x.std(axis=0, ddof=1)
        sides.append(unit(head_by_the_letter(x, doubles(net, f"{side}."))))
    assert told == pytest.approx(clip_loss(*sides, 1 / 0.07), rel=1e-5)


def test_the_model_answers_in_numpy_what_it_learned_in_torch(tmp_path):
    given = lesson()
    fitted = fit(given, options({"epochs": 3}), run(tmp_path))
    batch = Batch({"a": given.images["a"][given.validation]})
    found = fitted.model.predict(batch, 4, given.targets[given.validation])
    epoch = fitted.history[fitted.best]
    assert 100 * np.mean(found.truth.rank == 0) == pytest.approx(epoch["validation_accuracy"])
    cosines = fitted.model.embed(batch.images["a"]) @ fitted.model.tensors["captions"].T
    logits = fitted.model.logits(cosines).astype(np.float64)
    right = logits[np.arange(len(logits)), given.targets[given.validation]]
    loss = np.mean(np.log(np.exp(logits).sum(axis=1)) - right)
    assert loss == pytest.approx(epoch["validation_loss"], rel=1e-4)


def test_its_embedding_is_the_head_by_the_letter():
    model, batch = contrastive().model, photos(20)
    t = {name: tensor.astype(np.float64) for name, tensor in model.tensors.items()}
    x = (np.concatenate([batch.images["a"], batch.images["b"]], axis=1).astype(np.float64) - t["mean"]) / t["std"]
    names = {"projection": "projection.weight", "projection_bias": "projection.bias", "mixing": "mixing.weight",
             "mixing_bias": "mixing.bias", "gain": "norm.weight", "shift": "norm.bias"}  # fmt: skip
    expected = unit(head_by_the_letter(x, {torch_name: t[name] for name, torch_name in names.items()}))
    found = model.embed(np.concatenate([batch.images["a"], batch.images["b"]], axis=1))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_nearest_caption_says_the_class_and_its_place():
    """Towns 0 and 1 are of class 0, town 2 of classes 1 and 2, of which it shows the second more often."""
    model = contrastive(3).model
    pairs = Pairs.of(np.array([0, 1, 2, 2, 2]), np.array([0, 0, 1, 2, 2]))
    assert (pairs.classes.tolist(), pairs.captions.tolist()) == ([0, 0, 1, 2], [0, 1, 2, 2])
    np.testing.assert_allclose(np.exp(pairs.log_share), [1, 1, 1 / 3, 2 / 3], rtol=1e-6)
    model = replace(model, pairs=pairs, tensors={**model.tensors, "scale": np.array([2.0], np.float32)})
    cosines = np.array([[0.9, 0.1, 0.3], [0.1, 0.8, 0.2], [0.1, 0.3, 0.7]])
    expected = [[1.8, 0.6 + math.log(1 / 3), 0.6 + math.log(2 / 3)]]
    np.testing.assert_allclose(model.logits(cosines)[:1], expected, rtol=1e-6)
    assert model.logits(cosines).argmax(axis=1).tolist() == [0, 0, 2]
    batch = photos(12)
    answer = model.predict(batch, 3)
    np.testing.assert_array_equal(answer.latitude, model.labelspace.latitudes[answer.classes[:, 0]])
    of_photos = model.embed(np.concatenate([batch.images["a"], batch.images["b"]], axis=1))
    nearest = (of_photos @ model.tensors["captions"].T).argmax(axis=1)
    assert answer.evidence.kind == "caption"
    assert answer.evidence.ids[:, 0].tolist() == [f"Town {number}" for number in nearest]
    assert (np.diff(answer.evidence.weights, axis=1) <= 0).all()
    assert contrastive().model.predict(batch).evidence.ids.shape == (12, 3), "three of the six captions are named"


def test_of_captions_that_say_the_same_the_first_ones_are_named():
    made = contrastive(40).model
    alike = replace(made, tensors={**made.tensors, "captions": np.repeat(made.tensors["captions"][:1], 40, axis=0)})
    assert alike.predict(photos(3)).evidence.ids.tolist() == [["Town 0", "Town 1", "Town 2"]] * 3


def test_what_is_learned_from_are_the_captions_of_training_photos_and_their_classes():
    given = lesson(16, towns=2)
    given.targets[14] = -1
    texts = [*given.texts["t", "towns"].texts[:15], "A town of no training photo"]
    texts[3] = " "
    given = captioned(replace(given, training=np.arange(12), validation=np.arange(12, 16)), texts)
    found = Captioned.of(given, options())
    rows = [row for row in range(12) if row != 3]
    assert found.training.tolist() == rows
    assert found.texts == sorted({texts[row] for row in rows})
    features = given.texts["t", "towns"].features
    for text, feature in zip(found.texts, found.features, strict=True):
        np.testing.assert_array_equal(feature, features[texts.index(text)])
    learned = sorted({given.targets[row] for row in rows})
    assert found.space.ids == [f"C{of:02d}" for of in learned]
    assert found.targets.tolist() == [learned.index(of) if of in learned else -1 for of in given.targets]
    pairs = {(found.texts.index(texts[row]), learned.index(given.targets[row])) for row in rows}
    assert set(zip(found.pairs.captions, found.pairs.classes, strict=True)) == pairs


def test_photos_of_one_group_stay_in_one_half_where_calibration_is_measured(tmp_path):
    given = lesson(shown=0.5)
    first, second = np.arange(120) % 40 < 20, np.arange(120) % 2 == 0
    found = [fit(replace(given, groups=of.astype(np.int64)), options({"epochs": 2}), run(tmp_path / str(number)))
             for number, of in enumerate((first, second))]  # fmt: skip
    assert found[0].history == found[1].history
    assert found[0].figures["ece_after"] != found[1].figures["ece_after"]


def test_features_may_stay_as_they_are(tmp_path):
    given = lesson()
    plain = fit(given, options({"epochs": 1}, normalise="none"), run(tmp_path / "plain")).model.tensors
    assert (set(plain["mean"].tolist()), set(plain["std"].tolist())) == ({0}, {1})
    own = fit(given, options({"epochs": 1}), run(tmp_path / "own")).model.tensors
    rows = given.images["a"][given.training].astype(np.float64)
    np.testing.assert_allclose(own["mean"], rows.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(own["std"], rows.std(axis=0, ddof=1), rtol=1e-5)


def test_with_a_prior_a_usual_caption_is_more_probable():
    captions, classes = np.array([0, 1, 2, 2, 2]), np.array([0, 0, 1, 2, 2])
    for prior, expected in ((0, [1, 1, 1 / 3, 2 / 3]), (1, [1 / 5, 1 / 5, 1 / 5, 2 / 5])):
        np.testing.assert_allclose(np.exp(Pairs.of(captions, classes, prior).log_share), expected, rtol=1e-6)
    half = np.sqrt([1 / 5, 1 / 5, 3 / 5, 3 / 5]) * [1, 1, 1 / 3, 2 / 3]
    np.testing.assert_allclose(np.exp(Pairs.of(captions, classes, 0.5).log_share), half, rtol=1e-6)
    given = Captioned.of(lesson(), options(prior=1))
    shares = np.bincount(given.pairs.captions, np.exp(given.pairs.log_share))
    assert shares.sum() == pytest.approx(1), "all photos"


def test_the_logits_of_the_network_are_those_of_the_model(tmp_path):
    given = Captioned.of(lesson(), options())
    torch.manual_seed(1)
    net = network((np.zeros(24), np.ones(24)), (np.zeros(5), np.ones(5)), given, 8, 0.1).eval()
    x = torch.randn(6, 24)
    with torch.no_grad():
        found = net.logits(x).numpy()
        cosines = (net.of_photos(x) @ net.of_captions(net.captions).T).numpy()
    model = replace(contrastive(4).model, pairs=given.pairs,
                    tensors={**contrastive(4).model.tensors, "scale": np.array([net.scale.item()])})  # fmt: skip
    np.testing.assert_allclose(model.logits(cosines), found, rtol=1e-5)


def test_it_learns_64_photos_by_heart(tmp_path):
    given = lesson(64, shown=0.0)
    given = replace(given, training=np.arange(64), validation=np.arange(64))
    fitted = fit(given, options({"epochs": 60}, dropout=0.0), run(tmp_path))
    answer = fitted.model.predict(Batch({"a": given.images["a"]}))
    assert np.mean(answer.classes[:, 0] == given.targets) > 0.95
    named = answer.evidence.ids[:, 0] == np.array(given.texts["t", "towns"].texts, dtype=object)
    assert np.mean(named) > 0.95, "the very town, and not only its class"


def test_what_is_shown_is_learned(tmp_path):
    given = lesson()
    fitted = fit(given, options(), run(tmp_path))
    answer = fitted.model.predict(Batch({"a": given.images["a"][given.validation]}))
    assert np.mean(answer.classes[:, 0] == given.targets[given.validation]) > 0.9
    assert (fitted.figures["captions"], fitted.figures["classes"]) == (8, 4)
    assert "without_caption" not in fitted.figures


def test_photos_without_a_caption_are_left_out_and_counted(tmp_path):
    """A class whose photos have none cannot be answered, and its validation photos are misses."""
    given = lesson()
    texts = [" " if given.targets[row] == 1 or row < 5 else text
             for row, text in enumerate(given.texts["t", "towns"].texts)]  # fmt: skip
    some = captioned(given, texts)
    fitted = fit(some, options({"epochs": 10}), run(tmp_path))
    assert fitted.model.labelspace.ids == ["C00", "C02", "C03"]
    left_out = sum(not texts[row].strip() for row in given.training)
    assert fitted.figures["without_caption"] == left_out > 5
    assert fitted.figures["training_photos"] == len(given.training) - left_out
    missed = 100 * np.mean(given.targets[given.validation] == 1)
    assert 0 < fitted.history[fitted.best]["validation_accuracy"] <= 100 - missed
    with pytest.raises(UserError, match="texts towns: none of the 90 training photos has a caption"):
        fit(captioned(given, [""] * 120), options(), run(tmp_path))


def test_captions_of_another_corpus_are_refused(tmp_path):
    given = lesson()
    other = replace(given, texts={("t", "towns"): Sentences(["0"], ["x"], [()], np.zeros((1, 5), np.float32))})
    with pytest.raises(UserError, match="texts towns: 1 captions, the corpus has 120 photos; expected one for each"):
        fit(other, options(), run(tmp_path))


def test_one_class_of_one_caption_is_always_right(tmp_path):
    given = lesson(40, classes=1, towns=1)
    fitted = fit(given, options({"epochs": 2}), run(tmp_path))
    assert fitted.model.predict(Batch({"a": given.images["a"]})).probabilities.tolist() == [[1.0]] * 40


@pytest.mark.parametrize("rows", [1, 32, 33])
def test_any_number_of_photos_can_be_learned_from(tmp_path, rows):
    given = lesson()
    given = replace(given, training=np.arange(rows), validation=np.arange(rows))
    fitted = fit(given, options({"epochs": 2}), run(tmp_path))
    assert all(np.isfinite(tensor).all() for tensor in fitted.model.tensors.values())


@pytest.mark.parametrize("row", [3, 119])
def test_features_that_are_no_numbers_are_refused(tmp_path, row):
    given = lesson()
    given.images["a"][row, 7] = np.nan
    with pytest.raises(UserError, match=f"are not finite numbers, the first those of row {row}; encode these photos"):
        fit(given, options(), run(tmp_path))


def test_a_killed_training_ends_like_an_uninterrupted_one(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0)
    given, chosen = lesson(), options({"epochs": 5})

    class KilledError(Exception):
        pass

    def kill(metrics, step):
        if step == 2:
            raise KilledError

    folders = [tmp_path / name for name in ("whole", "killed")]
    for folder in folders:
        folder.mkdir()
    whole = fit(given, chosen, run(folders[0]))
    with pytest.raises(KilledError):
        fit(given, chosen, run(folders[1], kill))
    resumed = fit(given, chosen, run(folders[1]))
    assert resumed.history == whole.history
    for fitted, folder in zip((whole, resumed), folders, strict=True):
        fitted.model.save(folder)
    for name in ("model.safetensors", "captions.json"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


@pytest.mark.slow
def test_a_tower_is_trained_along_and_answers_from_its_folder(tmp_path):
    """The brightness of a photo says its town, which the features of no frozen encoder do here: there are none."""
    made_segmenters.vit(tmp_path / "tower")
    rng = np.random.default_rng(2)
    town = np.arange(64) % 4
    with manifest.ShardWriter(tmp_path / "c") as writer:
        for number, at in enumerate(town):
            shade = 20 + 60 * at + int(rng.integers(0, 10))
            writer.add(f"p{number}", png((shade, shade, shade)), f"{number}.png")
    given = captioned(data(np.zeros((64, 1)), town // 2, 2), [f"Town {number}" for number in town])
    tower = Tower(ViT(kind="vit"), tmp_path / "tower")
    given = replace(given, photos=Stored.all_of(tmp_path / "c"), towers={"v": tower})
    recipe = {"epochs": 12, "batch": 16, "augment": "none", "precision": "fp32"}
    recipe |= {"optimiser": {"kind": "adamw", "lr": 0.01, "rates": {"trunk": 0.005}}}
    chosen = Options.model_validate({**BLOCK, "tower": "v", "width": 16, "dropout": 0.0, "network": recipe})
    fitted = fit(given, chosen, run(tmp_path))
    assert fitted.history[fitted.best]["validation_accuracy"] > 80
    assert {"lr", "lr_trunk"} <= fitted.history[0].keys()
    (tmp_path / "model").mkdir()
    Trained(Card(family="contrastive_captions", needs=chosen.needs(), fingerprints={}), fitted.model).save(
        tmp_path / "model"
    )
    batch = Batch(photos=given.photos.take(given.validation).read())
    answer, again = (model.predict(batch, 2) for model in (fitted.model, load(tmp_path / "model").model))
    right = 100 * np.mean(answer.classes[:, 0] == given.targets[given.validation])
    assert right == pytest.approx(fitted.history[fitted.best]["validation_accuracy"])
    assert (set(fitted.model.tensors["mean"]), set(fitted.model.tensors["std"])) == ({0}, {1}), "the tower's features"
    np.testing.assert_allclose(again.probabilities, answer.probabilities, rtol=1e-4)


def test_captions_that_are_not_of_the_classes_are_said_in_one_line(tmp_path):
    trained = contrastive()
    for wrong in ({"classes": trained.model.pairs.classes[::-1]}, {"captions": trained.model.pairs.captions + 6}):
        broken = replace(trained.model, pairs=replace(trained.model.pairs, **wrong))
        Trained(trained.card, broken).save(tmp_path)
        with pytest.raises(UserError, match=r"model\.safetensors: its captions are not of the 6 classes"):
            load(tmp_path)


def test_the_scale_of_cosines_begins_and_ends_as_clips_does():
    given = Captioned.of(lesson(), options())
    net = network((np.zeros(24), np.ones(24)), (np.zeros(5), np.ones(5)), given, 8, 0.1)
    assert net.scale.item() == pytest.approx(1 / 0.07)
    with torch.no_grad():
        net.log_scale.fill_(9.0)
    assert net.scale.item() == 100


def test_its_recipe_is_the_slides():
    assert (Recipe().optimiser.kind, Recipe().weights) == ("adamw", None)
    assert Recipe().schedule == Plateau(factor=0.8, patience=1)
    assert ALONG.optimiser.rates["trunk"] < ALONG.optimiser.lr


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"encoders": []}, "expected either encoders, which stay frozen, or a tower"),
        ({"tower": "v"}, "expected either encoders, which stay frozen, or a tower"),
        ({"width": 0}, "width"),
        ({"dropout": 1.0}, "dropout"),
        ({"recipe": {"weights": {"kind": "inverse_frequency"}}}, "weights"),
        (
            {"recipe": {"optimiser": {"kind": "sgd", "lr": 1, "rates": {"x": 1}}}},
            "rates.x: expected one of: image, text",
        ),
    ],
)
def test_what_cannot_be_is_refused(change, says):
    with pytest.raises(ValueError, match=says):
        Options.model_validate({**BLOCK, "encoders": ["a"]} | change)


@pytest.mark.parametrize("wrong", ["caption", "class", "order"])
def test_captions_that_are_not_of_the_classes_are_refused(tmp_path, wrong):
    contrastive().save(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    if wrong == "caption":
        tensors["pair_captions"][-1] = len(tensors["captions"])  # the others are as they should be
    elif wrong == "class":
        tensors["pair_classes"][tensors["pair_classes"] == 0] = 1
    else:
        tensors["pair_classes"] = tensors["pair_classes"][::-1].copy()
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"its captions are not of the .* classes; expected some of each"):
        load(tmp_path)
