"""Units: every photo is in one, and those of a place are together, in the order of their headings."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoloc_core.contracts.batch import Batch, Pieces, Units
from geoloc_core.contracts.prediction import Prediction
from geoloc_core.geo.labelspace import LabelSpace

PHOTOS = st.lists(
    st.tuples(st.sampled_from([None, "a", "b", "c"]), st.sampled_from([0.0, 90.0, 270.0, np.nan])), max_size=25
)


def places(photos):
    rows = np.arange(len(photos)) * 3 + 1
    ids = np.array([place for place, _ in photos], dtype=object)
    return rows, Units.of_places(rows, ids, np.array([heading for _, heading in photos], np.float64))


@given(PHOTOS)
def test_a_place_is_all_its_photos_by_heading_and_a_photo_alone_is_one(photos):
    rows, units = places(photos)
    found = [units.rows[start:end].tolist() for start, end in zip(units.starts, units.starts[1:], strict=False)]
    expected: dict[object, list[tuple[float, int]]] = {}
    for row, (place, heading) in zip(rows.tolist(), photos, strict=True):
        last = np.inf if np.isnan(heading) else heading
        expected.setdefault(place or row, []).append((last, row))
    assert found == [[row for _, row in sorted(unit)] for unit in expected.values()]
    assert units.first.tolist() == [min(unit) for unit in found]
    assert (np.diff(units.first) > 0).all()


@given(PHOTOS, st.randoms(use_true_random=False))
def test_some_of_them_are_the_same_units(photos, random):
    _, units = places(photos)
    some = np.array(random.sample(range(len(units)), random.randint(0, len(units))), np.int64)
    taken = units.take(some)
    assert len(taken) == len(some)
    for at, unit in enumerate(some):
        mine = taken.rows[taken.starts[at] : taken.starts[at + 1]]
        np.testing.assert_array_equal(mine, units.rows[units.starts[unit] : units.starts[unit + 1]])


def test_photos_are_units_of_one():
    units = Units.of_photos(np.array([2, 5, 7]))
    assert (len(units), units.first.tolist(), units.take(np.array([2, 0])).rows.tolist()) == (3, [2, 5, 7], [7, 2])


def test_a_batch_counts_places_where_it_has_them():
    features = {"net": np.zeros((5, 2))}
    assert len(Batch(features)) == 5
    assert len(Batch(features, starts=np.array([0, 4, 5]))) == 2
    assert len(Batch()) == 0


@given(PHOTOS, st.integers(1, 4))
def test_units_as_a_table_repeat_their_last_photo(photos, most):
    _, units = places(photos)
    at, counts = units.padded(most)
    for unit, (start, end) in enumerate(zip(units.starts, units.starts[1:], strict=False)):
        mine = list(range(start, min(end, start + most)))
        assert counts[unit] == len(mine)
        assert at[unit].tolist() == mine + [mine[-1]] * (at.shape[1] - len(mine))
    assert at.shape == (len(units), counts.max(initial=1))


def test_some_photos_of_a_batch_keep_all_that_is_known_of_them():
    space = LabelSpace(
        "country", ["FRA", "KEN"], ["France", "Kenya"], ["", ""], np.array([46.0, 0.5]), np.array([2.0, 38])
    )
    answers = Prediction.of_probabilities(np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]), space, 2)
    names, groups = np.array(["car", "tree", "road"], object), np.array(["vehicles", None, "ground"], object)
    scores, areas = np.array([0.5, 0.6, 0.7], np.float32), np.array([4, 5, 6], np.int32)
    pieces = Pieces(np.array([0, 1, 1, 3]), names, groups, scores, areas, [b"a", b"b", b"c"])
    whole = Batch(
        images={"clip": np.arange(6).reshape(3, 2)}, answers={"other": answers}, photos=[b"0", b"1", b"2"],
        pieces={"cut": pieces}, groups=np.array([7, 8, 9]),
    )  # fmt: skip
    some = whole.rows(np.array([2, 0]))
    assert len(some) == 2
    assert some.images["clip"].tolist() == [[4, 5], [0, 1]]
    assert some.answers["other"].probabilities[:, 0].tolist() == pytest.approx([0.6, 0.9])
    assert some.photos == [b"2", b"0"]
    assert some.pieces["cut"].starts.tolist() == [0, 2, 3]
    assert some.pieces["cut"].pictures == [b"b", b"c", b"a"]
    assert some.groups.tolist() == [9, 7]
    bare = Batch(images=whole.images).rows(np.array([1]))
    assert (bare.answers, bare.photos, bare.pieces, bare.groups) == ({}, None, {}, None)
