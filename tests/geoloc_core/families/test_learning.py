"""What holds of the training of any family that learns from features."""

from dataclasses import replace

import numpy as np
import pytest

from geoloc_core.contracts.batch import Batch
from geoloc_core.errors import UserError
from geoloc_core.families import classifier, geocell_classifier, guidebook_attention, sequence_classifier
from geoloc_core.training.optimisers import SGD, AdamW
from geoloc_core.training.schedules import Constant, Cosine

from .made_lessons import clues, data, run
from .made_models import space

PHOTO = {"corpus": "c", "encoders": ("a",), "labels": "country"}
CELLS = {"kind": "geocell_classifier", "corpus": "c", "encoder": "a", "labels": "country"}
GUIDED = {"kind": "guidebook_attention", "text_encoder": "t", "texts": "clues", **PHOTO}
FAMILIES = {
    "linear": (classifier, {"kind": "classifier", **PHOTO}),
    "mlp": (classifier, {"kind": "classifier", "hidden": (32, 16), **PHOTO}),
    "normalised": (classifier, {"kind": "classifier", "normalise": "batch_norm", **PHOTO}),
    "guided": (guidebook_attention, GUIDED),
    "sequence": (sequence_classifier, {"kind": "sequence_classifier", "hidden": (32,), "dropout": 0.0, **PHOTO}),
    "cells": (geocell_classifier, CELLS),
    "softmax": (guidebook_attention, {**GUIDED, "weighting": "softmax", "hidden": (32,)}),
}
RECIPES = {
    "sgd": {"optimiser": SGD(lr=0.05), "schedule": Constant()},
    "adamw": {"optimiser": AdamW(lr=0.01), "schedule": Cosine()},
}


@pytest.fixture(params=FAMILIES)
def family(request):
    """A module, and the options of a variant."""
    module, block = FAMILIES[request.param]
    return module, block


def learn(family, given, folder, **recipe):
    module, block = family
    chosen = {"batch": 16, "epochs": 60, "stop_patience": None, **RECIPES["sgd"], **recipe}
    return module.fit(given, module.Options(**block, recipe=chosen), run(folder))


def lesson(targets, classes, dim=96, validation_share=0.25, shown=0.0):
    """Photos that show so much of their class; where that is nothing, they can only be learned by heart."""
    rng = np.random.default_rng(0)
    about = [(space(classes).ids[number % classes],) for number in range(2 * classes)]
    features = rng.normal(size=(len(targets), dim)) + shown * rng.normal(size=(classes, dim))[targets]
    return data(features, targets, classes, clues(rng.normal(size=(2 * classes, 8)), about), None, validation_share)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_it_learns_64_photos_by_heart(family, tmp_path, recipe):
    targets = np.random.default_rng(1).integers(0, 4, 64)
    given = lesson(targets, 4)
    given = replace(given, training=np.arange(64), validation=np.arange(64))
    fitted = learn(family, given, tmp_path, **RECIPES[recipe])
    answer = fitted.model.predict(Batch({"a": given.images["a"]}))
    assert np.mean(answer.classes[:, 0] == targets) > 0.95
    assert fitted.figures["ece_after"] <= fitted.figures["ece_before"] + 1e-3


def test_the_best_epoch_is_kept_and_not_the_last(family, tmp_path):
    """The photos for validation are those for training, of other classes: the more is learned, the less is right."""
    targets = np.random.default_rng(1).integers(0, 4, 64)
    given = lesson(targets, 4)
    features = np.concatenate([given.images["a"]] * 2)
    given = replace(given, images={"a": features}, targets=np.concatenate([targets, (targets + 1) % 4]),
                    training=np.arange(64), validation=np.arange(64, 128))  # fmt: skip
    fitted = learn(family, given, tmp_path, epochs=30)
    scores = [epoch["validation_accuracy"] for epoch in fitted.history]
    assert scores[fitted.best] == max(scores) > scores[-1] + 5
    answer = fitted.model.predict(Batch({"a": given.images["a"][given.validation]}))
    right = 100 * np.mean(answer.classes[:, 0] == given.targets[given.validation])
    assert right == pytest.approx(max(scores))


def test_one_class_is_always_right(family, tmp_path):
    given = lesson(np.zeros(40, np.int64), 1)
    fitted = learn(family, given, tmp_path, epochs=2)
    assert fitted.figures["temperature"] == 1
    assert fitted.figures["ece_before"] == fitted.figures["ece_after"] == 0
    assert fitted.model.predict(Batch({"a": given.images["a"]})).probabilities.tolist() == [[1.0]] * 40


@pytest.mark.slow
def test_a_class_without_validation_rows_is_learned_all_the_same(family, tmp_path):
    targets = np.concatenate([np.arange(90) % 3, np.arange(30) % 2])
    given = lesson(targets, 3, shown=1.0)
    fitted = learn(family, given, tmp_path)
    seen = given.training[given.targets[given.training] == 2]
    answer = fitted.model.predict(Batch({"a": given.images["a"][seen]}))
    assert np.mean(answer.classes[:, 0] == 2) > 0.9


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("row", [3, 35])
def test_features_that_are_no_numbers_are_refused(family, tmp_path, value, row):
    """Of training and of validation alike: a validation photo of NaN would only count as wrong."""
    given = lesson(np.arange(40) % 4, 4)
    given.images["a"][row, 7] = value
    with pytest.raises(UserError, match=f"are not finite numbers, the first those of row {row}; encode these photos"):
        learn(family, given, tmp_path)


def test_what_is_told(family, tmp_path):
    given = lesson(np.arange(40) % 4, 4)
    seen = []
    module, block = family
    chosen = module.Options(**block, recipe={"epochs": 3})
    fitted = module.fit(given, chosen, run(tmp_path, lambda metrics, step: seen.append(metrics)))
    told = {"loss", "validation_loss", "validation_accuracy", "lr"}
    assert all(told <= metrics.keys() for metrics in fitted.history)
    assert all(metrics["photos_per_second"] > 0 for metrics in seen)
    expected = {"trainable_parameters", "parameters", "seconds_per_epoch", "photos_per_second", "temperature"}
    assert expected | {"ece_before", "ece_after"} <= fitted.figures.keys()


def test_photos_of_one_group_stay_in_one_half_where_calibration_is_measured(family, tmp_path):
    """So that the figure depends on who is whose, and the training does not."""
    given = lesson(np.arange(160) % 4, 4, shown=0.4, dim=8)
    first, second = np.arange(160) % 40 < 20, np.arange(160) % 2 == 0
    found = [learn(family, replace(given, groups=of.astype(np.int64)), tmp_path / str(number), epochs=3)
             for number, of in enumerate((first, second))]  # fmt: skip
    assert found[0].history == found[1].history
    assert found[0].figures["temperature"] == found[1].figures["temperature"]
    assert found[0].figures["ece_after"] != found[1].figures["ece_after"]


def test_another_seed_is_another_training_and_the_same_one_the_same(family, tmp_path):
    module, block = family
    given = lesson(np.arange(40) % 4, 4)
    chosen = module.Options(**block, recipe={"epochs": 2, "batch": 64, **RECIPES["sgd"]})
    histories = [module.fit(given, chosen, run(tmp_path / str(number), seed=seed)).history
                 for number, seed in enumerate((5, 5, 6))]  # fmt: skip
    assert histories[0] == histories[1] != histories[2], "of all photos at once: the first weights differ"
