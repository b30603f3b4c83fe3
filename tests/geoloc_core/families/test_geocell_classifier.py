"""PIGEON's classifier: smoothed targets, views of a place, auxiliary tasks, and the last block of a tower."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from geoloc_core.contracts.batch import Batch, Tower, Units
from geoloc_core.contracts.facts import CATEGORIES, CLASSES, FIRST, QUANTITIES
from geoloc_core.contracts.geolocator import Card, Trained, load
from geoloc_core.corpora.manifest import ShardWriter
from geoloc_core.corpora.stored import Stored
from geoloc_core.encoders import encoder as encoders
from geoloc_core.encoders.towers.vit import Options as ViT
from geoloc_core.errors import UserError
from geoloc_core.families.geocell_classifier import (
    LastBlock,
    Options,
    Recipe,
    Smoothing,
    cell_loss,
    fit,
    network,
    padded,
    total,
)
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.training.auxiliary import OFFSETS, Scale, Targets, Tasks, read
from geoloc_core.training.optimisers import AdamW
from geoloc_core.training.weights import InverseFrequency, class_weights
from tests.geoloc_core.encoders import made_checkpoints

from .made_lessons import data, run
from .made_models import cells

RADIUS = 6378.137


def options(epochs=25, lr=0.02, **given):
    recipe = Recipe(batch=32, epochs=epochs, optimiser=AdamW(lr=lr), stop_patience=None)
    chosen = {"kind": "geocell_classifier", "corpus": "c", "encoder": "a", "labels": "cells", "recipe": recipe}
    return Options(**chosen | given)


def lesson(n=240, views=1, classes=5, seed=0, noise=0.6):
    """Places of several views each, around a feature of their cell's; cells lie on a line across the date line."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, classes, n)
    features = np.repeat(rng.normal(size=(classes, 6))[targets], views, axis=0)
    features += rng.normal(0, noise, features.shape)
    given = data(features, np.repeat(targets, views), classes)
    longitudes = np.array([178.0, 179.0, -180.0, -179.0, -178.0])[:classes]
    names = [str(at) for at in range(classes)]
    space = LabelSpace("cells", names, names, [""] * classes, np.linspace(-2, 2, classes), longitudes)
    at = given.targets
    return replace(
        given,
        space=space,
        latitudes=space.latitudes[at] + rng.normal(0, 0.1, len(at)),
        longitudes=(space.longitudes[at] + rng.normal(0, 0.1, len(at)) + 180) % 360 - 180,
        places=np.repeat(np.array([f"p{at}" for at in range(n)], dtype=object), views),
        headings=np.tile(np.linspace(0, 270, views), n),
        facts=facts(given.targets, rng),
    )


def facts(targets, rng):
    """What follows from the cell, and is not known of some rows."""
    found = {name: np.exp(1 + targets / 2) + at for at, name in enumerate(QUANTITIES)}
    found |= {"climate": targets * 3.0, "month": targets % 12 + 1.0}
    for values in found.values():
        values[rng.random(len(values)) < 0.2] = np.nan
    return found


# -- the equations, literally, in float64 ------------------------------------------------------------------------------


def kilometres(lat1, lon1, lat2, lon2):
    """Equation 1 of the poster."""
    lat1, lon1, lat2, lon2 = map(np.radians, (lat1, lon1, lat2, lon2))
    inside = np.sin((lat2 - lat1) / 2) ** 2 + np.cos(lat1) * np.cos(lat2) * np.sin((lon2 - lon1) / 2) ** 2
    return 2 * RADIUS * np.arcsin(np.sqrt(inside))


def smoothed(given, rows, chosen):
    found = np.zeros((len(rows), len(given.space)))
    for i, row in enumerate(rows):
        apart = [
            kilometres(given.latitudes[row], given.longitudes[row], *place)
            for place in zip(given.space.latitudes, given.space.longitudes, strict=True)
        ]
        nought = min(apart) if chosen.reference == "nearest" else apart[given.targets[row]]
        found[i] = [np.exp(-(d - nought) / chosen.tau_km) for d in apart]
        if chosen.normalise:
            found[i] /= found[i].sum()
    return found


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


@pytest.mark.parametrize(
    "chosen",
    [Smoothing(), Smoothing(tau_km=65, reference="true"), Smoothing(normalise=True)],
    ids=["as released", "as printed", "normalised"],
)
def test_the_loss_of_cells_is_that_of_the_equation(chosen):
    given = lesson()
    rows = given.training[:40]
    logits = np.random.default_rng(1).normal(size=(40, 5))
    expected = -(smoothed(given, rows, chosen) * log_softmax(logits)).sum(axis=1).mean()
    loss = cell_loss(given, options(smoothing=chosen), given.training)
    found = loss(torch.from_numpy(logits).float(), torch.from_numpy(rows))
    assert found.item() == pytest.approx(expected, rel=1e-5)
    hard = cell_loss(given, options(), given.training)(torch.from_numpy(logits).float(), torch.from_numpy(rows))
    own = -log_softmax(logits)[np.arange(40), given.targets[rows]].mean()
    assert hard.item() == pytest.approx(own, rel=1e-5)
    assert hard.item() != pytest.approx(expected, rel=1e-5), "or smoothing would make no difference here"


def of_tasks(tasks, known, scale, outputs):
    """8 · MSE + 2 · CE + CE, term by term."""
    apart, at = [], 0
    for name in tasks.quantities:
        for value, output in zip(known[name], outputs[:, at], strict=True):
            if value == value:
                moved = value if OFFSETS[name] is None else np.log(value + OFFSETS[name])
                apart.append((output - (moved - scale.mean[at]) / scale.std[at]) ** 2)
        at += 1
    total = tasks.quantities_weight * np.mean(apart) if apart else 0.0
    for name in tasks.categories:
        of_class = []
        count = CLASSES[name]
        for value, logits in zip(known[name], outputs[:, at : at + count], strict=True):
            if value == value:
                right = np.zeros(count)
                right[int(value) - FIRST[name]] = 1
                if name == "month":
                    right = (1 - tasks.month_smoothing) * right + tasks.month_smoothing / count
                of_class.append(-(right * log_softmax(logits)).sum())
        at += count
        total += (tasks.climate_weight if name == "climate" else tasks.month_weight) * np.mean(of_class)
    return total


@pytest.mark.parametrize("tasks", [Tasks(), Tasks(facts=("month", "elevation")), Tasks(facts=("climate",))])
def test_the_loss_of_tasks_is_that_of_the_paper_and_counts_what_is_known_alone(tasks):
    given = lesson()
    known = {name: given.facts[name] for name in tasks.facts}
    columns = [known[name] for name in tasks.quantities]
    scale = Scale.of(tasks.quantities, np.stack(columns, axis=1)) if columns else Scale([], *[np.empty(0)] * 2)
    targets = Targets.of(tasks, known, scale, torch.device("cpu"))
    rows = given.training[:50]
    outputs = np.random.default_rng(2).normal(size=(50, tasks.width))
    found = targets.loss(torch.from_numpy(outputs).float(), torch.from_numpy(rows)).item()
    expected = of_tasks(tasks, {name: values[rows] for name, values in known.items()}, scale, outputs)
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_row_of_which_no_fact_is_known_moves_nothing():
    unknown = {name: np.array([np.nan, 5.0]) for name in (*QUANTITIES, *CATEGORIES)}
    scale = Scale(list(QUANTITIES), np.zeros(6), np.ones(6))
    outputs = torch.randn(2, Tasks().width, requires_grad=True)
    Targets.of(Tasks(), unknown, scale, torch.device("cpu")).loss(outputs, torch.arange(2)).backward()
    assert outputs.grad[0].abs().sum() == 0
    assert outputs.grad[1].abs().sum() > 0
    alone = torch.randn(1, Tasks().width, requires_grad=True)
    loss = Targets.of(Tasks(), unknown, scale, torch.device("cpu")).loss(alone, torch.tensor([0]))
    assert loss.item() == 0, "nothing is known: no mean over nothing"


@settings(max_examples=30)
@given(st.lists(st.floats(-400, 9000), min_size=2, max_size=20), st.sampled_from(QUANTITIES))
def test_a_scale_is_undone_by_its_inverse(values, name):
    values = np.array([[max(value, 0.0) if name != "elevation" else value] for value in values])
    scale = Scale.of([name], values)
    np.testing.assert_allclose(scale.undo(scale.apply(values)), values, rtol=1e-6, atol=1e-4)


def test_what_lies_below_the_lowest_place_counts_as_that_and_nothing_known_is_refused():
    scale = Scale(["elevation"], np.zeros(1), np.ones(1))
    np.testing.assert_array_equal(scale.apply(np.array([[-430.0], [-407.0]])), [[0.0], [0.0]])
    with pytest.raises(UserError, match=r"tasks\.facts: elevation: not known of any training photo"):
        Scale.of(["elevation"], np.full((3, 1), np.nan))


def test_outputs_are_read_in_the_papers_units():
    scale = Scale(list(QUANTITIES), np.array([6.0, 2, 10, 2, 1, 1]), np.full(6, 0.5))
    outputs = np.zeros((1, Tasks().width))
    outputs[0, 6 + 7], outputs[0, 6 + 30 + 11] = 5, 5
    told = read(Tasks(), scale, outputs)
    assert told["elevation"][0] == pytest.approx(np.exp(6) - 408)
    assert told["temperature_mean"][0] == 10
    assert told["precipitation_mean"][0] == pytest.approx(np.e - 1)
    assert (told["climate"][0], told["month"][0]) == (7, 12)


# -- views of a place --------------------------------------------------------------------------------------------------


def test_places_of_fewer_views_name_their_first_again():
    units = Units(np.array([4, 2, 9, 7]), np.array([0, 3, 4]))
    np.testing.assert_array_equal(padded(units, "all"), [[4, 2, 9], [7, 7, 7]])
    np.testing.assert_array_equal(padded(units, "one"), [[4], [7]])
    x = torch.randn(2, 3, 6)
    x[1, 1:] = x[1, 0]
    net = network((6,), 5, None, None)
    logits, _ = net(x, torch.from_numpy(padded(units, "all")))
    torch.testing.assert_close(logits[0], net.cells(x[0].mean(dim=0)))
    torch.testing.assert_close(logits[1], net.cells(x[1, 0]))


@pytest.mark.parametrize("block", [False, True])
def test_the_order_of_views_does_not_matter_and_fewer_are_allowed(block):
    model = cells(block=block).model
    rng = np.random.default_rng(0)
    seen = rng.normal(size=(7, 2, 4) if block else (7, 3)).astype(np.float32)
    starts = np.array([0, 4, 5, 7])
    found = model.predict(Batch({"b": seen}, starts=starts), 6, np.array([0, 1, 2]))
    turned = model.predict(Batch({"b": seen[[2, 3, 0, 1, 4, 6, 5]]}, starts=starts), 6, np.array([0, 1, 2]))
    np.testing.assert_allclose(found.probabilities, turned.probabilities, atol=1e-6)
    np.testing.assert_allclose(found.auxiliary["elevation"], turned.auxiliary["elevation"], rtol=1e-5)
    alone = model.predict(Batch({"b": seen[4:5]}), 6)
    np.testing.assert_allclose(found.probabilities[1], alone.probabilities[0], atol=1e-6)


def test_of_one_view_the_first_alone_counts():
    model = cells(views="one").model
    seen = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    starts = np.array([0, 3, 5])
    found = model.predict(Batch({"b": seen}, starts=starts), 6)
    changed = seen.copy()
    changed[[1, 2, 4]] = 9
    for other in (Batch({"b": changed}, starts=starts), Batch({"b": seen[[0, 3]]})):
        np.testing.assert_allclose(found.probabilities, model.predict(other, 6).probabilities, atol=1e-6)


@pytest.mark.slow
def test_it_learns_more_from_all_views_of_a_place_than_from_one(tmp_path):
    given = lesson(views=4, noise=1.5)
    right = {
        views: max(e["validation_accuracy"] for e in fit(given, options(views=views), run(tmp_path / views)).history)
        for views in ("one", "all")
    }
    assert right["all"] > right["one"] + 5


# -- training ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("views", [1, 3])
def test_it_answers_what_it_was_validated_with(tmp_path, views):
    given = lesson(views=views)
    fitted = fit(given, options(smoothing=Smoothing(), tasks=Tasks()), run(tmp_path))
    units = given.units(given.validation)
    batch = Batch({"a": given.images["a"][units.rows]}, starts=units.starts)
    answer = fitted.model.predict(batch, 5, given.targets[units.first])
    right = 100 * np.mean(answer.classes[:, 0] == given.targets[units.first])
    assert right == pytest.approx(fitted.history[fitted.best]["validation_accuracy"])
    assert fitted.figures["training_places"] * views == len(given.training)
    known = np.isfinite(given.facts["climate"][units.first])
    said = answer.auxiliary["climate"][known] == given.facts["climate"][units.first][known]
    assert said.mean() > 0.6, "which is learned along"


def test_parameters_are_those_of_its_layers(tmp_path):
    given = lesson()
    plain = fit(given, options(epochs=1), run(tmp_path / "plain"))
    assert plain.figures["trainable_parameters"] == 5 * 6 + 5
    more = fit(given, options(epochs=1, tasks=Tasks()), run(tmp_path / "more"))
    assert more.figures["trainable_parameters"] == (5 + 6 + 30 + 12) * (6 + 1)


def test_tasks_may_be_of_categories_alone(tmp_path):
    fitted = fit(lesson(), options(epochs=1, tasks=Tasks(facts=("climate",))), run(tmp_path))
    assert fitted.figures["trainable_parameters"] == (5 + 30) * (6 + 1)


def test_what_is_learned_of_quantities_is_scaled_by_training_places_alone(tmp_path):
    given = lesson(views=2)
    first = given.units(given.training).first
    given.facts["elevation"][given.units(given.validation).first] = 8000
    tensors = fit(given, options(epochs=1, tasks=Tasks()), run(tmp_path)).model.tensors
    expected = Scale.of(list(QUANTITIES), np.stack([given.facts[name][first] for name in QUANTITIES], axis=1))
    np.testing.assert_allclose(tensors["scale.mean"], expected.mean)
    np.testing.assert_allclose(tensors["scale.std"], expected.std)


def test_the_loss_of_a_batch_is_that_of_cells_and_tasks():
    given, tasks = lesson(), Tasks()
    scale = Scale.of(list(QUANTITIES), np.stack([given.facts[name] for name in QUANTITIES], axis=1))
    targets = Targets.of(tasks, given.facts, scale, torch.device("cpu"))
    net, rows = network((6,), 5, tasks, None), given.training[:40]
    of_cells = cell_loss(given, options(smoothing=Smoothing()), given.training)
    x = torch.from_numpy(given.images["a"][rows].astype(np.float32))
    with torch.no_grad():
        found = total(net, x[:, None], torch.from_numpy(rows)[:, None], of_cells, targets)
        logits, outputs = net.cells(x).double().numpy(), net.tasks(x).double().numpy()
    own = -(smoothed(given, rows, Smoothing()) * log_softmax(logits)).sum(axis=1).mean()
    known = {name: values[rows] for name, values in given.facts.items()}
    assert found.item() == pytest.approx(own + of_tasks(tasks, known, scale, outputs), rel=1e-5)


@pytest.mark.parametrize("smoothing", [None, Smoothing()])
def test_weights_of_classes_count_in_the_loss_of_cells(smoothing):
    given = lesson()
    chosen = options(smoothing=smoothing)
    chosen = chosen.model_copy(update={"recipe": chosen.recipe.model_copy(update={"weights": InverseFrequency()})})
    logits, rows = np.random.default_rng(1).normal(size=(40, 5)), given.training[:40]
    weights = class_weights(InverseFrequency(), given.targets[given.training], 5).astype(np.float64)
    assert weights.std() > 0
    right = np.eye(5)[given.targets[rows]] if smoothing is None else smoothed(given, rows, smoothing)
    losses = -(right * weights * log_softmax(logits)).sum(axis=1)
    expected = losses.mean() if smoothing else losses.sum() / weights[given.targets[rows]].sum()
    found = cell_loss(given, chosen, given.training)(torch.from_numpy(logits).float(), torch.from_numpy(rows))
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_one_cell_is_always_right(tmp_path):
    given = lesson(classes=1)
    fitted = fit(given, options(epochs=2, smoothing=Smoothing()), run(tmp_path))
    assert fitted.history[0]["validation_accuracy"] == 100
    answer = fitted.model.predict(Batch({"a": given.images["a"][:3]}))
    np.testing.assert_array_equal(answer.probabilities, np.ones((3, 1)))


def test_rows_without_coordinates_cannot_be_smoothed(tmp_path):
    given = lesson()
    given.latitudes[3], given.longitudes[5] = np.nan, np.nan
    with pytest.raises(UserError, match="smoothing: 2 training photos have no coordinates; expected"):
        fit(given, options(smoothing=Smoothing()), run(tmp_path))
    fit(given, options(epochs=1), run(tmp_path))


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    """The weights of a small ViT, and tokens of its photos that enter its last block."""
    folder = tmp_path_factory.mktemp("vit")
    made_checkpoints.vit(8, old=False).write(folder)
    return ViT(kind="vit", pooling="penultimate"), folder


def with_tokens(vit, n=120):
    """Photos whose classes differ in brightness."""
    kind, folder = vit
    given = lesson(n=n, noise=0.1)
    rng = np.random.default_rng(0)
    shades = np.clip(40 * given.targets[:, None, None, None] + rng.normal(0, 30, (n, 32, 32, 3)), 0, 255)
    tokens = encoders.load(kind, folder).forward(shades.astype(np.uint8)).astype(np.float16)
    return replace(given, images={"a": tokens}, towers={"a": Tower(kind, folder)})


def test_a_last_block_is_trained_along_and_saved_with_the_model(tmp_path, vit):
    given = with_tokens(vit)
    chosen = options(epochs=25, lr=0.005, encoder=LastBlock(last_block="a"), tasks=Tasks())
    fitted = fit(given, chosen, run(tmp_path))
    block = 24 * 24 * 4 + 24 * 4 + 2 * 24 * 48 + 48 + 24 + 4 * 24 + 2 * 24
    assert fitted.figures["trainable_parameters"] == block + (5 + 48) * 25
    units = given.units(given.validation)
    answer = fitted.model.predict(Batch({"a": given.images["a"][units.rows]}, starts=units.starts), 5)
    right = 100 * np.mean(answer.classes[:, 0] == given.targets[units.first])
    assert right == pytest.approx(fitted.history[fitted.best]["validation_accuracy"])
    assert right > 50
    (tmp_path / "m").mkdir()
    Trained(Card(family="geocell_classifier", needs=chosen.needs(), fingerprints={"a": "1"}), fitted.model).save(
        tmp_path / "m"
    )
    again = load(tmp_path / "m").model.predict(Batch({"a": given.images["a"][units.rows]}, starts=units.starts), 5)
    np.testing.assert_array_equal(answer.probabilities, again.probabilities)


@pytest.mark.slow
@pytest.mark.parametrize("budget", [None, 40_000], ids=["held", "made again in each epoch"])
def test_a_last_block_on_live_photos_becomes_what_it_becomes_on_kept_tokens(tmp_path, vit, monkeypatch, budget):
    kind, folder = vit
    n = 24
    given = lesson(n=n, views=2, noise=0.1)
    rng = np.random.default_rng(0)
    shades = np.clip(40 * given.targets[:, None, None, None] + rng.normal(0, 30, (2 * n, 32, 32, 3)), 0, 255)
    encoded = [png(pixels) for pixels in shades.astype(np.uint8)]
    with ShardWriter(tmp_path / "corpus") as shards:
        for number, photo in enumerate(encoded):
            shards.add(f"p{number}", photo, f"{number}.png")
    tokens = encoders.load(kind, folder)(encoded).astype(np.float16)
    towers = {"a": Tower(kind, folder)}
    if budget:
        monkeypatch.setattr("geoloc_core.training.features._room", lambda device: budget)
    found = {}
    for live in (False, True):
        chosen = options(
            epochs=2, lr=0.01, encoder=LastBlock(last_block="a", live=live), smoothing=Smoothing(), tasks=Tasks()
        )
        reads = {"images": {}, "photos": Stored.all_of(tmp_path / "corpus")} if live else {"images": {"a": tokens}}
        (tmp_path / str(live)).mkdir()
        fitted = fit(replace(given, towers=towers, **reads), chosen, run(tmp_path / str(live)))
        kept = tmp_path / str(live) / "model"
        kept.mkdir()
        Trained(Card(family="geocell_classifier", needs=chosen.needs(), fingerprints={"a": "1"}), fitted.model).save(
            kept
        )
        asked = Batch(photos=encoded) if live else Batch({"a": tokens})
        starts = np.arange(0, 2 * n + 1, 2)
        found[live] = fitted.history, load(kept).model.predict(replace(asked, starts=starts), 5)
    strip = [
        [{k: v for k, v in epoch.items() if "second" not in k} for epoch in found[live][0]] for live in (False, True)
    ]
    for one, other in zip(*strip, strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    np.testing.assert_allclose(found[True][1].probabilities, found[False][1].probabilities, atol=2e-4)
    for name, values in found[False][1].auxiliary.items():
        np.testing.assert_allclose(found[True][1].auxiliary[name], values, rtol=2e-3)


def png(pixels):
    kept = io.BytesIO()
    Image.fromarray(pixels).save(kept, "PNG")
    return kept.getvalue()


def test_what_it_needs_follows_from_its_options():
    live = options(encoder=LastBlock(last_block="t", live=True)).needs()
    assert (live.encoders, live.encoded, live.photos, live.towers) == ([], [], True, ["t"])
    needs = options(encoder=LastBlock(last_block="t"), tasks=Tasks(facts=("month", "climate"))).needs()
    assert (needs.encoders, needs.towers, needs.facts, needs.unit) == (["t"], ["t"], ["month", "climate"], "place")
    plain = options().needs()
    assert (plain.encoders, plain.towers, plain.facts) == (["a"], [], [])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tasks": {"facts": ["soil"]}}, r"tasks\.facts\.0"),
        ({"tasks": {"facts": []}}, r"tasks\.facts"),
        ({"tasks": {"facts": ["month", "month"]}}, "'month' is there twice"),
        ({"smoothing": {"tau_km": 0}}, r"smoothing\.tau_km"),
        ({"smoothing": {"reference": "far"}}, r"smoothing\.reference"),
        ({"views": "two"}, "views"),
        ({"encoder": {"last": "t"}}, "encoder"),
        ({"recipe": Recipe(optimiser=AdamW(lr=1, rates={"trunk": 1.0}))}, "optimiser.rates.trunk: expected one of"),
    ],
)
def test_wrong_options_are_named(change, says):
    with pytest.raises(ValidationError, match=says):
        options(**change)
