"""Photos are cut into the features that the segmenter's own library finds, the same after a kill as without one."""

import io
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from geoloc_core.corpora import manifest
from geoloc_core.corpora.world.paint.canvas import CLASSES
from geoloc_core.encoders import encoder, extraction, instances, store
from geoloc_core.encoders.groups import GROUPS, group_of
from geoloc_core.encoders.instances import Instances, Segment
from geoloc_core.encoders.preprocess import decode
from geoloc_core.encoders.towers import mask2former
from geoloc_core.errors import UserError
from geoloc_core.files import digest, read_json, remove
from geoloc_core.params import NamedEncoder
from geoloc_core.project import Project

from ...conftest import PHOTOS as PROFILE
from . import made_segmenters as made
from .test_preprocess import photo

PHOTOS = [photo(70, 50), photo(50, 90), photo(70, 50, "PNG"), photo(120, 64), photo(3000, 40)]
ALL = {"kind": "mask2former", "score": 0.0, "mask": 0.01, "overlap": 0.0, "min_area": 0.0}
"""A random segmenter is sure of nothing."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mask2former")
    made.mask2former(folder)
    return folder


def found_by_the_library(weights, data, task):
    from transformers import AutoImageProcessor, Mask2FormerForUniversalSegmentation

    model = Mask2FormerForUniversalSegmentation.from_pretrained(weights).eval()
    processor = AutoImageProcessor.from_pretrained(weights)
    image = decode(data)
    with torch.inference_mode():
        found = model(**processor(images=image, return_tensors="pt"))
    size = [(image.height, image.width)]
    if task == "panoptic":
        rules = {
            "threshold": 0.0,
            "mask_threshold": 0.01,
            "overlap_mask_area_threshold": 0.0,
            "label_ids_to_fuse": set(),
        }
        one = processor.post_process_panoptic_segmentation(found, target_sizes=size, **rules)[0]
        masks = [(one["segmentation"] == segment["id"]).numpy() for segment in one["segments_info"]]
    else:
        rules = {"threshold": 0.0, "return_binary_maps": True}
        one = processor.post_process_instance_segmentation(found, target_sizes=size, **rules)[0]
        masks = [mask.numpy() > 0 for mask in one["segmentation"]]
    labels = [made.STREET[segment["label_id"]] for segment in one["segments_info"]]
    return list(zip(labels, [segment["score"] for segment in one["segments_info"]], masks, strict=True))


@pytest.mark.parametrize("task", ["panoptic", "instance"])
def test_features_are_the_librarys_own(weights, task):
    tower = encoder.load(mask2former.Options(task=task, batch=2, **ALL), weights)
    for data, found in zip(PHOTOS[:4], tower(PHOTOS[:4]), strict=True):
        theirs = [segment for segment in found_by_the_library(weights, data, task) if segment[2].any()]
        assert len(found) == len(theirs) > 0
        for row, (label, score, mask) in zip(found, theirs, strict=True):
            assert (row["class"], row["area"]) == (label, mask.sum())
            assert row["score"] == pytest.approx(score, abs=1e-5)
            rows, columns = np.nonzero(mask)
            assert row["box"] == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_a_large_photo_is_masked_by_a_smaller_map(weights):
    tower = encoder.load(mask2former.Options(**ALL), weights)
    found = tower([PHOTOS[4]])[0]
    assert sum(row["area"] for row in found) == 3000 * 40  # a panoptic map leaves no pixel out
    assert max(row["box"][2] for row in found) == 3000


def pictured(row) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(row["image"])), np.int16)


def one_segment(mask, min_area=0.0) -> Instances:
    return Instances(8, lambda photos: [[Segment("car", 0.5, mask)]] * len(photos), min_area, {})


def test_a_feature_is_its_box_and_black_beside_it():
    pixels = np.zeros((60, 80, 3), np.uint8)
    pixels[:, :40], pixels[:, 40:] = (200, 40, 40), (40, 40, 200)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    mask = np.zeros((60, 80), bool)
    mask[10:30, 20:40] = mask[30:50, 40:70] = True
    (row,) = one_segment(mask)([stream.getvalue()])[0]
    picture = pictured(row)
    assert row["box"] == [20, 10, 70, 50]
    assert row["area"] == 20 * 20 + 20 * 30
    assert (row["class"], row["group"]) == ("car", "vehicles")
    assert picture.shape == (40, 50, 3)
    for area, colour in (((10, 10), (200, 40, 40)), ((30, 40), (40, 40, 200)), ((10, 40), (0, 0, 0))):
        np.testing.assert_allclose(picture[area], colour, atol=4)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_box_and_area_fit_the_mask_at_any_resolution(width, height, wide, high, seed):
    mask = np.random.default_rng(seed).random((high, wide)) < 0.3
    found = one_segment(mask)([photo(width, height, "PNG")])[0]
    assert len(found) <= 1
    for row in found:
        left, top, right, bottom = row["box"]
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert pictured(row).shape == (bottom - top, right - left, 3)
        assert 0 < row["area"] <= (right - left) * (bottom - top)


def test_small_features_are_left_out_and_broken_photos_are_said():
    mask = np.zeros((10, 10), bool)
    mask[:2, :2] = True
    assert one_segment(mask, 0.05)([PHOTOS[0]]) == [[]]
    one, broken, other = one_segment(mask, 0.03)([PHOTOS[0], b"no photo", PHOTOS[1]])
    assert len(one) == len(other) == 1
    assert str(broken).startswith("not a readable photo")


@pytest.mark.slow
def test_a_batch_that_memory_does_not_hold_is_halved_once_for_all(weights, capfd):
    tower = encoder.load(mask2former.Options(batch=7, **ALL), weights)
    whole = tower(PHOTOS[:1] * 7)
    forward = tower.segment.forward

    def segment(photos, most=3):
        if len(photos) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(photos)

    tower.segment.forward = segment
    for data in PHOTOS[:2]:  # of another size each
        found = tower([data] * 7)
        assert [len(one) for one in found] == [len(found[0])] * 7
    assert [len(one) for one in tower(PHOTOS[:1] * 7)] == [len(one) for one in whole]
    assert capfd.readouterr().err == "out of memory with a batch of 7 photos; continuing with 3\n"
    tower.segment.forward = lambda photos: segment(photos, most=0)
    with pytest.raises(UserError, match="out of memory with one photo: CUDA out of memory"):
        tower(PHOTOS[:1] * 2)


def test_there_is_one_vocabulary_of_groups():
    assert list(GROUPS) == ["ground", "structures", "vegetation", "vehicles"]
    names = [name for group in GROUPS.values() for name in group]
    assert len(names) == len(set(names))
    mapillary = {"Lane Marking - General": "ground", "Traffic Sign (Front)": "structures", "On Rails": "vehicles"}
    coco = {"tree-merged": "vegetation", "building-other-merged": "structures", "pavement-merged": "ground"}
    ade20k = {"earth, ground": "ground", "tree": "vegetation", "car, auto, automobile": "vehicles", "sky": None}
    for label, group in (mapillary | coco | ade20k | {"Person": None, "Sky": None}).items():
        assert group_of(label) == group, label
    rendered = {"ground": "ground", "road": "ground", "marking": "ground", "vegetation": "vegetation"}
    rendered |= {"building": "structures", "sign": "structures", "bollard": "structures", "pole": "structures"}
    rendered |= {"car": "vehicles", "plate": "vehicles"}
    assert {name: group_of(name) for name in CLASSES if group_of(name)} == rendered


def write_corpus(folder, photos):
    """A corpus of photos, some to a shard."""
    folder.mkdir(parents=True)
    ids = [f"p{number:02d}" for number in range(len(photos))]
    writer = manifest.ShardWriter(folder, limit=4 * len(PHOTOS[0]))
    places = [writer.add(name, data, f"{name}.jpg") for name, data in zip(ids, photos, strict=True)]
    writer.close()
    shards, rows = zip(*places, strict=True)
    known = {"image_id": ids, "corpus": ["photos"] * len(ids), "shard": shards, "row": rows, "group_id": ids}
    known |= {"width": [70] * len(ids), "height": [50] * len(ids), "sha256": ids}
    table = pa.table({name: known.get(name, [None] * len(ids)) for name in manifest.MANIFEST.names})
    manifest.write_table(table, folder / "manifest.parquet", manifest.MANIFEST)


@pytest.fixture
def project(tmp_path, weights):
    """A corpus of 12 photos in three shards, and the random segmenter as its encoder."""
    profile = {
        **PROFILE,
        "checkpoints": {"cutter": {"file": str(weights)}},
        "encoders": {"cutter": {**ALL, "batch": 4}},
    }
    profile["variants"] = {}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"run": profile}))
    project = Project.open(tmp_path / "params.yaml")
    write_corpus(project.corpus("photos"), PHOTOS[:1] * 12)
    from geoloc_core.encoders import checkpoints

    checkpoints.download(project, "cutter", NamedEncoder.of("run", project.profile, "cutter"))
    return project


def test_features_stand_beside_their_photos(project):
    extraction.encode(project, "photos", "cutter")
    out = project.features("cutter", "photos")
    table = instances.read(out)
    shards = manifest.shards(project.corpus("photos"))
    assert [path.name for path in instances.shards(out)] == [path.name for path in shards]
    ids = table["image_id"].to_pylist()
    assert list(dict.fromkeys(ids)) == [f"p{number:02d}" for number in range(12)]
    for shard, features in zip(shards, instances.shards(out), strict=True):
        of_shard = set(pq.read_table(shard, columns=["image_id"])["image_id"].to_pylist())
        assert set(pq.read_table(features, columns=["image_id"])["image_id"].to_pylist()) == of_shard
        assert pq.read_schema(features).equals(instances.INSTANCES)
    pictures = [data for shard in instances.shards(out) for group in manifest.read_photos(shard) for data in group]
    assert len(pictures) == table.num_rows
    box = table["box"][0].as_py()
    assert Image.open(io.BytesIO(pictures[0])).size == (box[2] - box[0], box[3] - box[1])
    summary = read_json(project.summary("encode", "cutter-photos"))
    assert summary["rows"] == table.num_rows == sum(summary["groups"].values())
    assert summary["photos_without"] == summary["missing"] == 0
    note = read_json(out / store.NOTE)
    assert (note["fingerprint"], note["missing"]) == (summary["fingerprint"], [])
    with pytest.raises(UserError, match="holds features of segments rather than one array"):
        store.read(out)


@pytest.mark.slow
def test_a_finished_shard_is_not_cut_again(project, monkeypatch):
    extraction.encode(project, "photos", "cutter")
    whole = digest(project.features("cutter", "photos"))
    done = []
    write_part = instances.write_part

    def stop_at_the_third(tower, shard, partial, pool):
        if len(done) == 2:
            raise KeyboardInterrupt
        yield from write_part(tower, shard, partial, pool)
        done.append(shard.name)

    monkeypatch.setattr(instances, "write_part", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        extraction.encode(project, "photos", "cutter")
    assert digest(project.features("cutter", "photos")) == whole  # what was there stays
    monkeypatch.undo()
    monkeypatch.setattr(instances, "write_part", lambda *given: (done.append(given[1].name), write_part(*given))[1])
    extraction.encode(project, "photos", "cutter")
    assert done == ["00000.parquet", "00001.parquet", "00002.parquet"]
    assert digest(project.features("cutter", "photos")) == whole


@pytest.mark.slow
def test_a_broken_photo_is_named(project, capsys):
    remove(project.corpus("photos"))
    photos = PHOTOS[:1] * 12
    photos[5], photos[11] = b"no photo", photos[11][:200]
    write_corpus(project.corpus("photos"), photos)
    extraction.encode(project, "photos", "cutter")
    out = project.features("cutter", "photos")
    missing = store.note(out)["missing"]
    assert [(photo["row"], photo["image_id"]) for photo in missing] == [(5, "p05"), (11, "p11")]
    assert all("not a readable photo" in photo["reason"] for photo in missing)
    np.testing.assert_array_equal(store.missing([out]), [5, 11])
    assert set(instances.read(out)["image_id"].to_pylist()) == {f"p{row:02d}" for row in range(12)} - {"p05", "p11"}
    assert "2 photos could not be read and have no features: p05, p11" in capsys.readouterr().err
    assert read_json(project.summary("encode", "cutter-photos"))["missing"] == 2


def test_a_corpus_that_cannot_be_encoded_is_refused(project):
    folder, out = project.corpus("photos"), project.features("cutter", "photos")
    manifest.shards(folder)[2].unlink()
    with pytest.raises(UserError, match=r"photos: the shards hold \d photos, the manifest 12; ingest it again"):
        extraction.encode(project, "photos", "cutter")
    remove(folder)
    write_corpus(folder, [b"x", b"y"])
    with pytest.raises(UserError, match="none of the 2 photos could be read: not a readable photo"):
        extraction.encode(project, "photos", "cutter")
    assert not out.exists()


@pytest.mark.slow
def test_unfinished_work_that_says_nothing_of_its_photos_is_done_again(project, monkeypatch):
    monkeypatch.setattr(instances, "write", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        extraction.encode(project, "photos", "cutter")
    monkeypatch.undo()
    next(project.partial("encode", "").glob("cutter-photos-*/00001.json")).unlink()
    extraction.encode(project, "photos", "cutter")
    assert store.note(project.features("cutter", "photos"))["missing"] == []


@pytest.mark.slow
def test_after_a_kill_the_bytes_are_those_of_an_uninterrupted_run(project):
    extraction.encode(project, "photos", "cutter")
    out = project.features("cutter", "photos")
    whole = digest(out)
    command = [sys.executable, "-m", "geoloc_core", "encode", "photos", "--encoder", "cutter"]
    run = subprocess.Popen(command, cwd=project.root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    unfinished = project.partial("encode", "")
    while run.poll() is None and not list(unfinished.glob("*/*.parquet")):
        time.sleep(0.01)
    run.kill()
    run.communicate()
    assert run.returncode in (-signal.SIGKILL, 0)  # 0 where it was done before the signal came
    assert digest(out) == whole
    assert subprocess.run(command, cwd=project.root, capture_output=True).returncode == 0
    assert digest(out) == whole


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("config.json", None, "no config.json"),
        ("model.safetensors", b"broken", "not a checkpoint of weights"),
        ("config.json", b'{"model_type": "vit"}', "expected mask2former"),
    ],
)
def test_a_wrong_checkpoint_is_said_in_one_line(tmp_path, name, content, says):
    made.mask2former(tmp_path)
    (tmp_path / name).unlink()
    if content:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=says) as error:
        encoder.load(mask2former.Options(**ALL), tmp_path)
    assert "\n" not in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_classes_of_no_group_are_refused(tmp_path):
    made.mask2former(tmp_path, ["LABEL_0", "LABEL_1"])
    with pytest.raises(UserError, match=r"no class of ground, structures, vegetation, vehicles.*LABEL_0"):
        encoder.load(mask2former.Options(**ALL), tmp_path)
