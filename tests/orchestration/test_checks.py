"""The checks on real tables, as Dagster asks them."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from PIL import Image

from geoloc_core.corpora.ingest import ingest_alone
from geoloc_core.params import Corpus
from orchestration.checks import stage_check
from tests.conftest import ROOT

pytestmark = pytest.mark.slow  # Great Expectations takes seconds to import

CORPUS = Corpus.model_validate(
    {"role": "train", "fetch": {"kind": "files", "path": "x"}, "source": {"kind": "photos", "table": "t.csv"}}
)


def ingest(root, photos: int) -> None:
    raw = root / "given"
    shutil.rmtree(raw, ignore_errors=True)
    raw.mkdir()
    for number in range(photos):
        noise = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(noise).save(raw / f"{number}.png")
    rows = "".join(f"{number}.png,{number + 1},2\n" for number in range(photos))
    (raw / "t.csv").write_text(f"path,latitude,longitude\n{rows}")
    ingest_alone("mp16", CORPUS, raw, root / "data/corpora/mp16")


def asked(root, name: str = "manifest"):
    look = SimpleNamespace(check=name)
    return stage_check(root, SimpleNamespace(name="ingest@mp16", subject="mp16", look=look))()


def test_a_corpus_that_shrank_or_was_refused_blocks_and_markdown_says_what_moved(tmp_path):
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"run": params["profiles"]["demo"]}))
    ingest(tmp_path, 8)
    for _ in range(2):
        first = asked(tmp_path)
        assert first.passed
        assert "the first version: nothing to compare with" in first.metadata["report"].value
    ingest(tmp_path, 4)
    second = asked(tmp_path)
    assert not second.passed
    assert second.metadata["failed"].value == 1
    said = second.metadata["report"].value.splitlines()[2]
    assert said.startswith("| drift of photos at most 25% |  | 1 | 8 → 4 photos; 100.0% since the version of ")
    assert said.endswith("if this is intended, run: geoloc check mp16 --accept | ✗ |")
