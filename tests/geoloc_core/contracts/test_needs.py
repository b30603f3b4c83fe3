"""What a variant reads, in its order, and the same after it was written."""

import pytest
from pydantic import ValidationError

from geoloc_core.contracts.needs import Answers, ImageFeatures, Model, Needs, Photos, Pieces, TextFeatures, Tower

NEEDS = Needs(
    inputs=(ImageFeatures(encoder="b"), TextFeatures(encoder="t", texts="clues"), Answers(variant="v"),
            ImageFeatures(encoder="a")),
    labels="country",
)  # fmt: skip


def test_each_kind_is_told_in_the_order_of_the_inputs():
    assert (NEEDS.encoders, NEEDS.texts, NEEDS.members) == (["b", "a"], [("t", "clues")], ["v"])


def test_written_and_read_they_are_the_same():
    assert Needs.model_validate(NEEDS.model_dump(mode="json")) == NEEDS


@pytest.mark.parametrize("wrong", [{"kind": "sound"}, {"encoder": "a"}, {"kind": "image"}, {"kind": "answers", "x": 1}])
def test_an_input_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValidationError):
        Needs.model_validate({"inputs": [wrong], "labels": "country"})


def test_what_else_is_read_is_told_by_its_kind():
    needs = Needs(
        inputs=(Photos(), Pieces(encoder="cut"), Tower(encoder="v"), Model(variant="m"), ImageFeatures(encoder="a"),
                Model(variant="l")),
        labels="country",
    )  # fmt: skip
    assert (needs.photos, needs.segmenters, needs.towers, needs.models) == (True, ["cut"], ["v"], ["m", "l"])
    assert (needs.encoders, needs.encoded, needs.members, needs.texts) == (["a"], ["a", "cut"], [], [])
    assert (NEEDS.photos, NEEDS.segmenters, NEEDS.towers, NEEDS.models) == (False, [], [], [])
    assert (NEEDS.unit, needs.unit) == ("photo", "photo")
