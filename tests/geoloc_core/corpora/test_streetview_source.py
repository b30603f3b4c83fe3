from datetime import datetime

from made_layouts import split
from made_photos import encoded, write

from geoloc_core.corpora.sources.streetview import Options, read

OPTIONS = Options(kind="streetview")
HEADER = "path,pano_id,latitude,longitude,heading,date,copyright\n"


def test_a_row_says_where_when_and_which_way(tmp_path):
    rows = "images/p/0.jpg,p,1.5,2.5,0,2016-05,© G\nimages/p/90.jpg,p,1.5,2.5,450,2016-05-03,\n"
    write(tmp_path, {"panoramas.csv": (HEADER + rows).encode(), "images/p/0.jpg": encoded(0), "images/x.jpg": b""})
    write(tmp_path, {"images/p/90.jpg": encoded(1)})
    (one, two), refused = split(read(OPTIONS, tmp_path))
    assert (one.latitude, one.heading, one.group_id, one.captured_at) == (1.5, 0, "p", datetime(2016, 5, 1))
    assert (two.heading, two.captured_at) == (90, datetime(2016, 5, 3))
    assert one.attributes == {"pano_id": "p", "month": 5, "copyright": "© G"}
    assert [(item.image_id, item.reason.value) for item in refused] == [("images/x.jpg", "no_metadata")]


def test_half_a_turn_is_refused_where_a_whole_one_is_asked_for(tmp_path):
    rows = "".join(f"{pano}/{h}.jpg,{pano},1,2,{h},\n" for pano in "ab" for h in (0, 90, 180, 270))
    write(tmp_path, {"panoramas.csv": (HEADER.replace(",copyright", "") + rows).encode()})
    write(tmp_path, {f"a/{h}.jpg": encoded(h) for h in (0, 90, 180, 270)} | {"b/0.jpg": encoded(5)})
    photos, refused = split(read(OPTIONS.model_copy(update={"views": 4}), tmp_path))
    assert [(p.image_id, p.flaw and p.flaw[0].value) for p in photos if p.flaw] == [("b/0.jpg", "excluded")]
    assert sum(p.flaw is None for p in photos) == 4
    assert {item.reason.value for item in refused} == {"missing"}


def test_without_any_heading_no_panorama_is_a_whole_turn(tmp_path):
    write(tmp_path, {"panoramas.csv": (HEADER + "a.jpg,p,1,2,east,,\n").encode(), "a.jpg": encoded(0)})
    (photo,), _ = split(read(OPTIONS.model_copy(update={"views": 4}), tmp_path))
    assert photo.flaw == ("excluded", "panorama p has 0 headings; 4 are asked for")


def test_a_heading_or_date_that_is_none_is_left_out_and_said(tmp_path):
    rows = "a.jpg,p,1,2,east,2016-13,\nb.jpg,p,1,2,,,\n"
    write(tmp_path, {"panoramas.csv": (HEADER + rows).encode(), "a.jpg": encoded(0), "b.jpg": encoded(1)})
    (one, two), _ = split(read(OPTIONS, tmp_path))
    assert (one.heading, one.captured_at, one.attributes["month"]) == (None, None, None)
    assert one.unusable["heading"].startswith("panoramas.csv row 2: 'east'")
    assert one.unusable["captured_at"].startswith("panoramas.csv row 2: '2016-13'")
    assert (two.heading, two.captured_at, two.unusable) == (None, None, {})


def test_a_column_called_as_an_attribute_of_ours_is_kept_beside_it(tmp_path):
    rows = "a/0.jpg,a,1,2,0,2016-05,May,x\n"
    header = HEADER.replace("copyright", "month,image_id")
    write(tmp_path, {"panoramas.csv": (header + rows).encode(), "a/0.jpg": encoded(0)})
    source = read(OPTIONS, tmp_path)
    (one,), _ = split(source)
    assert one.attributes == {"pano_id": "a", "month": 5, "table_month": "May", "table_image_id": "x"}
    assert source.attributes.names == list(one.attributes)
