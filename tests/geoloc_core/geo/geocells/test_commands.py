import json

import pandas as pd
import pytest
from click.testing import CliRunner

from geoloc_core.cli import geoloc
from geoloc_core.errors import UserError
from geoloc_core.geo import geocells


def call(*words):
    return CliRunner().invoke(geoloc, ["cells", *map(str, words)], catch_exceptions=False, standalone_mode=False)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_points_are_built_from_and_assigned(land, photos, tmp_path, suffix):
    latitudes, longitudes = photos(3, 400)
    points, out = tmp_path / f"points{suffix}", tmp_path / f"out{suffix}"
    table = pd.DataFrame({"photo": [f"p{n}" for n in range(405)], "latitude": latitudes, "longitude": longitudes})
    table.to_csv(points, index=False) if suffix == ".csv" else table.to_parquet(points)
    cells = tmp_path / "cells"
    settings = ["--set", "min_points=20", "--set", "rounds=[[8, 0.05]]"]
    call("build", points, "--scheme", "semantic", *settings, "--boundaries", land, "--out", cells)
    call("assign", points, "--cells", cells, "--out", out)
    found = pd.read_csv(out) if suffix == ".csv" else pd.read_parquet(out)
    made = geocells.load(cells)
    assert found["photo"].tolist() == table["photo"].tolist()
    assert found["cell"].tolist() == made.assign(latitudes, longitudes).tolist()
    assert found["cell_id"].tolist() == [made.space.ids[cell] for cell in found["cell"]]
    assert made.options.min_points == 20


@pytest.mark.slow
def test_cells_are_drawn(land, photos, tmp_path):
    made = geocells.build(geocells.check({"kind": "semantic"}), *photos(3, 400), land)
    made.save(tmp_path / "cells")
    call("map", tmp_path / "cells", "--out", tmp_path / "map.png")
    call("map", tmp_path / "cells", "--out", tmp_path / "map.html")
    assert (tmp_path / "map.png").read_bytes()[:4] == b"\x89PNG"
    page = (tmp_path / "map.html").read_text()
    data = json.loads(page.split("const data = ")[1].split(";\nconst $")[0].replace("<\\/", "</"))
    assert data["ids"] == made.space.ids
    assert data["counts"] == made.counts.tolist()
    assert "http" not in page.replace("http-equiv", "")
    with pytest.raises(UserError, match=r"map.svg: expected a name that ends in .png or .html"):
        call("map", tmp_path / "cells", "--out", tmp_path / "map.svg")


def test_s2_cells_are_exported_as_published_and_read_back(land, photos, tmp_path):
    latitudes, longitudes = photos(3, 900)
    options = {"kind": "s2", "tau_min": 10, "tau_max": 90}
    made = geocells.build(geocells.check(options), latitudes, longitudes, land)
    made.save(tmp_path / "cells")
    call("export", tmp_path / "cells", "--out", tmp_path / "s2.csv")
    again = geocells.build(geocells.check({"kind": "s2", "file": tmp_path / "s2.csv"}), latitudes, longitudes, land)
    assert again.space.ids == made.space.ids
    assert again.counts.tolist() == made.counts.tolist()
    geocells.build(geocells.check({"kind": "admin"}), latitudes, longitudes, land).save(tmp_path / "admin")
    with pytest.raises(UserError, match="not S2 cells"):
        call("export", tmp_path / "admin", "--out", tmp_path / "no.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lat,longitude\n1,2\n", "no column latitude"),
        ("latitude,longitude\n1,2\n95,3\n", r"column latitude, row 3: 95; expected −90 … 90 degrees"),
        ("latitude,longitude\n1,2\n5,\n", r"column longitude, row 3: empty; expected −180 … 180 degrees"),
        ("latitude,longitude\n", "points: none"),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_written(land, tmp_path, text, message):
    points = tmp_path / "points.csv"
    points.write_text(text)
    with pytest.raises(UserError, match=message):
        call("build", points, "--scheme", "admin", "--boundaries", land, "--out", tmp_path / "cells")
    assert not (tmp_path / "cells").exists()


def test_a_setting_without_a_value_is_named(land, tmp_path):
    with pytest.raises(UserError, match="--set depth: expected KEY=VALUE"):
        call("build", "x.csv", "--scheme", "quadtree", "--set", "depth", "--boundaries", land, "--out", tmp_path / "c")
