import os
import shutil

import pytest

from orchestration.dvc import Look, Stage
from orchestration.watched import Listing, listing, news, note_settled, settled
from orchestration.watched import Seen as Saw

TREE = {"a.jpg": b"1", "b/a.jpg": b"22", "b/c/d.jpg": b"333"}


@pytest.fixture
def photos(tmp_path):
    return grown(tmp_path / "photos", TREE)


def grown(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, ns=(0, 10**9))
    return root


def test_files_are_counted_and_their_order_and_place_do_not_count(photos, tmp_path):
    seen = listing(photos)
    assert (seen.files, seen.size) == (3, 6)
    assert listing(grown(tmp_path / "other", dict(reversed(TREE.items())))) == seen


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "a.jpg").rename(root / "z.jpg"),
        lambda root: (root / "a.jpg").rename(root / "b" / "z.jpg"),
        lambda root: grown(root, {"a.jpg": b"11"}),
        lambda root: os.utime(root / "a.jpg", ns=(0, 10**9 + 1)),
        lambda root: (root / "b/c/d.jpg").unlink(),
        lambda root: grown(root, {"b/c/e.jpg": b""}),
    ],
    ids=["renamed", "moved", "longer", "touched", "deleted", "added"],
)
def test_every_change_of_a_name_a_size_or_a_time_shows(photos, change):
    before = listing(photos)
    change(photos)
    assert listing(photos) != before


def test_two_files_that_swap_their_names_show(photos):
    os.utime(photos / "b/a.jpg", ns=(0, 5))
    before = listing(photos)
    (photos / "a.jpg").rename(photos / "x")
    (photos / "b/a.jpg").rename(photos / "a.jpg")
    (photos / "x").rename(photos / "b/a.jpg")
    assert listing(photos) != before


def test_what_is_missing_a_single_file_and_links_in_a_circle(photos, tmp_path):
    assert listing(tmp_path / "none") == Listing(0, 0, "0" * 16)
    assert listing(photos / "a.jpg").files == 1
    before = listing(photos)
    (photos / "round").symlink_to(photos)
    assert listing(photos).files == before.files + 1, "the link is one entry, and not followed"
    (photos / "nowhere").symlink_to(tmp_path / "none")
    assert listing(photos).files == before.files + 1
    shutil.rmtree(photos)
    assert listing(photos) == Listing(0, 0, "0" * 16)


def test_the_news_are_in_plain_words(tmp_path, photos):
    (tmp_path / ".state").mkdir()
    (tmp_path / "dvc.lock").write_text("a")
    seen = Saw({"params.yaml": "1", "the code": "2"}, {"photos": listing(photos)})
    assert news(tmp_path, [], seen) == ["no run has brought everything up to date yet, or the last one failed"]
    note_settled(tmp_path, seen)
    assert settled(tmp_path)[0] == seen
    assert news(tmp_path, [], seen) == []
    grown(photos, {"e.jpg": b"", "f.jpg": b""})
    now = Saw({"params.yaml": "1", "the code": "3"}, {"photos": listing(photos), "list.txt": listing(photos / "e.jpg")})
    assert news(tmp_path, [], now) == [
        "the code has changed", "photos: 2 files more, 5 in all", "list.txt: 1 file that no run has seen"
    ]  # fmt: skip
    (tmp_path / "dvc.lock").write_text("b")
    assert news(tmp_path, [], seen) == ["dvc.lock has changed"]
    again = tmp_path / ".state" / "partial" / "fetch" / "mp16" / "again.json"
    again.parent.mkdir(parents=True)
    again.write_text('{"at": 1, "addresses": 1200}')
    assert news(tmp_path, [], seen) == ["dvc.lock has changed"], "no run of this profile would ask again"
    crawl = Stage("fetch@mp16", "", None, (), (), (), (), (), "", Look())
    assert "mp16: 1,200 addresses that were gone are to be asked again" in news(tmp_path, [crawl], seen)
    for not_due in ('{"at": 1e11, "addresses": 2}', '{"at": 1', "{}"):
        again.write_text(not_due)
        assert news(tmp_path, [crawl], seen) == ["dvc.lock has changed"]
    (tmp_path / ".state" / "settled.json").write_text("{")
    assert settled(tmp_path) is None
