"""Sentences are gathered row by row, and their features are row-aligned, resumed and never another tower's."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc_core.encoders import store
from geoloc_core.encoders.text import encoder, extraction, sentences
from geoloc_core.encoders.text.towers import bert
from geoloc_core.errors import UserError
from geoloc_core.files import digest, read_json
from geoloc_core.params import NamedEncoder, Texts
from geoloc_core.project import Project

from ...conftest import PHOTOS
from .made_checkpoints import MADE, SENTENCES


def written(folder, name: str, rows: list[dict]):
    path = folder / name
    if path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".csv":
        import pandas as pd

        pd.DataFrame(rows).to_csv(path, index=False)
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("name", ["book.json", "book.csv", "book.parquet"])
def test_every_form_of_table_gives_the_same_sentences(tmp_path, name):
    rows = [{"key": f"c{number}", "clue": text, "more": 1} for number, text in enumerate(SENTENCES)]
    path = written(tmp_path, name, rows)
    found = sentences.gathered(Texts(path=path, text="clue", id="key"), path).to_pydict()
    assert found == {"id": [f"c{number}" for number in range(5)], "text": list(SENTENCES), "countries": [[]] * 5}
    numbered = sentences.gathered(Texts(path=path, text="clue"), path)["id"].to_pylist()
    assert numbered == ["0", "1", "2", "3", "4"]


def test_a_missing_caption_keeps_its_row(tmp_path):
    path = written(tmp_path, "a.parquet", [{"image_id": "x", "caption": None}, {"image_id": "y", "caption": "sea"}])
    found = sentences.gathered(Texts(path=path, text="caption", id="image_id"), path).to_pydict()
    assert found == {"id": ["x", "y"], "text": ["", "sea"], "countries": [[], []]}


ABOUT = {
    "FRA": ["FRA"],
    "FR": ["FRA"],
    "France": ["FRA"],
    "Kenya; FR ;France": ["FRA", "KEN"],
    "": [],
    None: [],
}


@pytest.mark.parametrize("name", ["book.json", "book.csv", "book.parquet"])
def test_the_countries_of_a_sentence_are_codes(tmp_path, name):
    path = written(tmp_path, name, [{"clue": f"clue {n}", "land": cell} for n, cell in enumerate(ABOUT)])
    found = sentences.gathered(Texts(path=path, text="clue", country="land"), path)
    assert found["countries"].to_pylist() == list(ABOUT.values())


def test_a_list_of_places_names_the_countries_of_all(tmp_path):
    cells = [[{"Country": "Kenya"}, {"Country": "FR"}, {"City": "Paris"}], [], ["PER", ["KEN"]], {"Country": None}]
    path = written(tmp_path, "book.json", [{"clue": "x", "land": cell} for cell in cells])
    found = sentences.gathered(Texts(path=path, text="clue", country="land"), path)
    assert found["countries"].to_pylist() == [["FRA", "KEN"], [], ["KEN", "PER"], []]


@pytest.mark.parametrize("cell", ["Atlantis", "France;Atlantis", 7, ["Atlantis"], True])
def test_a_country_that_nobody_knows_is_one_line(tmp_path, cell):
    path = written(tmp_path, "book.json", [{"clue": "x", "land": "FRA"}, {"clue": "y", "land": cell}])
    with pytest.raises(UserError, match=r"book\.json: row 2: land: .*expected the name or the ISO 3166-1 code") as said:
        sentences.gathered(Texts(path=path, text="clue", country="land"), path)
    assert "\n" not in str(said.value)


def test_sentences_of_a_former_version_are_gathered_again(tmp_path, tiny_project):
    path = tiny_project.texts("clues")
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table({"id": ["1"], "text": ["x"]}), path)
    with pytest.raises(UserError, match=r"clues\.parquet: .*run `geoloc texts clues`"):
        sentences.read(tiny_project, "clues")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.json", "[", "not readable JSON"),
        ("a.json", '{"clue": "x"}', "a dict; expected a list of objects with clue, key"),
        ("a.json", '[{"clue": "x", "key": 1}, {"key": 2}]', "entry 1 has no 'clue'; every entry needs it"),
        ("a.json", '[{"clue": "x", "key": 1}, {"clue": "y", "key": 1}]', "key '1' occurs more than once"),
        ("a.csv", "key\n1\n", "no column clue"),
        ("a.parquet", "PAR1", "a.parquet: damaged: "),
        ("a.txt", "x", r"expected a \.csv, a \.parquet or a \.json"),
        ("", "", "no such file; expected a table with clue, key"),
    ],
)
def test_a_table_that_is_not_as_said_is_one_line(tmp_path, name, content, says):
    path = tmp_path / (name or "missing.csv")
    if name:
        path.write_text(content)
    with pytest.raises(UserError, match=says) as error:
        sentences.gathered(Texts(path=path, text="clue", id="key"), path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_parquet_without_the_column_names_those_it_has(tmp_path):
    path = written(tmp_path, "a.parquet", [{"title": "x"}])
    with pytest.raises(UserError, match="no column clue; expected clue, got title"):
        sentences.gathered(Texts(path=path, text="clue"), path)


@pytest.fixture
def project(tmp_path):
    """A project with a small DistilBERT and a table of 40 clues."""
    profile = {**PHOTOS, "texts": {"clues": {"path": "clues.json", "text": "clue", "id": "key"}}}
    profile |= {"text_encoders": {"words": {"kind": "bert", "batch": 4}}}
    profile |= {"checkpoints": {**PHOTOS["checkpoints"], "words": {"file": "given"}}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"run": profile}))
    rows = [{"key": number, "clue": " ".join(SENTENCES[number % 5].split()[: number % 9 + 1])} for number in range(40)]
    written(tmp_path, "clues.json", rows)
    project = Project.open(tmp_path / "params.yaml")
    project.weights("words").mkdir(parents=True)
    MADE["distilbert"].write(project.weights("words"))
    sentences.texts(project, "clues")
    return project


def expected(project) -> np.ndarray:
    texts = pq.read_table(project.texts("clues"))["text"].to_pylist()
    tower = encoder.load(bert.Options(kind="bert", batch=64), project.weights("words"))
    return np.concatenate([tower([text]) for text in texts])


def encode_text(project, texts) -> None:
    extraction.encode_text(project, texts, "words", NamedEncoder.of("run", project.profile, "words"))


def test_features_stand_in_the_order_of_the_sentences(project):
    encode_text(project, "clues")
    folder = project.text_features("words", "clues")
    np.testing.assert_allclose(store.read(folder), expected(project), atol=5e-3)  # kept in half precision
    note = store.note(folder)
    assert (note["texts"], note["encoder"], note["rows"], note["dim"]) == ("clues", "words", 40, 32)
    figures = read_json(project.summary("encode_text", "words-clues"))
    assert (figures["rows"], figures["features"]["dim"]) == (40, 32)
    assert figures["fingerprint"] == note["fingerprint"]
    assert read_json(project.summary("texts", "clues"))["empty"] == 8
    assert not any(project.partial("encode_text", "x").parent.iterdir())


def test_finished_parts_are_not_encoded_again_and_give_the_same_bytes(project, monkeypatch):
    monkeypatch.setattr(extraction, "PART", 16)
    encode_text(project, "clues")
    whole = digest(project.text_features("words", "clues"))
    write = store.write
    monkeypatch.setattr(store, "write", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        encode_text(project, "clues")
    monkeypatch.setattr(store, "write", write)
    parts = sorted(project.partial("encode_text", "").glob("words-clues-*/*.npy"))
    assert len(parts) == 3
    parts[1].unlink()
    encoded = []
    encode = encoder.TextEncoder.encode
    monkeypatch.setattr(
        encoder.TextEncoder, "encode", lambda self, tokens: (encoded.append(1), encode(self, tokens))[1]
    )
    encode_text(project, "clues")
    assert len(encoded) == 1
    assert digest(project.text_features("words", "clues")) == whole


def test_changed_weights_or_sentences_are_encoded_anew(project, monkeypatch):
    from safetensors.torch import load_file, save_file

    monkeypatch.setattr(store, "write", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        encode_text(project, "clues")
    monkeypatch.undo()
    path = project.weights("words") / "model.safetensors"
    save_file({name: tensor * 1.5 for name, tensor in load_file(path).items()}, path, {"format": "pt"})
    rows = json.loads((project.root / "clues.json").read_text())
    rows[3]["clue"] = "another sentence"
    written(project.root, "clues.json", rows)
    sentences.texts(project, "clues")
    encode_text(project, "clues")
    np.testing.assert_allclose(store.read(project.text_features("words", "clues")), expected(project), atol=1e-2)


def test_what_is_missing_is_named_with_its_remedy(project):
    with pytest.raises(UserError, match=r"texts 'none': not in the profile in use; expected one of: clues"):
        encode_text(project, "none")
    project.texts("clues").unlink()
    with pytest.raises(UserError, match=r"clues.parquet: no such file; run `geoloc texts clues`"):
        encode_text(project, "clues")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 9), max_size=30), st.integers(1, 8))
def test_batches_of_like_lengths_put_every_text_in_its_place(lengths, batch):
    calls = []

    def forward(tokens):
        calls.append([len(text) for text in tokens])
        return np.array([[text[0], len(text)] for text in tokens], np.float32)

    tower = encoder.TextEncoder(2, batch, lambda texts: [], forward, 9, {}, 0)
    found = tower.encode([[number] * length for number, length in enumerate(lengths)])
    assert found.tolist() == [[number, length] for number, length in enumerate(lengths)]
    assert [length for call in calls for length in call] == sorted(lengths)
    assert all(len(call) <= batch for call in calls)
