"""Files are whole or not there."""

import errno
import os

import pytest

from geoloc_core.errors import UserError
from geoloc_core.files import NO_LINKS, digest, link_or_copy, replacing, replacing_folder


def test_a_failure_leaves_what_was_there(tmp_path):
    path = tmp_path / "result"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as aside:
        aside.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"


def test_a_folder_is_replaced_whole(tmp_path):
    for names in (["a", "b"], ["c"]):
        with replacing_folder(tmp_path / "folder", "letters") as aside:
            aside.mkdir()
            for name in names:
                (aside / name).write_text(name)
    assert sorted(p.name for p in (tmp_path / "folder").iterdir()) == ["c", "checksums.json"]
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_a_place_where_nothing_can_be_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file/x: cannot be created"), replacing(tmp_path / "file" / "x"):
        pass


def test_leftovers_of_a_killed_run_do_not_matter(tmp_path):
    (tmp_path / ".folder.new").mkdir()
    (tmp_path / ".folder.new" / "half").write_text("half")
    with replacing_folder(tmp_path / "folder") as aside:
        aside.mkdir()
    assert list((tmp_path / "folder").iterdir()) == []


def test_a_digest_knows_names_and_bytes_but_not_places(tmp_path):
    for place in ("one", "two", "renamed", "changed"):
        (tmp_path / place / "sub").mkdir(parents=True)
        (tmp_path / place / "sub" / ("x" if place != "renamed" else "y")).write_text("1" if place != "changed" else "2")
    digests = [digest(tmp_path / place) for place in ("one", "two", "renamed", "changed")]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_a_file_is_linked_where_the_disk_has_links(tmp_path):
    (tmp_path / "a").write_bytes(b"paid for")
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a").samefile(tmp_path / "b")


@pytest.mark.parametrize("number", sorted(NO_LINKS), ids=errno.errorcode.get)
def test_a_file_is_copied_where_the_disk_has_no_links(tmp_path, monkeypatch, number):
    def link(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", link)
    (tmp_path / "a").write_bytes(b"paid for")
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"paid for"
    assert not (tmp_path / "a").samefile(tmp_path / "b")


def test_another_error_of_linking_is_told(tmp_path):
    with pytest.raises(FileNotFoundError):
        link_or_copy(tmp_path / "a", tmp_path / "b")
