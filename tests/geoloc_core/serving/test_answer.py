"""The same rows as a table, JSON and CSV."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from geoloc_core.contracts.prediction import Evidence, Prediction
from geoloc_core.errors import UserError
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.serving import answer

SPACE = LabelSpace(
    "subdivision",
    ["KEN.1_1", "NOR.2_1"],
    ['Nakuru "valley"', "Troms, north"],
    ["KEN", "NOR"],
    np.array([-0.3, 69.6]),
    np.array([36.1, 18.9]),
)
PREDICTION = Prediction(
    np.array([[1, 0], [0, 1]]),
    np.array([[0.9, 0.1], [0.6, 0.4]]),
    SPACE.latitudes[[[1, 0], [0, 1]]],
    SPACE.longitudes[[[1, 0], [0, 1]]],
    SPACE.latitudes[[1, 0]],
    SPACE.longitudes[[1, 0]],
)


def test_json_and_csv_carry_the_same_rows():
    table = answer.rows(PREDICTION, SPACE, ["a,b.jpg", "ü.jpg"])
    parsed = json.loads(answer.as_json(table, {"name": "m"}, []))["places"]
    read = list(csv.DictReader(io.StringIO(answer.as_csv(table))))
    assert parsed == table
    assert [{k: str(v) for k, v in row.items()} | {"error": ""} for row in table] == read
    assert [row["rank"] for row in table] == [1, 2, 1, 2]
    assert table[0]["name"] == "Troms, north, NOR"
    assert (table[0]["latitude"], table[0]["longitude"]) == (69.6, 18.9)


def test_a_country_has_its_name_beside_its_code():
    (row, *_) = answer.rows(PREDICTION, SPACE, ["a.jpg", "b.jpg"], {"NOR": "Norway"})
    assert (row["name"], row["id"]) == ("Troms, north, Norway", "NOR.2_1")
    assert answer.rows(PREDICTION, SPACE, None, {"NOR": "Norway"})[1]["name"] == 'Nakuru "valley", KEN'


def test_a_photo_that_cannot_be_read_is_a_row_beside_the_others(tmp_path, capsys):
    for name, data in (("deep/b.png", photo()), ("a.JPG", photo()), ("c.jpg", b"no photo"), ("notes.txt", b"")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    paths = answer.photos_at([tmp_path, tmp_path / "a.JPG", tmp_path / "none.jpg"])
    assert [path.name for path in paths] == ["a.JPG", "c.jpg", "b.png", "none.jpg"]
    assert answer.photos_at([tmp_path / "**" / "*.png"]) == [tmp_path / "deep" / "b.png"]
    good, wrong = answer.read_each(paths)
    assert [path.name for path in good] == ["a.JPG", "b.png"]
    told = {path.name: said for path, said in wrong.items()}
    assert told["none.jpg"] == "no such file; expected a photo"
    assert told["c.jpg"].startswith("not a readable photo: ")
    table = answer.rows(PREDICTION, SPACE, [str(path) for path in good]) + answer.errors(wrong)
    read = list(csv.DictReader(io.StringIO(answer.as_csv(table))))
    assert [(row["photo"], row["rank"], row["error"]) for row in read[-2:]] == [
        (str(path), "", said) for path, said in wrong.items()
    ]
    answer.show(table, {"name": "m", "version": "1", "variant": "v", "demo": False}, [])
    shown = capsys.readouterr().out
    assert "no such file; expected a photo" in shown
    assert "Troms" in shown


@pytest.mark.parametrize(
    ("asked", "says"), [(".", "no photos in it; expected files such as"), ("*.jpg", "no such file; expected a photo")]
)
def test_a_folder_or_a_pattern_without_photos_is_one_line(tmp_path, asked, says):
    with pytest.raises(UserError, match=says):
        answer.photos_at([tmp_path / asked])


def photo() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(stream, "PNG")
    return stream.getvalue()


def test_the_table_warns_of_a_demo_model(capsys):
    table = answer.rows(PREDICTION, SPACE, ["a.jpg", "b.jpg"])
    card = {"name": "m", "version": "1", "variant": "v", "demo": True}
    answer.show(table, card, [{"photo": "a.jpg", "kind": "clue", "id": "7", "text": "[bold]Bollards", "weight": 0.93}])
    shown = capsys.readouterr().out
    assert "rendered photos only" in shown
    assert "a.jpg: clue 0.93  [bold]Bollards" in shown
    answer.show(table, {**card, "demo": False}, [])
    assert "rendered" not in capsys.readouterr().out


def test_evidence_is_a_row_for_each_piece_in_words():
    prediction = replace(PREDICTION, evidence=Evidence("clue", np.array([["7", "8"]] * 2), np.array([[0.9, 0.5]] * 2)))
    pieces = answer.evidence(prediction, lambda kind, name: f"{kind} {name}", ["a.jpg", "b.jpg"])
    assert pieces[1] == {"photo": "a.jpg", "kind": "clue", "id": "8", "text": "clue 8", "weight": 0.5}
    assert len(pieces) == 4
    assert answer.evidence(PREDICTION, str) == []


def test_a_photo_with_fewer_pieces_than_others_shows_those_it_has():
    ids = np.array([["road", "tree"], ["road", ""]], dtype=object)
    prediction = replace(PREDICTION, evidence=Evidence("piece", ids, np.array([[0.9, 0.1], [1.0, 0.0]])))
    shown = answer.evidence(prediction, lambda kind, name: name, ["a.jpg", "b.jpg"])
    assert [(row["photo"], row["id"]) for row in shown] == [("a.jpg", "road"), ("a.jpg", "tree"), ("b.jpg", "road")]


def test_what_else_is_told_is_named_for_people():
    facts = {"elevation": np.array([141.72, 3.0]), "climate": np.array([14.0, 0.0]), "month": np.array([1.0, 12.0])}
    told = answer.told(PREDICTION.with_auxiliary(facts), ["a.jpg", "b.jpg"])
    assert told[:3] == [
        {"photo": "a.jpg", "fact": "elevation", "value": 141.7, "unit": "m"},
        {"photo": "a.jpg", "fact": "climate", "value": "Cfb", "unit": ""},
        {"photo": "a.jpg", "fact": "month", "value": "January", "unit": ""},
    ]
    assert [row["value"] for row in told[3:]] == [3.0, "Af", "December"]
    assert json.loads(answer.as_json([], {}, [], told))["facts"] == told
    assert answer.told(PREDICTION) == []
