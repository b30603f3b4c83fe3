"""Attention learns which clues matter, says so, and answers without torch what it answered with it."""

import numpy as np
import pytest
import torch

from geoloc_core.contracts.batch import Batch
from geoloc_core.families.guidebook_attention import NAMED, Options, fit, network, relevance
from geoloc_core.training import loop
from geoloc_core.training.heads import Recipe

from .made_lessons import clues, data, run
from .made_models import attention, photos, space


def options(guidance=0.75, **recipe):
    chosen = Recipe(**{"lr": 0.05, "batch": 32, "epochs": 20, **recipe})
    return Options(kind="guidebook_attention", corpus="c", encoders=("a",), text_encoder="t", texts="clues",
                   labels="country", guidance=guidance, recipe=chosen)  # fmt: skip


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
    assert fitted.figures == {"clues": 8, "guided": True}
    held = given.validation
    answer = fitted.model.predict(joined(given, held), 3)
    assert np.mean(answer.classes[:, 0] == targets[held]) > 0.95
    known = dict(zip(fitted.model.ids, given.texts["t", "clues"].countries, strict=True))
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
    known = dict(zip(fitted.model.ids, given.texts["t", "clues"].countries, strict=True))
    right = [
        known[name] == (given.space.ids[true],) for name, true in zip(names, targets[given.validation], strict=True)
    ]
    assert np.mean(right) < 0.8


def test_clues_about_no_country_guide_nothing(tmp_path):
    given, _ = lesson()
    silent = clues(np.eye(3), [(), (), ("NZL",)])
    fitted = fit(data(given.images["a"], given.targets, 4, silent), options(epochs=1), run(tmp_path))
    assert fitted.figures == {"clues": 3, "guided": False}


def test_numpy_answers_what_torch_does(tmp_path):
    given, _ = lesson()
    fitted = fit(given, options(epochs=3), run(tmp_path))
    tensors, features = fitted.model.tensors, given.images["a"].astype(np.float32)
    net = network(6, torch.from_numpy(tensors["clues"]), 4).eval()
    scale = torch.from_numpy(tensors["clue_std"] ** 2 - net.scale.eps)
    net.load_state_dict({
        "clues": torch.from_numpy(tensors["clues"]),
        "attention.weight": torch.from_numpy(tensors["query"]), "attention.bias": torch.from_numpy(tensors["bias"]),
        "scale.running_mean": torch.from_numpy(tensors["clue_mean"]), "scale.running_var": scale,
        "scale.num_batches_tracked": torch.tensor(1),
        "classifier.weight": torch.from_numpy(tensors["weight"]),
        "classifier.bias": torch.from_numpy(tensors["offset"]),
    })  # fmt: skip
    with torch.inference_mode():
        photo = (torch.from_numpy(features) - torch.from_numpy(tensors["mean"])) / torch.from_numpy(tensors["std"])
        expected = net(photo).softmax(dim=1).numpy()
        scores = net.attention(photo).sigmoid().numpy()
    attended, _ = fitted.model.attend(features)
    np.testing.assert_allclose(attended, scores, atol=1e-5)
    answer = fitted.model.predict(Batch({"a": features}), 4)
    np.testing.assert_allclose(answer.probabilities, np.take_along_axis(expected, answer.classes, axis=1), atol=1e-5)
    held = given.validation
    best = 100 * np.mean(answer.classes[held, 0] == given.targets[held])
    assert best == pytest.approx(fitted.history[fitted.best]["validation_accuracy"]), "the kept epoch's"


def test_evidence_names_the_clues_with_the_greatest_attention():
    model = attention(clues=9).model
    batch = photos(12)
    evidence = model.predict(batch).evidence
    attended, _ = model.attend(np.concatenate([batch.images["a"], batch.images["b"]], axis=1))
    assert evidence.ids.shape == evidence.weights.shape == (12, NAMED)
    for row in range(12):
        order = sorted(range(9), key=lambda clue: -attended[row, clue])[:NAMED]
        assert evidence.ids[row].tolist() == [model.ids[clue] for clue in order]
        np.testing.assert_array_equal(evidence.weights[row], attended[row, order])
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
    fitted = fit(some, options(epochs=2), run(tmp_path))
    assert all(np.isfinite(tensor).all() for tensor in fitted.model.tensors.values())


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
    whole = fit(given, options(epochs=6), run(folders[0]))
    with pytest.raises(KilledError):
        fit(given, options(epochs=6), run(folders[1], kill))
    resumed = fit(given, options(epochs=6), run(folders[1]))
    assert resumed.history == whole.history
    for fitted, folder in zip((whole, resumed), folders, strict=True):
        fitted.model.save(folder)
    for name in ("model.safetensors", "clues.json"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
