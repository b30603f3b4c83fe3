"""What docs/extending.md promises: a layout, an encoder kind and a family are a module and an entry each."""

import json
import shutil

import numpy as np
import pytest
import yaml
from PIL import Image

from geoloc_core.code import Sources, digests
from geoloc_core.params import load

from .commands import commands
from .conftest import PHOTOS, ROOT, write_countries

pytestmark = pytest.mark.slow

MODULES = {
    "corpora/sources/listed_json.py": '''"""Photos listed in a JSON file."""

import json
from pathlib import Path
from typing import Literal

import pyarrow as pa

from geoloc_core.corpora.photo import Photo, Source, SourceOptions


class Options(SourceOptions):
    """Where the list is."""

    kind: Literal["listed_json"]
    listed: str = "photos.json"


def read(options: Options, raw: Path) -> Source:
    """Every photo of the list."""
    rows = json.loads((raw / options.listed).read_text())
    return Source((_photo(raw, row) for row in rows), pa.schema([]), len(rows))


def _photo(raw: Path, row: dict) -> Photo:
    latitude, longitude = row["place"]
    data = (raw / row["file"]).read_bytes()
    return Photo(row["file"], data, row["file"], row["by"], latitude=latitude, longitude=longitude)
''',
    "encoders/towers/mean_colour.py": '''"""The mean colour of a photo."""

from pathlib import Path
from typing import Literal

import numpy as np

from geoloc_core.encoders.encoder import Encoder
from geoloc_core.encoders.options import Tower
from geoloc_core.encoders.preprocess import Preprocess

FILES = ("gain.txt",)


class Options(Tower):
    """The tower."""

    kind: Literal["mean_colour"]


def load(options: Options, weights: Path) -> Encoder:
    """Read its only weight."""
    gain = float((weights / "gain.txt").read_text())
    preprocess = Preprocess(8, "squash", "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

    def forward(photos: np.ndarray) -> np.ndarray:
        return gain * photos.astype(np.float32).mean(axis=(1, 2)) / 255

    return Encoder((3,), options.batch, preprocess, forward, {"kind": options.kind})
''',
    "families/nearest_mean.py": '''"""The class whose mean feature is nearest."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from geoloc_core.contracts.batch import Batch, Data, Fitted, Run
from geoloc_core.contracts.geolocator import read_tensors, write_tensors
from geoloc_core.contracts.needs import ImageFeatures, Needs
from geoloc_core.contracts.options import Variant
from geoloc_core.contracts.prediction import Prediction, softmax
from geoloc_core.geo.labelspace import LabelSpace


class Options(Variant):
    """A variant of this family."""

    kind: Literal["nearest_mean"]
    encoder: str
    labels: str

    def needs(self) -> Needs:
        """One vector per photo."""
        return Needs(inputs=(ImageFeatures(encoder=self.encoder),), labels=self.labels)


@dataclass(frozen=True)
class NearestMean:
    """The means (C, D)."""

    encoder: str
    labelspace: LabelSpace
    means: np.ndarray

    def predict(self, batch: Batch, k: int = 5, truth: np.ndarray | None = None) -> Prediction:
        """Nearer means are more probable."""
        features = np.asarray(batch.images[self.encoder], np.float32)
        distances = ((features[:, None] - self.means) ** 2).sum(axis=2)
        return Prediction.of_probabilities(softmax(-distances), self.labelspace, k, truth)

    def save(self, folder: Path) -> None:
        """Write the means."""
        write_tensors(folder, {"means": self.means})


def fit(data: Data, options: Options, run: Run) -> Fitted:
    """Take the means."""
    features = np.asarray(data.images[options.encoder], np.float32)
    rows = [data.training[data.targets[data.training] == c] for c in range(len(data.space))]
    return Fitted(NearestMean(options.encoder, data.space, np.stack([features[own].mean(axis=0) for own in rows])))


def load(folder: Path, needs: Needs, space: LabelSpace, remedy: str) -> NearestMean:
    """Read the means."""
    return NearestMean(needs.encoders[0], space, read_tensors(folder, remedy)["means"])
''',
}
PLACES = {
    "France": (48.9, 2.3, "FRA", (200, 30, 30)),
    "Kenya": (-1.3, 36.8, "KEN", (30, 200, 30)),
    "Spain": (40.4, -3.7, "ESP", (30, 30, 200)),
}
STAGES = (
    "fetch photos", "boundaries", "ingest photos", "label photos", "leaks", "truth photos", "download net",
    "encode photos --encoder net", "train nearest", "answer nearest", "score nearest", "leaderboard",
)  # fmt: skip


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the package with the modules in it, and a project that uses them."""
    root = tmp_path_factory.mktemp("extended")
    shutil.copytree(ROOT / "geoloc_core", root / "geoloc_core")  # with what numba has compiled
    for name, text in MODULES.items():
        assert not (root / "geoloc_core" / name).exists()
        (root / "geoloc_core" / name).write_text(text)
    given, rows, rng = root / "given", [], np.random.default_rng(0)
    given.mkdir()
    for number in range(30):
        who, (latitude, longitude, _, colour) = list(PLACES.items())[number % 3]
        noise = rng.integers(-25, 25, (40, 40, 3)) + np.array(colour)
        Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(given / f"{number}.png")
        place = [latitude + rng.normal(0, 0.05), longitude + rng.normal(0, 0.05)]
        rows.append({"file": f"{number}.png", "by": f"{who}{number // 3}", "place": place})
    (given / "photos.json").write_text(json.dumps(rows))
    (root / "gain.txt").write_text("4")
    boundaries = write_countries(root, {name: place[:3] for name, place in PLACES.items()})
    (root / "params.yaml").write_text(yaml.safe_dump({"run": profile(boundaries)}))
    return root


def profile(boundaries):
    return {
        **PHOTOS,
        "boundaries": boundaries,
        "corpora": {
            "photos": {
                "role": "train",
                "fetch": {"kind": "files", "path": "given"},
                "source": {"kind": "listed_json"},
            }
        },
        "checkpoints": {"net": {"file": "gain.txt"}},
        "encoders": {"net": {"kind": "mean_colour"}},
        "variants": {"nearest": {"kind": "nearest_mean", "corpus": "photos", "encoder": "net", "labels": "country"}},
    }


def test_modules_and_entries_alone_run_from_photos_to_the_leaderboard(extended):
    *stages, shown = commands(extended, *STAGES, "leaderboard --show", PYTHONPATH=str(extended))
    assert "30 kept + 0 refused = 30 seen" in stages[STAGES.index("ingest photos")]
    scores = json.loads((extended / "data/scores/nearest/scores.json").read_text())["benchmarks"]["validation"]
    assert scores["accuracy"] > scores["majority_accuracy"]
    assert scores["accuracy"] == 100
    assert "nearest" in shown


def test_they_make_no_other_stage_out_of_date(extended):
    made = load(ROOT / "params.yaml")
    assert digests(made, Sources(extended / "geoloc_core")) == digests(made, Sources(ROOT / "geoloc_core"))
