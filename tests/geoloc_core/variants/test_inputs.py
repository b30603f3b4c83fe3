"""What a variant reads is found from its needs alone, and held against each other before anything is answered."""

from types import SimpleNamespace

import numpy as np
import pytest

from geoloc_core.contracts.batch import TextTower, Units
from geoloc_core.encoders import store
from geoloc_core.encoders.text.sentences import SCHEMA
from geoloc_core.errors import UserError
from geoloc_core.families import guidebook_attention, zero_shot
from geoloc_core.project import Project
from geoloc_core.variants import inputs
from geoloc_core.variants.answer import answer
from tests.geoloc_core.made_answers import JOINT, VARIANTS, profile, with_joint, without_features

GUIDED = guidebook_attention.Options(
    kind="guidebook_attention", corpus="mp16", encoders=("clip", "vit"), text_encoder="clip", texts="clues",
    labels="semantic",
)  # fmt: skip


@pytest.mark.parametrize(
    ("block", "training", "answering"),
    [
        (VARIANTS["by_country"], ["features/clip/mp16"], ["features/clip"]),
        (
            zero_shot.Options(kind="zero_shot", corpus="mp16", encoder="clip"),
            ["features/clip/mp16", "weights/clip"],
            ["features/clip"],
        ),
        (JOINT, ["answers/by_country", "answers/narrow"], ["answers/by_country", "answers/narrow"]),
        (
            GUIDED,
            ["features/clip/mp16", "features/vit/mp16", "text_features/clip/clues", "cells/semantic/mp16"],
            ["features/clip", "features/vit", "cells/semantic/mp16"],
        ),
    ],
)
def test_what_stages_depend_on_follows_from_the_needs(project, block, training, answering):
    project.profile.cells["semantic"] = None
    told = inputs.read_by_training(project, block), inputs.read_by_answering(project, block, ["im2gps"])
    found = [[path.relative_to(project.data).as_posix() for path in paths] for paths in told]
    assert found == [training, answering]


def test_units_need_no_cells_and_cells_must_have_been_made(project):
    assert inputs.cells(project, "country", "mp16") is None
    project.profile.cells["semantic"] = None
    with pytest.raises(UserError, match="no cells; run `geoloc fit-cells semantic mp16` first"):
        inputs.cells(project, "semantic", "mp16")


def clues(project, rows, features):
    """Sentences and features that are of as many, or are not."""
    import pyarrow as pa

    from geoloc_core import parquet

    table = {"id": [f"c{i}" for i in range(rows)], "text": ["x"] * rows, "countries": [["FRA"], *[[]] * (rows - 1)]}
    project.texts("clues").parent.mkdir(parents=True)
    parquet.write(pa.table(table, SCHEMA), project.texts("clues"))
    folder = project.text_features("clip", "clues")
    folder.mkdir(parents=True)
    np.save(folder / "part.npy", np.ones((features, 3), np.float16))
    store.write(folder, [folder / "part.npy"], (3,), {"fingerprint": "f00d"})


def test_sentences_come_with_their_features(project):
    clues(project, 4, 4)
    found = inputs.sentences(project, "clip", "clues")
    assert (found.ids, found.countries) == (["c0", "c1", "c2", "c3"], [("FRA",), (), (), ()])
    assert (found.features.shape, found.features.dtype) == ((4, 3), np.float32)


def test_sentences_that_have_no_features_are_said(project):
    clues(project, 5, 4)
    with pytest.raises(UserError, match=r"clues\.parquet: 5 sentences, 4 have features; .*encode"):
        inputs.sentences(project, "clip", "clues")


def test_text_towers_tell_which_countries_their_training_held_out(project):
    trained = {"pretrain": {}, "pretrain_from": {"street": SimpleNamespace(hold_out=("CHN",))}}
    made = Project(project.root, profile(text_encoders={"clip": "block", "street": "other"}, **trained))
    with pytest.raises(UserError, match="weights/clip: no weights; run `geoloc download clip` first"):
        inputs.text_towers(made, ["clip"])
    for name in ("clip", "street"):
        made.weights(name).mkdir(parents=True)
    found = inputs.text_towers(made, ["clip", "street"])
    assert found["clip"] == TextTower("block", made.weights("clip"), ())
    assert found["street"] == TextTower("other", made.weights("street"), ("CHN",))


def test_the_answers_of_members_are_those_of_the_rows_that_all_have(project):
    made = with_joint(project.root)
    answer(made, "by_country")
    without_features(made, "im2gps", [5, 9])
    answer(made, "narrow")
    from geoloc_core.contracts.geolocator import load

    found = inputs.readable(made, load(made.model("joint")).card, "im2gps", "im2gps", 40)
    known = found.ready
    assert known.tolist() == [row for row in range(1, 40) if row not in (5, 9)]
    batch = found.of(Units.of_photos(known))
    assert [len(part) for part in batch.answers.values()] == [37, 37]
    member = load(made.model("by_country"))
    of_member = inputs.readable(made, member.card, "im2gps", "im2gps", 40)
    assert of_member.ready.tolist() == [row for row in range(40) if row not in (5, 9)]
    expected = member.model.predict(of_member.of(Units.of_photos(known)), 10)
    np.testing.assert_array_equal(batch.answers["by_country"].classes, expected.classes)


def test_what_a_member_answers_to_validation_is_learned_from(project):
    answer(project, "by_country")
    found = inputs.answered(project, "by_country")
    assert found.rows.tolist() == list(range(1, 40, 4))
    assert (found.space.ids, len(found.prediction)) == (["FRA", "KEN", "PER"], 10)


def test_a_model_of_other_features_is_no_part_of_another(project):
    assert list(inputs.models(project, ["by_country"], "mp16")) == ["by_country"]
    folder = project.features("clip", "mp16")
    store.write(folder, [folder / "part.npy"], (4,), {"fingerprint": "beef"})
    with pytest.raises(UserError, match="by_country: trained on other features of clip than mp16 has; run `geoloc tra"):
        inputs.models(project, ["by_country"], "mp16")
