"""Photos come in an order that can be read from shards, decoded alike whether from a cache or from the shards."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geoloc_core import parquet
from geoloc_core.corpora import manifest
from geoloc_core.encoders import instances
from geoloc_core.encoders.preprocess import Preprocess
from geoloc_core.errors import UserError
from geoloc_core.training import photos

from .corpus import encoded, make_project

PREPARED = Preprocess(32, "crop", "bicubic", (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


@given(rows=st.integers(1, 5000), per_group=st.integers(1, 50), seed=st.integers(0, 2**40), epoch=st.integers(0, 99))
def test_an_epoch_has_every_row_once_in_windows_of_groups(rows, per_group, seed, epoch):
    groups = np.arange(rows) // per_group * 7
    chosen = np.arange(rows)[::2]
    found = photos.order(chosen, groups, seed, epoch)
    assert sorted(found) == list(chosen)
    assert (found == photos.order(chosen, groups, seed, epoch)).all()
    seen = groups[found]
    last = {group: at for at, group in enumerate(seen)}
    first = {group: at for at, group in reversed(list(enumerate(seen)))}
    open_at_once = np.zeros(len(found) + 1, int)
    for group in last:
        open_at_once[first[group]] += 1
        open_at_once[last[group] + 1] -= 1
    assert open_at_once.cumsum().max() <= photos.WINDOW


@pytest.mark.parametrize(("groups", "same"), [(photos.WINDOW, True), (10 * photos.WINDOW, False)])
def test_what_is_decoded_is_shuffled_whole_and_the_rest_in_windows(groups, same):
    rows = np.arange(groups * manifest.ROW_GROUP)
    streamed = photos.Photos(Path("none"), PREPARED, np.zeros(len(rows), np.int64), rows, None)
    decoded = replace(streamed, array=np.empty((len(rows), 0, 0, 3), np.uint8))
    whole, windows = (found.order(rows, 1, 2) for found in (decoded, streamed))
    assert (whole == windows).all() == same
    near = whole[: photos.WINDOW * manifest.ROW_GROUP] // manifest.ROW_GROUP
    assert len(np.unique(near)) == groups, "a corpus that lies country by country has all of them everywhere"
    assert (decoded.shuffled, streamed.shuffled) == ("all", photos.WINDOW)


def test_epochs_and_seeds_have_orders_of_their_own():
    rows = np.arange(500)
    groups = rows // 250
    orders = {tuple(photos.order(rows, groups, seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}
    assert len(orders) == 4
    neighbours = np.abs(np.diff(photos.order(rows, groups, 1, 0)))
    assert neighbours.mean() > 100, "both groups are shuffled into each other"


def test_batches_begin_anywhere_and_leave_out_the_incomplete_one():
    rows = np.arange(23)
    all_batches = [list(batch) for batch in photos.batches(rows, 5)]
    assert all_batches == [list(range(start, start + 5)) for start in (0, 5, 10, 15)]
    assert [list(batch) for batch in photos.batches(rows, 5, 3)] == all_batches[3:]


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "ROW_GROUP", 7)
    return make_project(tmp_path).corpus("photos")


def test_photos_from_the_shards_are_those_of_the_cache(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(photos, "WINDOW", 1)  # at most two groups are held
    cached = photos.Photos.open(corpus, PREPARED, tmp_path / "cache.npy", 1.0)
    streamed = photos.Photos.open(corpus, PREPARED, tmp_path / "none.npy", 0.0)
    assert len(manifest.shards(corpus)) > 1
    assert cached.array is not None
    assert streamed.array is None
    assert not (tmp_path / "none.npy").exists()
    assert (cached.groups == streamed.groups).all()
    order = photos.order(np.arange(60), cached.groups, 3, 1)
    batches = list(photos.batches(order, 8))
    pairs = list(zip(cached.read(batches), streamed.read(batches), strict=True))
    assert len(pairs) == 7
    for one, other in pairs:
        assert one.shape == (8, 32, 32, 3)
        assert (one == other).all()


@pytest.fixture
def features(tmp_path, monkeypatch):
    """Pictures as a segmenter leaves them: no manifest, several shards, and row groups that end with each of them."""
    monkeypatch.setattr(manifest, "ROW_GROUP", 7)
    folder = tmp_path / "data" / "features" / "mask2former" / "photos"
    (folder / "shards").mkdir(parents=True)
    for shard, count in enumerate((17, 0, 9)):
        rows = [
            {"image_id": f"{shard}-{row // 3}", "class": "tree", "group": None, "score": 0.9, "box": [0, 0, 8, 8]}
            | {"area": 9, "image": {"bytes": encoded((shard * 90, row * 14, 60), row), "path": f"{shard}-{row}.jpg"}}
            for row in range(count)
        ]
        with parquet.writer(manifest.shard_path(folder, shard), instances.INSTANCES) as file:
            for start in range(0, count, 7):
                file.write_table(pa.Table.from_pylist(rows[start : start + 7], instances.INSTANCES))
    return folder


SHARDS, ROWS = np.array([2, 0, 0, 2, 0, 2, 0]), np.array([8, 3, 16, 0, 2, 1, 7])


@pytest.mark.parametrize("limit_gb", [0.0, 1.0])
def test_features_cut_by_a_segmenter_are_read_in_any_choice_and_order(features, tmp_path, limit_gb):
    chosen = photos.Photos.of(features, SHARDS, ROWS, PREPARED, tmp_path / "cache.npy", limit_gb)
    assert (chosen.array is None) == (limit_gb == 0)
    found = np.concatenate(list(chosen.read([np.array([4, 0, 6]), np.array([1, 2, 3, 5])])))
    for at, row in enumerate([4, 0, 6, 1, 2, 3, 5]):
        expected = PREPARED.pixels(encoded((int(SHARDS[row]) * 90, int(ROWS[row]) * 14, 60), int(ROWS[row])))
        assert (found[at] == expected).all()


def test_a_cache_is_of_one_choice_of_pictures(features, tmp_path):
    one, other = (
        photos.Photos.of(features, SHARDS[by], ROWS[by], PREPARED, tmp_path / "c.npy")
        for by in (np.array([0, 1, 2]), np.array([3, 4, 5]))
    )
    assert not (one.array == other.array).all()
    assert len(list(tmp_path.glob("c-*.npy"))) == 2


def test_a_broken_feature_is_named_with_the_command_that_makes_it_anew(features, tmp_path):
    path = manifest.shard_path(features, 2)
    table = parquet.read(path, "")
    spoilt = [{**image, "bytes": b"no picture"} for image in table["image"].to_pylist()]
    column = pa.array(spoilt, table.schema.field("image").type)
    parquet.write(table.set_column(table.schema.names.index("image"), table.schema.field("image"), column), path)
    named = r"photos: 2-0: not a readable photo: .*; run `geoloc encode photos --encoder mask2former` again"
    with pytest.raises(UserError, match=named):
        list(photos.Photos.of(features, SHARDS, ROWS, PREPARED, tmp_path / "c.npy", 0.0).read([np.array([5])]))


def test_a_broken_photo_in_a_shard_is_named_once_it_is_asked_for(corpus, tmp_path):
    path = manifest.shards(corpus)[0]
    table = parquet.read(path, "")
    spoilt = [
        {**image, "bytes": image["bytes"].replace(b"\xff\xd8\xff", b"\0\0\0")} for image in table["image"].to_pylist()
    ]
    column = pa.array(spoilt, table.schema.field("image").type)
    parquet.write(table.set_column(table.schema.names.index("image"), table.schema.field("image"), column), path)
    first = manifest.read_manifest(corpus, ["image_id"])["image_id"][0].as_py()
    named = rf"photos: {first}: not a readable photo: .* no decoder recognises as .*; run `geoloc ingest photos` again"
    streamed = photos.Photos.open(corpus, PREPARED, tmp_path / "none.npy", 0.0)
    with pytest.raises(UserError, match=named):
        list(streamed.read([np.arange(3)]))
    with pytest.raises(UserError, match=named):
        photos.Photos.open(corpus, PREPARED, tmp_path / "cache.npy")


def test_a_shard_that_is_not_as_it_was_written_is_named(corpus, tmp_path):
    path = manifest.shards(corpus)[0]
    path.write_bytes(path.read_bytes().replace(b"\xff\xd8\xff", b"\x00\x00\x00"))
    streamed = photos.Photos.open(corpus, PREPARED, tmp_path / "none.npy", 0.0)
    with pytest.raises(UserError, match=r"00000.parquet: damaged: .*checksum"):
        list(streamed.read([np.arange(3)]))


def pixels(count: int = 64) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8))


def test_without_augmentation_photos_are_only_normalised():
    found = photos.augmented(pixels(), PREPARED, torch.Generator(), "none")
    expected = (pixels().float() / 255 - torch.tensor(PREPARED.mean)) / torch.tensor(PREPARED.std)
    torch.testing.assert_close(found, expected.permute(0, 3, 1, 2))


@pytest.mark.parametrize("how", ["shift", "crop", "wide_crop"])
@pytest.mark.parametrize("flip", [False, True])
def test_a_photo_looks_the_same_in_whichever_share_of_its_batch(how, flip):
    def look(of, share=None):
        return photos.augmented(of, PREPARED, torch.Generator().manual_seed(1), how, flip, share)

    whole = look(pixels())
    for first, last in ((0, 20), (20, 21), (21, 64)):
        part = look(pixels()[first:last], photos.Share(first, 64))
        torch.testing.assert_close(part, whole[first:last])


def test_every_second_photo_is_mirrored_only_where_asked_for():
    across = torch.linspace(0, 255, 32).byte()
    ramp = across.view(1, 1, 32, 1).expand(400, 32, 32, 3)
    plain = Preprocess(32, "crop", "bicubic", (0, 0, 0), (1, 1, 1))
    straight = photos.augmented(ramp, plain, torch.Generator().manual_seed(1), "none")
    found = photos.augmented(ramp, plain, torch.Generator().manual_seed(1), "none", flip=True)
    mirrored = found[:, 0, 0, 0] > found[:, 0, 0, -1]
    assert 150 < mirrored.sum() < 250
    assert torch.equal(found[mirrored], straight[mirrored].flip(3))
    assert torch.equal(found[~mirrored], straight[~mirrored])


@pytest.mark.parametrize("how", ["shift", "crop", "wide_crop"])
def test_augmentation_depends_on_its_generator_alone(how):
    one, same, other = (
        photos.augmented(pixels(), PREPARED, torch.Generator().manual_seed(seed), how) for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert one.shape == (64, 3, 32, 32)


@pytest.mark.parametrize(("how", "least"), [("crop", 0.8), ("wide_crop", 0.66)])
def test_a_crop_shows_most_of_the_photo_and_never_its_mirror(how, least):
    across = torch.linspace(0, 255, 32).byte()
    ramp = across.view(1, 1, 32, 1).expand(500, 32, 32, 3)
    plain = Preprocess(32, "crop", "bicubic", (0, 0, 0), (1, 1, 1))
    found = photos.augmented(ramp, plain, torch.Generator().manual_seed(1), how)[:, 0, 16]
    widths = found[:, -1] - found[:, 0]
    assert (widths > 0).all(), "left stays left"
    narrowest = (least * 3 / 4) ** 0.5
    assert narrowest - 0.05 < widths.min() < narrowest + 0.05
    assert widths.max() <= 1.0
    assert widths.std() > 0.02
    assert found[:, 0].max() > 0.05, "a crop may begin away from the edge"
