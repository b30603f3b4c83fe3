"""What tests share: no network, no telemetry, and small projects to work in."""

import gc
import os
import shutil
import tempfile
from pathlib import Path

import hypothesis
import psutil
import pytest
import yaml

from geoloc_core import telemetry

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", **telemetry.OFF}
# the workers share the cores: threads of several of them, each waiting for its own, would be ten times as slow
os.environ.setdefault("OMP_NUM_THREADS", "1")
for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
    os.environ.pop(name, None)  # a developer's own server is not for tests

# the same examples for everyone, so that a failure is anyone's to repeat; HYPOTHESIS_EXPLORE=1 looks for new ones
hypothesis.settings.register_profile("default", deadline=None)  # no test asserts a time
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("default" if "HYPOTHESIS_EXPLORE" in os.environ else "repeatable")

MEMORY = Path("/dev/shm")
ROOM = 2**33
if (
    "TMPDIR" not in os.environ
    and MEMORY.is_dir()
    and min(shutil.disk_usage(MEMORY).free, psutil.virtual_memory().available // 2) > ROOM
):
    # the suite writes some gigabytes, and waits for databases that wait for the disk
    os.environ["TMPDIR"], tempfile.tempdir = str(MEMORY), None

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests"
SHARED = ROOT.parent / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole graphs first, then stages, then the rest: the longest file must not be the last, alone on one core."""
    first = (TESTS / "test_pipeline.py", TESTS, TESTS / "orchestration")

    def turn(item: pytest.Item) -> int:
        return next((n for n, path in enumerate(first) if path in (item.path, item.path.parent)), len(first))

    items.sort(key=turn)


def pytest_collection_finish() -> None:
    """What is loaded is for good: the collector need not look at it again and again."""
    gc.freeze()


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real photographs, boundaries and coordinates, where the developers have them."""
    if not SHARED.is_dir():
        pytest.skip("the real data for tests is not here (../shared/data)")
    return SHARED


def write_countries(root: Path, countries: dict[str, tuple[float, float, str]]) -> dict[str, str]:
    """Draw countries for a project, each a square degree around a place: the world of GeoNames takes long to build.

    Args:
        root: The project.
        countries: Latitude, longitude and ISO 3166-1 alpha-3 code of each, by its name.

    Returns:
        The project's ``boundaries``.
    """
    import geopandas
    import numpy as np
    import shapely

    from geoloc_core.files import sha256_of

    latitudes, longitudes, codes = map(np.array, zip(*countries.values(), strict=True))
    columns = {"ISO_A3_EH": codes, "ADM0_A3": codes, "ADMIN": list(countries)}
    squares = shapely.box(longitudes - 0.5, latitudes - 0.5, longitudes + 0.5, latitudes + 0.5)
    path = root / "countries.geojson"
    geopandas.GeoDataFrame(columns, geometry=squares, crs="EPSG:4326").to_file(path)
    return {"kind": "natural_earth", "path": path.name, "sha256": sha256_of(path)}


PHOTOS = {
    "description": "A folder of photos.",
    "demo": False,
    "seed": 20,
    "boundaries": {"kind": "geonames", "min_population": 15000, "reach_km": 150},
    "labels": {},
    "corpora": {
        "photos": {"role": "train", "fetch": {"kind": "files", "path": "given"}, "source": {"kind": "photos"}},
    },
    "pretrain": {},
    "pretrain_from": {},
    "checkpoints": {"net": {"file": "net.onnx"}},
    "encoders": {"net": {"kind": "onnx", "output": "embedding"}},
    "texts": {},
    "text_encoders": {},
    "variants": {"linear": {"kind": "classifier", "corpus": "photos", "encoders": ["net"], "labels": "country"}},
    "evaluation": {},
    "registry": {"model": "geolocator", "benchmark": "validation", "metric": "within_750km"},
}


@pytest.fixture
def tiny_project(tmp_path):
    """A project of one folder of photos and one ONNX network, with nothing in it yet."""
    from geoloc_core.project import Project

    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"run": PHOTOS}))
    return Project.open(tmp_path / "params.yaml")
