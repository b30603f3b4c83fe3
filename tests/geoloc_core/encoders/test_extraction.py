"""Features are row-aligned with the manifest, resume by shard, and follow their encoder."""

import numpy as np
import pytest

from geoloc_core.corpora import manifest
from geoloc_core.encoders import extraction, store
from geoloc_core.encoders.encoder import Encoder
from geoloc_core.encoders.preprocess import Preprocess
from geoloc_core.errors import UserError
from geoloc_core.files import digest

from .test_preprocess import photo


@pytest.fixture
def project(tiny_project, monkeypatch):
    """A corpus of 30 photos in three shards, and a tower that answers with the mean colour."""
    folder = tiny_project.corpus("photos")
    (folder / "shards").mkdir(parents=True)
    import pyarrow as pa
    import pyarrow.parquet as pq

    ids = [f"p{i:02d}" for i in range(30)]
    for shard in range(3):
        chosen = ids[shard * 10 : shard * 10 + 10]
        images = [{"bytes": photo(40 + int(name[1:]), 50), "path": f"{name}.jpg"} for name in chosen]
        pq.write_table(
            pa.table({"image_id": chosen, "image": images}, manifest.SHARD), manifest.shard_path(folder, shard)
        )
    rows = {"image_id": ids, "corpus": ["photos"] * 30, "shard": np.repeat(range(3), 10), "row": list(range(10)) * 3}
    rows |= {"group_id": ids, "width": [40] * 30, "height": [50] * 30, "sha256": ids}
    table = pa.table({name: rows.get(name, [None] * 30) for name in manifest.MANIFEST.names})
    manifest.write_table(table, folder / "manifest.parquet", manifest.MANIFEST)
    calls = []

    def forward(images):
        calls.append(len(images))
        return images.mean(axis=(1, 2), dtype=np.float32)

    preprocess = Preprocess(32, "crop", "bilinear", (0.5,) * 3, (0.5,) * 3)
    tower = Encoder((3,), 4, preprocess, forward, {"weights": "w"})
    monkeypatch.setattr(extraction, "load", lambda options, weights: tower)
    return tiny_project, tower, calls


def expected(project, tower) -> np.ndarray:
    photos = [p for shard in manifest.shards(project.corpus("photos")) for g in manifest.read_photos(shard) for p in g]
    return tower(photos).astype(np.float16)


def test_features_stand_in_the_order_of_the_manifest(project):
    project, tower, _ = project
    extraction.encode(project, "photos", "net")
    features = store.read(project.features("net", "photos"))
    np.testing.assert_array_equal(features, expected(project, tower))
    assert isinstance(features, np.memmap)
    assert store.note(project.features("net", "photos"))["fingerprint"] == tower.fingerprint
    assert not project.partial("encode", "x").parent.exists() or not any(
        project.partial("encode", "x").parent.iterdir()
    )


def test_finished_shards_are_not_encoded_again(project, monkeypatch):
    project, tower, calls = project
    extraction.encode(project, "photos", "net")
    whole, per_shard = digest(project.features("net", "photos")), len(calls) // 3
    calls.clear()
    monkeypatch.setattr(extraction.store, "write", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        extraction.encode(project, "photos", "net")
    next(project.partial("encode", "").glob("net-photos-*/00001.npy")).unlink()
    monkeypatch.undo()
    monkeypatch.setattr(extraction, "load", lambda options, weights: tower)
    calls.clear()
    extraction.encode(project, "photos", "net")
    assert len(calls) == per_shard
    assert digest(project.features("net", "photos")) == whole


def test_what_is_missing_is_named_with_its_remedy(project):
    project, _, _ = project
    with pytest.raises(UserError, match="run `geoloc encode photos --encoder net` first"):
        store.read(project.features("net", "photos"))
    (project.corpus("photos") / "manifest.parquet").unlink()
    with pytest.raises(UserError, match="no such file; expected the manifest"):
        extraction.encode(project, "photos", "net")
