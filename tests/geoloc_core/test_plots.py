import numpy as np
from PIL import Image

from geoloc_core import plots


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def at(latitude, longitude):
    row, column = (90 - latitude) * plots.PIXELS, (longitude + 180) * plots.PIXELS
    return int(row) + plots.TOP, int(column) + plots.LEFT


def test_a_point_is_a_dot_where_it_belongs(tmp_path):
    plots.dot_map(tmp_path / "a.png", "a", {"x": ([], [])})
    plots.dot_map(tmp_path / "b.png", "a", {"x": ([47.0, np.nan, 10.0], [-13.0, 5.0, np.nan])})
    differ = (pixels(tmp_path / "a.png") != pixels(tmp_path / "b.png")).any(axis=2)
    rows, columns = np.nonzero(differ)
    assert (rows.mean(), columns.mean()) == at(47, -13)
    assert differ.sum() == 9, "unknown places are left out"


def test_the_edges_of_the_world_are_on_the_map_and_many_points_are_darker(tmp_path):
    corners = ([90.0, -90.0, 90.0, -90.0], [-180.0, 180.0, 180.0, -180.0])
    plots.dot_map(tmp_path / "one.png", "a", {"x": corners})
    plots.dot_map(tmp_path / "many.png", "a", {"x": tuple(50 * side for side in corners)})
    for latitude, longitude in zip(*corners, strict=True):
        one, many = (pixels(tmp_path / name)[at(latitude, longitude)].sum() for name in ("one.png", "many.png"))
        assert many < one < 3 * 230


def test_several_sets_have_colours_and_a_legend(tmp_path):
    sets = {f"set {n}": ([10.0 * n], [0.0]) for n in range(-4, 4)}
    plots.dot_map(tmp_path / "a.png", "a", sets)
    made = pixels(tmp_path / "a.png")
    colours = [tuple(made[at(10 * n, 0)]) for n in range(-4, 4)]
    assert len(set(colours)) == len(plots.COLOURS)
    assert (made[plots.TOP + 250 :, plots.LEFT : plots.LEFT + 80] != 255).any()


def test_the_same_points_are_the_same_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        plots.dot_map(tmp_path / name, "same", {"x": ([1.0, 2.0], [3.0, 4.0])})
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
