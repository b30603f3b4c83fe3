"""Attention learns which clues matter, says so, and answers without torch what it answered with it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from geoloc_core.contracts.batch import Batch
from geoloc_core.contracts.geolocator import Trained, load
from geoloc_core.errors import UserError
from geoloc_core.families.guidebook_attention import NAMED, Options, Recipe, fit, network, random_like, relevance
from geoloc_core.training import loop
from geoloc_core.training.heads import counts
from geoloc_core.training.optimisers import SGD
from geoloc_core.training.schedules import Constant, MultiStep

from .made_lessons import clues, data, run
from .made_models import attention, photos, space

FAST = {"optimiser": SGD(lr=0.05), "schedule": Constant(), "batch": 32, "epochs": 20}


def options(recipe=None, **chosen):
    return Options(**{"kind": "guidebook_attention", "corpus": "c", "encoders": ("a",), "text_encoder": "t",
                      "texts": "clues", "labels": "country", "recipe": Recipe(**FAST | (recipe or {})),
                      **chosen})  # fmt: skip


def lesson(n=400, classes=4, seed=0):
    """Photos around a place of their country's in feature space, and two clues about each country."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, classes, n)
    places = rng.normal(size=(classes, 6)) * 2
    features = places[targets] + rng.normal(0, 0.5, (n, 6))
    about = [(space(classes).ids[i % classes],) for i in range(2 * classes)]
    return data(features, targets, classes, clues(rng.normal(size=(2 * classes, 5)), about)), targets


def joined(found, rows):
    return Batch({"a": found.images["a"][rows]})


def test_attention_goes_to_the_clues_about_the_photos_country(tmp_path):
    given, targets = lesson()
    fitted = fit(given, options(), run(tmp_path))
    assert {"clues": 8, "guided": True}.items() <= fitted.figures.items()
    held = given.validation
    answer = fitted.model.predict(joined(given, held), 3)
    assert np.mean(answer.classes[:, 0] == targets[held]) > 0.95
    known = dict(zip(fitted.model.clues.ids, given.texts["t", "clues"].countries, strict=True))
    right = [
        known[name] == (given.space.ids[true],)
        for names, true in zip(answer.evidence.ids[:, :2], targets[held], strict=True)
        for name in names
    ]
    assert np.mean(right) > 0.95


def test_without_guidance_nothing_pulls_attention_there(tmp_path):
    given, targets = lesson()
    fitted = fit(given, options(guidance=0.0), run(tmp_path))
    assert fitted.figures["guided"] is False
    names = fitted.model.predict(joined(given, given.validation)).evidence.ids[:, 0]
    known = dict(zip(fitted.model.clues.ids, given.texts["t", "clues"].countries, strict=True))
    right = [
        known[name] == (given.space.ids[true],) for name, true in zip(names, targets[given.validation], strict=True)
    ]
    assert np.mean(right) < 0.8


@pytest.mark.parametrize("guidance", [0.75, 0.0, 1.0])
def test_it_is_trained_by_the_losses_of_the_paper(tmp_path, guidance):
    """One step on all training photos: (1 − α) · CE + α · BCE(z) of the first weights, by the letter."""
    given, targets = lesson(40)
    step = {"epochs": 1, "batch": 64, "weights": None, "optimiser": SGD(lr=0.1)}
    told = fit(given, options(step, guidance=guidance, positive_weight=7.0), run(tmp_path)).history[0]["loss"]
    torch.manual_seed(5)
    about, rows = given.texts["t", "clues"], given.training
    net = network(0, 6, torch.from_numpy(about.features), 4).double().train()
    x = torch.from_numpy(given.images["a"][rows].astype(np.float64))
    with torch.no_grad():
        logits, z = (part.numpy() for part in net(x[:, :0], x))
    of_class = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(rows)), targets[rows]]
    relevant = np.array([[(given.space.ids[targets[row]],) == of for of in about.countries] for row in rows])
    sigmoid = 1 / (1 + np.exp(-z))
    of_attention = -np.where(relevant, 7 * np.log(sigmoid), np.log(1 - sigmoid))
    expected = (1 - guidance) * of_class.mean() + guidance * of_attention.mean()
    assert told == pytest.approx(expected, rel=1e-4)


def test_clues_about_no_country_guide_nothing(tmp_path):
    given, _ = lesson()
    silent = clues(np.eye(3), [(), (), ("NZL",)])
    fitted = fit(data(given.images["a"], given.targets, 4, silent), options({"epochs": 1}), run(tmp_path))
    assert {"clues": 3, "guided": False}.items() <= fitted.figures.items()


def test_the_epoch_that_is_kept_answers(tmp_path):
    """Features far from zero are normalised by batches alone, in training and after it."""
    given, _ = lesson()
    given.images["a"][:] += 20
    fitted = fit(given, options({"epochs": 3}), run(tmp_path))
    held = given.validation
    answer = fitted.model.predict(joined(given, held), 4)
    right = 100 * np.mean(answer.classes[:, 0] == given.targets[held])
    assert right == pytest.approx(fitted.history[fitted.best]["validation_accuracy"])


@pytest.mark.parametrize("weighting", ["sigmoid_relu", "softmax"])
def test_evidence_names_the_clues_with_the_greatest_attention(weighting):
    model = attention(clues=9, weighting=weighting).model
    batch = photos(12)
    evidence = model.predict(batch).evidence
    scores, _ = model.attend(np.concatenate([batch.images["a"], batch.images["b"]], axis=1))
    weights = model.weigh(scores)
    assert evidence.ids.shape == evidence.weights.shape == (12, NAMED)
    for row in range(12):
        order = sorted(range(9), key=lambda clue: -scores[row, clue])[:NAMED]
        assert evidence.ids[row].tolist() == [model.clues.ids[clue] for clue in order]
        np.testing.assert_array_equal(evidence.weights[row], weights[row, order])
        assert evidence.weights[row, 0] == weights[row].max()
    model = attention(clues=40).model
    alike = replace(model, tensors={**model.tensors, "query": np.zeros_like(model.tensors["query"]),
                                    "bias": np.zeros(40, np.float32)})  # fmt: skip
    assert alike.predict(batch).evidence.ids.tolist() == [[f"id{clue}" for clue in range(NAMED)]] * 12, "of equal ones"
    assert attention(clues=2).model.predict(batch).evidence.ids.shape == (12, 2)
    assert model.explain("clue", "id3") == "clue 3"
    assert model.explain("clue", "gone") == "gone"


def test_a_photo_far_from_all_others_is_answered_without_a_warning():
    model = attention().model
    features = {"a": np.array([[6e4, -6e4]], np.float16), "b": np.full((1, 3), 6e4, np.float16)}
    with np.errstate(all="raise", under="ignore"):
        answer = model.predict(Batch(features), 6)
    assert np.isfinite(answer.probabilities).all()


@pytest.mark.parametrize("rows", [1, 32, 33, 65])
def test_any_number_of_photos_can_be_learned_from(tmp_path, rows):
    """Also where the last batch has one photo, of which there are no statistics."""
    given, targets = lesson(rows + 20)
    some = data(given.images["a"], targets, 4, given.texts["t", "clues"], validation_share=20 / (rows + 20))
    assert len(some.training) == rows
    fitted = fit(some, options({"epochs": 2}), run(tmp_path))
    assert all(np.isfinite(tensor).all() for tensor in fitted.model.tensors.values())
    assert all(np.isfinite(layer).all() for pair in fitted.model.layers for layer in pair)


def test_a_clue_is_relevant_to_every_class_of_its_countries():
    from geoloc_core.geo.labelspace import LabelSpace

    about = clues(np.zeros((3, 2)), [("FRA",), (), ("FRA", "KEN")])
    regions = LabelSpace("subdivision", ["F1", "F2", "K1", "P1"], ["x"] * 4, ["FRA", "FRA", "KEN", ""],
                         np.zeros(4), np.zeros(4))  # fmt: skip
    assert relevance(about, regions).tolist() == [[1, 0, 1], [1, 0, 1], [0, 0, 1], [0, 0, 0]]


def test_a_killed_training_ends_like_an_uninterrupted_one(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0)
    given, _ = lesson()

    class KilledError(Exception):
        pass

    def kill(metrics, step):
        if step == 3:
            raise KilledError

    folders = [tmp_path / name for name in ("whole", "killed")]
    for folder in folders:
        folder.mkdir()
    whole = fit(given, options({"epochs": 6}), run(folders[0]))
    with pytest.raises(KilledError):
        fit(given, options({"epochs": 6}), run(folders[1], kill))
    resumed = fit(given, options({"epochs": 6}), run(folders[1]))
    assert resumed.history == whole.history
    for fitted, folder in zip((whole, resumed), folders, strict=True):
        fitted.model.save(folder)
    for name in ("model.safetensors", "clues.json"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_it_is_trained_as_published():
    published = options().model_copy(update={"recipe": Recipe()})
    recipe = published.recipe
    assert (recipe.batch, recipe.epochs, recipe.stop_patience) == (128, 15, None)
    assert recipe.optimiser == SGD(lr=0.01, momentum=0.9, weight_decay=1e-4, rates={"attention": 0.001})
    assert recipe.schedule == MultiStep(milestones=(4, 8, 12, 13, 14, 15), gamma=0.5)
    assert (published.guidance, published.positive_weight, published.weighting) == (0.75, 50, "sigmoid_relu")


def test_a_part_of_a_recipe_leaves_the_rest_as_published():
    block = options().model_dump() | {"recipe": {"epochs": 3}}
    assert Options.model_validate(block).recipe == Recipe(epochs=3)


def test_attention_has_a_rate_of_its_own(tmp_path):
    given, _ = lesson(60)
    history = fit(given, options({"optimiser": Recipe().optimiser, "schedule": Recipe().schedule, "epochs": 6}),
                  run(tmp_path)).history  # fmt: skip
    assert [epoch["lr"] for epoch in history] == pytest.approx([0.01] * 4 + [0.005] * 2)
    assert [epoch["lr_attention"] for epoch in history] == pytest.approx([0.001] * 4 + [0.0005] * 2)


def test_attention_may_read_some_of_the_encoders(tmp_path):
    """With the image's features first, as [image, text, clip] are joined, whatever their order in the options."""
    given, targets = lesson()
    rng = np.random.default_rng(1)
    given = replace(given, images={**given.images, "noise": rng.normal(size=(400, 3)).astype(np.float16)})
    chosen = options(encoders=("a", "noise"), attends=("a",))
    assert chosen.needs().encoders == ["noise", "a"]
    fitted = fit(given, chosen, run(tmp_path))
    assert fitted.model.encoders == ["noise", "a"]
    assert fitted.model.tensors["query"].shape == (8, 6)
    held = given.validation
    batch = Batch({name: features[held] for name, features in given.images.items()})
    assert np.mean(fitted.model.predict(batch).classes[:, 0] == targets[held]) > 0.95
    other = fit(given, options({"epochs": 2}, encoders=("a", "noise"), attends=("noise",)), run(tmp_path / "other"))
    assert other.model.tensors["query"].shape == (8, 3)


def test_random_clues_keep_only_the_mean_and_spread(tmp_path):
    given, _ = lesson()
    encoded = given.texts["t", "clues"].features
    models = [
        fit(given, options({"epochs": 1}, clue_features=kind), run(tmp_path / f"{number}", seed=seed)).model
        for number, (kind, seed) in enumerate([("encoded", 5), ("random", 5), ("random", 5), ("random", 6)])
    ]
    np.testing.assert_array_equal(models[0].tensors["clues"], encoded)
    clues_of = [model.tensors["clues"] for model in models[1:]]
    np.testing.assert_array_equal(clues_of[0], clues_of[1])
    assert not np.isin(clues_of[0], encoded).any()
    assert not np.isin(clues_of[0], clues_of[2]).any()
    many = random_like(np.float32(3) + np.float32(2) * np.random.default_rng(0).random((99, 99)).astype(np.float32), 1)
    assert (many.mean(), many.std()) == pytest.approx((4, 2 / 12**0.5), rel=0.02)


def test_text_is_added_only_to_features_of_its_width(tmp_path):
    given, targets = lesson()
    with pytest.raises(UserError, match="fusion: add; a gives 6 features and t 5, expected as many"):
        fit(given, options(fusion="add"), run(tmp_path))
    about = given.texts["t", "clues"]
    wide = replace(about, features=np.random.default_rng(2).normal(size=(8, 6)).astype(np.float32))
    fitted = fit(replace(given, texts={("t", "clues"): wide}), options(fusion="add", hidden=(16,)), run(tmp_path))
    answer = fitted.model.predict(joined(given, given.validation))
    assert np.mean(answer.classes[:, 0] == targets[given.validation]) > 0.95


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"attends": ("b",)}, "attends: 'b'; expected one of its encoders: a"),
        ({"recipe": {"optimiser": {"kind": "sgd", "lr": 1, "rates": {"text": 1}}}},
         "optimiser.rates.text: expected one of: attention"),
        ({"weighting": "sigmoid"}, "weighting"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(change, says):
    with pytest.raises(ValueError, match=says):
        Options.model_validate(options().model_dump() | change)


@pytest.mark.parametrize("clues", [3855, 3900, 3950])
def test_the_size_of_g3(clues):
    """Luo et al.'s sizes as Siński et al. print them: with 768 + 768 + 2048 features and 249 classes."""
    from torchvision.models import resnet50

    with torch.device("meta"):
        trunk = resnet50()
        trunk.fc = torch.nn.Identity()
        text = torch.empty(clues, 768)
        whole, clip = network(2048, 768, text, 249, trunk=trunk), network(0, 768, text, 249)
    sizes = [counts(net)["trainable_parameters"] for net in (trunk, clip, whole)]
    assert [round(size / 1e6, 1) for size in sizes] == [23.5, 3.4, 27.4]
    assert sizes[2] - sizes[0] == 1536 + 769 * clues + 2 * 3584 + 3585 * 249


@pytest.mark.parametrize("classes", [90, 249])
def test_the_size_of_iconip(classes):
    with torch.device("meta"):
        net = network(0, 768, torch.empty(6041, 768), classes, hidden=(384,))
    size = counts(net)["trainable_parameters"]
    assert size == 2 * 768 + 769 * 6041 + 2 * 1536 + 1537 * 384 + 385 * classes
    assert round(size / 1e6, 1) == 5.3


def test_the_image_s_features_may_come_from_a_network_that_learns():
    torch.manual_seed(0)
    net = network(2, 3, torch.randn(5, 4), 6, trunk=torch.nn.Linear(7, 2))
    logits, scores = net(torch.randn(8, 7), torch.randn(8, 3))
    assert (logits.shape, scores.shape) == ((8, 6), (8, 5))
    logits.logsumexp(1).sum().backward()
    assert net.trunk.weight.grad.abs().sum() > 0
    whole = counts(net)
    net.trunk.requires_grad_(False)
    assert whole["trainable_parameters"] == whole["parameters"] == counts(net)["parameters"]
    assert counts(net)["trainable_parameters"] == whole["parameters"] - (7 * 2 + 2)


@pytest.mark.parametrize("change", [{"ids": ["id0"]}, {"ids": [], "texts": []}])
def test_clues_that_do_not_fit_their_ids_are_refused(tmp_path, change):
    trained = attention()
    broken = replace(trained.model, clues=trained.model.clues.model_copy(update=change))
    Trained(trained.card, broken).save(tmp_path)
    with pytest.raises(UserError, match=r"clues\.json: [01] ids for [07] clues"):
        load(tmp_path)
