import pytest
from made_layouts import split
from made_photos import encoded, write

from geoloc_core.corpora.sources.uk_grid import Options, read
from geoloc_core.errors import UserError

OPTIONS = Options(kind="uk_grid")
TOWNS = b"town,latitude,longitude\nThatcham,51.404,-1.265\nHermitage,51.451,-1.269\n"
FAR = b"town,latitude,longitude\nLerwick,60.154,-1.145\n"


def test_a_place_is_in_the_nearest_town_of_its_square(tmp_path):
    write(tmp_path, {"towns/108.csv": TOWNS, "towns/218.csv": FAR, "images/108+51.45,-1.27/90_2019-05.jpg": encoded(1)})
    write(tmp_path, {"images/218+51.45,-1.27/0_2019-05.jpg": encoded(2), "images/9+51.0,-1.0/0_2019-05.jpg": b"x"})
    photos, refused = split(read(OPTIONS, tmp_path))
    assert not refused
    found = {p.attributes["square"]: (p.attributes["town"], p.heading, p.group_id) for p in photos}
    assert found == {
        9: (None, 0, "51.0,-1.0"),
        108: ("Hermitage", 90, "51.45,-1.27"),
        218: ("Lerwick", 0, "51.45,-1.27"),
    }
    away = {p.attributes["square"]: p.attributes["town_km"] for p in photos}
    assert away[9] is None
    assert away[108] == pytest.approx(0.13, abs=0.01)
    assert away[218] == pytest.approx(968, rel=0.01)


def test_folders_beside_the_lists(tmp_path):
    write(tmp_path, {"towns/7.csv": TOWNS, "7/51.45,-1.27/90_2019-05.jpg": encoded(1), "notes.txt": b"x"})
    photos, refused = split(read(OPTIONS.model_copy(update={"images": "."}), tmp_path))
    assert [photo.attributes["town"] for photo in photos] == ["Hermitage"]
    assert [(item.image_id, item.reason.value) for item in refused] == [("notes.txt", "not_a_photo")]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"town,latitude,longitude\nBath,x,1\n", r"108\.csv row 2: latitude 'x'"),
        (b"town,latitude,longitude\n,51.4,-2.4\n", r"108\.csv row 2: no name"),
        (b"town,latitude,longitude\n", r"108\.csv: no town"),
        (b"town,latitude\n", r"108\.csv: no column longitude"),
    ],
)
def test_a_list_that_is_wrong_is_named(tmp_path, text, says):
    write(tmp_path, {"towns/108.csv": text, "images/108+51.45,-1.27/90_2019-05.jpg": encoded(1)})
    with pytest.raises(UserError, match=says):
        read(OPTIONS, tmp_path)


def test_lists_are_asked_for(tmp_path):
    write(tmp_path, {"images/108+51.45,-1.27/90_2019-05.jpg": encoded(1)})
    with pytest.raises(UserError, match="towns: no list of towns; expected a CSV per square"):
        read(OPTIONS, tmp_path)
