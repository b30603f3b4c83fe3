import geopandas
import numpy as np
import pytest
import shapely

from geoloc_core.geo import boundaries


def frame(columns: dict, shapes: list) -> geopandas.GeoDataFrame:
    return geopandas.GeoDataFrame(columns, geometry=shapes, crs="EPSG:4326")


@pytest.fixture(scope="session")
def land(tmp_path_factory):
    """Gridia of 8 × 8 squares in four provinces and an island; Farland, small; Voidia without photos."""
    cells = [(row, column) for row in range(8) for column in range(8)]
    squares = [shapely.box(10 + c, 40 + r, 11 + c, 41 + r) for r, c in cells] + [shapely.box(21, 40, 22, 41)]
    province = [1 + (r // 4) * 2 + c // 4 for r, c in cells] + [2]
    common = {"GID_0": "GRI", "COUNTRY": "Gridia"}
    second = {
        "GID_2": [f"GRI.{p}.{n}_1" for n, p in enumerate(province)],
        "GID_1": [f"GRI.{p}_1" for p in province],
        "NAME_1": [f"P{p}" for p in province],
        "NAME_2": [f"Square {n}" for n in range(len(squares))],
    }
    level_2 = frame({**second, **common, "TYPE_2": "square", "ENGTYPE_2": "square"}, squares)
    parts = level_2.dissolve("GID_1").reset_index()
    first = {"GID_1": parts["GID_1"], "NAME_1": parts["NAME_1"]}
    level_1 = frame({**first, **common, "TYPE_1": "part", "ENGTYPE_1": "part"}, parts.geometry.to_list())
    shapes = [shapely.box(-60, 0, -58, 2), shapely.union_all(squares), shapely.box(-50, 0, -48, 2)]
    level_0 = frame({"GID_0": ["FAR", "GRI", "VOI"], "COUNTRY": ["Farland", "Gridia", "Voidia"]}, shapes)
    folder = tmp_path_factory.mktemp("land") / "boundaries"
    boundaries.write({0: level_0, 1: level_1, 2: level_2}, folder)
    return folder


def take(seed: int, count: int, far: int = 5, repeats: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Photos of a few towns in Gridia, some everywhere, and a few in Farland."""
    rng = np.random.default_rng(seed)
    towns = rng.uniform([40.5, 10.5], [47.5, 17.5], (5, 2))
    at = towns[rng.integers(0, 5, count)] + rng.normal(size=(count, 2)) * rng.exponential(0.3, (count, 1))
    at[::4] = rng.uniform([40, 10], [48, 18], (len(at[::4]), 2))
    at = np.clip(at, [40.001, 10.001], [47.999, 17.999])
    at[: count // 3] = np.repeat(at[: count // 3 : repeats], repeats, axis=0)[: count // 3]
    away = rng.uniform([0.1, -59.9], [1.9, -58.1], (far, 2))
    return tuple(np.concatenate([at, away]).T)  # type: ignore[return-value]


@pytest.fixture(scope="session")
def photos():
    return take
