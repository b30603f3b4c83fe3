"""Large arrays in a file of safetensors: as the library reads and writes them, and refused where they are damaged."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file, save_file

from geoloc_core.contracts import mapped
from geoloc_core.errors import UserError

KINDS = st.sampled_from([np.float64, np.float32, np.float16, np.int64, np.int32])
ARRAYS = st.dictionaries(
    st.text("abc", min_size=1),
    KINDS.flatmap(lambda kind: hnp.arrays(kind, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))),
    max_size=4,
)


def same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].dtype == other[name].dtype
        np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.slow
@given(arrays=ARRAYS)
def test_the_library_reads_what_is_written_and_writes_what_is_read(tmp_path_factory, arrays):
    folder = tmp_path_factory.mktemp("arrays")
    mapped.write(folder / "ours.safetensors", arrays)
    same(load_file(folder / "ours.safetensors"), arrays)
    save_file(arrays, folder / "theirs.safetensors")
    same(mapped.read(folder / "theirs.safetensors", "make it again"), arrays)
    same(mapped.read(folder / "ours.safetensors", "make it again"), arrays)


def test_rows_that_come_block_by_block_are_one_array(tmp_path):
    values = np.arange(42, dtype=np.float16).reshape(14, 3)
    blocks = (values[at : at + 4] for at in range(0, 14, 4))
    mapped.write_rows(tmp_path / "a.safetensors", "x", values.dtype, values.shape, blocks)
    same(load_file(tmp_path / "a.safetensors"), {"x": values})
    found = mapped.read(tmp_path / "a.safetensors", "make it again")["x"]
    assert isinstance(found, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 0
    mapped.write_rows(tmp_path / "b.safetensors", "x", values.dtype, (0, 3), [])
    assert mapped.read(tmp_path / "b.safetensors", "make it again")["x"].shape == (0, 3)


def test_numbers_stay_on_disk_and_are_aligned(tmp_path):
    mapped.write(tmp_path / "a.safetensors", {"x": np.ones(3, np.float16), "y": np.ones(5), "longer name": np.ones(1)})
    found = mapped.read(tmp_path / "a.safetensors", "")
    assert all(isinstance(array, np.memmap) and array.flags.aligned for array in found.values())


def header(path, change):
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    entries = json.loads(data[8 : 8 + length])
    change(entries["x"])
    text = json.dumps(entries).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda x: x.update(dtype="BOOL"), "x: BOOL"),
        (lambda x: x.update(shape=[4]), r"x: F64 \(4,\) in 24 bytes"),
        (lambda x: x.update(shape=[-3]), r"x: F64 \(-3,\) in 24 bytes"),
        (lambda x: x.update(data_offsets=[0, 32]), "cut off, or longer"),
        (lambda x: x.update(data_offsets=[8, 24]), "in 16 bytes"),
        (lambda x: x.update(shape="3"), "damaged, or not a safetensors file"),
        (lambda x: x.clear(), "damaged, or not a safetensors file"),
    ],
)
def test_a_header_that_cannot_be_is_refused(tmp_path, change, says):
    path = tmp_path / "a.safetensors"
    mapped.write(path, {"x": np.ones(3)})
    header(path, change)
    with pytest.raises(UserError, match=f"{path}: .*{says}.*; make it again"):
        mapped.read(path, "make it again")


@pytest.mark.parametrize("data", [b"", b"abc", b"\xff" * 100, b"\x02\0\0\0\0\0\0\0[]", b"\x02\0\0\0\0\0\0\0{}more"])
def test_what_is_no_such_file_is_refused(tmp_path, data):
    path = tmp_path / "a.safetensors"
    with pytest.raises(UserError, match="no such file; make it again"):
        mapped.read(path, "make it again")
    path.write_bytes(data)
    with pytest.raises(UserError, match="; make it again"):
        mapped.read(path, "make it again")
