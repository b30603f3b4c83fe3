from datetime import datetime

import numpy as np
import pytest
from made_layouts import split
from made_photos import encoded, write

from geoloc_core.corpora.photo import Reason
from geoloc_core.corpora.sources.us_grid import Options, read
from geoloc_core.errors import UserError

OPTIONS = Options(kind="us_grid")
REAL = "0+40.529828,-124.2680351"


def test_names_say_square_place_heading_and_month(tmp_path):
    write(tmp_path / "dataCombined", {f"{REAL}/{h}_2012-05.jpg": encoded(h) for h in (0, 90, 180)})
    np.save(tmp_path / "trainFiles.npy", np.array([REAL]))
    photos, refused = split(read(OPTIONS, tmp_path))
    assert not refused
    assert [photo.heading for photo in photos] == [0, 180, 90]
    assert {(p.latitude, p.longitude, p.group_id) for p in photos} == {
        (40.529828, -124.2680351, "40.529828,-124.2680351")
    }
    assert {photo.captured_at for photo in photos} == {datetime(2012, 5, 1)}
    assert photos[0].attributes == {"square": 0, "published_split": "train"}


def test_a_month_of_no_year_is_named(tmp_path):
    write(tmp_path / "dataCombined", {f"{REAL}/90_0000-05.jpg": encoded(1)})
    ((photo,), _) = split(read(OPTIONS, tmp_path))
    assert (photo.heading, photo.captured_at) == (90, None)
    assert photo.unusable["captured_at"].startswith(f"{REAL}/90_0000-05.jpg: '0000-05'; expected a date")


def test_folders_as_they_were_before_they_were_combined(tmp_path):
    write(tmp_path, {"7/40.5,-124.2/90_2019-11.jpg": encoded(1)})
    (photo,) = split(read(OPTIONS.model_copy(update={"images": "."}), tmp_path))[0]
    assert (photo.attributes["square"], photo.latitude, photo.heading) == (7, 40.5, 90)


def test_every_file_is_kept_or_refused(tmp_path):
    names = {
        f"{REAL}/0_2012-05.jpg": None,
        f"{REAL}/360_2012-05.jpg": "no_metadata",
        f"{REAL}/0_2012-13.jpg": "no_metadata",
        f"{REAL}/0.jpg": "no_metadata",
        f"{REAL}/0_2012-05.txt": "not_a_photo",
        "1+40.5/0_2012-05.jpg": "no_metadata",
        "0_2012-05.jpg": "no_metadata",
    }
    write(tmp_path / "dataCombined", dict.fromkeys(names, b"x"))
    write(tmp_path / "dataCombined", {"2+95.0,0.0/0_2012-05.jpg": b"x"})
    photos, refused = split(read(OPTIONS, tmp_path))
    assert {r.image_id: r.reason.value for r in refused} == {name: said for name, said in names.items() if said}
    assert {p.image_id: p.flaw and p.flaw[0] for p in photos} == {
        f"{REAL}/0_2012-05.jpg": None,
        "2+95.0,0.0/0_2012-05.jpg": Reason.BAD_COORDINATES,
    }


@pytest.mark.parametrize("spoilt", [np.array([{"a": 1}], dtype=object), np.array([1, 2])])
def test_a_list_is_never_unpickled(tmp_path, spoilt):
    write(tmp_path / "dataCombined", {f"{REAL}/0_2012-05.jpg": encoded(1)})
    np.save(tmp_path / "testFiles.npy", spoilt, allow_pickle=True)
    with pytest.raises(UserError, match=r"testFiles\.npy: (not a NumPy array of text|not an array of text)"):
        read(OPTIONS, tmp_path)
