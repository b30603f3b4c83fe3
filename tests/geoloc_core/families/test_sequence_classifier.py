"""The views of a place are read one after the other by heading, however many there are and however files are listed."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from geoloc_core.contracts.batch import Batch, Data
from geoloc_core.contracts.geolocator import Card, Trained, load
from geoloc_core.errors import UserError
from geoloc_core.families.sequence_classifier import Options, Recipe, fit, last_state, network
from geoloc_core.training import loop
from geoloc_core.training.heads import counts
from geoloc_core.training.optimisers import SGD, AdamW
from geoloc_core.training.schedules import Constant

from .made_lessons import data, run
from .made_models import sequence, space

BLOCK = {
    "kind": "sequence_classifier",
    "corpus": "c",
    "encoders": ("a",),
    "labels": "country",
    "lstm": 16,
    "hidden": (),
}
FAST = {"epochs": 40, "batch": 16, "optimiser": AdamW(lr=0.02, weight_decay=0.0)}


def options(recipe=None, **changed) -> Options:
    return Options.model_validate({**BLOCK, "recipe": {**FAST, **(recipe or {})}, **changed})


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm_by_the_letter(sequence, state):
    """The last state of one sequence (T, D), gate by gate, of the weights as torch names them."""
    width = state["weight_hh_l0"].shape[1]
    h, c = np.zeros(width), np.zeros(width)
    for x in sequence:
        gates = []
        for number, of in enumerate((sigmoid, sigmoid, np.tanh, sigmoid)):
            some = slice(number * width, (number + 1) * width)
            given = state["weight_ih_l0"][some] @ x + state["bias_ih_l0"][some]
            gates.append(of(given + state["weight_hh_l0"][some] @ h + state["bias_hh_l0"][some]))
        i, f, g, o = gates
        c = f * c + i * g
        h = o * np.tanh(c)
    return h


def drawn(seed=0, sequences=7, steps=4, dim=5):
    torch.manual_seed(seed)
    lstm = torch.nn.LSTM(dim, 3, batch_first=True).double()
    state = {name: tensor.detach().numpy() for name, tensor in lstm.named_parameters()}
    x = np.random.default_rng(seed).normal(size=(sequences, steps, dim))
    return lstm, state, x, np.arange(sequences) % steps + 1


def test_the_equations_of_an_lstm():
    _, state, x, lengths = drawn()
    bias = state["bias_ih_l0"] + state["bias_hh_l0"]
    found = last_state(x, lengths, state["weight_ih_l0"], state["weight_hh_l0"], bias)
    expected = [lstm_by_the_letter(x[row, :length], state) for row, length in enumerate(lengths)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_it_is_the_lstm_of_torch_over_packed_sequences():
    lstm, state, x, lengths = drawn(1)
    bias = state["bias_ih_l0"] + state["bias_hh_l0"]
    found = last_state(x, lengths, state["weight_ih_l0"], state["weight_hh_l0"], bias)
    packed = torch.nn.utils.rnn.pack_padded_sequence(torch.from_numpy(x), lengths, True, enforce_sorted=False)
    _, (last, _) = lstm(packed)
    np.testing.assert_allclose(found, last[0].detach(), rtol=1e-12)


def test_what_follows_the_last_view_says_nothing():
    torch.manual_seed(0)
    net = network(4, 3, (8, 5), 6, 0.5).eval()
    views, views_of = torch.randn(9, 3, 4), torch.arange(9) % 3 + 1
    other = views.clone()
    other[torch.arange(3) >= views_of[:, None]] = 7.0
    np.testing.assert_array_equal(net(views, views_of).detach(), net(other, views_of).detach())
    model = sequence().model
    features = np.random.default_rng(0).normal(size=(9, 3, 5))
    garbled = np.where((np.arange(3) >= views_of.numpy()[:, None])[..., None], 7.0, features)
    np.testing.assert_array_equal(model.logits(features, views_of.numpy()), model.logits(garbled, views_of.numpy()))


def lesson(places=80, dim=6, seed=0) -> Data:
    """Places of three views. All show the same three things, and their order alone tells the four classes apart."""
    rng = np.random.default_rng(seed)
    things = 3 * rng.normal(size=(3, dim))
    orders = np.array([[0, 1, 2], [2, 1, 0], [1, 0, 2], [2, 0, 1]])
    classes = np.arange(places) % 4
    features = things[orders[classes]] + 0.3 * rng.normal(size=(places, 3, dim))
    found = data(features.reshape(-1, dim), np.repeat(classes, 3), 4)
    ids = np.repeat([f"place {n}" for n in range(places)], 3).astype(object)
    first = 3 * (places * 3 // 4)
    return replace(found, places=ids, headings=np.tile([0.0, 90.0, 180.0], places),
                   training=np.arange(first), validation=np.arange(first, 3 * places))  # fmt: skip


def listed(given: Data, order: np.ndarray) -> Data:
    """The same corpus with its files in another order."""
    now = np.argsort(order)
    assert given.places is not None
    assert given.headings is not None
    return replace(
        given, images={"a": given.images["a"][order]}, targets=given.targets[order], places=given.places[order],
        headings=given.headings[order], training=np.sort(now[given.training]),
        validation=np.sort(now[given.validation]),
    )  # fmt: skip


def asked(given: Data, rows: np.ndarray) -> tuple[Batch, np.ndarray]:
    """The places of some rows, and their classes."""
    units = given.units(rows)
    return Batch({"a": given.images["a"][units.rows]}, starts=units.starts), given.targets[units.first]


@pytest.mark.slow
def test_the_order_of_views_is_learned_whatever_the_order_of_files(tmp_path):
    given = lesson()
    mixed = listed(given, np.random.default_rng(3).permutation(240))
    for number, corpus in enumerate((given, mixed)):
        fitted = fit(corpus, options(), run(tmp_path / str(number)))
        batch, targets = asked(corpus, corpus.validation)
        assert np.mean(fitted.model.predict(batch).classes[:, 0] == targets) > 0.95
        assert fitted.figures["training_places"] == 60
        assert fitted.figures["validation_places"] == 20
        by_place = dict(zip(corpus.places[corpus.units(corpus.validation).first],
                            fitted.model.predict(batch, 4).probabilities, strict=True))  # fmt: skip
        again, _ = asked(given, given.validation)
        for place, found in zip(given.places[given.validation[::3]], fitted.model.predict(again, 4).probabilities,
                                strict=True):  # fmt: skip
            np.testing.assert_allclose(by_place[place], found, rtol=1e-5)


def test_files_in_another_order_train_the_same_model(tmp_path):
    """Where only the files of each place are listed otherwise: the places come in the same order then."""
    given = lesson()
    order = np.arange(240).reshape(-1, 3)[:, ::-1].ravel()
    models = [fit(corpus, options({"epochs": 3}), run(tmp_path / name)).model
              for name, corpus in (("one", given), ("other", listed(given, order)))]  # fmt: skip
    for name, tensor in models[0].tensors.items():
        np.testing.assert_allclose(models[1].tensors[name], tensor, rtol=1e-5, atol=1e-6)


def test_places_with_fewer_views_and_with_more(tmp_path):
    """A view is missing here and there; a fourth view changes nothing, since three are looked at."""
    given = lesson(120)
    assert given.headings is not None
    kept = np.flatnonzero(np.random.default_rng(0).random(360) < 0.9)
    kept = np.setdiff1d(kept, [3, 4])  # one place has a single view
    some = replace(given, training=np.intersect1d(given.training, kept),
                   validation=np.intersect1d(given.validation, kept))  # fmt: skip
    sizes = np.diff(some.units(some.training).starts)
    assert set(sizes) >= {1, 2, 3}
    fitted = fit(some, options(), run(tmp_path))
    batch, targets = asked(given, given.validation)
    assert np.mean(fitted.model.predict(batch).classes[:, 0] == targets) > 0.9
    starts = np.arange(0, 4 * len(targets) + 1, 4)
    four = np.insert(batch.images["a"], np.arange(3, 3 * len(targets) + 1, 3), 99.0, axis=0)
    more = fitted.model.predict(Batch({"a": four}, starts=starts))
    np.testing.assert_array_equal(more.probabilities, fitted.model.predict(batch).probabilities)


def test_a_photo_alone_is_a_place_of_one_view():
    model, rng = sequence().model, np.random.default_rng(0)
    features = {"a": rng.normal(size=(4, 2)).astype("f2"), "b": rng.normal(size=(4, 3)).astype("f2")}
    alone, places = model.predict(Batch(features)), model.predict(Batch(features, starts=np.arange(5)))
    np.testing.assert_array_equal(alone.probabilities, places.probabilities)


def test_each_place_counts_once_in_the_loss(tmp_path):
    """One step on all training places: the loss that is told is that of the first weights, by the letter."""
    given = lesson(16)
    given = replace(given, training=np.setdiff1d(given.training, [1, 2, 4]))
    step = {"epochs": 1, "batch": 64, "optimiser": SGD(lr=0.1), "schedule": Constant()}
    told = fit(given, options(step, hidden=(8,), dropout=0.0), run(tmp_path)).history[0]["loss"]
    torch.manual_seed(5)
    net = network(6, 16, (8,), 4, 0.0)
    state = {name: tensor.detach().double().numpy() for name, tensor in net.named_parameters()}
    lstm = {name.removeprefix("lstm."): tensor for name, tensor in state.items()}
    x = given.images["a"].astype(np.float64)
    x = (x - x[given.training].mean(axis=0)) / x[given.training].std(axis=0, ddof=1)
    total, places = 0.0, sorted(set(given.places[given.training]), key=lambda place: int(place.split()[1]))
    for place in places:
        rows = [row for row in given.training if given.places[row] == place]
        last = np.maximum(state["head.0.weight"] @ lstm_by_the_letter(x[rows], lstm) + state["head.0.bias"], 0)
        logits = state["head.2.weight"] @ last + state["head.2.bias"]
        total -= np.log(np.exp(logits[given.targets[rows[0]]]) / np.exp(logits).sum())
    assert told == pytest.approx(total / len(places), rel=1e-5)


def test_the_model_answers_in_numpy_what_it_learned_in_torch(tmp_path):
    given = lesson()
    chosen = options({"epochs": 2}, hidden=(8, 4))
    fitted = fit(given, chosen, run(tmp_path))
    batch, targets = asked(given, given.validation)
    found = fitted.model.predict(batch, 4, targets)
    right = 100 * np.mean(found.truth.rank == 0)
    assert right == pytest.approx(fitted.history[fitted.best]["validation_accuracy"])
    rows = np.log(np.take_along_axis(found.probabilities, np.argsort(found.classes, axis=1), axis=1))
    loss = -np.mean(np.log(found.truth.probability))
    assert loss == pytest.approx(-np.mean(rows[np.arange(len(rows)), targets]), rel=1e-5)
    Trained(Card(family="sequence_classifier", needs=chosen.needs(), fingerprints={"a": "1"}), fitted.model).save(
        tmp_path
    )
    assert load(tmp_path).card.needs.unit == "place"


def test_features_may_stay_as_they_are(tmp_path):
    given = lesson(16)
    for normalise, moved in (("standardise", True), ("none", False)):
        model = fit(given, options({"epochs": 1}, normalise=normalise), run(tmp_path / normalise)).model
        assert (model.tensors["mean"].any(), (model.tensors["std"] != 1).any()) == (moved, moved)


def test_one_class_is_always_right(tmp_path):
    given = lesson()
    given = replace(given, targets=np.zeros(240, np.int64), space=space(1))
    fitted = fit(given, options({"epochs": 1}), run(tmp_path))
    assert fitted.model.predict(asked(given, given.validation)[0]).probabilities.tolist() == [[1.0]] * 20


def test_places_of_no_class_that_is_learned_are_said(tmp_path):
    given = lesson()
    unknown = np.where(np.isin(np.arange(240), given.validation), -1, given.targets)
    with pytest.raises(UserError, match="none of the 20 validation places is of a class that has training places"):
        fit(replace(given, targets=unknown), options(), run(tmp_path))


@pytest.mark.parametrize("places", [1, 16, 17])
def test_any_number_of_places_can_be_learned_from(tmp_path, places):
    given = lesson()
    given = replace(given, training=np.arange(3 * places))
    assert np.isfinite(fit(given, options({"epochs": 2}), run(tmp_path)).history[-1]["loss"])


def test_a_killed_training_ends_like_an_uninterrupted_one(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0)
    given, chosen = lesson(), options({"epochs": 5}, hidden=(8, 8), dropout=0.5)

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
    assert (folders[0] / "model.safetensors").read_bytes() == (folders[1] / "model.safetensors").read_bytes()


def test_it_has_the_size_of_geoguessrlstm():
    """Of its 24.8 M parameters 1.22 M are trained: all but those of ResNet-50."""
    published = Options(kind="sequence_classifier", corpus="c", encoders=("a",), labels="country")
    net = network(2048, published.lstm, published.hidden, 243, published.dropout)
    assert round(counts(net)["trainable_parameters"] / 1e6, 2) == 1.22
    drops = [type(layer).__name__ for layer in net.head]
    assert drops == ["Linear", "ReLU", "Dropout"] * 3 + ["Linear", "ReLU", "Linear"]
    assert (published.recipe, published.views, published.dropout) == (Recipe(), 3, 0.5)
    assert (Recipe().epochs, Recipe().weights, Recipe().optimiser.kind) == (20, None, "adamw")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"views": 0}, "views"),
        ({"lstm": 0}, "lstm"),
        ({"dropout": 1.0}, "dropout"),
        ({"encoders": []}, "encoders"),
        (
            {"recipe": {"optimiser": {"kind": "sgd", "lr": 1, "rates": {"text": 1}}}},
            "rates.text: expected one of: lstm",
        ),
    ],
)
def test_what_cannot_be_is_refused(change, says):
    with pytest.raises(ValueError, match=says):
        Options.model_validate(BLOCK | change)
