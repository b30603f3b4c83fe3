"""Photos of the very same bytes."""

import io

import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_photos import encoded, gps, image, project, write

from geoloc_core.corpora import manifest
from geoloc_core.corpora.ingest import ingest
from geoloc_core.corpora.photo import Photo, Source
from geoloc_core.corpora.sources import countries, photos
from geoloc_core.corpora.twins import SHOWN, Claim, Twins
from geoloc_core.files import digest, read_json

TABLE = photos.Options(kind="photos", table="t.csv")


def corpus(root, rows: list[tuple[str, int, object, object]], **more):
    """A project whose table says where each photo, made of its seed, was taken; ingested."""
    made = project(root, TABLE, **more)
    table = "path,latitude,longitude\n" + "".join(f"{name},{lat},{lon}\n" for name, _, lat, lon in rows)
    write(made.raw("c"), {"t.csv": table.encode(), **{name: encoded(seed) for name, seed, _, _ in rows}})
    ingest(made, "c")
    folder = made.corpus("c")
    refused = pd.read_parquet(folder / "rejects.parquet").set_index("image_id")
    return made, pd.read_parquet(folder / "manifest.parquet")["image_id"].tolist(), refused


def test_one_picture_at_three_places_was_taken_at_none_of_them(tmp_path):
    rows = [("0.jpg", 7, 48.85, 2.35), ("1.jpg", 7, -33.9, 151.2), ("b.jpg", 8, 1, 2), ("2.jpg", 7, 40.7, -74)]
    made, kept, refused = corpus(tmp_path, rows)
    assert kept == ["b.jpg"]
    assert refused["reason"].to_dict() == dict.fromkeys(["0.jpg", "1.jpg", "2.jpg"], "conflicting_places")
    assert refused.at["0.jpg", "detail"] == (
        "at 48.85, 2.35, but the same bytes as 1.jpg (-33.9, 151.2), 2.jpg (40.7, -74); "
        "expected places within 1 km of each other"
    )
    assert "0.jpg (48.85, 2.35), 2.jpg" in refused.at["1.jpg", "detail"]
    (shard,) = manifest.shards(made.corpus("c"))
    assert list(manifest.read_photos(shard)) == [[encoded(8)]]
    assert pq.read_table(made.corpus("c") / "attributes.parquet")["image_id"].to_pylist() == ["b.jpg"]
    summary = read_json(made.summary("ingest", "c"))
    assert (summary["seen"], summary["kept"], summary["reasons"]) == (4, 1, {"conflicting_places": 3})


def test_what_is_told_of_photos_is_told_of_the_kept_ones(tmp_path, capfd):
    """Of twins at two places neither is kept; of those that agree the second is none of its own."""
    made = project(tmp_path, TABLE.model_copy(update={"heading_column": "heading"}))
    rows = ["a.png,7,1,north", "b.png,7,50,south", "c.png,8,1,east", "d.png,8,1,west", "e.png,9,1,90"]
    table = "path,latitude,longitude,heading\n" + "".join(
        f"{name},{latitude},2,{heading}\n" for name, _, latitude, heading in (row.split(",") for row in rows)
    )
    photos = {name: encoded(int(seed)) for name, seed, *_ in (row.split(",") for row in rows)}
    write(made.raw("c"), {"t.csv": table.encode(), **photos})
    ingest(made, "c")
    assert pd.read_parquet(made.corpus("c") / "manifest.parquet")["image_id"].tolist() == ["c.png", "e.png"]
    summary = read_json(made.summary("ingest", "c"))
    assert (summary["unusable"], summary["mislabelled"]) == ({"heading": 1}, {"JPEG named .png": 2})
    assert "for example t.csv row 4: 'east'" in " ".join(capfd.readouterr().err.split())


@pytest.mark.parametrize(("km", "kept"), [(0, []), (0.1, []), (0.12, ["a.jpg"]), (1, ["a.jpg"])])
def test_places_agree_within_some_distance(tmp_path, km, kept):
    """0.001° of latitude are 111 m."""
    rows = [("a.jpg", 7, 48.85, 2.35), ("b.jpg", 7, 48.851, 2.35), ("z.jpg", 9, 1, 2)]
    _, found, refused = corpus(tmp_path, rows, same_place_km=km)
    assert found == [*kept, "z.jpg"]
    assert refused["reason"].unique().tolist() == ["duplicate" if kept else "conflicting_places"]
    assert "the same bytes as a.jpg" in refused.at["b.jpg", "detail"]


def test_the_date_line_parts_no_twins(tmp_path):
    _, kept, _ = corpus(tmp_path, [("a.jpg", 1, 5, 179.9999), ("b.jpg", 1, 5, -179.9999)])
    assert kept == ["a.jpg"]


def test_what_is_left_is_what_would_be_there_without_the_contradictions(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest.ShardWriter.__init__, "__defaults__", (4000,))
    true = [(f"{n:02}.jpg", n, n + 1, 2) for n in range(40)]
    false = [(f"{n:02}{which}.jpg", 100 + n, 10 + 20 * (which == "y"), 2) for n in range(0, 40, 3) for which in "xy"]
    both = sorted(true + false)
    one, *_ = corpus(tmp_path / "one", true)
    other, kept, refused = corpus(tmp_path / "other", both)
    assert kept == [name for name, *_ in true]
    assert len(manifest.shards(one.corpus("c"))) > 3
    assert set(refused["reason"]) == {"conflicting_places"}
    for name in ("manifest.parquet", "attributes.parquet", "shards"):
        assert digest(one.corpus("c") / name) == digest(other.corpus("c") / name)
    assert sorted(path.name for path in other.corpus("c").iterdir()) == [
        "attributes.parquet",
        "checksums.json",
        "manifest.parquet",
        "rejects.parquet",
        "shards",
    ]


def test_one_picture_in_two_countries_was_taken_in_neither(tmp_path):
    made = project(tmp_path, countries.Options(kind="countries", images="."))
    write(made.raw("c"), {"France/a.jpg": encoded(1), "Chad/b.jpg": encoded(1), "Chad/c.jpg": encoded(2)})
    write(made.raw("c"), {"Chad/d.jpg": encoded(2)})
    ingest(made, "c")
    refused = pd.read_parquet(made.corpus("c") / "rejects.parquet").set_index("image_id")
    assert refused["reason"].to_dict() == {
        "Chad/b.jpg": "conflicting_places",
        "Chad/d.jpg": "duplicate",
        "France/a.jpg": "conflicting_places",
    }
    assert "at TCD, but the same bytes as France/a.jpg (FRA)" in refused.at["Chad/b.jpg", "detail"]


def test_a_benchmark_keeps_each_of_its_rows(tmp_path):
    rows = [("a.jpg", 1, 1, 2), ("b.jpg", 1, 1, 2), ("c.jpg", 1, 50, 60)]
    made, kept, refused = corpus(tmp_path, rows, role="benchmark")
    assert kept == ["a.jpg", "b.jpg", "c.jpg"]
    assert refused.empty
    assert list(manifest.read_photos(*manifest.shards(made.corpus("c")))) == [[encoded(1)] * 3]


def test_many_twins_are_counted_and_a_few_named():
    twins = Twins(1)
    for number in range(9):
        assert twins.add(b"x", Claim(f"{number}", float(number), 0.0)) == (number == 0)
    found = list(twins.settle())
    assert [row for row, _ in found] == [0, *[None] * 8]
    assert all("2.jpg" not in refusal.detail for _, refusal in found)
    assert all(f"and {8 - SHOWN} more" in refusal.detail for _, refusal in found)


claims = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from([0.0, 0.001, 40.0, None]), st.sampled_from(["FRA", None]))
)


@given(claims)
def test_each_photo_is_kept_or_refused_and_contradictions_are_never_kept(found):
    twins, kept = Twins(1), []
    for number, (seed, latitude, country) in enumerate(found):
        if twins.add(bytes([seed]), Claim(str(number), latitude, latitude and 5.0, country)):
            kept.append(str(number))
    settled = list(twins.settle())
    lost = {kept[row] for row, _ in settled if row is not None}
    refused = [refusal.image_id for _, refusal in settled]
    assert refused == sorted(refused, key=int)
    assert sorted([*(set(kept) - lost), *refused], key=int) == [str(number) for number in range(len(found))]
    for seed in range(5):
        same = [(str(n), latitude) for n, (of, latitude, _) in enumerate(found) if of == seed]
        apart = bool(same) and any(
            latitude is not None and same[0][1] is not None and abs(latitude - same[0][1]) > 1 for _, latitude in same
        )
        assert {name for name, _ in same} <= set(refused) if apart else len({n for n, _ in same} - set(refused)) <= 1


def with_place(seed: int, latitude: float, longitude: float) -> bytes:
    stream = io.BytesIO()
    tags = gps((latitude, 0.0, 0.0), (longitude, 0.0, 0.0))
    image(seed).save(stream, "JPEG", exif=tags)
    return stream.getvalue()


def test_a_row_without_a_place_leaves_it_to_the_photo_and_a_wrong_one_does_not(tmp_path):
    made = project(tmp_path, TABLE)
    rows = "path,latitude,longitude\na.jpg,,\nb.jpg,1,2\nc.jpg,,\nd.jpg,99,2\ne.jpg,,3\nf.jpg, ,\ng.jpg,,\n"
    data = {f"{name}.jpg": with_place(number, 40, 50) for number, name in enumerate("abdef")}
    data |= {"c.jpg": encoded(20), "g.jpg": with_place(30, 0, 0)}
    write(made.raw("c"), {"t.csv": rows.encode(), **data})
    ingest(made, "c")
    kept = pd.read_parquet(made.corpus("c") / "manifest.parquet").set_index("image_id")
    assert kept[["latitude", "longitude"]].T.to_dict("list") == {
        "a.jpg": [40, 50],
        "b.jpg": [1, 2],
        "f.jpg": [40, 50],
    }
    refused = pd.read_parquet(made.corpus("c") / "rejects.parquet").set_index("image_id")
    assert refused["reason"].to_dict() == {
        "c.jpg": "no_coordinates",
        "d.jpg": "bad_coordinates",
        "e.jpg": "bad_coordinates",
        "g.jpg": "bad_coordinates",
    }
    assert refused.at["c.jpg", "detail"].startswith("t.csv row 4: latitude ''")
    assert refused.at["c.jpg", "detail"].endswith("no GPS position in EXIF")


def test_the_memory_of_what_waits_is_bounded(monkeypatch):
    """Photos that are read ahead of the decoders."""
    from geoloc_core.corpora import ingest as module

    taken = []
    monkeypatch.setattr(module, "MAX_WAITING_BYTES", 1000)
    monkeypatch.setattr(module, "BATCH_BYTES", 400)

    def items():
        for number in range(50):
            taken.append(number)
            yield Photo(str(number), bytes(400), "x.jpg", "g")

    source = Source(items(), None)
    for done, _ in enumerate(module._checked(source, 1e6)):
        assert len(taken) - done <= 5
