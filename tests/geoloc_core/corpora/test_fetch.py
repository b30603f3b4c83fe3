import os
import stat

import pytest
from made_photos import encoded, located, project, write
from PIL import Image

from geoloc_core.corpora.fetch import draw, fetch, first_photos
from geoloc_core.corpora.fetch.files import Options, by_suffix
from geoloc_core.corpora.fetch.files import fetch as fetch_files
from geoloc_core.corpora.sources import photos, streetview
from geoloc_core.errors import UserError
from geoloc_core.files import digest, read_json

FILES = {"a.jpg": located(1), "s/b.JPG": located(2, 5), "s/t.csv": b"x,y\n", "none": b"1"}


def test_a_folder_arrives_as_it_is(tmp_path):
    made = project(tmp_path)
    given = write(tmp_path / "given", FILES)
    fetch(made, "c")
    assert digest(made.raw("c")) == digest(given)
    assert read_json(made.summary("fetch", "c")) == {
        "files": 4,
        "bytes": sum(map(len, FILES.values())),
        "types": {
            ".csv": {"files": 1, "bytes": 4},
            ".jpg": {"files": 2, "bytes": len(FILES["a.jpg"]) + len(FILES["s/b.JPG"])},
            "none": {"files": 1, "bytes": 1},
        },
    }
    assert not made.partial("fetch", "c").exists()
    assert Image.open(made.plot("fetch", "c")).size[0] > 300


def test_the_originals_are_nobodys_but_the_users(tmp_path):
    made = project(tmp_path)
    given = write(tmp_path / "given", FILES)
    fetch(made, "c")
    copy = made.raw("c") / "a.jpg"
    assert not os.path.samefile(copy, given / "a.jpg")
    copy.chmod(stat.S_IRUSR)
    (given / "a.jpg").write_bytes(b"changed")
    assert copy.read_bytes() == FILES["a.jpg"]


def test_an_interrupted_copy_is_taken_up_again(tmp_path):
    given = write(tmp_path / "given", FILES)
    partial = write(
        tmp_path / "partial", {"a.jpg": b"half", "gone.jpg": b"old", "s/b.JPG": b"?" * len(FILES["s/b.JPG"])}
    )
    original = (given / "s/b.JPG").stat()
    os.utime(partial / "s/b.JPG", ns=(original.st_atime_ns, original.st_mtime_ns))
    options = Options(kind="files", path=given)
    fetch_files(options, name="c", source=None, seed=0, out=tmp_path / "out", partial=partial)
    assert by_suffix(tmp_path / "out") == by_suffix(given)
    assert (tmp_path / "out/a.jpg").read_bytes() == FILES["a.jpg"]
    # Same size and time: taken for the finished copy that it would be.
    assert (tmp_path / "out/s/b.JPG").read_bytes().startswith(b"?")


@pytest.mark.parametrize("case", ["missing", "empty", "file", "dead", "link", "out", "pipe", "device"])
def test_mistakes_are_named_and_nothing_changes(tmp_path, case):
    made = project(tmp_path)
    given = write(tmp_path / "given", FILES)
    fetch(made, "c")
    before = digest(made.raw("c"))
    for path in ("a.jpg", "s/b.JPG", "s/t.csv", "none"):
        (given / path).unlink()
    (given / "s").rmdir()
    if case in ("missing", "file"):
        given.rmdir()
    if case == "file":
        given.write_bytes(b"")
    if case == "dead":
        (given / "dead.jpg").symlink_to(tmp_path / "nowhere")
    if case == "link":
        (given / "folder").symlink_to(tmp_path)
    if case == "out":
        (tmp_path / "secret.jpg").write_bytes(FILES["a.jpg"])
        (given / "a.jpg").symlink_to(tmp_path / "secret.jpg")
    if case == "pipe":
        os.mkfifo(given / "pipe.jpg")
    if case == "device":
        (given / "zero.jpg").symlink_to("/dev/zero")
    odd = "neither a file nor a folder"
    said = {
        "out": "a link that leads out of .*given; expected files; copy",
        "pipe": odd,
        "device": "a link that leads out of",
        "missing": "is not a folder",
        "empty": "is empty",
        "file": "is not a folder",
        "dead": "No such file",
    }
    with pytest.raises(UserError, match=said.get(case, "a link to a folder")) as caught:
        fetch(made, "c")
    assert "given" in str(caught.value)
    assert digest(made.raw("c")) == before


def test_a_link_within_the_folder_is_copied_as_what_it_names(tmp_path):
    made = project(tmp_path)
    given = write(tmp_path / "real", FILES)
    (given / "s/twin.jpg").symlink_to("../a.jpg")
    (tmp_path / "given").symlink_to(given)
    fetch(made, "c")
    assert (made.raw("c") / "s/twin.jpg").read_bytes() == FILES["a.jpg"]
    assert not (made.raw("c") / "s/twin.jpg").is_symlink()


def test_a_relative_path_starts_at_the_project(tmp_path, monkeypatch):
    made = project(tmp_path / "home")
    made.profile.corpora["c"].fetch = Options(kind="files", path="mine")
    given = write(tmp_path / "home/mine", FILES)
    monkeypatch.chdir(tmp_path)
    fetch(made, "c")
    assert digest(made.raw("c")) == digest(given)


def test_an_unknown_corpus_is_named(tmp_path):
    with pytest.raises(UserError, match=r"corpus 'x': not in the profile in use; expected one of: c"):
        fetch(project(tmp_path), "x")


def test_what_is_wrong_with_the_last_row_is_left_to_ingest(tmp_path):
    rows = "".join(f"{n}.jpg,p{n},1,2,0,\n" for n in range(9000))
    table = f'path,pano_id,latitude,longitude,heading,date\n{rows}"'.encode()
    folder = write(tmp_path / "raw", {"panoramas.csv": table, "0.jpg": encoded(1)})
    assert first_photos(folder, streetview.Options(kind="streetview", views=4), 8) == []


def test_the_picture_shows_sound_photos_or_the_types_of_files(tmp_path):
    source = photos.Options(kind="photos")
    sound = {f"{i}.jpg": located(i) for i in range(3)}
    folder = write(tmp_path / "raw", {**sound, "bad.jpg": encoded(9)[:-300], "t.txt": b"x"})
    assert [photo.size for photo in first_photos(folder, source, 2)] == [(128, 128)] * 2
    assert len(first_photos(folder, source, 8)) == 3
    table = photos.Options(kind="photos", table="absent.csv")
    assert first_photos(folder, table, 8) == []
    for name, options in (("a", source), ("b", table)):
        draw(folder, options, tmp_path / f"{name}.png", "c")
        draw(folder, options, tmp_path / f"{name}2.png", "c")
        assert (tmp_path / f"{name}.png").read_bytes() == (tmp_path / f"{name}2.png").read_bytes()
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()


def test_types_of_files_with_odd_names_are_drawn_and_counted(tmp_path):
    made = project(tmp_path)
    names = [b"a.$\\frac$", b"b.\xff", b"c.\x1b[31m\n", b"d." + b"long" * 50, *(b"e.%d" % n for n in range(50))]
    (tmp_path / "given").mkdir()
    for name in names:
        (tmp_path / "given" / os.fsdecode(name)).write_bytes(b"1")
    fetch(made, "c")
    assert read_json(made.summary("fetch", "c"))["files"] == len(names)
    assert os.fsdecode(b".\xff") in read_json(made.summary("fetch", "c"))["types"]
    assert Image.open(made.plot("fetch", "c")).size[1] < 600
