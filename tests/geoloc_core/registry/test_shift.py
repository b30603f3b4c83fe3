"""Drift of features and of answers: as sure as it says, of photos that come in groups."""

import numpy as np
import pyarrow as pa
import pytest

from geoloc_core.errors import UserError
from geoloc_core.params.schema import Limits
from geoloc_core.registry import shift
from geoloc_core.registry.shift import energy, jensen_shannon, of_answers, one_of_each, shares


def photos(luck, groups, moved=0.0, dims=6):
    """Features of groups of very unequal sizes whose photos look much alike, and the group of each."""
    sizes = luck.integers(1, 30, groups)
    middles = luck.normal(size=(groups, dims)) + moved
    of = np.repeat(np.arange(groups), sizes)
    return middles[of] + 0.2 * luck.normal(size=(len(of), dims)), of


def sampled(luck, groups, moved=0.0):
    features, of = photos(luck, groups, moved)
    ids = [f"{luck.integers(1 << 60)}" for _ in of]
    return features[one_of_each([f"g{group}" for group in of], ids)]


def literal_energy(x, y):
    """Equation by equation."""

    def mean(a, b, same):
        pairs = [np.linalg.norm(one - other) for i, one in enumerate(a) for j, other in enumerate(b)
                 if not (same and i == j)]  # fmt: skip
        return np.mean(pairs)

    both = np.concatenate([x, y])
    x, y = ((part - both.mean(axis=0)) / both.std(axis=0) for part in (x, y))
    across = 2 * mean(x, y, False)
    return (across - mean(x, x, True) - mean(y, y, True)) / across


def test_the_coefficients_are_those_of_the_papers():
    luck = np.random.default_rng(1)
    x, y = luck.normal(size=(9, 3)), luck.normal(0.5, 2, size=(7, 3))
    assert energy(x, y).size == pytest.approx(literal_energy(x, y))
    p, q = np.array([0.5, 0.5, 0]), np.array([0.25, 0.25, 0.5])
    middle = (p + q) / 2
    expected = sum(0.5 * a[a > 0] @ np.log2(a[a > 0] / middle[a > 0]) for a in (p, q))
    assert jensen_shannon(p, q) == pytest.approx(expected)
    assert jensen_shannon(np.array([1.0, 0]), np.array([0, 1.0])) == pytest.approx(1)
    constant = np.ones((30, 2))
    assert energy(constant, constant).chance == 1.0


@pytest.mark.slow
def test_of_unmoved_groups_as_many_are_called_moved_as_is_said_and_of_moved_ones_nearly_all():
    luck = np.random.default_rng(2)
    chances = np.array([energy(sampled(luck, 30), sampled(luck, 40)).chance for _ in range(80)])
    assert (chances <= 0.1).mean() <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / 80)
    assert (chances <= 0.5).mean() >= 0.5 - 3 * np.sqrt(0.25 / 80), "nor is it deaf"
    moved = [energy(sampled(luck, 30), sampled(luck, 40, 1.5)) for _ in range(10)]
    assert all(found.chance <= 0.01 and found.size > 0.05 for found in moved)
    alike = [energy(*(photos(luck, 20)[0][:200] for _ in "ab")).chance for _ in range(6)]
    assert np.mean(np.array(alike) <= 0.1) > 0.5, "photos as if each stood alone: what this is not"


def counts(luck, groups, chances):
    """(G, C) answers: those of a group are mostly the same."""
    said = np.zeros((groups, len(chances)))
    said[np.arange(groups), luck.choice(len(chances), groups, p=chances)] = luck.integers(1, 20, groups)
    return said


def test_unmoved_answers_are_rarely_called_moved_and_moved_ones_are():
    luck = np.random.default_rng(3)
    chances = [0.4, 0.3, 0.2, 0.1]
    found = np.array([shares(counts(luck, 60, chances), counts(luck, 80, chances)).chance for _ in range(80)])
    assert (found <= 0.1).mean() <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / 80)
    assert (found <= 0.5).mean() >= 0.3
    moved = shares(counts(luck, 100, chances), counts(luck, 100, chances[::-1]))
    assert moved.chance <= 0.01
    assert moved.size > 0.05


def test_one_photo_of_each_group_and_the_same_again():
    groups, ids = ["a", "a", "b", None, "b", None], list("uvwxyz")
    rows = one_of_each(groups, ids)
    assert sorted(str(groups[row]) for row in rows) == ["None", "None", "a", "b"]
    again = one_of_each([*groups, "c"], [*ids, "t"])
    assert [ids[row] for row in rows] == [[*ids, "t"][row] for row in again if row < 6], "whatever else is new"
    many = one_of_each([f"g{i}" for i in range(3000)], [f"p{i}" for i in range(3000)])
    assert len(many) == shift.GROUPS


def answers(countries, photos=2):
    return pa.table({"country": countries * photos, "group_id": [f"g{i}" for i in range(len(countries))] * photos})


def test_the_countries_that_moved_are_named():
    then, now = answers(["FRA"] * 40 + ["KEN"] * 20), answers(["FRA"] * 20 + ["KEN"] * 20 + [None] * 20)
    (found,) = of_answers(now, then, "validation", Limits())
    assert found.warns
    assert found.what == "answers to validation"
    assert found.told == "FRA 66.7% → 33.3%, no country 0.0% → 33.3%, KEN 33.3% → 33.3%"
    (same,) = of_answers(then, then, "validation", Limits())
    assert (same.size, same.warns) == (0, False)
    assert list(of_answers(answers(["FRA"] * 19), then, "validation", Limits())) == [], "too few groups to tell"


def test_what_is_kept_comes_back_and_half_of_it_is_one_clear_line(tmp_path):
    kept = {"clip": np.ones((3, 2), np.float32), "made by clip": np.array("abc")}
    path = shift.write(kept, tmp_path)
    found = shift.read(path)
    assert str(found["made by clip"]) == "abc"
    assert np.array_equal(found["clip"], kept["clip"])
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="not the features of a training set"):
        shift.read(path)
