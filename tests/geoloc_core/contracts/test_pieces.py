"""Pieces of photos: which belong to which, whatever is taken of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoloc_core.contracts.batch import Batch, Pieces
from geoloc_core.contracts.needs import ImageFeatures, Model, Needs, Photos, Tower
from geoloc_core.contracts.needs import Pieces as NeedsPieces


def pieces_of(counts):
    """So many pieces of each photo; each says which it is."""
    names = [f"{photo}-{number}" for photo, count in enumerate(counts) for number in range(count)]
    total = len(names)
    return Pieces(
        np.concatenate([[0], np.cumsum(np.array(counts, int))]),
        np.array(names, dtype=object),
        np.array(["ground", None, "vehicles"], dtype=object)[np.arange(total) % 3],
        np.linspace(0, 1, total),
        np.arange(total),
        [name.encode() for name in names],
    )


def by_photo(pieces):
    return [
        [piece.decode() for piece in pieces.pictures[first:last]]
        for first, last in zip(pieces.starts, pieces.starts[1:], strict=False)
    ]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=8), st.data())
def test_taking_photos_takes_their_pieces_in_order(counts, data):
    pieces = pieces_of(counts)
    wanted = data.draw(st.lists(st.integers(0, len(counts) - 1), max_size=6))
    taken = pieces.of(np.array(wanted, int))
    assert by_photo(taken) == [by_photo(pieces)[photo] for photo in wanted]
    assert [f"{name}".encode() for name in taken.classes] == list(taken.pictures)
    assert taken.areas.tolist() == [pieces.classes.tolist().index(name) for name in taken.classes]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=8))
def test_keeping_some_pieces_keeps_all_photos(counts):
    pieces = pieces_of(counts)
    kept = pieces.only(pieces.groups == "vehicles")
    expected = [
        [name for name in of_photo if pieces.groups[pieces.classes.tolist().index(name)] == "vehicles"]
        for of_photo in by_photo(pieces)
    ]
    assert by_photo(kept) == expected
    assert kept.photos.tolist() == [photo for photo, names in enumerate(expected) for _ in names]


def test_a_batch_is_as_long_as_its_photos_with_or_without_pieces():
    assert len(Batch(pieces={"cut": pieces_of([0, 2, 0])})) == 3
    assert len(Batch(photos=[b"a", b"b"])) == 2
    some = Batch(photos=[b"a", b"b", b"c"], pieces={"cut": pieces_of([0, 2, 1])}).rows(np.array([2, 0]))
    assert some.photos == [b"c", b"a"]
    assert by_photo(some.pieces["cut"]) == [["2-0"], []]


def test_needs_tell_what_is_to_be_encoded_and_what_is_only_read():
    needs = Needs(
        inputs=(
            ImageFeatures(encoder="clip"),
            Photos(),
            NeedsPieces(encoder="cut"),
            Tower(encoder="vit"),
            Model(variant="a"),
        ),
        labels="country",
    )
    assert needs.encoders == ["clip"]
    assert needs.encoded == ["clip", "cut"]
    assert (needs.photos, needs.towers, needs.models, needs.members) == (True, ["vit"], ["a"], [])
    assert Needs.model_validate_json(needs.model_dump_json()) == needs
    with pytest.raises(ValueError, match="kind"):
        Needs.model_validate({"inputs": [{"kind": "photo"}], "labels": "country"})
