import io
import json

import numpy as np
import pytest
from made_layouts import split
from made_photos import encoded, write
from PIL import Image
from test_panorama import sphere

from geoloc_core.corpora.panorama import perspective
from geoloc_core.corpora.sources.g3_guidebook import Options, read
from geoloc_core.errors import UserError

OPTIONS = Options(kind="g3_guidebook")
PANO = "a_B-c4567890123456789_"
GUIDEBOOK = [
    {"CLUE_ID": "x", "text": "", "geoparsed": [{"Country": "Chile"}, {"Country": "Peru"}]},
    {"CLUE_ID": "y", "text": "", "geoparsed": [{"Country": "Peru"}]},
]


def data(folder, **files: bytes):
    known = {
        "guidebook.json": json.dumps(GUIDEBOOK).encode(),
        "pseudo_labels/countries.json": json.dumps({f"{PANO}_1.png": [[0, 1]], f"{PANO}_2.png": [[0]]}).encode(),
        "s2_cells/countries.csv": b"class_label,country\n0,Chile\n1,Peru\n",
        "loss_weight/countries.json": b"[[0.5, 2.0]]",
    }
    return write(folder / "dataset", known | {name.replace("__", "/"): value for name, value in files.items()})


def jpeg(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95)
    return stream.getvalue()


@pytest.mark.slow
def test_views_are_cut_from_the_panorama_where_they_are_missing(tmp_path):
    root = data(tmp_path)
    table = "IMG_ID,LAT,LON\n" + "".join(f"{PANO}_{k}.png,1,2\n" for k in range(4))
    panorama = jpeg(sphere(128))
    write(root, {"val/val.csv": table.encode(), f"val/panos/{PANO}.jpg": panorama})
    photos, refused = split(read(OPTIONS, tmp_path))
    assert not refused
    assert [photo.attributes["yaw"] for photo in photos] == [45, 135, 225, 315]
    assert {photo.group_id for photo in photos} == {PANO}
    with Image.open(io.BytesIO(photos[2].data)) as image, Image.open(io.BytesIO(panorama)) as whole:
        assert image.size == (1024, 768)
        assert np.array_equal(np.asarray(image), perspective(np.asarray(whole), 225, -15, 90))


def test_a_view_without_coordinates_has_the_country_of_its_clues(tmp_path):
    root = data(tmp_path)
    write(root, {"train/train.csv": f"IMG_ID\n{PANO}_1.png\n{PANO}_2.png\n{PANO}_9.png\n".encode()})
    write(root, {f"train/images/{PANO}_{k}.png": encoded(k, "PNG") for k in (1, 2, 3)})
    photos, refused = split(read(OPTIONS, tmp_path))
    known, unknown = photos
    assert (known.placeless, known.latitude, known.flaw) == (True, None, None)
    found = known.attributes
    assert (found["country"], found["gid_0"], found["class_label"], found["loss_weight"]) == ("Peru", "PER", 1, 2.0)
    assert (unknown.placeless, unknown.attributes["gid_0"]) == (False, None)
    assert [(item.image_id, item.reason.value) for item in refused] == [
        (f"{PANO}_9.png", "bad_row"),
        (f"{PANO}_3.png", "no_metadata"),
    ]


def test_a_broken_panorama_is_refused_with_its_views(tmp_path):
    write(
        data(tmp_path), {"test/test.csv": f"IMG_ID\n{PANO}_0.png\nq_0.png\n".encode(), f"test/panos/{PANO}.jpg": b"x"}
    )
    _, refused = split(read(OPTIONS, tmp_path))
    assert [item.reason.value for item in refused] == ["unreadable", "missing"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("guidebook.json", b"{}", r"guidebook.json: Input should be a valid list; expected \[{geoparsed"),
        ("guidebook.json", b"[", "guidebook.json: not valid JSON"),
        ("guidebook.json", b'[{"geoparsed": 5}]', "guidebook.json: 0.geoparsed: Input should be a valid list"),
        ("pseudo_labels/countries.json", b'{"a": [["b"]]}', "a.0.0: Input should be a valid integer; expected"),
        ("pseudo_labels/countries.json", b'{"a": [["1_0"]]}', "a.0.0: Input should be a valid integer"),
        ("pseudo_labels/countries.json", b'{"a": [[1.5]]}', "a.0.0: Input should be a valid integer"),
        ("pseudo_labels/countries.json", b'{"a": [[9999999999]]}', "a.0.0: Input should be less than 2147483648"),
        ("loss_weight/countries.json", b'[["1_0"]]', "countries.json: 0.0: Input should be a valid number"),
        ("loss_weight/countries.json", b"[[NaN]]", "0.0: Input should be a finite number"),
        ("s2_cells/countries.csv", b"country\nx\n", "no column class_label"),
        *(
            (
                "s2_cells/countries.csv",
                f"class_label,country\n0,Chile\n\n{text},Peru\n".encode(),
                "row 4, column class_label",
            )
            for text in ("1_0", "１", "1.5", "x", "9999999999", "nan")
        ),
    ],
)
def test_a_wrong_table_is_named(tmp_path, name, content, said):
    root = data(tmp_path)
    write(root, {name: content, "val/val.csv": b"IMG_ID\n"})
    with pytest.raises(UserError, match=said):
        read(OPTIONS, tmp_path)


def test_a_class_is_a_whole_number_spaces_round_it_aside(tmp_path):
    root = data(tmp_path)
    write(root, {"s2_cells/countries.csv": b"class_label,country\n0,Chile\n 1.0 ,Peru\n"})
    write(root, {"train/train.csv": f"IMG_ID\n{PANO}_1.png\n".encode(), f"train/images/{PANO}_1.png": b"x"})
    ((photo,), _) = split(read(OPTIONS, tmp_path))
    assert (photo.attributes["class_label"], photo.attributes["loss_weight"]) == (1, 2.0)
