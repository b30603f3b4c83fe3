import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from geoloc_core import parquet
from geoloc_core.contracts.truth import ATTRIBUTE
from geoloc_core.corpora import manifest
from geoloc_core.corpora.truth import TRUTH, read, truth
from geoloc_core.errors import UserError
from geoloc_core.files import digest
from geoloc_core.project import Project
from tests.geoloc_core.made_answers import VARIANTS, make_project, profile, write_corpus


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path)


def test_it_holds_the_places_the_units_and_the_split_row_by_row(project):
    found = pd.read_parquet(project.truth("mp16"))
    photos = pd.read_parquet(project.corpus("mp16") / "manifest.parquet")
    labels = pd.read_parquet(project.labels("mp16"))
    units = ["gid_0", "gid_1", "gid_2", "split"]
    assert list(found) == ["image_id", "group_id", "latitude", "longitude", "place_id", "heading", "attributes", *units]
    assert not any(map(len, found.pop("attributes"))), "none is the class of a variant"
    for name in found:
        pd.testing.assert_series_equal(found[name], (photos if name in photos else labels)[name])
    summary = json.loads(project.summary("truth", "mp16").read_text())
    assert summary == {"rows": 40, "placed": 38, "country_only": 1, "published": 42}
    assert pq.read_schema(project.truth("mp16")).metadata[b"geoloc.published"] == b"42"


def test_what_no_score_needs_does_not_change_it(project):
    before = digest(project.truth("mp16"))
    photos = manifest.read_manifest(project.corpus("mp16")).to_pandas().assign(author="ann", width=9)
    labels = manifest.read_table(project.labels("mp16"), manifest.LABELS).to_pandas().assign(name_0="Anywhere")
    for frame, path, schema in (
        (photos, project.corpus("mp16") / "manifest.parquet", manifest.MANIFEST),
        (labels, project.labels("mp16"), manifest.LABELS),
    ):
        manifest.write_table(manifest.pa.Table.from_pandas(frame, schema, preserve_index=False), path, schema)
    truth(project, "mp16")
    assert digest(project.truth("mp16")) == before
    labels = labels.assign(gid_0="KEN")
    table = manifest.pa.Table.from_pandas(labels, manifest.LABELS, preserve_index=False)
    manifest.write_table(table, project.labels("mp16"), manifest.LABELS)
    truth(project, "mp16")
    assert digest(project.truth("mp16")) != before


def test_what_lies_beside_a_corpus_was_not_published(project):
    path = project.corpus("mp16") / "rejects.parquet"
    rejects = manifest.read_table(path, manifest.REJECTS).to_pandas()
    stray = [("Thumbs.db", "not_a_photo", "x"), ("extra.jpg", "no_metadata", "x"), ("row 7", "bad_row", "x")]
    more = pd.concat([rejects, pd.DataFrame(stray, columns=rejects.columns)])
    manifest.write_table(
        manifest.pa.Table.from_pandas(more, manifest.REJECTS, preserve_index=False), path, manifest.REJECTS
    )
    truth(project, "mp16")
    assert json.loads(project.summary("truth", "mp16").read_text())["published"] == 43


def test_a_corpus_that_is_not_in_the_profile_is_refused(project):
    write_corpus(project, "crawl", np.random.default_rng(3))
    with pytest.raises(UserError, match="corpus 'crawl': not in the profile in use; expected one of: mp16"):
        truth(project, "crawl")
    assert not project.truth("crawl").exists()


def test_labels_of_other_photos_are_refused_and_nothing_is_lost(project):
    before = digest(project.truth("im2gps"))
    rows = manifest.read_table(project.labels("im2gps"), manifest.LABELS)
    manifest.write_table(rows.take(list(range(39, -1, -1))), project.labels("im2gps"), manifest.LABELS)
    with pytest.raises(UserError, match=r"im2gps\.parquet: does not match the manifest; run `geoloc label im2gps`"):
        truth(project, "im2gps")
    assert digest(project.truth("im2gps")) == before


def test_it_has_the_types_of_what_it_is_made_of(project):
    assert pq.read_schema(project.truth("mp16")).equals(TRUTH)


def learning(project, labels, attributes, columns):
    """The project with a variant that learns an attribute of its corpus, which has these columns."""
    ids = manifest.read_manifest(project.corpus("mp16"), ["image_id"])
    table = pa.table({"image_id": ids["image_id"], **columns})
    parquet.write(table, project.corpus("mp16") / "attributes.parquet")
    block = VARIANTS["by_country"].model_copy(update={"labels": labels, "benchmarks": ("im2gps",)})
    return Project(project.root, profile(variants={"v": block}, attributes=attributes))


def test_attributes_that_are_classes_are_in_it_as_text(project):
    squares, cities = [None, *range(39)], [f"City {n // 4}" if n % 7 else None for n in range(40)]
    made = learning(project, "square", ("city", "square"), {"square": pa.array(squares, pa.int32()), "city": cities})
    parquet.write(pa.table({"image_id": ["x"]}), project.corpus("im2gps") / "attributes.parquet")
    truth(made, "mp16")
    expected = [None, *map(str, range(39))]
    assert read(made, "mp16", ["gid_0"], "square").column_names == ["gid_0", ATTRIBUTE]
    assert read(made, "mp16", ["gid_0"], "square")[ATTRIBUTE].to_pylist() == expected
    assert read(made, "mp16", ["gid_0"], "country").column_names == ["gid_0"]
    assert read(made, "mp16", [], "city")[ATTRIBUTE].null_count == 40, "nobody learns it"
    truth(made, "im2gps")
    assert read(made, "im2gps", [], "square")[ATTRIBUTE].null_count == 40, "a benchmark need not have it"


def test_several_attributes_stay_apart(project):
    columns = {"city": [f"c{n}" for n in range(40)], "square": list(range(40))}
    made = learning(project, "square", ("city", "square"), columns)
    other = made.profile.variants["v"].model_copy(update={"labels": "city"})
    made = Project(made.root, profile(variants={**made.profile.variants, "w": other}, attributes=("city", "square")))
    truth(made, "mp16")
    for name, values in columns.items():
        assert read(made, "mp16", [], name)[ATTRIBUTE].to_pylist() == [str(value) for value in values]


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"city": ["x"] * 40}, r"attributes\.parquet: no column 'square', which a variant learns; expected `labels`"),
        ({"square": [[1]] * 40}, r"attributes\.parquet: column 'square': .*expected text or numbers"),
        ({"square": [b"\xff"] * 40}, r"attributes\.parquet: column 'square': .*expected text or numbers"),
    ],
)
def test_an_attribute_that_cannot_be_learned_is_said_in_one_line(project, columns, says):
    before = digest(project.truth("mp16"))
    with pytest.raises(UserError, match=says) as said:
        truth(learning(project, "square", ("square",), columns), "mp16")
    assert "\n" not in str(said.value)
    assert digest(project.truth("mp16")) == before
