"""What may be stated of a training, to the last value that is allowed; and what holds where nothing is stated."""

import pytest
from pydantic import ValidationError

from geoloc_core.families import (
    contrastive_captions,
    geocell_classifier,
    geoclip,
    guidebook_attention,
    protonet_refinement,
    sequence_classifier,
)
from geoloc_core.families.ensemble import Options as Ensemble
from geoloc_core.families.guidebook_attention import Options as Attention
from geoloc_core.training.auxiliary import Tasks
from geoloc_core.training.heads import Recipe
from geoloc_core.training.held_out import ZeroShot
from geoloc_core.training.optimisers import SGD, Adam, AdamW
from geoloc_core.training.recipe import NetworkRecipe
from geoloc_core.training.schedules import Constant, Cosine, MultiStep, Plateau, Step
from geoloc_core.training.weights import EffectiveNumber, InverseFrequency

ATTENTION = {
    "kind": "guidebook_attention", "corpus": "c", "encoders": ("a",), "text_encoder": "t", "texts": "clues",
    "labels": "country",
}  # fmt: skip
ENSEMBLE = {"kind": "ensemble", "corpus": "c", "members": ("one", "other"), "labels": "country"}
CELLS = {"kind": "geocell_classifier", "corpus": "c", "encoder": "a", "labels": "squares"}
REFINED = {"kind": "protonet_refinement", "corpus": "c", "variant": "cells", "encoder": "a", "labels": "squares"}
GEOCLIP = {"kind": "geoclip", "corpus": "c", "encoder": "a", "labels": "country"}
CAPTIONS = {
    "kind": "contrastive_captions", "corpus": "c", "encoders": ("a",), "text_encoder": "t", "texts": "towns",
    "labels": "city",
}  # fmt: skip
VIEWS = {"kind": "sequence_classifier", "corpus": "c", "encoders": ("a",), "labels": "square"}
TINY, NEARLY_ONE = 1e-12, 1 - 1e-12
BOUNDS = [
    (SGD, {}, "lr", [TINY, 9.0], [0, -0.1]),
    (SGD, {"lr": 1}, "momentum", [0, NEARLY_ONE], [-TINY, 1]),
    (SGD, {"lr": 1}, "weight_decay", [0, 0.5], [-TINY]),
    (AdamW, {}, "lr", [TINY, 9.0], [0, -0.1]),
    (AdamW, {"lr": 1}, "eps", [TINY, 0.5], [0, -TINY]),
    (AdamW, {"lr": 1}, "weight_decay", [0, 0.5], [-TINY]),
    (AdamW, {"lr": 1}, "betas", [(0, 0), (NEARLY_ONE, NEARLY_ONE)], [(1, 0), (0, 1), (-TINY, 0), (0, -TINY), (0.5,)]),
    (Plateau, {}, "factor", [TINY, NEARLY_ONE], [0, 1]),
    (Plateau, {}, "patience", [0, 5], [-1]),
    (MultiStep, {}, "milestones", [(1,), (1, 2)], [(), (0,)]),
    (MultiStep, {"milestones": (1,)}, "gamma", [TINY, NEARLY_ONE], [0, 1]),
    (Cosine, {}, "floor", [0, NEARLY_ONE], [-TINY, 1]),
    (InverseFrequency, {}, "power", [0, 1], [-TINY, 1 + 1e-9]),
    (EffectiveNumber, {}, "beta", [0, NEARLY_ONE], [-TINY, 1]),
    *((Recipe, {}, name, [1, 7], [0, -1]) for name in ("batch", "epochs", "stop_patience")),
    *((NetworkRecipe, {}, name, [1, 7], [0, -1]) for name in ("batch", "epochs", "stop_patience", "micro_batch")),
    (NetworkRecipe, {}, "warmup", [0, NEARLY_ONE], [-TINY, 1]),
    (NetworkRecipe, {}, "clip_norm", [TINY, None], [0, -1]),
    (NetworkRecipe, {}, "freeze", [0, 3, "all_but_last"], [-1, "some"]),
    (NetworkRecipe, {}, "cache_gb", [0, 5], [-TINY]),
    (NetworkRecipe, {"batch": 8}, "micro_batch", [8, 1], [9]),
    *((guidebook_attention.Recipe, {}, name, [1, 7], [0, -1]) for name in ("epochs", "stop_patience")),
    (Attention, ATTENTION, "encoders", [("a", "b")], [()]),
    (Attention, ATTENTION, "attends", [("a",), None], [(), ("b",)]),
    (Attention, ATTENTION, "guidance", [0, 1], [-TINY, 1 + 1e-9]),
    (Attention, ATTENTION, "positive_weight", [TINY, 99], [0]),
    (Attention, ATTENTION, "countries", [("FRA",), 1, None], [(), 0]),
    (Attention, ATTENTION, "benchmarks", [("im2gps",), None], [()]),
    (Ensemble, ENSEMBLE, "members", [("a", "b")], [(), ("a",)]),
    (Ensemble, ENSEMBLE, "rounds", [1, 2], [0]),
    *((ZeroShot, {}, name, [1, 2], [0]) for name in ("towns", "photos")),
    *((geocell_classifier.Recipe, {}, name, [1, 7], [0, -1]) for name in ("batch", "epochs")),
    (geocell_classifier.Smoothing, {}, "tau_km", [TINY, 75], [0, -1]),
    *((Tasks, {}, f"{name}_weight", [0, 9], [-TINY]) for name in ("quantities", "climate", "month")),
    (Tasks, {}, "month_smoothing", [0, NEARLY_ONE], [-TINY, 1]),
    (protonet_refinement.Clusters, {}, "min_samples", [2, 100], [1]),
    (protonet_refinement.Clusters, {}, "xi", [TINY, NEARLY_ONE], [0, 1]),
    (protonet_refinement.Options, REFINED, "candidates", [1, 40], [0]),
    (protonet_refinement.Options, REFINED, "temperature", [TINY, 9], [0]),
    (protonet_refinement.Options, REFINED, "max_km", [0, 1e5], [-TINY]),
    (geoclip.Recipe, {}, "batch", [2, 7], [1]),
    *((geoclip.Recipe, {}, name, [1, 7], [0, -1]) for name in ("epochs", "stop_patience")),
    (geoclip.Options, GEOCLIP, "seeds", [(0,), (7, 1), None], [(), (-1,), (1, 1)]),
    *((geoclip.Options, GEOCLIP, name, [1, 7], [0]) for name in ("dim", "frequencies", "validation_points")),
    (geoclip.Options, GEOCLIP, "queue", [0, 7], [-1]),
    (geoclip.Options, GEOCLIP, "sigmas", [(TINY,), (1, 9)], [(), (0,)]),
    (geoclip.Options, GEOCLIP, "noise_m", [(0, 0)], [(-TINY, 0), (0, -TINY)]),
    (contrastive_captions.Options, CAPTIONS, "width", [1, 256], [0]),
    (contrastive_captions.Options, CAPTIONS, "dropout", [0, NEARLY_ONE], [-TINY, 1]),
    *((sequence_classifier.Recipe, {}, name, [1, 7], [0, -1]) for name in ("batch", "epochs", "stop_patience")),
    *((sequence_classifier.Options, VIEWS, name, [1, 7], [0]) for name in ("views", "lstm")),
    (sequence_classifier.Options, VIEWS, "dropout", [0, NEARLY_ONE], [-TINY, 1]),
]


@pytest.mark.parametrize(("record", "others", "name", "allowed", "refused"), BOUNDS)
def test_every_number_has_its_bounds(record, others, name, allowed, refused):
    for value in allowed:
        assert getattr(record.model_validate(others | {name: value}), name) == value
    for value in refused:
        with pytest.raises(ValidationError) as said:
            record.model_validate(others | {name: value})
        assert name in str(said.value)


def test_the_thesis_trains_a_head_by_these_numbers():
    stated = Recipe()
    assert (stated.batch, stated.epochs, stated.stop_patience) == (128, 100, 10)
    assert stated.optimiser == SGD(lr=0.05, momentum=0.9, weight_decay=0, rates={})
    assert stated.schedule == Plateau(factor=0.5, patience=3)
    assert stated.weights == InverseFrequency(power=1)


def test_g3_is_trained_by_these_numbers():
    """Its code: SGD of 0.01 and 0.001, momentum 0.9, decay 1e-4, halved at six epochs of fifteen, α 0.75, weight 50."""
    head, along, options = guidebook_attention.Recipe(), guidebook_attention.ALONG, Attention(**ATTENTION)
    for recipe in (head, along):
        assert (recipe.batch, recipe.epochs, recipe.stop_patience) == (128, 15, None)
        assert recipe.optimiser == SGD(lr=0.01, momentum=0.9, weight_decay=1e-4, rates={"attention": 1e-3})
        assert recipe.schedule == MultiStep(milestones=(4, 8, 12, 13, 14, 15), gamma=0.5)
        assert recipe.weights == InverseFrequency(power=1)
    assert (along.augment, along.flip, along.warmup, along.freeze) == ("wide_crop", True, 0, 0)
    assert (options.guidance, options.positive_weight) == (0.75, 50)
    assert (options.weighting, options.fusion, options.hidden) == ("sigmoid_relu", "concat", ())


def test_a_network_is_trained_by_these_numbers():
    stated = NetworkRecipe()
    assert (stated.batch, stated.micro_batch, stated.epochs, stated.stop_patience) == (128, None, 15, None)
    assert stated.optimiser == AdamW(lr=1e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05, rates={})
    assert stated.schedule == Cosine(floor=0)
    assert (stated.warmup, stated.clip_norm, stated.freeze, stated.augment) == (0, None, 0, "wide_crop")
    assert (stated.flip, stated.weights, stated.precision, stated.compile) == (False, None, "auto", False)
    assert AdamW(lr=1).weight_decay == 0.01
    assert MultiStep(milestones=(1,)).gamma == 0.5
    assert EffectiveNumber().beta == 0.999


def test_pigeon_is_trained_by_these_numbers():
    """Its code: the head, the tasks' weights, and both sets of the refinement's."""
    recipe, tasks = geocell_classifier.Recipe(), Tasks()
    assert (recipe.batch, recipe.epochs, recipe.weights) == (1024, 1000, None)
    assert recipe.optimiser == AdamW(lr=2e-5)
    assert recipe.schedule == Constant()
    assert geocell_classifier.Smoothing().tau_km == 75
    assert (tasks.quantities_weight, tasks.climate_weight, tasks.month_weight, tasks.month_smoothing) == (8, 2, 1, 0.3)
    assert protonet_refinement.Clusters() == protonet_refinement.Clusters(min_samples=3, xi=0.15)
    refined = protonet_refinement.Options(**REFINED)
    assert (refined.candidates, refined.temperature, refined.max_km) == (5, 1.6, 1000)


def test_geoclip_is_trained_by_these_numbers():
    recipe, options = geoclip.Recipe(), geoclip.Options(**GEOCLIP)
    assert (recipe.batch, recipe.optimiser, recipe.schedule) == (
        512,
        Adam(lr=3e-5, weight_decay=1e-6),
        Step(gamma=0.87),
    )
    assert (options.hidden, options.dim, options.frequencies, options.capsule) == ((768,), 512, 256, (1024,) * 3)
    assert (options.sigmas, options.queue, options.noise_m) == ((1, 16, 256), 4096, (150, 1000))


def test_geoguessr_lstm_is_trained_by_these_numbers():
    options = sequence_classifier.Options(**VIEWS)
    assert (options.views, options.lstm, options.hidden, options.dropout) == (3, 64, (1024, 512, 128, 64), 0.5)
    assert (options.recipe.batch, options.recipe.epochs) == (32, 20)


@pytest.mark.parametrize("schedule", [Cosine(), Constant(), MultiStep(milestones=(2,), gamma=0.1)])
def test_a_rate_rises_in_the_warm_up_and_follows_its_schedule_from_there(schedule):
    """Four epochs of five steps; a fifth of them, four, is warm-up."""
    recipe = NetworkRecipe(epochs=4, warmup=0.2, schedule=schedule)
    found = [recipe.rate_at(step, 5) for step in range(20)]
    plain = [NetworkRecipe(epochs=4, schedule=schedule).rate_at(step, 5) for step in range(20)]
    assert [one / other for one, other in zip(found, plain, strict=True)] == pytest.approx(
        [1 / 4, 2 / 4, 3 / 4] + [1] * 17
    )
    if isinstance(schedule, MultiStep):
        assert plain == pytest.approx([1] * 10 + [0.1] * 10)
