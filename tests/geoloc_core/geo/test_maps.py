import json

import numpy as np
import pytest
import shapely

from geoloc_core.errors import UserError
from geoloc_core.geo import maps
from geoloc_core.geo.labelspace import LabelSpace

HOLE = shapely.box(0, 0, 10, 10).difference(shapely.box(4, 4, 6, 6))


@pytest.fixture
def space() -> LabelSpace:
    names = ["Ring </script>", "<!--<script>\u202e", "Dot"]
    return LabelSpace(
        "geocell", ["a", "b", "c"], names, ["X", "X", ""], np.array([5.0, 5, -20]), np.array([2.0, 5, 30])
    )


def read(path) -> dict:
    text = path.read_text(encoding="utf-8")
    return json.loads(text.split("const data = ")[1].split(";\nconst $")[0])


def test_the_page_holds_shapes_points_and_texts(space, tmp_path):
    shapes = np.array([HOLE, shapely.box(4, 4, 6, 6), None], dtype=object)
    maps.draw(space, tmp_path / "map.html", shapes, np.array([10, 3, 0]))
    data = read(tmp_path / "map.html")
    assert [len(rings) for rings in data["rings"]] == [2, 1, 0]
    ring = np.array(data["rings"][1][0]).reshape(-1, 2).cumsum(axis=0) / maps.SCALE
    assert shapely.Polygon(ring).equals(shapes[1])
    assert data["names"] == space.names
    text = (tmp_path / "map.html").read_text()
    assert [text.count(tag) for tag in ("<script>", "</script>", "<!--")] == [1, 1, 0]
    assert data["summary"].startswith("13 points")


def test_a_label_space_without_shapes_is_drawn_as_points(space, tmp_path):
    maps.draw(space, tmp_path / "map.html")
    maps.draw(space, tmp_path / "map.png")
    assert read(tmp_path / "map.html")["rings"] == [[], [], []]
    assert read(tmp_path / "map.html")["counts"] is None
    assert (tmp_path / "map.png").stat().st_size > 5000


def test_the_picture_is_the_same_each_time(space, tmp_path):
    shapes = np.array([HOLE, shapely.box(4, 4, 6, 6), None], dtype=object)
    for name in ("a.png", "b.png"):
        maps.draw(space, tmp_path / name, shapes, np.array([10, 3, 0]))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_neighbours_differ_in_colour():
    boxes = np.array([shapely.box(x, y, x + 1, y + 1) for x in range(12) for y in range(12)], dtype=object)
    colour = maps.colours(boxes)
    first, second = shapely.STRtree(boxes).query(boxes, predicate="touches")
    assert (colour[first] != colour[second]).all()


def test_what_is_too_small_to_draw_is_drawn_as_its_frame():
    tiny = shapely.box(5, 5, 5.0001, 5.0001)
    found = maps.simplified(np.array([tiny, HOLE], dtype=object))
    assert not shapely.is_empty(found).any()


def test_another_kind_of_file_is_refused(space, tmp_path):
    with pytest.raises(UserError, match=r"map.pdf: expected a name that ends in .png or .html"):
        maps.draw(space, tmp_path / "map.pdf")


def test_targets_around_a_place_are_drawn_with_and_without_shapes(space, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(maps, "_fill", lambda axes, shapes, colour: drawn.append((list(shapes), colour)))
    shapes = np.array([HOLE, shapely.box(4, 4, 6, 6), None], dtype=object)
    maps.targets(space, tmp_path / "map.png", shapes, np.array([1.0, 1e-5, 0.4]), 5.0, 2.0)
    assert (tmp_path / "map.png").stat().st_size > 1000
    ((filled, colour),) = drawn
    assert [shape is None for shape in filled] == [False, True], "what is all but wrong is left out"
    assert colour[0].tolist() != colour[1].tolist()
