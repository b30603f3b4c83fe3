import io
import tarfile

import pytest
from made_layouts import split
from made_photos import encoded, write

from geoloc_core.corpora.sources.mp16_pro import MAX_STUB_BYTES, Options, read
from geoloc_core.errors import UserError

OPTIONS = Options(kind="mp16_pro")
HEADER = "IMG_ID,LAT,LON,city,country\n"


def padded(seed: int) -> bytes:
    return encoded(seed).ljust(MAX_STUB_BYTES + 1, b"\0")


def tar(members: dict[str, bytes | str]) -> bytes:
    """A tar of files, and of links where a text says where to."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(data, str):
                info.type, info.linkname = tarfile.SYMTYPE, data
                archive.addfile(info)
            else:
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def corpus(folder, rows: list[str], members: dict[str, bytes | str]):
    table = HEADER + "".join(f"{row}\n" for row in rows)
    return write(folder, {OPTIONS.metadata: table.encode(), OPTIONS.tar: tar(members)})


def test_a_row_without_an_id_is_named(tmp_path):
    corpus(
        tmp_path,
        [",1,2,Ulm,Germany", "aa/bb/1.jpg,1,2,Ulm,Germany", ",3,4,Ulm,Germany"],
        {"a/b/aa_bb_1.jpg": padded(1)},
    )
    photos, refused = split(read(OPTIONS, tmp_path))
    assert [photo.image_id for photo in photos] == ["aa/bb/1.jpg"]
    named = [f"{OPTIONS.metadata} row {number}" for number in (4, 2)]
    assert [(item.image_id, item.reason.value, item.detail) for item in refused] == [
        (where, "bad_row", f"{where}: no IMG_ID") for where in named
    ]


def test_nothing_is_lost_between_table_and_tar(tmp_path):
    rows = [f"aa/bb/{n}.jpg,1,2,Ulm,Germany" for n in (1, 2, 3, 4, 1)]
    corpus(
        tmp_path,
        rows,
        {
            "mp/images/aa_bb_1.jpg": padded(1),
            "mp/images/aa_bb_2.jpg": b"x" * MAX_STUB_BYTES,
            "mp/images/aa_bb_3.jpg": "/etc/passwd",
            "mp/images/aa_bb_1.jpg/": padded(5),
            "mp/images/cc_dd_9.jpg": padded(9),
            "../../aa_bb_7.jpg": padded(7),
        },
    )
    source = read(OPTIONS, tmp_path)
    (photo,), refused = split(source)
    assert (photo.image_id, photo.path, photo.latitude) == ("aa/bb/1.jpg", "aa_bb_1.jpg", 1)
    assert photo.attributes == {"city": "Ulm", "country": "Germany"}
    assert photo.group_id == "aa/bb/1.jpg"
    assert [(item.image_id, item.reason.value) for item in refused] == [
        ("aa/bb/1.jpg", "duplicate"),
        ("aa/bb/2.jpg", "excluded"),
        ("aa/bb/3.jpg", "not_a_photo"),
        ("aa/bb/1.jpg", "duplicate"),
        ("cc_dd_9.jpg", "no_metadata"),
        ("aa_bb_7.jpg", "no_metadata"),
        ("aa/bb/4.jpg", "missing"),
    ]


def test_nothing_is_written_while_a_tar_is_read(tmp_path):
    corpus(
        tmp_path / "raw", ["aa/bb/1.jpg,1,2,,"], {"../../../aa_bb_1.jpg": padded(1), "/tmp/x/aa_bb_1.jpg": padded(2)}
    )
    before = sorted(tmp_path.rglob("*"))
    list(read(OPTIONS, tmp_path / "raw").items)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_tar_that_breaks_off_loses_only_its_end(tmp_path, capsys):
    rows = [f"aa/bb/{n}.jpg,1,2,," for n in range(3)]
    corpus(tmp_path, rows, {f"mp/images/aa_bb_{n}.jpg": padded(n) for n in range(3)})
    path = tmp_path / OPTIONS.tar
    path.write_bytes(path.read_bytes()[: 512 + 5632 + 512 + 100])
    photos, refused = split(read(OPTIONS, tmp_path))
    assert [photo.image_id for photo in photos] == ["aa/bb/0.jpg"]
    assert sorted(item.image_id for item in refused) == ["aa/bb/1.jpg", "aa/bb/2.jpg"]
    assert "broken after" in capsys.readouterr().err


def test_photographers_come_from_mp16s_own_table(tmp_path):
    corpus(tmp_path, ["aa/bb/1.jpg,1,2,,", "aa/bb/2.jpg,1,2,,"], {f"a/b/aa_bb_{n}.jpg": padded(n) for n in (1, 2)})
    write(tmp_path, {"who.csv": b"IMG_ID,AUTHOR\naa/bb/1.jpg,7@N00\n"})
    one, two = split(read(OPTIONS.model_copy(update={"authors": "who.csv"}), tmp_path))[0]
    assert (one.author, one.group_id) == ("7@N00", "7@N00")
    assert (two.author, two.group_id) == (None, "aa/bb/2.jpg")


def test_a_missing_tar_is_named(tmp_path):
    write(tmp_path, {OPTIONS.metadata: HEADER.encode()})
    with pytest.raises(UserError, match=r"mp-16-images\.tar: no such file"):
        read(OPTIONS, tmp_path)
