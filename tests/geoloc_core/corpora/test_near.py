import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from geoloc_core.corpora import near

NUMBERS = st.integers(0, 2**64 - 1)


def brute(hashes: np.ndarray, distance: int) -> set[tuple[int, int]]:
    differ = np.bitwise_count(hashes[:, None] ^ hashes[None])
    return {(int(i), int(j)) for i, j in np.argwhere(differ <= distance) if i < j}


def found(search: near.Search) -> list[tuple[int, int]]:
    return [tuple(map(int, pair)) for block in search.pairs() for pair in block]


@st.composite
def crowds(draw) -> list[int]:
    """Hashes of which many are the same or a few bits from each other."""
    seeds = draw(st.lists(NUMBERS, min_size=1, max_size=6))
    flips = draw(st.lists(st.tuples(st.sampled_from(seeds), st.sets(st.integers(0, 63), max_size=7)), max_size=60))
    return seeds + [seed ^ sum(1 << bit for bit in bits) for seed, bits in flips]


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(crowds(), st.integers(0, near.MAX_DISTANCE))
@example([0, 2**64 - 1, 0, 1], 4)
def test_every_near_pair_is_found_once(hashes, distance):
    search = near.open_search(np.array(hashes, np.uint64), distance)
    pairs = found(search)
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == brute(np.unique(np.array(hashes, np.uint64)), distance)
    assert not search.crowded.any()


@pytest.mark.parametrize("block", [64, 1000])
def test_little_room_for_pairs_loses_none(monkeypatch, block):
    monkeypatch.setattr(near, "BLOCK", block)
    monkeypatch.setattr(near, "CROWD", 50)
    random = np.random.default_rng(0)
    centres = random.integers(0, 2**64, 100, np.uint64)
    hashes = np.concatenate([centres ^ np.uint64(1 << b) for b in range(12)] + [centres])
    search = near.open_search(hashes, 2)
    pairs = found(search)
    assert set(pairs) == brute(search.hashes, 2)
    assert len(pairs) == 100 * 13 * 12 // 2
    assert found(near.open_search(hashes[::-1], 2)) == pairs


@pytest.mark.parametrize("threads", [1, 3])
def test_the_order_does_not_hang_on_the_threads(monkeypatch, threads):
    hashes = np.random.default_rng(1).integers(0, 2**20, 3000, np.uint64)
    expected = found(near.open_search(hashes, 3))
    monkeypatch.setattr("os.cpu_count", lambda: threads)
    assert found(near.open_search(hashes, 3)) == expected
    assert len(expected) > 1000


@pytest.mark.slow
def test_only_pairs_of_crowded_hashes_can_be_missing(monkeypatch):
    monkeypatch.setattr(near, "CROWD", 100)
    random = np.random.default_rng(2)
    crowd = random.integers(0, 2**12, 2000, np.uint64)
    apart = random.integers(2**40, 2**64, 500, np.uint64)
    search = near.open_search(np.concatenate([crowd, apart, apart ^ np.uint64(1)]), 4)
    pairs = set(found(search))
    missing = brute(search.hashes, 4) - pairs
    assert missing
    assert all(search.crowded[i] and search.crowded[j] for i, j in missing)
    assert not search.crowded[search.hashes >= 2**40].any()
    assert pairs <= brute(search.hashes, 4)


def test_what_is_reached_is_what_is_near():
    search = near.open_search(np.array([0b0, 0b1, 0b11, 0b1111 << 40], np.uint64), 1)
    marks = np.array([1, 2, 4, 8], np.uint64)
    assert near.reach(search, marks).tolist() == [1 | 2, 1 | 2 | 4, 2 | 4, 8]


@pytest.mark.parametrize("distance", range(near.MAX_DISTANCE + 1))
def test_the_bands_share_out_the_bits(distance):
    masks = near.bands(distance).tolist()
    assert sum(masks) == 2**64 - 1
    assert len(masks) == distance + 2


def test_nothing_has_no_pairs_and_a_wide_distance_is_refused():
    assert found(near.open_search(np.array([], np.uint64), 4)) == []
    with pytest.raises(ValueError, match="expected 0 … 8 bits"):
        near.open_search([1], 9)
