"""Files that the parameters know by their checksum."""

import hashlib
import re

import pytest

from geoloc_core.errors import UserError
from geoloc_core.pins import hold


def asked(paths) -> str:
    """The checksum that is asked for where there is none."""
    with pytest.raises(UserError, match=r"block\.sha256: missing; expected ") as error:
        hold(paths, None, "block")
    assert "\n" not in str(error.value)
    return re.search("[0-9a-f]{64}", str(error.value))[0]


def test_that_of_one_file_is_what_everyone_computes_and_lets_it_pass(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"raster")
    assert asked([tmp_path / "a.tif"]) == hashlib.sha256(b"raster").hexdigest()
    hold([tmp_path / "a.tif"], hashlib.sha256(b"raster").hexdigest(), "block")
    (tmp_path / "a.tif").write_bytes(b"another")
    with pytest.raises(UserError, match=r"expected .*, that of a\.tif; put it there if"):
        hold([tmp_path / "a.tif"], hashlib.sha256(b"raster").hexdigest(), "block")


@pytest.mark.parametrize("changed", ["a.json", "b.json", "folder/c.json", "d.shp", "d.dbf"])
def test_any_of_several_counts_wherever_they_lie(tmp_path, changed):
    def made(root):
        (root / "folder").mkdir(parents=True)
        for name in ("a.json", "b.json", "folder/c.json", "d.shp", "d.dbf", "unread.json"):
            (root / name).write_text(name)
        return [root / name for name in ("a.json", "b.json", "folder", "d.shp")]

    here, there = made(tmp_path / "here"), made(tmp_path / "there")
    assert asked(here) == asked(there)
    hold(here, asked(there), "block")
    (tmp_path / "here" / "unread.json").write_text("another")
    hold(here, asked(there), "block")
    (tmp_path / "here" / changed).write_text("another")
    assert asked(here) != asked(there)


def test_nothing_needs_nothing_and_what_is_missing_is_named(tmp_path):
    hold([], None, "block")
    with pytest.raises(UserError, match=r"a\.tif: no such file; expected what block names"):
        hold([tmp_path / "a.tif"], "0" * 64, "block")
