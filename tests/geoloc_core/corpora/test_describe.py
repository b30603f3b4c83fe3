import re

import pandas as pd
import pyarrow as pa
import pytest
from made_photos import dms, encoded, gps, located, project, write
from PIL import Image

from geoloc_core.corpora import manifest
from geoloc_core.corpora.describe import describe
from geoloc_core.corpora.ingest import ingest
from geoloc_core.errors import UserError


@pytest.fixture
def made(tmp_path):
    made = project(tmp_path)
    made.profile.demo = False
    dated = {
        f"{n}.jpg": encoded(
            n,
            exif=gps(
                dms(40 + n),
                dms(n),
                ifd_36867=f"20{10 + n % 3}:01:02 03:04:05",
                tag_315="ann" if n else "ben",
                tag_33432="CC|BY",
            ),
        )
        for n in range(20)
    }
    write(made.raw("c"), {**dated, "plain.jpg": located(50), "cut.jpg": located(51)[:300], "empty.jpg": b""})
    ingest(made, "c")
    return made


def sheet(made) -> str:
    describe(made, "c")
    return made.datasheet("c").read_text()


def test_a_datasheet_counts_what_is_there_missing_and_refused(made, capfd):
    text = sheet(made)
    told = capfd.readouterr().err
    for line in (
        "21 photos, role: train, read as `photos`.",
        "| seen | 23 |",
        "| refused | 2 |",
        "| authors | 2 |",
        "| photos per author | 1 … 10 … 19 |",
        "| captured_at | 1 | 4.8% |",
        "| truncated | 1 | 50.0% |",
        r"| CC\|BY | 20 | 100.0% |",
        "| 2010 | 7 | 35.0% |",
        "| 2012 | 6 | 30.0% |",
    ):
        assert line in text, line
        assert all(cell.strip(" |\\") in told for cell in line.split("|") if "photos" not in cell)
    assert "Countries" not in text
    assert not re.search(r"\bann\b", text), "authors are not named"
    assert Image.open(made.datasheet("c").with_suffix(".png")).size[0] > 300
    assert "(c.png)" in text


def label(made) -> pa.Table:
    """Labels of the 21 photos: two in the first of twenty countries, one in each of the others."""
    rows = manifest.read_manifest(made.corpus("c"), ["image_id"]).to_pandas()
    frame = pd.DataFrame(dict.fromkeys(manifest.LABELS.names), index=rows.index)
    countries = [f"Land {n:02}" for n in range(20)]
    frame = frame.assign(image_id=rows["image_id"], split="train", name_0=["Land 00", *countries])
    made.labels("c").parent.mkdir()
    table = pa.Table.from_pandas(frame, manifest.LABELS, preserve_index=False)
    manifest.write_table(table, made.labels("c"), manifest.LABELS)
    return table


def test_labels_add_countries_and_splits(made):
    label(made)
    text = sheet(made)
    assert "| train | 21 | 100.0% |" in text
    assert "| Land 00 | 2 | 9.5% |" in text
    assert "| 5 more | 5 | 23.8% |" in text


@pytest.mark.parametrize("rows", [[*range(20)], [*range(20), 19], [*range(20, -1, -1)]])
def test_labels_of_another_manifest_are_refused_and_the_datasheet_stays(made, rows):
    labels = label(made)
    before = sheet(made)
    manifest.write_table(labels.take(rows), made.labels("c"), manifest.LABELS)
    with pytest.raises(UserError, match=r"c\.parquet: does not match the manifest; run `geoloc label c` again$"):
        describe(made, "c")
    assert made.datasheet("c").read_text() == before


def test_the_same_corpus_has_the_same_datasheet(made):
    first = sheet(made), made.datasheet("c").with_suffix(".png").read_bytes()
    assert (sheet(made), made.datasheet("c").with_suffix(".png").read_bytes()) == first


def test_what_is_not_there_is_named(made):
    with pytest.raises(UserError, match=r"corpus 'x': not in the profile in use"):
        describe(made, "x")
    (made.corpus("c") / "manifest.parquet").unlink()
    with pytest.raises(UserError, match="no such file; expected the manifest"):
        describe(made, "c")
