import shutil
from pathlib import Path

import geopandas
import pandas as pd
import pytest
import shapely

from geoloc_core.geo import boundaries

SHARED = Path(__file__).resolve().parents[3] / "../shared/data"


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip("needs the folder of real files, ../shared/data")
    return SHARED


@pytest.fixture(scope="session")
def natural_earth(shared, tmp_path_factory) -> Path:
    """A boundaries folder of Natural Earth's countries at 1:10 m."""
    from geoloc_core.geo.sources import natural_earth

    options = natural_earth.Options(kind="natural_earth", path=shared / "boundaries/ne_10m_admin_0_countries.gpkg")
    folder = tmp_path_factory.mktemp("ne") / "boundaries"
    boundaries.write(natural_earth.read(options, folder), folder)
    return folder


def frame(columns: dict, shapes: list) -> geopandas.GeoDataFrame:
    return geopandas.GeoDataFrame(columns, geometry=shapes, crs="EPSG:4326")


def small_world() -> dict:
    """Alba in two parts, the west of it divided again; Fidzi at the antimeridian, undivided."""
    west, east = shapely.box(0, 0, 10, 10), shapely.box(10, 0, 20, 10)
    fidzi = shapely.union(shapely.box(179, -2, 180, 2), shapely.box(-180, -2, -179, 2))
    countries = {"GID_0": ["ALB", "FJI"], "COUNTRY": ["Alba", "Fidzi"]}
    parts = {"GID_1": ["ALB.1_1", "ALB.2_1"], "GID_0": "ALB", "COUNTRY": "Alba", "NAME_1": ["West", "East"]}
    south, north = shapely.box(0, 0, 10, 5), shapely.box(0, 5, 10, 10)
    finest = {
        "GID_2": ["ALB.1.1_1", "ALB.1.2_1"],
        "GID_0": "ALB",
        "COUNTRY": "Alba",
        "GID_1": "ALB.1_1",
        "NAME_1": "West",
        "NAME_2": ["South", None],
    }
    kinds = {"TYPE_1": "part", "ENGTYPE_1": "part"}
    return {
        0: frame(countries, [shapely.box(0, 0, 20, 10), fidzi]),
        1: frame({**parts, **kinds}, [west, east]),
        2: frame({**finest, "TYPE_2": "bit", "ENGTYPE_2": "bit"}, [south, north]),
    }


@pytest.fixture
def levels() -> dict:
    """A small world for a test to change."""
    return small_world()


@pytest.fixture(scope="session")
def kept_levels() -> dict:
    """The same for tests that only read it."""
    return small_world()


@pytest.fixture
def units(levels) -> pd.DataFrame:
    return boundaries.units_of(levels)


@pytest.fixture(scope="session")
def kept_folder(kept_levels, tmp_path_factory) -> Path:
    """The same as a boundaries folder, for tests that only read it."""
    folder = tmp_path_factory.mktemp("small") / "boundaries"
    boundaries.write(kept_levels, folder)
    return folder


@pytest.fixture
def folder(kept_folder, tmp_path) -> Path:
    """The same for a test to change."""
    return shutil.copytree(kept_folder, tmp_path / "boundaries")
