import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from geoloc_core.corpora import leaked, manifest
from geoloc_core.corpora import leaks as stage
from geoloc_core.corpora.guard import guard
from geoloc_core.errors import UserError
from geoloc_core.families import classifier
from geoloc_core.files import digest, read_json
from geoloc_core.params import Corpus, Evaluation, Leaks, Profile, Registry
from geoloc_core.project import Project
from geoloc_core.sets import leak_name

RANDOM = np.random.default_rng(5).integers(0, 2**63, 100).tolist()
CLEAN = {
    "mine": [
        # image_id, split, author, latitude, longitude, phash
        *[(f"t{n}", "train", f"ann {n}", 10.0 + n, 20.0, RANDOM[n]) for n in range(8)],
        ("v0", "validation", "ben", 50.0, 20.0, RANDOM[20]),
        ("v1", "validation", None, 51.0, 20.0, None),
    ],
    "test": [("b0", "benchmark", "cat", -30.0, 20.0, RANDOM[30]), ("b1", "benchmark", None, -31.0, 179.9999, None)],
    "other": [("o0", "benchmark", "dan", -60.0, 5.0, RANDOM[40])],
}


def made(root, corpora=CLEAN, benchmarks=("test", "other"), **options) -> Project:
    roles = {"test": "benchmark", "other": "benchmark"}
    profile = Profile.model_construct(
        leaks=Leaks(**options),
        corpora={name: Corpus.model_construct(role=roles.get(name, "train")) for name in corpora},
        expect={},
        variants={"linear": classifier.Options(kind="classifier", corpus="mine", encoders=("net",), labels="country")},
        evaluation=Evaluation(benchmarks=benchmarks),
        registry=Registry(model="m", benchmark="validation", metric="accuracy"),
    )
    project = Project(root, profile)
    for name, rows in corpora.items():
        project.corpus(name).mkdir(parents=True, exist_ok=True)
        project.labels(name).parent.mkdir(exist_ok=True)
        columns = ["image_id", "split", "author", "latitude", "longitude", "phash"]
        values = dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True))
        fixed = {"corpus": name, "group_id": "g", "sha256": "0", "shard": 0, "row": 0, "width": 1, "height": 1}
        for schema, path in (
            (manifest.MANIFEST, project.corpus(name) / "manifest.parquet"),
            (manifest.LABELS, project.labels(name)),
        ):
            table = {key: values.get(key, [fixed.get(key)] * len(rows)) for key in schema.names}
            manifest.write_table(pa.table(table, schema=schema), path, schema)
    return project


def with_rows(corpus: str, *rows: tuple) -> dict[str, list[tuple]]:
    return {**CLEAN, corpus: [*CLEAN[corpus], *rows]}


def found(project: Project) -> list[dict]:
    stage.leaks(project)
    return read_json(project.leaks / "leaks.json")["leaks"]


def test_sets_that_share_nothing_leak_nothing_and_training_may_begin(tmp_path):
    project = made(tmp_path)
    with pytest.raises(UserError, match=r"blocking.json: no such file; run `geoloc leaks`"):
        guard(project, "mine")
    assert found(project) == []
    guard(project, "mine")
    summary = read_json(project.summary("leaks", "leaks"))
    assert summary["sets"] == {"mine/train": 8, "mine/validation": 2, "test": 2, "other": 1}
    assert summary["without_hash"] == 2
    assert project.plot("leaks", "leaks").read_bytes().startswith(b"\x89PNG")


LEAKING = {
    "photographers: mine/train + test": ("test", ("x", "benchmark", "ann 3", 0.0, 0.0, RANDOM[50]), "t3"),
    "near_duplicates: mine/train + test": ("test", ("x", "benchmark", "eve", 0.0, 0.0, RANDOM[2] ^ 0b1111), "t2"),
    "photographers: mine/train + mine/validation": (
        "mine",
        ("x", "validation", "ann 1", 0.0, 0.0, RANDOM[50]),
        "t1",
    ),
    "photographers: mine/train + mine/test": ("mine", ("x", "test", "ann 1", 0.0, 0.0, RANDOM[50]), "t1"),
    "near_duplicates: mine/train + mine/test": ("mine", ("x", "test", "eve", 0.0, 0.0, RANDOM[4] ^ 0b1), "t4"),
    "photographers: mine/validation + mine/test": ("mine", ("x", "test", "ben", 0.0, 0.0, RANDOM[50]), "v0"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LEAKING)
def test_what_leaks_is_named_and_training_is_refused_until_it_is_allowed(tmp_path, name):
    corpus, row, source = LEAKING[name]
    (leak,) = found(project := made(tmp_path, with_rows(corpus, row)))
    assert leak_name(leak["kind"], *leak["sets"]) == name
    assert leak["photos"] == [1, 1]
    assert leak["examples"] == [[source, "x"]]
    assert leak["blocking"]
    shared = {"kind": leak["kind"], "sets": " + ".join(leak["sets"]), "photos": "1 + 1"}
    assert read_json(project.summary("leaks", "leaks"))["shared"] == [{**shared, "blocking": True}]
    with pytest.raises(UserError, match=r"leaks\.allow in params\.yaml") as refused:
        guard(project, "mine")
    assert name in str(refused.value)
    kind, sets = name.split(": ")
    for allowed in (name, f"{kind}:{'+'.join(reversed(sets.split(' + ')))}"):
        project = made(tmp_path, with_rows(corpus, row), allow=(allowed,))
        assert [leak["blocking"] for leak in found(project)] == [False]
        assert read_json(project.summary("leaks", "leaks"))["shared"] == [{**shared, "blocking": False}]
        guard(project, "mine")
    other = f"{kind}: {sets.partition(' + ')[0]} + other"
    assert found(made(tmp_path, with_rows(corpus, row), allow=(other,)))[0]["blocking"]


def test_shares_are_told_to_six_digits():
    leak = stage.Leak("photo", ("mine/train", "test"), (1, 2), (1 / 3, 2 / 3), (), np.zeros(0, int))
    assert leak.row(blocking=True)["share"] == [0.333333, 0.666667]


def test_one_bit_too_many_is_no_near_duplicate(tmp_path):
    row = ("x", "benchmark", "eve", 0.0, 0.0, RANDOM[2] ^ 0b11111)
    assert found(made(tmp_path, with_rows("test", row))) == []
    assert len(found(made(tmp_path, with_rows("test", row), near_bits=5))) == 1


def test_neighbours_are_found_across_the_antimeridian_and_block_only_when_asked_to(tmp_path):
    row = ("x", "train", "eve", -31.0, -179.9999, None)
    project = made(tmp_path, with_rows("mine", row))
    (leak,) = found(project)
    assert (leak["kind"], leak["examples"]) == ("neighbours", [["x", "b1"]])
    guard(project, "mine")
    assert found(made(tmp_path, with_rows("mine", row), neighbour_km=0.01)) == []
    project = made(tmp_path, with_rows("mine", row), block=("neighbours",))
    found(project)
    with pytest.raises(UserError, match=r"'neighbours: mine/train \+ test' leaks"):
        guard(project, "mine")


def test_validation_and_benchmarks_may_share_what_they_like(tmp_path):
    rows = {**CLEAN, "other": [("x", "benchmark", "ben", 50.0, 20.0, RANDOM[20])]}
    leaks = found(project := made(tmp_path, rows))
    assert [leak["kind"] for leak in leaks] == ["photographers", "near_duplicates", "neighbours"]
    assert {tuple(leak["sets"]) for leak in leaks} == {("mine/validation", "other")}
    assert not any(leak["blocking"] for leak in leaks)
    guard(project, "mine")


def test_the_test_split_and_benchmarks_may_share_what_they_like(tmp_path):
    rows = with_rows("mine", ("x", "test", "dan", 0.0, 0.0, RANDOM[50]))
    (leak,) = found(project := made(tmp_path, rows))
    assert (leak["sets"], leak["blocking"]) == (["mine/test", "other"], False)
    guard(project, "mine")
    assert read_json(project.summary("leaks", "leaks"))["sets"]["mine/test"] == 1


def test_a_report_that_names_no_leak_is_refused(tmp_path):
    project = made(tmp_path)
    found(project)
    (project.leaks / "checksums.json").unlink()  # or it would count as damaged
    (project.leaks / "blocking.json").write_text('["photographers: mine/trian + test"]')
    with pytest.raises(UserError, match=r"blocking\.json: .*mine/trian.* names no leak; run `geoloc leaks` again"):
        guard(project, "mine")


def test_a_benchmark_that_no_model_is_scored_on_is_reported_and_blocks_nothing(tmp_path):
    corpus, row, _ = LEAKING["photographers: mine/train + test"]
    (leak,) = found(project := made(tmp_path, with_rows(corpus, row), benchmarks=("other",)))
    assert (leak["kind"], leak["sets"], leak["blocking"]) == ("photographers", ["mine/train", "test"], False)
    guard(project, "mine")
    assert found(made(tmp_path, with_rows(corpus, row), benchmarks=("test",)))[0]["blocking"]


def test_a_corpus_that_leaks_blocks_itself_alone_and_what_two_corpora_train_on_may_be_the_same(tmp_path):
    whole = [*CLEAN["mine"], ("x", "train", "cat", 0.0, 0.0, RANDOM[60])]
    leaks = found(project := made(tmp_path, {**CLEAN, "whole": whole}))
    assert [(leak["kind"], leak["sets"], leak["blocking"]) for leak in leaks] == [
        ("photographers", ["whole/train", "test"], True)
    ]
    guard(project, "mine")
    with pytest.raises(UserError, match=r"'photographers: whole/train \+ test' leaks"):
        guard(project, "whole")


def test_only_another_verdict_changes_what_training_reads(tmp_path):
    corpus, row, _ = LEAKING["photographers: mine/train + test"]
    project = made(tmp_path, with_rows(corpus, row))
    found(project)
    verdict, report = (digest(project.leaks / name) for name in ("blocking.json", "leaks.json"))
    found(made(tmp_path, with_rows(corpus, row, ("y", "benchmark", "ann 3", 0.0, 0.5, RANDOM[51]))))
    assert digest(project.leaks / "blocking.json") == verdict
    assert digest(project.leaks / "leaks.json") != report


def test_what_is_scored_and_leaks_is_listed_by_what_was_learned_from(tmp_path):
    corpus, row, _ = LEAKING["photographers: mine/train + test"]
    project = made(tmp_path, with_rows(corpus, row))
    assert leaked.read(project, "test", ["mine"]) is None, "nobody has looked"
    shared = {leak["kind"]: leak for leak in found(project) if leak["sets"] == ["mine/train", "test"]}
    ids = leaked.read(project, "test", ["mine", "nothing"])
    assert len(ids) == shared["photographers"]["photos"][1] > 0
    assert {pair[1] for pair in shared["photographers"]["examples"]} <= set(ids)
    assert leaked.read(project, "test", ["nothing"]) == leaked.read(project, "mine/validation", ["mine"]) == []


def test_many_sets_and_equal_hashes(tmp_path):
    """Against every pair compared, with more sets than an integer has bits."""
    random = np.random.default_rng(3)
    count, sets = 600, 70
    hashes = random.choice(random.integers(0, 2**63, 40), count) ^ (1 << random.integers(0, 40, count))
    member = random.integers(0, sets, count)
    empty = np.full(count, np.nan)
    photos = stage.Photos(
        tuple(f"s{n:02}" for n in range(sets)),
        member,
        pa.chunked_array([pa.array([str(n) for n in range(count)])]),
        np.full(count, -1),
        empty,
        empty,
        hashes.astype(np.uint64),
        np.ones(count, bool),
    )
    leaks, crowded = stage.find(photos, Leaks(near_bits=1))
    near = np.bitwise_count(photos.hashes[:, None] ^ photos.hashes[None]) <= 1
    frame = pd.DataFrame(near).groupby(member).any().T.groupby(member).sum().T
    expected = {
        (f"s{a:02}", f"s{b:02}"): (int(frame.at[b, a]), int(frame.at[a, b]))
        for a in range(sets)
        for b in range(a + 1, sets)
        if frame.at[a, b] or frame.at[b, a]
    }
    assert {leak.sets: leak.photos for leak in leaks} == expected
    assert crowded == 0


def test_labels_of_another_manifest_are_named(tmp_path):
    project = made(tmp_path)
    table = manifest.read_table(project.labels("test"), manifest.LABELS)
    manifest.write_table(table[::-1], project.labels("test"), manifest.LABELS)
    with pytest.raises(UserError, match="run `geoloc label test` again"):
        stage.leaks(project)
    assert not project.leaks.exists()


@pytest.mark.parametrize("allowed", ["copies: mine/train + test", "photographers: mine/train", "x"])
def test_what_names_no_leak_is_refused(allowed):
    with pytest.raises(ValueError, match="expected a kind"):
        Leaks(allow=(allowed,))
