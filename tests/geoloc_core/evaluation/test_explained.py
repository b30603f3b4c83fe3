"""Photos of the report with why they were answered so: a real model, its map, and what the page makes of it."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from geoloc_core.evaluation.examples import Example
from geoloc_core.evaluation.report import explained, variants
from geoloc_core.explain import explanation
from geoloc_core.pictures import encoded
from geoloc_core.serving import bundle as bundles
from tests.geoloc_core.explain.made_scores import noise
from tests.geoloc_core.explain.test_explain import everything
from tests.geoloc_core.families import made_models
from tests.geoloc_core.registry.made_champion import make_project


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A trained variant that sees a photo's mean colour: red speaks for France, green for Kenya."""
    return make_project(tmp_path_factory.mktemp("explained"))


def example(number: int) -> Example:
    """Grey noise with a red patch."""
    pixels = noise(56, 56) // 4 + 96
    pixels[14:28, 28:42] = (255, 0, 0)
    return Example(f"photo {number}", encoded(pixels), (46.0, 2.0), (46.0, 2.0), 0.0, "best", np.empty((0, 3)), ())


def test_photos_are_explained_by_the_map_that_fits_with_its_checks_and_to_the_same_bytes(project):
    first, again = (explained.explained(project, "linear", [example(1)]) for _ in range(2))
    [why], [other] = first, again
    assert (why.map, why.picture, why.answer) == (other.map, other.picture, other.answer)
    assert why.map.title == "Occlusion", "an ONNX network has no gradient"
    assert why.answer.startswith("France, ")
    assert why.check.deletion.area < min(curve.area for curve in why.check.chance.deletions)
    assert [chart.title for chart in why.map.charts] == ["Deletion", "Insertion"]
    assert all("8 random orders" in chart.said for chart in why.map.charts)
    assert (why.evidence, why.pieces, why.neighbours, why.notes) == ((), (), (), ())
    assert explained.explained(project, "linear", []) == []


def test_a_model_that_is_not_here_explains_nothing(project, tmp_path):
    assert explained.is_here(project, "linear")
    for gone in (project.model("linear"), project.weights("net")):
        shutil.move(gone, tmp_path / "gone")
        assert not explained.is_here(project, "linear")
        shutil.move(tmp_path / "gone", gone)


def test_where_there_is_attention_it_is_the_map(project):
    bundle = bundles.of_project(project, "linear")
    with explanation.opened(project, bundle) as subject:
        assert explained.methods(subject) == ["occlusion"]

    class Attentive:
        lacking = staticmethod(lambda method: None if method != "pieces" else "no pieces")

    assert explained.methods(Attentive()) == ["attention", "evidence", "neighbours"]


def test_lists_are_short_and_say_what_is_known():
    whole = everything()
    one = replace(whole, maps=whole.maps[:1], evidence=whole.evidence * 9, neighbours=whole.neighbours * 9)
    why = explained.why(one, made_models.space(), explained.ONE_VIEW)
    assert why.evidence == ("<script>alert(1)</script> (0.500)",) * explained.LINES
    assert why.pieces == ("<u>road</u> (ground): Country 1, 75%",)
    assert len(why.neighbours) == explained.NEAREST
    assert "licence: CC BY" in why.neighbours[1].lines
    assert any("km from the answer" in line for line in why.neighbours[0].lines)
    assert why.notes == ("Told.", explained.ONE_VIEW)
    assert why.answer == "Country 0, 50.0%"


def test_the_checks_stand_in_a_table_for_readers_without_pictures():
    whole = everything()
    why = explained.why(replace(whole, maps=whole.maps[:1]), made_models.space())
    shown = variants._shown(example(1), why)
    table = variants._maps(variants.Album("im2gps", (shown, replace(shown, why=None))))
    [row] = table.rows
    check = why.check
    assert [cell.value for cell in row.cells] == [
        "photo 1", "best: 0 km", "Occlusion",
        check.deletion.area, np.mean([curve.area for curve in check.chance.deletions]),
        check.insertion.area, np.mean([curve.area for curve in check.chance.insertions]),
        0.25, "no" if check.doubts else "yes",
    ]  # fmt: skip
    assert json.dumps([cell.value for cell in row.cells])
