"""A large array is written in blocks and opened where it lies; a file that is not whole says so."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from geoloc_core.contracts.mapped import open_mapped, write_mapped
from geoloc_core.errors import UserError

VALUES = np.arange(42, dtype=np.float16).reshape(14, 3)


@pytest.fixture
def path(tmp_path):
    write_mapped(tmp_path / "a.safetensors", "features", VALUES.shape, (VALUES[at : at + 4] for at in range(0, 14, 4)))
    return tmp_path / "a.safetensors"


def test_it_is_a_file_of_the_library_and_is_only_mapped(path):
    np.testing.assert_array_equal(load_file(path)["features"], VALUES)
    found = open_mapped(path, "features", "make it again")
    assert isinstance(found, np.memmap)
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, VALUES)
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 0


def test_what_the_library_wrote_is_opened_too(path):
    save_file({"before": np.ones(5, np.float16), "features": VALUES}, path)
    np.testing.assert_array_equal(open_mapped(path, "features", "make it again"), VALUES)


def test_an_array_without_rows(path):
    write_mapped(path, "features", (0, 3), [])
    assert open_mapped(path, "features", "make it again").shape == (0, 3)


@pytest.mark.parametrize("left", [0, 5, 40, -1])
def test_a_file_that_is_cut_is_refused(path, left):
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(UserError, match=r"a\.safetensors: not a safetensors file: .*; make it again"):
        open_mapped(path, "features", "make it again")


def test_a_missing_file_and_another_array_are_refused(path):
    with pytest.raises(UserError, match="no such file; make it again"):
        open_mapped(path.with_name("b.safetensors"), "features", "make it again")
    with pytest.raises(UserError, match="no float16 tensor 'other'"):
        open_mapped(path, "other", "make it again")
    save_file({"features": VALUES.astype(np.float32)}, path)
    with pytest.raises(UserError, match="no float16 tensor 'features'"):
        open_mapped(path, "features", "make it again")
