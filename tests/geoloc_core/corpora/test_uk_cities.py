from dataclasses import replace

import pandas as pd
import pytest
from made_layouts import shots, split
from made_photos import encoded, write

from geoloc_core.corpora.simulated import Simulation
from geoloc_core.corpora.sources.uk_cities import PLAN, Options, merged, read
from geoloc_core.corpora.sources.uk_cities import write as write_rendered
from geoloc_core.errors import UserError

OPTIONS = Options(kind="uk_cities")
LABELS = (
    "city,latitude,longitude,population\nLeeds,53.8,-1.55,800000\nPudsey,53.79,-1.66,30000\nYork,53.96,-1.08,200000\n"
)


def test_suburbs_count_for_their_city(tmp_path):
    write(tmp_path, {"cities.csv": LABELS.encode(), "images/Pudsey+53.79,-1.66/90_2019-05.jpg": encoded(1)})
    write(tmp_path, {"images/York+53.9,-1.1/0_2019-05.jpg": encoded(2), "images/Bath+51.4,-2.4/0_2019-05.jpg": b"x"})
    write(tmp_path, {"images/York/0_2019-05.jpg": encoded(3)})
    photos, refused = split(read(OPTIONS, tmp_path))
    found = {p.attributes["suburb"]: (p.attributes["city"], p.heading, p.flaw and p.flaw[0].value) for p in photos}
    assert found == {"Pudsey": ("Leeds", 90, None), "York": ("York", 0, None), "Bath": (None, 0, "excluded")}
    assert [(item.image_id, item.reason.value) for item in refused] == [("York/0_2019-05.jpg", "no_metadata")]


def test_a_month_of_no_year_is_named(tmp_path):
    name = "York+53.9,-1.1/0_0000-05.jpg"
    write(tmp_path, {"cities.csv": LABELS.encode(), f"images/{name}": encoded(2)})
    ((photo,), _) = split(read(OPTIONS, tmp_path))
    assert (photo.heading, photo.captured_at) == (0, None)
    assert photo.unusable["captured_at"].startswith(f"{name}: '0000-05'; expected a date")


def test_only_the_most_populous_count(tmp_path):
    write(tmp_path, {"cities.csv": LABELS.encode(), "images/x.jpg": b""})
    table = pd.read_csv(tmp_path / "cities.csv", dtype=str)
    assert merged(table, OPTIONS.model_copy(update={"cities": 2})) == {"Leeds": "Leeds", "York": "York"}
    assert len(merged(table, OPTIONS.model_copy(update={"merge_km": 0}))) == 3


def test_rendered_cities_are_as_populous_as_they_have_views(tmp_path):
    """So that the photos of the most populous are most of a corpus, whichever city is rendered first."""
    names = ["Bath", "York", "York", "Bath", "York"]
    rendered = [
        replace(shot, city=name, spot=at) for at, (shot, name) in enumerate(zip(shots(PLAN, 5), names, strict=True))
    ]
    write_rendered(Simulation(rendered), tmp_path, OPTIONS)
    table = pd.read_csv(tmp_path / "cities.csv", dtype=str)
    assert dict(zip(table["city"], table["population"], strict=True)) == {"Bath": "2000", "York": "3000"}
    assert set(merged(table, OPTIONS.model_copy(update={"cities": 1}))) == {"York"}


def test_a_city_without_a_place_is_named(tmp_path):
    write(tmp_path, {"cities.csv": b"city,latitude,longitude,population\nLeeds,x,1,2\n", "images/x.jpg": b""})
    with pytest.raises(UserError, match=r"cities\.csv row 2"):
        read(OPTIONS, tmp_path)


def test_the_150_most_populous_cities_become_102(shared):
    """As the slides count them, which do not state their rule: the distance is chosen for that."""
    table = pd.read_csv(shared / "gazetteer/gb_cities15000.csv", dtype=str).rename(columns={"name": "city"})
    found = merged(table, OPTIONS)
    assert len(set(found.values())) == 102
    assert found["London"] == "London"
    assert found["Salford"] == "Manchester"
