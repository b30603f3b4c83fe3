"""A trained model answers what it is scored on, whatever its family, batch by batch, and all or nothing."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from geoloc_core.errors import UserError
from geoloc_core.files import digest
from geoloc_core.params import Evaluation, Expect
from geoloc_core.project import Project
from geoloc_core.variants import answer as stage
from geoloc_core.variants import answers
from geoloc_core.variants.answer import answer
from tests.geoloc_core.made_answers import (
    JOINT,
    SPACES,
    VARIANTS,
    profile,
    with_joint,
    without_features,
    write_corpus,
)


def rows_of(project, variant, benchmark="im2gps"):
    return pd.read_parquet(answers.path(project, variant, benchmark))


def test_a_saved_classifier_answers_with_the_logits_it_holds(project):
    answer(project, "by_region")
    rows = rows_of(project, "by_region")
    logits = np.load(project.features("clip", "im2gps") / "features.npy")[1:].astype(np.float64)
    space = SPACES["subdivision"]
    assert rows["classes"].str[0].tolist() == [space.ids[c] for c in logits.argmax(axis=1)]
    assert np.stack(rows["probabilities"]).sum(axis=1) == pytest.approx(1)
    np.testing.assert_array_equal(rows["latitude"], space.latitudes[logits.argmax(axis=1)])
    assert rows["row"].tolist() == list(range(1, 40))
    place = [space.ids.index(name) if isinstance(name, str) else -1 for name in rows["true_class"]]
    for at, true in enumerate(place):
        if true < 0:
            assert rows.loc[at, ["true_rank", "true_probability", "probability_before"]].isna().all()
        else:
            assert rows["true_rank"][at] == (logits[at] > logits[at, true]).sum()


def test_validation_is_the_split_of_its_own_corpus(project):
    answer(project, "by_country")
    assert rows_of(project, "by_country", "validation")["row"].tolist() == list(range(1, 40, 4))


def test_the_note_counts_the_training_rows_of_each_class(project):
    answer(project, "by_region")
    labels = pd.read_parquet(project.labels("mp16"))
    train = labels[labels["split"] == "train"]["gid_1"]
    note = answers.note(project, "by_region")
    assert note.frequencies == [int((train == name).sum()) for name in SPACES["subdivision"].ids]
    assert note.benchmarks["im2gps"].published == 42
    assert (note.family, note.encoders, note.members) == ("classifier", ["clip"], [])


def test_photos_without_features_are_left_out_and_counted(project):
    without_features(project, "im2gps", [5, 7])
    without_features(project, "mp16", [2])  # of the training split
    answer(project, "by_region")
    assert rows_of(project, "by_region")["row"].tolist() == [i for i in range(1, 40) if i not in (5, 7)]
    assert rows_of(project, "by_region", "im2gps")["latitude"].notna().all()
    assert json.loads(project.summary("answer", "by_region").read_text()) == {
        "photos": {"validation": 10, "im2gps": 37}
    }


def test_a_benchmark_without_any_features_is_refused(project):
    without_features(project, "im2gps", list(range(40)))
    with pytest.raises(UserError, match="im2gps: none of its photos can be answered; run `geoloc ingest im2gps`"):
        answer(project, "by_region")
    assert not project.answers("by_region").exists()


@pytest.mark.parametrize("variant", ["by_region", "joint"])
def test_batches_change_nothing(project, variant, monkeypatch):
    made = with_joint(project.root)
    without_features(made, "im2gps", [5, 7])
    for name in made.profile.variants:
        answer(made, name)
    whole = rows_of(made, variant)
    monkeypatch.setattr(stage, "ROWS", 7)
    answer(made, variant)
    in_parts = rows_of(made, variant)
    for name in ("probabilities", "true_probability", "probability_before"):
        np.testing.assert_allclose(np.stack(whole.pop(name)), np.stack(in_parts.pop(name)), rtol=1e-5, atol=1e-7)
    if variant == "joint":
        found = [{e["id"]: e["weight"] for e in row} for row in whole.pop("evidence")]
        again = [{e["id"]: e["weight"] for e in row} for row in in_parts.pop("evidence")]
        assert [pytest.approx(row, abs=1e-6) for row in found] == again
    pd.testing.assert_frame_equal(whole, in_parts)


def test_an_ensemble_answers_the_rows_that_all_its_members_do(project):
    made = with_joint(project.root)
    answer(made, "by_country")
    with pytest.raises(UserError, match=r"narrow/labels\.json: no such file; run `geoloc answer narrow`"):
        answer(made, "joint")
    without_features(made, "im2gps", [5])
    answer(made, "narrow")
    answer(made, "joint")
    assert answers.note(made, "joint").members == ["by_country", "narrow"]
    rows = rows_of(made, "joint")
    assert rows["row"].tolist() == [i for i in range(1, 40) if i != 5]
    members = {name: rows_of(made, name).set_index("row") for name in JOINT.members}
    for _, mine in rows.iterrows():
        total = dict.fromkeys(SPACES["country"].ids, 0.0)
        for member, weight in zip(members.values(), (0.75, 0.25), strict=True):
            known = member.loc[mine["row"]]
            for country, share in zip(known["classes"], known["probabilities"], strict=True):
                total[country] += weight * share
        assert dict(zip(mine["classes"], mine["probabilities"], strict=True)) == pytest.approx(total, abs=1e-6)
        assert {piece["id"] for piece in mine["evidence"]} == {"by_country", "narrow"}
        assert sum(piece["weight"] for piece in mine["evidence"]) == pytest.approx(mine["probabilities"][0], abs=1e-6)


def test_only_so_many_candidates_are_kept(project):
    made = Project(project.root, profile(evaluation=Evaluation(candidates=1)))
    answer(made, "by_region")
    rows = rows_of(made, "by_region", "validation")
    assert {len(names) for names in rows["classes"]} == {1}
    assert rows["true_rank"].max() > 0, "which is among all classes"


def test_the_same_inputs_give_the_same_bytes(project):
    answer(project, "by_region")
    first = digest(project.answers("by_region"))
    answer(project, "by_region")
    assert digest(project.answers("by_region")) == first


def test_features_of_another_encoder_are_refused_and_nothing_is_lost(project):
    answer(project, "by_country")
    before = digest(project.answers("by_country"))
    note = project.features("clip", "im2gps") / "features.json"
    note.write_text(note.read_text().replace("f00d", "beef"))
    with pytest.raises(UserError, match="made by another encoder than the model learned from; run `geoloc encode"):
        answer(project, "by_country")
    assert digest(project.answers("by_country")) == before


def test_features_that_do_not_match_the_manifest_are_refused(project):
    folder = project.features("clip", "im2gps")
    np.save(folder / "features.npy", np.zeros((3, 4), np.float16))
    note = json.loads((folder / "features.json").read_text())
    (folder / "features.json").write_text(json.dumps(note | {"rows": 3}))
    with pytest.raises(UserError, match="3 rows, the corpus has 40"):
        answer(project, "by_country")


def test_an_unknown_variant_and_an_untrained_one_are_one_line(project):
    with pytest.raises(UserError, match="variant 'none': not in the profile in use; expected one of: by_country"):
        answer(project, "none")
    (project.model("by_region") / "model.json").unlink()
    with pytest.raises(UserError, match=r"model\.json: no such file; .*run `geoloc train by_region`"):
        answer(project, "by_region")


UK = {"uk": Expect(countries=("GBR",)), "towns": Expect(countries=("GBR",)), "isles": Expect(countries=("GBR", "IRL"))}


@pytest.mark.parametrize(
    ("corpus", "named", "offered", "expected"),
    [
        ("uk", None, None, ["towns"]),
        ("planet", None, None, ["im2gps", "towns", "isles"]),
        ("planet", None, ("isles", "im2gps"), ["isles", "im2gps"]),
        ("uk", ("im2gps",), None, ["im2gps"]),
        ("uk", None, ("im2gps",), []),
    ],
)
def test_a_model_of_one_country_is_not_asked_about_the_planet(corpus, named, offered, expected):
    corpora = {name: SimpleNamespace(role="train") for name in ("uk", "planet")}
    corpora |= {name: SimpleNamespace(role="benchmark") for name in ("im2gps", "towns", "isles")}
    block = VARIANTS["by_country"].model_copy(update={"corpus": corpus, "benchmarks": named})
    found = profile(variants={"v": block}, corpora=corpora, expect=UK, evaluation=Evaluation(benchmarks=offered))
    assert found.scored_on("v") == expected
    assert sorted(found.benchmarks) == sorted(expected)


def test_a_model_that_no_benchmark_fits_answers_its_validation_split(project):
    made = Project(project.root, profile(expect={"mp16": Expect(countries=("FRA", "KEN", "PER"))}))
    answer(made, "by_country")
    assert list(answers.note(made, "by_country").benchmarks) == ["validation"]
    assert [path.name for path in made.answers("by_country").glob("*.parquet")] == ["validation.parquet"]


def test_a_corpus_without_truth_is_named(project):
    write_corpus(Project(project.root, project.profile), "im2gps3k", np.random.default_rng(3))
    block = VARIANTS["by_country"].model_copy(update={"benchmarks": ("im2gps3k",)})
    made = Project(project.root, profile(variants={"by_country": block}))
    with pytest.raises(UserError, match=r"im2gps3k\.parquet: no such file; .*run `geoloc truth im2gps3k`"):
        answer(made, "by_country")
