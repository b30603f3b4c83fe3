"""The schemes beside the semantic one: what all of them promise, and what each is known by."""

import re

import numpy as np
import pandas as pd
import pytest
import s2sphere
import shapely

from geoloc_core.errors import UserError
from geoloc_core.geo import geocells, s2
from geoloc_core.geo.geocells.schemes import s2 as scheme

SCHEMES = [
    {"kind": "admin", "level": 0},
    {"kind": "admin", "level": 1},
    {"kind": "admin", "level": 2},
    {"kind": "grid", "country": "GRI"},
    {"kind": "quadtree", "split_points": 100},
    {"kind": "s2", "tau_min": 5, "tau_max": 100},
    {"kind": "semantic"},
]
PUBLISHED = {5000: 3298, 2000: 7202, 1000: 12893}


@pytest.mark.slow
@pytest.mark.parametrize("options", SCHEMES, ids=lambda o: "-".join(map(str, o.values())))
def test_every_scheme_counts_draws_saves_and_assigns(land, photos, tmp_path, options):
    latitudes, longitudes = photos(1, 1500)
    made = geocells.build(geocells.check(options), latitudes, longitudes, land)
    cells = made.assign(latitudes, longitudes)
    np.testing.assert_array_equal(np.bincount(cells[cells >= 0], minlength=len(made)), made.counts)
    assert len(made) == len(set(made.space.ids)) == len(made.shapes())
    point, cell = shapely.STRtree(made.shapes()).query(shapely.points(longitudes, latitudes), "intersects")
    drawn = pd.Series(cell).groupby(point).agg(set).reindex(range(len(cells)))
    inside = cells >= 0
    assert np.mean([own in found for own, found in zip(cells[inside], drawn[inside], strict=True)]) > 0.99
    made.save(tmp_path / "cells")
    again = geocells.load(tmp_path / "cells")
    np.testing.assert_array_equal(again.assign(latitudes, longitudes), cells)
    np.testing.assert_array_equal(again.counts, made.counts)
    assert again.space.levels == made.space.levels
    assert set(made.space.parents) <= {"GRI", "FAR", "VOI"}


def test_admin_cells_are_the_units(land):
    made = geocells.build(geocells.check({"kind": "admin", "level": 1}), [40.5, 1.0], [10.5, -59.0], land)
    assert made.space.ids == ["FAR", "GRI.1_1", "GRI.2_1", "GRI.3_1", "GRI.4_1", "VOI"]
    assert made.counts.tolist() == [1, 1, 0, 0, 0, 0]
    assert made.assign([40.5, 60.0], [10.5, 100.0]).tolist() == [1, -1]
    assert made.space.levels["subdivision"][0] == "FAR"


def test_a_box_of_the_quadtree_is_split_at_the_number_and_not_beyond_the_depth(land):
    latitudes, longitudes = np.full(1000, 44.2), np.full(1000, 14.2)
    made = geocells.build(geocells.check({"kind": "quadtree"}), latitudes, longitudes, land)
    assert (made.space.ids, made.counts.tolist()) == (["10/552/763"], [1000])
    fewer = geocells.build(geocells.check({"kind": "quadtree"}), latitudes[:999], longitudes[:999], land)
    assert fewer.space.ids == ["0/0/0"]
    assert made.assign([90, -90], [180, -180]).tolist() == [0, 0]


def test_s2_cells_are_within_the_limits(land, photos):
    latitudes, longitudes = photos(2, 3000)
    made = geocells.build(geocells.check({"kind": "s2", "tau_min": 20, "tau_max": 150}), latitudes, longitudes, land)
    assert made.counts.min() >= 20
    assert made.counts.max() <= 150
    row = int(np.flatnonzero(made.assign(latitudes, longitudes) >= 0)[0])
    leaf = s2sphere.CellId.from_lat_lng(s2sphere.LatLng.from_degrees(latitudes[row], longitudes[row]))
    token = made.space.ids[made.assign(latitudes[[row]], longitudes[[row]])[0]]
    assert s2sphere.CellId.from_token(token).contains(leaf)


def test_small_squares_of_the_grid_join_others(land):
    options = {"kind": "grid", "country": "GRI", "degrees": 3, "bounds": (40, 10, 48.1, 18.1), "merge_share": 0.1}
    made = geocells.build(geocells.check(options), [44.0], [14.0], land)
    assert len(made) == 9
    sliver = geocells.build(geocells.check({**options, "bounds": (34.2, 10, 48.1, 18.1)}), [44.0], [14.0], land)
    assert len(sliver) == 9  # rows at 37.2…40.2 hold 0.2° of land only, and join the row above
    assert sliver.assign([40.1, 40.3, 1.0], [10.5, 10.5, -59.0]).tolist() == [0, 0, -1]


@pytest.mark.parametrize("bounds", [(48, 10, 40, 18), (40, 18, 48, 10), (40, 10, 40, 18), (40, 10, 48, 10)])
def test_bounds_of_a_grid_that_enclose_nothing_are_refused(bounds):
    with pytest.raises(UserError, match=r"bounds: .* expected south, west, north, east: south < north and west < east"):
        geocells.check({"kind": "grid", "bounds": bounds})


@pytest.mark.slow
def test_two_degree_squares_of_the_contiguous_states(natural_earth):
    made = geocells.build(geocells.check({"kind": "grid"}), [40.0], [-100.0], natural_earth)
    assert len(made) == 245  # published: 243, of another outline


@pytest.mark.parametrize("most", PUBLISHED)
def test_published_partitions_are_read_and_written(shared, tmp_path, most):
    path = shared / f"benchmarks/cells_50_{most}_copy.csv"
    table = scheme.read_published(path)
    assert len(table) == PUBLISHED[most]
    ids = np.sort(s2.from_tokens(table["hex_id"].tolist()))
    first, last = s2.leaf_ranges(ids)
    assert s2.is_valid(ids).all()
    assert (first[1:] > last[:-1]).all()
    scheme.write_published(table, tmp_path / "cells.csv")
    before, after = (pd.read_csv(name, dtype=str, keep_default_na=False) for name in (path, tmp_path / "cells.csv"))
    others = [column for column in scheme.COLUMNS if column != "hex_id"]
    assert before[others].equals(after[others])
    # Only the tokens that a spreadsheet took for numbers differ.
    changed = before["hex_id"] != after["hex_id"]
    assert changed.mean() < 0.04
    assert before["hex_id"][changed].str.fullmatch(r"[\d.]+(E\+\d+)?").all()
    assert path.read_text().splitlines()[0] == (tmp_path / "cells.csv").read_text().splitlines()[0]


def test_a_point_maps_to_its_published_class(shared, land):
    path = shared / "benchmarks/cells_50_5000_copy.csv"
    made = geocells.build(geocells.check({"kind": "s2", "file": str(path)}), [44.0], [14.0], land)
    points = pd.read_csv(shared / "benchmarks/im2gps3k_places365.csv")[["LAT", "LON"]].to_numpy()
    cells = made.assign(*points.T)
    assert (cells >= 0).mean() > 0.95
    for (latitude, longitude), cell in zip(points[:400], cells[:400], strict=True):
        leaf = s2sphere.CellId.from_lat_lng(s2sphere.LatLng.from_degrees(latitude, longitude))
        if cell >= 0:
            assert s2sphere.CellId.from_token(made.space.ids[cell]).contains(leaf)
    published = scheme.read_published(path)
    means = made.assign(published["latitude_mean"], published["longitude_mean"])
    np.testing.assert_array_equal(means, published["class_label"])


@pytest.mark.parametrize("token", ["xyz", "4E+²", "４.7E+06"])
def test_a_row_that_is_no_cell_is_named(tmp_path, token):
    path = tmp_path / "cells.csv"
    path.write_text(
        f"class_label,hex_id,imgs_per_cell,latitude_mean,longitude_mean\n0,8747c,827,38.67,-109.5\n1,{token},5,0,0\n"
    )
    with pytest.raises(UserError, match=rf"cells.csv, row 3: hex_id {re.escape(repr(token))}: no S2 cell"):
        scheme.read_published(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "hexagons"}, "scheme 'hexagons': unknown; expected one of: admin, grid, quadtree, s2, semantic"),
        ({"kind": "quadtree", "deep": 3}, "scheme quadtree: deep: Extra inputs are not permitted"),
        ({"kind": "s2", "tau_min": 9, "tau_max": 5}, "expected min_level ≤ max_level and tau_min ≤ tau_max"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(UserError, match=message):
        geocells.check(options)


def test_cells_of_other_boundaries_are_refused(land, folder, tmp_path):
    made = geocells.build(geocells.check({"kind": "admin"}), [44.0], [14.0], land)
    made.save(tmp_path / "cells")
    with pytest.raises(UserError, match="not the units that"):
        geocells.load(tmp_path / "cells", folder)
    with pytest.raises(UserError, match=r"cells.json: no such file; expected a folder of cells"):
        geocells.load(tmp_path)
