"""The rasters of the world say what its photos show."""

import numpy as np
import pytest

from geoloc_core.corpora.world import atlas
from geoloc_core.corpora.world.climate import climate
from geoloc_core.geo.facts import Source, Sources, Zones
from geoloc_core.geo.rasters import KOPPEN_BECK
from geoloc_core.geo.towns import Towns


def test_rasters_are_the_world_at_its_towns(tmp_path, monkeypatch):
    some = Towns.load(15000).first(12)
    monkeypatch.setattr(Towns, "load", lambda *_: some)
    atlas.write(tmp_path / "rasters")
    quantities = {name: Source(file=f"{name}.tif") for name in ("elevation", "population", "temperature_mean")}
    sources = Sources(path="rasters", climate=Zones(file="climate.tif"), **quantities)
    middle = np.floor(some.latitudes / atlas.STEP) * atlas.STEP + atlas.STEP / 2
    across = np.floor(some.longitudes / atlas.STEP) * atlas.STEP + atlas.STEP / 2
    found = sources.sample(tmp_path, middle, across, np.ones(12))
    for at, (latitude, longitude) in enumerate(zip(middle, across, strict=True)):
        land = climate(latitude, longitude, 7)
        assert found["elevation"][at] == pytest.approx(land.elevation_m, rel=1e-5)
        assert found["temperature_mean"][at] == pytest.approx(land.annual_c, rel=1e-4, abs=1e-4)
        spread = abs(land.temperature_c - climate(latitude, longitude, 1).temperature_c)
        assert KOPPEN_BECK[int(found["climate"][at])] == atlas.zone(land, spread)
    assert (found["population"] > 300).all(), "these are the largest cities"
