"""Maps of a neighbourhood: cells around a true place, and clusters of training photos; from numbers to the page."""

import re

import numpy as np
import pytest
import shapely

from geoloc_core.contracts import geolocator
from geoloc_core.contracts.clustered import Clustered
from geoloc_core.errors import UserError
from geoloc_core.evaluation import answered
from geoloc_core.evaluation.examples import Example
from geoloc_core.evaluation.report import around, drawn, variants
from geoloc_core.evaluation.report.around import Window
from geoloc_core.evaluation.report.gathered import Gathered
from geoloc_core.families import classifier, protonet_refinement
from geoloc_core.families.classifier import Classifier
from geoloc_core.families.protonet_refinement import Gallery, Refinement, Settings
from geoloc_core.geo import boundaries, geocells
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.project import Project
from geoloc_core.variants.answer import answer
from tests.geoloc_core.hostile import Page
from tests.geoloc_core.made_answers import VARIANTS, make_project, profile, save_model
from tests.geoloc_core.test_artefacts import countries


def squares(*corners, size=1.0):
    """Cells, squares of so many degrees with their lower left corner at (latitude, longitude)."""
    shapes = np.array([shapely.box(x, y, x + size, y + size) for y, x in corners], dtype=object)
    ids = [f"c{number}" for number in range(len(corners))]
    middle = np.array(corners, float) + size / 2
    names = [f"Cell {number}" for number in range(len(corners))]
    return LabelSpace("geocell", ids, names, [""] * len(ids), *middle.T), shapes


def rings(path):
    """The corners (n, 2) of the rings of a path, as latitudes and longitudes."""
    found = [np.array(re.findall(r"(-?[\d.]+),(-?[\d.]+)", ring), float) for ring in path.split("Z")[:-1]]
    return [np.stack([90 - ring[:, 1], ring[:, 0] - 180], axis=1) for ring in found]


def test_cells_are_as_dark_as_they_are_probable_and_lie_where_they_are():
    space, shapes = squares((60, 10), (60, 11), (0, 0), (61, 10))
    shares = np.array([0.5, 0.25, 0.2, 0.0001])
    found = around.probabilities("t", space, shapes, ["c1", "c0", "c2", "c3"], shares, (60.5, 11.2), (60.4, 11.4))
    assert [(one.shade, one.said) for one in found.areas] == [("1.00", "Cell 1: 50.0%"), ("0.50", "Cell 0: 25.0%")]
    assert found.about == "the cells within 1,000 km hold 75% of the probability", (
        "one is far, one as good as impossible"
    )
    assert found.ends == ("0 %", "50.0%")
    for area, corner in zip(found.areas, ((60, 11), (60, 10)), strict=True):
        [ring] = rings(area.path)
        assert {tuple(point) for point in ring} == {
            (y, x) for y in (corner[0], corner[0] + 1) for x in (corner[1], corner[1] + 1)
        }
    assert float(found.squeeze) == pytest.approx(np.cos(np.radians(60.5)), abs=1e-4)
    left, top, wide, high = map(float, found.view.split())
    assert left + wide / 2 == pytest.approx((11.2 + 180) * np.cos(np.radians(60.5)), abs=1e-2), (
        "the true place is in the middle"
    )
    assert top + high / 2 == pytest.approx(90 - 60.5, abs=1e-2)
    assert wide * around.ASPECT == pytest.approx(high, rel=1e-2)
    put, true = found.dots
    assert (put.style, true.style) == ("answer", "true")
    x, y = map(float, re.fullmatch(r"M([\d.]+) ([\d.]+)h0", put.path).groups())
    assert (x, y) == pytest.approx(((11.4 + 180) * np.cos(np.radians(60.5)), 90 - 60.4), abs=1e-2)


def test_an_answer_far_away_is_said_and_not_drawn():
    space, shapes = squares((60, 10), (0, 0))
    found = around.probabilities("t", space, shapes, ["c1"], np.array([0.9]), (60.5, 10.5), (0.5, 0.5))
    assert not found.areas
    assert [one.style for one in found.dots] == ["true"]
    assert re.fullmatch(
        r"the cells within 1,000 km hold 0% of the probability; the answer is 6,\d{3} km away", found.about
    )


def test_maps_go_on_across_the_antimeridian_and_at_the_poles():
    space, shapes = squares((10, 179), (10, -180), (89, 40))
    found = around.probabilities("t", space, shapes, ["c0", "c1"], np.array([0.6, 0.4]), (10.5, 179.9), (10.5, -179.9))
    assert found.shifts == (0, 360)
    [west], [east] = (rings(one.path) for one in found.areas)
    assert west[:, 1].max() == east[:, 1].min() == 180
    put, true = (float(one.path[1:].split()[0]) for one in found.dots)
    assert put - true == pytest.approx(0.2 * float(found.squeeze), abs=1e-3)
    pole = around.probabilities("t", space, shapes, ["c2"], np.array([1.0]), (90.0, 40.5), (89.5, 40.5))
    assert len(pole.areas) == 1
    assert float(pole.squeeze) == around.NARROWEST


def test_classes_without_a_polygon_are_counted_and_unknown_ones_left_out():
    space, shapes = squares((10, 20), (11, 20))
    shapes[1] = None
    found = around.probabilities(
        "t", space, shapes, ["c1", "gone", "c0"], np.array([0.5, 0.3, 0.2]), (10, 20), (11, 20)
    )
    assert [one.said for one in found.areas] == ["Cell 0: 20.0%"]
    assert found.about == "the cells within 1,000 km hold 70% of the probability"


def scattered(counts, seed=0):
    """Clusters of photos, so many in each cell of a row of squares on the equator."""
    rng = np.random.default_rng(seed)
    latitudes, longitudes, starts = [], [], [0]
    for cell, many in enumerate(counts):
        for _ in range(many):
            size = int(rng.integers(3, 9))
            latitudes += list(rng.uniform(0.1, 0.9, size))
            longitudes += list(cell + rng.uniform(0.1, 0.9, size))
            starts.append(starts[-1] + size)
    return Clustered(np.array(latitudes), np.array(longitudes), np.array(starts), np.cumsum([0, *counts]))


def test_clusters_are_told_apart_within_the_region_that_has_the_most():
    space, shapes = squares(*((0, x) for x in range(40)))
    counts = [2] * 40
    counts[1], counts[30] = 0, 9
    clustered = scattered(counts)
    found = around.clusters("t", space, shapes, clustered)
    names = [one.said for one in found.areas]
    assert "Cell 30" in names
    assert "Cell 1" not in names
    assert "Cell 0" not in names
    of_30 = [one for one in found.dots if one.said.endswith("of Cell 30")]
    assert [one.style for one in of_30] == [f"c{number % around.COLOURS}" for number in range(9)]
    first = int(clustered.cells[30])
    sizes = np.diff(clustered.starts)[first : first + 9]
    assert [one.said for one in of_30] == [f"{size} photos of Cell 30" for size in sizes]
    assert [one.path.count("M") for one in of_30] == sizes.tolist()
    everywhere = around.clusters("t", space, shapes, clustered, Window(0.5, 20, 5000))
    assert everywhere.about == (
        f"{len(clustered.latitudes):,} training photos in {sum(counts)} clusters of 39 cells, a colour each"
    )
    nowhere = around.clusters("t", space, shapes, clustered, Window(60, 20, 100))
    assert (nowhere.areas, nowhere.dots) == ((), ())


def test_of_many_photos_some_are_drawn(monkeypatch):
    monkeypatch.setattr(around, "MOST", 20)
    space, shapes = squares((0, 0))
    found = around.clusters("t", space, shapes, scattered([12]))
    assert sum(one.path.count("M") for one in found.dots) == 20
    assert ", 20 of them drawn in 12 clusters" in found.about


BOXED = classifier.Options(kind="classifier", corpus="mp16", encoders=("clip",), labels="boxes")
REFINED = protonet_refinement.Options(
    kind="protonet_refinement", corpus="mp16", variant="boxed", encoder="clip", labels="boxes"
)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A classifier of cells that has answered, and its refinement."""
    made = make_project(tmp_path_factory.mktemp("boxed"))
    boundaries.write({0: countries()}, made.boundaries)
    options = geocells.check({"kind": "quadtree", "split_points": 8})
    rng = np.random.default_rng(0)
    latitudes, longitudes = rng.uniform(-60, 60, 60), rng.uniform(-100, 100, 60)
    cells = geocells.build(options, latitudes, longitudes, made.boundaries)
    cells.save(made.cells("boxes", "mp16"))
    refined = REFINED.over({"boxed": BOXED})
    project = Project(
        made.root, profile(variants=VARIANTS | {"boxed": BOXED, "refined": refined}, cells={"boxes": options})
    )
    some = cells.space.take(np.arange(len(cells))[::2])  # a model knows those that have training photos
    layer = (rng.normal(size=(len(some), 4)).astype(np.float32), np.zeros(len(some), np.float32))
    boxed = Classifier(["clip"], some, np.zeros(4, np.float32), np.ones(4, np.float32), [layer])
    save_model(project, "boxed", BOXED, boxed, {"clip": "f00d"})
    gallery = Gallery(
        np.minimum(np.arange(len(some) + 1), 2), np.zeros((2, 4), np.float16), np.array([0, 3, 6]),
        np.zeros((6, 4), np.float16), None,
        np.repeat(some.latitudes[:2], 3), np.repeat(some.longitudes[:2], 3), np.zeros(6, np.uint8), np.arange(7),
    )  # fmt: skip
    settings = Settings(variant="boxed", encoder="clip", candidates=2, temperature=1.0, max_km=1000)
    model = Refinement(settings, geolocator_of(project, "boxed"), gallery)
    save_model(project, "refined", refined, model, {"clip": "f00d"})
    answer(project, "boxed")
    return project


def geolocator_of(project, variant):
    return geolocator.load(project.model(variant))


def test_the_report_draws_cells_of_the_model_and_its_clusters(project):
    gathered = Gathered(project, None, {})
    space, _shapes = gathered.cells("boxed")
    assert gathered.cells("by_country") is None
    told = answered.read(project, "boxed", "im2gps")
    place = (float(told.true[0][5]), float(told.true[1][5]))
    near = str(space.ids[0])
    one = Example("a.jpg", b"", (float(space.latitudes[0]), float(space.longitudes[0])), place, 1.0, "best",
                  np.array([[0.0, 0.0, 0.8]]), (near,))  # fmt: skip
    other = [one, Example("b.jpg", b"", one.place, one.answer, 2.0, "worst", one.candidates, one.classes)]
    titles = [found.title for found in variants._probable(gathered, "boxed", other)]
    assert sorted(title.rpartition(", ")[2] for title in titles) == ["best: a.jpg", "worst: b.jpg"]
    [first, *_] = variants._probable(gathered, "boxed", [one])
    assert first.areas[0].said == f"{space.names[0]}: 80.0%"
    assert list(variants._probable(gathered, "by_country", [one])) == []
    [drawn_clusters] = variants._clusters(gathered, "refined")
    assert drawn_clusters.about.startswith("3 training photos in 1 clusters of 1 cells")
    assert drawn_clusters.areas[0].said == geolocator_of(project, "boxed").labelspace.names[0]
    assert list(variants._clusters(gathered, "boxed")) == [], "it has none"


def test_maps_are_drawn_when_asked_for(project, tmp_path):
    drawn.map_cells(project, "boxed", None, None, tmp_path / "cells.html")
    told = answered.read(project, "boxed", "im2gps")
    middle = told.ids[np.argsort(told.errors_km, kind="stable")[(np.isfinite(told.errors_km).sum() - 1) // 2]]
    page = Page((tmp_path / "cells.html").read_text())
    assert f"{middle} of im2gps" in page.text
    assert "Rendered world, not real photos" in page.text
    assert not {"script"} & {name for name, _ in page.attributes}
    drawn.map_cells(project, "boxed", "validation", "mp16-5", tmp_path / "cells.html")
    assert "mp16-5 of validation" in (tmp_path / "cells.html").read_text()
    drawn.map_clusters(project, "refined", None, 200, tmp_path / "clusters.html")
    assert "3 training photos in 1 clusters" in (tmp_path / "clusters.html").read_text()
    drawn.map_clusters(project, "refined", (0, 0), 9000, tmp_path / "clusters.html")
    assert "6 training photos in 2 clusters" in (tmp_path / "clusters.html").read_text()


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda p, out: drawn.map_cells(p, "nobody", None, None, out), "nobody"),
        (lambda p, out: drawn.map_cells(p, "by_country", None, None, out), "answers with country; expected one that"),
        (lambda p, out: drawn.map_cells(p, "boxed", "moon", None, out), "benchmark 'moon': not answered by boxed"),
        (lambda p, out: drawn.map_cells(p, "boxed", None, "x", out), "photo 'x': not among the photos of im2gps"),
        (lambda p, out: drawn.map_cells(p, "boxed", None, None, out.with_suffix(".png")), "ends in .html"),
        (lambda p, out: drawn.map_clusters(p, "boxed", None, 9, out), "a classifier has no clusters"),
        (lambda p, out: drawn.map_clusters(p, "refined", (100, 0), 9, out), "latitude"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(project, tmp_path, ask, says):
    with pytest.raises(UserError, match=says) as said:
        ask(project, tmp_path / "map.html")
    assert "\n" not in str(said.value)
    assert not list(tmp_path.iterdir())
