"""What holds of a model of any family: its folder opens as it was saved, or says why not."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from geoloc_core.contracts.differentiable import HasGradients
from geoloc_core.contracts.geolocator import FAMILIES, load
from geoloc_core.encoders import encoder as encoders
from geoloc_core.errors import UserError
from geoloc_core.plugins import kinds

from .made_models import MADE, attention, classifier, photos, sequence
from .made_models import cells as made_cells

OVER_CELLS = {"retrieval": lambda model: model.under, "protonet_refinement": lambda model: model.refined}
"""Families whose gradient is that of the model of cells that they lie over."""


def test_every_family_is_here():
    assert set(MADE) == set(kinds(FAMILIES))


@pytest.fixture(params=MADE)
def saved(request, tmp_path):
    """A model and its folder."""
    trained = MADE[request.param]()
    trained.save(tmp_path)
    return trained, tmp_path


def same(one, other):
    for name in ("classes", "probabilities"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for name in ("latitudes", "longitudes", "latitude", "longitude"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-6)
    for name in ("rank", "probability", "before"):
        np.testing.assert_array_equal(getattr(one.truth, name), getattr(other.truth, name))
    assert one.auxiliary.keys() == other.auxiliary.keys()
    for name, values in one.auxiliary.items():
        np.testing.assert_array_equal(values, other.auxiliary[name])
    assert (one.evidence is None) == (other.evidence is None)
    if one.evidence:
        assert one.evidence.kind == other.evidence.kind
        np.testing.assert_array_equal(one.evidence.ids, other.evidence.ids)
        np.testing.assert_array_equal(one.evidence.weights, other.evidence.weights)


def test_saved_and_loaded_it_answers_the_same(saved):
    trained, folder = saved
    loaded = load(folder)
    assert loaded.card == trained.card
    truth = np.arange(20) % 7 - 1
    same(trained.model.predict(photos(20), 4, truth), loaded.model.predict(photos(20), 4, truth))
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} <= {".json", ".safetensors"}, (
        "nothing is pickled"
    )


@pytest.mark.parametrize("hidden", [(), (8,)])
def test_a_classifier_has_as_many_layers_as_were_saved(tmp_path, hidden):
    trained = classifier(hidden)
    trained.save(tmp_path)
    same(*(model.predict(photos(9), 4, np.arange(9) % 6) for model in (trained.model, load(tmp_path).model)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: attention(weighting="softmax"),
        lambda: attention(fusion="add", hidden=(8,)),
        lambda: sequence(hidden=(), views=1),
        lambda: made_cells("one", tasks=False),
    ],
    ids=["softmax", "added", "of one view", "without tasks"],
)
def test_what_it_was_told_is_saved_with_it(tmp_path, make):
    trained = make()
    trained.save(tmp_path)
    same(*(model.predict(photos(9), 4, np.arange(9) % 6) for model in (trained.model, load(tmp_path).model)))


def test_evidence_is_named_by_texts_of_any_length(saved):
    found = saved[0].model.predict(photos(9)).evidence
    assert found is None or found.ids.dtype == object


def test_one_unit_is_answered_as_among_many(saved):
    trained, _ = saved
    whole = trained.model.predict(photos(20), 4, np.arange(20) % 6)
    for row in (0, 7, 19):
        alone = trained.model.predict(photos(20).rows(np.array([row])), 4, np.array([row % 6]))
        np.testing.assert_array_equal(alone.classes[0], whole.classes[row])
        np.testing.assert_allclose(alone.probabilities[0], whole.probabilities[row], rtol=1e-5)


def test_unless_asked_otherwise_it_names_the_five_most_probable_classes(saved):
    trained, _ = saved
    truth = np.arange(9) % 6
    found = trained.model.predict(photos(9), truth=truth)
    same(found, trained.model.predict(photos(9), 5, truth))
    assert found.classes.shape == (9, 5)


ATTENDING = {"softmax": {"weighting": "softmax"}, "added": {"fusion": "add"}}


@pytest.mark.parametrize(
    "make", [*MADE.values(), *(partial(attention, **told) for told in ATTENDING.values())], ids=[*MADE, *ATTENDING]
)
def test_where_it_has_gradients_it_answers_the_same_in_pytorch(make):
    trained = make()
    found = trained.model.differentiable() if isinstance(trained.model, HasGradients) else None
    if found is None:
        return
    batch = photos(9)
    parts = [batch.images[name] for name in found.encoders]
    if found.own is not None:
        parts.insert(0, encoders.load(found.own.options, found.own.weights)(batch.photos))
    joined = torch.from_numpy(np.concatenate(parts, axis=1).astype(np.float32))
    logits = found.logits(joined.requires_grad_(True))
    assert torch.autograd.grad(logits.sum(), joined)[0].abs().max() > 0
    classes = len(trained.labelspace)
    answering = OVER_CELLS[trained.card.family](trained.model).model if found.about else trained.model
    answered = answering.predict(batch, classes)
    probabilities = np.take_along_axis(logits.softmax(dim=1).detach().numpy(), answered.classes, axis=1)
    np.testing.assert_allclose(probabilities, answered.probabilities, rtol=1e-4)


def test_these_families_have_gradients():
    made = {name: make().model for name, make in MADE.items()}
    found = {name: model.differentiable() for name, model in made.items() if isinstance(model, HasGradients)}
    without = {"ensemble", "place_ensemble", "feature_experts", "sequence_classifier", "flow_matching"}
    assert {name for name, how in found.items() if how is not None} == set(MADE) - without
    assert {name for name, how in found.items() if how.about} == set(OVER_CELLS)


def test_a_model_over_cells_without_a_gradient_has_none():
    assert replace(MADE["retrieval"]().model, under=MADE["ensemble"]()).differentiable() is None
    assert made_cells(block=True).model.differentiable() is None, "its block reads tokens"


def refused(folder, says):
    with pytest.raises(UserError, match=says) as said:
        load(folder)
    assert "\n" not in str(said.value)
    assert str(folder) in str(said.value)
    assert f"run `geoloc train {folder.name}`" in str(said.value)


@pytest.mark.slow
def test_a_missing_or_broken_file_is_said_in_one_line(saved):
    _, folder = saved
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        whole = path.read_bytes()
        path.unlink()
        refused(folder, path.name)
        for broken in (b"", b"cut", whole[: len(whole) // 2], b"\xff\xfe" * 20):
            path.write_bytes(broken)
            refused(folder, path.name)
        path.write_bytes(whole)
    load(folder)


def test_every_tensor_must_be_there_in_its_shape(saved):
    _, folder = saved
    path = folder / "model.safetensors"
    whole = load_file(path)
    for name in whole:
        save_file({other: tensor for other, tensor in whole.items() if other != name}, path)
        refused(folder, r"model\.safetensors: ")
        shapes = {(*whole[name].shape, 1), (whole[name].size,), (1, whole[name].size)} - {whole[name].shape}
        for shape in shapes:
            save_file({**whole, name: whole[name].reshape(shape)}, path)
            refused(folder, r"model\.safetensors: .*expected ")
        for shape in ((), (0, *whole[name].shape[1:])):
            save_file({**whole, name: np.zeros(shape, whole[name].dtype)}, path)
            refused(folder, r"model\.safetensors: .*expected ")


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        ("model.json", {"family": "oracle"}, "family 'oracle' is unknown"),
        ("model.json", {"family": "../classifier"}, "is unknown"),
        ("model.json", {"needs": {"inputs": [{"kind": "sound"}], "labels": "country"}}, "needs.inputs"),
        ("model.json", {"extra": 1}, "extra"),
        ("labels.json", {"ids": ["C00"]}, "its lists do not match"),
        ("labels.json", {"latitudes": [91.0] * 6}, "latitudes"),
    ],
)
def test_a_card_or_classes_that_cannot_be_are_said_in_one_line(saved, file, change, says):
    _, folder = saved
    raw = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(raw | change))
    refused(folder, says)


def test_classes_of_another_model_do_not_fit(saved):
    trained, folder = saved
    trained.labelspace.take(np.arange(4)).save(folder / "labels.json")
    refused(folder, r"model\.safetensors: .*expected ")


def test_features_without_a_fingerprint_are_said(tmp_path):
    classifier().save(tmp_path)
    raw = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(raw | {"fingerprints": {"a": "1"}}))
    refused(tmp_path, r"model\.json: no fingerprint of b")


@pytest.mark.parametrize("family", ["ensemble", "place_ensemble", "feature_experts"])
@pytest.mark.parametrize("wrong", [np.full(6, 6), np.full(6, -2), np.zeros(6)], ids=["above", "below", "float"])
def test_classes_that_cannot_be_are_refused(tmp_path, family, wrong):
    MADE[family]().save(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file(tensors | {"classes.1": wrong}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"classes\.1: expected positions of 6 classes"):
        load(tmp_path)
