"""Features are row-aligned with the manifest, resume by shard, and follow their encoder."""

import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from geoloc_core import files
from geoloc_core.corpora import manifest
from geoloc_core.encoders import extraction, store
from geoloc_core.encoders.encoder import Encoder
from geoloc_core.encoders.preprocess import Preprocess
from geoloc_core.errors import UserError
from geoloc_core.files import digest

from .test_preprocess import photo


def write_corpus(folder, shards: list[list[bytes]]) -> None:
    """A corpus folder whose shards hold these photos, in row groups of 4."""
    (folder / "shards").mkdir(parents=True)
    names = iter(f"p{i:02d}" for i in range(10_000))
    ids = [[next(names) for _ in photos] for photos in shards]
    for number, (chosen, photos) in enumerate(zip(ids, shards, strict=True)):
        images = [{"bytes": data, "path": f"{name}.jpg"} for name, data in zip(chosen, photos, strict=True)]
        table = pa.table({"image_id": chosen, "image": images}, manifest.SHARD)
        pq.write_table(table, manifest.shard_path(folder, number), row_group_size=4)
    flat = [name for chosen in ids for name in chosen]
    rows = {"image_id": flat, "corpus": ["photos"] * len(flat), "group_id": flat, "sha256": flat}
    rows["shard"] = [number for number, chosen in enumerate(ids) for _ in chosen]
    rows["row"] = [row for chosen in ids for row in range(len(chosen))]
    rows |= {"width": [40] * len(flat), "height": [50] * len(flat)}
    table = pa.table({name: rows.get(name, [None] * len(flat)) for name in manifest.MANIFEST.names})
    manifest.write_table(table, folder / "manifest.parquet", manifest.MANIFEST)


PHOTOS = [[photo(40 + 10 * shard + row, 50) for row in range(10)] for shard in range(3)]


def mean_colour(calls: list[int]) -> Encoder:
    def forward(images):
        calls.append(len(images))
        return images.mean(axis=(1, 2), dtype=np.float32)

    preprocess = Preprocess(32, "crop", "bilinear", (0.5,) * 3, (0.5,) * 3)
    return Encoder((3,), 4, preprocess, forward, {"weights": "w"})


@pytest.fixture
def project(tiny_project, monkeypatch):
    """A corpus of 30 photos in three shards, and a tower that answers with the mean colour."""
    write_corpus(tiny_project.corpus("photos"), PHOTOS)
    calls: list[int] = []
    tower = mean_colour(calls)
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


@pytest.mark.parametrize("data", [b"", b"\x93NUMPY", bytes(range(256))])
def test_a_damaged_part_is_encoded_again(project, monkeypatch, data):
    made, _, _ = project
    monkeypatch.setattr(extraction, "remove", lambda path: None)
    extraction.encode(made, "photos", "net")
    whole = store.read(made.features("net", "photos")).copy()
    next(made.partial("encode", "").glob("net-photos-*/00001.npy")).write_bytes(data)
    extraction.encode(made, "photos", "net")
    np.testing.assert_array_equal(store.read(made.features("net", "photos")), whole)


def test_what_is_missing_is_named_with_its_remedy(project):
    project, _, _ = project
    with pytest.raises(UserError, match="run `geoloc encode photos --encoder net` first"):
        store.read(project.features("net", "photos"))
    (project.corpus("photos") / "manifest.parquet").unlink()
    with pytest.raises(UserError, match="no such file; expected the manifest"):
        extraction.encode(project, "photos", "net")


def test_batches_are_filled_across_row_groups(project):
    project, _, calls = project
    shards = [PHOTOS[0] + PHOTOS[1]]
    write_corpus(project.root / "one", shards)
    tower = replace(mean_colour(calls), batch=7)
    done = list(extraction.extract(tower, manifest.shards(project.root / "one"), project.root))
    assert calls == done == [7, 7, 6]


def test_a_part_depends_on_its_shard_alone(project, tmp_path):
    project, tower, _ = project
    shards = manifest.shards(project.corpus("photos"))
    together, apart = tmp_path / "together", tmp_path / "apart"
    for folder, orders in ((together, [shards]), (apart, [shards[2:], [shards[1], shards[0]]])):
        folder.mkdir()
        for chosen in orders:
            list(extraction.extract(tower, chosen, folder))
    assert digest(together) == digest(apart)
    assert all(extraction.is_done(shard, apart) for shard in shards)


def test_one_corrupt_photo_costs_one_row(project, capsys):
    project, tower, _ = project
    broken = [list(photos) for photos in PHOTOS]
    broken[1][3], broken[2][9] = broken[1][3][:300], b""
    folder = project.corpus("photos")
    whole = expected(project, tower)
    files.remove(folder)
    write_corpus(folder, broken)
    extraction.encode(project, "photos", "net")
    out = project.features("net", "photos")
    np.testing.assert_array_equal(store.missing([out]), [13, 29])
    missing = store.note(out)["missing"]
    assert [photo["image_id"] for photo in missing] == ["p13", "p29"]
    assert all("not a readable photo" in photo["reason"] for photo in missing)
    features = store.read(out)
    assert np.isnan(features[[13, 29]]).all()
    kept = np.delete(np.arange(30), [13, 29])
    np.testing.assert_array_equal(features[kept], whole[kept])
    assert "2 photos could not be read and have no features: p13, p29" in capsys.readouterr().err
    assert files.read_json(project.summary("encode", "net-photos"))["missing"] == 2


def test_a_corpus_of_nothing_readable_is_refused(project):
    project, _, _ = project
    files.remove(project.corpus("photos"))
    write_corpus(project.corpus("photos"), [[b"x", b"y"]])
    with pytest.raises(UserError, match="none of the 2 photos could be read: not a readable photo"):
        extraction.encode(project, "photos", "net")
    assert not project.features("net", "photos").exists()


def test_shards_that_are_not_the_manifests_are_refused_before_they_are_encoded(project):
    project, _, calls = project
    manifest.shards(project.corpus("photos"))[1].unlink()
    with pytest.raises(UserError, match="photos: the shards hold 20 photos, the manifest 30; ingest it again"):
        extraction.encode(project, "photos", "net")
    assert not calls


def test_tokens_are_kept_row_by_row(project, monkeypatch):
    project, tower, _ = project

    def forward(images):  # the mean colour of each half
        return np.stack([images[:, :16].mean((1, 2)), images[:, 16:].mean((1, 2))], axis=1).astype(np.float32)

    tokens = replace(tower, shape=(2, 3), forward=forward)
    monkeypatch.setattr(extraction, "load", lambda options, weights: tokens)
    extraction.encode(project, "photos", "net")
    features = store.read(project.features("net", "photos"))
    assert features.shape == (30, 2, 3)
    np.testing.assert_array_equal(features, expected(project, tokens))


def test_features_of_other_numbers_do_not_go_on_where_these_stopped(project, monkeypatch):
    project, tower, calls = project
    monkeypatch.setattr(extraction.store, "write", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        extraction.encode(project, "photos", "net")
    monkeypatch.undo()

    def forward(images):
        return tower.forward(images)

    forward.precision = "bf16"
    other = replace(tower, forward=forward)
    monkeypatch.setattr(extraction, "load", lambda options, weights: other)
    calls.clear()
    extraction.encode(project, "photos", "net")
    assert sum(calls) == 30
    assert store.note(project.features("net", "photos"))["precision"] == "bf16"


WORKER = """
import sys
from pathlib import Path
from geoloc_core.corpora import manifest
from geoloc_core.encoders import encoder, extraction
from geoloc_core.encoders.towers import onnx
tower = encoder.load(onnx.Options(kind="onnx", output="colour", size=16, batch=4), Path(sys.argv[1]))
for done in extraction.extract(tower, manifest.shards(Path(sys.argv[2])), Path(sys.argv[3])):
    print(done, flush=True)
    sys.stdin.readline()
"""


@pytest.mark.slow
def test_killed_in_the_middle_again_and_again_it_ends_in_the_same_bytes(tmp_path):
    from geoloc_core.encoders import encoder
    from geoloc_core.encoders.towers import onnx

    from .test_towers import network

    weights, corpus, whole, resumed = (tmp_path / name for name in ("weights", "corpus", "whole", "resumed"))
    for folder in (weights, whole, resumed):
        folder.mkdir()
    network(weights / "model.onnx", ["N", 3, 16, 16], 1)
    write_corpus(corpus, PHOTOS)
    tower = encoder.load(onnx.Options(kind="onnx", output="colour", size=16, batch=4), weights)
    list(extraction.extract(tower, manifest.shards(corpus), whole))

    def run(batches: int | None) -> list[int]:
        """Extract so many batches and be killed; all that are left where None. Returns the photos of each."""
        command = [sys.executable, "-c", WORKER, *map(str, (weights, corpus, resumed))]
        worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        seen: list[int] = []
        while len(seen) != batches and (line := worker.stdout.readline()):
            seen.append(int(line))
            if len(seen) != batches:
                worker.stdin.write("\n")
                worker.stdin.flush()
        if batches is not None:
            worker.send_signal(signal.SIGKILL)
        worker.communicate()
        return seen

    assert run(1) == [4], "in the middle of the first shard"
    assert run(3) == [4, 4, 2], "after its last batch, before it is put in place"
    assert run(4) == [4, 4, 2, 4], "in the middle of the second shard"
    assert run(None) == [4, 4, 2] * 2, "the first shard is not encoded again"
    assert digest(resumed) == digest(whole)


def test_features_that_would_not_fit_are_refused_before_anything_is_encoded(tmp_path):
    tokens = Encoder((577, 1024), 2, None, lambda photos: photos, {})
    says = r"encoders\.big: 500,000 photos of 577 × 1024 numbers take 591 GB, .*at most 550 GB are kept; train the last"
    with pytest.raises(UserError, match=says):
        extraction.check_room(tokens, 500_000, tmp_path / "features" / "big", "encoders.big")
    extraction.check_room(tokens, 10, tmp_path, "encoders.big")
    few = shutil.disk_usage(tmp_path).free // (577 * 1024 * 2 * 2) + 1_000_000
    if few * 577 * 1024 * 2 < extraction.MOST_BYTES:
        with pytest.raises(UserError, match="GB are free; train"):
            extraction.check_room(tokens, few, tmp_path, "encoders.big")
