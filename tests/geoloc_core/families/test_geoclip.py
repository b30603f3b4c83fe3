"""GeoCLIP: its equations, its gallery, and what it learns."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from geoloc_core.contracts.batch import Batch
from geoloc_core.errors import UserError
from geoloc_core.families import geoclip as family
from geoloc_core.families.geoclip import Options, fit, gallery, kernels, load, network
from geoloc_core.families.geoclip.gallery import LEAST, NOWHERE, Gallery
from geoloc_core.files import sha256_of
from geoloc_core.geo import sphere
from geoloc_core.training import calibration, loop

from . import made_lessons
from .made_models import geoclip, space

SIZES = network.Sizes((7,), (0.5, 2.0), 5, (6, 4), 3)
DEGREES = st.tuples(st.floats(-90, 90), st.floats(-180, 180))


def doubles(module):
    return {name: tensor.double().numpy() for name, tensor in module.state_dict().items()}


def projected(latitude, longitude):
    """Šavrič et al. 2018, equation 12, scaled as the released code does."""
    a1, a2, a3, a4 = 1.340264, -0.081106, 0.000893, 0.003796
    phi, lam = np.radians(latitude), np.radians(longitude)
    theta = np.arcsin(np.sqrt(3) / 2 * np.sin(phi))
    x = 2 * np.sqrt(3) * lam * np.cos(theta) / (3 * (9 * a4 * theta**8 + 7 * a3 * theta**6 + 3 * a2 * theta**2 + a1))
    y = a4 * theta**9 + a3 * theta**7 + a2 * theta**3 + a1 * theta
    return np.array([x, y]) * 66.50336 / 180


def layers(state, start, x):
    last = max(int(name.split(".")[-2]) for name in state if name.startswith(start))
    for number in range(0, last + 1, 2):
        x = state[f"{start}{number}.weight"] @ x + state[f"{start}{number}.bias"]
        x = np.maximum(x, 0) if number < last else x
    return x


def encoded(state, latitude, longitude, capsules=2):
    """A location's embedding: each capsule's random Fourier features through its layers, all added up."""
    total = 0
    for number in range(capsules):
        phase = 2 * np.pi * state[f"location.capsules.{number}.frequencies"] @ projected(latitude, longitude)
        features = np.concatenate([np.cos(phase), np.sin(phase)])
        total = total + layers(state, f"location.capsules.{number}.layers.", features)
    return total / np.linalg.norm(total)


def made(queue=None):
    torch.manual_seed(7)
    return network.network(4, SIZES, torch.zeros(0, 2) if queue is None else queue)


POINTS = np.array([[48.9, 2.3], [-33.9, 151.2], [0.0, 0.0], [89.9, -179.9], [-90.0, 180.0], [-1.3, 36.8]])


@given(st.lists(DEGREES, min_size=1, max_size=20))
def test_the_projection_is_equal_earth(points):
    found = network.equal_earth(torch.tensor(points, dtype=torch.float32)).numpy()
    np.testing.assert_allclose(found, [projected(*point) for point in points], atol=1e-6)


def test_places_and_photos_are_embedded_as_written_down():
    net, rng = made(), np.random.default_rng(0)
    state = doubles(net)
    with torch.no_grad():
        places = net.points(torch.from_numpy(POINTS.astype(np.float32))).numpy()
        features = rng.normal(size=(5, 4)).astype(np.float32)
        photos = net.images(torch.from_numpy(features)).numpy()
    np.testing.assert_allclose(places, [encoded(state, *point) for point in POINTS], atol=1e-5)
    plain = [layers(state, "head.", row) for row in features.astype(np.float64)]
    np.testing.assert_allclose(photos, [row / np.linalg.norm(row) for row in plain], atol=1e-6)
    assert net.logit_scale.item() == pytest.approx(np.log(1 / 0.07))


def test_the_loss_is_to_find_the_own_place_among_batch_and_queue():
    queue = torch.tensor([[10.0, 20.0], [-5.0, 100.0], [60.0, -120.0]])
    net, rng = made(queue), np.random.default_rng(1)
    features = rng.normal(size=(4, 4)).astype(np.float32)
    state = doubles(net)
    candidates = [encoded(state, *point) for point in (*POINTS[:4], *queue.numpy().astype(np.float64))]
    total = 0.0
    for number, row in enumerate(features.astype(np.float64)):
        photo = layers(state, "head.", row)
        logits = [np.exp(state["logit_scale"]) * place @ photo / np.linalg.norm(photo) for place in candidates]
        total -= np.log(np.exp(logits[number]) / np.exp(logits).sum())
    points = torch.from_numpy(POINTS[:4].astype(np.float32))
    found = network.loss_of(net, torch.from_numpy(features), points, (0.0, 0.0))
    assert found.item() == pytest.approx(total / 4, abs=1e-5)
    np.testing.assert_array_equal(net.queue, points[1:], "the batch takes the place of what was in the queue")
    found.backward()
    assert net.location.capsules[0].layers[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("noise_m", [(0.0, 9e5), (9e5, 0.0)])
def test_points_of_the_batch_and_of_the_queue_have_noise_of_their_own(noise_m):
    queue, points = (torch.from_numpy(some.astype(np.float32)) for some in (POINTS[4:], POINTS[:4]))
    net, features = made(queue), torch.randn(4, 4)
    for seed in (1, 2):
        torch.manual_seed(seed)
        candidates = torch.cat([network.moved(points, noise_m[0]), network.moved(net.queue, noise_m[1])])
        with torch.no_grad():
            logits = net.logit_scale.exp() * net.images(features) @ net.points(candidates).T
            expected = torch.nn.functional.cross_entropy(logits, torch.arange(4)).item()
            torch.manual_seed(seed)
            found = network.loss_of(net, features, points, noise_m).item()
        assert found == pytest.approx(expected, rel=1e-5)
        net.queue.copy_(queue)


def test_the_queue_forgets_the_oldest_points_first():
    net = made(torch.arange(10.0).reshape(5, 2))
    first, second = torch.full((3, 2), 50.0), torch.full((3, 2), 60.0)
    net.enqueue(first)
    assert net.queue[:, 0].tolist() == [50, 50, 50, 6, 8]
    net.enqueue(second)
    assert net.queue[:, 0].tolist() == [60, 50, 50, 60, 60]
    net.enqueue(torch.arange(70.0, 84.0).reshape(7, 2))
    assert sorted(net.queue[:, 0].tolist()) == [74, 76, 78, 80, 82], "of a batch larger than it the last ones"
    net.enqueue(torch.full((1, 2), 90.0))
    assert sorted(net.queue[:, 0].tolist()) == [76, 78, 80, 82, 90]


@given(st.lists(DEGREES, min_size=1, max_size=9), st.floats(0, 1e6))
def test_noise_leaves_points_on_the_earth(points, metres):
    found = network.moved(torch.tensor(points, dtype=torch.float32), metres).numpy()
    assert np.isfinite(found).all()
    assert (np.abs(found) <= [90, 180]).all()


@pytest.mark.parametrize("latitude", [0.0, 60.0])
def test_noise_is_so_many_metres_north_and_east(latitude):
    torch.manual_seed(0)
    points = torch.tensor([[latitude, 30.0]]).expand(20_000, 2)
    found = network.moved(points, 1000.0).double().numpy()
    north, east = (found - [latitude, 30]).T * np.radians(1) * sphere.EARTH_KM * np.array([[1], [1]])
    assert np.std(north) == pytest.approx(1.0, rel=0.03)
    assert np.std(east * np.cos(np.radians(latitude))) == pytest.approx(1.0, rel=0.03)
    assert np.corrcoef(north, east)[0, 1] == pytest.approx(0, abs=0.03), "each has a draw of its own"
    assert network.moved(points, 0.0) is points


def test_a_degree_is_so_many_metres_and_a_metre_at_a_pole_is_no_more_degrees_than_6_km_from_it():
    degree = network.METRES
    assert degree == pytest.approx(6371e3 * 2 * np.pi / 360, rel=1e-9)
    found = {}
    for latitude in (89.9999, 90 - np.degrees(6.371 / 6371)):
        torch.manual_seed(0)
        found[latitude] = network.moved(torch.tensor([[latitude, 0.0]]).expand(2000, 2), 1.0).double().numpy()[:, 1]
    assert [np.std(east) for east in found.values()] == pytest.approx([1 / degree / 1e-3] * 2, rel=0.05)


def test_points_are_embedded_block_by_block_as_all_at_once(monkeypatch):
    net = made()
    whole = network.embed(net, *POINTS.T)
    monkeypatch.setattr(network, "BLOCK", 4)
    np.testing.assert_allclose(network.embed(net, *POINTS.T), whole, atol=1e-6)


@pytest.mark.parametrize(("among", "count"), [(7, 17), (7, 7), (7, 3), (7, 0)])
def test_points_are_drawn_each_once_before_any_comes_twice(among, count):
    found = network.drawn(among, count, (5, 0))
    assert len(found) == count
    for start in range(0, count, among):
        part = found[start : start + among]
        assert len(set(part)) == len(part)
        assert set(part) <= set(range(among))
    np.testing.assert_array_equal(found, network.drawn(among, count, (5, 0)))
    if count > 3:
        assert (found != network.drawn(among, count, (5, 1))).any()


def unit(rng, rows, dim=6):
    found = rng.normal(size=(rows, dim)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def built(seed=0, m=500, c=5, absent=(), precision="float32", copies=0):
    """A gallery of points in the order of their classes, some of which look the same."""
    rng = np.random.default_rng(seed)
    latitudes, longitudes = rng.uniform(-90, 90, m), rng.uniform(-180, 180, m)
    vectors = unit(rng, m)
    if copies:
        vectors[rng.integers(0, m, copies)] = vectors[0]
    table = dict(zip(zip(latitudes, longitudes, strict=True), vectors, strict=True))
    classes = rng.choice(np.setdiff1d(np.arange(c), absent), m)

    def embed(lat, lon):
        return np.array([table[pair] for pair in zip(lat, lon, strict=True)])

    return Gallery.build(embed, latitudes, longitudes, classes, c, precision)


def by_hand(places, images):
    """The best point of each class, compared one by one."""
    cosines = np.full((len(images), len(places.counts)), LEAST)
    points = np.full(cosines.shape, NOWHERE)
    scores = images @ np.asarray(places.embeddings, np.float32).T
    for row in range(len(images)):
        for c in range(len(places.counts)):
            own = range(places.classes[c], places.classes[c + 1])
            if len(own):
                points[row, c] = max(own, key=lambda point: scores[row, point])
                cosines[row, c] = scores[row, points[row, c]]
    return cosines, points


@settings(max_examples=25)
@given(
    seed=st.integers(0, 99),
    m=st.integers(1, 900),
    rows=st.integers(0, 5),
    precision=st.sampled_from(["float32", "float16"]),
    leaf=st.integers(1, 60),
    copies=st.sampled_from([0, 9, 10**4]),
    whole=st.booleans(),
    probes=st.sampled_from([1, 3, 10**6]),
)
def test_the_best_point_of_each_class(seed, m, rows, precision, leaf, copies, whole, probes):
    """By comparing all of them, and by looking into all leaves, since each is expected to hold the best."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gallery, "LEAF", leaf)
        patch.setattr(gallery, "BLOCK", 700)
        patch.setattr(gallery, "SPREADS", 1e6)
        places = built(seed, m, 5, (1,), precision, copies)
        images = unit(np.random.default_rng(seed + 1), rows)
        cosines, points = places.best(images, exact=m if whole else 0, probes=probes, most=10**6)
    expected, best = by_hand(places, images)
    np.testing.assert_allclose(cosines, expected, atol=2e-6)
    np.testing.assert_array_equal(points == NOWHERE, best == NOWHERE)
    there = points != NOWHERE
    rows_of = np.nonzero(there)[0]
    chosen = np.asarray(places.embeddings, np.float32)
    theirs = (chosen[points[there]] * images[rows_of]).sum(axis=1)
    np.testing.assert_allclose(theirs, expected[there], atol=2e-6)


@pytest.mark.parametrize("exact", [0, 300])
def test_of_places_that_look_the_same_the_first_is_taken(exact):
    places = built(m=300, c=1, copies=10**4)
    same = replace(places, means=places.means * np.float32(1 - 1e-6))  # so that no rounding is taken for a better place
    cosines, points = same.best(unit(np.random.default_rng(3), 4), exact)
    assert (points == 0).all()
    assert (cosines < 0).any(), "of places that are unlike too"


@given(
    st.lists(st.lists(st.floats(-1, 1, width=16), min_size=3, max_size=3), min_size=1, max_size=9),
    st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3),
    st.sampled_from([np.float16, np.float32]),
)
def test_cosines_of_scattered_places(rows, image, dtype):
    embeddings, photo = np.array(rows, dtype), np.array(image, np.float32)
    embeddings.flags.writeable = False
    points = np.arange(len(rows))[::-1]
    expected = embeddings.astype(np.float64)[::-1] @ photo.astype(np.float64)
    np.testing.assert_allclose(kernels.cosines(embeddings, points, photo), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("least", [2.0**-24, 2.0**-14, 0.0, -0.0, -1.0])
def test_half_precision_is_read_to_the_last_bit(least):
    rows = np.full((1, 1), least, np.float16)
    (found,) = kernels.cosines(rows, np.zeros(1, np.int64), np.ones(1, np.float32))
    assert found == least


def smooth(count=20_000, dim=16):
    """Places that are alike where they are near each other, as those of a location encoder are, and how they look."""
    rng = np.random.default_rng(5)
    latitudes, longitudes = rng.uniform(-90, 90, count), rng.uniform(-180, 180, count)
    axes = rng.normal(size=(3, dim))

    def embed(lat, lon):
        found = np.tanh(sphere.unit_vectors(lat, lon) @ axes).astype(np.float32)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    places = Gallery.build(embed, latitudes, longitudes, rng.integers(0, 3, count), 3)
    return places, embed(rng.uniform(-90, 90, 300), rng.uniform(-180, 180, 300))


def found_by(places, images, **limits):
    """The share of photos whose best point of all is found."""
    (whole, best), (some, found) = places.best(images, exact=len(places)), places.best(images, exact=0, **limits)
    rows = np.arange(len(images))
    assert (some <= whole + 1e-6).all()
    assert (some > LEAST).all(), "a class whose leaves are not looked into counts by their means"
    return np.mean(best[rows, whole.argmax(1)] == found[rows, some.argmax(1)])


def test_few_leaves_find_nearly_always_the_best_point():
    places, images = smooth()
    assert found_by(places, images, probes=40, most=40) > 0.99


def test_more_leaves_are_looked_into_until_none_is_expected_to_hold_a_better_point():
    places, images = smooth()
    at_once = found_by(places, images, probes=1, most=1)
    assert at_once < 0.9
    assert found_by(places, images, probes=1) > max(0.99, at_once)
    assert found_by(places, images, probes=1, most=2) <= found_by(places, images, probes=1)


def test_few_leaves_are_looked_into_where_none_is_expected_to_hold_a_better_point(monkeypatch):
    places, images = smooth()
    looked, compare = [], kernels.cosines
    monkeypatch.setattr(kernels, "cosines", lambda *given: looked.append(len(given[1])) or compare(*given))
    for row in images[:40]:
        places.best(row[None], exact=0, probes=2)
    assert sum(looked) / (40 * len(places)) < 0.5


@given(st.lists(st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 2.0]), max_size=12), st.integers(-2, 15))
def test_the_greatest_come_first_and_nothing_is_none(values, count):
    found = gallery._greatest(np.array(values), count)
    real = [value for value in values if value > -np.inf]
    assert [values[at] for at in found] == sorted(real, reverse=True)[: max(count, 0)]
    assert len(set(found.tolist())) == len(found)


def test_photos_are_answered_alike_alone_and_side_by_side(monkeypatch):
    places, images = smooth(2000)
    together = places.best(images[:20], exact=0)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    for answers in (
        places.best(images[:20], exact=0),
        [np.concatenate(part) for part in zip(*(places.best(row[None], exact=0) for row in images[:20]), strict=True)],
    ):
        np.testing.assert_allclose(answers[0], together[0], atol=1e-6)
        np.testing.assert_array_equal(answers[1], together[1])


def test_leaves_are_small_and_of_one_class_and_no_place_is_twice():
    rng = np.random.default_rng(0)
    latitudes, longitudes = (np.repeat(rng.uniform(-80, 80, 900), 2) for _ in range(2))
    classes = np.repeat(rng.integers(0, 4, 900), 2)
    places = Gallery.build(lambda lat, lon: unit(rng, len(lat)), latitudes, longitudes, classes, 6)
    assert len(places) == 900 == places.counts.sum()
    assert places.counts.tolist()[4:] == [0, 0]
    sizes = np.diff(places.leaves)
    assert sizes.max() <= gallery.LEAF
    assert set(places.classes) <= set(places.leaves)
    known = {pair: c for *pair, c in zip(latitudes, longitudes, classes, strict=True) for pair in [tuple(pair)]}
    pairs = zip(places.latitudes, places.longitudes, strict=True)
    assert [known[pair] for pair in pairs] == np.repeat(np.arange(6), places.counts).tolist()
    parts = [places.embeddings[a:b] for a, b in zip(places.leaves, places.leaves[1:], strict=False)]
    np.testing.assert_allclose(places.means, [part.mean(axis=0) for part in parts], atol=1e-6)
    around = [np.sqrt(((part - part.mean(axis=0)) ** 2).sum(axis=1).mean()) for part in parts]
    np.testing.assert_allclose(places.spread, around, atol=1e-3)
    first = np.searchsorted(places.leaves, places.classes)
    assert places.of_leaf.tolist() == np.repeat(np.arange(6), np.diff(first)).tolist()
    for c in range(4):
        own = sizes[places.of_leaf == c]
        assert len(own) == np.ceil(places.counts[c] / gallery.LEAF)
        assert own.max() - own.min() <= 1


def test_a_loaded_gallery_stays_on_disk(tmp_path):
    places = built(absent=(2,))
    places.save(tmp_path / "g.safetensors")
    found = Gallery.load(tmp_path / "g.safetensors", places.counts, "again")
    assert isinstance(found.embeddings, np.memmap)
    images = unit(np.random.default_rng(3), 4)
    for ours, theirs in zip(places.best(images), found.best(images), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_class_of_one_place_is_a_leaf_of_its_own(tmp_path):
    rng = np.random.default_rng(0)
    classes = np.array([0, 0, 1, 2, 2, 2])
    places = Gallery.build(lambda lat, lon: unit(rng, len(lat)), np.arange(6.0), np.zeros(6), classes, 3)
    assert places.leaves.tolist() == [0, 2, 3, 6]
    places.save(tmp_path / "g.safetensors")
    assert Gallery.load(tmp_path / "g.safetensors", places.counts, "again").leaves.tolist() == [0, 2, 3, 6]


def test_a_gallery_of_one_place_is_read_again(tmp_path):
    one, rng = np.ones(1), np.random.default_rng(0)
    places = Gallery.build(lambda lat, lon: unit(rng, len(lat)), one, one, np.zeros(1, np.int64), 1)
    places.save(tmp_path / "g.safetensors")
    assert len(Gallery.load(tmp_path / "g.safetensors", places.counts, "again")) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        lambda leaves: np.r_[-5, 0, leaves[2:]],
        lambda leaves: np.r_[leaves[:-2], leaves[-1], leaves[-1] + 5],
        lambda leaves: np.r_[leaves[0], leaves[0], leaves[2:]],
        lambda leaves: np.r_[leaves[0], leaves[-2:0:-1], leaves[-1]],
    ],
    ids=["before the first", "behind the last", "an empty one", "turned"],
)
def test_leaves_that_are_not_of_the_points_are_refused(tmp_path, monkeypatch, wrong):
    monkeypatch.setattr(gallery, "LEAF", 60)
    places = built(c=1)
    replace(places, leaves=wrong(places.leaves)).save(tmp_path / "g.safetensors")
    with pytest.raises(UserError, match=r"500 points in 9 leaves; expected 500 points; again"):
        Gallery.load(tmp_path / "g.safetensors", places.counts, "again")


def test_a_gallery_without_points_is_refused(tmp_path):
    nothing = Gallery(*np.empty((2, 0)), np.empty((0, 3)), np.zeros(2, int), np.zeros(1, int), np.empty((0, 3)))
    nothing.save(tmp_path / "g.safetensors")
    with pytest.raises(UserError, match="0 points in 0 leaves"):
        Gallery.load(tmp_path / "g.safetensors", np.zeros(1, int), "again")


@pytest.mark.parametrize("wrong", ["counts", "leaves", "means", "longitudes", "embeddings", "latitudes"])
def test_a_gallery_whose_arrays_do_not_fit_is_refused(tmp_path, wrong):
    places = built()
    counts = places.counts
    if wrong == "counts":
        counts = np.roll(counts, 1)
    else:
        places = replace(places, **{wrong: getattr(places, wrong)[:-1]})
    places.save(tmp_path / "g.safetensors")
    with pytest.raises(UserError, match=r"expected [0-9]+ points; again"):
        Gallery.load(tmp_path / "g.safetensors", counts, "again")


def options(**changed):
    block = {
        "kind": "geoclip", "corpus": "c", "encoder": "a", "labels": "country", "hidden": [32], "dim": 16,
        "sigmas": [1.0, 16.0], "frequencies": 16, "capsule": [32], "queue": 16, "noise_m": [0, 0],
    }  # fmt: skip
    recipe = {"epochs": 6, "batch": 16, "optimiser": {"kind": "adam", "lr": 0.003}, "schedule": {"kind": "constant"}}
    recipe |= changed.pop("recipe", {})
    return Options.model_validate(block | {"recipe": recipe} | changed)


def lesson(n=120, classes=4, shown=1.0, seed=0, validation_share=0.25):
    """Photos that show where they were taken, a few hundred kilometres around a place of their country."""
    rng = np.random.default_rng(seed)
    targets = np.arange(n) % classes
    known = space(classes)
    latitudes = known.latitudes[targets] + rng.normal(0, 2, n)
    longitudes = known.longitudes[targets] + rng.normal(0, 2, n)
    seen = shown * sphere.unit_vectors(latitudes, longitudes) @ rng.normal(size=(3, 24))
    features = seen + rng.normal(0, 0.1, (n, 24))
    given = made_lessons.data(features, targets, classes, validation_share=validation_share)
    return replace(given, latitudes=latitudes, longitudes=longitudes)


def answers(fitted, given, rows, k=4):
    return fitted.model.predict(Batch({"a": given.images["a"][rows]}), k, given.targets[rows])


def errors(answer, given, rows):
    return sphere.haversine_km(answer.latitude, answer.longitude, given.latitudes[rows], given.longitudes[rows])


@pytest.mark.slow
def test_it_learns_64_photos_by_heart(tmp_path):
    given = lesson(64, shown=0.0)
    rows = np.arange(64)
    given = replace(given, training=rows, validation=rows)
    given.images["a"][:] = np.random.default_rng(1).normal(size=(64, 24))
    fitted = fit(given, options(queue=0, sigmas=[16, 128], recipe={"epochs": 150}), made_lessons.run(tmp_path))
    answer = answers(fitted, given, rows)
    assert np.mean(errors(answer, given, rows) == 0) > 0.95
    assert np.mean(answer.classes[:, 0] == given.targets) > 0.95


@pytest.mark.slow
def test_it_finds_where_new_photos_were_taken(tmp_path):
    given = lesson(400)
    fitted = fit(given, options(recipe={"epochs": 25}), made_lessons.run(tmp_path))
    rows = given.validation
    answer = answers(fitted, given, rows)
    far = errors(answer, given, rows)
    blind = sphere.haversine_km(0, 0, given.latitudes[rows], given.longitudes[rows])
    assert np.median(far) < 500 < np.median(blind)
    figures = fitted.figures
    assert figures["validation_within_750km"] == round(100 * np.mean(far <= 750), 2)
    assert figures["validation_median_km"] == pytest.approx(np.median(far), abs=0.1)
    assert figures["validation_accuracy"] == round(100 * np.mean(answer.truth.rank == 0), 2)
    assert figures["gallery"] == len(given.training)
    assert set(zip(answer.latitude, answer.longitude, strict=True)) <= set(
        zip(given.latitudes[given.training], given.longitudes[given.training], strict=True)
    )


def test_answers_are_ranked_classes_at_their_best_points(tmp_path):
    given = lesson()
    model = fit(given, options(recipe={"epochs": 1}), made_lessons.run(tmp_path)).model
    rows = given.validation
    answer = answers(replace_model(model), given, rows, 9)
    logits, points = model.logits(given.images["a"][rows])
    plain = np.exp(logits.astype(np.float64) / model.temperature)
    plain /= plain.sum(axis=1, keepdims=True)
    assert answer.classes.shape == (len(rows), 4), "more candidates than classes"
    for row in range(len(rows)):
        order = sorted(range(4), key=lambda c: -plain[row, c])
        assert answer.classes[row].tolist() == order
        np.testing.assert_allclose(answer.probabilities[row], plain[row, order], rtol=1e-4)
        assert answer.latitudes[row].tolist() == model.gallery.latitudes[points[row, order]].tolist()
        assert answer.longitudes[row].tolist() == model.gallery.longitudes[points[row, order]].tolist()
    np.testing.assert_array_equal(answer.latitude, answer.latitudes[:, 0])
    np.testing.assert_array_equal(answer.longitude, answer.longitudes[:, 0])


def replace_model(model):
    """What :func:`answers` asks, of a model alone."""
    return type("Holder", (), {"model": model})


def test_a_class_without_points_comes_last_at_its_own_place():
    model = geoclip().model
    empty = np.flatnonzero(model.gallery.counts == 0)
    assert len(empty) == 1
    features = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float16)
    answer = model.predict(Batch({"b": features}), 6)
    assert (answer.classes[:, -1] == empty[0]).all()
    assert (answer.latitudes[:, -1] == model.labelspace.latitudes[empty[0]]).all()
    assert model.predict(Batch({"b": features[:0]}), 6).classes.shape == (0, 6)


@pytest.mark.parametrize(("most", "every"), [(29, 2), (30, 1), (10, 3), (7, 5)])
def test_of_many_validation_photos_every_so_many_are_calibrated_on(tmp_path, monkeypatch, most, every):
    given, seen = lesson(), []
    assert len(given.validation) == 30
    calibrate = calibration.calibrate
    monkeypatch.setattr(family, "CALIBRATED", most)
    monkeypatch.setattr(calibration, "calibrate", lambda told, *rest: seen.extend(told) or calibrate(told, *rest))
    fit(given, options(recipe={"epochs": 1}), made_lessons.run(tmp_path))
    [(_, truth, _)] = seen
    assert truth.tolist() == given.targets[given.validation[::every]].tolist()


def test_one_country_is_always_right(tmp_path):
    given = lesson(40, 1)
    fitted = fit(given, options(recipe={"epochs": 2}), made_lessons.run(tmp_path))
    answer = answers(fitted, given, given.validation)
    assert answer.probabilities.tolist() == [[1.0]] * len(given.validation)
    assert fitted.figures["temperature"] == 1


@pytest.mark.slow
def test_the_epoch_with_the_most_photos_within_750_km_is_kept(tmp_path):
    given = lesson(400)
    recipe = {"epochs": 8, "optimiser": {"kind": "adam", "lr": 0.03}}
    fitted = fit(given, options(recipe=recipe), made_lessons.run(tmp_path))
    shares = [epoch["validation_within_750km"] for epoch in fitted.history]
    assert fitted.best == int(np.argmax(shares))
    assert {"loss", "validation_loss", "validation_accuracy", "lr"} <= fitted.history[0].keys()
    # of no more training points than the small gallery has, it is the whole one
    assert fitted.figures["validation_within_750km"] == pytest.approx(max(shares), abs=0.01)
    early = fit(given, options(recipe=recipe | {"stop_patience": 1}), made_lessons.run(tmp_path / "early"))
    first = next(n for n in range(1, 8) if shares[n] <= max(shares[:n]))
    assert len(early.history) == first + 1


def test_the_queue_begins_with_training_points(tmp_path, monkeypatch):
    given, seen = lesson(), []
    original = network.network
    monkeypatch.setattr(network, "network", lambda *made: seen.append(made[2]) or original(*made))
    fit(given, options(queue=200, recipe={"epochs": 1}), made_lessons.run(tmp_path))
    (queue,) = seen
    own = given.training
    points = np.stack((given.latitudes[own], given.longitudes[own]), axis=1)
    known = set(map(tuple, points.astype(np.float32).tolist()))
    found = list(map(tuple, queue.tolist()))
    assert len(found) == 200
    assert set(found) == known, "each of them, before any comes twice"


def test_photos_without_coordinates_are_left_out_and_counted(tmp_path):
    given = lesson()
    given.latitudes[[3, 7]] = np.nan
    given.longitudes[[3, 11, given.validation[2]]] = np.nan
    fitted = fit(given, options(recipe={"epochs": 2}), made_lessons.run(tmp_path))
    assert fitted.figures["without_coordinates"] == 3
    assert fitted.figures["gallery"] == len(given.training) - 3
    assert all(np.isfinite(list(epoch.values())).all() for epoch in fitted.history)


@pytest.mark.parametrize("of", ["training", "validation"])
def test_photos_that_all_lack_coordinates_are_refused(tmp_path, of):
    given = lesson()
    given.latitudes[getattr(given, of)] = np.nan
    with pytest.raises(UserError, match=f"none of the {of} photos has coordinates"):
        fit(given, options(), made_lessons.run(tmp_path))


@pytest.mark.parametrize("row", [3, 110])
def test_features_that_are_no_numbers_are_refused(tmp_path, row):
    given = lesson()
    given.images["a"][row, 5] = np.nan
    with pytest.raises(UserError, match=f"not finite numbers, the first those of row {row}"):
        fit(given, options(), made_lessons.run(tmp_path))


class KilledError(Exception):
    pass


@pytest.mark.slow
def test_a_killed_training_ends_like_an_uninterrupted_one(tmp_path, monkeypatch):
    """With noise and a queue that moves: its place survives too."""
    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0)
    monkeypatch.setattr(loop, "SAVING_SHARE", float("inf"))
    given = lesson()
    block = options(noise_m=[150, 1000], queue=50)

    def kill(metrics, step):
        if step == 3:
            raise KilledError

    folders = [tmp_path / name for name in ("whole", "killed", "again")]
    for folder in folders:
        folder.mkdir()
    whole = fit(given, block, made_lessons.run(folders[0]))
    with pytest.raises(KilledError):
        fit(given, block, made_lessons.run(folders[1], kill))
    resumed = fit(given, block, made_lessons.run(folders[1]))
    assert resumed.history == whole.history
    other = fit(given, block, made_lessons.run(folders[2], seed=6))
    assert other.history != whole.history
    for fitted, folder in zip((whole, resumed, other), folders, strict=True):
        fitted.model.save(folder)
    first, second, third = ([(f / name).read_bytes() for name in ("model.safetensors", "gallery.safetensors")]
                            for f in folders)  # fmt: skip
    assert first == second != third


def listed(path: Path, points, names=("LAT", "LON")) -> Path:
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([names, *points])
    return path


class Halves:
    """Cells: the south and the north, and nothing near the poles."""

    def __init__(self, known):
        self.space = known

    def assign(self, latitudes, longitudes):
        return np.where(np.abs(latitudes) > 85, -1, (latitudes > 0).astype(int))


def test_the_gallery_may_be_a_list_of_places(tmp_path):
    given = lesson(classes=2)
    given = replace(given, cells=Halves(given.space))
    points = [(-30.0, 10.0), (88.0, 0.0), (12.5, -7.25), (40.0, 20.0)]
    path = listed(tmp_path / "places.csv", points)
    table = {"path": "places.csv", "sha256": sha256_of(path)}
    run = replace(made_lessons.run(tmp_path), root=tmp_path)
    fitted = fit(given, options(gallery=table, recipe={"epochs": 1}), run)
    places = fitted.model.gallery
    assert sorted(zip(places.latitudes.tolist(), places.longitudes.tolist(), strict=True)) == sorted(points)
    assert places.counts.tolist() == [1, 3], "a place in no class takes that of the nearest training photo"
    assert fitted.figures["gallery_in_no_class"] == 1
    with pytest.raises(UserError, match=r"gallery\.sha256: missing; expected "):
        fit(given, options(gallery={"path": "places.csv"}), run)


@pytest.mark.parametrize(
    ("points", "names", "says"),
    [
        ([(1, 2), (91, 3)], ("LAT", "LON"), "column LAT, row 3: '91'; expected −90 … 90 degrees"),
        ([(1, 2), (3, "east")], ("LAT", "LON"), "column LON, row 3: 'east'; expected −180 … 180 degrees"),
        ([], ("LAT", "LON"), "no rows; expected the places of a gallery"),
        ([(1, 2)], ("x", "y"), "LAT"),
    ],
)
def test_a_list_of_places_that_is_wrong_is_refused(tmp_path, points, names, says):
    path = listed(tmp_path / "places.csv", points, names)
    block = options(gallery={"path": "places.csv", "sha256": sha256_of(path)}, recipe={"epochs": 1})
    with pytest.raises(UserError, match=says):
        fit(lesson(), block, replace(made_lessons.run(tmp_path), root=tmp_path))


def released(folder: Path, net) -> Path:
    """A network's weights in the released files."""
    folder.mkdir()
    torch.save(net.head.state_dict(), folder / network.HEAD)
    names = {}
    for name, tensor in net.location.state_dict().items():
        _, number, kind, *rest = name.split(".")
        if kind == "frequencies":
            names[f"LocEnc{number}.capsule.0.b"] = tensor
        else:
            layer = int(rest[0])
            part = "head.0" if layer == 6 else f"capsule.{layer + 1}"
            names[f"LocEnc{number}.{part}.{rest[1]}"] = tensor
    torch.save(names, folder / network.LOCATION)
    torch.save(net.logit_scale, folder / network.LOGIT_SCALE)
    return folder


@pytest.fixture
def weights(tmp_path):
    """Of a small network with as many layers as the published one."""
    torch.manual_seed(3)
    net = network.network(24, network.Sizes((32,), (1.0, 16.0), 16, (32, 32, 32), 16), torch.zeros(0, 2))
    torch.nn.init.constant_(net.logit_scale, 2.0)
    return net, released(tmp_path / "weights", net)


def answering(folder: Path, **changed):
    from geoloc_core.files import digest

    block = options().model_dump(exclude={"recipe", "queue", "noise_m", "validation_points"}) | {"capsule": (32,) * 3}
    return Options.model_validate(block | {"weights": {"path": folder.name, "sha256": digest(folder)}} | changed)


def test_released_weights_answer_without_training(tmp_path, weights):
    net, folder = weights
    given, run = lesson(), replace(made_lessons.run(tmp_path), root=tmp_path)
    fitted = fit(given, answering(folder), run)
    assert not fitted.history
    assert fitted.figures["trainable_parameters"] == 0
    model = fitted.model
    assert model.scale == pytest.approx(np.exp(2), rel=1e-6)
    with torch.no_grad():
        places = net.points(network.points_of(model.gallery.latitudes, model.gallery.longitudes).cpu())
        photos = net.images(torch.from_numpy(given.images["a"].astype(np.float32)))
    np.testing.assert_allclose(model.gallery.embeddings, places.numpy(), atol=1e-6)
    np.testing.assert_allclose(model.embed(given.images["a"]), photos.numpy(), atol=1e-6)


def test_other_weights_than_stated_are_refused(tmp_path, weights):
    _, folder = weights
    run = replace(made_lessons.run(tmp_path), root=tmp_path)
    stated = answering(folder)
    with pytest.raises(UserError, match="tensors of another shape"):
        fit(lesson(), answering(folder, dim=8), run)
    location = torch.load(folder / network.LOCATION, weights_only=True)
    torch.save(location | {"altitude": torch.zeros(1)}, folder / network.LOCATION)
    with pytest.raises(UserError, match="1 tensors unknown, such as altitude"):
        fit(lesson(), answering(folder), run)
    torch.save(location, folder / network.LOCATION)
    torch.save({"a": 1}, folder / network.LOGIT_SCALE)
    with pytest.raises(UserError, match=r"weights\.sha256: "):
        fit(lesson(), stated, run)
    with pytest.raises(UserError, match="a dict; expected a tensor"):
        fit(lesson(), answering(folder), run)
    (folder / network.LOCATION).unlink()
    with pytest.raises(UserError, match=f"{network.LOCATION}: no such file"):
        fit(lesson(), answering(folder), run)


def test_frequencies_are_by_default_as_published():
    """Vivanco Cepeda et al. 2023, section 3.2: σ from 2⁰ to 2⁸."""
    assert network.Sizes().sigmas == (1, 16, 256)


@pytest.mark.slow
def test_the_package_embeds_and_ranks_places_the_same():
    """The released weights, code and gallery of GeoCLIP."""
    package = pytest.importorskip("geoclip.model.location_encoder", reason="the package geoclip is not installed")
    folder = Path(package.__file__).parent
    net = network.network(768, network.Sizes(), torch.zeros(0, 2)).eval()
    network.fill_released(net, folder / "weights")
    listed = np.loadtxt(folder / "gps_gallery" / "coordinates_100K.csv", delimiter=",", skiprows=1, max_rows=1500)
    table = np.unique(listed, axis=0)
    points = torch.from_numpy(table.astype(np.float32))
    theirs = package.LocationEncoder().eval()
    features = torch.from_numpy(np.random.default_rng(0).normal(0, 0.4, (20, 768)).astype(np.float32))
    mlp = torch.nn.Sequential(torch.nn.Linear(768, 768), torch.nn.ReLU(), torch.nn.Linear(768, 512))
    mlp.load_state_dict(torch.load(folder / "weights" / network.HEAD, weights_only=True))
    with torch.inference_mode():
        embedded = theirs(points)
        np.testing.assert_allclose(net.location(points).numpy(), embedded.numpy(), atol=1e-5)
        unit_length = torch.nn.functional.normalize
        expected = (unit_length(mlp(features), dim=1) @ unit_length(embedded, dim=1).T).numpy()
    rows = np.arange(len(table))
    places = Gallery.build(lambda lat, lon: network.embed(net, lat, lon), *table.T, rows, len(rows))
    model = replace(geoclip().model, layers=network.heads.linear_layers(net.head), gallery=places)
    cosines, at = places.best(model.embed(features.numpy()))
    np.testing.assert_array_equal(at, np.broadcast_to(rows, at.shape))
    order = np.argsort(-cosines, axis=1, kind="stable")
    ranked = np.take_along_axis(expected, order, axis=1)
    assert (np.diff(ranked, axis=1) <= 1e-6).all()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"recipe": {"optimiser": {"kind": "adam", "lr": 1, "rates": {"trunk": 1}}}}, "rates.trunk: expected one of"),
        ({"weights": {"path": "w"}}, "recipe: nothing is trained with weights"),
        ({"sigmas": []}, "sigmas"),
        ({"noise_m": [-1, 0]}, "noise_m"),
        ({"precision": "int4"}, "precision"),
        ({"recipe": {"batch": 1}}, "batch"),
        ({"gallery": {"path": "x.csv", "sha256": "f00d"}}, "sha256"),
        ({"colour": "blue"}, "colour"),
    ],
)
def test_wrong_entries_are_refused(changed, says):
    with pytest.raises(ValidationError, match=says):
        options(**changed)


def test_it_is_trained_and_sized_as_published():
    block = Options(kind="geoclip", corpus="c", encoder="a", labels="country")
    assert block.sigmas == (1, 16, 256)
    assert (block.recipe.optimiser.lr, block.recipe.optimiser.weight_decay) == (3e-5, 1e-6)
    assert (block.recipe.schedule.gamma, block.recipe.schedule.every, block.recipe.batch) == (0.87, 1, 512)
    assert (block.queue, block.noise_m) == (4096, (150, 1000))


@pytest.mark.parametrize("counts", [np.array([-1, 1, 1, 1, 1, 1]), np.ones(6, np.float32)])
def test_counts_that_cannot_be_are_refused(tmp_path, counts):
    from safetensors.numpy import load_file, save_file

    trained = geoclip()
    trained.save(tmp_path)
    path = tmp_path / "model.safetensors"
    save_file({**load_file(path), "counts": counts}, path)
    with pytest.raises(UserError, match="counts: expected numbers of points; again"):
        load(tmp_path, trained.card.needs, space(), "again")
