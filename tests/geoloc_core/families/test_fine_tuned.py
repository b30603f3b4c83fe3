"""A whole network, fine-tuned on a few pictures: that it learns them, what it is shown, and what it answers."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from geoloc_core.contracts.batch import Batch, Data, Pieces, Run, Tower
from geoloc_core.contracts.geolocator import Card, Trained, load
from geoloc_core.corpora import manifest
from geoloc_core.corpora.stored import Stored
from geoloc_core.encoders.towers.vit import Options as ViT
from geoloc_core.errors import UserError
from geoloc_core.families.fine_tuned import Options, balanced, fit, network, shown
from tests.geoloc_core.encoders import made_segmenters

from .made_models import space

RECIPE = {
    "optimiser": {"kind": "adamw", "lr": 0.003},
    "epochs": 8,
    "batch": 8,
    "augment": "none",
    "precision": "fp32",
}


def png(colour) -> bytes:
    stream = io.BytesIO()
    pixels = np.full((32, 32, 3), colour, np.uint8)
    pixels[::3] = 255 - pixels[::3]
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


COLOURS = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30)]


def stored(folder, classes) -> Stored:
    """A picture of each class' colour, none like another."""
    rng = np.random.default_rng(1)
    with manifest.ShardWriter(folder) as writer:
        for number, at in enumerate(classes):
            shade = np.clip(np.array(COLOURS[at]) + rng.integers(-25, 26, 3), 0, 255)
            writer.add(f"p{number}", png(shade), f"{number}.png")
    return Stored.all_of(folder)


@pytest.fixture(scope="module")
def tower(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tower")
    made_segmenters.vit(folder)
    return Tower(ViT(kind="vit"), folder)


def data(pictures, targets, tower, **more) -> Data:
    count = len(targets)
    given_data = {"photos": pictures} | more
    return Data({}, {}, {}, space(4), targets, np.arange(count - 16), np.arange(count - 16, count),
                np.full(count, np.nan), np.full(count, np.nan), towers={"v": tower}, **given_data)  # fmt: skip


def options(**more) -> Options:
    return Options.model_validate({"kind": "fine_tuned", "corpus": "c", "tower": "v", "labels": "country",
                                   "recipe": RECIPE, **more})  # fmt: skip


def trained(data_, options_, folder):
    folder.mkdir()
    logged = []
    fitted = fit(data_, options_, Run(7, folder / "checkpoint.pt", ["this"], lambda metrics, n: logged.append(metrics)))
    assert [{k: v for k, v in m.items() if "second" not in k} for m in logged] == [
        {k: v for k, v in m.items() if "second" not in k} for m in fitted.history
    ]
    return fitted


@pytest.mark.slow
def test_64_photos_are_learned_saved_and_answered_from_their_bytes(tmp_path, tower):
    classes = np.arange(80) % 4
    pictures = stored(tmp_path / "c", classes)
    fitted = trained(data(pictures, classes, tower), options(), tmp_path / "run")
    assert fitted.history[fitted.best]["validation_accuracy"] > 95
    assert (fitted.figures["training_photos"], fitted.figures["validation_photos"]) == (64, 16)
    assert fitted.figures["trainable_parameters"] == fitted.figures["parameters"] > 4 * 24
    batch = Batch(photos=pictures.read())
    answer = fitted.model.predict(batch, 4, classes)
    assert (answer.classes[:64, 0] == classes[:64]).mean() > 0.95
    card = Card(family="fine_tuned", needs=options().needs(), fingerprints={})
    (tmp_path / "model").mkdir()
    Trained(card, fitted.model).save(tmp_path / "model")
    loaded = load(tmp_path / "model").model.predict(batch, 4, classes)
    np.testing.assert_allclose(loaded.probabilities, answer.probabilities, rtol=1e-5)
    assert loaded.truth.rank.tolist() == answer.truth.rank.tolist()


def test_frozen_blocks_stay_and_what_follows_is_trained(tmp_path, tower):
    classes = np.arange(80) % 4
    given_data = data(stored(tmp_path / "c", classes), classes, tower)
    some = options(recipe={**RECIPE, "epochs": 1, "freeze": "all_but_last"})
    found = trained(given_data, some, tmp_path / "run").figures
    assert 4 * 24 < found["trainable_parameters"] < found["parameters"]


GROUPS = np.array(["ground", "vehicles", None], dtype=object)


def pieces_of(pictures, photos) -> Pieces:
    """A piece of each picture; ``photos`` says of which photo, and its number of which group."""
    count = len(photos)
    starts = np.concatenate([[0], np.cumsum(np.bincount(photos, minlength=40))])
    names = np.array([f"thing {n}" for n in range(count)], dtype=object)
    return Pieces(starts, names, GROUPS[np.arange(count) % 3], np.ones(count), np.ones(count, int), pictures)


@pytest.mark.slow
def test_pieces_are_learned_with_the_class_of_their_photo_and_vote(tmp_path, tower):
    photos = np.repeat(np.arange(40), np.arange(40) % 3)
    targets = np.arange(40) % 4
    pieces = pieces_of(stored(tmp_path / "c", targets[photos]), photos)
    given_data = data(None, targets, tower, pieces={"cut": pieces})
    found = shown(given_data, options(pieces="cut", groups=["ground"]), 1)
    is_ground = np.arange(len(photos)) % 3 == 0
    wanted = np.concatenate([np.flatnonzero(is_ground & (photos < 24)), np.flatnonzero(is_ground & (photos >= 24))])
    assert found.targets.tolist() == targets[photos[wanted]].tolist()
    assert found.pictures.rows.tolist() == wanted.tolist()
    assert len(found.training) == (is_ground & (photos < 24)).sum()
    assert found.validation.tolist() == list(range(len(found.training), len(wanted)))
    fitted = trained(given_data, options(pieces="cut", recipe={**RECIPE, "epochs": 20, "batch": 6}), tmp_path / "run")
    answer = fitted.model.predict(Batch(pieces={"cut": pieces.read()}), 4)
    with_pieces = np.bincount(photos, minlength=40) > 0
    seen = with_pieces & (np.arange(40) < 24)
    assert (answer.classes[seen, 0] == targets[seen]).mean() > 0.9
    prior = np.bincount(targets[:24], minlength=4) / 24
    np.testing.assert_allclose(answer.probabilities[~with_pieces][0], np.sort(prior)[::-1])


def test_groups_without_a_piece_are_said(tmp_path, tower):
    photos = np.arange(40)
    pieces = pieces_of(stored(tmp_path / "c", photos % 4), photos)
    given_data = data(None, photos % 4, tower, pieces={"cut": pieces})
    with pytest.raises(UserError, match=r"pieces cut: 0 of vegetation in training photos and 0 in those for valid"):
        shown(given_data, options(pieces="cut", groups=["vegetation"]), 1)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.integers(1, 70), st.integers(0, 9))
def test_a_limited_choice_is_as_even_as_it_can_be(classes, most, seed):
    targets = np.array(classes)
    chosen = balanced(np.arange(len(classes)), targets, most, seed)
    assert len(set(chosen.tolist())) == len(chosen) == min(most, len(classes))
    assert (np.diff(chosen) > 0).all()
    there, taken = np.bincount(targets, minlength=6), np.bincount(targets[chosen], minlength=6)
    cut_short = taken < there
    if cut_short.any():
        assert taken.max() <= taken[cut_short].min() + 1, "no class has more while one that has more to give has less"


def test_what_enters_the_last_layer_is_normalised_only_where_that_is_asked_for():
    trunk = torch.nn.Flatten()
    photos, features = torch.full((4, 3, 2, 2), 7.0), torch.full((4, 5), 9.0)
    plain, normalised = (network(trunk, 17, 3, how) for how in ("none", "batch_norm"))
    assert not any(isinstance(part, torch.nn.BatchNorm1d) for part in plain.modules())
    assert any(isinstance(part, torch.nn.BatchNorm1d) for part in normalised.modules())
    logits = normalised.train()(photos, features)
    torch.testing.assert_close(logits[0], logits.mean(0))
    assert plain(photos, features).shape == (4, 3)


def test_of_many_pieces_as_many_of_each_class_are_learned_from(tmp_path, tower):
    photos = np.repeat(np.arange(40), 2)
    targets = np.where(np.arange(40) < 20, 0, np.arange(40) % 4)
    pieces = pieces_of(stored(tmp_path / "c", targets[photos]), photos)
    given_data = data(None, targets, tower, pieces={"cut": pieces})
    some = shown(given_data, options(pieces="cut", most=6), 1)
    assert len(some.training) == 6
    assert len(some.validation) == 32, "all of them"
    there = np.bincount(targets[:24], minlength=4) * 2
    taken = np.bincount(some.targets[some.training], minlength=4)
    assert (taken <= there).all()
    assert taken.max() <= taken[taken < there].min() + 1
    whole = shown(given_data, options(pieces="cut"), 1)
    assert len(whole.training) == 48
