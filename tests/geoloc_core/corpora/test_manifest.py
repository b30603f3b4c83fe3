import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from geoloc_core.corpora import manifest
from geoloc_core.corpora.manifest import MANIFEST, ShardWriter, TableWriter, read_manifest, shards
from geoloc_core.errors import UserError

ROW = {
    "image_id": "a.jpg",
    "corpus": "c",
    "shard": 0,
    "row": 0,
    "latitude": 1.5,
    "longitude": 2.5,
    "group_id": "g",
    "width": 4,
    "height": 3,
    "sha256": "0" * 64,
}


def test_a_manifest_comes_back_as_written(tmp_path):
    with TableWriter(tmp_path / "manifest.parquet", MANIFEST) as writer:
        writer.add(ROW)
        writer.add({**ROW, "image_id": "b.jpg", "latitude": None})
    table = read_manifest(tmp_path)
    assert table.schema.equals(MANIFEST, check_metadata=True)
    assert table["image_id"].to_pylist() == ["a.jpg", "b.jpg"]
    assert table["latitude"].to_pylist() == [1.5, None]
    manifest.write_table(table, tmp_path / "again.parquet", MANIFEST)
    assert manifest.read_table(tmp_path / "again.parquet", MANIFEST).equals(table)


def test_a_table_that_breaks_off_is_not_counted(tmp_path):
    path = tmp_path / "manifest.parquet"
    with pytest.raises(UserError, match="no such file; run the command that wrote it again"):
        manifest.count(path)
    with TableWriter(path, MANIFEST) as writer:
        writer.add(ROW)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"manifest\.parquet: damaged: .*; run the command that wrote it again"):
        manifest.count(path)


@pytest.mark.parametrize("pending", [1, 2, 3, 5, 100])
@pytest.mark.parametrize("rows", [0, 1, 3, 9, 10])
def test_groups_are_full_and_all_rows_are_there(tmp_path, monkeypatch, pending, rows):
    monkeypatch.setattr(manifest, "TABLE_GROUP", 3)
    monkeypatch.setattr(manifest, "PENDING", pending)
    path = tmp_path / "manifest.parquet"
    with TableWriter(path, MANIFEST) as writer:
        for number in range(rows):
            writer.add({**ROW, "row": number})
    assert read_manifest(tmp_path)["row"].to_pylist() == list(range(rows))
    assert manifest.count(path) == rows
    groups = pq.read_metadata(path)
    sizes = [groups.row_group(number).num_rows for number in range(groups.num_row_groups)]
    assert sizes == [3] * (rows // 3) + [rows % 3] * (rows % 3 > 0)
    read = manifest.read_batches(tmp_path, ["row"])
    assert [row for batch in read for row in batch["row"].to_pylist()] == list(range(rows))


def test_a_null_where_none_may_be_is_refused(tmp_path):
    writer = TableWriter(tmp_path / "manifest.parquet", MANIFEST)
    writer.add({**ROW, "group_id": None})
    with pytest.raises(ValueError, match="group_id has 1 nulls"), writer:
        pass
    table = pa.Table.from_pylist([{**ROW, "sha256": None}], MANIFEST)
    with pytest.raises(ValueError, match="sha256 has 1 nulls"):
        manifest.write_table(table, tmp_path / "x.parquet", MANIFEST)


@pytest.mark.parametrize("spoil", ["missing", "text", "columns", "version"])
def test_what_is_no_manifest_is_named(tmp_path, spoil):
    path = tmp_path / "manifest.parquet"
    if spoil == "text":
        path.write_text("hello")
    elif spoil == "columns":
        pq.write_table(pa.table({"image_id": ["a"]}), path)
    elif spoil == "version":
        other = MANIFEST.with_metadata({"geoloc.schema": "manifest", "geoloc.version": "0"})
        pq.write_table(pa.Table.from_pylist([ROW], other), path)
    with pytest.raises(UserError, match=r"manifest\.parquet: .*run the command that wrote it again"):
        read_manifest(tmp_path)


def test_a_manifest_of_the_version_before_places_is_refused_with_the_command_that_makes_it_anew(tmp_path):
    folder = tmp_path / "data/corpora/mine"
    folder.mkdir(parents=True)
    (tmp_path / "params.yaml").touch()
    at = MANIFEST.get_field_index("place_id")
    former = MANIFEST.remove(at).with_metadata({"geoloc.schema": "manifest", "geoloc.version": "2"})
    pq.write_table(pa.Table.from_pylist([ROW], former), folder / "manifest.parquet")
    with pytest.raises(UserError) as refused:
        read_manifest(folder)
    assert str(refused.value).startswith(
        f"{folder / 'manifest.parquet'}: not a manifest of version 3 (columns image_id,"
    )
    assert str(refused.value).endswith("; expected the manifest; run `geoloc ingest mine` again")


def test_shards_are_bounded_and_nothing_is_recompressed(tmp_path):
    writer = ShardWriter(tmp_path, limit=1000)
    photos = [bytes([number]) * size for number, size in enumerate((400, 500, 300, 2000, 10, 990))]
    places = [writer.add(f"{number}", data, f"{number}.jpg") for number, data in enumerate(photos)]
    writer.close()
    assert places == [(0, 0), (0, 1), (1, 0), (2, 0), (3, 0), (3, 1)]
    found = [list(manifest.read_photos(shard)) for shard in shards(tmp_path)]
    assert [photo for shard in found for batch in shard for photo in batch] == photos
    for shard in shards(tmp_path):
        group = pq.read_metadata(shard).row_group(0)
        assert {group.column(i).compression for i in range(group.num_columns)} == {"UNCOMPRESSED"}


def test_row_groups_are_small_and_the_layout_is_that_of_datasets(tmp_path):
    writer = ShardWriter(tmp_path)
    for number in range(manifest.ROW_GROUP * 2 + 1):
        assert writer.add(str(number), b"x", f"{number}.jpg") == (0, number)
    writer.close()
    (shard,) = shards(tmp_path)
    metadata = pq.read_metadata(shard)
    sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    assert sizes == [manifest.ROW_GROUP, manifest.ROW_GROUP, 1]
    schema = pq.read_schema(shard)
    assert schema.names == ["image_id", "image"]
    # `datasets` decodes a field that is this one to the letter; one that promises no null it leaves a struct
    assert schema.field("image").equals(pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])))
    assert json.loads(schema.metadata[b"huggingface"])["info"]["features"]["image"] == {"_type": "Image"}
    assert [len(batch) for batch in manifest.read_photos(shard, 300)] == [300, 201]
